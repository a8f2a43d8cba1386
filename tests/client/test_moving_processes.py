"""Clients over a real cluster whose nodes are killed: what is acknowledged is delivered, once.

Among the system's tests for its five processes. In the plain ones nodes are killed under load in tests/crash, and
clients move between servers of this process in test_moving.py.
"""

from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskStatus

from proglog_trio.client import BackoffConfig, ConsumerConfig, ProducerConfig, open_consumer, open_producer
from proglog_trio.waiters import Waiters
from tests.node_process import NodeProcess, node_process
from tests.trio_thread import in_trio_thread

BACKOFF = BackoffConfig(first=0.01, longest=0.2)


@pytest.mark.system
@pytest.mark.backends("trio", "asyncio")
async def test_nodes_that_are_killed_under_load(tmp_path: Path) -> None:
    acknowledged: set[bytes] = set()
    seen: list[bytes] = []
    nodes_of_records: set[str] = set()
    sent = 0
    grown = Waiters()

    async def run_node(directory: str, name: str, *join: str, task_status: TaskStatus[NodeProcess]) -> None:
        options = ["--node-name", name, "--gossip-profile", "local"]
        for address in join:
            options += ["--start-join-addrs", address]
        async with in_trio_thread(partial(node_process, tmp_path / directory, *options)) as (thread, node):
            task_status.started(node)
            await thread.run(node.process.wait)

    async def produce(addresses: list[str]) -> None:
        config = ProducerConfig(backoff=BACKOFF, linger=0.0)
        async with open_producer(addresses, config) as producer, anyio.create_task_group() as nursery:

            async def send_on() -> None:
                nonlocal sent
                while True:
                    values = [b"%08d" % number for number in range(sent, sent + 20)]
                    sent += 20
                    await (await producer.send_batch(values)).wait()
                    acknowledged.update(values)
                    grown.wake_all()

            for _ in range(6):
                nursery.start_soon(send_on)

    async def consume(address: str) -> None:
        async with open_consumer(address, ConsumerConfig(backoff=BACKOFF)) as consumer:
            async for record in consumer:
                seen.append(record.value)
                nodes_of_records.add(record.node)
                grown.wake_all()

    async def more_acknowledged(count: int) -> None:
        wanted = len(acknowledged) + count
        while len(acknowledged) < wanted:
            await grown.wait()

    with anyio.fail_after(120):
        async with anyio.create_task_group() as nursery:
            a: NodeProcess = await nursery.start(run_node, "a", "a")
            b: NodeProcess = await nursery.start(run_node, "b", "b", a.ready["gossip_addr"])
            c: NodeProcess = await nursery.start(run_node, "c", "c", a.ready["gossip_addr"])
            load = anyio.CancelScope()

            async def produce_while_wanted() -> None:
                with load:
                    await produce([a.address, b.address])

            nursery.start_soon(produce_while_wanted)
            nursery.start_soon(consume, a.address)
            await more_acknowledged(3000)
            a.kill()
            await more_acknowledged(3000)
            # Under another name: the cluster may not have noticed yet that the old one is gone.
            await nursery.start(run_node, "a", "a again", c.ready["gossip_addr"])
            b.kill()
            await more_acknowledged(3000)
            await nursery.start(run_node, "b", "b again", c.ready["gossip_addr"])
            load.cancel()
            while not acknowledged <= set(seen):
                await grown.wait()
            nursery.cancel_scope.cancel()
    assert len(seen) == len(set(seen))
    assert len(nodes_of_records) >= 2
