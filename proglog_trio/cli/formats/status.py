"""What a node says of its status, as JSON and as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from proglog_trio.log.format.clock import FURTHEST_AHEAD_MILLISECONDS

if TYPE_CHECKING:
    from proglog_trio._proto.log.v1 import GetStatusResponse, OriginStatus, PeerClock, PeerStatus, Time


MEMBER_STATUSES: Mapping[int, str] = {1: "alive", 2: "leaving", 3: "left", 4: "failed"}


def described_status(status: GetStatusResponse) -> dict[str, Any]:
    """Return all that a node said; what it did not say is None."""
    return {
        "node_name": status.node_name,
        "cluster_name": status.cluster_name,
        "cluster_size": status.cluster_size or None,
        "rpc_addr": status.rpc_addr,
        "directory_id": status.directory_id.hex(),
        "lowest_offset": status.lowest_offset,
        "next_offset": status.next_offset,
        "isolation": status.isolation or None,
        "unverified_gossip": status.unverified_gossip or None,
        "read_only_reason": status.read_only_reason or None,
        "origins": [_described_origin(origin) for origin in status.origins],
        "copies": [{"name": copy.name, "is_alive": copy.is_alive} for copy in status.copies],
        "peers": [{"name": peer.name, "rpc_addr": peer.rpc_addr, **described_peer(peer)} for peer in status.peers],
        "time": _described_time(status.time),
        "counters": dict(sorted(status.counters.items())),
    }


def _described_time(time: Time | None) -> dict[str, Any] | None:
    """Return what a node said of its clocks, in seconds; None: it is of a version that does not say."""
    if time is None:
        return None
    return {
        "wall_clock": time.wall_clock / 1000,
        "log_time_ahead": time.log_time_ahead / 1000,
        "running": time.running / 1000,
        "retention_overdue": time.retention_overdue / 1000,
    }


def _described_clock(clock: PeerClock | None) -> dict[str, Any] | None:
    if clock is None:
        return None
    return {"ahead": clock.ahead / 1000, "uncertainty": clock.uncertainty / 1000, "is_off": clock.is_off}


def described_peer(peer: PeerStatus) -> dict[str, Any]:
    """Return how far a peer is: its lag and its position, as far as the node that was asked knows."""
    return {
        "directory_id": peer.directory_id.hex() or None,
        "connected": peer.connected,
        "member_status": MEMBER_STATUSES.get(int(peer.member_status)),
        "problem": peer.problem or None,
        "peer_behind": peer.peer_behind,
        "node_behind": peer.node_behind,
        "clock": _described_clock(peer.clock),
        "places": [{"origin": place.origin.hex(), "low": place.low, "next": place.next} for place in peer.places],
    }


def _described_origin(origin: OriginStatus) -> dict[str, Any]:
    return {
        "origin": origin.origin.hex(),
        "low": origin.low,
        "next": origin.next,
        "written_by": origin.written_by or None,
        "pulled_from": origin.pulled_from or None,
        "behind": origin.behind,
        "missing": origin.missing,
        "missing_at_present": [
            {"from_sequence": each.from_sequence, "to_sequence": each.to_sequence, "may_have": list(each.may_have)}
            for each in origin.missing_at_present
        ],
    }


def status_lines(status: GetStatusResponse) -> Iterator[str]:
    """Yield what people read: the node, its log, a table of origins and a table of peers."""
    size = f"a cluster meant to have {status.cluster_size} nodes" if status.cluster_size else "no cluster size is set"
    yield f"node      {status.node_name}, RPC at {status.rpc_addr}, data directory {status.directory_id.hex()}"
    yield f"cluster   {status.cluster_name}; {size}"
    if status.isolation:
        yield f"cluster   ALONE OR WITH TOO FEW: {status.isolation}"
    if status.unverified_gossip:
        yield f"gossip    NOT PROTECTED BY ITS KEY: {status.unverified_gossip}"
    yield f"log       {_log_line(status)}"
    for line in _clock_lines(status):
        yield f"clock     {line}"
    for copy in status.copies:
        state = "uses" if copy.is_alive else "used"
        yield f"copy      {copy.name} {state} a copy of this node's data directory; one of the two ends"
    if status.origins:
        yield ""
        yield from aligned(
            [
                ("origin", "low", "next", "behind", "missing", "written by", "pulled from"),
                *(_origin_row(status.node_name, origin) for origin in status.origins),
            ],
            right=(1, 2, 3, 4),
        )
    if any(origin.missing_at_present for origin in status.origins):
        yield ""
        yield from missing_lines(status)
    yield ""
    if not status.peers:
        yield "no peers"
        return
    yield from aligned(
        [
            ("peer", "RPC", "it lacks", "lacked here", "pull stream"),
            *((peer.name, peer.rpc_addr, *_lag(peer), stream_state(peer)) for peer in status.peers),
        ],
        right=(2, 3),
    )


def is_warning(line: str) -> bool:
    """Tell whether a line of status_lines says that something is wrong, and stands for nothing else."""
    return line.startswith(("cluster   ALONE", "gossip    NOT", "clock     ", "copy      ")) or (
        line.startswith("log       ") and "; READ-ONLY: " in line
    )


def _lag(peer: PeerStatus) -> tuple[str, str]:
    """Say how many records a peer lacks and has more; of one that has failed nothing is known now."""
    if MEMBER_STATUSES.get(int(peer.member_status)) == "failed":
        return "-", "-"
    return str(peer.peer_behind), str(peer.node_behind)


def missing_lines(status: GetStatusResponse) -> Iterator[str]:
    """Yield what is missing at present, and who may have it."""
    rows = [
        (origin.origin.hex(), f"{each.from_sequence} to {each.to_sequence - 1}", ", ".join(each.may_have) or "nobody")
        for origin in status.origins
        for each in origin.missing_at_present
    ]
    if rows:
        yield from aligned([("origin", "missing at present", "may be at"), *rows])
    else:
        yield "nothing is missing"


def _clock_lines(status: GetStatusResponse) -> Iterator[str]:
    """Yield what is wrong with clocks; nothing if nothing is known to be."""
    time = status.time
    if time is not None and time.log_time_ahead > FURTHEST_AHEAD_MILLISECONDS:
        yield f"log time is {_span(time.log_time_ahead)} ahead of this node's wall clock, which is wrong, or was"
    if time is not None and time.retention_overdue:
        yield f"retention by age is {_span(time.retention_overdue)} late by the wall clock; it goes by running time"
    for peer in status.peers:
        if peer.clock is not None and peer.clock.is_off:
            direction = "ahead of" if peer.clock.ahead > 0 else "behind"
            yield f"the wall clock of {peer.name} is {_span(abs(peer.clock.ahead))} {direction} this node's"


def _span(milliseconds: int) -> str:
    """Return a length of time for people, in seconds, or as days, hours, minutes and seconds."""
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    return str(timedelta(seconds=round(seconds)))


def _log_line(status: GetStatusResponse) -> str:
    count = status.next_offset - status.lowest_offset
    held = f"offsets {status.lowest_offset} to {status.next_offset - 1}, {count} records" if count else "no records"
    if not count and status.next_offset:
        held = f"no records, the next offset is {status.next_offset}"
    return f"{held}; READ-ONLY: {status.read_only_reason}" if status.read_only_reason else held


def _origin_row(node_name: str, origin: OriginStatus) -> tuple[str, ...]:
    if origin.written_by == node_name:
        writer, source = "this node", "-"
    else:
        writer, source = origin.written_by or "nobody", origin.pulled_from or "-"
    return (
        origin.origin.hex(),
        str(origin.low),
        str(origin.next),
        str(origin.behind),
        str(origin.missing),
        writer,
        source,
    )


def stream_state(peer: PeerStatus) -> str:
    """Say whether a node pulls from a peer, or why it cannot."""
    if peer.connected:
        return "connected"
    return f"not connected: {peer.problem}" if peer.problem else "connecting"


def aligned(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> Iterator[str]:
    """Yield rows of as many cells each as lines whose columns stand below each other; those in right end together."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
