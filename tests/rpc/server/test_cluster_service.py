"""Operations on the cluster over gRPC: what becomes of those that are begun."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from proglog_trio.address import Address
from proglog_trio.errors import ConnectionNotOpened
from proglog_trio.membership import GossipConfig, MemberStatus, open_membership
from proglog_trio.node.config import NodeConfig
from proglog_trio.node.run import run_node
from proglog_trio.rpc.calls import cluster
from tests.members import WAIT_SECONDS
from tests.membership.running import LOCAL


@pytest.mark.parametrize("is_patient", [True, False], ids=["patient", "gone"])
async def test_a_node_that_was_told_to_leave_stops_also_without_its_client(tmp_path: Path, is_patient: bool) -> None:
    config = NodeConfig(
        data_dir=tmp_path, node_name="a", rpc_port=0, bind_addr=Address("127.0.0.1", 0), gossip_profile="local",
        disk_reserve=0,
    )  # fmt: skip
    async with trio.open_nursery() as nodes:
        running = await nodes.start(run_node, config)
        other_config = GossipConfig(name="other", profile=LOCAL)
        address = str(running.rpc_address)
        async with open_membership(other_config, start_addresses=[running.gossip_address]) as other:
            with trio.fail_after(WAIT_SECONDS):
                async with trio.open_nursery() as asking:
                    asking.start_soon(partial(cluster.leave, address, WAIT_SECONDS))
                    if not is_patient:
                        while other.statuses()["a"] is MemberStatus.ALIVE:
                            await other.status_change()
                        asking.cancel_scope.cancel()
                while nodes.child_tasks:  # noqa: ASYNC110 - it has no event for that
                    await trio.sleep(0.05)
        with pytest.raises(ConnectionNotOpened):
            await cluster.get_members(address, 1.0)
