"""What a node says of its log, and of how far the others are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.log.format.clock import clamped
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.membership import MemberStatus
from proglog_trio.replication.peer_task import PeerTask
from proglog_trio.replication.peers.lag import lag_of
from proglog_trio.replication.replica import Replica
from proglog_trio.replication.replicator import Replicator
from proglog_trio.rpc.messages.text import sendable
from proglog_trio.rpc.server.log_service_state import LogServiceCounters

MAX_RANGES = 100
"""So many ranges of what is missing in one origin are named."""
MAX_NAMED = 50
MAX_FAILED = 100
"""Failed peers that are told of."""
STATUS_MESSAGES = {
    MemberStatus.ALIVE: log_v1.MemberStatus.ALIVE,
    MemberStatus.LEAVING: log_v1.MemberStatus.LEAVING,
    MemberStatus.LEFT: log_v1.MemberStatus.LEFT,
    MemberStatus.FAILED: log_v1.MemberStatus.FAILED,
}


@attrs.frozen
class FailedPeer:
    """A peer that is not there, of which this node knows where it was."""

    name: str
    rpc_addr: str
    directory_id: bytes | None


def status_of(
    replicator: Replicator,
    rpc_addr: str,
    cluster_size: int | None,
    service_counters: LogServiceCounters,
    failed: Sequence[FailedPeer] = (),
    statuses: Mapping[str, MemberStatus] | None = None,
    isolation: str | None = None,
    unverified_gossip: str | None = None,
) -> log_v1.GetStatusResponse:
    """Return what a node says of itself and its peers.

    Args:
        replicator: knows the peers that are there, and the log.
        rpc_addr: where this node takes RPCs.
        cluster_size: how many nodes the cluster is meant to have, if that is known.
        service_counters: are told with the log's.
        failed: the peers that are not there, and may come back.
        statuses: of the members, by their names.
        isolation: that the node is alone, or with few, in words; None: it is not.
        unverified_gossip: that the gossip key keeps nobody out, in words; None: it does, or there is none.
    """
    replica = replicator.replica
    log, hello = replica.node.log, replica.node.hello
    return log_v1.GetStatusResponse(
        node_name=hello.node_name,
        cluster_name=hello.cluster_name,
        cluster_size=cluster_size or 0,
        rpc_addr=rpc_addr,
        directory_id=hello.directory_id,
        lowest_offset=log.lowest_offset,
        next_offset=log.next_offset,
        read_only_reason=log.read_only_reason or "",
        origins=[_origin(replica, origin, state) for origin, state in sorted(log.origins.items())],
        peers=_peers(replicator, failed, statuses or {}),
        counters=_counters(replica, [log.counters, replica.node.counters, service_counters]),
        time=log_v1.Time(
            wall_clock=clamped(log.wall_clock()),
            log_time_ahead=log.log_time_ahead,
            running=log.running_time.milliseconds(),
            retention_overdue=log.retention.overdue_milliseconds,
        ),
        copies=[
            log_v1.DirectoryCopy(name=sendable(name), is_alive=is_alive)
            for name, is_alive in sorted(replicator.copies.items())
        ],
        isolation=isolation or "",
        unverified_gossip=unverified_gossip or "",
    )


def _counters(replica: Replica, counted: Sequence[attrs.AttrsInstance]) -> dict[str, int]:
    counters = {name: number for each in counted for name, number in attrs.asdict(each).items()}
    counters["acknowledgements_waiting"] = replica.holdings.acknowledgements.waiting
    damage = replica.node.log.damage
    # Each place once, however often it was met; what is left is what no peer had.
    counters["damage_found"], counters["damage_repaired"] = damage.found, damage.repaired
    counters["damage_left"] = damage.left
    return counters


def _origin(replica: Replica, origin: Origin, state: OriginState) -> log_v1.OriginStatus:
    node, peers = replica.node, replica.peers
    assignment = replica.scheduler.plan.assigned.get(origin)
    showing = [peer.ranges[origin] for peer in peers.showing_more(origin, state.next)]
    # what retention dropped at a peer cannot be had from it
    behind = max((held.next - max(held.low, state.next) for held in showing), default=0)
    writer = peers.writer_of(origin)
    written_by = node.hello.node_name if origin == node.writing else "" if writer is None else writer.name
    return log_v1.OriginStatus(
        origin=origin.data,
        low=state.low,
        next=state.next,
        written_by=sendable(written_by),
        pulled_from=sendable(assignment.peer) if assignment is not None else "",
        behind=behind,
        missing=sum(following - first for first, following in state.gaps),
        missing_at_present=[
            log_v1.MissingRange(
                from_sequence=each.from_sequence,
                to_sequence=each.to_sequence,
                may_have=[
                    sendable(known.node_name)
                    for known in peers.may_have(origin, each.from_sequence, each.to_sequence)[:MAX_NAMED]
                ],
            )
            for each in state.missing[:MAX_RANGES]
        ],
    )


def _peers(
    replicator: Replicator, failed: Sequence[FailedPeer], statuses: Mapping[str, MemberStatus]
) -> list[log_v1.PeerStatus]:
    told = [_peer(replicator.replica, peer, statuses.get(name)) for name, peer in replicator.peers.items()]
    told += [
        log_v1.PeerStatus(
            name=sendable(peer.name),
            rpc_addr=sendable(peer.rpc_addr),
            directory_id=peer.directory_id or b"",
            problem="the member has failed",
            member_status=log_v1.MemberStatus.FAILED,
        )
        for peer in failed[:MAX_FAILED]
        if peer.name not in replicator.peers
    ]
    return sorted(told, key=lambda peer: peer.name)


def _peer(replica: Replica, peer: PeerTask, status: MemberStatus | None) -> log_v1.PeerStatus:
    view = replica.peers.views[peer.name]
    lag = lag_of(replica.node.log.origins, view)
    return log_v1.PeerStatus(
        name=sendable(peer.name),
        rpc_addr=sendable(peer.address),
        directory_id=view.directory_id or b"",
        connected=view.connected,
        problem=sendable(peer.problem or ""),
        member_status=log_v1.MemberStatus.UNSPECIFIED if status is None else STATUS_MESSAGES[status],
        peer_behind=lag.peer_behind,
        node_behind=lag.node_behind,
        places=[
            log_v1.OriginPlace(origin=origin.data, low=held.low, next=held.next)
            for origin, held in sorted(view.ranges.items())
        ],
        clock=_peer_clock(replica, peer.name),
    )


def _peer_clock(replica: Replica, name: str) -> log_v1.PeerClock | None:
    clocks = replica.clocks.peers
    reading = clocks.reading_of(name, replica.node.clock())
    if reading is None:
        return None
    return log_v1.PeerClock(ahead=reading.ahead, uncertainty=reading.uncertainty, is_off=clocks.is_off(name))
