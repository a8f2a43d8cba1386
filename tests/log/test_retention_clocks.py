"""Retention by age under wall clocks that are wrong: never early, and at last everything.

The model knows the true time. Wall clocks start anywhere and jump both ways by seconds, hours and years, while the node
runs and while it does not; nodes crash; headers are destroyed; a program of before, whose headers do not say how long
nodes had run, writes for a while.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import pytest
from attrs import Factory, define, evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.envelope import Salt
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import SegmentHeader
from proglog_trio.log.retention import is_due_to_roll, overdue_milliseconds, removable, remove_files
from proglog_trio.log.state import LogState
from proglog_trio.log.storage.running_time import (
    CLOCK_JUMP_MILLISECONDS,
    RUNNING_TIME_FILE,
    RunningTime,
    Stamp,
    Unmarked,
    WallClockWatch,
    read_stamp,
)
from tests.log.driving import DIRECTORY, NOON, OpenLog, batch_of
from tests.log.simulated_disk import Loss, SimulatedDisk

EXAMPLES = settings().max_examples

AGE = 600.0
CONFIG = LogConfig(DIRECTORY, segment_frames=3, retention_age=AGE)
SECOND, HOUR, YEAR = 1.0, 3600.0, 365 * 86_400.0
SPANS = st.sampled_from([0.1, 1.0, 30.0, 250.0, AGE, 2 * AGE, HOUR, 86_400.0])
JUMPS = st.sampled_from([sign * span for span in (SECOND, 90.0, HOUR, YEAR, 54 * YEAR) for sign in (1, -1)])

to_header = LogState.to_header


def old_header(self: LogState, salt: Salt, wall_milliseconds: int) -> SegmentHeader:
    return evolve(to_header(self, salt, wall_milliseconds), running=None)


@define
class World:
    """A node and what is true.

    Attributes:
        true: seconds.
        wall_error: by how much the wall clock is ahead, in seconds.
        stored: when which offset was stored.
        is_old: a program of before runs.
    """

    disk: SimulatedDisk = Factory(SimulatedDisk)
    true: float = 0.0
    wall_error: float = 0.0
    booted: float = 0.0
    openings: int = 0
    is_old: bool = False
    stored: dict[int, float] = Factory(dict)
    opened: OpenLog | None = None

    @property
    def log(self) -> OpenLog:
        assert self.opened is not None
        return self.opened

    @contextmanager
    def program(self) -> Iterator[None]:
        with mock.patch.object(LogState, "to_header", old_header) if self.is_old else nullcontext():
            yield

    def open(self) -> None:
        self.openings += 1
        self.booted = self.true
        with self.program():
            self.opened = OpenLog.open(self.disk, self.openings, self.wall, CONFIG, lambda: self.true - self.booted)

    def wall(self) -> int:
        return max(NOON + int((self.true + self.wall_error) * 1000), 0)

    def append(self) -> None:
        with self.program():
            appended = self.log.append(batch_of(b"x"))
        self.stored[appended.base_offset] = self.true

    def look(self) -> None:
        if self.is_old:
            return  # what it removes is its own mistake
        log = self.log.log
        lowest = log.lowest_offset
        found = removable(log.catalog, log.config, log.running_time)
        if found is not None:
            remove_files(log.catalog, log.durable.forget_segments(*found))
        for offset in range(lowest, log.lowest_offset):
            age = self.true - self.stored[offset]
            assert age >= AGE, f"offset {offset} was removed {age} s after it was stored"
        if is_due_to_roll(log.catalog, log.config, log.running_time):
            log.roll()
            self.log.commit()

    def restart(self, *, cleanly: bool, away: float, old: bool) -> None:
        if cleanly:
            if not self.is_old:
                self.log.log.running_time.note(self.wall())
            self.log.close()
        else:
            self.disk.restart(Loss.DROP, random.Random(self.openings))
        self.true += away
        self.is_old = old
        self.open()


STEPS = st.one_of(
    st.tuples(st.just("append")),
    st.tuples(st.just("look")),
    st.tuples(st.just("run"), SPANS),
    st.tuples(st.just("jump"), JUMPS),
    st.tuples(st.just("right")),
    st.tuples(st.just("note")),
    st.tuples(st.just("restart"), st.booleans(), st.sampled_from([0.0, 60.0, HOUR, YEAR]), st.booleans()),
    st.tuples(st.just("damage"), st.integers(0, 100)),
    st.tuples(st.just("damage newest")),
)


def damage(world: World, number: int) -> None:
    """Destroy both copies of a closed segment's header."""
    closed = world.log.log.catalog.segments[:-1]
    if closed:
        destroy(world, closed[number % len(closed)])


def destroy(world: World, files: SegmentFiles) -> None:
    for path in (files.store, files.index):
        if path in world.disk.files():
            world.disk.put(path, b"\0" * len(world.disk.content(path)))


@settings(max_examples=max(EXAMPLES // 2, 5))
@given(st.sampled_from([0.0, -YEAR, -54 * YEAR, YEAR]), st.lists(STEPS, max_size=40))
def test_nothing_goes_early_and_everything_at_last(wall_error: float, steps: list[tuple[object, ...]]) -> None:
    world = World(wall_error=wall_error)
    world.open()
    for step in steps:
        match step:
            case ("append",):
                world.append()
            case ("look",):
                world.look()
            case ("run", float(seconds)):
                world.true += seconds
            case ("jump", float(seconds)):
                world.wall_error += seconds
            case ("right",):
                world.wall_error = 0.0
            case ("note",):
                if not world.is_old:
                    world.log.log.running_time.note(world.wall())
            case ("restart", bool(cleanly), float(away), bool(old)):
                world.restart(cleanly=cleanly, away=away, old=old)
            case ("damage", int(number)):
                damage(world, number)
            case ("damage newest",):
                # It is moved aside, and with it goes what its header says of the running time.
                world.log.close(cleanly=False)
                destroy(world, world.log.log.catalog.segments[-1])
                world.open()
    # Whatever was: with a right clock, one and a half times the age and some looks later, all of it is gone.
    world.restart(cleanly=True, away=0.0, old=False)
    world.wall_error = 0.0
    world.append()
    last = world.log.log.next_offset
    ran = 0.0
    while ran <= 1.5 * AGE + 20.0:
        world.look()
        world.true += 10.0
        ran += 10.0
    world.look()
    assert world.log.log.lowest_offset == last


def test_a_clock_a_year_behind_for_one_run() -> None:
    world = World(wall_error=-YEAR)
    world.open()
    for _ in range(240):
        world.append()
        world.true += 0.5
    world.restart(cleanly=True, away=1.0, old=False)
    world.wall_error = 0.0
    world.append()
    world.look()
    assert world.log.log.lowest_offset == 0
    overdue = overdue_milliseconds(world.log.log.catalog, CONFIG, world.wall())
    assert overdue > (YEAR - 2 * AGE) * 1000, "and that the wall clock says otherwise is seen"


def test_a_clock_an_hour_ahead_for_a_while_delays_nothing() -> None:
    world = World()
    world.open()
    world.wall_error = HOUR
    for _ in range(9):
        world.append()
    world.wall_error = 0.0
    for _ in range(9):
        world.append()
    world.true += AGE
    world.look()
    assert world.log.log.lowest_offset == 15
    assert overdue_milliseconds(world.log.log.catalog, CONFIG, world.wall()) == 0


def test_what_a_header_that_cannot_be_read_would_tell_the_next_tells() -> None:
    world = World()
    world.open()
    for _ in range(30):
        world.append()
        world.true += 1.0
    damage(world, 3)
    for day in range(400):
        world.true += 86_400.0
        world.append()
        world.look()
        assert len(world.log.log.catalog.segments) <= 13 - min(day, 9)


def test_bytes_and_unreadable_headers() -> None:
    """A disk that cannot read a sector, or a header of another version, are no end of retention either."""
    world = World()
    world.open()
    for _ in range(30):
        world.append()
    world.true += 2 * AGE
    catalog = world.log.log.catalog
    broken = catalog.segments[4]
    load = type(catalog).load

    def failing(self: object, files: object) -> object:
        if files == broken:
            raise OSError(5, "Input/output error")
        return load(self, files)  # type: ignore[arg-type]

    with mock.patch.object(type(catalog), "load", failing):
        world.look()
    assert world.log.log.lowest_offset == 27


# -- the running time itself -------------------------------------------------------------------------------------------

DIRECTORY_ID = bytes(range(8))
HEADER = SegmentHeader(DIRECTORY_ID, "cluster", Salt(bytes(8)), 5, 0, running=0)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.booleans()), max_size=20), st.randoms(use_true_random=False))
def test_running_time_is_what_was_noted_and_never_more_than_passed(
    lives: list[tuple[float, bool]], rng: random.Random
) -> None:
    disk = SimulatedDisk(rng)
    disk.make_directory(DIRECTORY)
    passed = kept = 0.0
    for seconds, noted in lives:
        now = rng.uniform(-1e6, 1e6)
        running_time = RunningTime.open(disk, DIRECTORY, HEADER, lambda: now)  # noqa: B023 - of this turn
        assert kept * 1000 - len(lives) <= running_time.milliseconds() <= passed * 1000 + 1
        now += seconds
        passed += seconds
        if noted:
            running_time.note(NOON)
            kept += seconds
        disk.restart(Loss.MIX, rng)


@given(st.binary(max_size=80), st.sampled_from([0, 512]), st.integers(0, 60))
def test_a_damaged_stamp_leaves_the_other_and_never_makes_older(data: bytes, place: int, at: int) -> None:
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    now = 0.0
    running_time = RunningTime.open(disk, DIRECTORY, HEADER, lambda: now)
    for _ in range(2):
        now += 10
        running_time.note(NOON)
    path = DIRECTORY / RUNNING_TIME_FILE
    content = bytearray(disk.content(path))
    content[place + at : place + at + len(data)] = data
    disk.put(path, bytes(content))
    assert RunningTime.open(disk, DIRECTORY, HEADER, lambda: 0.0).milliseconds() in (0, 10_000, 20_000)
    later = evolve(HEADER, running=15_000)
    assert RunningTime.open(disk, DIRECTORY, later, lambda: 0.0).milliseconds() in (15_000, 20_000)


def test_the_stamp_of_another_directory_is_none() -> None:
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    disk.put(DIRECTORY / RUNNING_TIME_FILE, Stamp(b"another!", 10**12, NOON).encode())
    assert read_stamp(disk, DIRECTORY, DIRECTORY_ID) == (None, 0)
    assert RunningTime.open(disk, DIRECTORY, HEADER, lambda: 0.0).milliseconds() == 0


@given(st.binary(min_size=8, max_size=8), *[st.integers(0, 2**64 - 1)] * 4)
def test_stamps_round_trip(directory_id: bytes, running: int, wall: int, offset: int, at: int) -> None:
    stamp = Stamp(directory_id, running, wall, Unmarked(offset, at))
    assert Stamp.decode(stamp.encode()) == stamp
    assert Stamp.decode(stamp.encode()[:-1]) is None
    assert Stamp.decode(b"") is None


def test_a_directory_that_is_read_only_still_opens_and_runs(tmp_path: Path) -> None:
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    now = 0.0
    running_time = RunningTime.open(disk, DIRECTORY, HEADER, lambda: now)
    now = 5.0
    disk.fail("write", 30)
    with pytest.raises(OSError, match="Read-only"):
        running_time.note(NOON)
    assert running_time.milliseconds() == 5_000


def test_what_a_program_of_before_wrote_counts_from_when_it_was_first_seen() -> None:
    world = World(is_old=True)
    world.open()
    for _ in range(9):
        world.append()
    for _ in range(2):
        world.restart(cleanly=True, away=YEAR, old=False)
        world.true += AGE / 2 - 1
        world.look()
        assert world.log.log.lowest_offset == 0
    world.append()
    world.true += 2
    world.look()
    assert world.log.log.lowest_offset >= 6, "the age was reached by what both openings ran"
    # and it may come in between again
    world.restart(cleanly=True, away=0.0, old=True)
    first = world.log.log.next_offset
    for _ in range(9):
        world.append()
    world.restart(cleanly=True, away=0.0, old=False)
    world.true += AGE / 2
    world.look()
    assert world.log.log.lowest_offset <= first
    for _ in range(int(AGE)):
        world.true += 1.0
        world.look()
    world.append()
    world.true += AGE
    world.look()
    assert world.log.log.lowest_offset > first


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(-(10**12), 10**12)), max_size=20))
def test_jumps_of_the_wall_clock_are_seen(steps: list[tuple[int, int]]) -> None:
    watch = WallClockWatch(0, NOON)
    running, wall = 0, NOON
    for passed, jump in steps:
        running += passed
        wall += passed + jump
        assert watch.look(running, wall) == (jump if abs(jump) > CLOCK_JUMP_MILLISECONDS else 0)
