from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from proglog_trio.membership.snapshot.file import SnapshotFile

CALLS = ("write", "fsync", "fdatasync")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path / "members")
    assert file.read() == b""
    file.replace(b"one\n")
    file.append(b"two\n")
    file.sync()
    file.append(b"three\n")
    file.close()
    assert file.read() == b"one\ntwo\nthree\n"
    file.replace(b"new\n")
    file.append(b"more\n")
    file.close()
    assert file.read() == b"new\nmore\n"
    assert [each.name for each in tmp_path.iterdir()] == ["members"]


def test_a_file_that_was_removed_is_not_appended_to(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path / "members")
    with pytest.raises(FileNotFoundError):
        file.append(b"one\n")
    file.replace(b"one\n")
    (tmp_path / "members").unlink()
    with pytest.raises(FileNotFoundError):
        file.append(b"two\n")
    file.replace(b"three\n")
    file.close()
    assert file.read() == b"three\n"


def test_a_file_is_put_aside_once(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path / "members")
    for content in (b"first", b"second"):
        file.path.write_bytes(content)
        assert file.put_aside() == tmp_path / "members.aside"
    assert (tmp_path / "members.aside").read_bytes() == b"second"
    assert file.read() == b""


def test_a_file_that_cannot_be_put_aside_is_left_alone(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path / "members")
    file.path.write_bytes(b"another's")
    (tmp_path / "members.aside").mkdir()
    assert file.read() == b"another's"
    with pytest.raises(IsADirectoryError):
        file.put_aside()
    with pytest.raises(FileExistsError):
        file.replace(b"mine\n")
    assert file.read() == b"another's"


def test_a_file_that_took_its_place_is_left_alone(tmp_path: Path) -> None:
    """As when the directory was replaced by another node's."""
    mine = tmp_path / "mine"
    mine.mkdir()
    file = SnapshotFile(mine / "members")
    file.replace(b"mine\n")
    mine.rename(tmp_path / "moved")
    mine.mkdir()
    file.path.write_bytes(b"another's\n")
    file.append(b"more of mine\n")
    for _ in range(2):
        with pytest.raises(FileExistsError, match="another file has its place"):
            file.replace(b"all of mine\n")
    assert file.path.read_bytes() == b"another's\n"
    assert (tmp_path / "moved" / "members").read_bytes() == b"mine\nmore of mine\n"
    # One that was read first, or put aside, may be replaced.
    again = SnapshotFile(file.path)
    again.read()
    again.replace(b"read\n")
    again.put_aside()
    again.replace(b"new\n")
    again.close()
    assert again.read() == b"new\n"


class Failing:
    """Fails at the n-th of the calls that write, of which a part is written, as on a disk that fills up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self._left = number
        self.failed = False
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(descriptor: int, *data: bytes) -> Any:
            self._left -= 1
            if self._left:
                # A write may always do less than it is asked to.
                return call(descriptor, *(part[: max(1, len(part) // 2)] for part in data))
            self.failed = True
            for part in data:
                call(descriptor, part[: len(part) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return wrapped


@pytest.mark.parametrize("number", range(1, 20))
def test_a_failure_anywhere_keeps_what_was_there(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = SnapshotFile(tmp_path / "members")
    file.replace(b"before\n")
    failing = Failing(monkeypatch, number)
    steps: list[Callable[[], None]] = [
        lambda: file.append(b"appended\n"),
        file.sync,
        lambda: file.replace(b"all anew, and whole\n"),
        lambda: file.append(b"more\n"),
    ]
    with suppress(OSError):
        for step in steps:
            step()
    monkeypatch.undo()
    content = file.read()
    wholes = [b"before\nappended\n", b"all anew, and whole\nmore\n"]
    assert any(content and whole.startswith(content) for whole in wholes), content
    assert failing.failed or content == wholes[1]
    assert [each.name for each in tmp_path.iterdir()] == ["members"]
    # And it goes on from there.
    file.replace(b"again\n")
    file.append(b"and on\n")
    file.close()
    assert file.read() == b"again\nand on\n"
