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
from itertools import pairwise
from typing import Any, Self

import msgpack
from attrs import field, frozen

from ...errors import PositionError

WINDOW_VERSION = 1
MOST_PRODUCERS = 4096
RUNS_PER_PRODUCER = 8
"""A new run begins where a producer gave a batch up or went to another node, not with each batch."""
MOST_PARTS = 64
_HIGHEST = 2**64 - 1

Run = tuple[int, int]
"""The first and the last of sequences that follow one another: the highest has no next in 64 bits."""


@frozen
class DeliveredWindow:
    """What was delivered of which producers. A value: whatever changes it returns another one.

    With MOST_PRODUCERS producers of RUNS_PER_PRODUCER runs it is still encoded in less than a position may have.

    Attributes:
        most_producers: how many producers it holds at most; with 0 it holds nothing.
    """

    most_producers: int = MOST_PRODUCERS
    _runs: Mapping[int, tuple[Run, ...]] = field(factory=dict)
    _parts: Mapping[tuple[int, int], int] = field(factory=dict)

    def __len__(self) -> int:
        """How many producers it holds."""
        return len(self._runs)

    def delivered_of(self, producer_id: int, sequence: int, count: int) -> int:
        """Return how many of the count records of a batch were delivered, from its first on.

        Args:
            producer_id: the batch's producer; 0, which is none, was never seen.
            sequence: the batch's number there.
            count: how many records it has.
        """
        for first, last in reversed(self._runs.get(producer_id, ())):
            if first <= sequence <= last:
                return count
        return min(self._parts.get((producer_id, sequence), 0), count)

    def after(self, producer_id: int, sequence: int, records: int, count: int) -> Self:
        """Return the window after the first records of a batch of count; its producer is then the last seen."""
        if not producer_id or not self.most_producers or not records:
            return self
        runs, parts = dict(self._runs), self._parts
        held = runs.pop(producer_id, ())
        place = (producer_id, sequence)
        if records >= count:
            held = _with_sequence(held, sequence)
            if place in parts:
                parts = {each: part for each, part in parts.items() if each != place}
        elif self.delivered_of(producer_id, sequence, count) < records:
            parts = {each: part for each, part in parts.items() if each != place}
            parts[place] = records
            if len(parts) > MOST_PARTS:
                del parts[next(iter(parts))]
        if held:
            runs[producer_id] = held
        while len(runs) > self.most_producers:
            del runs[next(iter(runs))]
        return type(self)(self.most_producers, runs, parts)

    def seen(self, producer_id: int) -> Self:
        """Return the window in which this producer, if it is in it, is the last seen."""
        if producer_id not in self._runs:
            return self
        runs = dict(self._runs)
        runs[producer_id] = runs.pop(producer_id)
        return type(self)(self.most_producers, runs, self._parts)

    def encode(self) -> bytes:
        """Return it as a position's annex: nothing if it is empty, else one msgpack array."""
        if not self._runs and not self._parts:
            return b""
        runs = {producer: [number for run in held for number in run] for producer, held in self._runs.items()}
        parts = [[producer, sequence, records] for (producer, sequence), records in self._parts.items()]
        encoded: bytes = msgpack.packb([WINDOW_VERSION, runs, parts])
        return encoded

    @classmethod
    def decode(cls, annex: bytes, most_producers: int = MOST_PRODUCERS) -> Self:
        """Return the window of a position's annex, or of it what most_producers has room for.

        Raises:
            PositionError: it is none, or one of a newer version.
        """
        if not annex or not most_producers:
            return cls(most_producers)
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
        kept = dict(list(runs.items())[-most_producers:])
        return cls(most_producers, kept, dict(list(parts.items())[-MOST_PARTS:]))


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
