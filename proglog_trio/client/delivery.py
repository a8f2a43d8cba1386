"""What became of records that were sent: the handles that a producer gives out, and what settles them."""

from __future__ import annotations

import anyio
import anyio.lowlevel
from attrs import define, evolve, field, frozen

from proglog_trio.client.errors import DeliveryError, RecordsNotDelivered
from proglog_trio.log.format.origin import Origin


@frozen
class Delivered:
    """Where one record is stored.

    Attributes:
        offset: its place in the log of the node that answered, see node.
        origin, sequence: its name on every node, for ever.
        log_time: hybrid logical clock: milliseconds since the Unix epoch in the upper 48 bits, a counter below.
        achieved: how many nodes have it on disk.
        reached: whether that is what the producer's acknowledgement asked for.
        node: the address of the node that answered.
    """

    offset: int
    origin: Origin
    sequence: int
    log_time: int
    achieved: int
    reached: bool
    node: str


@frozen
class DeliveredBatch:
    """Where records that follow one another are stored: [base_offset, base_offset + count).

    Attributes:
        base_offset, count, origin, base_sequence, log_time, achieved, reached: see Delivered.
        duplicate: the node had it from an earlier attempt, whose answer was lost.
        node: see Delivered.
    """

    base_offset: int
    count: int
    origin: Origin
    base_sequence: int
    log_time: int
    achieved: int
    reached: bool
    duplicate: bool = False
    node: str = ""

    def part(self, first: int, count: int) -> DeliveredBatch:
        """Return where count of the batch's records are, from its record number first on."""
        if first == 0 and count == self.count:
            return self
        offset, sequence = self.base_offset + first, self.base_sequence + first
        return evolve(self, base_offset=offset, count=count, base_sequence=sequence)

    def record(self, index: int) -> Delivered:
        """Return where the batch's record with this number is stored."""
        return Delivered(
            self.base_offset + index,
            self.origin,
            self.base_sequence + index,
            self.log_time,
            self.achieved,
            self.reached,
            self.node,
        )


@define
class FailureLedger:
    """Counts the records that failed and whose failure no task was told, so that each failure is told once.

    Attributes:
        count: how many records.
        first: the error of the first of them; None if there is none.
    """

    count: int = 0
    first: DeliveryError | None = None

    def failed(self, count: int, error: DeliveryError) -> None:
        """Count records that failed with an error."""
        self.count += count
        if self.first is None:
            self.first = error

    def reported(self, count: int) -> None:
        """Leave out so many of them: a task that waited for them was told."""
        self.count -= count
        if self.count <= 0:
            self.count, self.first = 0, None

    def report(self) -> None:
        """Raise RecordsNotDelivered if there are any, and begin anew."""
        count, first = self.count, self.first
        if count and first is not None:
            self.count, self.first = 0, None
            raise RecordsNotDelivered(count, first) from first


@define(eq=False)
class BatchOutcome:
    """What becomes of one batch; all its records share it. Settled exactly once.

    Attributes:
        delivered, error: when it is settled one of them is not None, and stays.
    """

    _ledger: FailureLedger
    delivered: DeliveredBatch | None = None
    error: DeliveryError | None = None
    # Made when a task waits: for most batches none does.
    _event: anyio.Event | None = None
    # So many records of it stand in the ledger: they failed while no task waited.
    _unreported: int = 0
    # So many tasks wait that will call result.
    _watchers: int = 0

    @property
    def settled(self) -> bool:
        """Whether it is known."""
        return self.delivered is not None or self.error is not None

    def _settle_once(self) -> None:
        if self.settled:
            raise RuntimeError("a batch is settled once")

    def succeed(self, delivered: DeliveredBatch) -> None:
        """Settle it: stored."""
        self._settle_once()
        self.delivered = delivered
        if self._event is not None:
            self._event.set()

    def fail(self, error: DeliveryError, count: int) -> None:
        """Settle it: not acknowledged, all count records of it."""
        self._settle_once()
        self.error = error
        if not self._watchers:
            self._unreported = count
            self._ledger.failed(count, error)
        if self._event is not None:
            self._event.set()

    async def settle(self) -> None:
        """Wait until it is known; raises nothing. Returns at once, without a checkpoint, if it is."""
        if self.delivered is None and self.error is None:
            if self._event is None:
                self._event = anyio.Event()
            await self._event.wait()

    async def watch(self) -> None:
        """Wait until it is known, for a task that will call ``result``: a failure meanwhile needs no other report."""
        self._watchers += 1
        try:
            await self.settle()
        finally:
            self._watchers -= 1

    def result(self) -> DeliveredBatch:
        """Return where the batch is stored; raises its error. Call it when it is settled."""
        if self.error is not None:
            if self._unreported:
                self._ledger.reported(self._unreported)
                self._unreported = 0
            raise self.error.again()
        if self.delivered is None:
            raise RuntimeError("the batch is not settled yet")
        return self.delivered


@define(eq=False)
class Delivery:
    """What becomes of one record."""

    _outcome: BatchOutcome
    _index: int

    @property
    def settled(self) -> bool:
        """Whether ``wait`` would return or raise at once."""
        return self._outcome.settled

    async def wait(self) -> Delivered:
        """Wait for the acknowledgement. May be called any number of times.

        Raises:
            DeliveryTimeout, DeliveryRefused, DeliveryAbandoned: the record was not acknowledged.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        await self._outcome.watch()
        return self._outcome.result().record(self._index)


@define(eq=False)
class BatchPart:
    """Records that follow one another in one batch: [first, first + count) of it; count grows while they are added."""

    outcome: BatchOutcome
    first: int
    count: int


def all_delivered(results: tuple[DeliveredBatch | DeliveryError, ...]) -> tuple[DeliveredBatch, ...]:
    """Return where all batches are; raises the first one's error that is not stored."""
    for result in results:
        if isinstance(result, DeliveryError):
            raise result
    return tuple(result for result in results if isinstance(result, DeliveredBatch))


@define(eq=False)
class BatchDelivery:
    """What becomes of many records that were sent by one call; one or more batches.

    A program makes one itself, without arguments, to hand it to ``send_batch`` or ``send_many`` as ``into``: then it
    knows what was handed in also when the call does not return. It may be handed to one call after another.
    """

    _parts: list[BatchPart] = field(init=False, factory=list)

    @property
    def count(self) -> int:
        """How many records it is about: of the call's, the first so many."""
        return sum(part.count for part in self._parts)

    @property
    def settled(self) -> bool:
        """Whether ``wait`` would return or raise at once."""
        return all(part.outcome.settled for part in self._parts)

    def add(self, outcome: BatchOutcome, first: int, count: int) -> None:
        """Be about records [first, first + count) of a batch as well; only producers call this."""
        if self._parts:
            last = self._parts[-1]
            if last.outcome is outcome and last.first + last.count == first:
                last.count += count
                return
        self._parts.append(BatchPart(outcome, first, count))

    async def wait(self) -> tuple[DeliveredBatch, ...]:
        """Wait until all records are acknowledged and return where they are, in the order in which they were sent.

        Raises:
            DeliveryTimeout, DeliveryRefused, DeliveryAbandoned: some were not; this is the first one's error. See
            ``outcomes``.
        """
        return all_delivered(await self.outcomes())

    async def outcomes(self) -> tuple[DeliveredBatch | DeliveryError, ...]:
        """Wait until everything is settled; return, for each batch in order, where it is or its error."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        results: list[DeliveredBatch | DeliveryError] = []
        for part in self._parts:
            await part.outcome.watch()
            try:
                results.append(part.outcome.result().part(part.first, part.count))
            except DeliveryError as error:
                results.append(error)
        return tuple(results)
