"""The networks that members may be in."""

from __future__ import annotations

import contextlib
import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proglog_trio.membership.addresses.allowed_networks import MAX_NETWORKS, AllowedNetworks, Network, parse_network

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@st.composite
def networks(draw: st.DrawFn) -> Network:
    address = draw(ADDRESSES)
    length = draw(st.integers(0, address.max_prefixlen))
    return ipaddress.ip_network((address, length), strict=False)


@given(st.lists(networks(), min_size=1, max_size=8), ADDRESSES, st.booleans())
@example([ipaddress.ip_network("10.0.0.0/8")], ipaddress.ip_address("10.255.255.255"), True)
@example([ipaddress.ip_network("0.0.0.0/0")], ipaddress.ip_address("::1"), False)
def test_an_address_is_allowed_that_is_in_one_of_them(
    listed: list[Network], address: ipaddress.IPv4Address | ipaddress.IPv6Address, near: bool
) -> None:
    if near:
        # Random addresses are in few networks.
        network = listed[0]
        address = network[int(address) % network.num_addresses]
    allowed = AllowedNetworks.of(*map(str, listed))
    mapped = getattr(address, "ipv4_mapped", None) or address
    wanted = any(mapped.version == each.version and mapped in each for each in map(parse_network, map(str, listed)))
    assert allowed.allow(address.packed) == wanted
    if isinstance(mapped, ipaddress.IPv4Address):
        assert allowed.allow(bytes(10) + b"\xff\xff" + mapped.packed) == wanted


@given(networks())
def test_what_is_written_is_read(network: Network) -> None:
    read = parse_network(f" {network} ")
    assert read == network or (read.version == 4 and read.num_addresses == network.num_addresses)
    assert AllowedNetworks.of(str(network)).allow(network[0].packed)
    assert AllowedNetworks.of(str(network)).allow(network[-1].packed)


@given(st.text())
def test_any_other_text_is_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_network(text)


def test_an_ipv4_network_that_is_written_as_ipv6_is_one() -> None:
    assert parse_network("::ffff:10.0.0.0/104") == ipaddress.ip_network("10.0.0.0/8")


@given(st.binary(max_size=20).filter(lambda data: len(data) not in (4, 16)))
def test_what_is_no_address_is_not_allowed(data: bytes) -> None:
    assert not AllowedNetworks.of("0.0.0.0/0", "::/0").allow(data)


def test_there_are_some_and_not_too_many() -> None:
    with pytest.raises(ValueError, match="1"):
        AllowedNetworks(())
    with pytest.raises(ValueError, match=str(MAX_NETWORKS)):
        AllowedNetworks.of(*(f"10.{number // 256}.{number % 256}.0/24" for number in range(MAX_NETWORKS + 1)))
