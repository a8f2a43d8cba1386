"""Several real nodes that find each other, and the commands that show and change their cluster."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio

from proglog_trio._proto.log.v1 import GetServersResponse
from proglog_trio.cli.exit_codes import ExitCode
from tests.node_process import NodeProcess, node_process, run_command

# Quick gossip, and a rejoining that need not be waited for.
LOCAL = ("--gossip-profile", "local")
KEY = "AAECAwQFBgcICQoLDA0ODw=="
OTHER_KEY = "DwECAwQFBgcICQoLDA0ODw=="
WAIT_SECONDS = 60


async def members(node: NodeProcess) -> dict[str, dict[str, Any]]:
    """What `members --json` shows, by name."""
    code, output, errors = await run_command("members", "--addr", node.address, "--json")
    assert code == ExitCode.DONE, errors
    listed = json.loads(output)
    assert all({"name", "address", "port", "status", "tags"} <= set(each) for each in listed)
    return {each["name"]: each for each in listed}


async def wait_for(node: NodeProcess, wanted: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, dict[str, Any]]:
    """Ask a node for its members until they are as wanted."""
    with trio.fail_after(WAIT_SECONDS):
        while not wanted(found := await members(node)):
            await trio.lowlevel.checkpoint()
    return found


def statuses(**wanted: str) -> Callable[[dict[str, dict[str, Any]]], bool]:
    return lambda found: {name: each["status"] for name, each in found.items()} == wanted


def gossip(node: NodeProcess) -> str:
    address = node.ready["gossip_addr"]
    assert isinstance(address, str)
    return address


async def test_nodes_find_each_other_and_leave(tmp_path: Path) -> None:
    async with (
        node_process(tmp_path / "a", "--node-name", "a", *LOCAL) as a,
        node_process(tmp_path / "b", "--node-name", "b", "--start-join-addrs", gossip(a), *LOCAL) as b,
        node_process(tmp_path / "c", "--node-name", "c", "--start-join-addrs", gossip(b), *LOCAL) as c,
    ):
        for node in (a, b, c):
            found = await wait_for(node, statuses(a="alive", b="alive", c="alive"))
            assert found["b"]["tags"]["rpc_addr"] == b.address
            assert {"cluster_name", "directory_id", "version"} <= set(found["a"]["tags"])
        assert await trio.to_thread.run_sync(servers, c.address) == {"a": a.address, "b": b.address, "c": c.address}

        assert await c.stop() == ExitCode.DONE  # SIGTERM: it leaves
        await wait_for(a, statuses(a="alive", b="alive", c="left"))
        code, _, errors = await run_command("leave", "--addr", b.address)
        assert (code, errors) == (ExitCode.DONE, "left\n")
        with trio.fail_after(WAIT_SECONDS):
            assert await b.process.wait() == ExitCode.DONE
        await wait_for(a, statuses(a="alive", b="left", c="left"))
        assert await trio.to_thread.run_sync(servers, a.address) == {"a": a.address}


def servers(address: str) -> dict[str, str]:
    """What GetServers says to a foreign client."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/log.v1.Log/GetServers", request_serializer=bytes, response_deserializer=bytes)
        answer = GetServersResponse.parse(call(b"", timeout=10))
    assert all(server.is_leader for server in answer.servers)
    return {server.id: server.rpc_addr for server in answer.servers}


async def test_a_killed_node_fails_is_forced_to_leave_and_comes_back(tmp_path: Path) -> None:
    async with node_process(tmp_path / "a", "--node-name", "a", *LOCAL) as a:
        async with node_process(tmp_path / "b", "--node-name", "b", "--start-join-addrs", gossip(a), *LOCAL) as b:
            await wait_for(a, statuses(a="alive", b="alive"))
            address = gossip(b)
            b.kill()
            await wait_for(a, statuses(a="alive", b="failed"))
        code, _, errors = await run_command("force-leave", "b", "--addr", a.address)
        assert code == ExitCode.DONE, errors
        await wait_for(a, statuses(a="alive", b="left"))
        options = ("--node-name", "b", "--bind-addr", address, "--start-join-addrs", gossip(a), *LOCAL)
        async with node_process(tmp_path / "b", *options) as b:
            await wait_for(a, statuses(a="alive", b="alive"))
            await wait_for(b, statuses(a="alive", b="alive"))


async def test_without_leaving_a_stopped_node_has_failed(tmp_path: Path) -> None:
    async with node_process(tmp_path / "a", "--node-name", "a", *LOCAL) as a:
        options = ("--node-name", "b", "--start-join-addrs", gossip(a), "--no-leave-on-terminate", *LOCAL)
        async with node_process(tmp_path / "b", *options) as b:
            await wait_for(a, statuses(a="alive", b="alive"))
            assert await b.stop() == ExitCode.DONE
            await wait_for(a, statuses(a="alive", b="failed"))


async def test_join_command_makes_two_clusters_one(tmp_path: Path) -> None:
    async with (
        node_process(tmp_path / "a", "--node-name", "a", *LOCAL) as a,
        node_process(tmp_path / "b", "--node-name", "b", *LOCAL) as b,
    ):
        assert set(await members(a)) == {"a"}
        code, _, errors = await run_command("join", gossip(b), "--addr", a.address)
        assert (code, errors) == (ExitCode.DONE, "joined through 1 of 1\n")
        await wait_for(b, statuses(a="alive", b="alive"))
        code, output, _ = await run_command("members", "--addr", b.address)
        assert code == ExitCode.DONE
        assert [line.split()[:3] for line in output.decode().splitlines()] == [
            ["a", gossip(a), "alive"],
            ["b", gossip(b), "alive"],
        ]


async def test_a_taken_name_ends_a_node_unseen(tmp_path: Path) -> None:
    async with node_process(tmp_path / "a", "--node-name", "a", *LOCAL) as a:
        options = ("--data-dir", str(tmp_path / "b"), "--rpc-port", "0", "--bind-addr", "127.0.0.1:0")
        code, output, errors = await run_command(
            "node", *options, "--node-name", "a", "--start-join-addrs", gossip(a), PROGLOG_LOG_LEVEL="error"
        )
        assert (code, output) == (ExitCode.USAGE, b"")
        assert errors == (
            f"proglog-trio: the cluster has a member named 'a' already, at {gossip(a)}: give this node another name\n"
        )
        assert set(await members(a)) == {"a"}


async def test_a_wrong_key_keeps_a_node_out(tmp_path: Path) -> None:
    async with node_process(tmp_path / "a", "--node-name", "a", "--encrypt", KEY, *LOCAL) as a:
        joining = ("--start-join-addrs", gossip(a), *LOCAL)
        async with (
            node_process(tmp_path / "b", "--node-name", "b", *joining, PROGLOG_ENCRYPT=KEY),
            node_process(tmp_path / "c", "--node-name", "c", *joining, PROGLOG_ENCRYPT=OTHER_KEY) as c,
            node_process(tmp_path / "d", "--node-name", "d", *joining) as d,
        ):
            await wait_for(a, statuses(a="alive", b="alive"))
            for outsider in (c, d):
                code, _, errors = await run_command("join", gossip(a), "--addr", outsider.address)
                assert code == ExitCode.FAILED
                assert "no member answered" in errors
            assert set(await members(a)) == {"a", "b"}
            assert set(await members(c)) == {"c"}
            assert set(await members(d)) == {"d"}
            assert KEY not in a.logged()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("join", "127.0.0.1:1"), ExitCode.FAILED, "no member answered"),
        (("join", "nonsense:port"), ExitCode.FAILED, "has no valid port"),
        (("force-leave", "nobody"), ExitCode.FAILED, "no member named 'nobody' is known"),
        (("force-leave", "a"), ExitCode.FAILED, "is this node itself"),
    ],
)
async def test_commands_that_cannot_be_done(
    arguments: tuple[str, ...], code: ExitCode, message: str, tmp_path: Path
) -> None:
    async with node_process(tmp_path / "a", "--node-name", "a", *LOCAL) as a:
        ended, _, errors = await run_command(*arguments, "--addr", a.address)
        assert ended == code
        assert message in errors
        assert len(errors.splitlines()) == 1


async def test_members_of_a_node_that_is_not_there() -> None:
    code, _, errors = await run_command("members", "--addr", "127.0.0.1:1")
    assert code == ExitCode.UNREACHABLE
    assert "127.0.0.1:1" in errors
