"""Comparing logs: wherever two of them have the same sequences of an origin, they must have the same frames.

What only one of two has is no contradiction: retention took it, it has not arrived yet, a marker says that it never
will. Only where a log lacks something in the midst of what it has, and nothing says so, is it damaged.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from pathlib import Path

from attrs import Factory, define, frozen

from proglog_trio.errors import DataDirectoryError
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.inspect.frame_table import FramePlace, FrameTable, OriginTable, find_frame


@frozen
class Difference:
    """The first place at which two logs differ in an origin.

    Attributes:
        first, second: the two frames' places; None if one is gone since it was read.
        detail: how they differ, in words.
    """

    origin: Origin
    first: FramePlace | None
    second: FramePlace | None
    detail: str

    def __str__(self) -> str:
        return f"difference: origin {self.origin}: {self.detail}: {self.first}; {self.second}"


class Reason(enum.Enum):
    """Why a log lacks what another has. `log verify --json` gives the names."""

    REMOVED = "retention removed it"
    """It lies below all that the log has of the origin."""
    BEHIND = "it has not got so far"
    """It lies above."""
    GAP = "a gap marker says so"
    MISSING = "it is missing there at present"
    """A marker stands where it belongs."""
    HOLE = "it is missing or damaged there"
    """It lies in the midst, and nothing says why."""


@frozen
class OnlyOne:
    """Sequences [from_sequence, to_sequence) of an origin that one log has and the other has not."""

    origin: Origin
    from_sequence: int
    to_sequence: int
    held_by: Path
    lacked_by: Path
    reason: Reason

    def __str__(self) -> str:
        return (
            f"only one: origin {self.origin}: sequences {self.from_sequence} to {self.to_sequence - 1} are in "
            f"{self.held_by}, not in {self.lacked_by}: {self.reason.value}"
        )


@define
class Comparison:
    """Compares two logs that have been read.

    Attributes:
        first, second: the logs.
        origins: how many origins both have.
        equal_frames: how many frames are the same in both.
        different_frames: how many are not.
        different_origins: in how many origins.
        only_first, only_second: how many records one of them has alone.
        holes: how many ranges are missing in the midst.
    """

    first: FrameTable
    second: FrameTable
    origins: int = 0
    equal_frames: int = 0
    different_frames: int = 0
    different_origins: int = 0
    only_first: int = 0
    only_second: int = 0
    holes: int = 0

    @property
    def is_equal(self) -> bool:
        """Whether there is no contradiction, and nothing is missing in the midst."""
        return not self.different_frames and not self.holes

    def run(self) -> Iterator[Difference | OnlyOne]:
        """Yield what is not the same, origin by origin.

        Raises:
            DataDirectoryError: the logs are of two clusters, or one cannot be read any more.
        """
        first, second = self.first, self.second
        if first.cluster_name != second.cluster_name:
            raise DataDirectoryError(
                f"{first.directory} belongs to cluster {first.cluster_name!r}, {second.directory} to "
                f"{second.cluster_name!r}: there is nothing to compare"
            )
        for origin in sorted({*first.origins, *second.origins}):
            one, other = first.origins.get(origin), second.origins.get(origin)
            self.origins += one is not None and other is not None
            yield from self._compare(origin, one or OriginTable(), other or OriginTable())

    def _compare(self, origin: Origin, one: OriginTable, other: OriginTable) -> Iterator[Difference | OnlyOne]:
        merge = _Merge(one, other)
        merge.run()
        self.equal_frames += merge.equal
        self.different_frames += merge.different
        if merge.first_difference is not None:
            self.different_origins += 1
            yield self._difference(origin, one, other, *merge.first_difference)
        for ranges, table, holder, lacker, is_first in (
            (merge.only_one, other, self.first, self.second, True),
            (merge.only_other, one, self.second, self.first, False),
        ):
            for from_sequence, to_sequence in ranges:
                for begin, end, reason in _reasons(table, from_sequence, to_sequence):
                    if is_first:
                        self.only_first += end - begin
                    else:
                        self.only_second += end - begin
                    self.holes += reason is Reason.HOLE
                    yield OnlyOne(origin, begin, end, holder.directory, lacker.directory, reason)

    def _difference(
        self, origin: Origin, one: OriginTable, other: OriginTable, place: int, other_place: int
    ) -> Difference:
        base, other_base = one.bases[place], other.bases[other_place]
        same = (base, one.counts[place]) == (other_base, other.counts[other_place])
        detail = "the frames are not the same" if same else "the frames begin or end at different sequences"
        return Difference(
            origin,
            find_frame(self.first.disk, self.first.directory, origin, base),
            find_frame(self.second.disk, self.second.directory, origin, other_base),
            detail,
        )


@define
class _Merge:
    """Goes through the frames of an origin in two logs side by side."""

    one: OriginTable
    other: OriginTable
    equal: int = 0
    different: int = 0
    first_difference: tuple[int, int] | None = None
    only_one: list[tuple[int, int]] = Factory(list)
    only_other: list[tuple[int, int]] = Factory(list)

    def run(self) -> None:
        one, other = self.one, self.other
        i = j = 0
        while i < len(one.bases) or j < len(other.bases):
            if i == len(one.bases) or (j < len(other.bases) and _end(other, j) <= one.bases[i]):
                _extend(self.only_other, other.bases[j], _end(other, j))
                j += 1
            elif j == len(other.bases) or _end(one, i) <= other.bases[j]:
                _extend(self.only_one, one.bases[i], _end(one, i))
                i += 1
            else:
                same = (one.bases[i], one.counts[i], one.digests[i]) == (
                    other.bases[j],
                    other.counts[j],
                    other.digests[j],
                )
                if same:
                    self.equal += 1
                else:
                    self.different += 1
                    if self.first_difference is None:
                        self.first_difference = i, j
                end = min(_end(one, i), _end(other, j))
                i, j = i + (_end(one, i) == end), j + (_end(other, j) == end)


def _end(table: OriginTable, place: int) -> int:
    return table.bases[place] + table.counts[place]


def _extend(ranges: list[tuple[int, int]], begin: int, end: int) -> None:
    if ranges and ranges[-1][1] == begin:
        ranges[-1] = ranges[-1][0], end
    else:
        ranges.append((begin, end))


def _reasons(table: OriginTable, begin: int, end: int) -> Iterator[tuple[int, int, Reason]]:
    """Cut a range that a log lacks by the reasons for it."""
    marked = (*table.gaps, *table.missing)
    highest = max(table.next, max((to for _, to in marked), default=0))
    edges = {begin, end, *(edge for each in marked for edge in each), table.low, highest}
    cuts = sorted(edge for edge in edges if begin <= edge <= end)
    for first, following in itertools.pairwise(cuts):
        if any(low <= first and following <= high for low, high in table.gaps):
            reason = Reason.GAP
        elif any(low <= first and following <= high for low, high in table.missing):
            reason = Reason.MISSING
        elif following <= table.low:
            reason = Reason.REMOVED
        elif first >= highest:
            reason = Reason.BEHIND
        else:
            reason = Reason.HOLE
        yield first, following, reason
