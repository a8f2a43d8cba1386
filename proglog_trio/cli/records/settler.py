"""Waiting for the deliveries of records, and counting them."""

import json

import trio
from attrs import define, field, frozen

from proglog_trio.cli.output import StandardOutput
from proglog_trio.cli.records.tally import Tally
from proglog_trio.client import BatchDelivery, DeliveredBatch, DeliveryError


@frozen
class Sent:
    """Records that were handed to the producer, and the lines between which they stood."""

    lines: range
    delivery: BatchDelivery


@define
class Settler:
    """Waits for deliveries in the order of their sending, and counts them.

    ``failure`` is the first delivery's that failed, with the lines it was about; ``reading`` is cancelled then.
    """

    tally: Tally
    output: StandardOutput | None
    reading: trio.CancelScope
    failure: tuple[range, DeliveryError] | None = None
    _progress: trio.Event = field(factory=trio.Event)

    async def run(self, deliveries: trio.MemoryReceiveChannel[Sent]) -> None:
        """Count deliveries until no more come."""
        async for sent in deliveries:
            for outcome in await sent.delivery.outcomes():
                if isinstance(outcome, DeliveryError):
                    if self.failure is None:
                        self.failure = (sent.lines, outcome)
                        self.reading.cancel()
                else:
                    self.tally.add(outcome)
                    self._progress.set()
                    self._progress = trio.Event()
                    if self.output is not None:
                        await self.output.write(_described(outcome))

    async def all_acknowledged(self) -> None:
        """Wait until all that was sent is acknowledged.

        For ever when some is not: then the reading, which waits here, is cancelled.
        """
        while self.tally.stored < self.tally.sent:
            await self._progress.wait()


def _described(batch: DeliveredBatch) -> bytes:
    described = {
        "base_offset": batch.base_offset,
        "node": batch.node,
        "count": batch.count,
        "origin": str(batch.origin),
        "base_sequence": batch.base_sequence,
        "log_time": batch.log_time,
        "duplicate": batch.duplicate,
        "achieved": batch.achieved,
        "reached": batch.reached,
    }
    return json.dumps(described).encode() + b"\n"
