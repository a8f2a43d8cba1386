from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.errors import FrameError
from proglog_trio.log.format.checksum import crc32c
from proglog_trio.log.format.frame import (
    FRAME_HEADER_BYTES,
    MUST_UNDERSTAND_CONTROL,
    Frame,
    FrameHeader,
    decode_frame,
    iterate_frames,
)
from proglog_trio.log.format.origin import Origin

U16, U32, U64 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    payload = draw(st.binary(max_size=100))
    header = FrameHeader(
        Origin(draw(st.binary(min_size=16, max_size=16))),
        draw(U64),
        draw(U32),
        draw(U64),
        len(payload),
        crc32c(payload),
        draw(U64),
        draw(U64),
        draw(U32),
        draw(st.sampled_from([0, MUST_UNDERSTAND_CONTROL])),
        draw(U16),
        draw(U32),
        draw(st.binary(max_size=20)),
    )
    return Frame(header.sealed(), payload)


SAMPLE = Frame(FrameHeader(Origin(bytes(range(16))), 7, 2, 99, 5, crc32c(b"hello")).sealed(), b"hello")


@given(frames(), st.binary(max_size=10), st.binary(max_size=10))
def test_round_trip(frame: Frame, before: bytes, after: bytes) -> None:
    data = frame.encode()
    assert len(data) == frame.length == frame.header.header_length + len(frame.payload)
    assert decode_frame(before + data + after, len(before)) == frame
    assert FrameHeader.decode(data) == frame.header
    of_view = decode_frame(memoryview(before + data + after), len(before))
    assert (of_view, type(of_view.payload), type(of_view.header.extension)) == (frame, bytes, bytes)


@given(st.lists(frames(), max_size=4))
def test_frames_one_after_the_other(several: list[Frame]) -> None:
    assert list(iterate_frames(b"".join(frame.encode() for frame in several))) == several


def test_every_bit_counts() -> None:
    data = SAMPLE.encode()
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with pytest.raises(FrameError):
                decode_frame(bytes(changed))
            with pytest.raises(FrameError):
                decode_frame(memoryview(changed))


def test_every_cut_is_noticed() -> None:
    data = SAMPLE.encode()
    for size in range(len(data)):
        with pytest.raises(FrameError):
            decode_frame(data[:size])
        if size:
            with pytest.raises(FrameError):
                list(iterate_frames(data + data[:size]))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_error(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode_frame(data)


def test_claimed_lengths_are_not_believed() -> None:
    for payload_length in (2**32 - 1, 6):
        header = evolve(SAMPLE.header, payload_length=payload_length).sealed()
        with pytest.raises(FrameError, match="cut off"):
            decode_frame(header.encode() + b"hello")
    long = bytearray(SAMPLE.encode())
    long[6:8] = b"\xff\xff"
    with pytest.raises(FrameError, match="says that it has 65535 bytes"):
        decode_frame(bytes(long))


def test_newer_version_and_unknown_attributes_are_refused_by_name() -> None:
    newer = evolve(SAMPLE.header, version=2).encode() + SAMPLE.payload
    with pytest.raises(FrameError, match="version 2, this program reads version 1"):
        decode_frame(newer)
    for bits in (0x0001, 0x0010, 0x8000):
        with pytest.raises(FrameError, match=f"{bits:#06x}"):
            decode_frame(evolve(SAMPLE.header, must_understand=bits).encode() + SAMPLE.payload)
    ignored = evolve(SAMPLE.header, may_ignore=0x8000).encode() + SAMPLE.payload
    assert decode_frame(ignored).header.may_ignore == 0x8000


def test_layout_is_the_documented_one() -> None:
    data = SAMPLE.encode()
    assert FRAME_HEADER_BYTES == 84
    assert data[:4] == b"\x93PLF"
    assert int.from_bytes(data[6:8], "big") == 84
    assert data[16:32] == bytes(range(16))
    assert int.from_bytes(data[32:40], "big") == 7
    assert int.from_bytes(data[40:44], "big") == 2
    assert int.from_bytes(data[44:52], "big") == 99
    assert int.from_bytes(data[72:76], "big") == 5
    assert int.from_bytes(data[80:84], "big") == crc32c(data[:80]) == SAMPLE.header.header_crc
    assert data[84:] == b"hello"
    assert SAMPLE.header.next_sequence == 9
    assert not SAMPLE.header.is_control
