"""Repair: whatever was damaged in closed segments is as it was, as far as peers have it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from .driving import OpenLog, read_everything
from .repairing import CONFIG, EVERYTHING, Peers, Step, Written, check_served, repair_all, scrub, write_log
from .simulated_disk import SimulatedDisk


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


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["own", "own", "foreign", "gap"]), st.integers(0, 1), st.integers(1, 3)),
        st.tuples(st.sampled_from(["roll", "reopen"]), st.integers(0, 1), st.just(0)),
    ),
    min_size=3,
    max_size=25,
)


@frozen
class Harm:
    """What is done to one file of a log: bits flipped, its end cut off, or the whole removed."""

    kind: str
    file: int
    place: int
    bits: int

    def apply(self, disk: SimulatedDisk, files: Sequence[Path]) -> None:
        path = files[self.file % len(files)]
        if path not in disk.files():
            return
        content = disk.content(path)
        if self.kind == "delete":
            disk.delete(path)
        elif self.kind == "cut":
            disk.put(path, content[: self.place % (len(content) + 1)])
        elif content:
            disk.flip(path, self.place % len(content), self.bits)


HARMS = st.lists(
    st.builds(
        Harm,
        st.sampled_from(["flip", "flip", "flip", "cut", "delete"]),
        st.integers(0),
        st.integers(0),
        st.integers(1, 255),
    ),
    min_size=1,
    max_size=5,
)


def closed_files(written: Written) -> list[Path]:
    return [path for files in written.closed for path in (files.store, files.index)]


@given(steps=STEPS, harms=HARMS)
def test_any_damage_to_closed_segments_with_peers_that_have_all(steps: list[Step], harms: list[Harm]) -> None:
    written = write_log([*steps, ("own", 0, 1), ("roll", 0, 0), ("own", 0, 1)])
    for harm in harms:
        harm.apply(written.disk, closed_files(written))
    check_repaired(written)
    written.opened.close()
    opened = OpenLog.open(written.disk, 77, config=CONFIG)
    check_served(opened.log, written.frames)
    assert opened.log.report.is_clean
    opened.close()
    assert not written.disk.open_files


@given(steps=STEPS, harms=HARMS, has=st.lists(st.booleans(), min_size=40, max_size=40), in_order=st.booleans())
def test_any_damage_to_closed_segments_with_peers_that_have_some(
    steps: list[Step], harms: list[Harm], has: list[bool], in_order: bool
) -> None:
    written = write_log([*steps, ("own", 0, 1), ("roll", 0, 0), ("own", 0, 1)], in_order=in_order)
    log = written.log
    for harm in harms:
        harm.apply(written.disk, closed_files(written))
    scrub(log)
    lost_before = read_everything(log).lost
    repair_all(log, Peers())
    assert read_everything(log).lost == lost_before, "without a peer nothing changes"
    some = written.peers.only(lambda number: has[number % len(has)])
    repair_all(log, some)
    served = check_some(written, in_order=in_order)
    assert served >= {base for base in written.frames if base not in lost_before}
    # Nothing gets worse, whatever is tried again; and in the end everything is there.
    repair_all(log, some)
    assert check_some(written, in_order=in_order) >= served
    scrub(log)
    for _ in range(3):
        repair_all(log, written.peers)
    if in_order:
        check_served(log, written.frames)
        assert not log.damage.places()


def check_some(written: Written, *, in_order: bool) -> set[int]:
    """Check what can be read; return the base offsets of the frames that can.

    Where several origins' frames are gone and their order with them, those that come back are in the order of their log
    times, which need not be the one they were in.
    """
    found = read_everything(written.log)
    if in_order:
        check_served(written.log, written.frames, ())
    contents = {frame.data for frame in written.frames.values()}
    seen = [frame.data for frame in found.frames]
    assert len(seen) == len(set(seen)), "a frame is in the log twice"
    assert set(seen) <= contents
    return {frame.base_offset for frame in found.frames}
