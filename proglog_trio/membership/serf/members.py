"""The members as Serf sees them: SWIM's news and the intents of members together make a status."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import TypeVar

from attrs import define, field

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf.member import (
    KnownMember,
    MemberEvent,
    MemberEventKind,
    MemberStatus,
    MemberStatusChange,
)
from proglog_trio.membership.swim.effects import Cause
from proglog_trio.membership.swim.node import Node

MAX_GONE = 4096
"""Members that failed or left; beyond this one is forgotten before its time: the one that has been gone for longest, of
those that never answered a probe if there are any."""

MAX_GONE_NAME_BYTES = 1024 * 1024
"""Their names together, likewise: a state has to fit into a push/pull, the names of the gone included."""
MAX_REAPED_AT_ONCE = 256
"""Members that are forgotten in one piece, which is some milliseconds."""
MAX_RECENT_INTENTS = 8192
"""Intents about members that are not known yet; beyond this the oldest is forgotten."""

Happened = TypeVar("Happened")


@define
class _RecentIntent:
    """An intent about a member that is not known yet."""

    leaves: bool
    time: int
    taken: float


@define(eq=False)
class Members:
    """All members that are or were there.

    Attributes:
        me: this node's name.
        emit: called with each event, and with each change of a status before it.
        by_name: those that are known.
        counts: how many of them have each status: there may be 12,000 of them to count.
    """

    me: str
    profile: GossipProfile
    emit: Callable[[MemberEvent | MemberStatusChange], None]
    decode_tags: Callable[[bytes], dict[str, str]]
    by_name: dict[str, KnownMember] = field(factory=dict)
    counts: dict[MemberStatus, int] = field(factory=lambda: dict.fromkeys(MemberStatus, 0))
    # Of names that are not in by_name only; oldest first.
    _recent: dict[str, _RecentIntent] = field(factory=dict)
    # Those that failed or left, in the order in which they went; and of them those that no probe ever reached.
    _gone: dict[str, None] = field(factory=dict)
    _never_answered: dict[str, None] = field(factory=dict)
    # The names in _gone together.
    _gone_name_bytes: int = 0

    def with_status(self, *wanted: MemberStatus) -> list[KnownMember]:
        """Return the members that have one of these statuses."""
        return [member for member in self.by_name.values() if member.status in wanted]

    def restore(self, member: KnownMember) -> None:
        """Take in a member of before this node's start, which failed or left as far as is known; nobody is told.

        Beyond the room that there is for those who are gone, it is left out.
        """
        is_full = len(self._gone) >= MAX_GONE or self._gone_name_bytes + len(member.name) > MAX_GONE_NAME_BYTES
        if member.name not in self.by_name and not is_full:
            self.by_name[member.name] = member
            self.counts[member.status] += 1
            member.is_remembered = True
            self._is_gone(member)

    # -- SWIM's news ---------------------------------------------------------------------------------------------------

    def seen(self, node: Node) -> None:
        """A member is alive that was not known, or was gone."""
        tags = self.decode_tags(node.meta)
        member = self.by_name.get(node.name)
        if member is None:
            member = KnownMember(node.name, node.endpoint, tags, MemberStatus.ALIVE, node.version)
            member.told_address = node.told_address
            self.by_name[node.name] = member
            self.counts[member.status] += 1
            recent = self._recent.pop(node.name, None)
            if recent is not None:
                member.status_time = recent.time
            self.emit(MemberStatusChange(node.name, None, MemberStatus.ALIVE, member.status_time, Cause.SWIM))
            if recent is not None and recent.leaves:
                self._is_leaving(member, node.changed)
        else:
            if member.endpoint != node.endpoint:
                # Where it was says nothing of where it is.
                member.coordinate = None
            member.endpoint, member.tags, member.version = node.endpoint, tags, node.version
            member.told_address = node.told_address
            self._set_status(member, MemberStatus.ALIVE, Cause.SWIM)
            member.gone_since, member.is_pruned, member.is_remembered = None, False, False
            self._is_not_gone(node.name)
            member.round_trip_seconds = None
        self._tell(MemberEventKind.JOIN, member)

    def changed(self, node: Node) -> None:
        """A member has other tags."""
        member = self.by_name.get(node.name)
        if member is not None:
            member.tags = self.decode_tags(node.meta)
            member.version = node.version
            self._tell(MemberEventKind.UPDATE, member)

    def gone(self, name: str, now: float, *, left: bool) -> None:
        """A member is gone, as SWIM sees it: it left if it says so itself, or meant to; otherwise it failed.

        What it says itself may be heard before its intent is.
        """
        member = self.by_name.get(name)
        if member is None:
            return
        if member.status is MemberStatus.LEAVING or (left and member.status is MemberStatus.ALIVE):
            self._became(member, MemberStatus.LEFT, MemberEventKind.LEAVE, now, Cause.SWIM)
        elif member.status is MemberStatus.ALIVE:
            self._became(member, MemberStatus.FAILED, MemberEventKind.FAILED, now, Cause.SWIM)

    # -- intents -------------------------------------------------------------------------------------------------------

    def join_intent(self, name: str, time: int, now: float) -> bool:
        """Change what is known by the intent that a member joined; tell whether that is news to pass on."""
        member = self.by_name.get(name)
        if member is None:
            return self._remember(name, leaves=False, time=time, now=now)
        # An equal time is old: between members that have heard both, the first that each heard counts (see stayed).
        if time <= member.status_time:
            return False
        member.status_time = time
        if member.status is MemberStatus.LEAVING:
            self._set_status(member, MemberStatus.ALIVE, Cause.LAMPORT_TIME)
            member.is_pruned = False
        return True

    def leave_intent(self, name: str, time: int, now: float, *, prune: bool) -> bool:
        """Change what is known by the intent that a member leaves, or counts as left; tell whether it is news.

        An intent about this node itself is the caller's to refute first, if it is not leaving.
        """
        member = self.by_name.get(name)
        if member is None:
            return self._remember(name, leaves=True, time=time, now=now)
        if time <= member.status_time:
            return False
        member.status_time = time
        if member.status is MemberStatus.ALIVE:
            self._is_leaving(member, now)
        elif member.status is MemberStatus.FAILED:
            self._became(member, MemberStatus.LEFT, MemberEventKind.LEAVE, now, Cause.LAMPORT_TIME)
        if prune:
            if member.status is MemberStatus.LEFT:
                self._forget(member, Cause.LAMPORT_TIME)
            else:
                # It is still leaving: it is forgotten when it has, or stays if it does not leave at all.
                member.is_pruned = True
        # Passed on also where it changes nothing here: a member that has missed the one before may need it.
        return True

    def left_elsewhere(self, name: str, time: int, now: float) -> None:
        """Merge that another counts a member as left, the newest intent about it having this time.

        At equal times left overrides failed, so that in the end all say the same. It does not override alive: who has
        seen the member come back has the same time as those who have only seen it leave.
        """
        member = self.by_name.get(name)
        if member is not None and member.status is MemberStatus.FAILED and time == member.status_time:
            self._became(member, MemberStatus.LEFT, MemberEventKind.LEAVE, now, Cause.LAMPORT_TIME)
        else:
            self.leave_intent(name, time, now, prune=False)

    def stayed(self, name: str, now: float) -> None:
        """A member answers: if it has been leaving for longer than that can take, it is not.

        Its join may have the Lamport time of the intent to leave: a node that restarts during a partition does not know
        the times of its earlier life, and those who fail a member do not know what it says meanwhile. Nothing that is
        exchanged later would tell the two apart.
        """
        member = self.by_name[name]
        if member.status is MemberStatus.LEAVING and now - member.leaving_since > self.profile.leaving_timeout:
            self._set_status(member, MemberStatus.ALIVE, Cause.TIMER)
            member.is_pruned = False

    def _remember(self, name: str, *, leaves: bool, time: int, now: float) -> bool:
        known = self._recent.get(name)
        if known is not None and time <= known.time:
            return False
        self._recent.pop(name, None)
        if len(self._recent) >= MAX_RECENT_INTENTS:
            del self._recent[next(iter(self._recent))]
        self._recent[name] = _RecentIntent(leaves, time, now)
        return True

    # -- the passing of time -------------------------------------------------------------------------------------------

    def reap(self, now: float) -> bool:
        """Forget members that have been gone for long, and intents about members that never came.

        Returns:
            Whether that was all; otherwise there are more, to be forgotten next.
        """
        profile = self.profile
        oldest = {
            MemberStatus.FAILED: now - profile.reconnect_timeout,
            MemberStatus.LEFT: now - profile.tombstone_timeout,
        }
        members = [self.by_name[name] for name in self._gone]
        due = [member for member in members if (member.gone_since or 0) < oldest.get(member.status, -math.inf)]
        for member in due[:MAX_REAPED_AT_ONCE]:
            self._forget(member, Cause.TIMER)
        limit = now - profile.recent_intent_timeout
        for name in [name for name, recent in self._recent.items() if recent.taken < limit]:
            del self._recent[name]
        return len(due) <= MAX_REAPED_AT_ONCE

    def _is_leaving(self, member: KnownMember, now: float) -> None:
        self._set_status(member, MemberStatus.LEAVING, Cause.LAMPORT_TIME)
        member.leaving_since = now

    def _set_status(self, member: KnownMember, status: MemberStatus, cause: Cause) -> None:
        self.emit(MemberStatusChange(member.name, member.status, status, member.status_time, cause))
        self.counts[member.status] -= 1
        self.counts[status] += 1
        member.status = status

    def _became(
        self, member: KnownMember, status: MemberStatus, kind: MemberEventKind, now: float, cause: Cause
    ) -> None:
        self._set_status(member, status, cause)
        member.gone_since = now
        self._is_not_gone(member.name)
        self._is_gone(member)
        self._tell(kind, member)
        if member.is_pruned and status is MemberStatus.LEFT:
            self._forget(member, Cause.LAMPORT_TIME)
        while len(self._gone) > MAX_GONE or self._gone_name_bytes > MAX_GONE_NAME_BYTES:
            # Those that this node never reached first: a hostile member can invent as many as there is room for.
            oldest = next(iter(self._never_answered), None) or next(iter(self._gone))
            self._forget(self.by_name[oldest], Cause.ROOM)

    def _forget(self, member: KnownMember, cause: Cause) -> None:
        self.emit(MemberStatusChange(member.name, member.status, None, member.status_time, cause))
        del self.by_name[member.name]
        self.counts[member.status] -= 1
        self._is_not_gone(member.name)
        self._tell(MemberEventKind.REAP, member)

    def _is_gone(self, member: KnownMember) -> None:
        self._gone[member.name] = None
        if not member.has_answered:
            self._never_answered[member.name] = None
        self._gone_name_bytes += len(member.name)

    def _is_not_gone(self, name: str) -> None:
        if name in self._gone:
            del self._gone[name]
            self._never_answered.pop(name, None)
            self._gone_name_bytes -= len(name)

    def _tell(self, kind: MemberEventKind, member: KnownMember) -> None:
        self.emit(MemberEvent(kind, (member.snapshot(),)))


def together(events: Iterable[Happened]) -> list[Happened | MemberEvent]:
    """Return events, of members and others, with neighbours of members of one kind made one."""
    found: list[Happened | MemberEvent] = []
    for kind, same in groupby(events, key=lambda event: event.kind if isinstance(event, MemberEvent) else None):
        if kind is None:
            found += same
        else:
            members = (member for event in same if isinstance(event, MemberEvent) for member in event.members)
            found.append(MemberEvent(kind, tuple(members)))
    return found
