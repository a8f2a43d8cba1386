"""A node: its parts, wired together. Nothing else does that.

```
run_node
├── log              its committer thread, retention and scrub; outermost, so that it closes last
└── parts            one nursery, shielded from being cancelled out of order
    ├── security     reads certificates and policies again, warns of those that expire
    ├── metrics      if wanted
    ├── dns          if wanted; answers once the membership has joined
    ├── replicator   a nursery of peers, from which this node pulls what they have
    ├── news         tells clients that watch the servers of what happens to members
    ├── server       gRPC; given the log, the replicator and the membership
    ├── agent RPC    if wanted: the protocol of Serf's tools
    ├── handlers     if wanted: what is run for events of the membership
    └── membership   gossip; tells the others where the server is, and the replicator of them
```

Cancelling `run_node`, or telling the node to leave over gRPC, stops it in order: it leaves the cluster, the server
takes nothing more, ends what is under way and closes every connection (each step with its own bound), then the log
commits what it accepted and closes.
"""

import contextlib
import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import structlog
import trio
from attrs import define, frozen

from proglog_trio._proto.log.v1 import GetStatusResponse
from proglog_trio.address import Address
from proglog_trio.errors import DirectoryCopied
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.log.log import Log
from proglog_trio.log.opening import open_log
from proglog_trio.membership import (
    Membership,
    MemberStatus,
    NotAMember,
    bind_membership,
)
from proglog_trio.node.agent_parts import AgentParts
from proglog_trio.node.config import LARGEST_MESSAGE_BYTES, NodeConfig
from proglog_trio.node.isolation import Isolation
from proglog_trio.node.parts_config import (
    MESSAGE_OVERHEAD_BYTES,
    dns_config,
    gossip_config,
    log_config,
    log_service_config,
    server_config,
)
from proglog_trio.node.security import NodeSecurity, load_security
from proglog_trio.node.start_retries import StartRetries
from proglog_trio.node.stopping import Stopping
from proglog_trio.node.tags import Members, failed_servers, own_tags, servers
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.messages import Hello
from proglog_trio.replication.peers.directories_file import read_directories
from proglog_trio.replication.replica import Replica, ReplicationConfig
from proglog_trio.replication.replicator import Replicator, log_event
from proglog_trio.rpc.calls.pull_stream import PullStream, fetch_frames
from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop
from proglog_trio.rpc.http2.transport_config import TransportConfig
from proglog_trio.rpc.server.cluster_service import ClusterService
from proglog_trio.rpc.server.handlers import ServerCounters
from proglog_trio.rpc.server.log_service import LogService, open_log_service
from proglog_trio.rpc.server.replication_service import ReplicationService
from proglog_trio.rpc.server.server import MAX_REST_BYTES, serve
from proglog_trio.rpc.server.status_report import MAX_FAILED, FailedPeer, status_of

if TYPE_CHECKING:
    from proglog_trio.node.metrics import NodeMetrics

PEER_KEEPALIVE_SECONDS = 5.0
"""A peer that does not answer a PING for so long is connected to anew; its origins come from others before that."""

HIGHEST_PORT = 65_535

_logger = structlog.get_logger(__name__)


@frozen
class RunningNode:
    """A node that is ready.

    Attributes:
        name: what it is called.
        rpc_address: what clients dial.
        gossip_address: what other members send gossip to.
        data_dir: where its log is, absolute.
        lowest_offset, next_offset: what the log held when it was opened: [lowest, next).
        reload: reads certificates, keys and policies again; returns at once.
        metrics_address: where its figures are, if they are anywhere.
        dns_address: where it answers questions of DNS, if it does.
        agent_rpc_address: where it takes the commands of Serf's tools, if it does.
    """

    name: str
    rpc_address: Address
    gossip_address: Address
    data_dir: Path
    lowest_offset: int
    next_offset: int
    reload: Callable[[], None]
    metrics_address: Address | None = None
    dns_address: Address | None = None
    agent_rpc_address: Address | Path | None = None


async def run_node(
    config: NodeConfig,
    *,
    counted: Mapping[str, Any] | None = None,
    task_status: trio.TaskStatus[RunningNode] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a node until it is cancelled or told to leave; see above for how it stops.

    Args:
        config: what it is told.
        counted: what the program around it counts (attrs classes), for the metrics, by the name of their part.
        task_status: is given the node once it takes requests and gossips.

    What may pass is tried again for `start_timeout` before it is raised.

    Raises:
        DataDirectoryError: the data directory cannot be used.
        DataDirectoryLost: it was removed or replaced while the node ran.
        TlsError, AccessPolicyError, KeyringFileError: a file for security cannot be used.
        AddressUnavailable: the node cannot listen at an address, as when another process does.
        NameTaken: another member of the cluster has the node's name.
        DirectoryCopied: a member of the cluster uses a copy of the data directory, and was started before.
        TagsTooLarge: there is no room for all tags of the node.
        TagsFileError: what was changed of them cannot be read.
    """
    errors = InternalErrors()
    retries = StartRetries(config.start_timeout)
    security = await retries.until_it_works(partial(_load_security, config, errors))
    async with asyncio_loop(errors), contextlib.AsyncExitStack() as stack:
        log = await retries.until_it_works(lambda: stack.enter_async_context(open_log(log_config(config), errors)))
        stopping = Stopping()
        membership: Membership
        # Each needs the other: the membership is made with the replicator, which asks for it only while both run.
        members = Members(lambda: membership)
        hello = Hello(config.cluster_name, config.node_name, log.directory_id, log.opening)
        local = LocalNode(log, hello, trio.current_time, log_event, errors=errors)
        replicator = await _replicator(config, security, local, members, stopping)
        membership = await retries.until_it_works(
            partial(
                bind_membership,
                gossip_config(config, security.keyring),
                # Told to nobody before the server listens, whose port it is then; the longest one has to fit as well.
                own_tags(
                    config.cluster_name,
                    log,
                    log.opening,
                    config.rpc_address(config.rpc_port or HIGHEST_PORT),
                    config.tag,
                ),
                handler=replicator,
                errors=errors,
            )
        )
        alive = partial(servers, membership, config.cluster_name)
        isolation = Isolation(lambda: len(alive()), config.cluster_size, bool(config.start_join_addrs))
        parts = _Parts(
            config, security, log, membership, members, replicator, isolation, errors, retries, stopping, counted or {}
        )
        try:
            async with open_log_service(
                log,
                alive,
                log_service_config(config),
                replicator.replica,
                server_id=config.node_name,
                failed=partial(failed_servers, membership, config.cluster_name),
            ) as service:
                await parts.run(service, task_status)
        finally:
            await membership.close()
            _logger.info("server stopped; closing the log")


async def _load_security(config: NodeConfig, errors: InternalErrors) -> NodeSecurity:
    return load_security(config, errors)


@define(eq=False)
class _Parts:
    """The parts of a node in their nursery, which are started and stopped in order.

    Attributes:
        log: open for as long as this runs, and longer: it closes last.
        membership: bound to its sockets; it gossips only once the server listens, whose address its tags say.
        stopping: what begins the stop; nothing else ends the nursery.
        counted: what the program around the node counts, by part, for the metrics.
        rpc_address: what clients dial; None before the server listens.
    """

    config: NodeConfig
    security: NodeSecurity
    log: Log
    membership: Membership
    members: Members
    replicator: Replicator
    isolation: Isolation
    errors: InternalErrors
    retries: StartRetries
    stopping: Stopping
    counted: Mapping[str, Any]
    rpc_address: Address | None = None

    async def run(self, service: LogService, task_status: trio.TaskStatus[RunningNode]) -> None:
        async with trio.open_nursery() as watch:
            # The shield keeps a cancellation from ending the parts all at once; this task sees it for them.
            watch.start_soon(self._watch_for_cancellation)
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as parts:
                    node = None
                    with self.stopping.starting:
                        node = await self._start(parts, service)
                    if node is not None:
                        task_status.started(node)
                        await self.stopping.begun.wait()
                        await self._leave()
                    parts.cancel_scope.cancel()
            watch.cancel_scope.cancel()
        if self.stopping.copied_by is not None:
            raise DirectoryCopied(self.stopping.copied_by)

    async def _watch_for_cancellation(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.stopping.begin()

    async def _start(self, parts: trio.Nursery, service: LogService) -> RunningNode:
        config, membership = self.config, self.membership
        await self.retries.until_it_works(partial(membership.learn_host, config.start_join_addrs))
        agent = AgentParts.of(config, membership, self.stopping.begin, self.errors)
        parts.start_soon(self.security.run)
        await parts.start(self.replicator.run)
        parts.start_soon(service.news.follow, membership.change_after, self.errors)
        status = partial(self.status, service)
        cluster = ClusterService(
            membership, config.bind_addr.port, self.stopping.begin, status, self.replicator.accept_gaps
        )
        replication = ReplicationService(self.replicator.replica, service.state.executor)
        counters = ServerCounters()
        counted, joined = dict(self.counted), trio.Event()
        dns_address = None
        if config.dns_addr is not None:
            # late: dnslib takes a while to load
            from proglog_trio.dns import DnsCounters, serve_dns

            counted["dns"] = dns_counters = DnsCounters()
            answering = partial(
                serve_dns,
                dns_config(config, config.dns_addr, membership.address.host),
                membership,
                self.errors,
                dns_counters,
                joined=joined,
            )
            dns_address = await self.retries.until_it_works(lambda: parts.start(answering))
        metrics_address = None
        if config.metrics_addr is not None:
            # late: what serves figures takes a while to load, and is not needed otherwise
            from proglog_trio.node.metrics_endpoint import serve_metrics

            metrics = self._metrics(service, counters, {**agent.counters, **counted})
            serving_metrics = partial(serve_metrics, metrics.registry(), config.metrics_addr, self.errors)
            metrics_address = await self.retries.until_it_works(lambda: parts.start(serving_metrics))
        serving = partial(
            serve,
            [service, cluster, replication],
            config=server_config(config),
            counters=counters,
            security=self.security.server,
            errors=self.errors,
            cluster_name=config.cluster_name,
        )
        _, port = await self.retries.until_it_works(
            lambda: parts.start(serving, membership.bound_host, config.rpc_port)
        )
        rpc_address = self.rpc_address = config.rpc_address(port, membership.address.host)
        membership.set_tags(own_tags(config.cluster_name, self.log, self.replicator.opened, rpc_address, config.tag))
        agent_rpc_address = await self.retries.until_it_works(lambda: agent.start(parts))
        await parts.start(partial(membership.run, config.start_join_addrs, name_patience=self.retries.left))
        joined.set()
        parts.start_soon(self.isolation.watch, self.errors)
        gossip = membership.address
        _logger.info("node is ready", node_name=config.node_name, rpc_addr=str(rpc_address), gossip_addr=str(gossip))
        return RunningNode(
            config.node_name,
            rpc_address,
            gossip,
            config.data_dir.absolute(),
            self.log.lowest_offset,
            self.log.next_offset,
            self.security.reloader.reload,
            metrics_address,
            dns_address,
            agent_rpc_address,
        )

    def _metrics(self, service: LogService, counters: ServerCounters, counted: Mapping[str, Any]) -> "NodeMetrics":
        from proglog_trio.node.metrics import NodeMetrics

        server = self.security.server
        return NodeMetrics(
            log=self.log,
            membership=self.membership,
            server=counters,
            service=service.counters,
            gate=None if server is None or server.gate is None else server.gate.counters,
            expiries=self.security.expiries,
            errors=self.errors,
            isolation=lambda: self.isolation.problem,
            peer_clocks=self.replicator.replica.peer_clocks_ahead,
            others={"replication": self.replicator.replica.node.counters, **counted},
        )

    async def _leave(self) -> None:
        if self.config.no_leave_on_terminate:
            return
        with trio.move_on_after(self.config.leave_timeout) as scope, self.errors.boundary(Where.STOPPING):
            try:
                await self.membership.leave()
            except NotAMember as error:
                _logger.warning("no member could be told that this node leaves", reason=str(error))
        if scope.cancelled_caught:
            _logger.warning("not all members could be told that this node leaves", after=self.config.leave_timeout)

    def status(self, service: LogService) -> GetStatusResponse:
        """Return what this node has, and what the others are known to have."""
        members = self.members
        statuses = self.membership.statuses()
        failed = [name for name, each in statuses.items() if each is MemberStatus.FAILED]
        peers = [
            FailedPeer(name, address, members.directory_of(name))
            for name in sorted(failed)[:MAX_FAILED]
            if (address := members.rpc_address_of(name)) is not None
        ]
        return status_of(
            self.replicator,
            str(self.rpc_address),
            self.config.cluster_size,
            service.counters,
            failed=peers,
            statuses=statuses,
            isolation=self.isolation.problem,
            unverified_gossip=self.membership.unverified,
        )


async def _replicator(
    config: NodeConfig, security: NodeSecurity, node: LocalNode, members: Members, stopping: Stopping
) -> Replicator:
    kept = await trio.to_thread.run_sync(read_directories, node.log)
    replication = ReplicationConfig(origin_retention_seconds=config.origin_retention)
    connection = attrs.evolve(
        security.peer_connection(),
        max_rest_bytes=MAX_REST_BYTES,
        transport=TransportConfig(
            message_bytes=LARGEST_MESSAGE_BYTES + MESSAGE_OVERHEAD_BYTES,
            keepalive_seconds=PEER_KEEPALIVE_SECONDS,
            keepalive_timeout_seconds=PEER_KEEPALIVE_SECONDS,
        ),
    )
    return Replicator(
        lambda host: Replica(node, replication, host, kept, members.round_trip_to),
        partial(PullStream, connection),
        partial(fetch_frames, connection, config.cluster_name),
        random.SystemRandom(),
        members,
        stopping.begin_as_copy,
    )
