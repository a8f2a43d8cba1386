"""The file in a data directory that tells which other data directories there are; see directories.py."""

from __future__ import annotations

import structlog

from proglog_trio.errors import FormatError
from proglog_trio.log.disk import write_whole
from proglog_trio.log.log import Log
from proglog_trio.replication.messages import KnownDirectory
from proglog_trio.replication.peers.directories import decode_directories

DIRECTORIES_FILE = "directories"
LONGEST_FILE_BYTES = 8 << 20
_logger = structlog.get_logger(__name__)


def read_directories(log: Log) -> list[KnownDirectory]:
    """Return which directories were known when this one was last used; none where that cannot be read. Blocks.

    Raises:
        OSError: as the disk gives it.
    """
    path = log.config.directory / DIRECTORIES_FILE
    try:
        file = log.catalog.disk.open(path)
    except FileNotFoundError:
        return []
    try:
        data = file.read_at(0, LONGEST_FILE_BYTES)
    finally:
        file.close()
    try:
        return [each for each in decode_directories(data) if each.directory_id != log.directory_id]
    except FormatError as error:
        # The others tell it again, as far as they know.
        _logger.error("which nodes there were is not known any more", file=str(path), reason=str(error))
        return []


def keep_directories(log: Log, data: bytes) -> None:
    """Write down which directories are known, durably. Blocks; raises OSError."""
    write_whole(log.catalog.disk, log.config.directory / DIRECTORIES_FILE, data)
