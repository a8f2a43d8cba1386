"""What only a node has that is away, over real processes: missing, told, waited for, and in its place at last."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from proglog_trio._proto.log.v1 import GetStatusResponse
from proglog_trio.client import (
    Acknowledgement,
    ConsumedRecord,
    ConsumerConfig,
    ProducerConfig,
    open_consumer,
    open_producer,
)
from tests.node_process import NodeProcess, node_process, run_command
from tests.replication.real_nodes import LOCAL, joining, records_of, running_nodes, wait_for, wait_for_records

COUNT = 50
LONG = 180


def missing(status: GetStatusResponse) -> list[tuple[int, set[str]]]:
    return [
        (each.to_sequence - each.from_sequence, set(each.may_have))
        for origin in status.origins
        for each in origin.missing_at_present
    ]


def damage(directory: Path, value: bytes) -> None:
    """Flip a bit of a record on a disk."""
    (path,) = (path for path in (directory / "log").glob("*.store") if value in path.read_bytes())
    content = bytearray(path.read_bytes())
    content[content.index(value)] ^= 1
    path.write_bytes(content)


async def consume(node: NodeProcess, into: list[ConsumedRecord], count: int) -> None:
    config = ConsumerConfig(on_missing="wait", find_nodes=False)
    async with open_consumer(node.address, config) as consumer:
        async for record in consumer:
            into.append(record)
            if len(into) == count:
                return


@pytest.mark.system
@pytest.mark.timeout(400)
async def test_what_only_a_node_has_that_is_away(tmp_path: Path) -> None:
    with trio.fail_after(2 * LONG):
        async with running_nodes(tmp_path, "abc") as (a, b, c), open_producer(a.address) as producer:
            await (await producer.send(b"known to all")).wait()
            await wait_for_records([a, b, c], 1)
        async with (
            node_process(tmp_path / "a", "--node-name", "a", *LOCAL) as a,
            node_process(tmp_path / "c", "--node-name", "c", *LOCAL, *joining(a)),
            open_producer(a.address, ProducerConfig(acknowledgement=Acknowledgement.nodes_of(2))) as producer,
        ):
            for number in range(COUNT):
                delivery = await producer.send(b"value %04d" % number)
                assert (await delivery.wait()).reached
        damage(tmp_path / "a", b"value 0020")
        async with (
            node_process(tmp_path / "a", "--node-name", "a", *LOCAL) as a,
            node_process(tmp_path / "b", "--node-name", "b", *LOCAL, *joining(a)) as b,
        ):
            with trio.fail_after(LONG):
                while not missing(await wait_for(b, lambda status: status.next_offset > 0)):  # noqa: ASYNC110 - asked
                    await trio.sleep(1)
            status = await wait_for(b, lambda status: bool(missing(status)))
            assert missing(status) == [(1, {"a", "c"})]
            assert status.next_offset == COUNT + 1
            _, output, _ = await run_command("gaps", "list", "--addr", b.address)
            assert b"a, c" in output or b"c, a" in output
            skipping = ConsumerConfig(follow=False, on_missing="skip", find_nodes=False)
            async with open_consumer(b.address, skipping) as consumer:
                assert len([record async for record in consumer]) == COUNT
                assert consumer.skipped_offsets == 1
            found: list[ConsumedRecord] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(consume, b, found, COUNT + 1)
                async with node_process(tmp_path / "c", "--node-name", "c", *LOCAL, *joining(a)):
                    await wait_for(b, lambda status: not missing(status))
            values = [b"known to all", *(b"value %04d" % number for number in range(COUNT))]
            assert [record.value for record in found] == values
            assert [record.value for record in await records_of(b)] == values


@pytest.mark.system
async def test_of_two_copies_of_a_directory_the_later_node_ends_and_says_why(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "a") as (a,):
        async with open_producer(a.address) as producer:
            await (await producer.send(b"written once")).wait()
        await trio.run_process(["cp", "-r", str(tmp_path / "a"), str(tmp_path / "copy")])
        copy = node_process(tmp_path / "copy", "--node-name", "copy", *LOCAL, *joining(a))
        with trio.fail_after(60):
            async with copy as second:
                code = await second.process.wait()
        assert code == 2
        assert "node a uses a copy of this data directory" in second.logged()
        with trio.fail_after(30):
            while "uses a copy of this node's data directory" not in a.logged():  # noqa: ASYNC110 - a file
                await trio.sleep(0.05)
        status = await wait_for(a, lambda status: [copy.is_alive for copy in status.copies] == [False])
        assert [copy.name for copy in status.copies] == ["copy"]
        code, _, errors = await run_command("log", "new-id", str(tmp_path / "copy"))
        assert code == 0, errors
        async with node_process(tmp_path / "copy", "--node-name", "copy", *LOCAL, *joining(a)) as second:
            config = ProducerConfig(acknowledgement=Acknowledgement.nodes_of(2))
            async with open_producer(second.address, config) as producer:
                delivery = await producer.send(b"written by the copy")
                assert (await delivery.wait()).reached
            await wait_for_records([a, second], 2)
            assert [record.value for record in await records_of(a)] == [b"written once", b"written by the copy"]
