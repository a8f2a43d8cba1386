"""What every node is known to hold on disk, told directly or through others.

A node tells its own positions on every pull stream, and what it knows of others', so an origin learns that its records
have reached a node even when the two cannot speak to each other. A disk is named by its directory id, and what is said
of it by the number of its opening: a restored backup, which has less, replaces what was said of the directory before.
What a disk has passed without having it (gaps, what is missing, what is retired) is no copy.

What is kept has a bound, but no living node's news is ever refused for nodes that have left or failed: these make room,
those first of which nothing was heard for longest. What is forgotten counts as not held, the safe side, until it is
told again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import MappingProxyType

from attrs import Factory, define

from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.messages import MAX_ORIGINS, HolderNews

Ranges = tuple[tuple[int, int], ...]
MAX_HOLDERS = 4096
MAX_NOT_HELD = 1024
"""Ranges of one origin at one holder; one that lacks more counts as having nothing below its end."""
MAX_ENTRIES = 1 << 19
"""Origins of all holders together: 50 nodes with 10,000 origins each, and 100 MB at most."""


_NOTHING: Mapping[Origin, Ranges] = MappingProxyType({})


def _bounded(not_held: Ranges, following: int) -> Ranges:
    """Return what a holder lacks, within the bound: too much of it counts as everything, the safe side."""
    return not_held if len(not_held) <= MAX_NOT_HELD else ((0, following),)


@define(repr=False)
class _Progress:
    """How far one disk is.

    Attributes:
        opened: which opening of its directory said so; nothing of an earlier one is kept beside it.
        nexts: per origin up to where it has passed it; only grows within an opening.
        not_held: what it has passed without having it, of origins in nexts, where there is anything.
    """

    opened: int
    nexts: dict[Origin, int] = Factory(dict)
    not_held: dict[Origin, Ranges] = Factory(dict)

    def holds(self, origin: Origin, first: int, following: int) -> bool:
        if self.nexts.get(origin, 0) < following:
            return False
        return not any(begin < following and first < end for begin, end in self.not_held.get(origin, ()))


@define(repr=False)
class ProgressTracker:
    """What nodes other than this one hold.

    Attributes:
        directory_id: this node's own, which is not kept here.
        on_change: called with the holder and the origins whose next has grown.
        living: returns the holders that are alive, which are the last to make room.
        entries: how many origins of holders are kept in all.
    """

    directory_id: bytes
    on_change: Callable[[bytes, Collection[Origin]], None]
    living: Callable[[], Collection[bytes]] = frozenset
    entries: int = 0
    # Those first of which nothing was heard for longest.
    _holders: OrderedDict[bytes, _Progress] = Factory(OrderedDict)

    def learn(
        self,
        directory_id: bytes,
        opened: int,
        nexts: Mapping[Origin, int],
        not_held: Mapping[Origin, Ranges] = _NOTHING,
        *,
        from_itself: bool = True,
    ) -> None:
        """Keep what was said of a holder; what is older than what is known counts for nothing.

        Args:
            directory_id: names its disk.
            opened: the number of the opening of its directory.
            nexts: per origin up to where it has passed it.
            not_held: per origin what it does not have below that, where there is anything.
            from_itself: it said so itself, and not another of it.
        """
        if directory_id == self.directory_id:
            return
        holder = self._holders.get(directory_id)
        if holder is not None and opened < holder.opened:
            return
        if holder is None or opened > holder.opened:
            self.forget(directory_id)
            if len(self._holders) >= MAX_HOLDERS:
                self.forget(next(self._not_living(), next(iter(self._holders))))
            holder = self._holders[directory_id] = _Progress(opened)
        self._holders.move_to_end(directory_id)
        room = self._make_room(holder, sum(1 for origin in nexts if origin not in holder.nexts))
        grown = []
        for origin, following in nexts.items():
            known = holder.nexts.get(origin)
            if known is None:
                if not room:
                    continue
                room -= 1
                self.entries += 1
            lacks = _bounded(not_held.get(origin, ()), following)
            if known is not None and (following < known or (following == known and not from_itself)):
                # What is told of others may be late; of two that have come equally far the holder itself knows better.
                continue
            if following != known or lacks != holder.not_held.get(origin, ()):
                holder.nexts[origin] = following
                if lacks:
                    holder.not_held[origin] = lacks
                else:
                    holder.not_held.pop(origin, None)
                grown.append(origin)
        if grown:
            self.on_change(directory_id, grown)

    def forget(self, directory_id: bytes) -> None:
        """Drop what is known of a holder."""
        holder = self._holders.pop(directory_id, None)
        if holder is not None:
            self.entries -= len(holder.nexts)

    def forget_origins(self, origins: Iterable[Origin], directory_id: bytes | None = None) -> None:
        """Drop origins that no log has any more; or those that one holder has not, which says so of its own log."""
        origins = tuple(origins)
        holders = self._holders.values() if directory_id is None else filter(None, [self._holders.get(directory_id)])
        for holder in holders:
            for origin in origins:
                self.entries -= holder.nexts.pop(origin, None) is not None
                holder.not_held.pop(origin, None)

    def count(self, origin: Origin, first: int, following: int, among: Collection[bytes]) -> int:
        """Return how many of these holders have the sequences [first, following) of an origin."""
        found = (self._holders.get(directory_id) for directory_id in set(among))
        return sum(1 for holder in found if holder is not None and holder.holds(origin, first, following))

    def opening_of(self, directory_id: bytes) -> int:
        """Return the number of the latest opening of a directory that is known of; 0: none."""
        holder = self._holders.get(directory_id)
        return 0 if holder is None else holder.opened

    def news_of(self, directory_id: bytes, origins: Collection[Origin]) -> HolderNews | None:
        """Return what is known of a holder's place in some origins; None if nothing."""
        holder = self._holders.get(directory_id)
        if holder is None:
            return None
        nexts = {origin: holder.nexts[origin] for origin in origins if origin in holder.nexts}
        not_held = {origin: holder.not_held[origin] for origin in nexts if origin in holder.not_held}
        return HolderNews(directory_id, holder.opened, nexts, not_held) if nexts else None

    def ranges_not_held(self, directory_id: bytes, origin: Origin) -> int:
        """Return in how many ranges a holder lacks what it has passed of an origin."""
        holder = self._holders.get(directory_id)
        return 0 if holder is None else len(holder.not_held.get(origin, ()))

    def known(self) -> Iterable[bytes]:
        """Return the holders that something is known of."""
        return tuple(self._holders)

    # -- room ----------------------------------------------------------------------------------------------------------

    def _not_living(self) -> Iterator[bytes]:
        # One after the other as they are asked for: most often the first makes room enough, and there may be thousands.
        living = frozenset(self.living())
        return (directory_id for directory_id in self._holders if directory_id not in living)

    def _make_room(self, holder: _Progress, wanted: int) -> int:
        """Let others make room for more origins of a holder; return for how many there is room, up to those wanted."""
        wanted = min(wanted, MAX_ORIGINS - len(holder.nexts))
        if self.entries + wanted <= MAX_ENTRIES:
            return wanted
        for directory_id in list(self._not_living()):
            if self._holders[directory_id] is not holder:
                self.forget(directory_id)
            if self.entries + wanted <= MAX_ENTRIES:
                return wanted
        # All are alive: those who have most give up what they told first, down to what this one will have.
        others = [each for each in self._holders.values() if each is not holder]
        for most in sorted(others, key=lambda each: len(each.nexts), reverse=True):
            over = self.entries + wanted - MAX_ENTRIES
            spare = min(over, len(most.nexts) - len(holder.nexts) - wanted)
            if spare <= 0:
                break
            for origin in list(most.nexts)[:spare]:
                del most.nexts[origin]
                most.not_held.pop(origin, None)
            self.entries -= spare
        return min(wanted, MAX_ENTRIES - self.entries)
