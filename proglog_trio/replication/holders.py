"""Who has what on disk: what every node is known to hold, told directly or through others.

A node tells its own positions on every pull stream, and what it knows of others', so an origin learns that its records
have reached a node even when the two cannot speak to each other. A disk is named by its directory id, and what is said
of it by when it was opened: a restored backup, which has less, replaces what was said of the directory before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from attrs import Factory, define

from ..log.origin import Origin
from .messages import HolderNews

MOST_HOLDERS = 4096
MOST_ORIGINS = 65_536
"""Of one holder; what lies beyond is not taken in, so its records count as not held: the safe side."""


@define(repr=False)
class _Holder:
    opened: int
    nexts: dict[Origin, int] = Factory(dict)


@define(repr=False)
class Holders:
    """What nodes other than this one hold.

    Attributes:
        directory_id: this node's own, which is not kept here.
        on_change: called with the holder and the origins whose next has grown.
    """

    directory_id: bytes
    on_change: Callable[[bytes, Collection[Origin]], None]
    _holders: dict[bytes, _Holder] = Factory(dict)

    def learn(self, directory_id: bytes, opened: int, nexts: Mapping[Origin, int]) -> None:
        """Take what was said of a holder; what is older than what is known counts for nothing."""
        if directory_id == self.directory_id:
            return
        holder = self._holders.get(directory_id)
        if holder is None or opened > holder.opened:
            if holder is None and len(self._holders) >= MOST_HOLDERS:
                return
            holder = self._holders[directory_id] = _Holder(opened)
        elif opened < holder.opened:
            return
        grown = []
        for origin, following in nexts.items():
            known = holder.nexts.get(origin)
            if known is None and len(holder.nexts) >= MOST_ORIGINS:
                continue
            if known is None or following > known:
                holder.nexts[origin] = following
                grown.append(origin)
        if grown:
            self.on_change(directory_id, grown)

    def forget(self, directory_id: bytes) -> None:
        """Drop what is known of a holder."""
        self._holders.pop(directory_id, None)

    def forget_origins(self, origins: Iterable[Origin]) -> None:
        """Drop origins that no log has any more."""
        origins = tuple(origins)
        for holder in self._holders.values():
            for origin in origins:
                holder.nexts.pop(origin, None)

    def count(self, origin: Origin, end: int, among: Collection[bytes]) -> int:
        """Return how many of these holders have an origin up to a sequence (exclusive)."""
        return sum(
            1
            for directory_id, holder in self._holders.items()
            if directory_id in among and holder.nexts.get(origin, 0) >= end
        )

    def news_of(self, directory_id: bytes, origins: Collection[Origin]) -> HolderNews | None:
        """Return what is known of a holder's place in some origins; None if nothing."""
        holder = self._holders.get(directory_id)
        if holder is None:
            return None
        nexts = {origin: holder.nexts[origin] for origin in origins if origin in holder.nexts}
        return HolderNews(directory_id, holder.opened, nexts) if nexts else None

    def known(self) -> Iterable[bytes]:
        """Return the holders that something is known of."""
        return tuple(self._holders)
