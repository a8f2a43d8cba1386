from __future__ import annotations

import errno
import logging
import math
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import evolve

from proglog_trio.log import retention_service
from proglog_trio.log.disk import OperatingSystemDisk
from proglog_trio.log.opening import open_log
from proglog_trio.log.retention_service import apply_retention
from proglog_trio.log.storage.running_time import RunningTime
from tests.log.driving import batch_of, config_of


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
    async with open_log(evolve(config_of(tmp_path), retention_age=100.0)) as log:
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
    config = evolve(config_of(tmp_path), segment_frames=1, retention_age=1000.0)
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
