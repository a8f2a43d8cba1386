"""Giving a data directory another id: what makes a copy of one a directory of its own.

Everything here blocks on the disk.
"""

from __future__ import annotations

import random
from pathlib import Path

from attrs import frozen

from proglog_trio.errors import DataDirectoryError, SegmentError
from proglog_trio.log.config import LogConfig
from proglog_trio.log.disk import Disk, OperatingSystemDisk
from proglog_trio.log.opening import open_log_files
from proglog_trio.log.recovery import LOG_DIRECTORY
from proglog_trio.log.storage.segment import list_segments, read_segment_header
from proglog_trio.log.writer import CommitFailed, Work


@frozen
class NewId:
    """What a directory was called, and what it is called now; 8 bytes each."""

    before: bytes
    after: bytes


def give_new_id(directory: Path, *, disk: Disk | None = None, rng: random.Random | None = None) -> NewId:
    """Give a data directory that no node uses a new id, durably.

    What it holds stays; what it wrote before counts as another node's from now on.

    Args:
        directory: the data directory.
        disk: None: the real one.
        rng: makes the id; None: the system's own randomness.

    Raises:
        DataDirectoryError: there is no log in it, a node uses it, or it cannot be read or written.
    """
    disk = disk if disk is not None else OperatingSystemDisk()
    rng = rng if rng is not None else random.SystemRandom()
    work: list[Work] = []
    config = LogConfig(directory, cluster_name=_cluster_of(disk, directory))
    log = open_log_files(config, work.extend, disk=disk, rng=rng)
    try:
        if log.read_only_reason is not None:
            raise DataDirectoryError(f"{directory}: {log.read_only_reason}")
        before = log.directory_id
        log.change_directory_id(rng)
        log.writer.commit(work)
    except DataDirectoryError:
        log.close(cleanly=False)
        raise
    except (OSError, CommitFailed) as error:
        log.close(cleanly=False)
        raise DataDirectoryError(f"{directory}: {error}") from error
    log.close()
    return NewId(before, log.directory_id)


def _cluster_of(disk: Disk, directory: Path) -> str:
    try:
        segments = list_segments(disk, directory / LOG_DIRECTORY)
        for files in reversed(segments):
            store = disk.open(files.store)
            try:
                return read_segment_header(disk, files, store)[0].cluster_name
            except SegmentError:
                continue
            finally:
                store.close()
    except OSError as error:
        raise DataDirectoryError(f"{directory} holds no log: {error}") from None
    raise DataDirectoryError(f"{directory} holds no log whose header can be read")
