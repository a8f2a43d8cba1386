"""The task behind a consumer: it keeps a stream from some node until everything asked for was read.

What is asked for, trimmed or dropped is decided in consumer_core.py; how it comes from a node is the link's.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from proglog_trio._proto.log.v1 import ConsumeBatchesRequest, ConsumeBatchesResponse
from proglog_trio.backoff import Backoff
from proglog_trio.client.block import run_behind
from proglog_trio.client.config import ConsumerConfig
from proglog_trio.client.consumed_batch import ConsumedBatch
from proglog_trio.client.consumer_core import ConsumerCore
from proglog_trio.client.errors import OPEN_ANOTHER, ConsumerClosed, NodeUnreachable
from proglog_trio.client.nodes import NodeList, NodeUser, wake_no_link
from proglog_trio.client.watched_nodes import WatchedNodes
from proglog_trio.rpc.calls.sessions import ConsumeLink, ExpectedCluster, StreamBroken
from proglog_trio.rpc.http2.asyncio_loop import loop_clock
from proglog_trio.waiters import Waiters

LASTING_SECONDS = 10.0
"""A stream that stood for so long without an answer (an idle log's) was a connection."""


class Fetcher(NodeUser):
    """Fetches what a consumer's core asks for. To its link it is the ConsumeSession of each stream.

    Attributes:
        arrived: where the consumer waits until something may have arrived, or nothing more will.
        ended_because: why nothing more will arrive although the core is not finished; None while more may.
    """

    def __init__(self, core: ConsumerCore, link: ConsumeLink, nodes: NodeList, backoff: Backoff) -> None:
        super().__init__(nodes, loop_clock(), searches=core.config.find_nodes)
        self.watched = WatchedNodes(nodes, self._clock)
        self.core = core
        self.ended_because: str | None = None
        self._link = link
        self._backoff = backoff
        # Of the present stream: called when core.has_room may have become true.
        self._wake_link: Callable[[], object] = wake_no_link
        self._opened_at: float | None = None
        self.arrived = Waiters()
        self._last_failure: StreamBroken | None = None

    # -- what the consumer calls ---------------------------------------------------------------------------------------

    def next_batch(self) -> ConsumedBatch | None:
        """Return the next batch to deliver, or None if there is none now."""
        waiting = self.core.waiting_bytes
        batch = self.core.next_batch()
        if self.core.waiting_bytes < waiting and self.core.has_room():
            # Also when all that waited were copies of what had been delivered.
            self._wake_link()
        return batch

    @property
    def obstacle(self) -> str | None:
        """Why the last stream ended, or could not begin; None once one has begun after it."""
        return None if self._last_failure is None else str(self._last_failure)

    def check_running(self) -> None:
        """Raise ConsumerClosed if nothing more will arrive although the core is not finished."""
        if self.ended_because is not None:
            raise ConsumerClosed(f"the consumer reads nothing more: {self.ended_because}; {OPEN_ANOTHER}")

    # -- what a stream's link calls ------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """See ConsumeSession."""
        return self.core.has_room()

    def end_request(self) -> ConsumeBatchesRequest | None:
        """See ConsumeSession."""
        return self.core.end_request() if self.core.asks_end else None

    def received_end(self, answer: ConsumeBatchesResponse) -> None:
        """See ConsumeSession."""
        self.core.received_end(answer)

    def request(self) -> ConsumeBatchesRequest:
        """See ConsumeSession."""
        return self.core.request()

    def opened(self, wake: Callable[[], object] = wake_no_link) -> None:
        """See ConsumeSession."""
        self._wake_link = wake
        self._opened_at = self._clock()
        self._last_failure = None

    def received(self, answer: ConsumeBatchesResponse) -> None:
        """See ConsumeSession."""
        before = self.core.received
        self.nodes.worked(self.core.node)
        try:
            self.core.received_answer(answer)
        finally:
            if self.core.config.follow or self.core.received is not before:
                # Else the node may have answered that it has nothing more, again and again.
                self._backoff.succeeded()
            self.arrived.wake_all()

    # -- the task ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a stream from one node or another until everything asked for was read, or nothing more can be.

        However it ends, the consumer is not left waiting for it.
        """
        try:
            await self._keep_streaming()
        except Exception:  # raised on; but not what a cancellation is, which ends it for another reason
            self.ended_because = "the task behind it has failed"
            raise
        finally:
            if self.ended_because is None and not self.core.finished:
                self.ended_because = "its block has been cancelled"
            self.arrived.wake_all()

    async def _keep_streaming(self) -> None:
        core, nodes = self.core, self.nodes
        while not core.finished:
            if not core.bound_to_first_node:
                nodes.move(self._clock(), core.failures.lacking)
            core.stream_to(nodes.current)
            self._opened_at = None
            try:
                await self._link(self)
                core.stream_ended()
            except StreamBroken as failure:
                self._last_failure = failure
                now = self._clock()
                if self._opened_at is not None and now - self._opened_at >= LASTING_SECONDS:
                    core.failures.answered()
                    self._backoff.succeeded()
                    nodes.worked(nodes.current)
                nodes.failed(nodes.current)
                core.stream_lost(failure, now, self.known())
            self._wake_link = wake_no_link
            self.arrived.wake_all()
            if not core.finished:
                await anyio.sleep(self._backoff.next_delay())

    async def wait_started(self, seconds: float) -> None:
        """Wait until a node has said where the stream begins, or why not; raises NodeUnreachable after so long."""
        core = self.core
        with anyio.move_on_after(seconds):
            while core.end_offset is None and not core.finished and self.ended_because is None:
                await self.arrived.wait()
            self.check_running()
            return
        reason = "no answer" if self._last_failure is None else str(self._last_failure)
        if core.bound_to_first_node and len(self.nodes.given) > 1:
            reason += f" (an offset is a place in the log of {self.nodes.current} alone)"
        raise NodeUnreachable(f"no connection within {seconds:g} s: {reason}", "connect_timeout")


def make_fetcher(config: ConsumerConfig, link: ConsumeLink, rng: random.Random, addresses: tuple[str, ...]) -> Fetcher:
    """Return a fetcher that is to be run; raises PositionError if the position to begin at is none."""
    nodes = NodeList(addresses, rng, ExpectedCluster(config.cluster_name))
    return Fetcher(ConsumerCore(config), link, nodes, Backoff(config.backoff, rng))


@asynccontextmanager
async def run_fetcher(fetcher: Fetcher, leave: Callable[[], None]) -> AsyncIterator[None]:
    """Run a fetcher behind the body of a block, which begins when a node has said where the reading starts.

    Args:
        fetcher: which.
        leave: see run_behind.
    """
    # What a shielded read would wait for may never come, unlike an acknowledgement, whose time is bounded.
    async with run_behind(fetcher.run, leave, outlives_cancellation=False):
        await fetcher.wait_started(fetcher.core.config.connect_timeout)
        yield
