from __future__ import annotations

import errno
import json
import logging
import math
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing
from attrs import evolve

from proglog_trio.errors import (
    BatchRefused,
    DataDirectoryError,
    LogClosed,
    LogReadOnly,
    OutcomeUnknown,
    ProglogError,
)
from proglog_trio.log import maintenance as service
from proglog_trio.log import retention_service
from proglog_trio.log.batch import Appended
from proglog_trio.log.config import LogConfig
from proglog_trio.log.disk import OperatingSystemDisk, OperatingSystemFile
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.log import Log
from proglog_trio.log.maintenance import open_log
from proglog_trio.log.opening import open_log_files
from proglog_trio.log.retention_service import apply_retention
from proglog_trio.log.storage.running_time import RunningTime
from proglog_trio.log.writer import LogWriter
from tests.log.driving import batch_of


def config_of(path: Path) -> LogConfig:
    return LogConfig(path / "data", scrub_bytes_per_second=None)


def read(log: Log, offset: int = 0) -> list[StoredFrame]:
    reader = log.reader_at_offset(offset)
    frames: list[StoredFrame] = []
    while reader.next_offset < log.next_offset:
        frames += reader.read(1 << 20, log.next_offset).frames
    reader.close()
    return frames


async def test_append_and_open_again(tmp_path: Path) -> None:
    async with open_log(config_of(tmp_path)) as log:
        first = await log.append(batch_of(b"a", b"b"))
        second = await log.append(batch_of(b"c"))
        assert (first.base_offset, second.base_offset) == (0, 2)
    async with open_log(config_of(tmp_path)) as log:
        assert log.report.is_clean
        frames = await trio.to_thread.run_sync(read, log)
        assert [frame.base_offset for frame in frames] == [0, 2]
        third = await log.append(batch_of(b"d"))
        assert (third.base_offset, third.base_sequence) == (3, 0)
        assert third.origin != first.origin


async def test_an_index_file_that_was_removed_is_told_of_as_that(tmp_path: Path) -> None:
    config = LogConfig(tmp_path / "data", segment_frames=1, scrub_bytes_per_second=1 << 30)
    async with open_log(config) as log:
        for value in (b"a", b"b", b"c"):
            await log.append(batch_of(value))
        removed = log.catalog.segments[0].index
    removed.unlink()
    with structlog.testing.capture_logs() as logs, trio.fail_after(30):
        async with open_log(config) as log:
            found, token = trio.Event(), trio.lowlevel.current_trio_token()
            log.damage.watch(lambda _damage: token.run_sync_soon(found.set))
            if not log.damage.places():
                await found.wait()
            await trio.testing.wait_all_tasks_blocked()
    assert (log.damage.found, log.damage.left, log.counters.damaged_places) == (0, 0, 0)
    (told,) = [each for each in logs if each["log_level"] in ("warning", "error")]
    assert told == {
        "event": "an index file is missing, and is made anew from its segment",
        "index": str(removed),
        "log_level": "warning",
    }


async def test_appends_share_commits(tmp_path: Path) -> None:
    async with open_log(config_of(tmp_path)) as log:
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(log.append, batch_of(b"%d" % number))
        assert log.next_offset == 500
        assert log.counters.commits < 250


async def test_cancelled_append_is_committed_or_not_but_whole(tmp_path: Path) -> None:
    async with open_log(config_of(tmp_path)) as log:
        with trio.CancelScope() as scope:
            scope.cancel()
            await log.append(batch_of(b"cancelled while it waits"))
        assert scope.cancelled_caught
        later = await log.append(batch_of(b"later"))
        frames = await trio.to_thread.run_sync(read, log)
    assert frames[-1].base_offset == later.base_offset
    assert [frame.base_offset for frame in frames] == list(range(len(frames)))


async def test_cancelled_while_commits_are_under_way(tmp_path: Path) -> None:
    outcomes: list[Appended | ProglogError] = []
    with trio.CancelScope() as scope:
        async with open_log(config_of(tmp_path)) as log:
            for number in range(50):
                log.append_soon(batch_of(b"%d" % number * 100), outcomes.append)
            scope.cancel()
            await trio.sleep_forever()
    assert len(outcomes) == 50, "everyone is answered"
    with pytest.raises(LogClosed):
        log.append_soon(batch_of(b"too late"), outcomes.append)
    stored = {outcome.base_offset for outcome in outcomes if isinstance(outcome, Appended)}
    async with open_log(config_of(tmp_path)) as log:
        frames = await trio.to_thread.run_sync(read, log)
        assert stored <= {frame.base_offset for frame in frames}
        assert log.report.is_clean


async def test_what_waits_when_the_log_is_left_is_committed(tmp_path: Path) -> None:
    outcomes: list[Appended | ProglogError] = []
    async with open_log(config_of(tmp_path)) as log:
        for number in range(50):
            log.append_soon(batch_of(b"%d" % number), outcomes.append)
    assert [outcome.base_offset for outcome in outcomes if isinstance(outcome, Appended)] == list(range(50))


async def test_error_in_the_body_closes_the_log(tmp_path: Path) -> None:
    async def body() -> None:
        async with open_log(config_of(tmp_path)) as log:
            await log.append(batch_of(b"a"))
            raise ValueError("of the body")

    with pytest.raises(ExceptionGroup) as caught:
        await body()
    assert caught.group_contains(ValueError, match="of the body")
    async with open_log(config_of(tmp_path)) as log:
        assert log.report.is_clean
        assert log.next_offset == 1


async def test_backpressure(tmp_path: Path) -> None:
    config = evolve(config_of(tmp_path), pending_bytes_limit=2_000)
    highest = 0
    async with open_log(config) as log:

        async def append(number: int) -> None:
            nonlocal highest
            await log.append(batch_of(b"%d" % number + bytes(500)))
            highest = max(highest, log.pending_bytes)

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(append, number)
        assert log.next_offset == 100
        assert highest < 2_000 + 700
        assert log.pending_bytes == 0


async def test_refusals_reach_who_appends(tmp_path: Path) -> None:
    async with open_log(config_of(tmp_path)) as log:
        with pytest.raises(BatchRefused):
            await log.append(evolve(batch_of(b"a"), payload_crc=1))


async def test_directory_in_use(tmp_path: Path) -> None:
    async with open_log(config_of(tmp_path)):
        with pytest.raises(DataDirectoryError, match="is locked: another node uses it"):
            async with open_log(config_of(tmp_path)):
                pass
    async with open_log(config_of(tmp_path)):
        pass


async def test_directory_of_another_cluster(tmp_path: Path) -> None:
    async with open_log(config_of(tmp_path)):
        pass
    with pytest.raises(DataDirectoryError, match="belongs to cluster 'proglog', not to 'other'"):
        async with open_log(evolve(config_of(tmp_path), cluster_name="other")):
            pass


async def test_retention_under_readers(tmp_path: Path) -> None:
    config = evolve(config_of(tmp_path), segment_frames=2, retention_bytes=1)
    async with open_log(config) as log:
        for number in range(9):
            await log.append(batch_of(b"%d" % number))
        assert await apply_retention(log) == 4
        assert log.lowest_offset == 8
        assert await apply_retention(log) == 0
        names = sorted(path.name for path in (tmp_path / "data" / "log").iterdir())
        assert names == [f"{8:020d}.index", f"{8:020d}.store"]


async def test_quiet_log_grows_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any append the records' segment is followed by another in time, and goes."""
    monkeypatch.setattr(retention_service, "RETENTION_INTERVAL_SECONDS", 0.005)
    async with open_log(evolve(config_of(tmp_path), retention_seconds=100.0)) as log:
        await log.append(batch_of(b"a"))
        changed = trio.Event()
        log.notify_durable(lambda: changed.set())
        now = log.running_time.clock()
        log.running_time.clock = lambda: now
        with trio.fail_after(60):
            now += 60
            await changed.wait()
            assert len(log.catalog.segments) == 2
            assert log.lowest_offset == 0
            changed = trio.Event()
            now += 101
            await changed.wait()
        assert log.lowest_offset == log.next_offset == 1
        assert (await log.append(batch_of(b"b"))).base_offset == 1


SYNC_THAT_FAILS = OperatingSystemFile.sync


async def test_failing_sync_turns_the_log_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[Appended | ProglogError] = []
    async with open_log(config_of(tmp_path)) as log:
        await log.append(batch_of(b"durable"))

        def sync(file: OperatingSystemFile) -> None:
            if file.path.suffix != ".index":
                raise OSError(5, "Input/output error")
            SYNC_THAT_FAILS(file)

        monkeypatch.setattr(OperatingSystemFile, "sync", sync)
        with pytest.raises(ProglogError, match="a write failed"):
            await log.append(batch_of(b"not durable"))
        with pytest.raises(ProglogError, match="takes no more records"):
            await log.append(batch_of(b"refused"))
        assert outcomes == []
        assert log.read_only_reason is not None
        assert len(await trio.to_thread.run_sync(read, log)) == 1
    monkeypatch.undo()
    async with open_log(config_of(tmp_path)) as log:
        assert log.read_only_reason is None
        assert (await log.append(batch_of(b"again"))).base_offset in (1, 2)


FILLS_ITS_DISK = """
import json, sys
from pathlib import Path
import trio
from proglog_trio.errors import LogReadOnly
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.record import Record
from proglog_trio.log.maintenance import open_log
from proglog_trio.log.batch import Batch

async def main():
    stored = 0
    async with open_log(LogConfig(Path(sys.argv[1]), scrub_bytes_per_second=None)) as log:
        try:
            for number in range(1_000):
                await log.append(Batch.of([Record(b"%d:" % number + bytes(1_000))]))
                stored += 1
        except LogReadOnly as error:
            reader = log.reader_at_offset(0)
            frames = []
            while reader.next_offset < log.next_offset:
                frames += reader.read(1 << 20, log.next_offset).frames
            print(json.dumps({"stored": stored, "served": len(frames), "reason": str(error)}))

trio.run(main)
"""


def test_file_that_may_not_grow_turns_the_log_read_only(tmp_path: Path) -> None:
    """The real thing: the kernel refuses the write, after it took a part of it."""
    data = tmp_path / "data"
    finished = subprocess.run(
        # Without bytecode files (-B), which the limit would leave cut off.
        [sys.executable, "-B", "-c", FILLS_ITS_DISK, str(data)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    told = json.loads(finished.stdout.splitlines()[-1])
    assert 40 <= told["stored"] < 50
    assert told["served"] == told["stored"]
    assert "File too large" in told["reason"]

    async def check() -> None:
        async with open_log(LogConfig(data, scrub_bytes_per_second=None)) as log:
            assert log.report.is_clean
            assert log.next_offset == told["stored"]
            assert (await log.append(batch_of(b"there is room again"))).base_offset == told["stored"]

    trio.run(check)


async def test_full_disk_while_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_log(config_of(tmp_path)) as log:
        await log.append(batch_of(b"a"))

    def create(disk: OperatingSystemDisk, path: Path) -> OperatingSystemFile:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(OperatingSystemDisk, "create", create)
    async with open_log(config_of(tmp_path)) as log:
        assert log.read_only_reason is not None
        assert "without room" in log.read_only_reason
        assert len(await trio.to_thread.run_sync(read, log)) == 1, "what is there is served"
        changed = trio.Event()
        log.notify_durable(changed.set)
        monkeypatch.undo()
        with trio.fail_after(10):
            while log.read_only_reason is not None:
                await changed.wait()
                changed = trio.Event()
        assert (await log.append(batch_of(b"b"))).base_offset == 1


# -- in a shielded finally, when the program around it is ending -------------------------------------------------------


async def test_a_shielded_append_works_until_the_log_is_left(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with open_log(config_of(tmp_path)) as log:
            try:
                scope.cancel()
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True), trio.fail_after(10):
                    assert (await log.append(batch_of(b"farewell"))).base_offset == 0
    assert scope.cancelled_caught
    with pytest.raises(LogClosed):
        await log.append(batch_of(b"too late"))


async def test_a_shielded_append_works_when_the_end_came_while_the_log_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that commits has not begun then."""
    token = trio.lowlevel.current_trio_token()

    with trio.CancelScope() as scope:

        def open_and_cancel(config: LogConfig) -> Log:
            log = open_log_files(config)
            trio.from_thread.run_sync(scope.cancel, trio_token=token)
            return log

        monkeypatch.setattr(service, "open_log_files", open_and_cancel)
        async with open_log(config_of(tmp_path)) as log:
            with trio.CancelScope(shield=True), trio.fail_after(10):
                await log.append(batch_of(b"farewell"))
            await trio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.parametrize("when", ["under way", "afterwards", "waiting for room"])
async def test_a_committer_that_fails_keeps_nobody_waiting(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an error that no disk gives: it ends the log, and the body is told."""
    monkeypatch.setattr(LogWriter, "commit", lambda *_: 1 / 0)
    config = evolve(config_of(tmp_path), pending_bytes_limit=1)
    told = 0

    async def append(log: Log) -> None:
        nonlocal told
        with pytest.raises((LogClosed, LogReadOnly, OutcomeUnknown)):
            await log.append(batch_of(b"a"))
        told += 1

    with pytest.RaisesGroup(ZeroDivisionError):
        async with open_log(config) as log:
            with trio.CancelScope(shield=True), trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    for _ in range(2 if when == "waiting for room" else 1):
                        nursery.start_soon(append, log)
                if when == "afterwards":
                    await append(log)
            await trio.sleep_forever()
    assert told == (1 if when == "under way" else 2)


async def test_running_time_is_kept_and_jumps_of_the_wall_clock_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retention_service, "RUNNING_TIME_SECONDS", 0.005)
    config = config_of(tmp_path)
    send, noted = trio.open_memory_channel[None](math.inf)
    token = trio.lowlevel.current_trio_token()
    note = RunningTime.note

    def noting(self: RunningTime, wall_milliseconds: int) -> None:
        note(self, wall_milliseconds)
        token.run_sync_soon(send.send_nowait, None)

    async def another_look() -> None:
        """Wait until all of a look was after now."""
        while noted.statistics().current_buffer_used:
            noted.receive_nowait()
        for _ in range(2):
            await noted.receive()

    monkeypatch.setattr(RunningTime, "note", noting)
    async with open_log(config) as log:
        with trio.fail_after(60):
            await another_look()
            started = log.running_time.clock()
            log.running_time.clock = lambda: started + 3600.0
            await another_look()
            assert log.counters.wall_clock_jumps == 1, "the wall clock did not go on"
            jumped = log.wall_clock() + 365 * 86_400_000
            log.wall_clock = lambda: jumped
            await another_look()
            assert log.counters.wall_clock_jumps == 2
        # What was kept by now survives a crash; its end would be kept as well.
        monkeypatch.setattr(RunningTime, "note", lambda *_: None)
    assert caplog.text.count("the wall clock jumped") == 2
    async with open_log(config) as log:
        assert 3_590_000 <= log.running_time.before <= 3_660_000
    assert "the wall clock is behind where it was when this directory was last open" in caplog.text


async def test_files_that_could_not_be_removed_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = evolve(config_of(tmp_path), segment_frames=1, retention_bytes=1)
    async with open_log(config) as log:
        for number in range(4):
            await log.append(batch_of(b"%d" % number))
        remove = OperatingSystemDisk.remove

        def failing(self: OperatingSystemDisk, path: Path) -> None:
            if path.name == f"{1:020d}.store":
                raise OSError(errno.EIO, "Input/output error")
            remove(self, path)

        with monkeypatch.context() as patch:
            patch.setattr(OperatingSystemDisk, "remove", failing)
            for _ in range(2):
                await apply_retention(log)
                assert log.lowest_offset == 3
                assert [files.base_offset for files in log.retention.unremoved] == [1, 2]
                assert log.retention.problem == "[Errno 5] Input/output error"
        await apply_retention(log)
        assert (log.retention.unremoved, log.retention.problem) == ([], None)
        assert len(list((tmp_path / "data" / "log").glob("*.store"))) == 1


async def test_retention_that_the_wall_clock_finds_late_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config = evolve(config_of(tmp_path), segment_frames=1, retention_seconds=1000.0)
    async with open_log(config) as log:
        await log.append(batch_of(b"0"))
        await log.append(batch_of(b"1"))
        now = log.wall_clock()
        log.wall_clock = lambda: now + 365 * 86_400_000
        for _ in range(3):
            assert await apply_retention(log) == 0
        assert log.retention.overdue_milliseconds > 364 * 86_400_000
        running = log.running_time.clock()
        log.running_time.clock = lambda: running + 1001
        assert await apply_retention(log) == 1
        assert log.retention.overdue_milliseconds == 0
    assert caplog.text.count("retention by age keeps records that are too old by the wall clock") == 1
    assert caplog.text.count("retention by age is no longer late by the wall clock") == 1
