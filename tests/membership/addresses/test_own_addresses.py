from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from proglog_trio.address import Address
from proglog_trio.errors import AddressUnavailable, AddressUnsuitable
from proglog_trio.membership.addresses.own_addresses import address_to_advertise, address_to_listen_on
from tests.members import node_inside

KNOWN = {
    "localhost": ["::1", "127.0.0.1"],
    "both.localhost": ["::1", "127.0.0.1"],
    "both.example": ["2001:db8::7", "192.0.2.7"],
    "six.example": ["2001:db8::7"],
    "debian.example": ["127.0.1.1"],
    "mixed.example": ["127.0.1.1", "192.0.2.7"],
}


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have some names stand for some addresses."""
    real = trio.socket.getaddrinfo

    async def getaddrinfo(
        host: str, port: int | None, family: int = 0, **others: int
    ) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
        if host not in KNOWN:
            return [*await real(host, port, family=family, **others)]
        families = [(socket.AF_INET6 if ":" in address else socket.AF_INET, address) for address in KNOWN[host]]
        return [
            (
                int(its),
                int(socket.SOCK_STREAM),
                0,
                "",
                (address, port or 0, *([0, 0] if its == socket.AF_INET6 else [])),
            )
            for its, address in families
            if family in (socket.AF_UNSPEC, its)
        ]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("localhost", "127.0.0.1"),
        ("both.example", "192.0.2.7"),
        ("six.example", "2001:db8::7"),
        ("mixed.example", "192.0.2.7"),
        ("127.0.1.1", "127.0.1.1"),
        ("::1", "::1"),
    ],
)
async def test_a_name_is_one_address(host: str, address: str) -> None:
    assert await address_to_listen_on(host) == address


async def test_what_others_cannot_reach_is_refused_with_the_reason() -> None:
    reason = r"debian\.example, is 127\.0\.1\.1 on this machine .*, which no other machine can reach"
    with pytest.raises(AddressUnsuitable, match=f"^the host of --bind-addr, {reason}"):
        await address_to_listen_on("debian.example")
    with pytest.raises(AddressUnsuitable, match=f"^the host of --advertise-addr, {reason}"):
        await address_to_advertise("debian.example", socket.AF_INET)
    assert await address_to_advertise("mixed.example", socket.AF_INET) == "192.0.2.7"


async def test_what_cannot_be_looked_up() -> None:
    with pytest.raises(
        AddressUnavailable, match=r"no\.such\.name\.invalid: the name cannot be looked up \(Name or"
    ) as raised:
        await address_to_listen_on("no.such.name.invalid")
    assert raised.value.may_pass
    with pytest.raises(AddressUnavailable, match=r"a\.\.b: that is no name that can be looked up$") as raised:
        await address_to_listen_on("a..b")
    assert not raised.value.may_pass


async def test_gossip_and_rpc_listen_on_the_same_address(tmp_path: Path) -> None:
    async with node_inside(tmp_path, "a", host="both.localhost") as node:
        host, _, port = node.address.rpartition(":")
        assert (host, node.gossip.rpartition(":")[0]) == ("both.localhost", "127.0.0.1")
        await (await trio.open_tcp_stream("127.0.0.1", int(port))).aclose()
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("::1", int(port))


async def test_others_are_told_the_ports_that_are_advertised(tmp_path: Path) -> None:
    gossip, rpc = Address("127.0.0.9", 18401), Address("proxy.example", 18400)
    async with node_inside(tmp_path, "a", advertise_addr=gossip, advertise_rpc_addr=rpc) as node:
        assert (node.gossip, node.address) == (str(gossip), str(rpc))
