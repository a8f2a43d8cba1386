from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest
from attrs import evolve

from proglog_trio.errors import OffsetOutOfRange, SequenceOutOfRange
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.position import Position
from proglog_trio.log.retention import removable, remove_files
from tests.log.driving import DIRECTORY, NOON, OpenLog, batch_of, read_all, read_everything
from tests.log.simulated_disk import Loss, PowerCut, SimulatedDisk

CONFIG = LogConfig(DIRECTORY, segment_frames=2)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> int:
        return self.now

    def seconds(self) -> float:
        return (self.now - NOON) / 1000


def log_of(count: int, clock: Clock | None = None) -> tuple[SimulatedDisk, OpenLog]:
    disk = SimulatedDisk()
    clock = clock or Clock()
    opened = OpenLog.open(disk, 1, clock, CONFIG, clock.seconds)
    for number in range(count):
        opened.append(batch_of(b"%03d" % number * 20))
        clock.now += 1_000
    return disk, opened


def stores(disk: SimulatedDisk) -> list[Path]:
    return [path for path in disk.files() if path.suffix == ".store"]


def sizes_of(disk: SimulatedDisk, store: Path) -> int:
    """Return the size of a segment's two files."""
    return len(disk.content(store)) + len(disk.content(store.with_suffix(".index")))


def apply(opened: OpenLog, *, retention_bytes: int | None = None, retention_age: float | None = None) -> int:
    config = evolve(CONFIG, retention_bytes=retention_bytes, retention_age=retention_age)
    found = removable(opened.log.catalog, config, opened.log.running_time)
    if found is None:
        return 0
    forgotten = opened.log.durable.forget_segments(*found)
    remove_files(opened.log.catalog, forgotten)
    return len(forgotten)


def test_by_bytes() -> None:
    disk, opened = log_of(10)
    sizes = [sizes_of(disk, path) for path in stores(disk)]
    assert len(sizes) == 5
    assert apply(opened, retention_bytes=sum(sizes)) == 0
    assert apply(opened, retention_bytes=sum(sizes[1:]) + 1) == 0
    assert apply(opened, retention_bytes=sum(sizes[2:])) == 2
    assert [sizes_of(disk, path) for path in stores(disk)] == sizes[2:]
    assert opened.log.lowest_offset == 4
    assert [frame.base_offset for frame in read_all(opened.log)] == [4, 5, 6, 7, 8, 9]
    assert apply(opened, retention_bytes=0) == 2, "the active segment stays"
    assert opened.log.lowest_offset == 8


def test_by_age() -> None:
    clock = Clock()
    disk, opened = log_of(6, clock)
    # The segments begin with the appends of second 0, 2 and 4.
    clock.now = NOON + 11_999
    assert apply(opened, retention_age=10.0) == 0
    clock.now = NOON + 12_000
    assert apply(opened, retention_age=10.0) == 1
    clock.now = NOON + 10**9
    assert apply(opened, retention_age=10.0) == 1
    assert len(stores(disk)) == 1


def test_what_is_removed_is_out_of_range() -> None:
    _, opened = log_of(6)
    apply(opened, retention_bytes=0)
    with pytest.raises(OffsetOutOfRange) as caught:
        opened.log.reader_at_offset(3)
    assert (caught.value.offset, caught.value.lowest, caught.value.next) == (3, 4, 6)
    with pytest.raises(SequenceOutOfRange):
        opened.log.reader_at_position(Position.empty())
    chunk = opened.log.reader_at_offset(1, skip_missing=True).read(1 << 20, 6)
    assert [(skip.from_offset, skip.to_offset) for skip in chunk.skipped] == [(1, 4)]
    assert [frame.base_offset for frame in chunk.frames] == [4, 5]
    chunk = opened.log.reader_at_position(Position.empty(), skip_missing=True).read(1 << 20, 6)
    assert [frame.base_offset for frame in chunk.frames] == [4, 5]


def test_low_survives_another_opening() -> None:
    disk, opened = log_of(6)
    apply(opened, retention_bytes=0)
    (state,) = opened.log.origins.values()
    assert (state.low, state.next) == (4, 6)
    opened.close()
    opened = OpenLog.open(disk, 2, config=CONFIG)
    assert list(opened.log.origins.values()) == [state]
    assert opened.log.lowest_offset == 4


def test_low_holds_although_commits_were_under_way() -> None:
    """What is committed after segments were removed was planned before: it must not bring the old low back."""
    _, opened = log_of(6)
    opened.log.append_soon(batch_of(b"under way"), lambda _: None)
    apply(opened, retention_bytes=0)
    (before,) = opened.log.origins.values()
    opened.commit()
    (after,) = opened.log.origins.values()
    assert (before.low, after.low) == (4, 4)
    assert after.next == 7
    with pytest.raises(SequenceOutOfRange):
        opened.log.reader_at_position(Position.empty())


@pytest.mark.parametrize("loss", Loss)
def test_power_cut_while_segments_are_removed_leaves_no_hole(loss: Loss) -> None:
    original, _ = log_of(12)
    for ahead in range(1, 20):
        for seed in range(1 if loss is not Loss.MIX else 6):
            disk = original.copy()
            opened = OpenLog.open(disk, 2, config=CONFIG)
            disk.cut_at = disk.operations + ahead
            try:
                removed = apply(opened, retention_bytes=0)
            except PowerCut:
                removed = -1
            disk.restart(loss, random.Random(seed))
            opened = OpenLog.open(disk, 3, config=CONFIG)
            found = read_everything(opened.log)
            assert not found.losses
            assert found.frames[-1].base_offset == 11
            assert removed == -1 or opened.log.lowest_offset == 10


def test_segments_that_somebody_removed_are_no_obstacle() -> None:
    disk, opened = log_of(8)
    opened.close()
    for path in stores(disk)[1:2]:
        disk.delete(path)
        disk.delete(path.with_suffix(".index"))
    opened = OpenLog.open(disk, 2, config=CONFIG)
    disk.delete(stores(disk)[0])
    assert apply(opened, retention_bytes=0) == 2
    assert opened.log.lowest_offset == 6
    assert len(stores(disk)) == 1


def test_segment_whose_header_is_needed_but_damaged_keeps_the_one_before() -> None:
    disk, opened = log_of(8)
    opened.close()
    victim = stores(disk)[2]
    disk.flip(victim, 20, 0xFF)
    disk.delete(victim.with_suffix(".index"))
    opened = OpenLog.open(disk, 2, config=CONFIG)
    disk.put(victim.with_suffix(".index"), b"")
    total = sum(sizes_of(disk, path) for path in stores(disk)[2:])
    assert apply(opened, retention_bytes=total) == 1
    assert opened.log.lowest_offset == 2
    assert apply(opened, retention_bytes=0) == 2


def test_removal_that_fails_is_an_error_of_the_disk() -> None:
    disk, opened = log_of(4)
    disk.fail("remove", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        apply(opened, retention_bytes=0)


def test_since_when_nothing_is_left_of_an_origin_survives_another_opening() -> None:
    clock = Clock()
    disk, opened = log_of(4, clock)
    (first,) = opened.log.origins
    opened.close()
    begun = clock.now
    opened = OpenLog.open(disk, 2, clock, CONFIG, lambda: (clock.now - begun) / 1000)
    for number in range(6):
        opened.append(batch_of(b"%d" % number))
    assert opened.log.origins[first].emptied is None
    clock.now += 50_000
    assert apply(opened, retention_bytes=0)
    emptied = opened.log.origins[first].emptied
    assert emptied == opened.log.running_time.milliseconds()
    clock.now += 100_000
    opened.append(batch_of(b"another segment"))
    opened.append(batch_of(b"and another"))
    opened.log.roll()
    opened.commit()
    opened.close()
    again = OpenLog.open(disk, 3, clock, CONFIG)
    assert again.log.origins[first].emptied == emptied < again.log.running_time.before
