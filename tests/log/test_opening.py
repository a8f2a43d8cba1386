from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing
from attrs import evolve

from proglog_trio.errors import DataDirectoryError, DataDirectoryFull
from proglog_trio.log.config import LogConfig
from proglog_trio.log.disk import OperatingSystemDisk, OperatingSystemFile
from proglog_trio.log.opening import open_log, open_log_files
from tests.log.driving import DIRECTORY, OpenLog, batch_of, config_of, read, read_all
from tests.log.simulated_disk import SimulatedDisk

CONFIG = LogConfig(DIRECTORY)


def test_directory_in_use_is_refused() -> None:
    disk = SimulatedDisk()
    first = OpenLog.open(disk, config=CONFIG)
    with pytest.raises(DataDirectoryError, match="/data is locked: another node uses it"):
        OpenLog.open(disk, config=CONFIG)
    first.append_values(b"the first goes on")
    first.close()
    OpenLog.open(disk, config=CONFIG).close()
    assert not disk.open_files


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "there is no room on its disk to begin"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "its file system is read-only"),
        (errno.EACCES, "it is not writable"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_reasons(number: int, reason: str) -> None:
    disk = SimulatedDisk()
    disk.fail("create", number)
    with pytest.raises(DataDirectoryError, match=reason) as caught:
        OpenLog.open(disk, config=CONFIG)
    assert "\n" not in str(caught.value)
    assert not disk.open_files


def test_full_disk() -> None:
    disk = SimulatedDisk(capacity=10)
    with pytest.raises(DataDirectoryFull, match="no room on its disk to begin"):
        OpenLog.open(disk, config=CONFIG)
    disk.clear_faults()
    assert OpenLog.open(disk, config=CONFIG).append_values(b"x").base_offset == 0


def test_file_in_the_place_of_the_directory() -> None:
    for name in (DIRECTORY, DIRECTORY / "log"):
        disk = SimulatedDisk()
        disk.put(name, b"")
        with pytest.raises(DataDirectoryError, match="it is not a directory"):
            OpenLog.open(disk, config=CONFIG)
        assert not disk.open_files


def test_oldest_segment_that_cannot_be_read_gives_the_lock_back() -> None:
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=evolve(CONFIG, segment_frames=1))
    for number in range(4):
        opened.append_values(b"%d" % number)
    catalog = opened.log.catalog
    opened.log.durable.forget_segments(1, catalog.load(catalog.segments[1]).header)
    oldest = catalog.segments[0]
    opened.close()
    disk.delete(oldest.store.with_name(f"{0:020d}.store"))
    # The newest is opened for writing and for the index; the next to be opened is the oldest.
    disk.fail("open", errno.EIO, after=2)
    with pytest.raises(DataDirectoryError, match="Input/output"):
        OpenLog.open(disk, config=CONFIG)
    assert not disk.open_files
    assert len(read_all(OpenLog.open(disk, config=CONFIG).log)) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directory_that_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DataDirectoryError, match="it is not writable"):
            open_log_files(LogConfig(tmp_path / "data"), lambda work: None)
    finally:
        tmp_path.chmod(0o700)


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
        "event": "an index file or its end is missing, and is made anew from its segment",
        "index": str(removed),
        "log_level": "warning",
    }


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
