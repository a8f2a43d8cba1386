"""The pull streams that are open, both ways, and how what changes here gets to the nodes at their other ends."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from attrs import Factory, define

from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.advertiser import Advertiser
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.messages import Want


class StreamEnd(Protocol):
    """This node's end of a pull stream; see Session."""

    advertiser: Advertiser
    on_ready: Callable[[], None]

    def log_changed(self, origins: Collection[Origin]) -> None:
        """Tell that this node's log durably has more of these origins."""

    def say_hello_again(self) -> None:
        """Say that this node's directory counts as opened again, and all that it has."""


class PullEnd(StreamEnd, Protocol):
    """The end of one that pulls; see PullSession."""

    def want(self, want: Want) -> None:
        """Ask for an origin."""

    def stop(self, origin: Origin) -> None:
        """Ask for an origin no more."""


@define(eq=False, repr=False)
class OpenStreams:
    """The streams.

    Attributes:
        pulls: to peers, by their names; also while a stream is being opened.
        sources: from nodes that pull, who may be no peers here, or not yet.
    """

    node: LocalNode
    pulls: dict[str, PullEnd] = Factory(dict)
    sources: set[StreamEnd] = Factory(set)

    def advertise(self, tell: Callable[[StreamEnd], None]) -> None:
        """Do something with each end, and let it look for what it has to send; one that fails is the only one."""
        boundary = self.node.boundary()
        # A copy: an end that is told may be closed by it.
        for end in [*self.pulls.values(), *self.sources]:
            with boundary:
                tell(end)
                end.on_ready()
