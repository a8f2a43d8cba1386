"""What a core wants done: packets sent, streams opened; and its news for the layer above."""

from __future__ import annotations

import enum

from attrs import frozen

from proglog_trio.membership.swim.node import Endpoint, NodeStatus


@frozen
class SendPacket:
    """Send these messages in one packet.

    Attributes:
        target: to whom.
        messages: each as it stands in a packet.
        checksum: the receiver understands a checksum layer.
    """

    target: Endpoint
    messages: tuple[bytes, ...]
    checksum: bool = False


@frozen
class ExchangeState:
    """Open a stream, send the local state, and merge what comes back.

    Attributes:
        target: with whom.
        name: who is expected there; empty: not known.
        join: tell the other side that this is a join.
        is_remembered: it is known from before this node's start alone: who is there now may be of another cluster.
    """

    target: Endpoint
    name: str
    join: bool = False
    is_remembered: bool = False


@frozen
class PingByStream:
    """Open a stream and ping through it; say by stream_ping_ended whether an ack came.

    Attributes:
        target: whom.
        name: of the member.
        sequence_number: of the probe.
        timeout: in seconds.
    """

    target: Endpoint
    name: str
    sequence_number: int
    timeout: float


@frozen
class SendByStream:
    """Open a stream and send a message of the layer above that is too large for a packet; nothing is answered.

    Attributes:
        target: to whom.
        payload: the message, without what memberlist puts before it.
    """

    target: Endpoint
    payload: bytes


Effect = SendPacket | ExchangeState | PingByStream | SendByStream


@frozen
class Seen:
    """A member that was not alive is: it is new, or it came back."""

    name: str


@frozen
class Changed:
    """A member's meta has changed."""

    name: str


@frozen
class Gone:
    """A member is dead, or has left on its own."""

    name: str
    left: bool


@frozen
class NameConflict:
    """A member at another address claims the name of one."""

    name: str
    endpoint: Endpoint
    meta: bytes


@frozen
class Foreign:
    """One that is no member here was heard of that was not heard of lately; nothing that it says is merged.

    Attributes:
        name, endpoint, meta: its own.
        refusal: why it may not be a member, in words; None: it is of another cluster, as its meta says.
    """

    name: str
    endpoint: Endpoint
    meta: bytes
    refusal: str | None = None


@frozen
class UserMessageReceived:
    """A message of the layer above.

    Attributes:
        payload: as it was sent.
        source: where it came from; None when it came by a stream.
    """

    payload: bytes
    source: Endpoint | None


@frozen
class RoundTrip:
    """A direct probe was answered.

    Attributes:
        name: by whom.
        seconds: how long it took.
        payload: what the layer above put into the ack.
    """

    name: str
    seconds: float
    payload: bytes


@frozen
class Paused:
    """This process was stopped for so long that others may have taken it for dead.

    Attributes:
        seconds: for how long.
    """

    seconds: float


class Cause(enum.Enum):
    """What makes a member's status change; nothing else does."""

    OWN = "this node's own decision"
    INCARNATION = "news with an incarnation that counts"
    ADDRESS = "a member that had left is back at another address"
    TIMER = "an expired timer"
    LAMPORT_TIME = "an intent with a newer Lamport time"
    SWIM = "news of the layer below"
    ROOM = "too many members are remembered"
    CLUSTER = "a member turns out to be of another cluster"


@frozen
class StatusChange:
    """A member's status, and why; for those who want to understand a cluster.

    Attributes:
        name: of the member.
        before, after: its status; before is None for a member that was not known.
        incarnation: of the news.
        cause: the kind of reason.
        reason: in words.
    """

    name: str
    before: NodeStatus | None
    after: NodeStatus
    incarnation: int
    cause: Cause
    reason: str


Notification = Seen | Changed | Gone | NameConflict | Foreign | UserMessageReceived | RoundTrip | Paused | StatusChange
