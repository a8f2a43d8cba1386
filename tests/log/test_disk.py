from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from proglog_trio.log.disk import Disk, OperatingSystemDisk
from tests.log.simulated_disk import SimulatedDisk


@pytest.fixture(params=["real", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Disk, Path]:
    """Both disks keep the same contract."""
    if request.param == "real":
        return OperatingSystemDisk(), tmp_path
    disk = SimulatedDisk()
    disk.make_directory(tmp_path)
    return disk, tmp_path


def test_files(place: tuple[Disk, Path]) -> None:
    disk, directory = place
    path = directory / "file"
    file = disk.create(path)
    file.write_at(0, [b"abc", b"", b"def"])
    file.write_at(8, [b"x"])
    assert file.size() == disk.size_of(path) == 9
    assert file.read_at(0, 100) == b"abcdef\0\0x"
    assert file.read_at(4, 2) == b"ef"
    assert file.read_at(9, 5) == b""
    assert file.read_at(50, 5) == b""
    file.truncate(4)
    file.write_at(6, [])
    assert file.size() == 4
    file.sync()
    file.close()
    again = disk.open(path)
    assert again.read_at(0, 9) == b"abcd"
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        again.write_at(0, [b"x"])
    assert caught.value.errno == errno.EBADF
    again.close()
    emptied = disk.create(path)
    assert emptied.size() == 0
    emptied.close()


def test_many_buffers(place: tuple[Disk, Path]) -> None:
    disk, directory = place
    buffers = [bytes([number % 251]) * (number % 7) for number in range(5_000)]
    file = disk.create(directory / "file")
    file.write_at(3, buffers)
    assert file.read_at(3, 10**6) == b"".join(buffers)
    file.close()


def test_directories(place: tuple[Disk, Path]) -> None:
    disk, directory = place
    disk.make_directory(directory / "a" / "b")
    disk.make_directory(directory / "a" / "b")
    disk.create(directory / "a" / "one").close()
    disk.rename(directory / "a" / "one", directory / "a" / "b" / "two")
    disk.create(directory / "a" / "b" / "three").close()
    disk.rename(directory / "a" / "b" / "three", directory / "a" / "b" / "two")
    disk.sync_directory(directory / "a" / "b")
    assert disk.list_directory(directory / "a" / "b") == ["two"]
    disk.remove(directory / "a" / "b" / "two")
    assert disk.list_directory(directory / "a" / "b") == []
    for missing in (
        lambda: disk.open(directory / "none"),
        lambda: disk.remove(directory / "none"),
        lambda: disk.size_of(directory / "none"),
        lambda: disk.rename(directory / "none", directory / "other"),
        lambda: disk.list_directory(directory / "none"),
        lambda: disk.create(directory / "none" / "file"),
    ):
        with pytest.raises(FileNotFoundError):
            missing()


def test_file_in_the_place_of_a_directory(place: tuple[Disk, Path]) -> None:
    disk, directory = place
    disk.create(directory / "file").close()
    for path in (directory / "file", directory / "file" / "below"):
        with pytest.raises((FileExistsError, NotADirectoryError)):
            disk.make_directory(path)


def test_lock(place: tuple[Disk, Path]) -> None:
    disk, directory = place
    held = disk.lock(directory / "lock")
    with pytest.raises(BlockingIOError):
        disk.lock(directory / "lock")
    held.close()
    disk.lock(directory / "lock").close()


WRITES_TOO_MUCH = """
import errno, sys
from pathlib import Path
from proglog_trio.log.disk import OperatingSystemDisk
file = OperatingSystemDisk().create(Path(sys.argv[1]))
try:
    file.write_at(0, [b"x" * 3_000, b"y" * 3_000])
except OSError as error:
    print(error.errno == errno.EFBIG, file.size())
"""


def test_short_write_is_gone_on_with_until_it_fails(tmp_path: Path) -> None:
    """A disk that fills up takes a part of a write first; only the rest of it fails."""
    finished = subprocess.run(
        # Without bytecode files (-B), which the limit would leave cut off.
        [sys.executable, "-B", "-c", WRITES_TOO_MUCH, str(tmp_path / "file")],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, 4_096)),
    )
    assert finished.stdout.split() == ["True", "4096"]


def test_descriptors_are_not_inherited(tmp_path: Path) -> None:
    disk = OperatingSystemDisk()
    file = disk.create(tmp_path / "file")
    lock = disk.lock(tmp_path / "lock")
    descriptors = [file.descriptor, lock.descriptor]  # type: ignore[attr-defined]  # the real disk's files have one
    assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)
    file.close()
    lock.close()
