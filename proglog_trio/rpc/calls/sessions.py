"""What a client's stream and its link to a node say to each other; links over gRPC are in client_streams.py.

A client gives its link a session, which is the client's end of one stream; the link carries it over some wire. Neither
side imports the other: what they have in common is here, and knows no gRPC library.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from attrs import define

from proglog_trio._proto.log.v1 import ConsumeBatchesRequest, ConsumeBatchesResponse, ProduceBatchResponse
from proglog_trio.errors import ProglogError
from proglog_trio.rpc.calls.status_code import StatusCode

# Statuses that say nothing of the request itself; None: the connection was lost.
_PASSING = frozenset(
    {
        None,
        StatusCode.OK,
        StatusCode.CANCELLED,
        StatusCode.UNKNOWN,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.ABORTED,
        StatusCode.INTERNAL,
        StatusCode.UNAVAILABLE,
    }
)


class StreamBroken(ProglogError):
    """A stream ended before its time: the connection was lost, or the node answered with a gRPC status.

    Attributes:
        status: the gRPC status, or None when the connection was lost without one.
    """

    def __init__(self, message: str, status: StatusCode | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def refusal(self) -> StatusCode | None:
        """The status if it says that the request itself is wrong, or None if the same may succeed later."""
        return None if self.status in _PASSING else self.status


class OtherCluster(ProglogError):
    """A node is of another cluster than its client: nothing was asked of it, and what it answers does not count."""


@define
class ExpectedCluster:
    """The cluster of one client: told to it, or learned from the first node that answers.

    Nodes of versions that do not say of which cluster they are pass.

    Attributes:
        name: None until it is known; from then on it does not change.
    """

    name: str | None = None

    def check(self, told: str, address: str) -> None:
        """Compare the name that the node at an address says, or learn it if none is known.

        Raises:
            OtherCluster: it is another.
        """
        if self.name is None:
            self.name = told
        elif told != self.name:
            raise OtherCluster(f"{address} is of the cluster {told!r}, not of {self.name!r}")


class WatchedNodes(Protocol):
    """Chooses the node that tells of the others, beside a stream: one at a time, and never the one of the stream."""

    def begin(self) -> None:
        """Begin with another stream."""

    def next_pause(self) -> float:
        """Return for how many seconds to wait before each question which node is next."""

    def next_node(self) -> str | None:
        """Return the address of the node to ask now; None: there is none before others are found."""

    def answered(self) -> None:
        """Tell that the node answers."""

    def ended(self, node: str, *, is_useless: bool) -> None:
        """Tell that a node tells no more, or did not; is_useless: it is not one to be asked again soon."""


class NodeSession(Protocol):
    """The client's end of one stream to one node.

    Its methods are called by the link, in the thread of the client's Trio tasks but not as a part of them: none waits.
    """

    @property
    def node(self) -> str:
        """The node's address."""

    @property
    def others(self) -> bool:
        """Whether the client knows other nodes that it can go to."""

    @property
    def searches(self) -> bool:
        """Whether the node is to be asked for others."""

    @property
    def cluster(self) -> ExpectedCluster:
        """Of which cluster the node must be."""

    @property
    def refusal(self) -> str | None:
        """Why the node must not be asked now, in words: it was of another cluster; None: it may be."""

    @property
    def watched(self) -> WatchedNodes:
        """Who else is asked what happens to the node, if nodes are searched for."""

    def is_elsewhere(self, node: str, why: str) -> None:
        """Tell the client that a node is of another cluster, and why that is known."""

    def found(self, addresses: Sequence[str]) -> None:
        """Hand in the addresses that the node told."""

    def search_failed(self, reason: str) -> None:
        """Tell the client that the node told nothing, and why."""


class ProduceSession(NodeSession, Protocol):
    """The client's end of one stream of batches to a node.

    Once the client has dropped the stream, next_request returns None and what is handed in is ignored.
    """

    @property
    def finishing(self) -> bool:
        """Whether nothing more will come: the link ends the stream once everything is answered."""

    def opened(self, wake: Callable[[], object] = ...) -> None:
        """Tell the client that the stream is open, once.

        Args:
            wake: called when next_request may return something again, or finishing has changed.
        """

    def next_request(self) -> bytes | None:
        """Return the next encoded ProduceBatchRequest, or None if there is none for now."""

    def answered(self, answer: ProduceBatchResponse) -> None:
        """Hand in the answer to the first request that has none; raises StreamBroken if the stream is to be dropped."""


class ConsumeSession(NodeSession, Protocol):
    """The client's end of one stream of batches from a node."""

    @property
    def has_room(self) -> bool:
        """Whether the next answer should be read."""

    def end_request(self) -> ConsumeBatchesRequest | None:
        """Return the request to ask for the log's end with, before the stream; None if that is not needed."""

    def received_end(self, answer: ConsumeBatchesResponse) -> None:
        """Hand in the first answer to end_request; raises StreamBroken if it is damaged."""

    def request(self) -> ConsumeBatchesRequest:
        """Return the request to open the stream with."""

    def opened(self, wake: Callable[[], object] = ...) -> None:
        """Tell the client that the stream is open, once.

        Args:
            wake: called when has_room may have become true.
        """

    def received(self, answer: ConsumeBatchesResponse) -> None:
        """Hand in an answer; raises StreamBroken if the stream is to be dropped."""


ProduceLink = Callable[[ProduceSession], Awaitable[None]]
"""Runs one stream; returns when the node ended it, raises StreamBroken when it failed."""
ConsumeLink = Callable[[ConsumeSession], Awaitable[None]]
"""Runs one stream; returns when the node ended it, raises StreamBroken when it failed."""
