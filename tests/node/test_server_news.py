"""A node tells those who watch the servers of what happens in its cluster; of nodes that fail, see tests/client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.rpc.calls.connection import open_connection
from tests.members import WAIT_SECONDS, node_inside
from tests.rpc.server.server_list.test_calls import watching


async def _until(
    answers: trio.MemoryReceiveChannel[log_v1.WatchServersResponse],
    wanted: Callable[[log_v1.WatchServersResponse], bool],
) -> None:
    with trio.fail_after(WAIT_SECONDS):
        async for answer in answers:
            assert (answer.server_id, answer.cluster_name, answer.failed) == ("a", "orders", [])
            if wanted(answer):
                return


async def test_who_watches_is_told_of_nodes_that_come_and_leave(tmp_path: Path) -> None:
    async with (
        node_inside(tmp_path / "a", "a", cluster_name="orders") as a,
        open_connection(a.address) as connection,
        watching(connection) as answers,
    ):
        alone = log_v1.Server(id="a", rpc_addr=a.address, is_leader=True)
        await _until(answers, lambda answer: answer.servers == [alone])
        async with node_inside(tmp_path / "b", "b", join=a.gossip, cluster_name="orders") as b:
            both = [alone, log_v1.Server(id="b", rpc_addr=b.address, is_leader=True)]
            await _until(answers, lambda answer: answer.servers == both)
        await _until(answers, lambda answer: answer.servers == [alone])
