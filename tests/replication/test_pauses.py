"""Real nodes that are stopped (SIGSTOP) for longer than every timeout, and go on."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest
import trio

from proglog_trio.client import Delivery, DeliveryError, ProducerConfig, open_producer
from proglog_trio.rpc.calls.cluster import get_members
from tests.node_process import NodeProcess, node_process
from tests.replication.real_nodes import WAIT_SECONDS, joining, records_of, running_nodes, wait_for_records

LONGER_THAN_EVERY_TIMEOUT = 12.0
"""In the local profile: a suspicion takes 3 s, a keepalive 5 s and as long again, a source has stalled after 2 s."""


async def all_alive(nodes: Sequence[NodeProcess]) -> None:
    """Wait until every node calls every node alive."""
    with trio.fail_after(WAIT_SECONDS):
        for node in nodes:
            while True:
                members = await get_members(node.address, WAIT_SECONDS)
                if len(members) == len(nodes) and all(member.status == 1 for member in members):
                    break
                await trio.sleep(0.1)


def check_well(nodes: Sequence[NodeProcess]) -> None:
    for node in nodes:
        assert node.process.poll() is None, f"a node ended by itself:\n{node.logged()}"
        for bad in ("Traceback", "missing for ever", "diverged"):
            assert bad not in node.logged(), node.logged()


async def pause(nodes: Sequence[NodeProcess], seconds: float) -> None:
    for node in nodes:
        node.process.send_signal(signal.SIGSTOP)
    try:
        # Time itself is what is tested here.
        await trio.sleep(seconds)
    finally:
        for node in nodes:
            if node.process.poll() is None:
                node.process.send_signal(signal.SIGCONT)


@pytest.mark.system
async def test_stopped_one_by_one_several_and_all_under_load(tmp_path: Path) -> None:
    delivered: set[bytes] = set()

    async def write(address: str, name: str, stop: trio.Event) -> None:
        deliveries: list[tuple[bytes, Delivery]] = []
        try:
            async with open_producer(address, ProducerConfig(delivery_timeout=60.0)) as producer:
                for number in count():
                    if stop.is_set():
                        break
                    value = f"{name} {number}".encode()
                    deliveries.append((value, await producer.send(value)))
                    await trio.sleep(0.01)
        finally:
            for value, delivery in deliveries:
                if delivery.settled:
                    try:
                        await delivery.wait()
                    except DeliveryError as error:
                        raise AssertionError(f"{value!r} was not stored: {error}") from error
                    delivered.add(value)

    async with running_nodes(tmp_path, "abc") as nodes:
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            for name, node in zip("abc", nodes, strict=True):
                nursery.start_soon(write, node.address, name, stop)
            for stopped in (nodes[:1], nodes[1:], nodes):
                await pause(stopped, LONGER_THAN_EVERY_TIMEOUT)
                check_well(nodes)
                await all_alive(nodes)
            stop.set()
        await wait_for_records(nodes, len(delivered))
        for node in nodes:
            assert {record.value for record in await records_of(node)} >= delivered
        check_well(nodes)
        assert len(delivered) > 100
        for node in nodes:
            assert await node.stop() == 0


@pytest.mark.system
@pytest.mark.parametrize("profile", ["lan", "local"])
async def test_stopped_while_a_probe_is_under_way(tmp_path: Path, profile: str) -> None:
    """The probed one is stopped first, and the prober at each moment of the probe, for longer than that may take."""
    options = ("--gossip-profile", profile)
    async with (
        node_process(tmp_path / "a", "--node-name", "a", *options) as a,
        node_process(tmp_path / "b", "--node-name", "b", *options, *joining(a)) as b,
    ):
        await all_alive([a, b])
        for attempt in range(1, 4):
            b.process.send_signal(signal.SIGSTOP)
            try:
                await trio.sleep(0.6 + 0.13 * attempt)
                await pause([a], 3.0)
                await trio.sleep(0.3)
            finally:
                b.process.send_signal(signal.SIGCONT)
            check_well([a, b])
        await all_alive([a, b])
        check_well([a, b])
        assert await a.stop() == 0
        assert await b.stop() == 0
