"""What a log knows of its own damage: which places cannot be read, and what became of them.

Opening, readers and the scrub report what they meet; retention and repair take it out again. It is a hint: a repair
looks at the segment itself, and what is not kept here (there is a bound) is found again by the next scrub.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence

from attrs import Factory, define, evolve

from proglog_trio.log.format.damage import Damage
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.stored_frame import DamagedPlace

MAX_PLACES = 10_000
"""How many damaged places are kept; more are counted only, but for the first of each segment."""


Watcher = Callable[[Damage], None]


@define
class DamageRegistry:
    """The damaged places that a log knows of. Any thread may use it.

    Attributes:
        max_places: how many are kept, but for the first of each segment: whatever has damage is to be looked after,
            however much of it another has.
        found: how many places were reported, each once, and missing index files not at all.
        repaired: how many were repaired.
        not_kept: how many found no room.
    """

    max_places: int = MAX_PLACES
    found: int = 0
    repaired: int = 0
    not_kept: int = 0
    # By the base offset of their segment, in its order.
    _places: dict[int, list[Damage]] = Factory(dict)
    _watchers: dict[int, Watcher] = Factory(dict)
    _next_watcher: int = 0
    _lock: threading.Lock = Factory(threading.Lock)

    def __len__(self) -> int:
        return sum(len(places) for places in list(self._places.values()))

    @property
    def left(self) -> int:
        """How many places are damaged now, without index files that are missing."""
        return sum(not damage.place.is_missing_index for damage in self.places())

    @property
    def unrepairable(self) -> int:
        """How many places an attempt to repair them has left as they are."""
        return sum(damage.unrepairable is not None for damage in self.places())

    def places(self) -> list[Damage]:
        """Return the places that are kept, in the order of the log."""
        with self._lock:
            return [damage for base in sorted(self._places) for damage in self._places[base]]

    def segments(self) -> list[SegmentFiles]:
        """Return the segments in which there is damage, in the order of the log."""
        return sorted({damage.files for damage in self.places()}, key=lambda files: files.base_offset)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call watcher with each new place, in the thread that found it; return what ends it.

        The watcher must neither block nor raise; under Trio let it do no more than TrioToken.run_sync_soon.
        """
        with self._lock:
            number = self._next_watcher
            self._next_watcher += 1
            self._watchers[number] = watcher
        return lambda: self._watchers.pop(number, None) and None

    def report(self, files: SegmentFiles, place: DamagedPlace, found_by: str) -> bool:
        """Keep a damaged place; tell whether it is new, which one within a known place is not."""
        damage = Damage(files, place, found_by)
        with self._lock:
            places = self._places.get(files.base_offset, [])
            at = bisect_right(places, _key(damage), key=_key) - 1
            if at >= 0 and (_key(places[at]) == _key(damage) or _is_within(place, places[at].place)):
                return False
            self.found += not place.is_missing_index
            if not self._keep(damage):
                return False
            watchers = list(self._watchers.values())
        for watcher in watchers:
            watcher(damage)
        return True

    def forget_below(self, base_offset: int) -> None:
        """Forget the segments before the one that begins at an offset: retention removed them."""
        with self._lock:
            for base in [base for base in self._places if base < base_offset]:
                del self._places[base]

    def settle(
        self, segments: Collection[SegmentFiles], remaining: Sequence[tuple[SegmentFiles, DamagedPlace, str]]
    ) -> None:
        """Keep what an attempt to repair some segments left in them, and why; all else in them is repaired."""
        with self._lock:
            before = [damage for files in segments for damage in self._places.pop(files.base_offset, [])]
            offsets = {(damage.files.base_offset, damage.place.expected_offset): damage for damage in before}
            for files, place, reason in remaining:
                # A place that stays may have moved in its file, since other places before it were filled.
                known = offsets.get((files.base_offset, place.expected_offset))
                damage = Damage(files, place, "repair") if known is None else evolve(known, files=files, place=place)
                self._keep(evolve(damage, unrepairable=reason))
            left = _Remaining.of((files, place) for files, place, _ in remaining)
            self.repaired += sum(not damage.place.is_missing_index and not left.has(damage) for damage in before)

    def _keep(self, damage: Damage) -> bool:
        """Keep a place if there is room for it, and count it otherwise; tell which."""
        base = damage.files.base_offset
        if base in self._places and len(self) >= self.max_places:
            self.not_kept += 1
            return False
        places = self._places.setdefault(base, [])
        at = bisect_left(places, _key(damage), key=_key)
        # In place of one that is there already.
        places[at : bisect_right(places, _key(damage), key=_key)] = [damage]
        return True


@define
class _Remaining:
    """What a repair left: by segment, and apart what has offsets from what has none, in the order of offsets."""

    places: dict[tuple[int, bool], list[DamagedPlace]] = Factory(dict)

    @classmethod
    def of(cls, remaining: Iterable[tuple[SegmentFiles, DamagedPlace]]) -> _Remaining:
        left = cls()
        for files, place in sorted(remaining, key=lambda each: each[1].expected_offset):
            if not place.is_missing_index:
                left.places.setdefault((files.base_offset, _has_offsets(place)), []).append(place)
        return left

    def has(self, damage: Damage) -> bool:
        """Tell whether the beginning of a place is left. Where its bytes stand may have changed."""
        offset = damage.place.expected_offset
        places = self.places.get((damage.files.base_offset, _has_offsets(damage.place)), [])
        at = bisect_right(places, offset, key=lambda place: place.expected_offset) - 1
        if at < 0:
            return False
        found = places[at]
        return found.next_offset is None or offset < found.next_offset or offset == found.expected_offset


def _has_offsets(place: DamagedPlace) -> bool:
    return place.next_offset != place.expected_offset


def _key(damage: Damage) -> tuple[int, int]:
    return damage.place.expected_offset, damage.place.position


def _is_within(place: DamagedPlace, known: DamagedPlace) -> bool:
    """Tell whether a place is a part of one that does not begin behind it: a reader may begin in its middle."""
    if not known.position <= place.position <= place.end <= known.end:
        return False
    return known.next_offset is None or (place.next_offset is not None and place.next_offset <= known.next_offset)
