"""`tags`, `rtt`, `info` and what `members` shows besides: with nodes in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.membership import GossipConfig
from proglog_trio.membership.opening import bind_membership
from tests.members import WAIT_SECONDS, HasAddress, members, node_inside, statuses, wait_for
from tests.membership.running import LOCAL
from tests.node_process import run_command

OWN = {"cluster_name", "directory_id", "opening", "rpc_addr", "version"}


async def answer(node: HasAddress, *arguments: str) -> Any:
    code, output, errors = await run_command(*arguments, "--addr", node.address, "--json")
    assert code == ExitCode.DONE, errors
    return json.loads(output)


async def lines(node: HasAddress, *arguments: str) -> list[str]:
    code, output, errors = await run_command(*arguments, "--addr", node.address)
    assert code == ExitCode.DONE, errors
    return output.decode().splitlines()


async def refusal(node: HasAddress, *arguments: str) -> str:
    code, output, errors = await run_command(*arguments, "--addr", node.address)
    assert (code, output) == (ExitCode.FAILED, b"")
    return errors


def of_users(tags: dict[str, str]) -> dict[str, str]:
    return {name: content for name, content in tags.items() if name not in OWN}


async def until_tags(node: HasAddress, name: str, wanted: dict[str, str]) -> None:
    await wait_for(node, lambda found: name in found and of_users(found[name]["tags"]) == wanted)


@pytest.mark.system
async def test_tags_are_changed_and_kept_over_a_restart(tmp_path: Path) -> None:
    given = (("role", "web"), ("zone", "1"))
    async with node_inside(tmp_path / "a", "a") as a:
        async with node_inside(tmp_path / "b", "b", join=a.gossip, tag=given) as b:
            await until_tags(a, "b", dict(given))
            assert await lines(b, "tags", "--set", "role=db,note=x,y", "--set", "rack=7", "--delete", "zone") == [
                line for line in await lines(b, "tags") if not line.startswith("zone")
            ]
            changed = {"role": "db", "note": "x,y", "rack": "7"}
            assert of_users(await answer(b, "tags")) == changed
            assert {*await answer(b, "tags")} == {*changed, *OWN}
            await until_tags(a, "b", changed)

            before = await members(b)
            assert "rpc_addr" in await refusal(b, "tags", "--set", "rpc_addr=elsewhere:1", "--set", "rack=8")
            assert "more than 512: " in await refusal(b, "tags", "--set", f"note={'x' * 500}")
            assert "what the node itself tells" in await refusal(b, "tags", "--delete", "cluster_name")
            assert await members(b) == before
            assert json.loads((tmp_path / "b" / "tags").read_text()) == {**changed, "zone": None}
        await wait_for(a, statuses(a="alive", b="left"))
        async with node_inside(tmp_path / "b", "b", join=a.gossip, tag=(*given, ("new", "1"))):
            # What it is given counts only for what was not changed.
            await until_tags(a, "b", {**changed, "new": "1"})


@pytest.mark.system
async def test_no_tag_is_obeyed_by_a_terminal(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a", tag=(("note", "x\x1b[2J\ny"),)) as a:
        (line,) = await lines(a, "members")
        assert r"note=x\x1b[2J\ny" in line
        assert r"note=x\x1b[2J\ny" in await lines(a, "tags")
        assert r"x\x1b[2J\ny" in "".join(await lines(a, "info"))
        assert of_users(await answer(a, "tags")) == {"note": "x\x1b[2J\ny"}


@pytest.mark.system
async def test_bytes_that_are_no_text_are_a_mistake_of_the_user(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a") as a:
        for arguments in (("tags", "--set", "note=\udcff"), ("rtt", "\udcff"), ("query", "\udcff")):
            code, output, errors = await run_command(*arguments, "--addr", a.address)
            assert (code, output) == (ExitCode.USAGE, b"")
            assert errors == "proglog-trio: an argument has bytes that are no UTF-8 text\n"


async def test_what_cannot_be_written_down_is_said_and_not_told(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a") as a:
        (tmp_path / "a" / "tags").mkdir()
        assert "the tags cannot be written to" in await refusal(a, "tags", "--set", "role=db")
        assert of_users(await answer(a, "tags")) == {}


async def until_placed(node: HasAddress, names: Sequence[str]) -> dict[str, Any]:
    """Wait until a node knows where these members are; return what it says of all."""
    with trio.fail_after(WAIT_SECONDS):
        while True:
            found = {each["name"]: each for each in await answer(node, "members")}
            if all(found[name]["coordinate"] is not None for name in names):
                return found
            await trio.sleep(0.2)


@pytest.mark.system
async def test_how_far_members_are(tmp_path: Path) -> None:
    async with (
        node_inside(tmp_path / "a", "a") as a,
        node_inside(tmp_path / "b", "b", join=a.gossip) as b,
    ):
        await wait_for(a, statuses(a="alive", b="alive"))
        found = await until_placed(a, "ab")
        assert [len(found[name]["coordinate"]["vec"]) for name in "ab"] == [8, 8]
        rtt = await answer(a, "rtt", "b")
        assert (rtt["one"], rtt["other"]) == ("b", "a")
        assert 0 < rtt["seconds"] < 1
        assert (await answer(a, "rtt", "a", "b"))["other"] == "b"
        (line,) = await lines(b, "rtt", "b", "b")
        assert line.startswith("about 0.")
        assert line.endswith("ms from b to b and back")
        assert "no member named 'nobody' is known" in await refusal(a, "rtt", "nobody")
        # A member that answers no probe says nothing of where it is.
        silent = await bind_membership(GossipConfig(name="c", profile=LOCAL), {})
        await silent.close()
        assert "'c'" in await refusal(a, "rtt", "a", "c")


async def test_what_members_speak(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a") as a:
        (line,) = await lines(a, "members", "--detailed")
        assert line.split()[:4] == ["a", a.gossip, "alive", "serf"]
        assert "serf 4 of 2 to 5  memberlist 2 of 1 to 5  cluster_name=" in line
        (described,) = await answer(a, "members")
        assert described["versions"] == {
            "protocol_min": 1, "protocol_max": 5, "protocol_current": 2,
            "delegate_min": 2, "delegate_max": 5, "delegate_current": 4,
        }  # fmt: skip


async def test_a_nodes_own_figures(tmp_path: Path) -> None:
    async with (
        node_inside(tmp_path / "a", "a") as a,
        node_inside(tmp_path / "b", "b", join=a.gossip, tag=(("role", "web"),)) as b,
    ):
        await wait_for(b, statuses(a="alive", b="alive"))
        info = await answer(b, "info")
        assert {*info} == {"agent", "runtime", "serf", "tags"}
        assert info["agent"] == {"name": "b", "address": b.gossip}
        assert info["tags"]["role"] == "web"
        assert (info["serf"]["members"], info["serf"]["alive"], info["serf"]["failed"]) == (2, 2, 0)
        assert (info["serf"]["encrypted"], info["serf"]["health_score"]) == ("false", 0)
        shown = await lines(b, "info")
        assert "agent" in shown
        assert any(line.split() == ["encrypted", "false"] for line in shown)
