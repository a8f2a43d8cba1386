"""What a log does not have at present: it has a place, is told, and is put there when somebody has it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proglog_trio.errors import RecordsMissing
from proglog_trio.log.chunk import Chunk
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.segment_header import MissingRange, OriginState
from proglog_trio.log.inspect.verify import Verifier
from proglog_trio.log.log import Log
from proglog_trio.log.repair.fetched_frames import FetchedFrames
from proglog_trio.log.repair.plan import plan_repair
from tests.log.driving import DIRECTORY, OpenLog, read_everything
from tests.log.repairing import CONFIG, EVERYTHING, Clock, Peers, Step, Written, repair, repair_all, scrub, write_log

EXAMPLES = settings().max_examples

STEPS: tuple[Step, ...] = (
    ("foreign", 0, 1),
    ("own", 0, 1),
    ("missing", 0, 3),
    ("foreign", 0, 2),
    ("missing", 1, 2),
    ("own", 0, 2),
    ("foreign", 1, 1),
    ("reopen", 0, 0),
    ("missing", 0, 1),
    ("own", 0, 1),
    ("foreign", 0, 1),
    ("roll", 0, 0),
    ("own", 0, 1),
)


def missing_of(log: Log) -> dict[Origin, list[tuple[int, int]]]:
    return {
        origin: [(each.from_sequence, each.to_sequence) for each in state.missing]
        for origin, state in log.origins.items()
        if state.missing
    }


def fill(log: Log, peers: Peers) -> int:
    """Do as a node does that looks for what is missing; return how many offsets were filled."""
    filled = 0
    for files in log.durable.missing_segments():
        if files != log.catalog.active.files:
            outcome = repair(log, files, peers)
            log.durable.settle_missing(*outcome.offsets, outcome.missing, outcome.gaps)
            filled += outcome.filled_offsets
    return filled


def check(log: Log, peers: Peers) -> tuple[set[tuple[Origin, int]], set[tuple[Origin, int]]]:
    """Check that everything is given once, in order and in its place, or told as missing; return what is which."""
    found = read_everything(log)
    given: dict[tuple[Origin, int], int] = {}
    following: dict[Origin, int] = {}
    for frame in found.frames:
        header = frame.header
        assert header.base_sequence >= following.get(header.origin, 0), "an origin's records are given in their order"
        following[header.origin] = header.next_sequence
        known = peers.frames.get((header.origin, header.base_sequence))
        assert known is None or known == frame.data
        for number in range(header.count):
            given[header.origin, header.base_sequence + number] = frame.base_offset + number
    absent: dict[tuple[Origin, int], int] = {}
    for origin, state in log.origins.items():
        for each in state.missing:
            for number in range(each.to_sequence - each.from_sequence):
                absent[origin, each.from_sequence + number] = each.offset + number
        gaps = {sequence for first, end in state.gaps for sequence in range(first, end)}
        here = {sequence for at, sequence in (*given, *absent) if at == origin}
        assert here | gaps == set(range(state.low, state.next))
    assert not set(given) & set(absent)
    assert set(absent.values()) == found.lost
    assert all(isinstance(loss, RecordsMissing) for loss in found.losses)
    assert sorted((*given.values(), *absent.values())) == list(range(log.lowest_offset, log.next_offset))
    summary = Verifier(DIRECTORY, log.catalog.disk)
    assert list(summary.run()) == []
    assert summary.summary.missing == len(absent)
    return set(given), set(absent)


def read_to_end(log: Log, start: int | Position) -> list[Chunk]:
    if isinstance(start, int):
        reader = log.reader_at_offset(start, skip_missing=True)
    else:
        reader = log.reader_at_position(start, skip_missing=True)
    chunks = []
    while reader.next_offset < log.next_offset:
        chunks.append(reader.read(1 << 20, log.next_offset))
    reader.close()
    return chunks


def chained(absent: set[tuple[Origin, int]], had: set[tuple[Origin, int]]) -> set[tuple[Origin, int]]:
    """Return those of the records that hang together with what stands around the missing ones."""
    found: set[tuple[Origin, int]] = set()
    for step in (1, -1):
        for origin, sequence in sorted(absent)[::step]:
            before = origin, sequence - step
            if (origin, sequence) in had and (before not in absent or before in found):
                found.add((origin, sequence))
    return found


def look(log: Log) -> None:
    """Look at what is missing, and find nothing that could be put there."""
    for files in log.durable.missing_segments():
        if files != log.catalog.active.files:
            outcome = repair(log, files, Peers())
            assert not outcome.rewritten
            log.durable.settle_missing(*outcome.offsets, outcome.missing, outcome.gaps)


def reopened(written: Written) -> Log:
    written.opened.close()
    return OpenLog.open(written.disk, 77, Clock(), CONFIG).log


def test_what_is_missing_has_a_place_and_is_told() -> None:
    written = write_log(STEPS)
    _, absent = check(written.log, written.peers)
    assert len(absent) == 6
    skipped = [each for chunk in read_to_end(written.log, 0) for each in chunk.skipped]
    assert [each.at_present for each in skipped] == [True] * 3
    assert sum(each.to_offset - each.from_offset for each in skipped) == 6
    sequence_gaps = [gap for chunk in read_to_end(written.log, Position.empty()) for gap in chunk.sequence_gaps]
    assert [(gap.to_sequence - gap.from_sequence, gap.marked, gap.at_present) for gap in sequence_gaps] == [
        (3, True, True),
        (2, True, True),
        (1, True, True),
    ]


def test_it_is_put_in_its_place_and_a_reader_gives_it_there() -> None:
    written = write_log(STEPS)
    _, absent = check(written.log, written.peers)
    before = {frame.base_offset: frame.data for frame in read_everything(written.log).frames}
    assert fill(written.log, written.peers) == 6
    given, left = check(written.log, written.peers)
    assert not left
    assert absent <= given
    assert written.log.durable.missing_segments() == []
    after = {frame.base_offset: frame.data for frame in read_everything(written.log).frames}
    assert before.items() <= after.items(), "what was there keeps its offset"
    assert len(written.log.damage) == 0
    assert fill(written.log, written.peers) == 0


@settings(max_examples=max(EXAMPLES // 4, 5))
@given(st.integers(0, 2**20))
def test_a_part_is_put_in_its_place_and_the_rest_stays_missing(which: int) -> None:
    written = write_log(STEPS)
    some = written.peers.only(lambda number: bool(which >> number & 1))
    _, absent = check(written.log, written.peers)
    fill(written.log, some)
    given, left = check(written.log, written.peers)
    had = chained(absent, {key for key in some.frames if key in absent})
    assert given >= had
    assert left == absent - had
    log = reopened(written)
    look(log)
    assert check(log, written.peers) == (given, left)
    look(log)
    assert check(log, written.peers) == (given, left)
    fill(log, written.peers)
    assert check(log, written.peers) == (given | absent, set())


def test_a_log_that_was_filled_may_remember_more_as_missing_until_it_looks() -> None:
    # The newest header was written before, and is not written again: what it tells is at worst too much.
    written = write_log((*STEPS, ("roll", 0, 0), ("own", 0, 1)))
    fill(written.log, written.peers)
    assert missing_of(written.log) == {}
    log = reopened(written)
    remembered = missing_of(log)
    assert remembered
    look(log)
    assert missing_of(log) == {}
    check(log, written.peers)


@settings(max_examples=max(EXAMPLES // 4, 5))
@given(st.data())
def test_damage_beside_it_and_in_it_is_repaired(data: st.DataObject) -> None:
    written = write_log((*STEPS, *EVERYTHING))
    _, absent = check(written.log, written.peers)
    for _ in range(data.draw(st.integers(1, 3))):
        files = data.draw(st.sampled_from(written.closed))
        content = written.disk.content(files.store)
        written.disk.flip(files.store, data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 255)))
    scrub(written.log)
    for _ in range(2):
        repair_all(written.log, written.peers)
        fill(written.log, written.peers)
    found = read_everything(written.log)
    given = {
        (frame.header.origin, frame.header.base_sequence + number)
        for frame in found.frames
        for number in range(frame.header.count)
    }
    if not found.losses:
        assert absent <= given
    for frame in found.frames:
        known = written.peers.frames.get((frame.header.origin, frame.header.base_sequence))
        assert known is None or known == frame.data
    for stored in written.frames.values():
        origin, base = stored.header.origin, stored.header.base_sequence
        assert (origin, base) in given or any(
            offset in found.lost for offset in range(stored.base_offset, stored.next_offset)
        )


def test_a_commit_under_way_does_not_bring_back_what_was_filled() -> None:
    written = write_log(STEPS)
    opened, log = written.opened, written.log
    origin = next(origin for origin, state in log.origins.items() if state.missing)
    state = log.origins[origin]
    log.append_gap(GapMarker(origin, state.next, state.next + 2, 7, "away", in_place=True, final=False), lambda _: None)
    fill(log, written.peers)
    opened.commit()
    assert missing_of(log) == {origin: [(state.next, state.next + 2)]}


@settings(max_examples=max(EXAMPLES // 4, 5))
@given(st.integers(0, 2**20), st.booleans())
def test_what_is_given_up_keeps_its_offsets(which: int, reopen: bool) -> None:
    written = write_log(STEPS)
    log, opened = written.log, written.opened
    _, absent = check(log, written.peers)
    ranges = [(origin, each) for origin, state in log.origins.items() for each in state.missing]
    chosen = [each for number, each in enumerate(ranges) if which >> number & 1]
    expected = {
        (origin, sequence) for origin, each in chosen for sequence in range(each.from_sequence, each.to_sequence)
    }
    log.roll()
    opened.commit()
    for files in log.durable.missing_segments():
        plan = plan_repair(log.catalog, log.bounds(), files)
        assert plan is not None
        outcome = plan.rebuild(
            FetchedFrames(), {origin: [each for at, each in chosen if at == origin] for origin in log.origins}
        )
        log.durable.settle_missing(*outcome.offsets, outcome.missing, outcome.gaps)
    if reopen:
        log = reopened(written)
        look(log)
    gaps = {
        (origin, sequence)
        for origin, state in log.origins.items()
        for first, following in state.gaps
        for sequence in range(first, following)
    }
    assert {
        (origin, sequence)
        for origin, ranges in missing_of(log).items()
        for first, end in ranges
        for sequence in range(first, end)
    } == absent - expected
    assert gaps == expected, "what is given up is held by nobody, whatever a header of before says"
    skipped = [each for chunk in read_to_end(log, 0) for each in chunk.skipped]
    assert sum(each.to_offset - each.from_offset for each in skipped) == len(absent)
    assert sum(each.to_offset - each.from_offset for each in skipped if not each.at_present) == len(expected)
    fill(log, written.peers)
    assert missing_of(log) == {}


def test_retention_takes_what_is_missing_too() -> None:
    written = write_log((*STEPS, ("roll", 0, 0), ("own", 0, 1)))
    log = written.log
    count = len(log.catalog.segments) - 1
    log.durable.forget_segments(count, log.catalog.load(log.catalog.segments[count]).header)
    assert missing_of(log) == {}


@pytest.mark.parametrize(
    ("first", "following", "holds"),
    [
        (2, 3, True),
        (3, 5, True),
        (7, 9, True),
        (1, 3, False),
        (2, 6, False),
        (5, 7, False),
        (9, 11, False),
    ],
)
def test_what_is_held(first: int, following: int, holds: bool) -> None:
    state = OriginState(2, 10, gaps=((6, 7),), missing=(MissingRange(5, 6, 40), MissingRange(9, 10, 90)))
    assert state.holds(first, following) == holds
