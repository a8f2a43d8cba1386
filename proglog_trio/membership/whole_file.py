"""Small files that are written whole or not at all, and are on disk when that is said."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole_file(path: Path, text: str) -> None:
    """Write a text of ASCII into a file, readable for its owner alone, in place of what was there. Blocks.

    Raises:
        OSError: as the system gives it; what was there is there still.
    """
    # mkstemp makes it readable for its owner alone.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Return when the names in a directory are durable. Blocks; raises OSError as the system gives it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
