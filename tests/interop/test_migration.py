"""Processes of nodes change from plain to encrypted gossip, step by step, with agents before and after."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from proglog_trio.membership.profile import ProfileName
from proglog_trio.membership.wire.keyring import encode_key
from tests.interop.agents import Agent, agent, free_port
from tests.membership.running import eventually
from tests.node_process import NodeProcess, node_process, run_command

pytestmark = pytest.mark.system

KEY = encode_key(bytes(range(32)))
PREPARED = ("--encrypt", KEY, "--no-verify-incoming", "--no-verify-outgoing")
ENCRYPTING = ("--encrypt", KEY, "--no-verify-incoming")
ENCRYPTED = ("--encrypt", KEY)
NAMES = ("a", "b", "c")


class Nodes:
    """Three nodes at addresses that stay, which are started again with other options one after the other."""

    def __init__(self, directory: Path, start_addresses: str) -> None:
        self.directory = directory
        self.ports = {name: free_port("127.0.0.1") for name in NAMES}
        own = ",".join(f"127.0.0.1:{port}" for port in self.ports.values())
        self.join = f"{own},{start_addresses}" if start_addresses else own
        self.running: dict[str, tuple[AsyncExitStack, NodeProcess]] = {}
        # What each saw of the members in any status but alive and left, all the time.
        self.failed: set[str] = set()

    async def start(self, name: str, *options: str, host: str = "127.0.0.1") -> None:
        if name in self.running:
            stack, process = self.running.pop(name)
            assert await process.stop() == 0
            await stack.aclose()
        stack = AsyncExitStack()
        process = await stack.enter_async_context(
            node_process(
                self.directory / name, "--node-name", name, "--bind-addr", f"{host}:{self.ports[name]}",
                "--start-join-addrs", self.join, "--gossip-profile", "local", "--log-level", "debug", *options,
            )
        )  # fmt: skip
        self.running[name] = (stack, process)

    async def members(self, name: str) -> Mapping[str, str]:
        code, out, errors = await run_command("members", "--addr", self.running[name][1].address, "--json")
        assert code == 0, errors
        seen = {member["name"]: member["status"] for member in json.loads(out)}
        self.failed |= {each for each, status in seen.items() if status == "failed"}
        return seen

    async def until_alive(self, *names: str) -> None:
        for observer in self.running:

            async def look(observer: str = observer) -> Mapping[str, str]:
                return await self.members(observer)

            await eventually(look, lambda seen: all(seen.get(name) == "alive" for name in names))

    async def status(self, name: str) -> dict[str, Any]:
        code, out, errors = await run_command("status", "--addr", self.running[name][1].address, "--json")
        assert code == 0, errors
        described: dict[str, Any] = json.loads(out)
        return described

    def logged_failures(self) -> list[str]:
        """Lines of any life of any node that say that a member is dead."""
        lines = [line for name in NAMES for line in (self.directory / f"{name}.stderr").read_text("utf-8").splitlines()]
        return [line for line in lines if json.loads(line).get("after") == "dead"]


@asynccontextmanager
async def nodes(directory: Path, start_addresses: str = "") -> AsyncIterator[Nodes]:
    """Give three nodes, which end with the block."""
    running = Nodes(directory, start_addresses)
    try:
        yield running
    finally:
        with trio.CancelScope(shield=True):
            for stack, _ in running.running.values():
                await stack.aclose()


@asynccontextmanager
async def plain_agent(directory: Path) -> AsyncIterator[Agent]:
    async with agent(directory, "x", profile=ProfileName.LOCAL) as running:
        yield running


async def test_three_nodes_and_an_agent_go_from_plain_to_encrypted(tmp_path: Path) -> None:
    """Agents know both states, and nothing in between: they are stopped while it lasts, and are back with the key."""
    async with nodes(tmp_path) as running:
        async with plain_agent(tmp_path) as x:
            for name in NAMES:
                await running.start(name)
            await x.command("join", f"127.0.0.1:{running.ports['a']}")
            await running.until_alive(*NAMES, "x")
            # Prepared nodes and agents are plain to each other: agents may stay for the first step.
            for name in NAMES:
                await running.start(name, *PREPARED)
                await running.until_alive(*NAMES, "x")
            await x.until_status("alive", *NAMES, "x")
            seen = await running.status("a")
            assert "what this node sends is not encrypted" in seen["unverified_gossip"]
            code, out, _ = await run_command("status", "--addr", running.running["a"][1].address)
            assert code == 0
            assert b"NOT PROTECTED BY ITS KEY" in out
            await x.command("leave")
            assert await x.ended() == 0
        for step in (ENCRYPTING, ENCRYPTED):
            for name in NAMES:
                await running.start(name, *step)
                await running.until_alive(*NAMES)
        assert (await running.status("a"))["unverified_gossip"] is None
        async with agent(tmp_path, "y", key=KEY) as y:
            await y.command("join", f"127.0.0.1:{running.ports['b']}")
            await running.until_alive(*NAMES, "y")
            await y.until_status("alive", *NAMES, "y")
            async with agent(tmp_path, "z") as z:
                refused = await z.try_command("join", f"127.0.0.1:{running.ports['a']}")
                assert refused.returncode != 0
        assert running.failed <= {"y"}
        assert [line for line in running.logged_failures() if '"member": "y"' not in line] == []


async def test_an_agent_with_the_key_is_a_member_of_nodes_that_encrypt(tmp_path: Path) -> None:
    """In the second step already, and it is so whoever of the two joins."""
    async with nodes(tmp_path) as running, agent(tmp_path, "y", key=KEY) as y:
        await running.start("a", *ENCRYPTING)
        await y.command("join", f"127.0.0.1:{running.ports['a']}")
        await running.start("b", *ENCRYPTING)
        await running.until_alive("a", "b", "y")
        await y.until_status("alive", "a", "b", "y")


async def test_a_node_takes_its_place_by_srv_records_allowed_networks_and_a_learnt_address(tmp_path: Path) -> None:
    from tests.membership.addresses.name_server import name_server

    async with name_server() as server, nodes(tmp_path) as running:
        await running.start("a")
        name = "_gossip._tcp.example.org"
        server.records = {
            (name, "SRV"): [f"0 0 {running.ports['a']} a.example.org."], ("a.example.org", "A"): ["127.0.0.1"],
        }  # fmt: skip
        running.join = name
        await running.start(
            "b", "--insecure", "--advertise-addr", "auto", "--name-servers",
            str(server.address), "--gossip-allowed-cidrs", "127.0.0.0/8,::1/128", host="0.0.0.0",  # noqa: S104 - what this is about
        )  # fmt: skip
        b = running.running["b"][1]
        assert b.gossip == f"127.0.0.1:{running.ports['b']}"
        assert b.address.startswith("127.0.0.1:")
        await running.until_alive("a", "b")


async def test_a_node_that_may_not_be_where_it_is_does_not_start(tmp_path: Path) -> None:
    code, _, errors = await run_command(
        "node", "--data-dir", str(tmp_path / "d"), "--bind-addr", "127.0.0.1:0", "--rpc-port", "0",
        "--gossip-allowed-cidrs", "10.0.0.0/8", "--start-timeout", "0",
    )  # fmt: skip
    assert code not in (0, 1)
    assert "own address, 127.0.0.1, is in none of the networks" in errors
