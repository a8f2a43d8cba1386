"""The table of retried batches: what each producer stored last, so that a retry is answered and not stored again.

It keeps the last batches of each producer, a bounded number of producers, and forgets one that was idle for long. A
producer numbers its batches upwards; one that it sends again is known by its number, and its payload must be the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from attrs import Factory, define, frozen

from proglog_trio.errors import BatchRefused, ProducerSequenceTooOld, ProducerTableFull
from proglog_trio.log.batch import Appended
from proglog_trio.log.format.origin import Origin

BATCHES_PER_PRODUCER = 5
"""How many batches a producer may have under way at once and still retry all of them."""
MAX_PRODUCERS = 16_384
PROTECTED_MILLISECONDS = 5 * 60_000
"""A producer that was active this recently is never forgotten to make room: its retries may still be on the way."""
EXPIRY_MILLISECONDS = 24 * 3_600_000
BELIEVED_IDLE_MILLISECONDS = 3_600_000
"""What is read back at opening counts as used so long ago at most: it is not protected then, and far from expired."""


@frozen
class StoredBatch:
    """One batch that a producer stored here."""

    producer_sequence: int
    payload_crc: int
    appended: Appended

    def to_row(self) -> list[object]:
        """Return it as a plain list."""
        at = self.appended
        place = [at.base_offset, at.count, at.origin.data, at.base_sequence, at.log_time]
        return [self.producer_sequence, self.payload_crc, *place]

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> StoredBatch:
        """Return what to_row gave; raises ValueError, TypeError or IndexError for what it cannot have given."""
        return cls(row[0], row[1], Appended(row[2], row[3], Origin.parse(row[4]), row[5], row[6]))


@frozen
class Remembered:
    """What remember did, so that forget can take it back.

    Attributes:
        dropped: what the batch pushed out.
    """

    producer_id: int
    batch: StoredBatch
    dropped: StoredBatch | None


@define
class _Producer:
    last_used: int
    batches: list[StoredBatch] = Factory(list)


@define
class ProducerTable:
    """What each producer stored last.

    Times are running time in milliseconds, see running_time.py: no jump of a wall clock makes the table forget a batch
    whose retry may come yet.

    Attributes:
        max_producers: the table's bound.
        not_remembered: how many pulled batches found the table full.
    """

    max_producers: int = MAX_PRODUCERS
    not_remembered: int = 0
    _producers: OrderedDict[int, _Producer] = Factory(OrderedDict)

    def __len__(self) -> int:
        return len(self._producers)

    def find(self, producer_id: int, producer_sequence: int, payload_crc: int, now: int) -> StoredBatch | None:
        """Return the batch that is stored under this number, or None if the number is new.

        Raises:
            BatchRefused: a batch with another payload is stored under it.
            ProducerSequenceTooOld: it is below what the table still knows.
            ProducerTableFull: the producer is new and there is no room for it.
        """
        producer = self._producers.get(producer_id)
        if producer is None:
            self._make_room(now)
            if len(self._producers) >= self.max_producers:
                raise ProducerTableFull(
                    f"{len(self._producers)} producers were active within {PROTECTED_MILLISECONDS // 1000} s, "
                    "there is no room to remember the batches of another"
                )
            return None
        for batch in producer.batches:
            if batch.producer_sequence == producer_sequence:
                if batch.payload_crc != payload_crc:
                    raise BatchRefused(
                        f"producer {producer_id:#018x} stored sequence {producer_sequence} with a payload of CRC-32C "
                        f"{batch.payload_crc:#010x}, the retry has {payload_crc:#010x}"
                    )
                return batch
        if producer_sequence < producer.batches[-1].producer_sequence:
            raise ProducerSequenceTooOld(
                f"sequence {producer_sequence} of producer {producer_id:#018x} is below its last, "
                f"{producer.batches[-1].producer_sequence}, and not among the {BATCHES_PER_PRODUCER} that are kept"
            )
        return None

    def remember(self, producer_id: int, batch: StoredBatch, now: int) -> Remembered | None:
        """Keep a batch; it counts as not remembered if its producer is new and there is no room.

        Returns what forget needs to take it back; None: nothing was changed.
        """
        producer = self._producers.get(producer_id)
        if producer is None:
            self._make_room(now)
            if len(self._producers) >= self.max_producers:
                self.not_remembered += 1
                return None
            producer = self._producers[producer_id] = _Producer(now)
        producer.last_used = max(producer.last_used, now)
        self._producers.move_to_end(producer_id)
        batches = producer.batches
        if batches and batch.producer_sequence <= batches[-1].producer_sequence:
            # The same batch under another origin, or an older one: pulled after a producer went to another node.
            if any(known.producer_sequence == batch.producer_sequence for known in batches):
                return None
            batches.append(batch)
            batches.sort(key=lambda known: known.producer_sequence)
        else:
            batches.append(batch)
        dropped = batches.pop(0) if len(batches) > BATCHES_PER_PRODUCER else None
        if dropped is batch:
            return None
        return Remembered(producer_id, batch, dropped)

    def forget(self, remembered: Remembered) -> None:
        """Take back what remember did, the newest first: the batch is not stored after all."""
        producer = self._producers.get(remembered.producer_id)
        if producer is None:
            return
        producer.batches = [known for known in producer.batches if known is not remembered.batch]
        if remembered.dropped is not None:
            producer.batches.insert(0, remembered.dropped)
        if not producer.batches:
            del self._producers[remembered.producer_id]

    def use_all(self, now: int) -> None:
        """Count every producer as used now."""
        for producer in self._producers.values():
            producer.last_used = now

    def _make_room(self, now: int) -> None:
        while self._producers:
            producer_id, oldest = next(iter(self._producers.items()))
            # Running time that was lost must not protect it until it is where it was.
            oldest.last_used = min(oldest.last_used, now)
            idle = now - oldest.last_used
            if idle < PROTECTED_MILLISECONDS or (
                idle < EXPIRY_MILLISECONDS and len(self._producers) < self.max_producers
            ):
                return
            del self._producers[producer_id]

    def encode(self) -> list[Any]:
        """Return the table as plain lists for a segment's header, least recently used first."""
        return [
            [producer_id, producer.last_used, [batch.to_row() for batch in producer.batches]]
            for producer_id, producer in self._producers.items()
        ]

    @classmethod
    def decode(cls, rows: list[Any]) -> ProducerTable:
        """Return the table of encode's lists; raises ValueError, TypeError or IndexError for others."""
        table = cls()
        for producer_id, last_used, batches in rows:
            table._producers[int(producer_id)] = _Producer(int(last_used), [StoredBatch.of_row(row) for row in batches])
        return table
