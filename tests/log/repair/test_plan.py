"""Repair: whatever was damaged in closed segments is as it was, as far as peers have it."""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.format.stored_frame import DamagedPlace
from proglog_trio.log.inspect.verify import Verifier
from proglog_trio.log.repair.elements import Damaged
from proglog_trio.log.repair.fetched_frames import FetchedFrames
from proglog_trio.log.repair.missing_ranges import Gaps
from proglog_trio.log.repair.placement import NOT_FETCHED, UNKNOWN, Fit
from proglog_trio.log.repair.plan import NOT_WRITTEN, _with_reasons, plan_repair
from proglog_trio.log.repair.survey import read_header, survey_run
from proglog_trio.log.retention import remove_files
from tests.log.driving import DIRECTORY, ForeignLog, OpenLog, batch_of, read_all, read_everything
from tests.log.repairing import (
    CONFIG,
    EVERYTHING,
    Peers,
    Step,
    Written,
    check_served,
    repair,
    repair_all,
    scrub,
    write_log,
)
from tests.log.simulated_disk import Loss, PowerCut, SimulatedDisk


def check_repaired(written: Written) -> None:
    """Repair with all frames, and check that nothing tells of the damage any more."""
    log = written.log
    scrub(log)
    repaired = log.damage.repaired + log.damage.left
    for _ in range(3):
        repair_all(log, written.peers)
    check_served(log, written.frames)
    assert not log.damage.places()
    assert log.damage.repaired == repaired
    scrub(log)
    assert not log.damage.places()


@pytest.mark.parametrize("step", [29, pytest.param(3, marks=pytest.mark.system)])
@pytest.mark.parametrize("suffix", [".store", ".index"])
def test_bytes_flipped(suffix: str, step: int) -> None:
    written = write_log()
    for files in written.closed:
        path = files.store if suffix == ".store" else files.index
        content = written.contents[path]
        # Steps are prime, so that every field is met in one frame or another; hypothesis tries others below.
        for position in range(0, len(content), step):
            written.disk.flip(path, position, (0x01, 0x80, 0xFF)[position % 3])
            check_repaired(written)
            written.disk.put(path, content)
            written.log.catalog._loaded.clear()


@pytest.mark.parametrize("step", [37, pytest.param(3, marks=pytest.mark.system)])
def test_files_cut(step: int) -> None:
    written = write_log()
    for files in written.closed:
        content = written.contents[files.store]
        for size in range(0, len(content), step):
            written.disk.put(files.store, content[:size])
            check_repaired(written)


def test_every_store_deleted() -> None:
    for number in range(len(write_log().closed)):
        written = write_log()
        files = written.closed[number]
        written.disk.delete(files.store)
        check_repaired(written)
        assert written.disk.content(files.store) == written.contents[files.store]


def test_all_closed_stores_deleted() -> None:
    written = write_log()
    for files in written.closed:
        written.disk.delete(files.store)
    check_repaired(written)


ONE_ORIGIN: tuple[Step, ...] = (("own", 0, 2),) * 17


def test_store_and_index_of_one_origin_deleted() -> None:
    """Nothing else can have stood there."""
    written = write_log(ONE_ORIGIN)
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
def test_any_damage_to_stores_with_peers_that_have_all(steps: list[Step], harms: list[Harm]) -> None:
    """As long as the indexes are whole, every store file is in the end what it was, byte for byte."""
    written = write_log([*steps, ("own", 0, 1), ("roll", 0, 0), ("own", 0, 1)])
    for harm in harms:
        harm.apply(written.disk, [files.store for files in written.closed])
    check_repaired(written)
    for files in written.closed:
        assert written.disk.content(files.store) == written.contents[files.store]
    written.opened.close()
    opened = OpenLog.open(written.disk, 77, config=CONFIG)
    check_served(opened.log, written.frames)
    assert opened.log.report.is_clean
    opened.close()
    assert not written.disk.open_files
    assert not list(Verifier(DIRECTORY, written.disk).run())


@given(steps=STEPS, harms=HARMS)
def test_any_damage_to_stores_and_indexes(steps: list[Step], harms: list[Harm]) -> None:
    """What neither tells is named; nothing is ever read at another place than where it was written."""
    written = write_log([*steps, ("own", 0, 1), ("roll", 0, 0), ("own", 0, 1)])
    log = written.log
    for harm in harms:
        harm.apply(written.disk, closed_files(written))
    scrub(log)
    readable = set(written.frames) - check_served(log, written.frames, ())
    for _ in range(3):
        repair_all(log, written.peers)
        readable = set(written.frames) - check_served(log, written.frames, readable)
    left = read_everything(log).lost
    scrub(log)
    assert bool(left) <= bool(log.damage.left)
    repair_all(log, written.peers)
    assert read_everything(log).lost == left
    written.opened.close()
    opened = OpenLog.open(written.disk, 77, config=CONFIG)
    check_served(opened.log, written.frames, readable)
    opened.close()
    assert not written.disk.open_files


@given(steps=STEPS, harms=HARMS, has=st.lists(st.booleans(), min_size=40, max_size=40), in_order=st.booleans())
def test_any_damage_to_stores_with_peers_that_have_some(
    steps: list[Step], harms: list[Harm], has: list[bool], in_order: bool
) -> None:
    written = write_log([*steps, ("own", 0, 1), ("roll", 0, 0), ("own", 0, 1)], in_order=in_order)
    log = written.log
    for harm in harms:
        harm.apply(written.disk, [files.store for files in written.closed])
    scrub(log)
    lost_before = read_everything(log).lost
    repair_all(log, Peers())
    assert read_everything(log).lost == lost_before, "without a peer no record comes back"
    some = written.peers.only(lambda number: has[number % len(has)])
    repair_all(log, some)
    served = check_some(written)
    assert served >= {base for base in written.frames if base not in lost_before}
    # Nothing gets worse, whatever is tried again; and in the end everything is there.
    repair_all(log, some)
    assert check_some(written) >= served
    scrub(log)
    for _ in range(3):
        repair_all(log, written.peers)
    check_served(log, written.frames)
    assert not log.damage.places()


def check_some(written: Written) -> set[int]:
    """Check what can be read; return the base offsets of the frames that can."""
    return set(written.frames) - check_served(written.log, written.frames, ())


# -- while it happens --------------------------------------------------------------------------------------------------


def harm_of(kind: str, written: Written) -> None:
    """Damage the second closed segment."""
    files = written.closed[1]
    content = written.contents[files.store]
    middle = (len(content) * 2) // 3
    if kind == "payload":
        victim = next(frame for frame in written.frames.values() if frame.base_offset >= files.base_offset)
        written.disk.flip(files.store, victim.end - 1, 0x10)
    elif kind == "header":
        written.disk.flip(files.store, 20, 0x10)
    elif kind == "both headers":
        written.disk.flip(files.store, 20, 0x10)
        written.disk.flip(files.index, 70, 0x10)
    elif kind == "range":
        written.disk.put(files.store, content[: middle - 200] + bytes(200) + content[middle:])
    elif kind == "cut":
        written.disk.put(files.store, content[:middle])
    elif kind == "index":
        written.disk.delete(files.index)
    else:
        written.disk.delete(files.store)


KINDS = ["payload", "header", "both headers", "range", "cut", "index", "store"]


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("kind", KINDS)
def test_power_cut_at_every_write_of_a_repair(kind: str, loss: Loss) -> None:
    original = write_log(ONE_ORIGIN if kind == "both headers" else EVERYTHING)
    harm_of(kind, original)
    for ahead in range(1, 40):
        for seed in range(3 if loss is Loss.MIX else 1):
            disk = original.disk.copy()
            opened = OpenLog.open(disk, 50, config=CONFIG)
            before = {frame.base_offset for frame in read_everything(opened.log).frames}
            scrub(opened.log)
            disk.cut_at = disk.operations + ahead
            was_cut = False
            try:
                repair_all(opened.log, original.peers)
            except PowerCut:
                was_cut = True
            disk.restart(loss, random.Random(seed))
            opened = OpenLog.open(disk, 51, config=CONFIG)
            assert not [path for path in disk.files() if path.suffix == ".new"]
            # With the index from before, from after or none: what could be read can be, and nothing else.
            check_served(opened.log, original.frames, before)
            scrub(opened.log)
            repair_all(opened.log, original.peers)
            check_served(opened.log, original.frames)
            opened.close()
        if not was_cut:
            break
    else:
        pytest.fail("the repair does not end")


@pytest.mark.parametrize("kind", ["write", "sync", "rename", "create"])
def test_disk_that_fails_leaves_the_old_file(kind: str) -> None:
    written = write_log()
    harm_of("payload", written)
    scrub(written.log)
    (files,) = written.log.damage.segments()
    before = written.disk.content(files.store)
    written.disk.fail(kind, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        repair_all(written.log, written.peers)
    assert written.disk.content(files.store) == before
    assert not [path for path in written.disk.files() if path.suffix == ".new" and path.stem == files.store.stem]
    check_repaired(written)


def test_readers_of_the_old_file_go_on() -> None:
    written = write_log()
    log = written.log
    first = log.reader_at_offset(0)
    given = [frame.base_offset for frame in first.read(1, log.next_offset).frames]
    files = written.closed[0]
    victim = [frame for frame in written.frames.values() if frame.base_offset < written.closed[1].base_offset][2]
    written.disk.flip(files.store, victim.position + 3, 0xFF)
    check_repaired(written)
    while first.next_offset < log.next_offset:
        given += [frame.base_offset for frame in first.read(100, log.next_offset).frames]
    assert given == sorted(written.frames)


def test_payload_that_is_repaired_makes_the_file_what_it_was() -> None:
    written = write_log()
    for files, following in zip(written.closed, written.log.catalog.segments[1:], strict=True):
        for frame in written.frames.values():
            if files.base_offset <= frame.base_offset < following.base_offset:
                written.disk.flip(files.store, frame.end - 1, 0x40)
                written.disk.flip(files.store, frame.position + 70, 0x40)
        check_repaired(written)
        assert written.disk.content(files.store) == written.contents[files.store]


def test_segment_that_retention_removes_meanwhile_does_not_come_back() -> None:
    written = write_log()
    log = written.log
    harm_of("payload", written)
    scrub(log)
    (files,) = log.damage.segments()
    plan = plan_repair(log.catalog, log.bounds(), files)
    assert plan is not None
    fetched = FetchedFrames()
    fetched.add_all(written.peers.frames.values())
    oldest = log.catalog.load(log.catalog.segments[2]).header
    forgotten = log.durable.forget_segments(2, oldest)
    assert not log.damage.places()
    assert plan_repair(log.catalog, log.bounds(), files) is None
    outcome = plan.rebuild(fetched)
    assert (outcome.rewritten, outcome.remaining) == ((), ())
    remove_files(log.catalog, forgotten)
    assert files.store not in written.disk.files()
    assert not [path for path in written.disk.files() if path.suffix == ".new"]
    assert not log.damage.places()
    check_served(log, {base: frame for base, frame in written.frames.items() if base >= log.lowest_offset})


def test_active_segment_is_left_before_it_is_repaired() -> None:
    written = write_log()
    log = written.log
    active = log.catalog.active.files
    victim = next(frame for frame in written.frames.values() if frame.base_offset >= active.base_offset)
    written.disk.flip(active.store, victim.end - 1, 0x01)
    scrub(log)
    assert log.damage.segments() == [active]
    assert plan_repair(log.catalog, log.bounds(), active) is None
    assert log.roll()
    written.opened.commit()
    assert not log.roll(), "an empty segment is not left"
    check_repaired(written)


@pytest.mark.parametrize("cleanly", [False, True])
def test_damage_that_opening_finds(cleanly: bool) -> None:
    """What opening counts comes back, the rest is as it would be without repair."""
    steps = [("own", 0, 2), ("foreign", 0, 1), ("own", 0, 1), ("gap", 0, 1), ("foreign", 0, 2), ("own", 0, 1)]
    original = write_log(steps)
    original.opened.close(cleanly=cleanly)
    (path,) = (path for path in original.disk.files() if path.suffix == ".store")
    for position in range(0, len(original.disk.content(path)), 11):
        disk = original.disk.copy()
        disk.flip(path, position, 0x22)
        opened = OpenLog.open(disk, 50, config=CONFIG)
        log = opened.log
        assert len(log.damage) == len(log.report.damaged)
        lost = read_everything(log).lost
        counted = {
            base: frame
            for base, frame in original.frames.items()
            if frame.header.next_sequence <= log.origins.get(frame.header.origin, OriginState()).next
        }
        if not log.roll():
            continue
        opened.commit()
        repair_all(log, original.peers)
        left = check_served(log, original.frames, ())
        assert not left & set(counted), "what the log counts as its own is repaired"
        assert read_everything(log).lost <= lost
        opened.close()


@given(steps=STEPS, harms=HARMS, cleanly=st.booleans(), spare_newest=st.booleans())
def test_any_damage_to_any_file_of_a_log_that_is_closed(
    steps: list[Step], harms: list[Harm], cleanly: bool, spare_newest: bool
) -> None:
    written = write_log([*steps, ("own", 0, 1), ("roll", 0, 0), ("own", 0, 1)])
    files = [each.store for each in written.closed]
    if not spare_newest:
        newest = written.log.catalog.active.files
        files += [newest.store, newest.index]
    written.opened.close(cleanly=cleanly)
    for harm in harms:
        harm.apply(written.disk, files)
    opened = OpenLog.open(written.disk, 77, config=CONFIG)
    log = opened.log
    scrub(log)
    before = read_everything(log)
    readable = {frame.base_offset for frame in before.frames}
    next_offset = log.next_offset
    begins_at_zero = log.lowest_offset == 0
    opened.append_values(b"after")
    if log.roll():
        opened.commit()
    for _ in range(3):
        repair_all(log, written.peers)
    found = read_everything(log)
    frames = {frame.base_offset: frame for frame in found.frames if frame.base_offset < next_offset}
    for base, frame in frames.items():
        assert written.frames[base].data == frame.data
    assert readable <= set(frames)
    assert found.lost <= before.lost
    # If the oldest segment is gone and the next has no header, nothing tells what that began with.
    if spare_newest and (begins_at_zero or read_header(log.catalog, log.catalog.segments[0]) is not None):
        # What is below the first segment that is left may have gone by retention, as far as anybody can tell.
        assert set(frames) == {base for base in written.frames if base >= log.lowest_offset}
        scrub(log)
        assert not log.damage.places()
    opened.close()
    opened = OpenLog.open(written.disk, 78, config=CONFIG)
    assert [frame.data for frame in read_everything(opened.log).frames] == [frame.data for frame in found.frames]
    opened.close()
    assert not written.disk.open_files


@pytest.mark.parametrize("comes_again", [False, True])
def test_only_what_is_held_retires_damage(comes_again: bool) -> None:
    """The last frame of an origin is damaged, and opening does not count it; a gap follows, or the frame itself."""
    disk = SimulatedDisk()
    opened = OpenLog.open(disk, 1, config=CONFIG)
    foreign = ForeignLog.make(7)
    frames = [foreign.write(batch_of(b"%d" % number)) for number in range(2)]
    for frame in frames:
        opened.log.append_foreign(frame, frame.encode(), lambda _: None)
    opened.append_values(b"own")
    (stored,) = (each for each in read_all(opened.log) if each.header == frames[1].header)
    files = opened.log.catalog.containing(stored.base_offset)
    opened.close()
    disk.flip(files.store, stored.end - 1, 1)
    opened = OpenLog.open(disk, 2, config=CONFIG)
    log, header = opened.log, frames[1].header
    assert log.origins[header.origin].next == header.base_sequence
    if comes_again:
        log.append_foreign(frames[1], frames[1].encode(), lambda _: None)
    else:
        following = header.next_sequence
        marker = GapMarker(header.origin, header.base_sequence, following, header.header_crc, "nobody has it")
        log.append_gap(marker, lambda _: None)
    opened.append_values(b"more")
    log.roll()
    opened.commit()
    scrub(log)
    outcome = repair(log, files, Peers())
    assert (len(log.damage), outcome.repaired_offsets) == ((0, 1) if comes_again else (1, 0))
    assert {loss.from_offset for loss in read_everything(log).losses} == (
        set() if comes_again else {stored.base_offset}
    )


def log_with_a_large_damage() -> tuple[OpenLog, SimulatedDisk]:
    """Return a log whose first segment has forty frames, and zeros instead of most of them."""
    disk = SimulatedDisk()
    opened = OpenLog.open(disk)
    for _ in range(40):
        opened.append_values(b"x")
    opened.log.roll()
    opened.append_values(b"y")
    store = opened.log.catalog.segments[0].store
    content = disk.content(store)
    disk.put(store, content[:1500] + bytes(len(content) - 3000) + content[-1500:])
    return opened, disk


def test_one_large_damage_that_stays_is_one_place() -> None:
    """As the scrub has found it, however many entries the index has of it: nothing is found or repaired by trying."""
    log = log_with_a_large_damage()[0].log
    files = log.catalog.segments[0]
    scrub(log)
    (found,) = log.damage.places()
    assert found.place.next_offset is not None
    assert found.place.next_offset - found.place.expected_offset > 20
    for _ in range(2):
        outcome = repair(log, files, Peers())
        assert outcome.rewritten == ()
        assert outcome.remaining == ((files, found.place, NOT_FETCHED),)
        scrub(log)
        assert log.damage.places() == [evolve(found, unrepairable=NOT_FETCHED)]
        assert (log.damage.found, log.damage.repaired) == (1, 0)


def test_one_large_damage_is_one_place_where_the_index_alone_is_written_anew() -> None:
    opened, disk = log_with_a_large_damage()
    log = opened.log
    files = log.catalog.segments[0]
    disk.flip(files.index, len(disk.content(files.index)) - 5, 1)
    scrub(log)
    outcome = repair(log, files, Peers())
    assert outcome.rewritten == (files,)
    assert len(outcome.remaining) == 1


def test_a_place_has_the_reason_of_what_begins_there() -> None:
    """And not of what ends there."""
    written = write_log()
    (first, second) = (Damaged(0, at * 10, at * 10 + 10, at, at + 1, None, None, "broken") for at in (7, 8))
    survey = survey_run(written.log.catalog, written.log.bounds(), written.closed[0])
    assert survey is not None
    result = Fit(survey, Gaps(counted={3}))
    places = [first.place(), second.place(), DamagedPlace(0, 0, None, 2, 2, "its header")]
    reasons = [why for _, why in _with_reasons(places, {3: first, 5: second}, result)]
    assert reasons == [NOT_FETCHED, UNKNOWN, NOT_WRITTEN]
    assert result.fetchable is result.fetchable, "it is computed once, not for each place"
