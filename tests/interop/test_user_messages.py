"""Events and queries between members of ours and agents, both ways."""

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from proglog_trio.membership import AskedQuery, MemberEvent, QueryAcknowledgement, QueryAnswer, UserEvent
from proglog_trio.membership.profile import ProfileName
from tests.interop.agents import Agent
from tests.interop.cluster import all_of
from tests.interop.settings import Setting
from tests.membership.running import EVENTUALLY_SECONDS, LAN, Ours

pytestmark = pytest.mark.system

LARGEST = 9 * 1024
LIMITS = {"user_event_size_limit": LARGEST, "query_size_limit": LARGEST, "query_response_size_limit": LARGEST}


async def hello(query: AskedQuery) -> bytes:
    return b"hello " + query.source.encode() + b" " + query.payload


async def user_event(events: AsyncIterator[MemberEvent | UserEvent | AskedQuery], name: str) -> UserEvent:
    async for event in events:
        if isinstance(event, UserEvent) and event.name == name:
            return event
    raise AssertionError("the events have ended")


async def answered(ours: Ours, name: str, payload: bytes = b"", **options: object) -> tuple[dict[str, bytes], set[str]]:
    """Ask, and return the answers by member and who has acknowledged."""
    answers: dict[str, bytes] = {}
    acknowledged: set[str] = set()
    async for answer in ours.membership.query(name, payload, **options):  # type: ignore[arg-type]  # query's own
        match answer:
            case QueryAcknowledgement(member):
                acknowledged.add(member)
            case QueryAnswer(member, content):
                answers[member] = content
    return answers, acknowledged


async def asked_until(
    wanted: set[str], ours: Ours, name: str, payload: bytes = b"", **options: object
) -> dict[str, bytes]:
    """Ask until all that are wanted have answered: gossip reaches everybody but for a small chance."""
    with trio.fail_after(EVENTUALLY_SECONDS):
        while True:
            answers, _ = await answered(ours, name, payload, **options)
            assert set(answers) <= wanted
            if set(answers) == wanted:
                return answers


async def test_events_and_queries_both_ways(tmp_path: Path, setting: Setting, key: str | None) -> None:
    agent = partial(setting.agent, tmp_path, key=key, profile=ProfileName.LAN)
    async with trio.open_nursery() as nursery:
        ours = partial(setting.ours(nursery), key=key, profile=LAN, query_handlers={"hello": hello})
        async with agent("x", "-tag=role=web") as x, agent("y", "-tag=role=db", join=[x.address]) as y:
            a = await ours("a", join=[x.address], tags={"role": "web"})
            b = await ours("b", join=[y.address], tags={"role": "db"})
            await all_of(*(partial(one.until_status, "alive", "a", "b", "x", "y") for one in (a, b, x, y)))

            async with a.membership.events() as of_a, b.membership.events() as of_b:
                with trio.fail_after(EVENTUALLY_SECONDS):
                    a.membership.send_event("deploy", b"of ours", coalesce=True)
                    await all_of(*(partial(one.until_heard, "user", "deploy", "of ours") for one in (x, y)))
                    mine, theirs = await user_event(of_a, "deploy"), await user_event(of_b, "deploy")
                    assert mine.payload == theirs.payload == b"of ours"
                    assert mine.ltime == theirs.ltime
                    await y.command("event", "-coalesce=false", "built", "of theirs")
                    for events in (of_a, of_b):
                        event = await user_event(events, "built")
                        assert (event.payload, event.coalesce) == (b"of theirs", False)
                        assert event.ltime > mine.ltime

            # With a timeout of minutes: a query is over when all have answered.
            with trio.fail_after(EVENTUALLY_SECONDS):
                answers, acknowledged = await answered(a, "uptime", b"since", nodes=["x", "y"], timeout=600)
            assert answers == {"x": b"answer of x", "y": b"answer of y"}
            assert acknowledged <= {"x", "y"}
            assert ("query", "uptime", "since") in x.heard()
            assert await asked_until({"x"}, a, "uptime", nodes=["x", "a"], tags={"role": "^w.b$"}, timeout=2) == {
                "x": b"answer of x"
            }
            assert await asked_until({"b"}, a, "hello", b"!", nodes=["b"], timeout=5) == {"b": b"hello a !"}
            relayed = await asked_until({"x", "y"}, a, "uptime", relay_factor=2, timeout=3)
            assert relayed == {"x": b"answer of x", "y": b"answer of y"}
            assert "uptime" not in {name for kind, name, _ in x.heard() if kind == "user"}

            printed = await until_printed(y, "Response from 'b'", "query", "-timeout=2s", "hello", "world")
            assert "Ack from 'a'" in printed
            assert "Response from 'a': hello y world" in printed, printed
            assert "Response from 'b': hello y world" in printed, printed
            printed = await until_printed(
                x, "Response from 'a'", "query", "-timeout=2s", "-tag=role=web", "-relay-factor=2", "hello"
            )
            assert "Response from 'b'" not in printed
            assert "Total Responses: 2" in printed, printed
            for one in (x, y):
                assert one.complaints() == []
        nursery.cancel_scope.cancel()


async def until_printed(one: Agent, wanted: str, *command: str) -> str:
    with trio.fail_after(EVENTUALLY_SECONDS):
        while True:
            printed = await one.command(*command)
            if wanted in printed:
                return printed


async def test_what_fits_into_no_packet(tmp_path: Path, setting: Setting, key: str | None) -> None:
    config = tmp_path / "limits.json"
    config.write_text(json.dumps(LIMITS))

    async def large(_query: AskedQuery) -> bytes:
        return b"L" * 8000

    async with trio.open_nursery() as nursery:
        ours = partial(setting.ours(nursery), key=key, profile=LAN, largest=LARGEST, query_handlers={"large": large})
        async with setting.agent(tmp_path, "x", f"-config-file={config}", key=key, profile=ProfileName.LAN) as x:
            a = await ours("a", join=[x.address])
            b = await ours("b", join=[a.address])
            await all_of(*(partial(one.until_status, "alive", "a", "b", "x") for one in (a, b, x)))
            async with b.membership.events() as of_b:
                text = "event" * 1000
                a.membership.send_event("large", text.encode())
                with trio.fail_after(EVENTUALLY_SECONDS):
                    assert len((await user_event(of_b, "large")).payload) == 5000
                await x.until_heard("user", "large", text)
            # A question of ours goes by stream, the agent answers in a packet that the network takes apart.
            question = "q" * 5000
            answers = await asked_until({"x"}, a, "echo", question.encode(), nodes=["x"], timeout=5)
            assert answers == {"x": b"answer of x " + question.encode()}
            # Our answers go to the agent by stream.
            printed = await until_printed(x, "Response from 'b'", "query", "-timeout=2s", "-node=a", "-node=b", "large")
            for name in ("a", "b"):
                assert f"Response from '{name}': {'L' * 8000}" in printed
        nursery.cancel_scope.cancel()


async def test_one_that_joins_hears_nothing_of_before_and_one_that_was_cut_off_hears_all(
    tmp_path: Path, setting: Setting, key: str | None
) -> None:
    async with trio.open_nursery() as nursery:
        ours = partial(setting.ours(nursery), key=key, profile=LAN)
        async with setting.agent(tmp_path, "x", key=key, profile=ProfileName.LAN) as x:
            await x.command("event", "before", "1")
            a = await ours("a")
            async with a.membership.events() as events:
                await a.membership.join([x.address])
                await x.command("event", "after", "2")
                with trio.fail_after(EVENTUALLY_SECONDS):
                    async for event in events:
                        if isinstance(event, UserEvent):
                            assert event.name == "after"
                            break
            b = await ours("b")
            async with b.membership.events() as events:
                await b.membership.join([x.address], ignore_events=False)
                with trio.fail_after(EVENTUALLY_SECONDS):
                    assert (await user_event(events, "before")).payload == b"1"
                    assert (await user_event(events, "after")).payload == b"2"
        nursery.cancel_scope.cancel()
