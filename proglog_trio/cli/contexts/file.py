"""The file that has the contexts, read and changed so that two processes that change it at once lose nothing."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from proglog_trio.cli.contexts.contexts import MAX_FILE_BYTES, Contexts, ContextsError, parse, render

LOCK_SECONDS = 10.0
_LOCK_POLL_SECONDS = 0.02
_MODE = 0o600
_DIRECTORY_MODE = 0o700


def contexts_path() -> Path:
    """Return where the contexts are: below XDG_CONFIG_HOME, or ~/.config where that is not set.

    Raises:
        ContextsError: there is no home directory either.
    """
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # "All paths must be absolute … consider the path invalid and ignore it" (XDG Base Directory Specification)
    if Path(base).is_absolute():
        return Path(base) / "proglog" / "contexts.toml"
    try:
        return Path.home() / ".config" / "proglog" / "contexts.toml"
    except RuntimeError:
        raise ContextsError("there is no home directory for contexts: set HOME or XDG_CONFIG_HOME") from None


def read_contexts(path: Path) -> Contexts:
    """Return what is in a file: nothing if there is none. Raises ContextsError naming the file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Contexts()
    except OSError as error:
        raise ContextsError(f"{path}: {error.strerror}") from None
    try:
        if len(data) > MAX_FILE_BYTES:
            raise ContextsError(f"it has more than {MAX_FILE_BYTES} bytes")
        return parse(data.decode())
    except UnicodeDecodeError:
        raise ContextsError(f"{path}: it is no UTF-8 text") from None
    except ContextsError as error:
        raise ContextsError(f"{path}: {error}; mend the file, or remove it to begin anew") from None


def change_contexts(path: Path, change: Callable[[Contexts], Contexts]) -> Contexts:
    """Change what is in a file, and return what was in it before. Nobody reads a file that is half written.

    It is there before this returns, also after a power loss. Raises ContextsError, and nothing is changed then.
    """
    try:
        path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            before = read_contexts(path)
            _write(Path(os.path.realpath(path)), render(change(before)).encode())
    except OSError as error:
        raise ContextsError(f"{error.filename or path}: {error.strerror}") from None
    return before


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The lock's file stays: were it removed, two processes could hold locks of two files of this name.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    try:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise ContextsError(
                        f"{path}: another process has held the lock for {LOCK_SECONDS:g} s; try again, or end it"
                    ) from None
                time.sleep(_LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    """Put a whole file in the place of another. The lock is held: the name of the new one is nobody else's."""
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    with os.fdopen(descriptor, "wb") as file:
        # what a crash has left may have been made otherwise
        os.fchmod(descriptor, _MODE)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
