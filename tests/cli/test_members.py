"""Several real nodes that find each other, and the commands that show and change their cluster."""

import json
from pathlib import Path

import grpc
import pytest
import trio

from proglog_trio._proto.log.v1 import GetServersResponse
from proglog_trio.cli.exit_codes import ExitCode
from tests.members import WAIT_SECONDS, members, node_inside, statuses, wait_for
from tests.node_process import node_process, run_command

# Quick gossip, and a rejoining that need not be waited for.
LOCAL = ("--gossip-profile", "local")
KEY = "AAECAwQFBgcICQoLDA0ODw=="
OTHER_KEY = "DwECAwQFBgcICQoLDA0ODw=="


@pytest.mark.system
async def test_nodes_find_each_other_and_leave(tmp_path: Path) -> None:
    async with (
        node_process(tmp_path / "a", "--node-name", "a", *LOCAL) as a,
        node_process(tmp_path / "b", "--node-name", "b", "--start-join-addrs", a.gossip, *LOCAL) as b,
        node_process(tmp_path / "c", "--node-name", "c", "--start-join-addrs", b.gossip, *LOCAL) as c,
    ):
        for node in (a, b, c):
            found = await wait_for(node, statuses(a="alive", b="alive", c="alive"))
            assert found["b"]["tags"]["rpc_addr"] == b.address
            assert {"cluster_name", "directory_id", "version"} <= set(found["a"]["tags"])
        code, output, errors = await run_command("members", "--addr", c.address, "--json")
        assert code == ExitCode.DONE, errors
        listed = {each["name"]: each for each in json.loads(output)}
        assert {name: {key: each[key] for key in ("status", "tags")} for name, each in listed.items()} == found
        assert {name: f"{each['address']}:{each['port']}" for name, each in listed.items()} == {
            "a": a.gossip,
            "b": b.gossip,
            "c": c.gossip,
        }
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


@pytest.mark.system
async def test_a_killed_node_fails_is_forced_to_leave_and_comes_back(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a") as a:
        async with node_process(tmp_path / "b", "--node-name", "b", "--start-join-addrs", a.gossip, *LOCAL) as b:
            await wait_for(a, statuses(a="alive", b="alive"))
            address = b.gossip
            b.kill()
            await wait_for(a, statuses(a="alive", b="failed"))
        code, _, errors = await run_command("force-leave", "b", "--addr", a.address)
        assert code == ExitCode.DONE, errors
        await wait_for(a, statuses(a="alive", b="left"))
        options = ("--node-name", "b", "--bind-addr", address, "--start-join-addrs", a.gossip, *LOCAL)
        async with node_process(tmp_path / "b", *options) as b:
            await wait_for(a, statuses(a="alive", b="alive"))
            await wait_for(b, statuses(a="alive", b="alive"))


@pytest.mark.system
async def test_without_leaving_a_stopped_node_has_failed(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a") as a:
        options = ("--node-name", "b", "--start-join-addrs", a.gossip, "--no-leave-on-terminate", *LOCAL)
        async with node_process(tmp_path / "b", *options) as b:
            await wait_for(a, statuses(a="alive", b="alive"))
            assert await b.stop() == ExitCode.DONE
            await wait_for(a, statuses(a="alive", b="failed"))


async def test_join_command_makes_two_clusters_one(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a") as a, node_inside(tmp_path / "b", "b") as b:
        assert set(await members(a)) == {"a"}
        code, _, errors = await run_command("join", b.gossip, "--addr", a.address)
        assert (code, errors) == (ExitCode.DONE, "joined through 1 of 1\n")
        await wait_for(b, statuses(a="alive", b="alive"))
        code, output, _ = await run_command("members", "--addr", b.address)
        assert code == ExitCode.DONE
        assert [line.split()[:3] for line in output.decode().splitlines()] == [
            ["a", a.gossip, "alive"],
            ["b", b.gossip, "alive"],
        ]


async def test_a_taken_name_ends_a_node_unseen(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a") as a:
        options = ("--data-dir", str(tmp_path / "b"), "--rpc-port", "0", "--bind-addr", "127.0.0.1:0")
        code, output, errors = await run_command(
            "node",
            *options,
            "--node-name",
            "a",
            "--start-join-addrs",
            a.gossip,
            PROGLOG_LOG_LEVEL="error",
            PROGLOG_START_TIMEOUT="0",
        )
        assert (code, output) == (ExitCode.NAME_HELD, b"")
        assert errors == (
            f"proglog-trio: the cluster has a member named 'a' already, at {a.gossip}: "
            "give this node another name, or stop that one\n"
        )
        assert set(await members(a)) == {"a"}


async def test_a_wrong_key_keeps_a_node_out(tmp_path: Path) -> None:
    # Nodes that do get in and do not: tests/security/test_gossip_matrix.py.
    async with (
        node_process(tmp_path / "a", "--node-name", "a", *LOCAL, PROGLOG_ENCRYPT=KEY) as a,
        node_inside(tmp_path / "b", "b", join=a.gossip, encrypt=KEY),
        node_inside(tmp_path / "c", "c", join=a.gossip, encrypt=OTHER_KEY) as c,
        node_inside(tmp_path / "d", "d", join=a.gossip) as d,
    ):
        await wait_for(a, statuses(a="alive", b="alive"))
        for outsider in (c, d):
            code, _, errors = await run_command("join", a.gossip, "--addr", outsider.address)
            assert code == ExitCode.FAILED
            assert "no member answered" in errors
        assert set(await members(a)) == {"a", "b"}
        assert set(await members(c)) == {"c"}
        assert set(await members(d)) == {"d"}
        assert KEY not in a.logged()


async def test_commands_that_cannot_be_done(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a") as a:
        for arguments, message in (
            (("join", "127.0.0.1:1"), "no member answered"),
            (("join", "nonsense:port"), "has no valid port"),
            (("force-leave", "nobody"), "no member named 'nobody' is known"),
            (("force-leave", "a"), "is this node itself"),
        ):
            code, _, errors = await run_command(*arguments, "--addr", a.address)
            assert code == ExitCode.FAILED, arguments
            assert message in errors
            assert len(errors.splitlines()) == 1
        assert set(await members(a)) == {"a"}


async def test_members_of_a_node_that_is_not_there() -> None:
    code, _, errors = await run_command("members", "--addr", "127.0.0.1:1")
    assert code == ExitCode.UNREACHABLE
    assert "127.0.0.1:1" in errors
