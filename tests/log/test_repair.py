"""Repair: whatever was damaged in closed segments is as it was, as far as peers have it."""

from __future__ import annotations

import pytest

from .repairing import EVERYTHING, Written, check_served, repair_all, scrub, write_log


def check_repaired(written: Written) -> None:
    """Repair with all frames, and check that nothing tells of the damage any more."""
    log = written.log
    scrub(log)
    repaired = log.damage.repaired + len(log.damage)
    for _ in range(3):
        repair_all(log, written.peers)
    check_served(log, written.frames)
    assert not log.damage.places()
    assert log.damage.repaired == repaired
    scrub(log)
    assert not log.damage.places()


@pytest.mark.parametrize("suffix", [".store", ".index"])
def test_every_byte_flipped(suffix: str) -> None:
    steps = EVERYTHING
    written = write_log(steps)
    for files in written.closed:
        path = files.store if suffix == ".store" else files.index
        content = written.contents[path]
        for position in range(0, len(content), 1 if suffix == ".store" else 3):
            written.disk.flip(path, position, (0x01, 0x80, 0xFF)[position % 3])
            check_repaired(written)
            written.disk.put(path, content)
            written.log.catalog._loaded.clear()


def test_every_file_cut_at_every_byte() -> None:
    written = write_log()
    for files in written.closed:
        content = written.contents[files.store]
        for size in range(0, len(content), 3):
            written.disk.put(files.store, content[:size])
            check_repaired(written)


@pytest.mark.parametrize("with_index", [False, True])
def test_every_file_deleted(with_index: bool) -> None:
    for number in range(len(write_log().closed)):
        written = write_log()
        files = written.closed[number]
        written.disk.delete(files.store)
        if with_index:
            written.disk.delete(files.index)
        check_repaired(written)


def test_all_closed_files_deleted() -> None:
    written = write_log()
    for files in written.closed:
        written.disk.delete(files.store)
        written.disk.delete(files.index)
    check_repaired(written)
