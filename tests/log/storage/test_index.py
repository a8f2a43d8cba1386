from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.errors import SegmentError
from proglog_trio.log.format.checksum import crc32c
from proglog_trio.log.format.envelope import Envelope, EnvelopeKind, Salt
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import SegmentHeader
from proglog_trio.log.storage.index import (
    ENTRY_BYTES,
    MARK_POSITION,
    DurableMark,
    IndexBuilder,
    IndexEntry,
    SparseEntry,
    encode_preamble,
    entries_begin,
    entries_between,
    read_entries,
    read_header_copy,
    read_mark,
    read_noted_entries,
    read_sound_entries,
)
from proglog_trio.log.storage.sparse_index import Place, SparseIndex
from tests.log.simulated_disk import SimulatedDisk, SimulatedFile

SALT = Salt(b"saltsalt")
HEADER = SegmentHeader(bytes(8), "cluster", SALT, 0, 0).encode()
MARK = DurableMark(1_000, 50)
A, B = Origin(b"a" * 16), Origin(b"b" * 16)
MARKER = GapMarker(B, 10, 12, 77, "no member has it").to_frame(5).encode()


def entry(offset: int, position: int, origin: Origin, sequence: int, noted_before: int = 0) -> IndexEntry:
    envelope = Envelope(EnvelopeKind.RECORDS, 100, offset, origin, sequence, 3, 90)
    return IndexEntry(position, envelope, position + 7, b"", noted_before)


GAP = Envelope(EnvelopeKind.GAP, len(MARKER), 6, B, 10, 0, 90)
BEGIN = entries_begin(HEADER)
# The second and the third are not noted, and stand between the places of the others.
ENTRIES = [
    entry(0, 100, A, 0),
    entry(3, 300, B, 7, BEGIN),
    IndexEntry(460, GAP, 5, MARKER, BEGIN + ENTRY_BYTES),
    entry(6, 700, A, 3, BEGIN + ENTRY_BYTES),
    entry(9, 1_900, A, 6, BEGIN + ENTRY_BYTES),
]
PATH = Path("/index")


def index_file(content: bytes) -> SimulatedFile:
    disk = SimulatedDisk()
    disk.put(PATH, content)
    return disk.open(PATH)


def builder() -> IndexBuilder:
    made = IndexBuilder(SALT, SparseIndex(1_000), BEGIN)
    for each in ENTRIES:
        made.add(each.position, each.envelope, each.envelope.encode(SALT), each.log_time, each.control_frame)
    return made


def sample() -> bytes:
    made = builder()
    mark = evolve(MARK, last_noted=made.last_noted)
    return encode_preamble(mark, HEADER, SALT) + bytes(made.unwritten)


def sparse_sample() -> bytes:
    """An index as version 1 wrote it."""
    content = bytearray(encode_preamble(MARK, HEADER, SALT))
    content[5] = 1
    for each in ENTRIES[::4]:
        fields = struct.pack(">QQ16sQ", each.offset, each.position, each.origin.data, each.base_sequence)
        content += fields + struct.pack(">I", crc32c(fields, SALT.seed))
    return bytes(content)


def test_file_round_trip() -> None:
    file = index_file(sample())
    assert list(read_entries(file, HEADER, SALT)) == ENTRIES
    assert read_mark(file, SALT) == evolve(MARK, last_noted=len(sample()) - ENTRY_BYTES)
    assert read_header_copy(file) == HEADER
    assert list(read_sound_entries(file, HEADER, SALT)) == ENTRIES
    assert read_noted_entries(file, HEADER, SALT) == [ENTRIES[0], ENTRIES[1], ENTRIES[4]]


def test_version_1_is_read_for_what_it_has() -> None:
    file = index_file(sparse_sample())
    entries = [SparseEntry(each.offset, each.position, each.origin, each.base_sequence) for each in ENTRIES[::4]]
    assert list(read_entries(file, HEADER, SALT)) == read_noted_entries(file, HEADER, SALT) == entries
    assert read_mark(file, SALT) == MARK
    assert list(read_sound_entries(file, HEADER, SALT)) == []


def test_sound_entries_behind_damaged_ones() -> None:
    content = sample()
    places = [BEGIN]
    for each in ENTRIES:
        places.append(places[-1] + each.length)
    for position in range(BEGIN, len(content)):
        changed = bytearray(content)
        changed[position] ^= 0x10
        file = index_file(bytes(changed))
        damaged = bisect_right(places, position) - 1
        assert list(read_sound_entries(file, HEADER, SALT)) == ENTRIES[:damaged] + ENTRIES[damaged + 1 :]
        if damaged in (2, 3):
            assert len(read_noted_entries(file, HEADER, SALT)) == 3, "what is not noted is not looked at"
            continue
        with pytest.raises(SegmentError):
            read_noted_entries(file, HEADER, SALT)


def test_without_a_mark_nothing_tells_what_is_noted() -> None:
    for mark, fault in ((bytes(32), "mark cannot be read"), (MARK.encode(SALT), "none of the entries is noted")):
        for content in (sample(), sparse_sample()):
            file = index_file(content[:MARK_POSITION] + mark + content[MARK_POSITION + 32 :])
            if content == sparse_sample():
                assert len(read_noted_entries(file, HEADER, SALT)) == 2
                continue
            with pytest.raises(SegmentError, match=fault):
                read_noted_entries(file, HEADER, SALT)
    empty = index_file(encode_preamble(MARK, HEADER, SALT))
    assert read_noted_entries(empty, HEADER, SALT) == []


class Looked(Sequence[IndexEntry]):
    """Counts how often an entry is looked at."""

    def __init__(self, entries: list[IndexEntry]) -> None:
        self.entries = entries
        self.times = 0

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, number: Any) -> Any:
        self.times += 1
        return self.entries[number]


def test_entries_between_two_places_are_found_without_the_others() -> None:
    length = ENTRIES[0].end - ENTRIES[0].position
    entries = [entry(number, number * length, A, number) for number in range(1_000)]
    for first, last in ((0, 3), (500, 502), (999, 1_000), (7, 7)):
        position, end = first * length, last * length
        looked = Looked(entries)
        assert list(entries_between(looked, position, end)) == entries[first:last]
        assert list(entries_between(looked, position, end + 1)) == entries[first:last]
        assert list(entries_between(looked, position + 1, end - 1)) == entries[first + 1 : max(last - 1, 0)]
        assert looked.times < 3 * 20
    assert list(entries_between((), 0, 100)) == []


def test_a_chain_that_leads_nowhere_is_damage() -> None:
    made = builder()
    mark = evolve(MARK, last_noted=len(sample()) + 5)
    with pytest.raises(SegmentError, match="is cut off"):
        read_noted_entries(index_file(encode_preamble(mark, HEADER, SALT) + bytes(made.unwritten)), HEADER, SALT)


def test_every_byte_counts() -> None:
    content = sample()
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
        assert position < BEGIN
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
        index.add(offset, position, origin, sequences[origin])
        placed.append((entry(offset, position, origin, sequences[origin]), count, size))
        offset += count
        position += size
        sequences[origin] += count
    places = {Place(each.offset, each.position) for each, _, _ in placed}
    for found, count, size in placed:
        for record in range(count):
            place = index.before_offset(found.offset + record)
            assert place in places
            assert place is not None
            assert place.offset <= found.offset
            assert found.position - place.position < interval + size
            of_sequence = index.before_sequence(found.origin, found.base_sequence + record)
            assert of_sequence in places
            assert of_sequence is not None
            assert of_sequence.offset <= found.offset
    assert index.before_sequence(Origin(bytes(16)), 5) is None
    if not placed:
        assert index.before_offset(5) is None
