"""A cluster's nodes, found by DNS at one of them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import dns.message
import pytest
import trio

from proglog_trio.address import Address
from proglog_trio.node.config import ConfigError, NodeConfig
from tests.dns.support import asked, contents
from tests.members import NodeInside, node_inside
from tests.node_process import node_process

SECONDS = 30
HERE = Address("127.0.0.1", 0)


async def ask(address: Address, name: str, kind: str = "A") -> dns.message.Message:
    with trio.fail_after(SECONDS), trio.socket.socket(type=socket.SOCK_DGRAM) as client:
        await client.connect((address.host, address.port))
        await client.send(asked(name, kind))
        return dns.message.from_wire(await client.recv(65_535))


async def until(node: NodeInside, name: str, expected: set[str], kind: str = "A") -> None:
    assert node.running.dns_address is not None
    with trio.fail_after(SECONDS):
        while contents(await ask(node.running.dns_address, name, kind)) != expected:  # noqa: ASYNC110 - asked of a node
            await trio.sleep(0.02)


async def test_a_cluster_is_found_while_nodes_come_and_go(tmp_path: Path) -> None:
    options: dict[str, Any] = {"dns_addr": HERE, "cluster_name": "blue", "dns_ttl": 0}
    async with node_inside(tmp_path / "a", "a", **options) as a:
        assert a.running.dns_address is not None
        # as soon as it says that it is there
        first = await ask(a.running.dns_address, "a.node.blue.proglog", "SRV")
        assert contents(first) == {f"0 0 {a.running.rpc_address.port} a.node.blue.proglog."}
        assert first.answer[0].ttl == 0
        async with node_inside(tmp_path / "b", "b", join=a.gossip, host="127.0.0.2", **options) as b:
            for node in (a, b):
                await until(node, "blue.proglog", {"127.0.0.1", "127.0.0.2"})
                await until(node, "b.node.blue.proglog", {"127.0.0.2"})
        await until(a, "blue.proglog", {"127.0.0.1"})
        await until(a, "b.node.blue.proglog", set())


async def test_a_host_name_that_is_advertised_is_looked_up(tmp_path: Path) -> None:
    options: dict[str, Any] = {"dns_addr": HERE, "cluster_name": "blue", "advertise_rpc_addr": Address("localhost", 0)}
    async with node_inside(tmp_path / "a", "a", **options) as a:
        await until(a, "a.node.blue.proglog", {"127.0.0.1"})


async def test_a_process_says_where_it_answers_and_counts(tmp_path: Path) -> None:
    arguments = ("--dns-addr", "127.0.0.1:0", "--dns-ttl", "5s", "--metrics-addr", "127.0.0.1:0", "--node-name", "a")
    async with node_process(tmp_path / "a", *arguments) as node:
        answer = await ask(Address.parse(node.ready["dns_addr"]), "proglog.proglog")
        assert contents(answer) == {"127.0.0.1"}
        assert answer.answer[0].ttl == 5
        metrics = Address.parse(node.ready["metrics_addr"])
        async with await trio.open_tcp_stream(metrics.host, metrics.port) as stream:
            await stream.send_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
            figures = b"".join([data async for data in stream])
        assert b"proglog_dns_answered_total 1.0" in figures
        assert b"proglog_dns_nodes 1.0" in figures
        assert await node.stop() == 0


def test_a_cluster_whose_name_cannot_be_asked_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="'two words' has ' ', which no host name has: choose another --cluster-name"):
        NodeConfig(cluster_name="two words", dns_addr=HERE)
    NodeConfig(cluster_name="two words")
