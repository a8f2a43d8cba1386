"""The tasks behind a producer: they keep a stream to some node while there is something to send, and watch the time.

What is sent, again or not, is decided in producer_core.py; how it gets to a node is the link's.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import trio

from proglog_trio._proto.log.v1 import ProduceBatchResponse
from proglog_trio.client.block import run_behind
from proglog_trio.client.config import ProducerConfig
from proglog_trio.client.errors import NodeUnreachable, ProducerClosed
from proglog_trio.client.nodes import NodeList, NodeUser, wake_no_link
from proglog_trio.client.producer_core import ProducerCore
from proglog_trio.client.watched_nodes import WatchedNodes
from proglog_trio.deadline_timer import DeadlineTimer
from proglog_trio.rpc.calls.sessions import ExpectedCluster, ProduceLink, StreamBroken
from proglog_trio.rpc.http2.asyncio_loop import loop_clock
from proglog_trio.waiters import Waiters

CLOSING_SECONDS = 2.0
"""How long a producer that has nothing more to send waits for the node to end its stream."""
LATE_SECONDS = 0.5
"""A timer that is later than this was not looked at: this process was stopped, or its loop was held."""
READING_SECONDS = 0.5
"""How long answers that arrived meanwhile are read before anything is given up for want of them."""


class Sender(NodeUser):
    """Sends what is added to a producer's core, and settles it. To its link it is the ProduceSession of each stream.

    Attributes:
        finishing: nothing more will be added: a stream is ended once everything is answered.
        closed: nothing more may be added, and
        closed_because: why.
        room: where the producer waits until something is settled, or nothing more may be added.
        ended: set when everything is settled and nothing more will be sent.
    """

    def __init__(self, core: ProducerCore, link: ProduceLink, nodes: NodeList) -> None:
        super().__init__(nodes, loop_clock(), searches=core.config.find_nodes)
        self.watched = WatchedNodes(nodes, self._clock)
        self.core = core
        self.finishing = False
        self.closed = False
        self.ended = anyio.Event()
        self._link = link
        self.closed_because = "its block has been left"
        # Whether the link runs a stream that has not been dropped. One that was may still call until it has unwound,
        # which is ignored: the core counts it as lost, and no other is begun before.
        self._streaming = False
        # Of that stream: called whenever core.next_request may return something again.
        self._wake_link: Callable[[], object] = wake_no_link
        self._stream_scope = anyio.CancelScope()
        self._opened_once = anyio.Event()
        # Set when there is something to send, for a sender that is idle and has no stream.
        self._work = anyio.Event()
        self.room = Waiters()
        # Rearmed after each call into the core that may have brought its next deadline forward.
        self._timer = DeadlineTimer(core.next_wake)

    # -- what the producer calls ---------------------------------------------------------------------------------------

    def added(self) -> None:
        """Have what was added to the core sent, as soon as it is due."""
        self._work.set()
        if self.core.ready(self._clock()):
            self._wake_link()
        self._timer.rearm()

    # Ctrl-C comes before or after: it must not lose a batch on its way from one place to another.
    @trio.lowlevel.enable_ki_protection
    def close_batch(self) -> None:
        """Have what lingers sent now."""
        self.core.close_batch()
        if self.core.unsettled:
            self._wake()

    async def settle_all(self) -> None:
        """Send what lingers, and wait until all that was added before is settled.

        Raises:
            RecordsNotDelivered: see Producer.flush.
        """
        self.close_batch()
        last = self.core.last_outcome
        if last is not None:
            # Outcomes are settled in order.
            await last.settle()
        self.core.ledger.report()

    def closed_error(self) -> ProducerClosed:
        """Return the error that says why nothing more may be added."""
        return ProducerClosed(f"the producer is closed: {self.closed_because}; open another one to send more")

    # -- what a stream's link calls ------------------------------------------------------------------------------------

    def opened(self, wake: Callable[[], object] = wake_no_link) -> None:
        """See ProduceSession."""
        if self._streaming:
            self._wake_link = wake
            self.core.stream_opened(self._clock(), self.node)
            self._opened_once.set()
            self._timer.rearm()

    def next_request(self) -> bytes | None:
        """See ProduceSession."""
        if not self._streaming:
            return None
        request = self.core.next_request(self._clock())
        self._timer.rearm()
        return request

    def answered(self, answer: ProduceBatchResponse) -> None:
        """See ProduceSession."""
        if not self._streaming:
            return
        self.core.answered(answer, self._clock())
        self.nodes.worked(self.core.node)
        self.room.wake_all()
        self._wake()
        self._timer.rearm()

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._work.set()
        self._wake_link()

    def _drop_stream(self) -> None:
        self._streaming = False
        self._wake_link = wake_no_link

    @trio.lowlevel.enable_ki_protection
    async def _watch_time(self) -> None:
        while True:
            deadline = await self._timer.wait()
            if self._clock() > deadline + LATE_SECONDS:
                # Answers may lie unread in the socket: they come first.
                await anyio.sleep(READING_SECONDS)
            failure = self.core.tick(self._clock())
            self.room.wake_all()
            if failure is None:
                self._wake_link()
            else:
                # The core counts it as lost already.
                self._drop_stream()
                self._stream_scope.cancel()

    async def _keep_streaming(self) -> None:
        while True:
            self.nodes.move(self._clock(), self.core.refused_by)
            self._streaming = True
            failure: StreamBroken
            with anyio.CancelScope() as self._stream_scope:
                try:
                    await self._link(self)
                    failure = StreamBroken("the node ended the stream")
                except StreamBroken as error:
                    failure = error
            if self._streaming:
                # Else the timer has dropped it, and told the core.
                self._drop_stream()
                self.core.stream_lost(failure)
                self.room.wake_all()
            self.nodes.failed(self.node)
            self._timer.rearm()
            if self._opened_once.is_set() and not self.core.unsettled and not self.finishing:
                # A stream is opened again when there is something to send on it.
                self._work = anyio.Event()
                await self._work.wait()
            if self.finishing and not self.core.unsettled:
                return
            await anyio.sleep(self.core.backoff.next_delay())

    async def run(self) -> None:
        """Keep a stream to one node or another while there is something to send, until it is finished.

        However it ends, everything is settled then, and no task is left waiting.
        """
        try:
            async with anyio.create_task_group() as nursery:
                nursery.start_soon(self._watch_time)
                await self._keep_streaming()
                nursery.cancel_scope.cancel()
        except Exception:  # raised on; but not what a cancellation is, which ends it for another reason
            self.closed_because = "the task behind it has failed"
            raise
        finally:
            self.abandon()

    async def wait_connected(self, seconds: float) -> None:
        """Wait for the first stream; raises NodeUnreachable after so many seconds."""
        with anyio.move_on_after(seconds):
            await self._opened_once.wait()
            if self.ended.is_set():
                raise self.closed_error()
            return
        obstacle = self.core.obstacle
        reason = "no answer" if obstacle is None else str(obstacle)
        raise NodeUnreachable(f"no connection within {seconds:g} s: {reason}", "connect_timeout")

    async def finish(self) -> None:
        """Let nothing more be added, settle all, and let the stream end in order, for which the node has two seconds.

        Raises:
            RecordsNotDelivered: see Producer.flush.
        """
        self.closed = True
        self.room.wake_all()
        await anyio.lowlevel.checkpoint_if_cancelled()
        await self.settle_all()
        self.finishing = True
        self._wake()
        with anyio.move_on_after(CLOSING_SECONDS):
            await self.ended.wait()

    def abandon(self) -> None:
        """Fail whatever is not settled, let nothing more be added, and let no task wait any longer."""
        self.closed = True
        self._drop_stream()
        self.core.abandon()
        self.room.wake_all()
        self._opened_once.set()
        self.ended.set()


@asynccontextmanager
async def run_sender(
    config: ProducerConfig, link: ProduceLink, rng: random.Random, addresses: tuple[str, ...]
) -> AsyncIterator[Sender]:
    """Run a sender behind the body of a block, connected as the configuration says; when it is left, all is settled."""
    nodes = NodeList(addresses, rng, ExpectedCluster(config.cluster_name))
    clock = loop_clock()

    def has_others(besides: AbstractSet[str]) -> bool:
        return any(node not in besides for node in nodes.known(clock()))

    sender = Sender(ProducerCore(config, rng.getrandbits(64) or 1, rng, has_others), link, nodes)
    async with run_behind(sender.run, sender.abandon, outlives_cancellation=True):
        if config.connect_timeout is not None:
            await sender.wait_connected(config.connect_timeout)
        yield sender
        await sender.finish()
