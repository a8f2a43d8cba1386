"""Keys are rotated in a cluster of agents and members of ours, by either side, and nobody is lost."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import trio

from proglog_trio.membership.key_manager import KeyAnswers
from proglog_trio.membership.serf.keys import KeyOperation
from proglog_trio.membership.wire.keyring import decode_key
from tests.interop.agents import Agent
from tests.interop.cluster import ALL, Cluster, cluster
from tests.interop.settings import Setting
from tests.interop.test_keys import generated_key
from tests.membership.running import Ours, eventually

pytestmark = pytest.mark.system


async def ask(ours: Ours, operation: KeyOperation, key: str = "") -> KeyAnswers:
    """Have one of ours ask everybody."""
    keys = ours.membership.gossip.keys
    assert keys is not None
    return await keys.ask(operation, key)


async def by_agent(agent: Agent, option: str) -> str:
    """Run a key command of an agent, and return what it says.

    Until everybody has answered: gossip reaches nearly everybody, and agents do not ask those again that are silent.
    """

    async def run() -> tuple[int, str]:
        result = await agent.try_command("keys", option)
        return result.returncode, (result.stdout + result.stderr).decode()

    return (await eventually(run, lambda done: done[0] == 0))[1]


async def only_key(running: Cluster, key: str) -> None:
    """Check that everybody has one key alone, as both sides see it."""
    found = await ask(running.b, KeyOperation.LIST)
    assert (sorted(found.done), found.problems, found.silent) == (sorted(ALL), {}, [])
    assert {each: sorted(names) for each, names in found.holders.items()} == {key: sorted(ALL)}
    assert {each: sorted(names) for each, names in found.primary_of.items()} == {key: sorted(ALL)}
    listed = await by_agent(running.y, "-list")
    assert f"[{len(ALL)}/{len(ALL)}]" in listed
    assert key in listed
    for ours in (running.a, running.b):
        assert ours.membership.gossip.keyring is not None
        assert ours.membership.gossip.keyring.keys == (decode_key(key),)


async def nobody_was_lost(running: Cluster) -> None:
    """Check that everybody sees everybody, and that nobody ever saw somebody fail."""
    await running.all_see("alive", *ALL)
    for ours in (running.a, running.b):
        assert ours.membership.gossip.core.swim.rules.counters.declared_dead == 0
    for agent in (running.x, running.y, running.z):
        assert "EventMemberFailed" not in agent.log


async def test_rotation_by_either_side(tmp_path: Path, setting: Setting) -> None:
    first, second, third = [await generated_key() for _ in range(3)]
    async with cluster(tmp_path, setting, key=first) as running:
        # by ours, each step asked for by another
        for ours, operation, key in (
            (running.a, KeyOperation.INSTALL, second),
            (running.b, KeyOperation.USE, second),
            (running.a, KeyOperation.REMOVE, first),
        ):
            answers = await ask(ours, operation, key)
            assert (answers.done, answers.problems, answers.silent) == (sorted(ALL), {}, [])
        await only_key(running, second)
        # by the serf command
        for agent, option, key in (
            (running.x, "install", third),
            (running.y, "use", third),
            (running.z, "remove", second),
        ):
            await by_agent(agent, f"-{option}={key}")
        await only_key(running, third)
        await nobody_was_lost(running)


async def test_what_agents_refuse_is_told_and_what_we_refuse_is_told_to_them(tmp_path: Path, setting: Setting) -> None:
    key, other = await generated_key(), await generated_key()
    async with cluster(tmp_path, setting, key=key) as running:
        answers = await ask(running.a, KeyOperation.USE, other)
        assert answers.done == []
        assert set(answers.problems) == set(ALL)
        answers = await ask(running.a, KeyOperation.REMOVE, key)
        assert set(answers.problems) == set(ALL)
        refused = await running.x.try_command("keys", f"-use={other}")
        assert refused.returncode == 1
        said = (refused.stdout + refused.stderr).decode()
        for name in ("a", "b"):
            assert f"failed: {name} the key is not in the keyring" in " ".join(said.split()), said
        await only_key(running, key)


async def test_an_agent_with_an_old_key_takes_part_until_it_is_removed(tmp_path: Path, setting: Setting) -> None:
    old, new = await generated_key(), await generated_key()
    async with cluster(tmp_path, setting, key=old) as running:
        assert not (await ask(running.a, KeyOperation.INSTALL, new)).problems
        assert not (await ask(running.a, KeyOperation.USE, new)).problems
        # One that comes with the old key encrypts with it, and is understood; it does not understand the others.
        async with running.agent("late", key=old) as late:
            assert (await late.try_command("join", str(running.a.address))).returncode != 0
        # One that has both is in.
        keyring = tmp_path / "both.json"
        keyring.write_text(f'["{old}", "{new}"]')
        async with running.agent("both", f"-keyring-file={keyring}", join=[running.b.address], key=None) as both:
            await running.all_see("alive", "both", by=(running.a, running.b, both))
            answers = await ask(running.b, KeyOperation.LIST)
            assert sorted(answers.done) == sorted((*ALL, "both"))
            # Which of them it encrypts with depends on whether the query of before still went round when it came.
            assert sorted(answers.holders[old]) == sorted(answers.holders[new]) == sorted((*ALL, "both"))


async def test_a_key_of_each_length(tmp_path: Path, setting: Setting) -> None:
    key = await generated_key()
    async with cluster(tmp_path, setting, key=key) as running:
        for length in (16, 24, 32):
            fresh = base64.b64encode(bytes(range(length))).decode()
            answers = await ask(running.a, KeyOperation.INSTALL, fresh)
            # Agents of this version take keys of every length, too.
            assert answers.problems == {}, fresh
        with trio.fail_after(60):
            found = await ask(running.b, KeyOperation.LIST)
        assert all(len(names) == len(ALL) for names in found.holders.values())
        assert len(found.holders) == 4
