"""Damage: files cut at every byte, every byte flipped, files deleted; some of the bytes in the plain tests.

Whatever happened to the files, opening and reading give every acknowledged record unchanged or name what is damaged,
never give anything else, and the log goes on without using a sequence, or a known offset, twice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.errors import DataLoss
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.log import Log
from proglog_trio.log.reader import LogReader
from tests.log.driving import (
    DIRECTORY,
    Everything,
    ForeignLog,
    OpenLog,
    batch_of,
    position_after,
    read_all,
    read_everything,
)
from tests.log.simulated_disk import SimulatedDisk

CONFIG = LogConfig(DIRECTORY, segment_frames=4, index_interval_bytes=150)


@frozen
class Written:
    """A log on a disk, and what was acknowledged in it.

    Attributes:
        frames: by their base offset.
        newest: the store file of the newest segment.
    """

    disk: SimulatedDisk
    frames: dict[int, StoredFrame]
    lowest_offset: int
    next_offset: int
    newest: Path

    @property
    def offsets(self) -> set[int]:
        return {offset for frame in self.frames.values() for offset in range(frame.base_offset, frame.next_offset)}

    def names(self) -> set[tuple[bytes, int]]:
        return {
            (frame.header.origin.data, sequence)
            for frame in self.frames.values()
            for sequence in range(frame.header.base_sequence, frame.header.next_sequence)
        }


def write_log(*, segments: int, cleanly: bool) -> Written:
    """Make a log of two openings, with two origins, a gap, and commits of one frame and of several."""
    disk = SimulatedDisk()
    foreign = ForeignLog.make(5)
    config = CONFIG if segments > 1 else evolve(CONFIG, segment_frames=1_000)
    opened = OpenLog.open(disk, 1, config=config)
    for number in range(1, 2 + 2 * segments):
        if number == 1 + segments:
            opened.close(cleanly=cleanly)
            opened = OpenLog.open(disk, 2, config=config)
        values = [b"%d-%d" % (number, each) for each in range(1 + number % 3)]
        opened.log.append_soon(batch_of(*values, producer_id=7, producer_sequence=number), lambda _: None)
        frame = foreign.write(batch_of(b"foreign %d" % number))
        if number == 2:
            header = frame.header
            marker = GapMarker(
                header.origin, header.base_sequence, header.next_sequence, header.header_crc, "nobody has it"
            )
            opened.log.append_gap(marker, lambda _: None)
            frame = foreign.write(batch_of(b"after the gap"))
        opened.log.append_foreign(frame, frame.encode(), lambda _: None)
        if number % 2:
            opened.commit()
    opened.append_values(b"x" * 40)
    frames = {frame.base_offset: frame for frame in read_all(opened.log)}
    newest = opened.log.catalog.active.files.store
    opened.close(cleanly=cleanly)
    return Written(disk, frames, 0, opened.log.next_offset, newest)


LOGS = {
    (segments, cleanly): write_log(segments=segments, cleanly=cleanly)
    for segments in (1, 4)
    for cleanly in (False, True)
}


def spaced(plain: dict[int, int], system: dict[int, int]) -> list[ParameterSet]:
    """Return each log with how many bytes lie from one damaged place to the next, by how many segments it has.

    The plain tests take few places, but in all files: frames are of many lengths and steps are prime, so every field is
    met in one frame or another. The system's tests take every byte, or as many as they have time for.
    """
    return [
        pytest.param(segments, cleanly, steps[segments], id=f"{segments}-{cleanly}-{name}", marks=marks)
        for name, steps, marks in (("some", plain, ()), ("many", system, pytest.mark.system))
        for segments, cleanly in LOGS
    ]


def is_checked_thoroughly(place: int, step: int) -> bool:
    """Whether damage at a place is one of those after which everything is read from everywhere and opened again.

    That takes several times as long, and finds the same at places that lie side by side.
    """
    return place // step % {1: 20, 7: 6}.get(step, 2) == 0


def check_frames(frames: list[StoredFrame], written: Written) -> set[int]:
    """Check that what was read is what was written; return the offsets that were read."""
    found: set[int] = set()
    last = -1
    for frame in frames:
        assert frame.base_offset > last, "offsets go back"
        last = frame.next_offset - 1
        known = written.frames.get(frame.base_offset)
        assert known is not None, f"offset {frame.base_offset} was never given out"
        assert frame.data == known.data, "what is read is not what was written"
        found.update(range(frame.base_offset, frame.next_offset))
    return found


def check_positions(log: Log, written: Written, found: set[int]) -> None:
    """Check that a reader from a position gives everything that is there, or names what is not."""
    everything = [written.frames[offset] for offset in sorted(written.frames)]
    for number in (0, len(everything) // 2, len(everything) - 1):
        position = position_after(everything[:number])
        wanted = {
            frame.base_offset
            for frame in everything
            if not position.covers(frame.header.origin, frame.header.base_sequence, frame.header.count)
        }
        given: set[int] = set()
        named: set[int] = set()
        reader = log.reader_at_position(position)
        while reader.next_offset < log.next_offset:
            try:
                chunk = reader.read(200, log.next_offset)
            except DataLoss as loss:
                named.update(range(loss.from_offset, loss.to_offset))
            else:
                given.update(frame.base_offset for frame in chunk.frames)
        reader.close()
        assert given == wanted & found
        skipping = log.reader_at_position(position, skip_missing=True)
        assert read_skipping(skipping, log.next_offset) == (wanted & found, named)


def read_skipping(reader: LogReader, until: int) -> tuple[set[int], set[int]]:
    given: set[int] = set()
    skipped: set[int] = set()
    while reader.next_offset < until:
        chunk = reader.read(200, until)
        given.update(frame.base_offset for frame in chunk.frames)
        for each in chunk.skipped:
            if each.sequences is not None:
                continue  # it has no offsets here
            assert each.from_offset < each.to_offset
            skipped.update(range(each.from_offset, each.to_offset))
    reader.close()
    return given, skipped


def check_damaged(
    written: Written,
    damage: Callable[[SimulatedDisk], None],
    *,
    thorough: bool = True,
    offsets_are_known: bool = True,
) -> None:
    """Damage a copy of a log and check all that must hold then.

    Args:
        written: the log.
        damage: what is done to it.
        thorough: read from everywhere, and open it once more.
        offsets_are_known: what is left says which offsets were given out.
    """
    disk = written.disk.copy()
    damage(disk)
    opened = OpenLog.open(disk, 1_000, config=CONFIG)
    log = opened.log
    everything = read_everything(log, max_bytes=300)
    found = check_frames(everything.frames, written)
    assert not found & everything.lost, "what is read is also said to be lost"
    assert everything.lost <= set(range(log.next_offset))
    missing = written.offsets - found - everything.lost
    if missing:
        assert not log.report.is_clean, f"offsets {sorted(missing)} are missing, and nothing says so"
    if offsets_are_known:
        assert log.next_offset >= written.next_offset, "offsets will be used again"
    if thorough:
        check_reading(log, written, everything)

    # The log goes on, and what goes on is there after another opening, cleanly closed or not.
    new = [
        opened.append(batch_of(b"new", producer_id=8, producer_sequence=1)),
        opened.append_values(b"newer", b"newest"),
    ]
    for appended in new:
        assert (appended.origin.data, appended.base_sequence) not in written.names()
        if offsets_are_known:
            assert not set(range(appended.base_offset, appended.base_offset + appended.count)) & written.offsets
    for cleanly in (False, True)[: 1 + thorough]:
        opened.close(cleanly=cleanly)
        opened = OpenLog.open(disk, 2_000 + cleanly, config=CONFIG)
        assert not opened.log.report.moved_aside
        assert not opened.log.report.lost
        again = read_everything(opened.log)
        old = [frame for frame in again.frames if frame.base_offset < new[0].base_offset]
        assert old == everything.frames
        assert [frame.base_offset for frame in again.frames[len(old) :]] == [each.base_offset for each in new]
        assert again.lost == everything.lost
    retried: list[object] = []
    opened.log.append_soon(batch_of(b"new", producer_id=8, producer_sequence=1), retried.append)
    assert retried, "a retry was stored again"
    opened.close()
    assert not disk.open_files


def check_reading(log: Log, written: Written, everything: Everything) -> None:
    """Check that every way to read gives the same records and names the same damage."""
    found = {offset for frame in everything.frames for offset in range(frame.base_offset, frame.next_offset)}
    given, skipped = read_skipping(log.reader_at_offset(log.lowest_offset, skip_missing=True), log.next_offset)
    assert given == {frame.base_offset for frame in everything.frames}
    assert skipped == everything.lost
    check_positions(log, written, found)
    for offset in sorted(written.offsets):
        if offset < log.lowest_offset:
            continue
        again = read_everything(log, offset)
        expected = {each for each in found | everything.lost if each >= offset}
        assert {each for each in check_frames(again.frames, written) | again.lost if each >= offset} == expected


@pytest.mark.parametrize(("segments", "cleanly"), LOGS)
def test_sound_log_is_all_there(segments: int, cleanly: bool) -> None:
    written = LOGS[segments, cleanly]
    assert (len([path for path in written.disk.files() if path.suffix == ".store"]) == 1) == (segments == 1)
    check_damaged(written, lambda disk: None)
    assert OpenLog.open(written.disk.copy(), config=CONFIG).log.report.is_clean


@pytest.mark.parametrize(("segments", "cleanly", "step"), spaced({1: 7, 4: 7}, {1: 1, 4: 1}))
def test_newest_segment_cut_anywhere(segments: int, cleanly: bool, step: int) -> None:
    written = LOGS[segments, cleanly]
    content = written.disk.content(written.newest)
    for size in range(0, len(content), step):

        def cut(disk: SimulatedDisk, size: int = size) -> None:
            disk.put(written.newest, content[:size])

        check_damaged(written, cut, thorough=is_checked_thoroughly(size, step))


@pytest.mark.parametrize(("segments", "cleanly"), LOGS)
def test_newest_segment_cut_anywhere_without_its_index(segments: int, cleanly: bool) -> None:
    """Without the durable mark nobody can know what is missing after a cut; what is there must still be right."""
    written = LOGS[segments, cleanly]
    content = written.disk.content(written.newest)
    for size in range(0, len(content), 3):
        disk = written.disk.copy()
        disk.put(written.newest, content[:size])
        disk.delete(written.newest.with_suffix(".index"))
        opened = OpenLog.open(disk, 1_000, config=CONFIG)
        found = read_everything(opened.log)
        assert not found.losses
        check_frames(found.frames, written)
        appended = opened.append_values(b"new")
        assert (appended.origin.data, appended.base_sequence) not in written.names()
        opened.close()


@pytest.mark.parametrize("cleanly", [False, True])
def test_damage_before_the_last_commit_is_known_to_have_been_acknowledged(cleanly: bool) -> None:
    """Also without the index's durable mark: each later envelope says that what came before it was durable."""
    written = LOGS[1, cleanly]
    *_, last = written.frames.values()
    for frame in written.frames.values():
        if frame.position == last.position:
            continue
        for position in (frame.position, frame.position + 30, frame.position + 59, frame.end - 1):
            disk = written.disk.copy()
            disk.flip(written.newest, position, 0x20)
            disk.delete(written.newest.with_suffix(".index"))
            opened = OpenLog.open(disk, 1_000, config=CONFIG)
            assert not opened.log.report.moved_aside
            assert len(opened.log.report.damaged) == 1
            found = read_everything(opened.log)
            assert found.lost == set(range(frame.base_offset, frame.next_offset))
            assert check_frames(found.frames, written) == written.offsets - found.lost


def _middle(written: Written) -> list[Path]:
    return [path for path in written.disk.files() if path.suffix == ".store" and path != written.newest]


@pytest.mark.parametrize(
    ("cleanly", "step"),
    [
        (False, 47),
        (True, 17),
        pytest.param(False, 23, marks=pytest.mark.system),
        pytest.param(True, 1, marks=pytest.mark.system),
    ],
)
def test_middle_segments_cut_anywhere(cleanly: bool, step: int) -> None:
    """The second one at each step, in the system's tests every byte; the others, where the same holds, at fewer."""
    written = LOGS[4, cleanly]
    for path in _middle(written):
        content = written.disk.content(path)
        here = step if path == _middle(written)[1] else max(step, 23)
        for size in range(0, len(content), here):

            def cut(disk: SimulatedDisk, path: Path = path, content: bytes = content[:size]) -> None:
                disk.put(path, content)

            check_damaged(written, cut, thorough=is_checked_thoroughly(size, here))


@pytest.mark.parametrize("cleanly", [False, True])
@pytest.mark.parametrize("with_index", [False, True])
def test_segments_deleted(cleanly: bool, with_index: bool) -> None:
    written = LOGS[4, cleanly]
    for path in _middle(written)[1:]:

        def delete(disk: SimulatedDisk, path: Path = path) -> None:
            disk.delete(path)
            if with_index:
                disk.delete(path.with_suffix(".index"))

        check_damaged(written, delete)


@pytest.mark.parametrize(("segments", "cleanly"), LOGS)
def test_indexes_deleted(segments: int, cleanly: bool) -> None:
    written = LOGS[segments, cleanly]
    for path in written.disk.files():
        if path.suffix == ".index":

            def delete(disk: SimulatedDisk, path: Path = path) -> None:
                disk.delete(path)

            check_damaged(written, delete)


@pytest.mark.parametrize(("segments", "cleanly", "step"), spaced({1: 7, 4: 67}, {1: 1, 4: 11}))
def test_bytes_of_every_file_flipped(segments: int, cleanly: bool, step: int) -> None:
    """Bytes of every file, one bit pattern each; hypothesis tries others."""
    written = LOGS[segments, cleanly]
    for path in written.disk.files():
        for position in range(0, len(written.disk.content(path)), step):

            def flip(disk: SimulatedDisk, path: Path = path, position: int = position) -> None:
                disk.flip(path, position, (0x01, 0x80, 0xFF)[position % 3])

            check_damaged(written, flip, thorough=is_checked_thoroughly(position, step))


@given(
    log=st.sampled_from(sorted(LOGS)),
    flips=st.lists(st.tuples(st.integers(0), st.integers(1, 255)), min_size=1, max_size=3),
    file=st.integers(0),
)
def test_bytes_of_one_file_flipped(log: tuple[int, bool], flips: list[tuple[int, int]], file: int) -> None:
    written = LOGS[log]
    files = [path for path in written.disk.files() if path.suffix == ".store"]
    path = files[file % len(files)]
    size = len(written.disk.content(path))

    def damage(disk: SimulatedDisk) -> None:
        for position, bits in flips:
            disk.flip(path, position % size, bits)

    check_damaged(written, damage)


@given(
    log=st.sampled_from(sorted(LOGS)),
    start=st.integers(0),
    length=st.integers(1, 600),
    with_zeros=st.booleans(),
    file=st.integers(0),
)
def test_a_range_of_one_file_overwritten(
    log: tuple[int, bool], start: int, length: int, with_zeros: bool, file: int
) -> None:
    written = LOGS[log]
    files = [path for path in written.disk.files() if path.suffix == ".store"]
    path = files[file % len(files)]
    content = bytearray(written.disk.content(path))
    start %= len(content)
    end = min(start + length, len(content))
    content[start:end] = bytes(end - start) if with_zeros else bytes((7 * each + 1) % 256 for each in range(start, end))
    check_damaged(written, lambda disk: disk.put(path, bytes(content)))


@pytest.mark.parametrize("cleanly", [False, True])
def test_both_headers_of_a_segment_damaged(cleanly: bool) -> None:
    for segments in (1, 4):
        written = LOGS[segments, cleanly]
        for path in written.disk.files():
            if path.suffix != ".store":
                continue

            def damage(disk: SimulatedDisk, path: Path = path) -> None:
                disk.flip(path, 20, 0x10)
                disk.flip(path.with_suffix(".index"), 70, 0x10)

            check_damaged(written, damage)


def test_position_reader_passes_damage_that_its_position_covers() -> None:
    """A consumer that has gone on after damage is not told of it again."""
    written = LOGS[4, True]
    disk = written.disk.copy()
    path = _middle(written)[1]
    opened = OpenLog.open(disk, config=CONFIG)
    frames = read_all(opened.log)
    first = int(path.stem)
    victim = next(frame for frame in frames if frame.base_offset > first)
    disk.flip(path, victim.end - 1, 0xFF)
    opened = OpenLog.open(disk.copy(), config=CONFIG)
    position = position_after([frame for frame in frames if frame.base_offset <= victim.base_offset])
    reader = opened.log.reader_at_position(position)
    given = [frame.base_offset for frame in reader.read(1 << 20, opened.log.next_offset).frames]
    assert given == [frame.base_offset for frame in frames if frame.base_offset > victim.base_offset]
    reader = opened.log.reader_at_position(Position.empty())
    assert reader.read(1 << 20, victim.base_offset).next_offset == victim.base_offset
    with pytest.raises(DataLoss) as caught:
        reader.read(1 << 20, opened.log.next_offset)
    assert (caught.value.from_offset, caught.value.to_offset) == (victim.base_offset, victim.next_offset)
