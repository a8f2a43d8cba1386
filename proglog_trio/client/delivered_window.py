"""Which batches a consumer has delivered, so that a copy of one under another origin is not delivered as well.

A producer whose node fails sends again, to another node, what was not acknowledged. The first node may have stored it:
then the batch exists twice, with the same producer id and producer sequence, under two origins. All nodes keep both;
the consumer delivers the copy that it meets first.

Sequences are kept as runs, since nearly all that a producer sends is delivered in its order: one run stands for any
number of batches. A consumer that stopped inside a batch keeps how much of it was delivered, so that the rest may come
from either copy, and comes once.

What is forgotten to keep the bounds is what was seen least recently; a copy of it that comes later is delivered again.
Nothing is ever taken for delivered that was not.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nsmallest
from itertools import pairwise
from typing import Any, Self

import msgpack
from attrs import field, frozen

from proglog_trio.errors import PositionError
from proglog_trio.log.format.position import Position

WINDOW_VERSION = 1
MAX_PRODUCERS = 4096
RUNS_PER_PRODUCER = 8
"""A new run begins where a producer gave a batch up or went to another node, not with each batch."""
MAX_PARTS = 64
_HIGHEST = 2**64 - 1

Run = tuple[int, int]
"""The first and the last of sequences that follow one another: the highest has no next in 64 bits."""


@frozen
class _Producer:
    """What was delivered of one producer.

    Attributes:
        runs: in ascending order; they do not touch.
        seen: when it was seen last, of the window's clock.
    """

    runs: tuple[Run, ...]
    seen: int


@frozen(eq=False)
class DeliveredWindow:
    """What was delivered of which producers. A value: whatever changes it returns another one.

    Each change copies the table of producers. When one was seen last is kept with it and not by its place there: Python
    copies a dictionary of which no key was deleted several times as fast.

    With MAX_PRODUCERS producers of RUNS_PER_PRODUCER runs it is still encoded in less than a position may have.

    Attributes:
        max_producers: how many producers it holds at most; with 0 it holds nothing.
    """

    max_producers: int = MAX_PRODUCERS
    # By producer id. At most max_producers; none without a run.
    _producers: Mapping[int, _Producer] = field(factory=dict)
    # Of batches of which the first records were delivered and not all: how many, by producer id and sequence. At most
    # MAX_PARTS, the last stopped in at the end. A batch that is in a run of its producer is not here.
    _parts: Mapping[tuple[int, int], int] = field(factory=dict)
    # Greater than when any producer was seen.
    _clock: int = 0

    def __len__(self) -> int:
        """How many producers it holds."""
        return len(self._producers)

    def __eq__(self, other: object) -> bool:
        """Whether another one knows the same, and forgets it in the same order."""
        if not isinstance(other, DeliveredWindow):
            return NotImplemented
        return (self.max_producers, self.encode()) == (other.max_producers, other.encode())

    __hash__ = None  # type: ignore[assignment]  # what is compared is a table

    def delivered_of(self, producer_id: int, sequence: int, count: int) -> int:
        """Return how many of the count records of a batch were delivered, from its first on.

        Args:
            producer_id: the batch's producer; 0, which is none, was never seen.
            sequence: the batch's number there.
            count: how many records it has.
        """
        producer = self._producers.get(producer_id)
        if producer is not None:
            for first, last in reversed(producer.runs):
                if first <= sequence <= last:
                    return count
        return min(self._parts.get((producer_id, sequence), 0), count)

    def after(self, producer_id: int, sequence: int, records: int, count: int) -> Self:
        """Return the window after the first records of a batch of count; its producer is then the last seen."""
        if not producer_id or not self.max_producers or not records:
            return self
        held = self._producers.get(producer_id)
        runs, parts = () if held is None else held.runs, self._parts
        place = (producer_id, sequence)
        if records >= count:
            runs = _with_sequence(runs, sequence)
            if place in parts:
                parts = {each: part for each, part in parts.items() if each != place}
        elif self.delivered_of(producer_id, sequence, count) < records:
            parts = {each: part for each, part in parts.items() if each != place}
            parts[place] = records
            if len(parts) > MAX_PARTS:
                del parts[next(iter(parts))]
        if not runs:
            return type(self)(self.max_producers, self._producers, parts, self._clock)
        return self._with(producer_id, runs, parts)

    def seen(self, producer_id: int) -> Self:
        """Return the window in which this producer, if it is in it, is the last seen."""
        producer = self._producers.get(producer_id)
        return self if producer is None else self._with(producer_id, producer.runs, self._parts)

    def _with(self, producer_id: int, runs: tuple[Run, ...], parts: Mapping[tuple[int, int], int]) -> Self:
        producers = dict(self._producers)
        producers[producer_id] = _Producer(runs, self._clock)
        if len(producers) > self.max_producers:
            # Some at once, so that finding those seen longest ago is not done for each new producer.
            least = set(nsmallest(1 + self.max_producers // 16, producers, key=lambda each: producers[each].seen))
            producers = {each: kept for each, kept in producers.items() if each not in least}
        return type(self)(self.max_producers, producers, parts, self._clock + 1)

    def encode(self) -> bytes:
        """Return it as a position's annex: nothing if it is empty, else one msgpack array."""
        if not self._producers and not self._parts:
            return b""
        runs = {
            # Nearly all have one run, which is packed as it is.
            producer: held.runs[0] if len(held.runs) == 1 else [number for run in held.runs for number in run]
            for producer, held in sorted(self._producers.items(), key=lambda item: item[1].seen)
        }
        parts = [[producer, sequence, records] for (producer, sequence), records in self._parts.items()]
        encoded: bytes = msgpack.packb([WINDOW_VERSION, runs, parts])
        return encoded

    @classmethod
    def decode(cls, annex: bytes, max_producers: int = MAX_PRODUCERS) -> Self:
        """Return the window of a position's annex, or of it what max_producers has room for.

        Raises:
            PositionError: it is none, or one of a newer version.
        """
        if not annex or not max_producers:
            return cls(max_producers)
        try:
            body = msgpack.unpackb(annex, strict_map_key=False)
            version = body[0]
            if version == WINDOW_VERSION:
                runs = {_number(producer): _runs_of(numbers) for producer, numbers in body[1].items()}
                parts = {(_number(producer), _number(sequence)): _number(part) for producer, sequence, part in body[2]}
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise PositionError(f"the position does not say what was delivered: {error}") from None
        if version != WINDOW_VERSION:
            raise PositionError(
                f"what the position says of what was delivered has version {version!r}, this program reads version "
                f"{WINDOW_VERSION}"
            )
        # The last seen are at the end.
        last_seen = list(runs.items())[-max_producers:]
        producers = {producer: _Producer(held, seen) for seen, (producer, held) in enumerate(last_seen)}
        return cls(max_producers, producers, dict(list(parts.items())[-MAX_PARTS:]), len(producers))


def check_position(position: bytes) -> None:
    """Check that bytes are a position at which a consumer of this version can begin: for what users hand in.

    Raises:
        PositionError: they are none, and why.
    """
    DeliveredWindow.decode(Position.decode_with_annex(position)[1])


def _with_sequence(runs: tuple[Run, ...], sequence: int) -> tuple[Run, ...]:
    """Return the runs, which ascend and do not touch, with one more sequence; the lowest goes if they are too many."""
    if runs and runs[-1][1] + 1 == sequence:
        # Nearly always: the next of its producer.
        return (*runs[:-1], (runs[-1][0], sequence))
    first = last = sequence
    others = []
    for run in runs:
        if run[1] + 1 < first or last + 1 < run[0]:
            others.append(run)
        else:
            first, last = min(first, run[0]), max(last, run[1])
    return tuple(sorted([*others, (first, last)])[-RUNS_PER_PRODUCER:])


def _number(item: Any) -> int:  # noqa: ANN401 - whatever msgpack has there
    if type(item) is not int or not 0 <= item <= _HIGHEST:
        raise ValueError(f"{item!r} is no number of 64 bits")
    return item


def _runs_of(numbers: list[Any]) -> tuple[Run, ...]:
    bounds = [_number(number) for number in numbers]
    runs = tuple(zip(bounds[::2], bounds[1::2], strict=True))
    if not runs or any(first > last for first, last in runs) or any(low[1] >= high[0] for low, high in pairwise(runs)):
        raise ValueError("a producer's runs do not ascend")
    return runs[-RUNS_PER_PRODUCER:]
