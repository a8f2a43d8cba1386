"""What a log knows of its own damage: which places cannot be read, and what became of them.

Opening, readers and the scrub report what they meet; retention and repair take it out again. It is a hint: a repair
looks at the segment itself, and what is not kept here (there is a bound) is found again by the next scrub.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

from attrs import Factory, define, evolve

from proglog_trio.log.format.damage import Damage
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.stored_frame import DamagedPlace

MAX_PLACES = 10_000
"""How many damaged places are kept; more are counted only."""


Watcher = Callable[[Damage], None]


@define
class DamageRegistry:
    """The damaged places that a log knows of. Any thread may use it.

    Attributes:
        max_places: how many are kept.
        found: how many places were reported, each once, and missing index files not at all.
        repaired: how many were repaired.
        not_kept: how many found no room.
    """

    max_places: int = MAX_PLACES
    found: int = 0
    repaired: int = 0
    not_kept: int = 0
    _places: dict[tuple[int, int, int], Damage] = Factory(dict)
    _watchers: dict[int, Watcher] = Factory(dict)
    _next_watcher: int = 0
    _lock: threading.Lock = Factory(threading.Lock)

    def __len__(self) -> int:
        return len(self._places)

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
            return [damage for _, damage in sorted(self._places.items(), key=lambda item: item[0])]

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
        """Keep a damaged place; tell whether it is new."""
        damage = Damage(files, place, found_by)
        key = _key(damage)
        with self._lock:
            if key in self._places:
                return False
            self.found += not place.is_missing_index
            if len(self._places) >= self.max_places:
                self.not_kept += 1
                return False
            self._places[key] = damage
            watchers = list(self._watchers.values())
        for watcher in watchers:
            watcher(damage)
        return True

    def forget_below(self, base_offset: int) -> None:
        """Forget the segments before the one that begins at an offset: retention removed them."""
        with self._lock:
            for key in [key for key in self._places if key[0] < base_offset]:
                del self._places[key]

    def settle(
        self, segments: Collection[SegmentFiles], remaining: Sequence[tuple[SegmentFiles, DamagedPlace, str]]
    ) -> None:
        """Keep what an attempt to repair some segments left in them, and why; all else in them is repaired."""
        bases = {files.base_offset for files in segments}
        with self._lock:
            before = {key: self._places.pop(key) for key in list(self._places) if key[0] in bases}
            offsets = {(key[0], key[1]): damage for key, damage in before.items()}
            kept = 0
            for files, place, reason in remaining:
                # A place that stays may have moved in its file, since other places before it were filled.
                known = offsets.get((files.base_offset, place.expected_offset))
                damage = Damage(files, place, "repair") if known is None else evolve(known, files=files, place=place)
                if len(self._places) >= self.max_places:
                    self.not_kept += 1
                    continue
                self._places[_key(damage)] = evolve(damage, unrepairable=reason)
                kept += known is not None and not known.place.is_missing_index
            self.repaired += max(sum(not damage.place.is_missing_index for damage in before.values()) - kept, 0)


def _key(damage: Damage) -> tuple[int, int, int]:
    return damage.files.base_offset, damage.place.expected_offset, damage.place.position
