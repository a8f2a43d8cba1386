import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.address import Address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8400", Address("127.0.0.1", 8400)),
        ("node-3.example:0", Address("node-3.example", 0)),
        ("[::1]:8400", Address("::1", 8400)),
        ("[fe80::1%eth0]:65535", Address("fe80::1%eth0", 65535)),
    ],
)
def test_parses(text: str, expected: Address) -> None:
    assert Address.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("127.0.0.1", "no port"),
        ("[::1]", "no port"),
        (":8400", "no host"),
        ("", "no host"),
        ("::1", "without brackets"),
        ("a:b:1", "without brackets"),
        ("host:", "no valid port"),
        ("host:http", "no valid port"),
        ("host:65536", "no valid port"),
        ("host:-1", "no valid port"),
        ("host:٣", "no valid port"),
        ("[host]:1", "no IPv6 address"),
        ("[]:1", "no IPv6 address"),
        ("http://host:1", "without brackets"),
        ("a b:1", "no host name"),
    ],
)
def test_says_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Address.parse(text)


def test_takes_the_default_port() -> None:
    assert Address.parse("host", default_port=7) == Address("host", 7)
    assert Address.parse("[::1]", default_port=7) == Address("::1", 7)
    assert Address.parse("host:8", default_port=7) == Address("host", 8)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_text_form_round_trips(host: object, port: int) -> None:
    address = Address(str(host), port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.3", "::1", "localhost", "LOCALHOST.", "node.localhost"])
def test_loopback(host: str) -> None:
    assert Address(host, 1).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", "example"])  # noqa: S104 (listens on none)
def test_not_loopback(host: str) -> None:
    assert not Address(host, 1).is_loopback


def test_wildcard() -> None:
    assert Address("0.0.0.0", 1).is_wildcard  # noqa: S104 (listens on nothing)
    assert Address("::", 1).is_wildcard
    assert not Address("localhost", 1).is_wildcard
