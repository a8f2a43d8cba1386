"""What is kept in `damaged/`, and what goes."""

from __future__ import annotations

import random
import re

import hypothesis.strategies as st
from attrs import evolve
from hypothesis import given

from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.storage.damaged_files import Aside
from tests.log.driving import DIRECTORY, OpenLog, read_all
from tests.log.simulated_disk import Loss, SimulatedDisk

DAMAGED = DIRECTORY / "damaged"
LOG = DIRECTORY / "log"


def make_aside(max_bytes: int, max_files: int) -> Aside:
    disk = SimulatedDisk()
    disk.make_directory(LOG)
    return Aside(disk, DAMAGED, max_bytes, max_files)


def save(aside: Aside, offset: int, size: int) -> str:
    files = SegmentFiles(LOG, offset)
    store = aside.disk.create(files.store)
    store.write_at(0, [bytes(size)])
    path, saved = aside.save_tail(store, files, 0)
    store.close()
    assert saved == size
    return path.name


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 300)), min_size=1, max_size=30),
    st.integers(1, 1000),
    st.integers(1, 10),
)
def test_the_oldest_go_first(saved: list[tuple[int, int]], max_bytes: int, max_files: int) -> None:
    """In whatever order offsets come: a directory's grow, but for copies and repetitions of one."""
    aside = make_aside(max_bytes, max_files)
    aside.disk.make_directory(DAMAGED)
    aside.disk.create(DAMAGED / "notes.txt").close()
    kept: dict[str, tuple[int, int]] = {}
    for offset, size in saved:
        newest = save(aside, offset, size)
        assert newest not in kept
        kept[newest] = (offset, size)
        names = set(aside.disk.list_directory(DAMAGED))
        assert "notes.txt" in names, "what somebody put there is theirs"
        gone = [kept.pop(name) for name in list(kept) if name not in names]
        left = [offset for name, (offset, _) in kept.items() if name != newest]
        assert all(offset <= each for offset, _ in gone for each in left)
        assert newest in kept
        assert len(kept) <= max_files
        assert sum(size for _, size in kept.values()) <= max_bytes or len(kept) == 1
    assert len(aside.removed) == len(saved) - len(kept)


def test_the_same_name_again_is_younger() -> None:
    aside = make_aside(1 << 20, 12)
    names = [save(aside, 7, 10) for _ in range(15)]
    assert len(set(names)) == 15
    assert set(aside.disk.list_directory(DAMAGED)) == set(names[3:])


def test_a_hundred_torn_tails() -> None:
    disk = SimulatedDisk()
    config = LogConfig(DIRECTORY, damaged_bytes=5_000, damaged_files=4)
    rng = random.Random(1)
    removed = 0
    for number in range(30):
        opened = OpenLog.open(disk, number, config=config)
        assert opened.log.report.aside is not None
        removed += len(opened.log.report.aside.removed)
        opened.append_values(b"%d" % number)
        opened.close(cleanly=False)
        disk.restart(Loss.DROP, rng)
        newest = max(path for path in disk.files() if path.suffix == ".store")
        disk.put(newest, disk.content(newest) + rng.randbytes(rng.choice([10, 3_000])))
        kept = [path for path in disk.files() if path.parent == DAMAGED]
        assert len(kept) <= 4
        assert sum(len(disk.content(path)) for path in kept) <= 5_000
    opened = OpenLog.open(disk, 99, config=config)
    assert len(read_all(opened.log)) == 30
    assert 25 <= removed <= 29
    opened.close()
    # Lower bounds count from the next opening on, also when nothing is added.
    opened = OpenLog.open(disk, 100, config=evolve(config, damaged_files=1))
    assert len([path for path in disk.files() if path.parent == DAMAGED]) == 1
    opened.close()


def test_what_cannot_be_removed_keeps_no_log_from_being_opened() -> None:
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, config=LogConfig(DIRECTORY))
    opened.close(cleanly=False)
    for number in range(3):
        disk.make_directory(DAMAGED)
        disk.create(DAMAGED / f"{number:020d}.store").close()
    disk.fail("remove", 5)
    opened = OpenLog.open(disk, 1, config=LogConfig(DIRECTORY, damaged_files=1))
    aside = opened.log.report.aside
    assert aside is not None
    assert re.search("Input/output error", str(aside.trouble))
    opened.close()
