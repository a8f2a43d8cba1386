"""Replication end to end: real processes, as a user runs them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio

from proglog_trio.client import (
    Acknowledgement,
    DeliveredBatch,
    DeliveryError,
    DeliveryRefused,
    ProducerConfig,
    open_producer,
)
from tests.members import HasAddress
from tests.node_process import NodeProcess, node_process
from tests.replication.real_nodes import (
    LOCAL,
    connected,
    foreign,
    joining,
    nodes_inside,
    records_of,
    running_nodes,
    status_of,
    wait_for,
    wait_for_records,
)

MANY = 1000


@pytest.mark.parametrize("quiet_seconds", [2, pytest.param(10, marks=pytest.mark.system)])
async def test_the_books_agents(stubs: Path, tmp_path: Path, quiet_seconds: int) -> None:
    """The test of the book's agent, and what fails there: each log goes on holding the record once."""
    async with running_nodes(tmp_path, "abc") as nodes:
        assert await foreign(stubs, nodes[0], "produce", 1) == [0]
        await wait_for_records(nodes, 1)
        # Time itself is what is tested here: whatever would copy copies has had enough of it then.
        end = trio.current_time() + quiet_seconds
        for node in nodes:
            assert await foreign(stubs, node, "consume", 1) == ["record 0"]
        await trio.sleep_until(end)
        sent = 0
        for node in nodes:
            status = await status_of(node)
            assert (status.lowest_offset, status.next_offset) == (0, 1)
            assert [record.value for record in await records_of(node)] == [b"record 0"]
            assert status.counters["frames_dropped"] == 0
            sent += status.counters["frames_sent"]
        assert sent == 2  # to each of the others, once


async def test_all_write_at_once(tmp_path: Path) -> None:
    # All in this process: what processes add to it is in the next test.
    async with nodes_inside(tmp_path, "abc") as nodes:
        async with trio.open_nursery() as nursery:
            for number, node in enumerate(nodes):
                nursery.start_soon(produce, node, MANY * number, MANY)
        await wait_for_records(nodes, 3 * MANY)
        found = [await records_of(node) for node in nodes]
        identities = [{(record.origin, record.sequence): record.value for record in records} for records in found]
        assert identities[0] == identities[1] == identities[2]
        for records in found:
            assert sorted(int(record.value) for record in records) == list(range(3 * MANY))
        for status in [await status_of(node) for node in nodes]:
            assert status.counters["records_applied"] == 2 * MANY
            assert {origin.behind for origin in status.origins} == {0}
            assert {origin.written_by for origin in status.origins} == {"a", "b", "c"}


async def produce(node: HasAddress, first: int, count: int) -> None:
    """Write so many numbers, in batches of a few."""
    async with open_producer(node.address, ProducerConfig(batch_records=50)) as producer:
        for number in range(first, first + count):
            await producer.send(b"%d" % number)


async def test_a_killed_node_catches_up(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "ab") as (a, b):
        address: tuple[str, ...] = ()
        async with node_process(tmp_path / "c", "--node-name", "c", *LOCAL, *joining(a)) as c:
            await wait_for(c, lambda status: connected(status) == 2)
            await produce(c, 0, 10)
            await wait_for_records([a, b, c], 10)
            c.kill()
            address = ("--bind-addr", c.ready["gossip_addr"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce, a, 10, MANY)
            nursery.start_soon(produce, b, 10 + MANY, MANY)
        await wait_for_records([a, b], 10 + 2 * MANY)
        await wait_for(a, lambda status: not any(peer.connected for peer in status.peers if peer.name == "c"))
        async with node_process(tmp_path / "c", "--node-name", "c", *LOCAL, *joining(a), *address) as c:
            await wait_for_records([c], 10 + 2 * MANY)
            values = [int(record.value) for record in await records_of(c)]
            assert sorted(values) == list(range(10 + 2 * MANY))
            caught_up = await wait_for(
                a, lambda status: any(p.name == "c" and p.connected and not p.peer_behind for p in status.peers)
            )
            assert caught_up.next_offset == 10 + 2 * MANY


async def acknowledged(node: NodeProcess, asked: Acknowledgement) -> DeliveredBatch | DeliveryError:
    """Write one record and return what came of it."""
    async with open_producer(node.address, ProducerConfig(acknowledgement=asked)) as producer:
        delivery = await producer.send_batch([b"value"])
        (outcome,) = await delivery.outcomes()
        return outcome


async def test_acknowledgement_by_several_nodes(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "abc", "--cluster-size", "3") as (a, _, c):
        for asked, least in (
            (Acknowledgement.nodes_of(2), 2),
            (Acknowledgement.nodes_of(3), 3),
            (Acknowledgement.majority(), 2),
        ):
            outcome = await acknowledged(a, asked)
            assert isinstance(outcome, DeliveredBatch)
            assert outcome.reached
            assert outcome.achieved in range(least, 4)
        c.process.send_signal(signal.SIGSTOP)
        try:
            for asked in (Acknowledgement.nodes_of(2), Acknowledgement.majority()):
                outcome = await acknowledged(a, asked)
                assert isinstance(outcome, DeliveredBatch)
                assert (outcome.achieved, outcome.reached) == (2, True)
            outcome = await acknowledged(a, Acknowledgement.nodes_of(3, timeout=0.5))
            assert isinstance(outcome, DeliveredBatch)
            assert (outcome.achieved, outcome.reached) == (2, False)
        finally:
            c.process.send_signal(signal.SIGCONT)
        await wait_for_records([c], 6)
        outcome = await acknowledged(a, Acknowledgement.nodes_of(3))
        assert isinstance(outcome, DeliveredBatch)
        assert (outcome.achieved, outcome.reached) == (3, True)


async def test_a_majority_of_a_cluster_whose_size_nobody_said(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "a") as (a,):
        refused = await acknowledged(a, Acknowledgement.majority())
        assert isinstance(refused, DeliveryRefused)
        assert refused.status.name == "FAILED_PRECONDITION"
        assert "configured cluster size" in str(refused)
        assert (await status_of(a)).next_offset == 0
