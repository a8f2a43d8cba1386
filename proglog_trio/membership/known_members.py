"""What a member knows of the others, and of itself."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from attrs import define

from proglog_trio.membership.gossip import Gossip
from proglog_trio.membership.serf.member import KnownMember, Member, MemberStatus
from proglog_trio.membership.serf.vivaldi import estimate
from proglog_trio.membership.wire.coordinates import Coordinate


def _has_tags(member: KnownMember, tag: str, like: Mapping[str, str]) -> bool:
    return bool(member.tags.get(tag)) and all(member.tags.get(name) == value for name, value in like.items())


@define(eq=False)
class KnownMembers:
    """What there is, as one member sees it.

    Attributes:
        gossip: the sockets and the core; for tests and tools, not part of the public face.
    """

    gossip: Gossip

    @property
    def name(self) -> str:
        """This node's name."""
        return self.gossip.config.name

    def members(self) -> list[Member]:
        """Return all members that are or were there, this node among them, by name."""
        return sorted(self.gossip.core.snapshot(), key=lambda member: member.name)

    def names(self) -> list[str]:
        """Return the names of all members that are or were there, in their order."""
        return sorted(self.gossip.core.members.by_name)

    def alive_with_tag(self, tag: str, *, like: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the names of the members that are alive and have a tag, in their order, and what each has there.

        Args:
            tag: its name.
            like: other tags that they must have too, with these values.
        """
        members = self.gossip.core.members.with_status(MemberStatus.ALIVE)
        return sorted((member.name, member.tags[tag]) for member in members if _has_tags(member, tag, like))

    def failed_with_tag(self, tag: str, *, like: Mapping[str, str], most: int) -> list[tuple[str, str]]:
        """Return as alive_with_tag those that count as failed, the last that failed first, at most so many."""
        members = self.gossip.core.members.with_status(MemberStatus.FAILED)
        failed = (member for member in members if _has_tags(member, tag, like))
        newest = heapq.nlargest(most, failed, key=lambda member: member.gone_since or 0.0)
        return [(member.name, member.tags[tag]) for member in newest]

    def member(self, name: str) -> Member | None:
        """Return the member of a name, or None if none has it."""
        known = self.gossip.core.members.by_name.get(name)
        return None if known is None else known.snapshot()

    def statuses(self) -> dict[str, MemberStatus]:
        """Return the status of each member that is or was there, by name."""
        return {name: member.status for name, member in self.gossip.core.members.by_name.items()}

    def count(self, status: MemberStatus) -> int:
        """Return how many members have a status."""
        return self.gossip.core.members.counts[status]

    def coordinate(self, name: str) -> Coordinate | None:
        """Return where a member is in the network, as it said last; None: it is not known, or has not said so yet."""
        known = self.gossip.core.members.by_name.get(name)
        return None if known is None else known.coordinate

    def round_trip(self, one: str, other: str) -> float | None:
        """Estimate the round-trip time between two members, in seconds; None: one of them has no coordinate here.

        It need not ever have been measured: see serf/vivaldi.py.
        """
        here, there = self.coordinate(one), self.coordinate(other)
        return None if here is None or there is None else estimate(here, there)
