"""A node of the test's own, without a network, for a producer in a thread: it answers when it is told to."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from proglog_trio._proto.log.v1 import ProduceBatchRequest, ProduceBatchResponse
from proglog_trio.client.sync import Producer, ProducerConfig
from proglog_trio.client.sync.client_thread import running
from proglog_trio.client.sync.producer import ProducerRun
from proglog_trio.rpc.calls.sessions import ProduceSession, StreamBroken


class HeldNode:
    """Holds requests until it is released. Where it is of another thread, ``let`` is how to reach it."""

    def __init__(self, *, held: bool = False, refuses: StreamBroken | None = None) -> None:
        self.held = held
        self.refuses = refuses
        self.requests: list[ProduceBatchRequest] = []
        self.next_offset = 0
        self.run: ProducerRun | None = None
        self._changed: anyio.Event | None = None

    async def link(self, session: ProduceSession) -> None:
        self._changed = anyio.Event()
        session.opened(self._wake)
        waiting: list[ProduceBatchRequest] = []
        while True:
            while (data := session.next_request()) is not None:
                waiting.append(ProduceBatchRequest.FromString(data))
                self.requests.append(waiting[-1])
            if self.refuses is not None and waiting:
                raise self.refuses
            while waiting and not self.held:
                request = waiting.pop(0)
                session.answered(
                    ProduceBatchResponse(
                        producer_sequence=request.producer_sequence,
                        base_offset=self.next_offset,
                        count=request.count,
                        origin=bytes(16),
                        base_sequence=self.next_offset,
                        log_time=request.after_log_time + 1,
                    )
                )
                self.next_offset += request.count
            if session.finishing and not waiting:
                return
            await self._changed.wait()
            self._changed = anyio.Event()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()

    def release(self) -> None:
        """Answer from now on."""

        def let() -> None:
            self.held = False
            self._wake()

        assert self.run is not None
        self.run.thread.call_soon(let)


@contextmanager
def producing(node: HeldNode, **options: Any) -> Iterator[Producer]:
    """Open a producer for threads that writes to this node."""
    run = node.run = ProducerRun(ProducerConfig(**options), node.link, random.Random(1), ("node:1",))
    with running(run.thread):
        assert run.producer is not None
        yield run.producer
    run.collector.report()
