import pytest

from proglog_trio.membership.wire.addresses import pack_address, unpack_address
from proglog_trio.membership.wire.errors import DecodingError


@pytest.mark.parametrize(("host", "size"), [("127.0.0.1", 4), ("10.1.2.3", 4), ("::1", 16), ("fe80::1", 16)])
def test_round_trip(host: str, size: int) -> None:
    packed = pack_address(host)
    assert len(packed) == size
    assert unpack_address(packed) == host


def test_ipv4_in_ipv6_is_ipv4() -> None:
    assert pack_address("::ffff:10.0.0.1") == b"\x0a\0\0\1"
    assert unpack_address(bytes(10) + b"\xff\xff\x0a\0\0\1") == "10.0.0.1"


def test_refuses() -> None:
    with pytest.raises(DecodingError, match="address: has 5 bytes, not 4 or 16"):
        unpack_address(b"12345")
    with pytest.raises(ValueError, match="does not appear to be"):
        pack_address("localhost")
