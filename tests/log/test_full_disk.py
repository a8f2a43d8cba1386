"""A disk without room: what is answered, what is served, and how the log goes on by itself."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from attrs import evolve
from hypothesis import given, settings

from proglog_trio.errors import DataDirectoryFull, LogReadOnly, OutcomeUnknown, ProglogError
from proglog_trio.log.batch import Appended
from proglog_trio.log.config import LogConfig
from proglog_trio.log.retention import removable, remove_files
from tests.log.driving import DIRECTORY, ForeignLog, OpenLog, batch_of, read_all, read_everything
from tests.log.simulated_disk import Loss, SimulatedDisk

EXAMPLES = settings().max_examples

CONFIG = LogConfig(DIRECTORY, segment_bytes=8192, index_interval_bytes=256)
Outcomes = list[Appended | ProglogError]
ENOUGH = 1 << 30


def values(opened: OpenLog) -> list[bytes]:
    return [frame.frame.payload[-8:] for frame in read_all(opened.log)]


def fill(opened: OpenLog, size: int = 1000) -> int:
    """Append until the disk takes no more; return how many batches were stored."""
    stored = 0
    while True:
        try:
            opened.append_values(b"%08d" % stored + bytes(size))
        except LogReadOnly:
            return stored
        stored += 1


def apply_retention(opened: OpenLog, retention_bytes: int) -> None:
    log = opened.log
    found = removable(log.catalog, evolve(log.config, retention_bytes=retention_bytes), log.running_time)
    assert found is not None
    remove_files(log.catalog, log.durable.forget_segments(*found))


def test_retention_makes_room_and_the_log_goes_on() -> None:
    disk = SimulatedDisk(capacity=60_000)
    opened = OpenLog.open(disk, config=CONFIG)
    stored = fill(opened)
    assert opened.log.read_only_reason is not None
    assert "No space left" in opened.log.read_only_reason
    opened.look_at_disk()
    assert opened.log.read_only_reason is not None, "nothing has changed"
    assert len(read_all(opened.log)) == stored
    told: list[str | None] = []
    opened.log.notify_durable(lambda: told.append(opened.log.read_only_reason))
    apply_retention(opened, 20_000)
    opened.look_at_disk()
    assert told[-1] is None, "whoever watches the log is told"
    following = opened.append_values(b"again")
    assert following.base_offset == stored, "no offset is left out"
    opened.close()
    opened = OpenLog.open(disk, 1, config=CONFIG)
    assert opened.log.report.is_clean
    assert read_all(opened.log)[-1].base_offset == stored
    opened.close()
    assert not disk.open_files


@settings(max_examples=max(EXAMPLES // 3, 5))
@given(st.integers(0, 2000), st.sampled_from(["", "a crash", "a torn tail"]), st.integers(0, 400))
def test_a_log_on_a_full_disk_is_opened_and_served(room: int, accident: str, tail: int) -> None:
    """With any amount of room from none to more than enough for all that opening writes."""
    disk = SimulatedDisk(random.Random(room))
    opened = OpenLog.open(disk, config=CONFIG)
    for number in range(11):
        opened.append_values(b"%08d" % number + bytes(1000))
    before = read_all(opened.log)
    opened.close(cleanly=not accident)
    disk.restart(Loss.DROP, random.Random(1))
    if accident == "a torn tail":
        newest = max(path for path in disk.files() if path.suffix == ".store")
        disk.put(newest, disk.content(newest) + random.Random(room).randbytes(tail))
    disk.capacity = disk.used_bytes + room
    opened = OpenLog.open(disk, 1, config=CONFIG)
    assert read_all(opened.log) == before
    was_full = opened.log.read_only_reason is not None
    if was_full:
        with pytest.raises(LogReadOnly):
            opened.append_values(b"x")
        # The machine stops meanwhile: nothing of what was served is lost.
        disk.restart(Loss.MIX, random.Random(room))
        disk.capacity = disk.used_bytes + room // 2
        opened = OpenLog.open(disk, 2, config=CONFIG)
        assert read_all(opened.log) == before
        opened.look_at_disk()
    disk.capacity = ENOUGH
    opened.look_at_disk()
    assert opened.commit() is None
    assert opened.log.read_only_reason is None
    stored = opened.append_values(b"goes on")
    assert stored.base_offset >= len(before)
    opened.close()
    opened = OpenLog.open(disk, 3, config=CONFIG)
    frames = read_everything(opened.log).frames
    assert frames[:-1] == before
    assert frames[-1].base_offset == stored.base_offset
    report = opened.log.report
    assert report.is_clean
    kept = [path for path in disk.files() if path.parent.name == "damaged"]
    assert bool(kept) == (accident == "a torn tail" and tail > 0)
    opened.close()
    assert not disk.open_files


def test_room_that_is_gone_again_before_the_opening_is_complete() -> None:
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=CONFIG)
    opened.append_values(bytes(1000))
    opened.close()
    disk.capacity = disk.used_bytes
    opened = OpenLog.open(disk, 1, config=CONFIG)
    for room in (1, 2, 3):
        disk.capacity = disk.used_bytes + room
        outcomes: Outcomes = []
        for _ in range(200):
            opened.look_at_disk()
            if opened.log.read_only_reason is None:
                break
        opened.log.append_soon(batch_of(b"early"), outcomes.append)
        opened.commit()
        assert isinstance(outcomes[0], LogReadOnly)
        assert opened.log.next_offset == 1
    disk.capacity = ENOUGH
    for _ in range(200):
        opened.look_at_disk()
    assert opened.append_values(b"at last").base_offset == 1
    opened.close()


def test_a_directory_without_anything_to_serve_needs_room() -> None:
    for room in range(0, 600, 25):
        disk = SimulatedDisk(capacity=room)
        try:
            OpenLog.open(disk, config=CONFIG).close(cleanly=False)
        except DataDirectoryFull as error:
            assert str(DIRECTORY) in str(error)  # noqa: PT017
        assert not disk.open_files


@settings(max_examples=max(EXAMPLES // 3, 5))
@given(st.integers(1, 60_000), st.lists(st.integers(1, 5000), min_size=1, max_size=40), st.integers(1, 5))
def test_what_is_kept_free_stays_free(reserve: int, sizes: list[int], together: int) -> None:
    disk = SimulatedDisk(capacity=100_000)
    opened = OpenLog.open(disk, config=evolve(CONFIG, reserve_bytes=reserve))
    outcomes: Outcomes = []
    handed = 0
    for number, size in enumerate(sizes):
        try:
            opened.log.append_soon(batch_of(bytes(size)), outcomes.append)
            handed += 1
        except LogReadOnly:
            assert opened.log.read_only_reason is not None
        if number % together == 0:
            opened.commit()
            opened.look_at_disk()
        # What a segment needs besides its frames takes of the reserve, which is there for that.
        assert disk.capacity is not None
        assert disk.capacity - disk.used_bytes >= min(reserve, 90_000) - 2_000
    opened.commit()
    assert len(outcomes) == handed
    stored = [outcome for outcome in outcomes if isinstance(outcome, Appended)]
    assert all(isinstance(outcome, Appended | LogReadOnly) for outcome in outcomes)
    assert len(read_all(opened.log)) == len(stored)
    opened.close()


# -- what is answered --------------------------------------------------------------------------------------------------


def roll_between(opened: OpenLog, outcomes: Outcomes) -> None:
    """Hand over [A, roll, B, C], of which one is of another origin."""
    foreign = ForeignLog.make(5).write(batch_of(b"foreign", producer_id=8, producer_sequence=1))
    opened.log.append_soon(batch_of(bytes(9000), producer_id=9, producer_sequence=1), outcomes.append)
    opened.log.append_soon(batch_of(b"B", producer_id=9, producer_sequence=2), outcomes.append)
    opened.log.append_foreign(foreign, foreign.encode(), lambda _: None)
    opened.log.append_soon(batch_of(b"C", producer_id=9, producer_sequence=3), outcomes.append)


@pytest.mark.parametrize("loss", [Loss.DROP, Loss.KEEP, Loss.MIX])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("kind", ["write", "sync", "truncate", "create", "rename", "sync_directory"])
@pytest.mark.parametrize("after", range(5))
def test_what_is_said_of_each_batch_is_true(kind: str, after: int, number: int, loss: Loss) -> None:
    """Whatever fails of a commit over two segments: at once, when retried, and after the next opening."""
    disk = SimulatedDisk(random.Random(after))
    opened = OpenLog.open(disk, config=CONFIG)
    opened.append(batch_of(b"first", producer_id=9, producer_sequence=0))
    outcomes: Outcomes = []
    roll_between(opened, outcomes)
    disk.fail(kind, number, after)
    if kind == "truncate":
        disk.fail("write", number, after)
    opened.commit()
    assert len(outcomes) == 3
    again: Outcomes = []
    for sequence, value in enumerate((b"first", bytes(9000), b"B", b"C")):
        batch = batch_of(value, producer_id=9, producer_sequence=sequence)
        try:
            opened.log.append_soon(batch, again.append)
        except ProglogError as error:
            again.append(error)
    opened.commit()
    for before, now in zip(outcomes, again[1:], strict=True):
        if isinstance(before, Appended):
            assert now == evolve(before, duplicate=True), "what is stored is answered, also by a log that takes no more"
        else:
            assert type(now) is type(before)
    assert isinstance(again[0], Appended)
    served = {frame.frame.header.producer_sequence for frame in read_all(opened.log) if frame.header.producer_id == 9}
    assert served == {0} | {n for n, outcome in enumerate(outcomes, 1) if isinstance(outcome, Appended)}
    opened.close(cleanly=False)
    disk.restart(loss, random.Random(after))
    opened = OpenLog.open(disk, 2, config=CONFIG)
    found = {frame.header.producer_sequence for frame in read_all(opened.log) if frame.header.producer_id == 9}
    for sequence, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, Appended):
            assert sequence in found
        elif isinstance(outcome, LogReadOnly):
            assert sequence not in found, "refused with certainty, and stored"
        else:
            assert isinstance(outcome, OutcomeUnknown)
    opened.close()


def test_a_failed_write_is_cut_back_before_anything_is_said() -> None:
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=CONFIG)
    opened.append_values(b"first")
    disk.fail("write", errno.ENOSPC)
    with pytest.raises(LogReadOnly):
        opened.append_values(bytes(5000))
    assert disk.trace[-3:] == ["write", "truncate", "sync"]


def test_what_could_not_be_cut_back_is_not_known() -> None:
    for kind in ("truncate", "sync"):
        disk = SimulatedDisk()
        opened = OpenLog.open(disk, config=CONFIG)
        opened.append_values(b"first")
        disk.fail("write", errno.ENOSPC)
        disk.fail(kind, errno.EIO)
        with pytest.raises(OutcomeUnknown):
            opened.append_values(bytes(5000))
        for _ in range(3):
            opened.look_at_disk()
        assert opened.log.read_only_reason is not None
        assert not opened.log.room.is_passing, "until it is opened again"
        opened.close()


@pytest.mark.parametrize(
    "fail",
    [
        lambda opened, disk: disk.fail("write", errno.ENOSPC),
        lambda opened, disk: disk.fail("sync", errno.EIO),
        lambda opened, disk: setattr(disk, "capacity", disk.used_bytes),
    ],
    ids=["a write", "a sync", "no room"],
)
def test_a_retry_is_answered_by_a_log_that_takes_no_more(fail: Callable[[OpenLog, SimulatedDisk], None]) -> None:
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=CONFIG)
    batch = batch_of(b"once", producer_id=1, producer_sequence=7)
    stored = opened.append(batch)
    fail(opened, disk)
    with pytest.raises((LogReadOnly, OutcomeUnknown)):
        opened.append_values(bytes(500))
    assert opened.append(batch) == evolve(stored, duplicate=True)
    with pytest.raises(LogReadOnly):
        opened.append(batch_of(b"new", producer_id=1, producer_sequence=8))


def test_what_was_refused_leaves_no_trace_in_the_table_of_retries() -> None:
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=CONFIG)
    batches = [batch_of(b"%d" % number, producer_id=1, producer_sequence=number) for number in range(12)]
    stored = [opened.append(batch) for batch in batches[:5]]
    outcomes: Outcomes = []
    for batch in batches[5:]:
        opened.log.append_soon(batch, outcomes.append)
    disk.fail("write", errno.ENOSPC)
    opened.commit()
    assert all(isinstance(outcome, LogReadOnly) for outcome in outcomes)
    opened.look_at_disk()
    for batch, before in zip(batches[:5], stored, strict=True):
        assert opened.append(batch) == evolve(before, duplicate=True), "what they had pushed out is back"
    again = [opened.append(batch) for batch in batches[5:]]
    assert [each.base_offset for each in again] == list(range(5, 12))
    assert [each.base_sequence for each in again] == list(range(5, 12)), "the sequences are given out once"
    assert not any(each.duplicate for each in again)
    opened.close()


def test_what_waits_together_is_refused_one_by_one() -> None:
    """A group that does not fit is no reason to refuse what does."""
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=evolve(CONFIG, reserve_bytes=10_000))
    opened.append_values(b"first")
    disk.capacity = disk.used_bytes + 15_000
    outcomes: Outcomes = []
    for _ in range(20):
        opened.log.append_soon(batch_of(bytes(700)), outcomes.append)
    opened.commit()
    stored = [outcome for outcome in outcomes if isinstance(outcome, Appended)]
    assert 4 <= len(stored) <= 6
    assert outcomes[: len(stored)] == stored, "in their order"
    assert all(isinstance(outcome, LogReadOnly) for outcome in outcomes[len(stored) :])
    opened.look_at_disk()
    assert opened.log.read_only_reason is not None, "there is no room for the next"


def test_work_that_was_planned_on_what_failed_is_not_done() -> None:
    """The committer's thread is ahead of the log, and the log of the thread."""
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=CONFIG)
    outcomes: Outcomes = []
    opened.log.append_soon(batch_of(b"a"), outcomes.append)
    disk.fail("write", errno.ENOSPC)
    opened.write()
    opened.log.append_soon(batch_of(b"b"), outcomes.append)  # the log has not heard of it
    opened.write()
    opened.note()
    assert [type(outcome) for outcome in outcomes] == [LogReadOnly, LogReadOnly]
    opened.look_at_disk()
    assert opened.append_values(b"c").base_offset == 0
    assert len(read_all(opened.log)) == 1


def test_the_index_catches_up_when_there_is_room_again() -> None:
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=evolve(CONFIG, index_interval_bytes=1))
    opened.append_values(b"a")
    disk.fail("write", errno.ENOSPC, after=1)  # the store's succeeds
    opened.append_values(b"b")
    active = opened.log.catalog.active
    assert active.index_error is not None
    opened.append_values(b"c")
    assert active.index_error is None
    opened.log.roll()
    opened.commit()
    first = opened.log.catalog.segments[0]
    index = opened.log.catalog.load(first).index
    places = [index.before_offset(offset) for offset in range(3)]
    assert [place.offset for place in places if place is not None] == [0, 1, 2]
    opened.close()
