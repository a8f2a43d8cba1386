from __future__ import annotations

import errno
from functools import partial

import pytest
import trio
import trio.testing
from attrs import evolve

from proglog_trio.errors import (
    LogBusy,
    LogClosed,
    LogReadOnly,
    OutcomeUnknown,
    ProglogError,
)
from proglog_trio.log import commit_queue
from proglog_trio.log.batch import Appended
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.pending_frame import PendingFrame
from proglog_trio.log.writer import Roll
from tests.log.driving import DIRECTORY, OpenLog, batch_of, read_all
from tests.log.simulated_disk import SimulatedDisk

CONFIG = LogConfig(DIRECTORY)


def new_log(config: LogConfig = CONFIG, disk: SimulatedDisk | None = None) -> OpenLog:
    return OpenLog.open(disk or SimulatedDisk(), config=config)


Outcomes = list[Appended | ProglogError]


def test_retry_while_the_first_attempt_is_being_committed() -> None:
    opened = new_log()
    first: Outcomes = []
    second: Outcomes = []
    batch = batch_of(b"a", producer_id=1, producer_sequence=1)
    opened.log.append_soon(batch, first.append)
    opened.log.append_soon(batch, second.append)
    assert len(opened.work) == 1
    assert second == []
    opened.commit()
    (one,), (two,) = first, second
    assert isinstance(one, Appended)
    assert two == evolve(one, duplicate=True)
    third: Outcomes = []
    opened.log.append_soon(batch, third.append)
    assert third == second
    assert opened.log.counters.duplicates == 2
    assert len(read_all(opened.log)) == 1


@pytest.mark.parametrize("kind", ["write", "sync"])
def test_failed_commit_turns_the_log_read_only(kind: str) -> None:
    disk = SimulatedDisk()
    opened = new_log(disk=disk)
    opened.append_values(b"durable")
    outcomes: Outcomes = []
    batch = batch_of(b"a", producer_id=1, producer_sequence=1)
    for _ in range(2):
        opened.log.append_soon(batch, outcomes.append)
    opened.log.append_soon(batch_of(b"b"), outcomes.append)
    changes: list[str | None] = []
    opened.log.notify_durable(lambda: changes.append(opened.log.read_only_reason))
    disk.fail(kind, errno.ENOSPC)
    assert opened.commit() is not None
    assert len(outcomes) == 3
    kinds = LogReadOnly if kind == "write" else OutcomeUnknown
    assert all(isinstance(outcome, kinds) for outcome in outcomes)
    assert changes == [opened.log.read_only_reason]
    assert "No space left" in str(outcomes[0])
    with pytest.raises(kinds, match="a write failed"):
        opened.log.append_soon(batch, outcomes.append)
    with pytest.raises(LogReadOnly, match="a write failed"):
        opened.log.append_gap(GapMarker(Origin(bytes(16)), 0, 1, 0, ""), lambda _: None)
    opened.log.roll()
    assert opened.work == []
    assert [frame.base_offset for frame in read_all(opened.log)] == [0], "what is durable is still served"
    syncs = disk.trace.count("sync")
    opened.close()
    if kind == "sync":
        assert disk.trace.count("sync") == syncs, "a failed sync is not tried again"


def test_busy_log_and_room() -> None:
    opened = new_log(evolve(CONFIG, max_pending_bytes=300))
    outcomes: Outcomes = []
    calls: list[str] = []
    while opened.log.pending_bytes < 300:
        opened.log.append_soon(batch_of(b"x" * 20), outcomes.append)
    with pytest.raises(LogBusy, match="bytes wait to be committed"):
        opened.log.append_soon(batch_of(b"x" * 20), outcomes.append)
    opened.log.notify_room(lambda: calls.append("room"))
    opened.log.notify_room(lambda: calls.append("more room"))
    assert calls == []
    opened.commit(1)
    assert calls == ["room", "more room"]
    opened.log.notify_room(lambda: calls.append("at once"))
    assert calls[-1] == "at once"
    opened.commit()
    assert calls == ["room", "more room", "at once"], "once each"


def test_who_no_longer_waits_for_room_is_forgotten() -> None:
    opened = new_log(evolve(CONFIG, max_pending_bytes=100))
    opened.log.append_soon(batch_of(b"x" * 100), lambda _: None)
    calls: list[int] = []
    stops = [opened.log.notify_room(partial(calls.append, number)) for number in range(10)]
    for number in (3, 3, 0, 9):
        stops[number]()
    assert len(opened.log._queue._room_waiters._callbacks) == 7
    opened.commit()
    assert calls == [1, 2, 4, 5, 6, 7, 8]
    stops[5]()


async def test_an_append_that_is_cancelled_while_it_waits_for_room_leaves_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    opened = new_log(evolve(CONFIG, max_pending_bytes=100))
    opened.log.append_soon(batch_of(b"x" * 100), lambda _: None)
    for _ in range(10):
        with trio.move_on_after(1):
            await opened.log.append(batch_of(b"y"))
    assert not opened.log._queue._room_waiters._callbacks


def test_retries_of_what_is_being_committed_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_queue, "MAX_WAITING_RETRIES", 3)
    opened = new_log()
    outcomes: Outcomes = []
    batch = batch_of(b"x", producer_id=1, producer_sequence=1)
    for _ in range(4):
        opened.log.append_soon(batch, outcomes.append)
    with pytest.raises(LogBusy, match="3 retries wait"):
        opened.log.append_soon(batch, outcomes.append)
    rooms: list[None] = []
    opened.log.notify_room(lambda: rooms.append(None))
    assert not rooms
    opened.commit()
    assert len(outcomes) == 4
    assert len(rooms) == 1
    opened.log.append_soon(batch, outcomes.append)
    assert len(outcomes) == 5


def test_room_is_called_as_far_as_there_is_room() -> None:
    """A callback that appends may fill the log again: the others go on waiting."""
    opened = new_log(evolve(CONFIG, max_pending_bytes=100))
    opened.log.append_soon(batch_of(b"x" * 100), lambda _: None)
    calls: list[int] = []

    def append(number: int) -> None:
        calls.append(number)
        opened.log.append_soon(batch_of(b"y" * 100), lambda _: None)

    for number in range(3):
        opened.log.notify_room(lambda number=number: append(number))  # type: ignore[misc]
    for expected in ([0], [0, 1], [0, 1, 2]):
        opened.commit()
        assert calls == expected


def test_closing_log_refuses_and_answers_everything() -> None:
    opened = new_log()
    outcomes: Outcomes = []
    batch = batch_of(b"a", producer_id=1, producer_sequence=1)
    opened.log.append_soon(batch, outcomes.append)
    opened.log.append_soon(batch, outcomes.append)
    called: list[str] = []
    opened.log.notify_durable(lambda: called.append("durable"))
    opened.log.start_closing()
    assert called == ["durable"]
    with pytest.raises(LogClosed):
        opened.log.append_soon(batch_of(b"b"), lambda _: None)
    opened.log.roll()
    opened.log.fail_pending("over")
    assert [type(outcome) for outcome in outcomes] == [LogClosed, LogClosed]
    assert opened.log.pending_bytes == 0


def test_segments_follow_each_other_by_bytes_and_by_frames() -> None:
    for config in (evolve(CONFIG, segment_frames=2), evolve(CONFIG, segment_bytes=400)):
        opened = new_log(config)
        for number in range(6):
            opened.append_values(b"%d" % number * 80)
        bases = [files.base_offset for files in opened.log.catalog.segments]
        assert bases == [0, 2, 4]
        assert [frame.base_offset for frame in read_all(opened.log)] == list(range(6))


def test_segments_counted_over_openings() -> None:
    disk = SimulatedDisk()
    for number in range(5):
        opened = new_log(evolve(CONFIG, segment_frames=2), disk)
        opened.append_values(b"%d" % number)
        opened.close()
    assert [files.base_offset for files in opened.log.catalog.segments] == [0, 2, 4]


def test_roll_of_an_empty_segment_does_nothing() -> None:
    opened = new_log()
    opened.log.roll()
    assert opened.work == []
    opened.append_values(b"a")
    opened.log.roll()
    opened.log.roll()
    assert [type(item) for item in opened.work] == [Roll]


def test_segment_of_gap_markers_alone_keeps_its_name_to_itself() -> None:
    """A gap uses no offset: the next segment would have the same name, and its files would replace these."""
    disk = SimulatedDisk()
    opened = new_log(evolve(CONFIG, segment_frames=1, segment_bytes=300), disk)
    for number in range(4):
        opened.log.append_gap(GapMarker(Origin(b"%016d" % number), 0, 5, 7, "test"), lambda _: None)
        opened.log.roll()
    opened.commit()
    bases = [files.base_offset for files in opened.log.catalog.segments]
    assert len(set(bases)) == len(bases)
    opened.append_values(b"a")
    opened.append_values(b"b")
    opened.close()
    opened = new_log(disk=disk)
    assert opened.log.report.is_clean
    assert len(opened.log.origins) == 5
    assert opened.log.origins[Origin(b"%016d" % 3)].gaps == ((0, 5),)
    assert len(read_all(opened.log)) == 2


def test_one_commit_over_several_segments() -> None:
    opened = new_log(evolve(CONFIG, segment_frames=1))
    outcomes: Outcomes = []
    for number in range(4):
        opened.log.append_soon(batch_of(b"%d" % number), outcomes.append)
    kinds = [type(item) for item in opened.work]
    assert kinds == [PendingFrame, Roll, PendingFrame, Roll, PendingFrame, Roll, PendingFrame]
    opened.commit()
    assert len(outcomes) == 4
    assert opened.log.counters.commits == 1
    assert len(read_all(opened.log)) == 4


def test_failed_roll_fails_what_comes_after_it_and_keeps_what_came_before() -> None:
    disk = SimulatedDisk()
    opened = new_log(evolve(CONFIG, segment_frames=1), disk)
    outcomes: Outcomes = []
    for number in range(2):
        opened.log.append_soon(batch_of(b"%d" % number), outcomes.append)
    disk.fail("create", errno.ENOSPC)
    opened.commit()
    assert [type(outcome) for outcome in outcomes] == [Appended, LogReadOnly]
    opened.close()
    opened = new_log(disk=disk)
    assert [frame.base_offset for frame in read_all(opened.log)] == [0]
