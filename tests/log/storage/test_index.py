from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.errors import SegmentError
from proglog_trio.log.format.envelope import Salt
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import SegmentHeader
from proglog_trio.log.storage.index import (
    ENTRY_BYTES,
    MARK_POSITION,
    DurableMark,
    IndexEntry,
    Place,
    SparseIndex,
    encode_preamble,
    read_entries,
    read_header_copy,
    read_mark,
)
from tests.log.simulated_disk import SimulatedDisk, SimulatedFile

SALT = Salt(b"saltsalt")
HEADER = SegmentHeader(bytes(8), "cluster", SALT, 0, 0).encode()
MARK = DurableMark(1_000, 50)
A, B = Origin(b"a" * 16), Origin(b"b" * 16)
ENTRIES = [IndexEntry(0, 100, A, 0), IndexEntry(3, 300, B, 7), IndexEntry(9, 900, A, 3)]
PATH = Path("/index")


def index_file(content: bytes) -> SimulatedFile:
    disk = SimulatedDisk()
    disk.put(PATH, content)
    return disk.open(PATH)


def sample() -> bytes:
    return encode_preamble(MARK, HEADER, SALT) + b"".join(entry.encode(SALT) for entry in ENTRIES)


def test_file_round_trip() -> None:
    file = index_file(sample())
    assert list(read_entries(file, HEADER, SALT)) == ENTRIES
    assert read_mark(file, SALT) == MARK
    assert read_header_copy(file) == HEADER


def test_every_byte_counts() -> None:
    content = sample()
    entries_begin = len(content) - len(ENTRIES) * ENTRY_BYTES
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 0x40
        file = index_file(bytes(changed))
        in_mark = MARK_POSITION <= position < MARK_POSITION + 32
        assert (read_mark(file, SALT) is None) == in_mark
        try:
            found = list(read_entries(file, HEADER, SALT))
        except SegmentError:
            continue
        assert in_mark or 6 <= position < MARK_POSITION, "only reserved bytes and the mark are not the entries' concern"
        assert position < entries_begin
        assert found == ENTRIES


@given(st.integers(0, len(sample())))
def test_cut(size: int) -> None:
    file = index_file(sample()[:size])
    try:
        found = list(read_entries(file, HEADER, SALT))
    except SegmentError:
        return
    assert found == ENTRIES[: len(found)]


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    file = index_file(data)
    assert read_mark(file, SALT) is None
    with pytest.raises(SegmentError):
        list(read_entries(file, HEADER, SALT))
    with pytest.raises(SegmentError):
        read_header_copy(file)


@given(st.binary(max_size=100))
def test_any_bytes_after_the_preamble(data: bytes) -> None:
    file = index_file(encode_preamble(MARK, HEADER, SALT) + data)
    if data:
        with pytest.raises(SegmentError):
            list(read_entries(file, HEADER, SALT))
    else:
        assert list(read_entries(file, HEADER, SALT)) == []


def test_another_segments_index() -> None:
    with pytest.raises(SegmentError, match="copy of the segment header is another"):
        list(read_entries(index_file(sample()), HEADER[:-1] + b"x", SALT))
    assert read_mark(index_file(sample()), Salt(b"otherslt")) is None


@given(
    st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 4), st.integers(60, 500)), max_size=60),
    st.sampled_from([1, 200, 1_000]),
)
def test_lookups_lead_to_the_wanted_frame_or_a_little_before(
    frames: list[tuple[Origin, int, int]], interval: int
) -> None:
    index = SparseIndex(interval)
    offset, position = 0, 100
    sequences = {A: 0, B: 0}
    placed = []
    for origin, count, size in frames:
        entry = IndexEntry(offset, position, origin, sequences[origin])
        index.add(entry)
        placed.append((entry, count, size))
        offset += count
        position += size
        sequences[origin] += count
    places = {Place(entry.offset, entry.position) for entry, _, _ in placed}
    for entry, count, size in placed:
        for each in range(count):
            place = index.before_offset(entry.offset + each)
            assert place in places
            assert place is not None
            assert place.offset <= entry.offset
            assert entry.position - place.position < interval + size
            of_sequence = index.before_sequence(entry.origin, entry.base_sequence + each)
            assert of_sequence in places
            assert of_sequence is not None
            assert of_sequence.offset <= entry.offset
    assert index.before_sequence(Origin(bytes(16)), 5) is None
    if not placed:
        assert index.before_offset(5) is None
