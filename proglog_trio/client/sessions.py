"""The streams of producers and consumers as their links see them: each is its client's other half.

A link runs one stream; links over gRPC are in streams.py.
"""

# ruff: noqa: SLF001 - what a session hands on to its client is nobody else's

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from proglog_trio._proto.log.v1 import ConsumeBatchesRequest, ConsumeBatchesResponse, ProduceBatchResponse
from proglog_trio.client.nodes import NodeList

if TYPE_CHECKING:
    from proglog_trio.client.consumer import Consumer
    from proglog_trio.client.producer import Producer


class NodeSession:
    """One stream to one node.

    Attributes:
        node: the node's address.
        others: whether the client knows other nodes that it can go to.
        searches: whether the node is to be asked for others.
        cluster: which the node must be of.
    """

    def __init__(self, nodes: NodeList, *, searches: bool) -> None:
        self._nodes = nodes
        self.node = nodes.current
        self.others = len(nodes.known(trio.current_time())) > 1
        self.searches = searches
        self.cluster = nodes.cluster

    @property
    def refusal(self) -> str | None:
        """Why the node must not be asked now, in words: it was of another cluster; None: it may be."""
        return self._nodes.elsewhere(self.node, trio.current_time())

    def is_elsewhere(self, why: str) -> None:
        """Take note that the node is of another cluster."""
        self._nodes.found_elsewhere(self.node, why, trio.current_time())

    def found(self, addresses: Sequence[str]) -> None:
        """Hand in the addresses that the node told."""
        self._nodes.found(addresses, trio.current_time())

    def search_failed(self, reason: str) -> None:
        """Take note that the node told nothing, and why."""
        self._nodes.search_failure = reason


class ProduceSession(NodeSession):
    """One stream as its link sees it: what to send on it, and where to hand in what comes.

    Attributes:
        on_ready: the link sets it to be called when next_request may return something again, or finishing has changed.
        finishing: nothing more will come: the link ends the stream once everything is answered.
    """

    def __init__(self, producer: Producer) -> None:
        super().__init__(producer._nodes, searches=producer.config.find_nodes)
        self._producer = producer
        self.alive = True
        self.finishing = False
        self.on_ready: Callable[[], object] = lambda: None

    def opened(self) -> None:
        """The stream is open."""
        if self.alive:
            self._producer._stream_opened(self.node)

    def next_request(self) -> bytes | None:
        """Return the next encoded ProduceBatchRequest, or None if there is none for now."""
        return self._producer._next_request() if self.alive else None

    def answered(self, answer: ProduceBatchResponse) -> None:
        """Hand in a ProduceBatchResponse; raises StreamBroken if the stream is to be dropped."""
        if self.alive:
            self._producer._answered(answer)


ProduceLink = Callable[[ProduceSession], Awaitable[None]]
"""Runs one stream; returns when the node ended it, raises StreamBroken when it failed."""


class ConsumeSession(NodeSession):
    """One stream as its link sees it.

    Attributes:
        on_room: the link sets it to be called when has_room may have become true.
    """

    def __init__(self, consumer: Consumer) -> None:
        super().__init__(consumer._nodes, searches=consumer.config.find_nodes)
        self._consumer = consumer
        self.opened_at: float | None = None
        self.on_room: Callable[[], object] = lambda: None

    def end_request(self) -> ConsumeBatchesRequest | None:
        """Return the ConsumeBatchesRequest to ask for the log's end with, or None if that is not needed."""
        core = self._consumer._core
        return core.end_request() if core.asks_end else None

    def received_end(self, answer: ConsumeBatchesResponse) -> None:
        """Hand in the first answer to end_request; raises StreamBroken if it is damaged."""
        self._consumer._core.received_end(answer)

    def request(self) -> ConsumeBatchesRequest:
        """Return the ConsumeBatchesRequest to open the stream with."""
        return self._consumer._core.request()

    def opened(self) -> None:
        """The stream is open."""
        self.opened_at = trio.current_time()

    @property
    def has_room(self) -> bool:
        """Whether the next answer should be read."""
        return self._consumer._core.has_room()

    def received(self, answer: ConsumeBatchesResponse) -> None:
        """Hand in a ConsumeBatchesResponse; raises StreamBroken if the stream is to be dropped."""
        self._consumer._received(answer)


ConsumeLink = Callable[[ConsumeSession], Awaitable[None]]
"""Runs one stream; returns when the node ended it, raises StreamBroken when it failed."""
