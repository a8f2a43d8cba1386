"""A script sees the same of an event whether an agent runs it or a member of ours does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from proglog_trio.membership import EventHandler, EventHandlers
from proglog_trio.membership.profile import ProfileName
from tests.interop.settings import Setting
from tests.membership.running import LAN, eventually

pytestmark = pytest.mark.system

# What a script sees, a line for each variable and then its input, between lines that say where one begins.
DUMP = """\
{{ echo "--- $SERF_EVENT $SERF_USER_EVENT$SERF_QUERY_NAME"; env | grep ^SERF_ | sort; echo "input:"; cat; }} > {file}.$$
cat {file}.$$ >> {file}
rm {file}.$$
[ "$SERF_EVENT" != query ] || head -c ${{SERF_QUERY_NAME#answer-}} /dev/zero | tr '\\0' a
"""
TAGS = {"role": "web", "a-b c": "x=y", "Zone": "1"}


def seen(file: Path) -> dict[str, list[str]]:
    """Return what a script saw, by the event, without what two members differ in."""
    found: dict[str, list[str]] = {}
    text = file.read_text() if file.exists() else ""
    for part in text.split("--- ")[1:]:
        event, *lines = part.splitlines()
        found[event] = [line for line in lines if "_LTIME" not in line and "SERF_SELF_NAME" not in line]
    return found


def sorted_tags(lines: list[str]) -> list[str]:
    """Return lines with the tags of members in one order, which agents have none for."""
    fields = [line.split("\t") for line in lines]
    return ["\t".join((*parts[:-1], ",".join(sorted(parts[-1].split(","))))) for parts in fields]


async def test_a_script_sees_the_same(tmp_path: Path, setting: Setting, key: str | None) -> None:
    scripts = {}
    for name in ("theirs", "ours"):
        scripts[name] = tmp_path / f"{name}.handler"
        scripts[name].write_text("#!/bin/sh\n" + DUMP.format(file=tmp_path / name))
        scripts[name].chmod(0o755)
    tags = [f"-tag={name}={value}" for name, value in TAGS.items()]
    async with (
        setting.agent(
            tmp_path, "x", *tags, f"-event-handler={scripts['theirs']}", profile=ProfileName.LAN, key=key
        ) as x,
        setting.start_ours_in() as start,
        trio.open_nursery() as nursery,
    ):
        a = await start("a", tags=TAGS, profile=LAN, key=key)
        await nursery.start(EventHandlers(a.membership, [EventHandler.parse(str(scripts["ours"]))]).run)
        # Both see the third one come, change and leave.
        await a.membership.join([x.address])
        third = await start("third", tags={"role": "tab\there", "z": "1"}, profile=LAN, key=key, join=[x.address])
        await x.command("event", "-coalesce=false", "plain", "payload")
        await x.command("event", "-coalesce=false", "line", "payload\n")
        await x.command("event", "-coalesce=false", "empty")
        answers = await x.command("query", "-timeout=5s", "answer-10", "asked")
        assert f"Response from 'a': {'a' * 10}\n" in answers, answers
        # Too large for an answer.
        assert "Response from" not in await x.command("query", "-node=a", "-timeout=2s", "answer-2000")

        async def look() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
            return seen(tmp_path / "theirs"), seen(tmp_path / "ours")

        def have(*events: str) -> Callable[[tuple[dict[str, list[str]], dict[str, list[str]]]], bool]:
            return lambda both: all(set(events) <= each.keys() for each in both)

        wanted = ("user plain", "user line", "user empty", "query answer-10", "member-update ", "member-leave ")
        await third.membership.change_tags({"new": "1"})
        # What happens to one member in a short time is told as one.
        await eventually(look, have("member-update "))
        await third.leave()
        theirs, ours = await eventually(look, have(*wanted))
        for event in wanted:
            assert sorted_tags(ours[event]) == sorted_tags(theirs[event]), event
        nursery.cancel_scope.cancel()
