from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.errors import FrameError
from proglog_trio.log.format.checksum import crc32c
from proglog_trio.log.format.envelope import ENVELOPE_BYTES, Envelope, EnvelopeKind, Salt
from proglog_trio.log.format.frame import Frame, FrameHeader
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.stored_frame import DamagedPlace, StoredFrame, check_frame
from proglog_trio.log.storage import scanner
from proglog_trio.log.storage.scanner import LARGE_FRAME_BYTES, SegmentScanner
from tests.log.simulated_disk import SimulatedDisk, SimulatedFile

SALT = Salt(b"saltsalt")
ORIGIN = Origin(b"o" * 16)
PATH = Path("/store")
START = 24


def frame_of(sequence: int, payload: bytes, extension: bytes = b"") -> Frame:
    header = FrameHeader(ORIGIN, sequence, 2, 100 + sequence, len(payload), crc32c(payload), extension=extension)
    return Frame(header.sealed(), payload)


def store_of(payloads: list[bytes], salt: Salt = SALT) -> tuple[bytes, list[tuple[int, Envelope, bytes]]]:
    """Return a store file with a frame of two records for each payload, and what stands where."""
    content = bytearray(b"H" * START)
    placed = []
    for number, payload in enumerate(payloads):
        data = frame_of(2 * number, payload, extension=bytes(number % 3)).encode()
        envelope = Envelope(EnvelopeKind.RECORDS, len(data), 2 * number, ORIGIN, 2 * number, 2, START)
        placed.append((len(content), envelope, data))
        content += envelope.encode(salt) + data
    return bytes(content), placed


def open_store(content: bytes) -> SimulatedFile:
    disk = SimulatedDisk()
    disk.put(PATH, content)
    return disk.open(PATH)


def walk_of(content: bytes, chunk_bytes: int = 1 << 20, end: int | None = None) -> SegmentScanner:
    return SegmentScanner(open_store(content), SALT, START, 0, end, chunk_bytes)


def steps(walk: SegmentScanner, large: int = LARGE_FRAME_BYTES) -> list[StoredFrame | DamagedPlace]:
    found: list[StoredFrame | DamagedPlace] = []
    with mock.patch.object(scanner, "LARGE_FRAME_BYTES", large):
        while (item := walk.step()) is not None:
            assert not found or walk.position > getattr(found[-1], "position", -1)
            found.append(item)
            assert len(found) < 10_000
    return found


PAYLOADS = st.lists(st.binary(max_size=300), max_size=8)
LARGE = st.integers(0, 400)


@given(PAYLOADS, st.integers(1, 500), LARGE)
def test_sound_store_is_read_whole(payloads: list[bytes], chunk_bytes: int, large: int) -> None:
    content, placed = store_of(payloads)
    expected = [StoredFrame(*each) for each in placed]
    assert steps(walk_of(content, chunk_bytes), large) == expected
    walk = walk_of(content, chunk_bytes)
    walk.envelopes_only = True
    assert steps(walk) == [StoredFrame(position, envelope, b"") for position, envelope, _ in placed]


@given(PAYLOADS, st.integers(1, 500), LARGE, st.data())
def test_damage_is_named_and_stepped_over(
    payloads: list[bytes], chunk_bytes: int, large: int, data: st.DataObject
) -> None:
    content, placed = store_of([*payloads, b"one more"])
    start = data.draw(st.integers(START, len(content) - 1))
    end = data.draw(st.integers(start + 1, len(content)))
    changed = content[:start] + bytes(each ^ 0x5A for each in content[start:end]) + content[end:]
    hit = [position < end and start < position + ENVELOPE_BYTES + envelope.length for position, envelope, _ in placed]
    found = steps(walk_of(changed, chunk_bytes), large)
    sound = [item for item in found if isinstance(item, StoredFrame)]
    assert sound == [StoredFrame(*each) for each, is_hit in zip(placed, hit, strict=True) if not is_hit]
    # What is found covers the file without a hole.
    place = START
    for item in found:
        assert item.position == place
        place = item.end
    assert place == len(content)
    # Every offset that is missing lies in a place that is named.
    offset = 0
    for item in found:
        if isinstance(item, StoredFrame):
            assert item.base_offset == offset
            offset = item.next_offset
        else:
            assert item.expected_offset == offset
            assert str(item)
            offset = item.next_offset if item.next_offset is not None else 2 * len(placed)
    assert offset == 2 * len(placed)


@given(PAYLOADS, st.integers(1, 200), LARGE, st.data())
def test_cut_store(payloads: list[bytes], chunk_bytes: int, large: int, data: st.DataObject) -> None:
    content, placed = store_of(payloads)
    size = data.draw(st.integers(START, len(content)))
    cut, ended = walk_of(content[:size], chunk_bytes), walk_of(content, chunk_bytes, end=size)
    for found in (steps(cut, large), steps(ended, large)):
        whole = [StoredFrame(*each) for each in placed if each[0] + ENVELOPE_BYTES + each[1].length <= size]
        assert found[: len(whole)] == whole
        rest = found[len(whole) :]
        assert len(rest) == (sum(frame.envelope.length + ENVELOPE_BYTES for frame in whole) + START < size)
        for item in rest:
            assert isinstance(item, DamagedPlace)
            assert item.next_offset is None
            assert item.end == size


def test_frames_and_envelopes_inside_records_are_records() -> None:
    """A producer may send a whole frame, and even another segment's envelope, as a record."""
    inner, _ = store_of([b"inner"], Salt(b"othersal"))
    content, placed = store_of([inner, b"next"])
    assert steps(walk_of(content)) == [StoredFrame(*each) for each in placed]
    # Also when the envelope before it is damaged.
    changed = bytearray(content)
    changed[START + 10] ^= 1
    damaged, sound = steps(walk_of(bytes(changed)))
    assert isinstance(damaged, DamagedPlace)
    assert (damaged.expected_offset, damaged.next_offset, damaged.envelope) == (0, 2, None)
    assert sound == StoredFrame(*placed[1])


def test_old_envelopes_that_come_up_again_are_damage() -> None:
    """What an earlier recovery left behind has lower offsets than what is expected there."""
    content, placed = store_of([b"one", b"two"])
    again = content + content[placed[0][0] :]
    found = steps(walk_of(again))
    assert found[:2] == [StoredFrame(*each) for each in placed]
    (rest,) = found[2:]
    assert isinstance(rest, DamagedPlace)
    assert "below the 4 expected" in rest.detail


def test_walk_that_follows_a_growing_file() -> None:
    content, placed = store_of([b"one", b"two", b"three"])
    file = open_store(content)
    walk = SegmentScanner(file, SALT, START, 0, end=placed[1][0])
    assert steps(walk) == [StoredFrame(*placed[0])]
    assert walk.step() is None
    walk.end = len(content)
    assert steps(walk) == [StoredFrame(*each) for each in placed[1:]]


@pytest.mark.parametrize("size", [0, 10, 83])
def test_frame_too_short_for_its_header(size: int) -> None:
    envelope = Envelope(EnvelopeKind.RECORDS, size, 0, ORIGIN, 0, 2, 0)
    with pytest.raises(FrameError):
        check_frame(bytes(size), envelope)


@given(st.binary(max_size=40), st.integers(0, 40), st.data())
def test_checked_frame_is_what_decoding_accepts(payload: bytes, extension: int, data: st.DataObject) -> None:
    frame = frame_of(4, payload, bytes(extension))
    encoded = bytearray(frame.encode())
    envelope = Envelope(EnvelopeKind.RECORDS, len(encoded), 9, ORIGIN, 4, 2, 0)
    check_frame(bytes(encoded), envelope)
    for other in (
        evolve(envelope, base_sequence=5),
        evolve(envelope, count=1),
        evolve(envelope, origin=Origin(bytes(16))),
    ):
        with pytest.raises(FrameError, match="does not match its envelope"):
            check_frame(bytes(encoded), other)
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FrameError):
        check_frame(bytes(encoded), envelope)
