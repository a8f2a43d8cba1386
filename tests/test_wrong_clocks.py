"""Real nodes whose wall clocks are wrong."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from proglog_trio.client import open_consumer, open_producer
from tests.node_process import NodeProcess, node_process, run_command

CLOCK = """
import os, time
ahead = float(os.environ["TEST_CLOCK_AHEAD"])
read, read_ns = time.time, time.time_ns
time.time = lambda: read() + ahead
time.time_ns = lambda: read_ns() + int(ahead * 1e9)
"""


def wrong_clock(tmp_path: Path) -> str:
    """Where Python finds what puts a process's wall clock ahead by TEST_CLOCK_AHEAD seconds."""
    directory = tmp_path / "clock"
    directory.mkdir(exist_ok=True)
    (directory / "sitecustomize.py").write_text(CLOCK)
    return str(directory)


async def status_of(node: NodeProcess) -> dict[str, Any]:
    code, output, errors = await run_command("status", "--addr", node.address, "--json")
    assert code == 0, errors
    status: dict[str, Any] = json.loads(output)
    return status


async def until(node: NodeProcess, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return a node's status once something holds of it."""
    with trio.fail_after(60):
        # It is told over the network, by asking again.
        while not holds(status := await status_of(node)):  # noqa: ASYNC110
            await trio.sleep(0.2)
    return status


async def metrics(node: NodeProcess) -> str:
    address = node.ready["metrics_addr"]

    def get() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            body: bytes = answer.read()
        return body.decode()

    return await trio.to_thread.run_sync(get)


async def exchange(nodes: tuple[NodeProcess, NodeProcess], records: int) -> None:
    """Have each of two nodes store what follows from what the other stored, and read all of it."""
    for number in range(records):
        for here, there in (nodes, nodes[::-1]):
            async with open_producer(here.address) as producer:
                cause = await (await producer.send(b"cause %d" % number)).wait()
            async with open_producer(there.address) as producer:
                producer.observe(cause.log_time)
                await (await producer.send(b"effect %d" % number)).wait()


@pytest.mark.system
@pytest.mark.parametrize("ahead", [600.0, -365 * 86_400.0, 365 * 86_400.0])
async def test_a_peer_with_a_wrong_clock_is_named_and_refuses_nothing(tmp_path: Path, ahead: float) -> None:
    metrics_addr = ("--metrics-addr", "127.0.0.1:0")
    async with (
        node_process(tmp_path / "a", "--node-name", "a", *metrics_addr) as a,
        node_process(
            tmp_path / "b",
            "--node-name",
            "b",
            "--start-join-addrs",
            a.gossip,
            *metrics_addr,
            PYTHONPATH=wrong_clock(tmp_path),
            TEST_CLOCK_AHEAD=str(ahead),
        ) as b,
    ):
        status = await until(a, lambda status: any(peer["clock"] for peer in status["peers"]))
        (peer,) = status["peers"]
        assert peer["clock"]["is_off"] is True
        assert abs(peer["clock"]["ahead"] - ahead) < 5
        await exchange((a, b), 2)
        for node, other, sign in ((a, "b", 1), (b, "a", -1)):
            status = await until(node, lambda status: status["next_offset"] == 8)
            assert status["time"]["log_time_ahead"] <= 61
            async with open_consumer(node.address, follow=False) as consumer:
                assert len([record async for record in consumer]) == 8
            figures = await metrics(node)
            (line,) = (line for line in figures.splitlines() if line.startswith("proglog_peer_clock_ahead_seconds{"))
            assert f'peer="{other}"' in line
            assert abs(float(line.split()[-1]) - sign * ahead) < 5
            assert "a peer's wall clock and this node's differ" in node.logged()
        code, output, _ = await run_command("status", "--addr", a.address)
        assert code == 0
        assert b"clock     the wall clock of b is " in output


@pytest.mark.system
async def test_a_clock_a_year_behind_for_one_run_deletes_nothing(tmp_path: Path) -> None:
    options = ("--segment-bytes", "64KiB", "--retention-age", "1h")
    lines = (b"x" * 1000 + b"\n") * 240
    async with node_process(
        tmp_path / "a", *options, PYTHONPATH=wrong_clock(tmp_path), TEST_CLOCK_AHEAD=str(-365 * 86_400.0)
    ) as node:
        for _ in range(2):
            code, _, errors = await run_command("produce", "--addr", node.address, stdin=lines)
            assert code == 0, errors
        assert await node.stop() == 0
    async with node_process(tmp_path / "a", *options) as node:
        status = await until(node, lambda status: status["time"]["retention_overdue"] > 0)
        assert (status["lowest_offset"], status["next_offset"]) == (0, 480)
        assert "retention by age keeps records that are too old by the wall clock" in node.logged()


@pytest.mark.system
async def test_a_clock_a_year_ahead_for_one_run_keeps_nothing_for_a_year(tmp_path: Path) -> None:
    options = ("--segment-bytes", "64KiB", "--retention-age", "2s")
    lines = (b"x" * 1000 + b"\n") * 240
    async with node_process(
        tmp_path / "a",
        "--segment-bytes",
        "64KiB",
        PYTHONPATH=wrong_clock(tmp_path),
        TEST_CLOCK_AHEAD=str(365 * 86_400.0),
    ) as node:
        code, _, errors = await run_command("produce", "--addr", node.address, stdin=lines)
        assert code == 0, errors
        assert await node.stop() == 0
    async with node_process(tmp_path / "a", *options) as node:
        await until(node, lambda status: status["lowest_offset"] == 240)
        assert "log time is ahead of the wall clock, which is wrong, or was" in node.logged()
