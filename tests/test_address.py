import idna
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
        ("[fd00::1]:65535", Address("fd00::1", 65535)),
        ("node.example.:1", Address("node.example.", 1)),
        ("my_node-1:1", Address("my_node-1", 1)),
        ("b\u00fccher.example:1", Address("b\u00fccher.example", 1)),
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
        ("http://host:1", "is a URL: leave out 'http://'"),
        ("a b:1", "has a space in it"),
        ("a\u00a0b:1", r"has NO-BREAK SPACE \(U\+00A0\) in it"),
        ("a:1;b:1", "has a semicolon in it"),
        ("a:1,b:1", "has a comma in it"),
        ('["127.0.0.1:1"]', "has quotation marks in it"),
        ("\u201ca:1\u201d", "has quotation marks in it"),
        ("root@host:1", "has a user's name"),
        ("10.0.0.0/8", "has '/' in it"),
        ("a(b:1", r"its host has '\('"),
        ("a..b:1", "its host has a dot too many"),
        (".a:1", "its host has a dot too many"),
        (".:1", "its host has a dot too many"),
        ("x" * 64 + ".com:1", "its host is too long"),
        ("x." * 127 + "x:1", "its host is too long"),
        ("node\u20131.example:1", r"its host has EN DASH \(U\+2013\)"),
        ("no\u200bde:1", r"its host has ZERO WIDTH SPACE \(U\+200B\)"),
        ("\udcff:1", r"its host has a character \(U\+DCFF\)"),
        ("b\u00fc..example:1", "its host"),
        ("[fe80::1%eth0]:1", "its host has a zone"),
        ("[fe80::1]:1", "its host is link-local"),
        ("host:" + "1" * 5000, "no valid port"),
    ],
)
def test_says_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Address.parse(text)


def test_takes_the_default_port() -> None:
    assert Address.parse("host", default_port=7) == Address("host", 7)
    assert Address.parse("[::1]", default_port=7) == Address("::1", 7)
    assert Address.parse("host:8", default_port=7) == Address("host", 8)


def test_an_address_without_port_is_told_both_ways() -> None:
    with pytest.raises(ValueError, match=r"write \[fd00::1\] or \[fd00::1\]:port"):
        Address.parse("fd00::1", default_port=1)


@given(st.text())
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    try:
        address = Address.parse(text, default_port=1)
    except ValueError as error:
        assert str(error).startswith(repr(text.strip()))  # noqa: PT017 - either is right
    else:
        assert socket_name(address.host)


def socket_name(host: str) -> bytes:
    """What Python hands to the resolver; raises UnicodeError where it cannot."""
    if not host.isascii():
        return idna.encode(host, uts46=True).decode().encode("idna")
    return host.encode("idna")


@given(
    st.ip_addresses().filter(lambda address: not address.is_link_local or address.version == 4), st.integers(0, 65535)
)
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
