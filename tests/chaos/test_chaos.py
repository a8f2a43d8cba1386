"""Five nodes under load that are killed, stopped and cut off from each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from proglog_trio.client import Acknowledgement
from tests.chaos.cluster import ChaosCluster, chaos_cluster
from tests.chaos.load import Load, under_load

pytestmark = pytest.mark.system

NODES = 5
LOCAL = Acknowledgement.parse("local")
MAJORITY = Acknowledgement.parse("majority")


async def do_something(cluster: ChaosCluster) -> None:
    """Do one thing to the cluster, at random."""
    rng = cluster.rng
    choices = ["kill", "restart", "pause", "resume", "restart", "resume"]
    if cluster.network is not None:
        choices += ["partition", "heal", "partition one way", "cut", "heal"]
    match rng.choice(choices):
        case "kill":
            if (node := cluster.some(up=True)) is not None:
                await cluster.kill(node)
        case "restart":
            down = [node for node in cluster.nodes.values() if node.process is None]
            if down:
                await cluster.start(rng.choice(down))
        case "pause":
            if (node := cluster.some(up=True)) is not None:
                cluster.pause(node)
        case "resume":
            stopped = [node for node in cluster.nodes.values() if node.is_stopped]
            if stopped:
                cluster.resume(rng.choice(stopped))
        case "heal":
            assert cluster.network is not None
            cluster.note("heal")
            await cluster.network.heal()
        case "cut":
            assert cluster.network is not None
            one, other = rng.sample(sorted(cluster.nodes), 2)
            cluster.note(f"cut {one} and {other}")
            await cluster.network.cut(one, other)
            await cluster.network.cut(other, one)
        case what:
            assert cluster.network is not None
            ours = rng.sample(sorted(cluster.nodes), rng.randint(1, NODES - 1))
            cluster.note(f"{what}: {ours}")
            await cluster.network.partition(ours, one_way=what == "partition one way")


async def test_nothing_is_lost_or_delivered_twice(
    tmp_path: Path, chaos_seed: int, chaos_seconds: float, has_namespaces: bool
) -> None:
    load = Load()
    async with chaos_cluster(tmp_path, NODES, chaos_seed, in_namespaces=has_namespaces) as cluster:
        alone = [([address], LOCAL) for address in cluster.addresses]
        moving = [(cluster.addresses, LOCAL), (cluster.addresses, MAJORITY)]
        with trio.fail_after(chaos_seconds + 600):
            async with under_load(load, [*alone, *moving], cluster.addresses) as stop:
                await load.more_acknowledged(500)
                began = trio.current_time()
                while trio.current_time() - began < chaos_seconds:
                    await do_something(cluster)
                    await trio.sleep(cluster.rng.uniform(0.1, 2.0))
                cluster.note("the end of all faults")
                await cluster.end_of_faults()
                await load.more_acknowledged(100)
                stop.set()
            records = await cluster.agree()
            assert await cluster.verified(), cluster.history[-3:]
        for node in cluster.nodes.values():
            assert "logs have diverged" not in cluster.logged(node)
            assert "records are missing for ever" not in cluster.logged(node)
            assert "Traceback" not in cluster.logged(node), cluster.logged(node)
        print(  # noqa: T201 - the figures of a run
            f"{len(load.acknowledged)} records acknowledged, {records} in every log, "
            f"{len(load.delivered)} delivered, 0 lost, 0 twice; {len(cluster.history)} events"
        )
