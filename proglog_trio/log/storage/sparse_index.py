"""What of a segment's index is in memory: for some of its frames, where they stand.

It answers from where on to scan for an offset, or for a sequence of an origin.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

from attrs import Factory, define, frozen

from proglog_trio.log.format.origin import Origin


@frozen(order=True)
class Place:
    """Where a frame begins: the offset of its first record, and its position in the segment's file."""

    offset: int
    position: int


@define
class _Places:
    """Ascending numbers, and for each the offset and the file position of its frame."""

    numbers: array[int] = Factory(lambda: array("Q"))
    offsets: array[int] = Factory(lambda: array("Q"))
    positions: array[int] = Factory(lambda: array("Q"))

    def add(self, number: int, offset: int, position: int) -> None:
        # The number last: a thread that finds it finds the others too.
        self.positions.append(position)
        self.offsets.append(offset)
        self.numbers.append(number)

    def before(self, number: int) -> Place | None:
        found = bisect_right(self.numbers, number) - 1
        return None if found < 0 else Place(self.offsets[found], self.positions[found])


@define
class SparseIndex:
    """The index of one segment in memory. One thread adds; others may look up meanwhile.

    Attributes:
        interval_bytes: how far apart in the file two noted frames of the same kind are at least.
    """

    interval_bytes: int
    _offsets: _Places = Factory(_Places)
    _sequences: dict[Origin, _Places] = Factory(dict)

    def add(self, offset: int, position: int, origin: Origin, base_sequence: int) -> bool:
        """Note a frame if none of its kind stands close before it; tell whether it was noted."""
        places = self._sequences.get(origin)
        new_offset = _is_far(self._offsets, position, self.interval_bytes)
        new_sequence = places is None or _is_far(places, position, self.interval_bytes)
        if new_offset:
            self._offsets.add(offset, offset, position)
        if new_sequence:
            if places is None:
                places = _Places()
            places.add(base_sequence, offset, position)
            # Last, as in _Places.add.
            self._sequences[origin] = places
        return new_offset or new_sequence

    def before_offset(self, offset: int) -> Place | None:
        """Return the place of the last noted frame that begins at offset or below."""
        return self._offsets.before(offset)

    def last_before(self, end: Place) -> list[tuple[Origin, int, Place]]:
        """Return, for each origin that is noted before a place, its first sequence and its last noted place before it.

        A frame of an origin that is not noted itself stands less than interval_bytes behind one that is.
        """
        found = []
        for origin, places in self._sequences.copy().items():  # another thread may add an origin meanwhile
            last = bisect_left(places.offsets, end.offset) - 1
            if last >= 0:
                place = Place(places.offsets[last], places.positions[last])
                found.append((origin, places.numbers[0], place))
        return found

    def before_sequence(self, origin: Origin, sequence: int) -> Place | None:
        """Return the place of the last noted frame of an origin that begins at sequence or below."""
        places = self._sequences.get(origin)
        return None if places is None else places.before(sequence)


def _is_far(places: _Places, position: int, interval_bytes: int) -> bool:
    return not places.positions or position - places.positions[-1] >= interval_bytes
