import pytest
from hypothesis import given

from proglog_trio.membership.wire.coordinates import Coordinate, decode_ack_payload, encode_ack_payload
from proglog_trio.membership.wire.errors import DecodingError
from tests.membership.wire.strategies import coordinates


@given(coordinates)
def test_round_trip(coordinate: Coordinate) -> None:
    assert decode_ack_payload(encode_ack_payload(coordinate)) == coordinate


def test_no_coordinate() -> None:
    assert decode_ack_payload(b"") is None
    assert decode_ack_payload(b"\x02new") is None


def test_refuses() -> None:
    with pytest.raises(DecodingError, match="coordinate: Vec: element 0: is nan, no finite number"):
        decode_ack_payload(b"\x01\x81\xa3Vec\x91\xcb\x7f\xf8\0\0\0\0\0\0")
