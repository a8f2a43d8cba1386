from __future__ import annotations

import random

from proglog_trio._proto.log.v1 import GetStatusResponse
from proglog_trio.log.missing import Missing
from proglog_trio.replication.peer import Peer
from proglog_trio.replication.pull import PullSession
from proglog_trio.replication.replicator import Replicator
from proglog_trio.rpc.cluster_status import status_of
from proglog_trio.rpc.service_state import LogServiceCounters
from tests.replication.simulation.cluster import Cluster


async def run_pull(_address: str, _session: PullSession) -> None:
    """Pull nothing."""


async def fetch_nothing(_address: str, _missing: Missing) -> list[bytes]:
    """Find nothing."""
    return []


def test_names_that_are_no_text_do_not_keep_a_node_from_telling_its_status() -> None:
    """A member of another program may call itself what it likes."""
    cluster = Cluster(1)
    node = cluster.add("a")
    cluster.produce(node)
    cluster.run(1)
    replica = node.running.replica
    replicator = Replicator(replica, run_pull, fetch_nothing, random.Random(1))
    gossiped = b"\xff\xfe".decode("utf-8", "surrogateescape")
    replica.joined(gossiped)
    replicator.peers[gossiped] = Peer(
        gossiped, gossiped, replica, run_pull, random.Random(1), lambda: None, problem=gossiped
    )
    counters = LogServiceCounters(records_produced=3)
    told = GetStatusResponse.parse(bytes(status_of(replicator, "127.0.0.1:1", 3, counters)))
    (shown,) = told.peers
    assert (shown.name, shown.rpc_addr, shown.problem) == ("\ufffd\ufffd",) * 3
    assert (told.node_name, told.cluster_size, told.next_offset) == ("a", 3, 1)
    assert told.counters["records_produced"] == 3
    assert told.counters["acknowledgements_waiting"] == 0
