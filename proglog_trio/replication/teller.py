"""What one pull stream's other side has not been told yet, and when it must be.

What the other side waits for (that its own records have reached this disk) is told at once; everything else has time
and goes together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from attrs import Factory, define

from ..log.origin import Origin
from ..log.segment_header import OriginState
from .directories import Directories, KnownDirectory
from .holders import Holders
from .messages import HolderNews, OriginRange, Positions, Told


@define
class Teller:
    """Collects what is to be told.

    Attributes:
        quick_seconds: how long acknowledgements are collected, after one was sent.
        slow_seconds: how long everything else is.
        listener: the directory id of the other side, once known: it is not told of itself.
    """

    quick_seconds: float
    slow_seconds: float
    listener: bytes | None = None
    _origins: dict[Origin, None] = Factory(dict)
    _forgotten: dict[Origin, None] = Factory(dict)
    _others: dict[bytes, set[Origin]] = Factory(dict)
    _directories: dict[bytes, None] = Factory(dict)
    _superseded: int | None = None
    _told_writing: Origin | None = None
    _everything: bool = True
    _told_at: float = float("-inf")
    _is_urgent: bool = False

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
        if self._everything or self._superseded is not None:
            return float("-inf")
        if self._is_urgent or writing != self._told_writing:
            return self._told_at + self.quick_seconds
        if self._origins or self._forgotten or self._others or self._directories:
            return self._told_at + self.slow_seconds
        return None

    def take(
        self,
        now: float,
        states: Mapping[Origin, OriginState],
        writing: Origin | None,
        holders: Holders,
        directories: Directories,
    ) -> Told:
        """Return what is to be told, if its time has come."""
        deadline = self.deadline(writing)
        if deadline is None or deadline > now:
            return Told()
        origins: Iterable[Origin] = states if self._everything else self._origins
        ranges = {origin: OriginRange.of_state(states[origin]) for origin in origins if origin in states}
        forgotten = tuple(origin for origin in self._forgotten if origin not in states)
        others = tuple(
            news
            for directory_id, changed in self._others.items()
            if directory_id != self.listener and (news := holders.news_of(directory_id, changed)) is not None
        )
        if self._superseded is not None and self.listener is not None:
            others = (HolderNews(self.listener, self._superseded, {}), *others)
        known: Iterable[KnownDirectory | None] = (
            directories if self._everything else map(directories.get, self._directories)
        )
        changed_directories = tuple(each for each in known if each is not None)
        positions = None
        if self._everything or ranges or forgotten or writing != self._told_writing:
            positions = Positions(ranges, forgotten, writing)
        self._origins, self._forgotten, self._others, self._directories = {}, {}, {}, {}
        self._superseded = None
        self._everything = self._is_urgent = False
        self._told_writing, self._told_at = writing, now
        return Told(positions, others, changed_directories)
