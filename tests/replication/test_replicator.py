from __future__ import annotations

import random

import trio
import trio.testing

from proglog_trio.replication.pull import PullSession
from proglog_trio.replication.replicator import Replicator

from .simulation.cluster import Cluster


def replicator_of_one_node() -> Replicator:
    async def run_pull(_address: str, _session: PullSession) -> None:
        await trio.sleep_forever()

    return Replicator(Cluster(1).add("a").running.replica, run_pull, random.Random(1))


async def test_leaving_ends_one_peer_alone(autojump_clock: trio.testing.MockClock) -> None:
    replicator = replicator_of_one_node()
    async with trio.open_nursery() as nursery:
        await nursery.start(replicator.run)
        await replicator.join("b", "127.0.0.1:1")
        await replicator.join("c", "127.0.0.1:2")
        await trio.testing.wait_all_tasks_blocked()
        b, c = replicator.peers["b"], replicator.peers["c"]
        await replicator.leave("b")
        assert b.ended.is_set()
        assert not c.ended.is_set()
        assert set(replicator.peers) == set(replicator.replica.plan.peers) == {"c"}
        nursery.cancel_scope.cancel()
    assert c.ended.is_set()


async def test_a_peer_that_has_ended_with_the_replicator_may_still_leave(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Membership and replicator stop together, and membership says of every peer that it leaves."""
    replicator = replicator_of_one_node()
    async with trio.open_nursery() as nursery:
        await nursery.start(replicator.run)
        await replicator.join("b", "127.0.0.1:1")
        nursery.cancel_scope.cancel()
    await replicator.leave("b")
    assert replicator.peers == {}
