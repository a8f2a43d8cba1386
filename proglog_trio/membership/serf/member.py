"""What Serf knows of a member."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from attrs import Factory, define, frozen

from proglog_trio.membership.swim.effects import Cause
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wire.coordinates import Coordinate


class MemberStatus(enum.Enum):
    """A member's status, with the words that `serf members` uses."""

    ALIVE = "alive"
    LEAVING = "leaving"
    LEFT = "left"
    FAILED = "failed"


@frozen
class ProtocolVersions:
    """Which versions of two protocols a member understands, from the lowest to the highest, and which it speaks.

    Attributes:
        protocol_min, protocol_max, protocol_current: of memberlist's protocol.
        delegate_min, delegate_max, delegate_current: of Serf's.
    """

    protocol_min: int
    protocol_max: int
    protocol_current: int
    delegate_min: int
    delegate_max: int
    delegate_current: int

    @classmethod
    def of(cls, version: bytes) -> ProtocolVersions | None:
        """Return what a member's six bytes say; None where they are not six."""
        return cls(*version) if len(version) == 6 else None


@frozen
class Member:
    """A member, as it is told to those who ask.

    Attributes:
        name: unique in the cluster.
        address, port: where it takes gossip.
        tags: what it says of itself.
        status: see MemberStatus.
        round_trip_seconds: of the last direct probe of it; None before the first, and for this node itself.
        coordinate: where it is in the network, as its last answer to a probe of this node says; None before the first.
        versions: of the protocols; None where it did not say.
    """

    name: str
    address: str
    port: int
    tags: Mapping[str, str]
    status: MemberStatus
    round_trip_seconds: float | None = None
    coordinate: Coordinate | None = None
    versions: ProtocolVersions | None = None


@define(eq=False)
class KnownMember:
    """A member as the core keeps it.

    Attributes:
        status_time: the Lamport time of the newest intent about it; it never falls while the member is known.
        leaving_since: when it became leaving, in seconds; means nothing in another status.
        gone_since: when it failed or left, in seconds; None exactly while it is alive or leaving.
        version: protocol and delegate versions, six bytes.
        coordinate: where it says that it is in the network, if that can be; None: it has not said so at its endpoint.
        has_answered: a probe of this node's was answered, in this or an earlier life of it.
        is_pruned: it is forgotten as soon as it has left.
        is_remembered: it was restored, and has not been seen since this node's start.
        told_address: see swim's Node.
    """

    name: str
    endpoint: Endpoint
    tags: Mapping[str, str]
    status: MemberStatus
    version: bytes
    status_time: int = 0
    leaving_since: float = 0.0
    gone_since: float | None = None
    round_trip_seconds: float | None = None
    coordinate: Coordinate | None = None
    has_answered: bool = False
    is_pruned: bool = False
    is_remembered: bool = False
    told_address: bytes = Factory(lambda member: member.endpoint.address, takes_self=True)

    def snapshot(self) -> Member:
        """Return what is told of it."""
        return Member(
            self.name,
            self.endpoint.host,
            self.endpoint.port,
            self.tags,
            self.status,
            self.round_trip_seconds,
            self.coordinate,
            ProtocolVersions.of(self.version),
        )


class MemberEventKind(enum.Enum):
    """What happened to members."""

    JOIN = "join"
    UPDATE = "update"
    LEAVE = "leave"
    FAILED = "failed"
    REAP = "reap"


@frozen
class MemberStatusChange:
    """A member's status as Serf sees it, and why; for those who want to understand a cluster.

    Attributes:
        name: of the member.
        before, after: its status; None for a member that was not known, and for one that is forgotten.
        lamport_time: of the newest intent about it, which is the one that made the change if an intent did.
        cause: the kind of reason.
    """

    name: str
    before: MemberStatus | None
    after: MemberStatus | None
    lamport_time: int
    cause: Cause


@frozen
class MemberEvent:
    """Something happened to members; those to whom it happened together are in one event."""

    kind: MemberEventKind
    members: tuple[Member, ...]
