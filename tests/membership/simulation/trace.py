"""Reads a trace: is every change of a status explained by what counts?"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf.member import MemberStatus, MemberStatusChange
from proglog_trio.membership.swim.effects import Cause, StatusChange
from proglog_trio.membership.swim.node import NodeStatus
from tests.membership.simulation.cluster import TraceEntry

_GONE = (NodeStatus.DEAD, NodeStatus.LEFT)
_ROUNDING = 1e-6


@define
class _Known:
    """What one observer's trace has said of one member so far."""

    swim: NodeStatus | None = None
    incarnation: int = 0
    swim_changed: float = -1.0
    serf: MemberStatus | None = None
    lamport_time: int = 0
    serf_changed: float = -1.0


def unexplained(trace: Iterable[TraceEntry], profile: GossipProfile) -> list[str]:
    """Return the changes of a status that no incarnation, Lamport time or expired timer explains, in words."""
    known: dict[tuple[str, int, str], _Known] = {}
    found = []
    for entry in trace:
        event = entry.event
        if isinstance(event, StatusChange | MemberStatusChange):
            member = known.setdefault((entry.observer, entry.life, event.name), _Known())
            if isinstance(event, StatusChange):
                is_explained = _swim(entry, event, member, profile)
            else:
                is_explained = _serf(entry, event, member, profile)
            if not is_explained:
                found.append(f"{entry.time:.3f} {entry.observer}: {event} after {member}")
            if isinstance(event, StatusChange):
                member.swim, member.incarnation, member.swim_changed = event.after, event.incarnation, entry.time
            else:
                member.serf, member.lamport_time, member.serf_changed = event.after, event.lamport_time, entry.time
    return found


def _swim(entry: TraceEntry, event: StatusChange, member: _Known, profile: GossipProfile) -> bool:
    if event.before is None:
        # Unknown so far, or forgotten after it had been gone for long enough.
        forgotten = member.swim in _GONE and entry.time - member.swim_changed >= profile.gossip_to_the_dead - _ROUNDING
        is_me = event.name == entry.observer
        return (member.swim is None or forgotten) and event.cause is (Cause.OWN if is_me else Cause.INCARNATION)
    if event.before is not member.swim:
        return False
    match event.cause, event.after:
        case Cause.INCARNATION, NodeStatus.ALIVE:
            return event.incarnation > member.incarnation
        case Cause.INCARNATION, NodeStatus.SUSPECT:
            return event.before is NodeStatus.ALIVE and event.incarnation >= member.incarnation
        case Cause.INCARNATION, _:
            return event.before not in _GONE and event.incarnation >= member.incarnation
        case Cause.ADDRESS, NodeStatus.ALIVE:
            return event.before is NodeStatus.LEFT
        case Cause.CLUSTER, NodeStatus.DEAD:
            return event.before not in _GONE and event.incarnation >= member.incarnation
        case Cause.TIMER, NodeStatus.DEAD:
            shortest = profile.suspicion_multiplier * profile.probe_interval
            return event.before is NodeStatus.SUSPECT and entry.time - member.swim_changed >= shortest - _ROUNDING
    return False


def _serf(entry: TraceEntry, event: MemberStatusChange, member: _Known, profile: GossipProfile) -> bool:
    if event.before is not member.serf or event.after is event.before:
        return False
    match event.cause:
        case Cause.SWIM:
            wanted = (NodeStatus.ALIVE,) if event.after is MemberStatus.ALIVE else _GONE
            return member.swim in wanted and member.swim_changed == entry.time
        case Cause.LAMPORT_TIME:
            # An intent that was kept until its member came shows in the same instant as the member does.
            kept = member.serf_changed == entry.time and event.lamport_time == member.lamport_time
            # At equal times left overrides failed.
            overrides = event.before is MemberStatus.FAILED and event.after is MemberStatus.LEFT
            needed = member.lamport_time if overrides else member.lamport_time + 1
            return event.lamport_time >= needed or kept
        case Cause.TIMER:
            if event.after is MemberStatus.ALIVE:
                was_leaving = event.before is MemberStatus.LEAVING
                return was_leaving and entry.time - member.serf_changed >= profile.leaving_timeout - _ROUNDING
            return event.after is None
    return False
