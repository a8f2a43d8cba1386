"""What the parts of gossip need of the whole: the core, how to act on it, and how to talk on streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define

from proglog_trio.internal_errors import InternalErrors
from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.serf.serf import Serf
from proglog_trio.membership.stream_io import StreamCodec
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.steps import Result, Steps


@define
class GossipCounters:
    """What happened since the node gossips.

    Attributes:
        messages_by_stream: events, queries and answers that are too large for a packet.
        messages_by_stream_failed: those of them that were not sent: no connection, or too many at once.
    """

    packets_sent: int = 0
    bytes_sent: int = 0
    packets_received: int = 0
    packets_refused: int = 0
    packets_dropped: int = 0
    streams_served: int = 0
    streams_refused: int = 0
    exchanges: int = 0
    exchanges_failed: int = 0
    messages_by_stream: int = 0
    messages_by_stream_failed: int = 0


class CoreAccess(Protocol):
    """The owner of a core, for the parts that act on it: see Gossip, which is the one.

    The codec and the keyring are replaced when keys change; a part looks at them each time, and keeps neither.
    """

    config: GossipConfig
    endpoint: Endpoint
    core: Serf
    counters: GossipCounters
    codec: StreamCodec
    keyring: Keyring | None
    errors: InternalErrors

    def act(self, action: Callable[[], None]) -> None:
        """Do something to the core, now, and what it wants done for it."""

    def acting(self, steps: Steps[Result]) -> Steps[Result]:
        """Do something to the core in steps, and then what it wants done for it."""

    def use_keyring(self, keyring: Keyring) -> None:
        """Encrypt and decrypt with this from now on."""
