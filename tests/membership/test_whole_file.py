from __future__ import annotations

import os
from pathlib import Path

import pytest

from proglog_trio.membership.whole_file import write_whole_file


def test_what_is_written_is_on_disk_before_it_takes_the_files_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        sync(descriptor)
        done.append("directory" if Path(f"/proc/self/fd/{descriptor}").resolve() == tmp_path.resolve() else "file")

    def note_replace(path: Path, target: Path) -> Path:
        done.append("replace")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_whole_file(tmp_path / "it", "text")
    assert done == ["file", "replace", "directory"]
    assert (tmp_path / "it").read_text() == "text"


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "it"
    write_whole_file(path, "before")

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_whole_file(path, "after")
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["it"]
