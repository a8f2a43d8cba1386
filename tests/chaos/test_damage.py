"""What was done to NATS JetStream (Jepsen, 2025): bits flipped, files cut, power lost; here on five nodes of ours."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
from attrs import frozen

from proglog_trio._proto.log.v1 import GetStatusResponse
from proglog_trio.client import Acknowledgement, ConsumerConfig, open_consumer
from proglog_trio.rpc.calls.cluster import get_status
from tests.chaos.cluster import AGREE_SECONDS, POLL_SECONDS, ChaosCluster, ChaosNode, chaos_cluster
from tests.chaos.load import Load, under_load

pytestmark = pytest.mark.system

NODES = 5
MINORITY = 2
LOCAL = Acknowledgement.parse("local")
MAJORITY = Acknowledgement.parse("majority")


@frozen
class Copied:
    """How far a node's files hold what a majority has too, by the files' places in the log: what may be damaged.

    Records beyond that may be on this node's disk alone, not acknowledged by a majority; those it cannot get back.
    """

    sizes: dict[Path, int]

    def flip(self, rng: random.Random, count: int) -> None:
        """Flip bits anywhere in that, in the files as they are."""
        for _ in range(count):
            path = rng.choice(sorted(self.sizes))
            with path.open("r+b") as file:
                place = rng.randrange(min(self.sizes[path], file.seek(0, 2)))
                file.seek(place)
                byte = file.read(1)[0]
                file.seek(place)
                file.write(bytes([byte ^ 1 << rng.randrange(8)]))

    def cut(self, node: ChaosNode, rng: random.Random) -> bool:
        """Cut one of the files anywhere; tell whether it was the newest, whose end may be this node's alone."""
        newest = node.stores[-1]
        path = rng.choice([*(path for path in self.sizes if path.stat().st_size == self.sizes[path]), newest])
        with path.open("r+b") as file:
            file.truncate(rng.randrange(file.seek(0, 2)))
        return path == newest


async def copied(cluster: ChaosCluster, node: ChaosNode) -> Copied:
    """Return what the node has now, once a majority has it too."""
    sizes = {path: path.stat().st_size for path in node.stores}
    nexts = _nexts(await get_status(node.rpc_addr, 5.0))
    others = [other for other in cluster.nodes.values() if other is not node and other.is_up]
    with trio.fail_after(AGREE_SECONDS):
        while await _holders(others, nexts) <= NODES // 2:  # noqa: ASYNC110 - nodes tell it when they are asked
            await trio.sleep(POLL_SECONDS)
    return Copied({path: size for path, size in sizes.items() if size})


def _nexts(status: GetStatusResponse) -> dict[bytes, int]:
    return {origin.origin: origin.next for origin in status.origins}


async def _holders(nodes: list[ChaosNode], nexts: dict[bytes, int]) -> int:
    """Count the nodes that have of every origin what lies below its next."""
    have = [_nexts(await get_status(node.rpc_addr, 5.0)) for node in nodes]
    return sum(all(each.get(origin, 0) >= end for origin, end in nexts.items()) for each in have)


async def read_all(address: str) -> int:
    """Read a node's log from its beginning, past whatever cannot be read."""
    count = 0
    config = ConsumerConfig(follow=False, on_missing="skip", find_nodes=False)
    async with open_consumer(address, config) as consumer:
        async for _ in consumer:
            count += 1
    return count


async def test_damage_of_a_minority_loses_nothing_of_what_a_majority_has(tmp_path: Path, chaos_seed: int) -> None:
    load = Load()
    async with chaos_cluster(tmp_path, NODES, chaos_seed, in_namespaces=False) as cluster:
        rng = cluster.rng
        producers = [(cluster.addresses, MAJORITY), ([cluster.addresses[-1]], MAJORITY)]
        with trio.fail_after(500):
            async with under_load(load, producers, [], pause=0.0) as stop:
                await load.more_acknowledged(4000)
                damaged = rng.sample(list(cluster.nodes.values())[:-1], MINORITY)
                # While they run.
                for node in damaged:
                    (await copied(cluster, node)).flip(rng, 5)
                    await read_all(node.rpc_addr)
                await load.more_acknowledged(1000)
                # While they are down.
                have_copies = [await copied(cluster, node) for node in damaged]
                cut_at_the_end = []
                for node, of_majority in zip(damaged, have_copies, strict=True):
                    await cluster.kill(node)
                    of_majority.flip(rng, 5)
                    if of_majority.cut(node, rng):
                        cut_at_the_end.append(node)
                await load.more_acknowledged(1000)
                for node in damaged:
                    await cluster.start(node)
                    await read_all(node.rpc_addr)
                await load.more_acknowledged(1000)
                stop.set()
            await cluster.agree()
            await cluster.become_sound(cut_at_the_end)
            statuses = await cluster.statuses()
            assert statuses is not None
            repaired = {status.node_name: status.counters["damage_repaired"] for status in statuses}
            assert all((repaired[node.name] > 0) == (node in damaged) for node in cluster.nodes.values()), repaired
        load_of_majority = {value for value, nodes in load.acknowledged.items() if nodes > NODES // 2}
        assert len(load_of_majority) > 4000
        for node in cluster.nodes.values():
            await check_holds(node, load_of_majority)
        print(  # noqa: T201 - the figures of a run
            f"{len(load_of_majority)} records that a majority has acknowledged, 0 lost; repaired places: {repaired}"
        )


async def check_holds(node: ChaosNode, values: set[bytes]) -> None:
    found: set[bytes] = set()
    # What was lost with the end of the newest file is named for ever at its offsets, and here again at others.
    config = ConsumerConfig(follow=False, on_missing="skip", find_nodes=False)
    async with open_consumer(node.rpc_addr, config) as consumer:
        async for record in consumer:
            found.add(record.value)
    assert not values - found, f"{node.name} lacks {len(values - found)} of {len(values)} records"


async def test_power_lost_everywhere_at_once_loses_nothing_that_was_acknowledged(
    tmp_path: Path, chaos_seed: int
) -> None:
    load = Load()
    async with chaos_cluster(tmp_path, NODES, chaos_seed, in_namespaces=False, lossy=True) as cluster:
        with trio.fail_after(300):
            alone = [([address], LOCAL) for address in cluster.addresses]
            async with under_load(load, alone, [], pause=0.005) as stop:
                for _ in range(2):
                    await load.more_acknowledged(1000)
                    async with trio.open_nursery() as nursery:
                        for node in cluster.nodes.values():
                            nursery.start_soon(cluster.kill, node)
                    for node in cluster.nodes.values():
                        await cluster.start(node)
                await load.more_acknowledged(500)
                stop.set()
            await cluster.agree()
            assert await cluster.verified(), cluster.history[-3:]
        for node in cluster.nodes.values():
            await check_holds(node, set(load.acknowledged))
