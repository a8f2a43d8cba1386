from __future__ import annotations

import json
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve

from proglog_trio.errors import (
    BatchRefused,
    LogClosed,
    LogReadOnly,
    OutcomeUnknown,
    ProglogError,
)
from proglog_trio.log import opening
from proglog_trio.log.batch import Appended
from proglog_trio.log.config import LogConfig
from proglog_trio.log.disk import OperatingSystemFile
from proglog_trio.log.log import Log
from proglog_trio.log.opening import open_log, open_log_files
from proglog_trio.log.writer import LogWriter
from tests.log.driving import batch_of, config_of, read


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
    config = evolve(config_of(tmp_path), max_pending_bytes=2_000)
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
from typing import Any
import trio
from proglog_trio.errors import LogReadOnly
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.record import Record
from proglog_trio.log.opening import open_log
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


async def test_following_waits_for_what_is_durable_and_ends_with_the_log(tmp_path: Path) -> None:
    ends: list[int] = []

    async def follow(log: Log) -> None:
        with suppress(LogClosed):
            while True:
                ends.append(await log.wait_beyond(ends[-1] if ends else 0))

    async with trio.open_nursery() as nursery, open_log(config_of(tmp_path)) as log:
        nursery.start_soon(follow, log)
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked()
            await log.append(batch_of(b"a", b"b"))
    assert ends == [2, 4, 6]
    with pytest.raises(LogClosed):
        await log.wait_beyond(6)


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

        def open_and_cancel(*arguments: Any, **options: Any) -> Log:
            log = open_log_files(*arguments, **options)
            trio.from_thread.run_sync(scope.cancel, trio_token=token)
            return log

        monkeypatch.setattr(opening, "open_log_files", open_and_cancel)
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
    config = evolve(config_of(tmp_path), max_pending_bytes=1)
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
