"""Producers and a consumer that go on whatever happens to the nodes, and what they saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from attrs import Factory, define, field

from proglog_trio.client import (
    Acknowledgement,
    BackoffConfig,
    ConsumerConfig,
    DeliveredBatch,
    ProducerConfig,
    RecordsNotDelivered,
    open_consumer,
    open_producer,
)

BACKOFF = BackoffConfig(first=0.02, longest=0.5)
DELIVERY_SECONDS = 300.0
BATCH_RECORDS = 20


@define(eq=False)
class Load:
    """What was sent, acknowledged and delivered.

    Attributes:
        acknowledged: the values, with how many nodes were said to have each.
        delivered: how often the consumer was given each value.
    """

    acknowledged: dict[bytes, int] = Factory(dict)
    delivered: Counter[bytes] = Factory(Counter)
    sent: int = 0
    changed: trio.Event = field(factory=trio.Event)

    def _note(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def values(self) -> list[bytes]:
        first, self.sent = self.sent, self.sent + BATCH_RECORDS
        return [b"%09d " % number + bytes(number % 200) for number in range(first, self.sent)]

    async def produce(
        self, addresses: Sequence[str], acknowledgement: Acknowledgement, stop: trio.Event, pause: float
    ) -> None:
        """Send batches until told to stop, and wait until each is acknowledged."""
        config = ProducerConfig(
            backoff=BACKOFF, linger=0.0, acknowledgement=acknowledgement, delivery_timeout=DELIVERY_SECONDS
        )
        try:
            async with open_producer(addresses, config) as producer:
                while not stop.is_set():
                    values = self.values()
                    for outcome in await (await producer.send_batch(values)).outcomes():
                        if isinstance(outcome, DeliveredBatch) and (outcome.reached or outcome.achieved >= 1):
                            self.acknowledged.update(dict.fromkeys(values, outcome.achieved))
                            self._note()
                    await trio.sleep(pause)
        except* RecordsNotDelivered:
            pass  # what was not acknowledged may be stored or not

    async def consume(self, addresses: Sequence[str]) -> None:
        """Take every record, from the first on, until cancelled."""
        config = ConsumerConfig(backoff=BACKOFF, connect_timeout=120.0, reconnect_timeout=DELIVERY_SECONDS)
        async with open_consumer(addresses, config) as consumer:
            async for record in consumer:
                self.delivered[record.value] += 1
                self._note()

    async def more_acknowledged(self, count: int, seconds: float = 120.0) -> None:
        """Return when so many more records are acknowledged."""
        wanted = len(self.acknowledged) + count
        with trio.fail_after(seconds):
            while len(self.acknowledged) < wanted:
                await self.changed.wait()

    async def all_delivered(self, seconds: float = 120.0) -> None:
        """Return when the consumer was given everything that is acknowledged."""
        with trio.move_on_after(seconds):
            while any(value not in self.delivered for value in self.acknowledged):
                await self.changed.wait()
            return
        missing = [value for value in self.acknowledged if value not in self.delivered]
        raise AssertionError(f"{len(missing)} of {len(self.acknowledged)} records are lost, such as {missing[:3]}")

    def check_nothing_twice(self) -> None:
        twice = [value for value, times in self.delivered.items() if times > 1]
        assert not twice, f"{len(twice)} records were delivered twice, such as {twice[:3]}"


@asynccontextmanager
async def under_load(
    load: Load, producers: Sequence[tuple[Sequence[str], Acknowledgement]], consumer: Sequence[str], pause: float = 0.01
) -> AsyncIterator[trio.Event]:
    """Run producers and a consumer for the length of the block; yields what ends the producers."""
    stop = trio.Event()
    async with trio.open_nursery() as consuming:
        if consumer:
            consuming.start_soon(load.consume, consumer)
        async with trio.open_nursery() as producing:
            for addresses, acknowledgement in producers:
                producing.start_soon(load.produce, addresses, acknowledgement, stop, pause)
            yield stop
            stop.set()
        if consumer:
            await load.all_delivered()
            load.check_nothing_twice()
        consuming.cancel_scope.cancel()
