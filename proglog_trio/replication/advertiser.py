"""What one pull stream's other side has not been told yet, and when it must be.

What the other side waits for (that its own records have reached this disk) is told at once; everything else has time
and goes together. What is too much for one message goes in several, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from typing import TypeVar

from attrs import Factory, define

from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.replication.messages import ENTRIES_AT_ONCE, GAPS_AT_ONCE, HolderNews, OriginRange, Positions, Told
from proglog_trio.replication.peers.directories import Directories
from proglog_trio.replication.peers.progress import ProgressTracker

Key = TypeVar("Key")


@define
class Advertiser:
    """Collects what is to be told. It keeps names only; what is told of them is what holds when it is told.

    Attributes:
        quick_seconds: how long acknowledgements are collected, after one was sent.
        slow_seconds: returns how long everything else is; the more streams there are, the longer.
        listener: the directory id of the other side, once known: it is not told of itself.
    """

    quick_seconds: float
    slow_seconds: Callable[[], float]
    listener: bytes | None = None
    # What is to be told, each in the order in which it came up.
    _origins: dict[Origin, None] = Factory(dict)
    _forgotten: dict[Origin, None] = Factory(dict)
    _others: dict[bytes, set[Origin]] = Factory(dict)
    _directories: dict[bytes, None] = Factory(dict)
    _superseded: int | None = None
    # Of what there was at first, how many origins are still to be told; they stand before all others.
    _left_at_first: int = 0
    # The last message had no room for all that was due.
    _is_going_on: bool = False
    _told_writing: Origin | None = None
    _everything: bool = True
    _told_at: float = float("-inf")
    _is_urgent: bool = False

    def met(self, listener: bytes) -> None:
        """Speak to the node with this directory id."""
        self.listener = listener

    def note(self, origins: Iterable[Origin], *, urgent: bool) -> None:
        """Tell that this node's log has more of these origins; urgent: the other side waits for it."""
        self._origins.update(dict.fromkeys(origins))
        self._is_urgent = self._is_urgent or urgent

    def note_forgotten(self, origins: Iterable[Origin]) -> None:
        """Tell that this node's log no longer knows these origins."""
        self._forgotten.update(dict.fromkeys(origins))

    def note_other(self, directory_id: bytes, origins: Collection[Origin]) -> None:
        """Tell that a third node has more of these origins."""
        if directory_id != self.listener and origins:
            self._others.setdefault(directory_id, set()).update(origins)

    def note_directories(self, ids: Iterable[bytes]) -> None:
        """Tell what has changed of data directories."""
        self._directories.update(dict.fromkeys(ids))

    def note_superseded(self, opened: int) -> None:
        """Tell the other side that a later opening of its own directory is known than the one that it speaks of."""
        self._superseded = opened

    def say_all_again(self) -> None:
        """Tell everything anew: this node's directory counts as opened again."""
        self._everything = True

    def deadline(self, writing: Origin | None) -> float | None:
        """Return when there is something to tell, in seconds; None: there is nothing."""
        if self._everything or self._is_going_on or self._superseded is not None:
            return float("-inf")
        if self._is_urgent or writing != self._told_writing:
            return self._told_at + self.quick_seconds
        if self._origins or self._forgotten or self._others or self._directories:
            return self._told_at + self.slow_seconds()
        return None

    def collect(
        self,
        now: float,
        states: Mapping[Origin, OriginState],
        writing: Origin | None,
        progress: ProgressTracker,
        directories: Directories,
    ) -> Told:
        """Return what is to be told in one message, if its time has come; of more, the rest is due at once.

        Args:
            now: in seconds, by the clock, not in lived time: it only spaces messages.
            states: what this node's log has.
            writing: the origin under which it appends.
            progress: what is known of third nodes' disks.
            directories: which directories there are.
        """
        deadline = self.deadline(writing)
        if deadline is None or deadline > now:
            return Told()
        is_first = self._everything
        if is_first:
            self._origins = dict.fromkeys(states)
            self._left_at_first = len(self._origins)
            self._directories = dict.fromkeys(each.directory_id for each in directories)
        ranges, count = self._pop_ranges(states)
        self._left_at_first = max(self._left_at_first - count, 0)
        forgotten = tuple(origin for origin in _pop_some(self._forgotten) if origin not in states)
        others = self._pop_others(progress)
        if self._superseded is not None and self.listener is not None:
            others = (HolderNews(self.listener, self._superseded, {}), *others)
        self._superseded = None
        known = tuple(each for key in _pop_some(self._directories) if (each := directories.get(key)) is not None)
        positions = None
        if is_first or ranges or forgotten or writing != self._told_writing:
            positions = Positions(ranges, forgotten, writing, more_follows=self._left_at_first > 0)
        self._is_going_on = bool(self._origins or self._forgotten or self._others or self._directories)
        self._everything = self._is_urgent = False
        self._told_writing, self._told_at = writing, now
        return Told(positions, others, known)

    def _pop_ranges(self, states: Mapping[Origin, OriginState]) -> tuple[dict[Origin, OriginRange], int]:
        """Return what is to be told of some origins, and how many of those that wait these were."""
        ranges: dict[Origin, OriginRange] = {}
        gaps = count = 0
        for origin in list(islice(self._origins, ENTRIES_AT_ONCE)):
            state = states.get(origin)
            if state is not None:
                gaps += len(state.gaps) + len(state.missing)
                if ranges and gaps > GAPS_AT_ONCE:
                    break  # It is the next message's first, however many it has.
                ranges[origin] = OriginRange.of_state(state)
            del self._origins[origin]
            count += 1
        return ranges, count

    def _pop_others(self, progress: ProgressTracker) -> tuple[HolderNews, ...]:
        found: list[HolderNews] = []
        room, gaps = ENTRIES_AT_ONCE, 0
        for directory_id in list(self._others):
            waiting = self._others[directory_id]
            changed: list[Origin] = []
            while waiting and room:
                gaps += progress.ranges_not_held(directory_id, next(iter(waiting)))
                if gaps > GAPS_AT_ONCE and (found or changed):
                    room = 0  # It is the next message's first, however many it has.
                    break
                changed.append(waiting.pop())
                room -= 1
            if not waiting:
                del self._others[directory_id]
            news = None if directory_id == self.listener else progress.news_of(directory_id, changed)
            if news is not None:
                found.append(news)
            if not room:
                break
        return tuple(found)


def _pop_some(waiting: dict[Key, None]) -> list[Key]:
    """Return some that wait, which then do not any more."""
    found = list(islice(waiting, ENTRIES_AT_ONCE))
    for key in found:
        del waiting[key]
    return found
