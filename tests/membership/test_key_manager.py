from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from proglog_trio.membership.key_manager import KeyAnswers, KeysNotAsked
from proglog_trio.membership.serf.keys import KeyOperation, refusal
from proglog_trio.membership.serf.open_queries import MAX_QUERIES, Listener
from proglog_trio.membership.serf.querying import Question
from proglog_trio.membership.wire.serf import Join, encode_serf
from tests.membership.running import Ours, start_ours_in

OLD = "AAECAwQFBgcICQoLDA0ODw=="
NEW = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="


async def ask(ours: Ours, operation: KeyOperation, key: str = "") -> KeyAnswers:
    assert ours.membership.gossip.keys is not None
    with trio.fail_after(60):
        return await ours.membership.gossip.keys.ask(operation, key)


async def test_two_of_ours_rotate() -> None:
    async with start_ours_in() as start:
        a = await start("a", key=OLD)
        b = await start("b", key=OLD, join=[a.address])
        await a.until_status("alive", "a", "b")
        for ours, operation, key in (
            (a, KeyOperation.INSTALL, NEW),
            (b, KeyOperation.USE, NEW),
            (a, KeyOperation.REMOVE, OLD),
        ):
            assert await ask(ours, operation, key) == KeyAnswers(done=["a", "b"])
        found = await ask(b, KeyOperation.LIST)
        assert (found.done, set(found.holders), set(found.primary_of)) == (["a", "b"], {NEW}, {NEW})
        for ours in (a, b):
            assert ours.membership.gossip.keyring is not None
            assert ours.membership.gossip.keyring.to_base64() == [NEW]


async def test_who_does_not_answer_is_named() -> None:
    async with start_ours_in() as start:
        a = await start("a", key=OLD)
        b = await start("b", key=OLD, join=[a.address])
        await a.until_status("alive", "a", "b")
        await b.crash()
        answers = await ask(a, KeyOperation.INSTALL, NEW)
        assert (answers.done, answers.problems, answers.silent) == (["a"], {}, ["b"])


async def test_who_has_failed_is_named() -> None:
    async with start_ours_in() as start:
        a = await start("a", key=OLD)
        b = await start("b", key=OLD, join=[a.address])
        await a.until_status("alive", "a", "b")
        await b.crash()
        await a.until_status("failed", "b")
        for operation in (KeyOperation.INSTALL, KeyOperation.USE):
            answers = await ask(a, operation, NEW)
            assert (answers.done, answers.silent) == (["a"], [])
            assert answers.problems == {
                "b": "it has failed, and cannot be asked: it comes back with the keys that it had"
            }


async def test_without_a_keyring_there_is_no_manager() -> None:
    async with start_ours_in() as start:
        assert (await start("a")).membership.gossip.keys is None


async def test_no_more_questions_than_allowed() -> None:
    async with start_ours_in() as start:
        a = await start("a", key=OLD)
        core = a.membership.gossip.core
        for _ in range(MAX_QUERIES):
            core.querying.ask(Question(name="name"), Listener(lambda *_: None, lambda: None))
        with pytest.raises(KeysNotAsked, match="wait for answers already"):
            await ask(a, KeyOperation.LIST)
        with pytest.raises(ValueError, match="no base64 text"):
            await ask(a, KeyOperation.USE, "nonsense!")


def test_answers_that_make_no_sense_are_problems() -> None:
    answers = KeyAnswers()
    answers.add("a", b"")
    answers.add("b", encode_serf(Join(ltime=1, node="b")))
    answers.add("c", refusal(""))
    assert answers.done == []
    assert set(answers.problems) == {"a", "b", "c"}
    assert answers.problems["b"] == "its answer is no key response"


async def test_keys_are_not_in_what_is_shown(tmp_path: Path) -> None:
    async with start_ours_in() as start:
        a = await start("a", key=OLD)
        found = await ask(a, KeyOperation.LIST)
        assert OLD not in repr(found)
        assert OLD not in repr(a.membership.gossip.config)


async def test_who_asks_is_not_kept_when_the_node_stops() -> None:
    async with start_ours_in() as start:
        a = await start("a", key=OLD)
        b = await start("b", key=OLD, join=[a.address])
        await a.until_status("alive", "a", "b")
        await b.crash()
        found: list[KeyAnswers] = []

        async def ask_and_note() -> None:
            found.append(await ask(a, KeyOperation.LIST))

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask_and_note)
                await trio.testing.wait_all_tasks_blocked()
                await a.crash()
        assert found[0].silent[-1:] == ["b"]
        with pytest.raises(KeysNotAsked, match="not gossip any more"):
            await ask(a, KeyOperation.LIST)
