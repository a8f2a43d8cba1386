"""What was seen of late: events and queries that come again are neither delivered nor passed on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from attrs import define, field

RING_SIZE = 512
"""How many Lamport times are remembered; anything older counts as seen."""
MAX_AT_ONE_TIME = 512
"""How many different things are remembered of one Lamport time; more are not passed on."""

MAX_BYTES = 4 * 1024 * 1024
"""What is remembered in all; beyond this the oldest Lamport times are forgotten, and count as seen. It goes with every
push/pull, and receivers take 20 MiB."""

Item = TypeVar("Item", bound=Hashable)


def _nothing(_item: object) -> int:
    return 0


@define
class RecentRing(Generic[Item]):
    """Remembers what was seen at each of the last Lamport times.

    Attributes:
        size: how many bytes an item counts for.
        lowest: what is older counts as seen; set when a node joins and wants no history.
    """

    size: Callable[[Item], int] = _nothing
    lowest: int = 0
    # What size says of all items together.
    _bytes: int = 0
    # A time stands at its remainder by RING_SIZE: a later time of the same place drops the earlier one.
    _slots: list[tuple[int, dict[Item, None]] | None] = field(factory=lambda: [None] * RING_SIZE)

    def add(self, time: int, item: Item, clock: int) -> bool:
        """Remember an item; tell whether it is new.

        Args:
            time: the item's Lamport time.
            item: what was seen.
            clock: what the clock shows, after it has witnessed that time.
        """
        if time < self.lowest or (clock > RING_SIZE and time < clock - RING_SIZE):
            return False
        place = time % RING_SIZE
        slot = self._slots[place]
        if slot is not None and slot[0] < time:
            self._empty(place)
            slot = None
        if slot is not None and (slot[0] > time or item in slot[1] or len(slot[1]) >= MAX_AT_ONE_TIME):
            return False
        if not self._make_room(self.size(item), time):
            return False
        self._bytes += self.size(item)
        if slot is None:
            self._slots[place] = slot = (time, {})
        slot[1][item] = None
        return True

    def _make_room(self, wanted: int, time: int) -> bool:
        """Forget what is older than a time until there is room; tell whether there is."""
        while self._bytes + wanted > MAX_BYTES:
            oldest = min((slot[0] for slot in self._slots if slot is not None), default=time)
            if oldest >= time:
                return False
            self._empty(oldest % RING_SIZE)
            self.lowest = max(self.lowest, oldest + 1)
        return True

    def _empty(self, place: int) -> None:
        slot = self._slots[place]
        if slot is not None:
            self._bytes -= sum(map(self.size, slot[1]))
            self._slots[place] = None

    def items(self) -> Iterator[tuple[int, list[Item]]]:
        """Yield each remembered Lamport time with what was seen then."""
        for slot in self._slots:
            if slot is not None:
                yield slot[0], list(slot[1])
