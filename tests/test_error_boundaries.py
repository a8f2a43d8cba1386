"""Whatever raises something unforeseen in a node: the node goes on, it is counted, and the others are served.

Two nodes in one process, in a thread of their own, are shared by all places: each place is broken, what runs there is
provoked until that was counted, and after it was mended both nodes must do all that they did before.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import queue
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from attrs import define, field, frozen

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.address import Address
from proglog_trio.client import ConsumerConfig, open_consumer, open_producer
from proglog_trio.errors import CallFailed, ProglogError
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.log import retention_service
from proglog_trio.log.log import Log
from proglog_trio.log.scrub import Scrub
from proglog_trio.log.storage.running_time import RunningTime
from proglog_trio.log.writer import LogWriter
from proglog_trio.membership import gossip as gossip_module
from proglog_trio.membership import key_manager
from proglog_trio.membership import subscriptions as subscriptions_module
from proglog_trio.membership.exchanges import Exchanges
from proglog_trio.membership.gossip import Gossip
from proglog_trio.membership.membership import JoinFailed, Membership
from proglog_trio.membership.peer_notifier import PeerNotifier
from proglog_trio.membership.serf.keys import KeyOperation
from proglog_trio.membership.serf.member import Member, MemberEvent, MemberEventKind, MemberStatus
from proglog_trio.membership.serf.members import Members
from proglog_trio.membership.stream_io import StreamCodec
from proglog_trio.membership.stream_server import StreamServer
from proglog_trio.membership.subscriptions import EventsMissed, _Subscription
from proglog_trio.membership.swim.effects import ExchangeState, PingByStream, SendByStream
from proglog_trio.membership.swim.prober import Prober
from proglog_trio.membership.swim.rules import Rules
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.node import metrics_endpoint
from proglog_trio.node import run as node_module
from proglog_trio.node.config import NodeConfig
from proglog_trio.node.metrics import NodeMetrics
from proglog_trio.node.run import RunningNode, _Parts, run_node
from proglog_trio.replication.advertiser import Advertiser
from proglog_trio.replication.peers.lag import LagWatch
from proglog_trio.replication.pull_plan import PullPlan
from proglog_trio.replication.pull_session import PullSession
from proglog_trio.replication.repairer import Repairer
from proglog_trio.replication.replica import Replica
from proglog_trio.replication.replicator import Replicator
from proglog_trio.replication.scheduler import Scheduler
from proglog_trio.replication.source_session import SourceSession
from proglog_trio.rpc.calls.cluster import get_members
from proglog_trio.rpc.calls.connection import open_connection
from proglog_trio.rpc.http2.bridge import current_loop
from proglog_trio.rpc.http2.events import TunedEventsProcessor
from proglog_trio.rpc.server.acceptor import Acceptor
from proglog_trio.rpc.server.handlers import ServerHandler
from proglog_trio.rpc.server.log_service import LogService
from proglog_trio.rpc.server.server import ServerProtocol, _Server
from proglog_trio.security.reloading import FromFiles
from tests.rpc.support import exchange as call_exchange

WAIT_SECONDS = 60
PRIVATE = "what is no client's business"
JOIN, LEAVE = MemberEventKind.JOIN, MemberEventKind.LEAVE


class UnforeseenError(Exception):
    pass


def fail(*_arguments: object, **_named: object) -> Any:
    raise UnforeseenError(PRIVATE)


@define(eq=False)
class Node:
    """A node and its inside."""

    running: RunningNode
    parts: _Parts
    loop: asyncio.AbstractEventLoop

    @property
    def gossip(self) -> Gossip:
        return self.parts.membership.gossip

    @property
    def errors(self) -> InternalErrors:
        return self.parts.errors

    @property
    def address(self) -> str:
        return str(self.running.rpc_address)


@define(eq=False)
class Pair:
    """Two nodes of one cluster. The first is the one that is broken; what is patched is patched in both."""

    a: Node
    b: Node
    produced: int = 0

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        with trio.move_on_after(WAIT_SECONDS) as scope:
            while not condition():  # noqa: ASYNC110 - there is no event for most of it
                await trio.sleep(0.005)
        assert not scope.cancelled_caught, f"not {what} within {WAIT_SECONDS} s"

    async def serve(self) -> None:
        """Check that all works: each stores, the other pulls; they see each other, and figures are served."""
        for node, other in ((self.a, self.b), (self.b, self.a)):
            with trio.fail_after(WAIT_SECONDS):
                async with open_producer(node.address) as producer:
                    await (await producer.send(b"x")).wait()
                async with open_consumer(node.address, ConsumerConfig(follow=False)) as consumer:
                    assert (await anext(aiter(consumer))).value == b"x"
                assert b"proglog_members{" in await figures(node)
                self.produced += 1
                log = other.parts.log
                await self.until(lambda log=log: log.next_offset >= self.produced, "pulled")  # type: ignore[misc]
        before = [self.probes(node) for node in (self.a, self.b)]
        for node, probes in zip((self.a, self.b), before, strict=True):
            await self.until(partial(self.sees_all, node), "seen by the other")
            await self.until(lambda node=node, probes=probes: self.probes(node) > probes, "probing")  # type: ignore[misc]

    def probes(self, node: Node) -> int:
        return node.gossip.core.swim.rules.counters.probes

    def sees_all(self, node: Node) -> bool:
        alive = {member.name for member in node.parts.membership.members() if member.status is MemberStatus.ALIVE}
        peers = node.parts.replicator.peers
        return {"a", "b"} <= alive and all(node.parts.replicator.replica.peers.views[name].connected for name in peers)


async def figures(node: Node, method: bytes = b"GET") -> bytes:
    address = node.running.metrics_address
    assert address is not None
    async with await trio.open_tcp_stream(address.host, address.port) as stream:
        await stream.send_all(method + b" /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
        return b"".join([data async for data in stream])


# -- what provokes -----------------------------------------------------------------------------------------------------


async def nothing(_pair: Pair) -> None:
    """What is broken happens by itself."""


async def gossip_stream(pair: Pair) -> None:
    endpoint = pair.a.gossip.endpoint
    async with await trio.open_tcp_stream(endpoint.host, endpoint.port) as stream:
        await stream.send_all(b"\xff")


async def exchange(pair: Pair) -> None:
    target = pair.b.gossip.endpoint
    pair.a.gossip.core.swim.effects.append(ExchangeState(target, "b"))
    pair.a.gossip.flush()


async def ping_by_stream(pair: Pair) -> None:
    pair.a.gossip.core.swim.effects.append(PingByStream(pair.b.gossip.endpoint, "b", 1, 1.0))
    pair.a.gossip.flush()


async def message_by_stream(pair: Pair) -> None:
    pair.a.gossip.core.swim.effects.append(SendByStream(pair.b.gossip.endpoint, b"x"))
    pair.a.gossip.flush()


async def set_tags(pair: Pair) -> None:
    parts = pair.b.parts
    tags = {member.name: member.tags for member in parts.membership.members()}["b"]
    parts.membership.set_tags({**tags, "random": str(random.random())})


def ghost(pair: Pair, kind: MemberEventKind) -> None:
    status = MemberStatus.ALIVE if kind is JOIN else MemberStatus.LEFT
    member = Member("ghost", "127.0.0.1", 9, {"rpc_addr": "127.0.0.1:9"}, status)
    pair.a.parts.membership.news.emit(MemberEvent(kind, (member,)))


async def ghost_comes(pair: Pair) -> None:
    ghost(pair, JOIN)


async def ghost_goes(pair: Pair) -> None:
    ghost(pair, LEAVE)
    await pair.until(lambda: "ghost" not in pair.a.parts.replicator.peers, "gone")


async def subscriber(pair: Pair) -> None:
    """Break one subscriber, and see that another is told."""
    membership = pair.a.parts.membership
    bad: Any = attrs.make_class("Bad", {"send_nowait": attrs.field(), "close": attrs.field()}, eq=False)
    broken = _Subscription(bad(fail, lambda: None))
    membership.news.subscriptions._open.add(broken)
    async with membership.events() as events:
        ghost(pair, JOIN)
        with trio.fail_after(WAIT_SECONDS):
            event = await anext(events)
            assert isinstance(event, MemberEvent)
            assert event.members[0].name == "ghost"
    assert broken.missed
    assert broken not in membership.news.subscriptions._open


async def all_subscribers(pair: Pair) -> None:
    async with pair.a.parts.membership.events() as events:
        ghost(pair, JOIN)
        with trio.fail_after(WAIT_SECONDS), pytest.raises(EventsMissed):
            await anext(events)


async def join(pair: Pair) -> None:
    endpoint = pair.b.gossip.endpoint
    with pytest.raises(JoinFailed, match="internal error"):
        await pair.a.parts.membership.join([Address(endpoint.host, endpoint.port)])


async def keys(pair: Pair) -> None:
    manager = pair.a.gossip.keys
    assert manager is not None
    answers = await manager.ask(KeyOperation.LIST)
    assert answers.problems["a"] == "internal error"


async def metrics(pair: Pair) -> None:
    assert b"500" in (await figures(pair.a)).splitlines()[0]
    assert b"500" in (await figures(pair.a, b"HEAD")).splitlines()[0]


async def metrics_part(pair: Pair) -> None:
    answer = await figures(pair.a)
    assert b"200" in answer.splitlines()[0]
    assert b"proglog_members{" not in answer
    assert b"proglog_log_next_offset" in answer
    assert b'proglog_internal_errors_total{where="metrics_collector"}' in answer


async def unary(pair: Pair) -> None:
    with pytest.raises(ProglogError) as caught:
        await get_members(pair.a.address, 5.0)
    assert "internal error" in str(caught.value)
    assert PRIVATE not in str(caught.value)


async def stream(pair: Pair) -> None:
    async with open_connection(pair.a.address) as connection:
        with pytest.raises(CallFailed) as caught:
            await connection.run(call_exchange, "ConsumeStream", [log_v1.ConsumeRequest(offset=0)])
    assert caught.value.status == "INTERNAL"
    assert PRIVATE not in str(caught.value)


async def produce(pair: Pair) -> None:
    async with open_producer(pair.a.address) as producer:
        await (await producer.send(b"x")).wait()
    pair.produced += 1


async def produce_at_the_other(pair: Pair) -> None:
    """What the first node has to pull."""
    async with open_producer(pair.b.address) as producer:
        await (await producer.send(b"x")).wait()
    pair.produced += 1


async def pull_again(pair: Pair) -> None:
    """A pull that fails is opened anew."""
    before = pair.a.errors.counts[Where.PEER]
    await produce_at_the_other(pair)
    await pair.until(lambda: pair.a.errors.counts[Where.PEER] > before + 1, "opened again")


async def connect(pair: Pair) -> None:
    """A connection that is closed before it was answered."""
    host, port = pair.a.running.rpc_address.host, pair.a.running.rpc_address.port
    async with await trio.open_tcp_stream(host, port) as opened:
        with contextlib.suppress(trio.BrokenResourceError):
            await opened.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
            while await opened.receive_some():
                pass


async def callback(pair: Pair) -> None:
    pair.a.loop.call_soon(fail)


async def timer(pair: Pair) -> None:
    pair.a.loop.call_later(0.001, fail)


async def task(pair: Pair) -> None:
    async def failing() -> None:
        fail()

    tasks: list[asyncio.Future[None]] = []
    pair.a.loop.call_soon(lambda: tasks.append(asyncio.ensure_future(failing())))
    await pair.until(lambda: bool(tasks) and tasks[0].done(), "over")
    # asyncio tells it when the task is gone; where something still leads to it, only a collection does that
    tasks.clear()
    gc.collect()


async def no_exception(pair: Pair) -> None:
    pair.a.loop.call_exception_handler({"message": "a task was left behind"})


async def tick(pair: Pair) -> None:
    pair.a.parts.replicator._timer.wake()


async def decide(pair: Pair) -> None:
    await produce_at_the_other(pair)  # there may be no origin yet
    replica = pair.a.parts.replicator.replica
    replica.scheduler.plan.touch_all()
    replica.scheduler.decide()


async def watcher(pair: Pair) -> None:
    """Watchers of the log, and one who waits for room, fail beside others that do not."""
    log, called = pair.a.parts.log, list[int]()
    forget = [log.notify_durable(fail), log.notify_durable(lambda: called.append(1))]
    await produce(pair)
    for each in forget:
        each()
    assert called
    log.notify_room(fail)


async def repair(pair: Pair) -> None:
    pair.a.parts.replicator.repairer.look_again()


async def reload(pair: Pair) -> None:
    reloader = pair.a.parts.security.reloader
    values: Any = reloader.values
    read: list[str] = []
    values[:] = [FromFiles("bad", [], None, fail, ()), FromFiles("good", [], None, lambda: read.append("good"), ())]
    values[1].on_change(fail)
    values[1].on_change(lambda: read.append("told"))
    reloader.reload()
    await pair.until(lambda: "told" in read, "read")
    values.clear()
    assert pair.a.errors.counts[Where.SECURITY_RELOAD] >= 2


# -- the places --------------------------------------------------------------------------------------------------------


@frozen
class Place:
    """Where something is broken.

    Attributes:
        where: as what it is counted.
        patches: what raises there: an object and its attribute.
        provoke: has it happen.
        after: cleans up, once it is mended.
    """

    where: Where
    patches: tuple[tuple[Any, str], ...] = ()
    provoke: Callable[[Pair], Awaitable[None]] = nothing
    after: Callable[[Pair], Awaitable[None]] = nothing
    patch: Callable[..., Any] = field(default=fail)


async def refuse(*_arguments: object, **_named: object) -> Any:
    raise OSError(errno.EBADMSG, "nobody expects this of accept")


PLACES = {
    "packet": Place(Where.GOSSIP_PACKET, ((Gossip, "_receive_packet"),)),
    "the packets of one wake-up": Place(Where.GOSSIP_PACKET, ((Gossip, "_receive_waiting"),)),
    "message of a packet": Place(Where.GOSSIP_MESSAGE, ((Prober, "ping"),)),
    "answer to a probe": Place(Where.GOSSIP_MESSAGE, ((Prober, "_succeed"),)),
    "member of a state": Place(Where.GOSSIP_MESSAGE, ((Rules, "alive"), (Rules, "suspect")), exchange),
    "intent of a state": Place(Where.GOSSIP_MESSAGE, ((Members, "join_intent"),), exchange),
    "timer: the next to probe": Place(Where.GOSSIP_TIMER, ((Prober, "_next_node"),)),
    "timer: a probe begins": Place(Where.GOSSIP_TIMER, ((Prober, "_begin"),)),
    "timekeeper": Place(Where.GOSSIP_TIMER, ((Gossip, "flush"),)),
    "effect": Place(Where.GOSSIP_SEND, ((Gossip, "_do"),)),
    "packet out": Place(Where.GOSSIP_SEND, ((gossip_module, "encode_packets"),)),
    "news of a member": Place(Where.GOSSIP_NEWS, ((Members, "changed"),), set_tags),
    "event": Place(Where.GOSSIP_NEWS, ((PeerNotifier, "note"),), set_tags),
    "stream of another": Place(Where.GOSSIP_STREAM, ((StreamServer, "_serve"),), gossip_stream),
    "accepting streams": Place(Where.GOSSIP_STREAM, ((trio.SocketListener, "accept"),), gossip_stream, patch=refuse),
    "push/pull": Place(Where.GOSSIP_EXCHANGE, ((StreamCodec, "ask"),), exchange),
    "ping by stream": Place(Where.GOSSIP_EXCHANGE, ((StreamCodec, "ask"),), ping_by_stream),
    "message by stream": Place(Where.GOSSIP_EXCHANGE, ((StreamCodec, "tell"),), message_by_stream),
    "handler": Place(Where.MEMBERSHIP_HANDLER, ((Replicator, "join"),), ghost_comes, ghost_goes),
    "subscriber": Place(Where.MEMBERSHIP_SUBSCRIBER, (), subscriber, ghost_goes),
    "all subscribers": Place(
        Where.MEMBERSHIP_SUBSCRIBER, ((subscriptions_module, "together"),), all_subscribers, ghost_goes
    ),
    "join": Place(Where.MEMBERSHIP_JOIN, ((Exchanges, "exchange"),), join),
    "key operation": Place(Where.GOSSIP_KEYS, ((key_manager, "changed"),), keys),
    "metrics request": Place(Where.METRICS_REQUEST, ((metrics_endpoint, "choose_encoder"),), metrics),
    "metrics of one part": Place(Where.METRICS_COLLECTOR, ((NodeMetrics, "_members"),), metrics_part),
    "unary request": Place(Where.RPC_REQUEST, ((Membership, "names"),), unary),
    "request for a stream": Place(Where.RPC_REQUEST, ((Log, "reader_at_offset"), (Log, "reader_at_position")), stream),
    "request before its method": Place(Where.RPC_REQUEST, ((ServerHandler, "_accept"),), unary),
    "source": Place(Where.RPC_REQUEST, ((SourceSession, "next_response"),), produce),
    "connection that begins": Place(Where.RPC_CONNECTION, ((ServerProtocol, "_begin"),), connect),
    "connection": Place(Where.RPC_CONNECTION, ((TunedEventsProcessor, "process"),), connect),
    "connection that is made": Place(Where.RPC_ACCEPT, ((ServerProtocol, "__init__"),), connect),
    "handler of a connection": Place(Where.RPC_CONNECTION, ((_Server, "new_handler"),), connect),
    "accepting connections": Place(Where.RPC_ACCEPT, ((Acceptor, "_make_room"),), connect),
    "callback of asyncio": Place(Where.ASYNCIO, (), callback),
    "timer of asyncio": Place(Where.ASYNCIO, (), timer),
    "task of asyncio": Place(Where.ASYNCIO, (), task),
    "error without an exception": Place(Where.ASYNCIO, (), no_exception),
    "pull": Place(Where.PEER, ((PullSession, "received"),), produce_at_the_other),
    "opening a pull": Place(Where.PEER, ((PullSession, "received"), (Replica, "open_pull")), pull_again),
    "replicator's tick": Place(Where.REPLICATION, ((Scheduler, "advance"),), tick),
    "decision about one origin": Place(Where.REPLICATION, ((PullPlan, "_decide"),), decide),
    "telling one session": Place(Where.REPLICATION, ((Advertiser, "note"),), produce),
    "watcher of the log": Place(Where.LOG_CALLBACK, (), watcher),
    "lag watch": Place(Where.LAG_WATCH, ((LagWatch, "look"),)),
    "lag of one peer": Place(Where.LAG_WATCH, ((LagWatch, "_change"),)),
    "retention": Place(Where.RETENTION, ((retention_service, "removable"),)),
    "running time": Place(Where.RUNNING_TIME, ((RunningTime, "note"),)),
    "scrub": Place(Where.SCRUB, ((Scrub, "step"),)),
    "repair": Place(Where.REPAIR, ((Repairer, "_repair_all"),), repair),
    "reading files again": Place(Where.SECURITY_RELOAD, (), reload),
}


@define(eq=False)
class Portal:
    """What runs functions among the nodes."""

    pair: Pair
    token: trio.lowlevel.TrioToken

    def run(self, function: Callable[[Pair], Awaitable[None]]) -> None:
        trio.from_thread.run(function, self.pair, trio_token=self.token)


def configuration(directory: Path, name: str, **options: Any) -> NodeConfig:
    return NodeConfig(
        data_dir=directory / name,
        node_name=name,
        bind_addr=Address("127.0.0.1", 0),
        rpc_port=0,
        metrics_addr=Address("127.0.0.1", 0),
        gossip_profile="local",
        gossip_settings=(("probe_interval", 0.25), ("probe_timeout", 0.1)),
        retention_bytes=1 << 40,
        leave_timeout=2.0,
        **options,
    )


@contextlib.asynccontextmanager
async def inside(patch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, tuple[_Parts, asyncio.AbstractEventLoop]]]:
    """Have the insides of nodes that are started, by their names."""
    found: dict[str, tuple[_Parts, asyncio.AbstractEventLoop]] = {}
    run = _Parts.run

    async def noting(self: _Parts, *arguments: Any) -> None:
        found[self.config.node_name] = (self, current_loop.get())
        await run(self, *arguments)

    patch.setattr(_Parts, "run", noting)
    yield found


async def run_pair(directory: Path, patch: pytest.MonkeyPatch, opened: queue.Queue[Portal], done: trio.Event) -> None:
    key = Keyring.from_base64(["AAECAwQFBgcICQoLDA0ODw=="]).to_base64()[0]
    async with inside(patch) as found, trio.open_nursery() as nursery:
        a = await nursery.start(run_node, configuration(directory, "a", encrypt=key))
        b = await nursery.start(
            run_node, configuration(directory, "b", encrypt=key, start_join_addrs=(a.gossip_address,))
        )
        pair = Pair(Node(a, *found["a"]), Node(b, *found["b"]))
        await pair.until(lambda: len(a_peers(pair)) == 1 and pair.sees_all(pair.a) and pair.sees_all(pair.b), "formed")
        opened.put(Portal(pair, trio.lowlevel.current_trio_token()))
        await done.wait()
        nursery.cancel_scope.cancel()


def a_peers(pair: Pair) -> Any:
    return pair.a.parts.replicator.peers


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    """Both nodes, for all places; stopped in order at the end."""
    opened: queue.Queue[Portal] = queue.Queue()
    failures: list[BaseException] = []
    done = trio.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retention_service, "RETENTION_INTERVAL_SECONDS", 0.02)
        patch.setattr(retention_service, "RUNNING_TIME_SECONDS", 0.02)
        config_of = node_module.log_config
        patch.setattr(
            node_module, "log_config", lambda config: attrs.evolve(config_of(config), scrub_interval_seconds=0.1)
        )

        def run() -> None:
            try:
                trio.run(run_pair, tmp_path_factory.mktemp("pair"), patch, opened, done)
            except BaseException as error:  # noqa: BLE001 - raised below, in the thread of the test
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            portal = opened.get(timeout=WAIT_SECONDS)
            yield portal
            portal.token.run_sync_soon(done.set)
        finally:
            thread.join(WAIT_SECONDS)
    assert not failures


@pytest.mark.parametrize("name", PLACES)
def test_what_is_unforeseen_ends_nothing_else(
    name: str, portal: Portal, monkeypatch: pytest.MonkeyPatch, internal_errors: list[tuple[Where, Exception]]
) -> None:
    place = PLACES[name]

    async def breaks(pair: Pair) -> None:
        before = pair.a.errors.counts[place.where]
        with monkeypatch.context() as patch:
            for owner, attribute in place.patches:
                patch.setattr(owner, attribute, place.patch)
            await place.provoke(pair)
            await pair.until(lambda: pair.a.errors.counts[place.where] > before, "counted")
        await place.after(pair)
        await pair.serve()

    portal.run(breaks)
    assert {where for where, _ in internal_errors} >= {place.where}
    text = [str(error) for where, error in internal_errors if where is place.where]
    assert set(text) <= {PRIVATE, "a task was left behind", f"[Errno {errno.EBADMSG}] nobody expects this of accept"}


def test_a_member_whose_address_is_none_is_no_internal_error(portal: Portal) -> None:
    """It is told in gossip, and anybody may gossip anything."""

    async def lies(pair: Pair) -> None:
        member = Member("liar", "127.0.0.1", 9, {"rpc_addr": "no address"}, MemberStatus.ALIVE)
        pair.a.parts.membership.news.emit(MemberEvent(JOIN, (member,)))
        peers = pair.a.parts.replicator.peers
        await pair.until(lambda: "liar" in peers and peers["liar"].problem is not None, "tried")
        assert "is none" in (peers["liar"].problem or "")
        for address in (f"{'x' * 70}.example:1", ":1", "a:99999", "[::1:1", "ä\x00:1"):
            member = attrs.evolve(member, tags={"rpc_addr": address})
            pair.a.parts.membership.news.emit(MemberEvent(MemberEventKind.UPDATE, (member,)))
            await pair.until(
                lambda address=address: (
                    "liar" in peers  # type: ignore[misc]
                    and peers["liar"].address == address
                    and peers["liar"].problem is not None
                ),
                "tried",
            )
        pair.a.parts.membership.news.emit(MemberEvent(LEAVE, (member,)))
        await pair.until(lambda: "liar" not in peers, "gone")
        await pair.serve()

    portal.run(lies)


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_what_fails_while_a_node_stops_does_not_keep_it_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, internal_errors: list[tuple[Where, Exception]]
) -> None:
    async with inside(monkeypatch) as found:
        async with trio.open_nursery() as nursery:
            await nursery.start(run_node, configuration(tmp_path, "a"))
            parts, _ = found["a"]
            monkeypatch.setattr(Membership, "leave", fail)
            monkeypatch.setattr(LogService, "drain", fail)
            monkeypatch.setattr(ServerHandler, "close", fail)
            async with open_connection(str(parts.rpc_address)):
                nursery.cancel_scope.cancel()
        assert parts.log.closing
    # Connections that close meanwhile close their handlers as well.
    assert Where.STOPPING in {where for where, _ in internal_errors} <= {Where.STOPPING, Where.RPC_CONNECTION}
    assert len(internal_errors) >= 2


@pytest.mark.parametrize("place", ["commit", "committed"])
async def test_a_committer_that_fails_ends_the_node(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[ProglogError] = []

    async def produce_at(node: RunningNode) -> None:
        try:
            async with open_producer(str(node.rpc_address)) as producer:
                await (await producer.send(b"x")).wait()
        except ProglogError as error:
            refused.append(error)

    async def run(found: dict[str, tuple[_Parts, asyncio.AbstractEventLoop]]) -> None:
        async with trio.open_nursery() as nursery:
            node: RunningNode = await nursery.start(run_node, configuration(tmp_path, "a"))
            if place == "commit":
                monkeypatch.setattr(LogWriter, "commit", fail)
            else:
                monkeypatch.setattr(type(found["a"][0].log.durable.tail_cache), "add", fail)
            nursery.start_soon(produce_at, node)

    async with inside(monkeypatch) as found:
        with pytest.RaisesGroup(UnforeseenError, flatten_subgroups=True):
            await run(found)
        log = found["a"][0].log
        assert log.read_only_reason is not None
        assert PRIVATE not in log.read_only_reason
        assert found["a"][0].errors.total == 0
