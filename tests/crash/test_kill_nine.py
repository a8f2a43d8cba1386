"""kill -9 under load: what a node acknowledged is there after it, once, in order, without a hole.

A real node process, real producers and a real consumer. When the node is killed is decided by how many records are
acknowledged, not by a clock; what is under way at that moment differs from run to run.
"""

import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import trio
from attrs import Factory, define

from proglog_trio.client import (
    BackoffConfig,
    BatchDelivery,
    ConsumedRecord,
    DeliveryError,
    ProducerConfig,
    RecordsNotDelivered,
    open_consumer,
    open_producer,
)
from proglog_trio.log.format.envelope import EnvelopeKind
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.inspect.dump import DumpedEntry, dump_directory
from tests.node_process import NodeProcess, node_process

PRODUCERS = 4
# of the test in which producers go on; more in all than two kills can wait for
RECORDS_EACH = 700
ROUND_SECONDS = 120


@define
class Load:
    """What producers sent, and what of it was acknowledged at which offset."""

    rng: random.Random
    sent: dict[int, int] = Factory(lambda: dict.fromkeys(range(PRODUCERS), 0))
    acknowledged: dict[int, int] = Factory(lambda: dict.fromkeys(range(PRODUCERS), 0))
    offset_of: dict[tuple[int, int], int] = Factory(dict)
    enough: trio.Event = Factory(trio.Event)
    threshold: int = 0
    # in some rounds large, since only a large write is likely to be torn
    sizes: tuple[int, ...] = Factory(
        lambda self: self.rng.choice(((0, 10, 100, 3000), (0, 10, 100, 3000), (3000, 30_000))), takes_self=True
    )

    @property
    def total(self) -> int:
        return sum(self.acknowledged.values())

    def value(self, producer: int) -> bytes:
        """The producer's next record: who, which, and some bytes that compress badly and differ in length."""
        number = self.sent[producer]
        self.sent[producer] += 1
        return b"%d %d " % (producer, number) + self.rng.randbytes(self.rng.choice(self.sizes))

    def acknowledge(self, producer: int, offset: int, count: int) -> None:
        first = self.acknowledged[producer]
        for index in range(count):
            self.offset_of[producer, first + index] = offset + index
        self.acknowledged[producer] = first + count
        if self.total >= self.threshold:
            self.enough.set()


def config(rng: random.Random) -> ProducerConfig:
    """Many small batches or few large ones, one under way or several."""
    return ProducerConfig(
        batch_bytes=rng.choice((1_000, 20_000, 200_000, 3_000_000)),
        linger=rng.choice((0.0, 0.001)),
        in_flight=rng.choice((1, 5)),
        buffer_bytes=8_000_000,
        backoff=BackoffConfig(first=0.02, longest=0.2),
    )


async def keep_producing(load: Load, producer_number: int, address: str, limit: int | None) -> None:
    """Send records until cancelled, or until ``limit`` are sent and acknowledged."""
    chunk = load.rng.choice((1, 7, 100))
    sending, settling = trio.open_memory_channel[BatchDelivery](100)

    async def settle() -> None:
        async for delivery in settling:
            for outcome in await delivery.outcomes():
                if isinstance(outcome, DeliveryError):
                    return  # the producer is given up: nothing that it sent later may be counted as acknowledged
                load.acknowledge(producer_number, outcome.base_offset, outcome.count)

    try:
        async with (
            open_producer(address, config(load.rng)) as producer,
            trio.open_nursery() as nursery,
            sending,
        ):
            nursery.start_soon(settle)
            while limit is None or load.sent[producer_number] < limit:
                values = [load.value(producer_number) for _ in range(chunk)]
                await sending.send(await producer.send_batch(values))
    except ExceptionGroup as group:
        rest = group.split((RecordsNotDelivered, trio.BrokenResourceError))[1]
        if limit is not None or rest is not None:
            raise


@asynccontextmanager
async def under_load(load: Load, address: str, limit: int | None = None) -> AsyncIterator[trio.CancelScope]:
    async with trio.open_nursery() as nursery:
        for number in range(PRODUCERS):
            nursery.start_soon(keep_producing, load, number, address, limit)
        yield nursery.cancel_scope


async def read_all(node: NodeProcess) -> list[ConsumedRecord]:
    async with open_consumer(node.address, follow=False) as consumer:
        return [record async for record in consumer]


def check(load: Load, records: list[ConsumedRecord], node: NodeProcess, *, complete: bool) -> None:
    """What is found is a prefix of what each producer sent: all acknowledged, perhaps more, no hole, nothing twice."""
    names = {(bytes(record.origin), record.sequence) for record in records}
    assert len(names) == len(records), "(origin, sequence) names two records"
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for record in records:
        who, which, _ = record.value.split(b" ", 2)
        found[int(who)].append((int(which), record.offset))
    for producer in range(PRODUCERS):
        numbers = [number for number, _ in found[producer]]
        assert numbers == list(range(len(numbers))), f"producer {producer}: not a prefix of what it sent"
        assert load.acknowledged[producer] <= len(numbers) <= load.sent[producer]
        if complete:
            assert len(numbers) == load.sent[producer] == load.acknowledged[producer]
        for number, offset in found[producer]:
            assert load.offset_of.get((producer, number), offset) == offset, "acknowledged at another offset"
    check_offsets([record.offset for record in records], node)


def check_offsets(offsets: list[int], node: NodeProcess) -> None:
    """Offsets grow by one, and jump only where the node says that the kill tore its last write.

    Recovery moves such a tail aside, and gives the offsets in it to nobody else. Each jump has to begin where a tail
    was logged as moved aside, and end where the log was reopened; nothing else excuses one.
    """
    jumps = [(before + 1, after) for before, after in pairwise([-1, *offsets]) if after != before + 1]
    if not jumps:
        return
    events = [json.loads(line) for line in node.logged().splitlines()]
    torn = {event["from_offset"] for event in events if "moved_to" in event}
    reopened = {
        item.found.envelope.base_offset
        for item in dump_directory(Path(node.ready["data_dir"]))
        if isinstance(item, DumpedEntry)
        and isinstance(item.found, StoredFrame)
        and item.found.envelope.kind is EnvelopeKind.REOPENED
    }
    for begin, end in jumps:
        assert begin in torn, f"offsets {begin} to {end - 1} are missing, and no tail there was moved aside"
        assert end in reopened, f"offsets {begin} to {end - 1} are missing, and the log was not reopened at {end}"


async def test_what_was_acknowledged_is_found_after_a_kill(crash_seed: int, tmp_path: Path) -> None:
    rng = random.Random(crash_seed)
    load = Load(rng)
    with trio.fail_after(ROUND_SECONDS):
        for kill in range(rng.choice((1, 1, 2))):
            async with node_process(tmp_path / "data") as node:
                if kill:
                    # what the one before left unacknowledged is settled now, and the producers that sent it are gone
                    records = await read_all(node)
                    check(load, records, node, complete=False)
                    for producer in range(PRODUCERS):
                        load.sent[producer] = load.acknowledged[producer] = sum(
                            record.value.startswith(b"%d " % producer) for record in records
                        )
                load.threshold = load.total + rng.randrange(3000)
                load.enough = trio.Event()
                async with under_load(load, node.address) as scope:
                    await load.enough.wait()
                    node.kill()
                    await node.process.wait()
                    scope.cancel()
        async with node_process(tmp_path / "data") as node:
            check(load, await read_all(node), node, complete=False)
            assert await node.stop() == 0


async def test_producers_go_on_after_a_kill_and_store_nothing_twice(crash_seed: int, tmp_path: Path) -> None:
    rng = random.Random(-crash_seed - 1)
    load = Load(rng)
    data_dir = tmp_path / "data"
    checked = trio.Event()
    all_done = trio.Event()

    async def kill_and_restart(node: NodeProcess, times: int) -> None:
        """Kill the node under load, start it again at the same address, and so on; read all once nobody writes."""
        load.threshold = load.total + rng.randrange(1, RECORDS_EACH)
        load.enough = trio.Event()
        await load.enough.wait()
        node.kill()
        await node.process.wait()
        async with node_process(data_dir, rpc_port=int(node.address.rpartition(":")[2])) as restarted:
            if times > 1:
                await kill_and_restart(restarted, times - 1)
                return
            await all_done.wait()
            check(load, await read_all(restarted), restarted, complete=True)
            checked.set()
            assert await restarted.stop() == 0

    with trio.fail_after(ROUND_SECONDS):
        async with node_process(data_dir) as node, trio.open_nursery() as nursery:
            nursery.start_soon(kill_and_restart, node, rng.choice((1, 1, 2)))
            async with under_load(load, node.address, limit=RECORDS_EACH):
                pass
            all_done.set()
    assert checked.is_set()
