"""The commands event, query and events, with a node and a member of another program."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.membership import AskedQuery
from tests.members import WAIT_SECONDS, node_inside
from tests.node_process import clean_environment, read_line, run_command
from tests.rpc.server.test_cluster_events import other_member


@asynccontextmanager
async def events_of(address: str, *arguments: str) -> AsyncIterator[trio.Process]:
    """Run `events` until the block ends, begun."""
    command = [sys.executable, "-m", "proglog_trio", "events", "--addr", address, *arguments]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=clean_environment()
    )
    try:
        assert process.stdout is not None
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


async def next_line(process: trio.Process) -> bytes:
    assert process.stdout is not None
    with trio.fail_after(WAIT_SECONDS):
        return await read_line(process.stdout)


async def load(query: AskedQuery) -> bytes:
    return b"\xff" if query.payload == b"bytes" else b"0.5 " + query.payload


@pytest.mark.system
async def test_events_and_answers_are_written(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a") as a, events_of(a.address, "--json") as watcher:
        # Until it watches: the first that it hears.
        with trio.fail_after(WAIT_SECONDS):
            while True:
                assert (await run_command("event", "begun", "--addr", a.address))[0] == ExitCode.DONE
                first = None
                with trio.move_on_after(0.5):
                    first = await next_line(watcher)
                if first is not None:
                    break
        assert json.loads(first)["name"] == "begun"

        async def heard(event: str) -> dict[str, Any]:
            while True:
                line: dict[str, Any] = json.loads(await next_line(watcher))
                if line.get("name") != "begun" and line["event"] == event:
                    return line

        async with other_member(a, {"load": load}) as other:
            assert await heard("member-join") == {"event": "member-join", "members": ["other"]}
            assert await run_command("event", "deploy", "--coalesce", "version 7", "--addr", a.address) == (0, b"", "")
            told = await heard("user")
            assert (told["name"], told["payload"]) == ("deploy", "version 7")
            other.query("question", b"\xff", nodes=["a"], timeout=5)
            asked = await heard("query")
            assert (asked["name"], asked["payload_base64"], asked["source"]) == ("question", "/w==", "other")

            common = ("--addr", a.address, "--node", "other", "--timeout", "60")
            code, output, errors = await run_command("query", "load", "now", *common)
            assert (code, errors) == (ExitCode.DONE, "1 acknowledged, 1 answered\n")
            assert output.decode().splitlines() == ["other has the query", "other: 0.5 now"]
            code, output, errors = await run_command("query", "load", "bytes", *common, "--json")
            assert (code, errors) == (ExitCode.DONE, "")
            assert [json.loads(line) for line in output.splitlines()] == [
                {"member": "other", "acknowledged": True},
                {"member": "other", "payload_base64": "/w=="},
            ]
            options = ("--tag", "role=^oth", "--node", "other", "--node", "a", "--no-ack", "--relay-factor", "2")
            code, output, errors = await run_command("query", "load", "--addr", a.address, *options)
            assert (code, output, errors) == (ExitCode.DONE, b"other: 0.5 \n", "1 answered\n")

        watcher.send_signal(signal.SIGINT)
        with trio.fail_after(WAIT_SECONDS):
            assert await watcher.wait() == ExitCode.DONE


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("query", "load", "--tag", "role"), ExitCode.USAGE, "'role' is no tag with an expression"),
        (("query", "load", "--tag", "role=a", "--tag", "role=b"), ExitCode.USAGE, "one expression"),
        (("query", "load", "--tag", "role=("), ExitCode.FAILED, "is no regular expression"),
        (("query", "load", "--relay-factor", "256"), ExitCode.USAGE, "Must be at most 255"),
        (("query", "_serf_conflict"), ExitCode.FAILED, "must not begin with _serf_"),
        (("event", "deploy", "x" * 512), ExitCode.FAILED, "a user event of 518 bytes is larger than the limit"),
        (("event", ""), ExitCode.FAILED, "the name is empty"),
    ],
)
async def test_what_cannot_be_sent_or_asked(
    tmp_path: Path, arguments: tuple[str, ...], code: ExitCode, what: str
) -> None:
    async with node_inside(tmp_path / "a", "a") as a:
        ended, output, errors = await run_command(*arguments, "--addr", a.address)
        assert (ended, output) == (code, b"")
        assert what in errors


async def test_no_node() -> None:
    for command in (("event", "deploy"), ("query", "load"), ("events",)):
        code, _, errors = await run_command(*command, "--addr", "127.0.0.1:1")
        assert code == ExitCode.UNREACHABLE
        assert "127.0.0.1:1" in errors
