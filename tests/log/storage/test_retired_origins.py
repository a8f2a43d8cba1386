"""Where origins ended of which nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.errors import FormatError, SequenceOutOfRange
from proglog_trio.log.disk import OperatingSystemDisk
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position, Range
from proglog_trio.log.storage import retired_origins
from proglog_trio.log.storage.retired_origins import RETIRED_ORIGINS_FILE, RetiredOrigins, rows_of
from tests.log.driving import DIRECTORY, OpenLog
from tests.log.simulated_disk import SimulatedDisk

FILE = DIRECTORY / RETIRED_ORIGINS_FILE
ORIGINS = st.binary(min_size=16, max_size=16).map(Origin)
ENDS = st.dictionaries(ORIGINS, st.integers(1, 2**64 - 1), max_size=20)


def retired_on_a_new_disk() -> tuple[SimulatedDisk, RetiredOrigins]:
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    return disk, RetiredOrigins(disk, DIRECTORY)


@given(st.lists(ENDS, max_size=4), st.lists(ORIGINS, max_size=5))
def test_the_highest_end_of_each_is_kept(added: list[dict[Origin, int]], others: list[Origin]) -> None:
    _, retired = retired_on_a_new_disk()
    expected: dict[Origin, int] = {}
    for ends in added:
        merged = {origin: max(expected.get(origin, 0), end) for origin, end in ends.items()}
        assert retired.add(ends) == (expected != {**expected, **merged})
        expected.update(merged)
    assert retired.ends_of([*expected, *others]) == expected


@given(st.binary(max_size=200))
def test_what_is_no_such_file_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        rows_of(data)


@given(ENDS.filter(bool), st.integers(0, 2**20), st.integers(1, 255))
def test_a_damaged_file_tells_nothing_and_is_written_anew(ends: dict[Origin, int], place: int, flip: int) -> None:
    disk, retired = retired_on_a_new_disk()
    retired.add(ends)
    disk.flip(FILE, place % len(disk.content(FILE)), flip)
    assert retired.ends_of(ends) == {}
    assert retired.add(ends)
    assert retired.ends_of(ends) == ends


def test_there_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retired_origins, "MAX_RETIRED", 3)
    _, retired = retired_on_a_new_disk()
    origins = [Origin(bytes([number]) * 16) for number in range(5)]
    assert retired.add({origins[0]: 1, origins[1]: 1})
    retired.add(dict.fromkeys(origins, 2))
    assert retired.ends_of(origins) == dict.fromkeys(origins[:3], 2)
    assert not retired.add({origins[4]: 9})
    assert retired.add({origins[0]: 9}), "what is known may still rise"


def test_a_real_file_is_found_again(tmp_path: Path) -> None:

    origin = Origin(b"sixteen bytes...")
    assert RetiredOrigins(OperatingSystemDisk(), tmp_path).add({origin: 7})
    assert RetiredOrigins(OperatingSystemDisk(), tmp_path).ends_of([origin]) == {origin: 7}
    assert [path.name for path in tmp_path.iterdir()] == [RETIRED_ORIGINS_FILE]


def test_a_reader_whose_position_is_before_the_end_is_told() -> None:
    opened = OpenLog.open(SimulatedDisk())
    log = opened.log
    opened.append_values(b"a", b"b")
    retired, unknown = Origin(b"a retired origin"), Origin(b"an unknown one..")
    log.durable.retired_origins.add({retired: 10})
    own = log.own_origin
    assert own is not None
    before = Position({own: Range(0, 1), retired: Range(0, 4), unknown: Range(0, 4)})
    with pytest.raises(SequenceOutOfRange):
        log.reader_at_position(before)
    reader = log.reader_at_position(before, skip_missing=True)
    chunk = reader.read(1 << 20, log.next_offset)
    assert [each.sequences for each in chunk.skipped] == [(retired, 4, 10)]
    assert [frame.header.base_sequence for frame in chunk.frames] == [0]
    assert reader.read(1 << 20, log.next_offset).skipped == []
    at_end = Position({own: Range(0, 2), retired: Range(0, 10)})
    assert log.reader_at_position(at_end).read(1 << 20, log.next_offset).skipped == []
