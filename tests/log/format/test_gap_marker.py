from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.errors import FrameError
from proglog_trio.log.format.checksum import crc32c
from proglog_trio.log.format.frame import MUST_UNDERSTAND_CONTROL, Frame, FrameHeader, decode_frame
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin

ORIGIN = Origin(b"o" * 16)


@given(st.integers(0, 2**63), st.integers(1, 2**62), st.integers(0, 2**32 - 1), st.text(max_size=10))
def test_round_trip(first: int, length: int, crc: int, reason: str) -> None:
    marker = GapMarker(ORIGIN, first, first + length, crc, reason)
    frame = decode_frame(marker.to_frame(5).encode())
    assert GapMarker.of_frame(frame) == marker
    assert frame.header.is_control
    assert frame.header.count == 0


def control_frame(payload: bytes) -> Frame:
    header = FrameHeader(ORIGIN, 4, 0, 1, len(payload), crc32c(payload), must_understand=MUST_UNDERSTAND_CONTROL)
    return Frame(header.sealed(), payload)


@given(
    st.binary(max_size=40)
    | st.lists(st.none() | st.booleans() | st.integers(-9, 2**40) | st.text(max_size=2) | st.floats(), max_size=4).map(
        msgpack.packb
    )
)
def test_any_payload_is_a_marker_or_a_frame_error(payload: bytes) -> None:
    try:
        marker = GapMarker.of_frame(control_frame(payload))
    except FrameError:
        return
    assert marker.from_sequence < marker.to_sequence


@pytest.mark.parametrize(
    "body",
    [
        [4, 0, "ends where it begins"],
        [2, 0, "goes back"],
        [2**64, 0, ""],
        [9, -1, ""],
        [9, 2**32, ""],
        [9, 0],
        [9, 0, None],
        {"to": 9},
    ],
)
def test_what_is_no_gap(body: object) -> None:
    try:
        payload = msgpack.packb(body)
    except OverflowError:
        payload = b"\x93\xff"
    with pytest.raises(FrameError):
        GapMarker.of_frame(control_frame(payload))


@pytest.mark.parametrize("payload", [b"\xdd\xff\xff\xff\xff", b"\x91" * 5_000, b""])
def test_claims(payload: bytes) -> None:
    with pytest.raises(FrameError):
        GapMarker.of_frame(control_frame(payload))
