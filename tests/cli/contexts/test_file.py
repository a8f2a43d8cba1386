import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from proglog_trio.cli.contexts import file as contexts_file
from proglog_trio.cli.contexts.contexts import MAX_FILE_BYTES, Context, Contexts, ContextsError
from proglog_trio.cli.contexts.file import change_contexts, contexts_path, read_contexts

ONE = Context(addresses=("a:1",))


def add(path: Path, name: str) -> Contexts:
    return change_contexts(path, lambda contexts: contexts.added(name, ONE, replace=False))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "proglog" / "contexts.toml"


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/configuration")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert contexts_path() == Path("/configuration/proglog/contexts.toml")
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CONFIG_HOME", ignored)
        assert contexts_path() == Path("/home/somebody/.config/proglog/contexts.toml")


def test_made_for_its_owner_alone(path: Path) -> None:
    assert read_contexts(path) == Contexts()
    former = os.umask(0)
    try:
        assert add(path, "one") == Contexts()
    finally:
        os.umask(former)
    assert read_contexts(path) == Contexts({"one": ONE})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    # and again where one was readable for all, or left by a crash
    path.chmod(0o644)
    new = path.with_suffix(".new")
    new.write_text("half of a file that is longer than what comes next" * 100)
    new.chmod(0o644)
    add(path, "two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(read_contexts(path).by_name) == {"one", "two"}
    assert not new.exists()


def test_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "dotfiles"
    path.parent.mkdir(parents=True)
    path.symlink_to(elsewhere)
    add(path, "one")
    assert path.is_symlink()
    assert read_contexts(elsewhere) == Contexts({"one": ONE})


def test_nothing_is_changed_by_what_fails(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(path, "one")
    before = path.read_bytes()
    with pytest.raises(ContextsError, match="--replace"):
        add(path, "one")

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(ContextsError, match="No space left on device"):
            add(path, "two")
    assert path.read_bytes() == before
    add(path, "two")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xff", "it is no UTF-8 text"),
        (b"x = 1", "line 1: the key 'x' is unknown.*; mend the file, or remove it"),
        (b"#" * (MAX_FILE_BYTES + 1), "it has more than 1048576 bytes"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_kept(path: Path, data: bytes, problem: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with pytest.raises(ContextsError, match=f"^{path}: {problem}"):
        read_contexts(path)
    with pytest.raises(ContextsError, match=f"^{path}: {problem}"):
        add(path, "one")
    assert path.read_bytes() == data


def test_a_directory_in_its_place(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(ContextsError, match=f"^{path}: Is a directory"):
        read_contexts(path)


def test_a_lock_that_is_not_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts_file, "LOCK_SECONDS", 0.05)
    path.parent.mkdir(parents=True)
    with (
        contexts_file._locked(path.with_suffix(".lock")),
        pytest.raises(ContextsError, match="another process has held the lock"),
    ):
        add(path, "one")
    add(path, "one")


SCRIPT = """
import sys
from pathlib import Path
from proglog_trio.cli.contexts.contexts import Context
from proglog_trio.cli.contexts.file import change_contexts

path, who = Path(sys.argv[1]), sys.argv[2]
sys.stdin.read()
for number in range(20):
    name = f"{who}-{number}"
    change_contexts(path, lambda contexts: contexts.added(name, Context(addresses=("a:1",)), replace=False))
"""


def test_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), str(who)], stdin=subprocess.PIPE) for who in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        # the end of its input has it begin
        process.stdin.close()
    assert [process.wait() for process in processes] == [0] * 4
    assert set(read_contexts(path).by_name) == {f"{who}-{number}" for who in range(4) for number in range(20)}
