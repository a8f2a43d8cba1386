"""A data directory that is removed or replaced under a log that is open."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from proglog_trio.errors import DataDirectoryLost, LogClosed, LogReadOnly, OutcomeUnknown
from proglog_trio.log.config import LogConfig
from proglog_trio.log.opening import open_log
from tests.log.driving import batch_of


def remove(directory: Path) -> None:
    shutil.rmtree(directory)


def remove_the_segments(directory: Path) -> None:
    shutil.rmtree(directory / "log")


def remove_the_newest_segment(directory: Path) -> None:
    max((directory / "log").glob("*.store")).unlink()


def rename_away(directory: Path) -> None:
    directory.rename(directory.with_name("elsewhere"))


def replace_by_an_empty_one(directory: Path) -> None:
    rename_away(directory)
    directory.mkdir()


def replace_by_a_copy(directory: Path) -> None:
    rename_away(directory)
    shutil.copytree(directory.with_name("elsewhere"), directory)


def replace_the_segments_by_a_copy(directory: Path) -> None:
    (directory / "log").rename(directory / "old")
    shutil.copytree(directory / "old", directory / "log")


def replace_by_a_file(directory: Path) -> None:
    rename_away(directory)
    directory.touch()


ACCIDENTS = [
    remove,
    remove_the_segments,
    remove_the_newest_segment,
    rename_away,
    replace_by_an_empty_one,
    replace_by_a_copy,
    replace_the_segments_by_a_copy,
    replace_by_a_file,
]


@pytest.mark.parametrize("accident", ACCIDENTS)
async def test_an_idle_log_ends_within_a_second(accident: Callable[[Path], None], tmp_path: Path) -> None:
    since = 0.0
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - it is the block's end that raises
        async with open_log(LogConfig(tmp_path / "data")) as log:
            await log.append(batch_of(b"a"))
            await trio.to_thread.run_sync(accident, tmp_path / "data")
            since = trio.current_time()
            try:
                await trio.sleep_forever()
            finally:
                assert log.read_only_reason is not None
                assert str(tmp_path / "data") in log.read_only_reason
    assert caught.value.split(DataDirectoryLost)[1] is None
    assert trio.current_time() - since < 5, "0.5 s, and some for a machine that is busy"


@pytest.mark.parametrize("accident", ACCIDENTS)
@pytest.mark.parametrize("reserve", [0, 1])
async def test_nothing_more_is_acknowledged(
    accident: Callable[[Path], None], reserve: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even before anybody has looked."""
    monkeypatch.setattr("proglog_trio.log.maintenance.DISK_WATCH_SECONDS", 1000)
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - it is the block's end that raises
        async with open_log(LogConfig(tmp_path / "data", reserve_bytes=reserve)) as log:
            for _ in range(3):
                await log.append(batch_of(b"a"))
            await trio.to_thread.run_sync(accident, tmp_path / "data")
            with trio.CancelScope(shield=True), trio.fail_after(10):
                with pytest.raises(OutcomeUnknown):
                    await log.append(batch_of(b"b"))
                with pytest.raises((LogReadOnly, LogClosed)):
                    await log.append(batch_of(b"c"))
            await trio.sleep_forever()
    # Who looks at the disk begins with a look, which may be as late as the accident.
    assert caught.value.split(DataDirectoryLost)[1] is None


async def test_new_segments_and_retention_are_no_accident(tmp_path: Path) -> None:
    config = LogConfig(tmp_path / "data", segment_bytes=1000, retention_bytes=1)
    async with open_log(config) as log:
        for _ in range(300):
            await log.append(batch_of(bytes(400)))
            await trio.to_thread.run_sync(log.writer.check_place)
        assert log.read_only_reason is None
