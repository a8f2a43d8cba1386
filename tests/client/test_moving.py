"""Clients that go on at another node: over links of the test's own under a virtual clock, and with real nodes."""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskStatus

from proglog_trio._proto.log.v1 import Error, ProduceBatchRequest, ProduceBatchResponse
from proglog_trio.client import (
    Acknowledgement,
    BackoffConfig,
    ConnectionConfig,
    ConsumedRecord,
    Consumer,
    ConsumerConfig,
    NodeUnreachable,
    Producer,
    ProducerConfig,
    RecordsLost,
    StartOutOfRange,
    StatusCode,
    open_consumer,
    open_producer,
)
from proglog_trio.client.consumer import run_consumer
from proglog_trio.client.nodes import FOUND_SECONDS
from proglog_trio.client.producer import run_producer
from proglog_trio.log.batch import Batch
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.record import Record
from proglog_trio.rpc.calls import client_streams as streams
from proglog_trio.rpc.calls.sessions import ConsumeLink, ConsumeSession, ProduceLink, ProduceSession, StreamBroken
from proglog_trio.rpc.http2.transport_config import TransportConfig
from proglog_trio.rpc.server.log_service_state import ServerInfo
from proglog_trio.waiters import Waiters
from tests.backends import Clock
from tests.client.harness import CuttingProxy, RunningNode, cutting_proxy, running_node
from tests.client.test_consumer import fill, numbers, values_of
from tests.client.test_consumer_core import ORIGINS, answer_of, make_frame
from tests.client.test_moving_consumer import batch

ADDRESSES = ("first:1", "second:1", "third:1")
FAST = BackoffConfig(first=0.001, longest=0.01)

# -- consumers, virtual time -------------------------------------------------------------------------------------------


@asynccontextmanager
async def consuming(link: ConsumeLink, *addresses: str, **options: Any) -> AsyncIterator[Consumer]:
    async with run_consumer(ConsumerConfig(**options), link, random.Random(1), addresses or ADDRESSES) as consumer:
        yield consumer


async def test_the_consumer_stays_until_its_node_fails(autojump_clock: Clock) -> None:
    tried: list[str] = []
    fails = anyio.Event()

    async def link(session: ConsumeSession) -> None:
        tried.append(session.node)
        assert session.others
        request = session.request()
        await anyio.lowlevel.checkpoint()
        if len(tried) == 2:
            raise StreamBroken("connection refused")
        session.opened()
        first = 0 if len(tried) == 1 else 2
        assert (request.position is not None) == bool(first)
        session.received(answer_of((first, make_frame(ORIGINS[0], first, 2))))
        if len(tried) > 1:
            await anyio.sleep_forever()
        await fails.wait()
        raise StreamBroken("UNAVAILABLE: the node is stopping", StatusCode.UNAVAILABLE)

    async with consuming(link) as consumer:
        assert await values_of(consumer, 2) == [b"0.0", b"0.1"]
        await anyio.sleep(1000)
        assert tried == ["first:1"]
        assert consumer.reading_from == consumer.node == "first:1"
        fails.set()
        records = [await anext(consumer) for _ in range(2)]
        assert [record.value for record in records] == [b"0.2", b"0.3"]
        assert sorted(tried) == sorted(ADDRESSES)
        assert {record.node for record in records} == {tried[2]} == {consumer.node}


async def test_nodes_that_are_found_are_used_and_forgotten(autojump_clock: Clock) -> None:
    tried: list[str] = []
    fails = anyio.Event()

    async def link(session: ConsumeSession) -> None:
        tried.append(session.node)
        await anyio.lowlevel.checkpoint()
        if not fails.is_set():
            session.found(["first:1", "found:1", "nonsense"])
            session.opened()
            session.received(answer_of())
            await fails.wait()
        raise StreamBroken("lost")

    async with consuming(link, "first:1", reconnect_timeout=2 * FOUND_SECONDS) as consumer:
        assert consumer.nodes == ("first:1", "found:1")
        await anyio.sleep(FOUND_SECONDS - 100)
        fails.set()
        await anyio.sleep(99)
        assert set(tried) == {"first:1", "found:1"}
        await anyio.sleep(2)
        assert set(consumer.nodes) == {"first:1"}
        tried.clear()
        await anyio.sleep(100)
        assert set(tried) == {"first:1"}


async def test_a_search_that_fails_is_no_failure(autojump_clock: Clock) -> None:
    async def link(session: ConsumeSession) -> None:
        assert session.searches
        session.search_failed("PERMISSION_DENIED: no")
        session.opened()
        session.received(answer_of((0, make_frame(ORIGINS[0], 0, 1))))
        await anyio.sleep_forever()

    async with consuming(link, "first:1") as consumer:
        assert await values_of(consumer, 1) == [b"0.0"]
        assert consumer.nodes == ("first:1",)
        assert consumer.search_failure == "PERMISSION_DENIED: no"


async def test_an_offset_is_resolved_at_the_first_address(autojump_clock: Clock) -> None:
    tried: list[str] = []

    async def link(session: ConsumeSession) -> None:
        tried.append(session.node)
        request = session.request()
        await anyio.lowlevel.checkpoint()
        if len(tried) > 3 and request.offset is not None:
            session.opened()
            session.received(answer_of((5, make_frame(ORIGINS[0], 0, 1))))
        raise StreamBroken("lost")

    async with consuming(link, offset=5) as consumer:
        await values_of(consumer, 1)
        assert set(tried) == {"first:1"}
        await anyio.sleep(20)
        assert set(tried) == set(ADDRESSES)

    async def dead(session: ConsumeSession) -> None:
        await anyio.lowlevel.checkpoint()
        raise StreamBroken("refused")

    with pytest.raises(NodeUnreachable, match="an offset is a place in the log of first:1 alone"):
        async with consuming(dead, offset=5):
            pytest.fail("the block must not begin")


@pytest.mark.parametrize(
    ("status", "error"), [(StatusCode.OUT_OF_RANGE, StartOutOfRange), (StatusCode.DATA_LOSS, RecordsLost)]
)
async def test_every_node_is_asked_before_the_records_count_as_lost(
    status: StatusCode, error: type[Exception], autojump_clock: Clock
) -> None:
    tried: list[str] = []

    async def link(session: ConsumeSession) -> None:
        tried.append(session.node)
        await anyio.lowlevel.checkpoint()
        session.opened()
        if len(tried) == 1:
            session.received(answer_of((0, make_frame(ORIGINS[0], 0, 1))))
        raise StreamBroken("gone", status)

    async with consuming(link) as consumer:
        assert await values_of(consumer, 1) == [b"0.0"]
        begun = anyio.current_time()
        with pytest.raises(error, match="third:1: gone"):
            await values_of(consumer, 1)
        assert sorted(tried) == sorted(ADDRESSES)
        assert anyio.current_time() - begun < 1.0


async def test_copies_that_fill_the_buffer_do_not_stop_the_stream(autojump_clock: Clock) -> None:
    async def link(session: ConsumeSession) -> None:
        room = Waiters()
        session.opened(room.wake_all)
        session.received(answer_of((0, batch(ORIGINS[0], 0, 0))))
        for place in range(1, 100):
            while not session.has_room:
                await room.wait()
            await anyio.lowlevel.checkpoint()
            # Number 0 again and again, each time under another origin.
            session.received(answer_of((place, batch(type(ORIGINS[0])(bytes([place]) * 16), 0, 0))))
        session.received(answer_of((100, batch(ORIGINS[0], 1, 1))))
        await anyio.sleep_forever()

    async with consuming(link, prefetch_bytes=16 * 1024) as consumer:
        with anyio.fail_after(5):
            assert await values_of(consumer, 2) == [b"0.0", b"1.0"]
        assert consumer.duplicate_records == 99


# -- producers, virtual time -------------------------------------------------------------------------------------------


class FakeNodes:
    """Answers on links without I/O; what each node got is in requests."""

    def __init__(self) -> None:
        self.requests: dict[str, list[ProduceBatchRequest]] = {address: [] for address in ADDRESSES}
        self.silent: set[str] = set()
        self.dead: set[str] = set()
        self.read_only: set[str] = set()

    async def link(self, session: ProduceSession) -> None:
        await anyio.lowlevel.checkpoint()
        if session.node in self.dead:
            raise StreamBroken("connection refused")
        ready = Waiters()
        session.opened(ready.wake_all)
        while not session.finishing:
            while (data := session.next_request()) is not None:
                request = ProduceBatchRequest.FromString(data)
                self.requests[session.node].append(request)
                if session.node in self.silent:
                    continue
                answer = ProduceBatchResponse(producer_sequence=request.producer_sequence)
                if session.node in self.read_only:
                    answer.error = Error(code=StatusCode.ABORTED.value, message="the log takes no more")
                else:
                    answer.count, answer.origin = request.count, bytes(16)
                session.answered(answer)
            if session.node in self.dead:
                raise StreamBroken("the connection was lost")
            if not session.finishing:
                await ready.wait()


@asynccontextmanager
async def producing(link: ProduceLink, **options: Any) -> AsyncIterator[Producer]:
    async with run_producer(ProducerConfig(**options), link, random.Random(1), ADDRESSES) as producer:
        yield producer


async def test_a_stalled_node_is_left_and_all_is_sent_again_in_order(autojump_clock: Clock) -> None:
    nodes = FakeNodes()
    async with producing(nodes.link, linger=0.0, batch_records=1, answer_timeout=5.0) as producer:
        first = await (await producer.send(b"first")).wait()
        assert first.node == producer.node == "first:1"
        nodes.silent.add("first:1")
        deliveries = [await producer.send(b"%d" % number) for number in range(7)]
        delivered = [await delivery.wait() for delivery in deliveries]
        (node,) = {each.node for each in delivered}
        assert node != "first:1"
        assert producer.statistics.moves == 1
        stalled, moved = nodes.requests["first:1"], nodes.requests[node]
        assert [request.producer_sequence for request in stalled] == list(range(6))
        assert [request.producer_sequence for request in moved] == list(range(1, 8))
        assert stalled[1:] == moved[:5], "the same producer id, sequences and payloads"
        assert {request.producer_id for request in moved} == {producer.producer_id}


async def test_a_read_only_node_is_left(autojump_clock: Clock) -> None:
    nodes = FakeNodes()
    nodes.read_only.update(ADDRESSES[:2])
    async with producing(nodes.link, linger=0.0) as producer:
        delivered = await (await producer.send(b"value")).wait()
        assert delivered.node == "third:1"


async def test_a_node_that_is_not_there_is_passed_over_at_the_start(autojump_clock: Clock) -> None:
    nodes = FakeNodes()
    nodes.dead.update(ADDRESSES[:2])
    async with producing(nodes.link) as producer:
        assert (await (await producer.send(b"value")).wait()).node == "third:1"
    nodes.dead.add("third:1")
    with pytest.raises(NodeUnreachable):
        async with producing(nodes.link):
            pytest.fail("the block must not begin")


# -- real nodes --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def several_nodes(directory: Path, count: int) -> AsyncIterator[list[RunningNode]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running_node(directory / str(number))) for number in range(count)]


@pytest.mark.backends(system=["uvloop"])
async def test_a_consumer_goes_on_where_its_node_died(tmp_path: Path) -> None:
    """Three nodes with the same frames in other orders; the first is cut off, then the second stops."""
    config = ConsumerConfig(backoff=FAST, prefetch_bytes=16 * 1024, response_bytes=500)
    records: list[ConsumedRecord] = []
    async with AsyncExitStack() as stack:
        stack.enter_context(anyio.fail_after(30))
        third = await stack.enter_async_context(running_node(tmp_path / "c"))
        async with running_node(tmp_path / "b") as second, running_node(tmp_path / "a") as first:
            await fill(first.address, 0, 500)
            await fill(second.address, 500, 500)
            await fill(third.address, 1000, 500)
            await first.pull_all(second, third)
            await second.pull_all(first, reverse=True)
            await third.pull_all(second)
            async with (
                cutting_proxy(first.port) as proxy,
                open_consumer([proxy.address, second.address], config) as consumer,
            ):
                records += [await anext(consumer) for _ in range(700)]
                assert {record.node for record in records} == {proxy.address}
                assert [record.offset for record in records] == list(range(700))
                proxy.stall()
                proxy.cut()
                while consumer.node != second.address:
                    records.append(await anext(consumer))
                position = consumer.position
        # The second is gone too; another consumer goes on from where this one was, at the third.
        async with open_consumer([second.address, third.address], config, position=position) as consumer:
            while len(records) < 1500:
                records.append(await anext(consumer))
            assert consumer.node == third.address
    assert sorted(record.value for record in records) == numbers(0, 1500)
    assert len({(record.origin, record.sequence) for record in records}) == 1500


async def until_found(*clients: Consumer | Producer) -> None:
    """Wait until clients know a second node."""
    while any(len(client.nodes) < 2 for client in clients):  # noqa: ASYNC110 - nothing else shows it
        await anyio.sleep(0.01)


@pytest.mark.backends(system=["asyncio", "uvloop"])
async def test_reading_to_the_end_waits_until_another_node_has_it(tmp_path: Path) -> None:
    config = ConsumerConfig(backoff=FAST, follow=False, prefetch_bytes=16 * 1024, response_bytes=500)
    async with several_nodes(tmp_path, 2) as (first, second), cutting_proxy(first.port) as proxy:
        await fill(first.address, 0, 200)
        await second.pull_all(first)
        # more than a consumer has waiting: the rest must come from the other node
        await fill(first.address, 200, 1_800)
        with anyio.fail_after(20):
            async with open_consumer([proxy.address, second.address], config) as consumer:
                seen = await values_of(consumer, 100)
                await fill(first.address, 2_000, 10)
                proxy.stall()
                proxy.cut()
                async with anyio.create_task_group() as nursery:

                    async def read_on() -> None:
                        seen.extend([record.value async for record in consumer])

                    nursery.start_soon(read_on)
                    await second.until_asked()
                    await second.pull_all(first)
                assert consumer.node == second.address
    assert seen[:2_000] == numbers(0, 2_000), "at least what the first node had when the consumer opened"
    assert seen == numbers(0, len(seen))


async def serve_until_cancelled(
    directory: Path, scope: anyio.CancelScope, *, task_status: TaskStatus[RunningNode]
) -> None:
    with scope:
        async with running_node(directory) as node:
            task_status.started(node)
            await anyio.sleep_forever()


async def test_nodes_are_found(tmp_path: Path) -> None:
    first_scope = anyio.CancelScope()
    async with running_node(tmp_path / "b") as second, anyio.create_task_group() as nursery:
        first: RunningNode = await nursery.start(serve_until_cancelled, tmp_path / "a", first_scope)
        first.servers += [ServerInfo("a", first.address), ServerInfo("b", second.address)]
        await fill(first.address, 0, 10)
        await fill(second.address, 10, 10)
        await second.pull_all(first)
        with anyio.fail_after(30):
            async with (
                open_consumer(first.address, ConsumerConfig(backoff=FAST)) as consumer,
                open_producer(first.address, ProducerConfig(backoff=FAST, linger=0.0)) as producer,
            ):
                assert await values_of(consumer, 10) == numbers(0, 10)
                assert (await (await producer.send(b"one")).wait()).node == first.address
                assert await values_of(consumer, 1) == [b"one"]
                await until_found(consumer, producer)
                first_scope.cancel()
                assert await values_of(consumer, 10) == numbers(10, 10)
                delivered = await (await producer.send(b"two")).wait()
                assert (delivered.node, delivered.offset) == (second.address, 20)
                record = await anext(consumer)
                assert (record.value, record.node, record.offset) == (b"two", second.address, 20)


async def test_without_find_nodes_nobody_is_asked(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        node.servers.append(ServerInfo("b", "127.0.0.1:9"))
        async with open_consumer(node.address, ConsumerConfig(find_nodes=False)) as consumer:
            await fill(node.address, 0, 1)
            assert await values_of(consumer, 1) == numbers(0, 1)
            assert consumer.nodes == (node.address,)


@pytest.mark.backends(system=["uvloop"])
async def test_what_is_stored_twice_is_delivered_once(tmp_path: Path) -> None:
    """The first node stores batches whose answers are lost; the second stores them again; a third has them all."""
    config = ProducerConfig(backoff=FAST, linger=0.0)
    with anyio.fail_after(30):
        async with several_nodes(tmp_path, 3) as (first, second, third), cutting_proxy(first.port) as proxy:
            async with open_producer([proxy.address, second.address], config) as producer:
                await (await producer.send_batch(numbers(0, 10))).wait()
                proxy.hold_answers()
                deliveries = [await producer.send_batch(numbers(10 * number, 10)) for number in range(1, 5)]
                await first.until_durable(50)
                proxy.cut()
                for delivery in deliveries:
                    (part,) = await delivery.wait()
                    assert (part.node, part.duplicate) == (second.address, False)
                await (await producer.send_batch(numbers(50, 10))).wait()
                assert producer.statistics.moves == 1
            assert (first.log.next_offset, second.log.next_offset) == (50, 50)
            for other_order in (False, True):
                # The second's before the first's: what came first at the producer may come later at a consumer.
                others = (second, first) if other_order else (first, second)
                async with running_node(tmp_path / f"all {other_order}") as node:
                    await node.pull_all(*others)
                    assert node.log.next_offset == 100
                    seen: list[bytes] = []
                    position = None
                    while len(seen) < 60:
                        # A new consumer every 7 records: inside batches, and between their copies.
                        async with open_consumer(node.address, position=position, follow=False) as consumer:
                            seen += await values_of(consumer, 7)
                            position = consumer.position
                    begin = numbers(10, 50) + numbers(0, 10) if other_order else numbers(0, 60)
                    assert seen == begin
                    async with open_consumer(node.address, position=position, follow=False) as consumer:
                        assert await values_of(consumer, 1) == []
            await third.pull_all(first)
            # A node that has pulled the batch knows the retry, and does not store it again.
            assert third.log.next_offset == 50


@asynccontextmanager
async def proxies_of(nodes: list[RunningNode]) -> AsyncIterator[list[CuttingProxy]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(cutting_proxy(node.port)) for node in nodes]


@pytest.mark.backends(system=["uvloop"])
async def test_connections_that_break_under_load(tmp_path: Path) -> None:
    """Producers and consumers go from node to node all the time; a last node pulls everything and shows it to all."""
    rng = random.Random(11)
    acknowledged: list[bytes] = []
    moves = 0

    async def break_again_and_again(proxy: CuttingProxy) -> None:
        while True:
            proxy.cut_answers_after(rng.randrange(200, 3000))
            await proxy.was_cut.wait()

    async def produce(addresses: list[str], name: int) -> None:
        nonlocal moves
        config = ProducerConfig(backoff=FAST, batch_records=5, linger=0.0)
        async with open_producer(addresses, config, rng=random.Random(name)) as producer:
            for number in range(100):
                values = [b"%d.%d.%d" % (name, number, index) for index in range(rng.randrange(1, 20))]
                delivery = await producer.send_batch(values)
                if rng.random() < 0.3:
                    await delivery.wait()
                acknowledged.extend(values)
            await producer.flush()
            moves += producer.statistics.moves

    with anyio.fail_after(60):
        async with several_nodes(tmp_path, 4) as nodes, proxies_of(nodes) as proxies:
            addresses = [proxy.address for proxy in proxies]
            async with anyio.create_task_group() as breaking:
                for proxy in proxies:
                    breaking.start_soon(break_again_and_again, proxy)
                async with anyio.create_task_group() as producing:
                    for name in range(3):
                        producing.start_soon(produce, rng.sample(addresses[:3], 3), name)
                for node in (nodes[3], *nodes[:3]):
                    others = (other for other in nodes if other is not node)
                    await node.pull_all(*others, reverse=node is nodes[1])
                copies = nodes[3].log.next_offset - len(acknowledged)
                seen: list[bytes] = []
                position = None
                config = ConsumerConfig(backoff=FAST, prefetch_bytes=16 * 1024, response_bytes=1000)
                while len(seen) < len(acknowledged):
                    async with open_consumer(addresses, config, position=position, rng=rng) as consumer:
                        wanted = min(rng.randrange(1, 700), len(acknowledged) - len(seen))
                        seen += await values_of(consumer, wanted)
                        position = consumer.position
                    rng.shuffle(addresses)
                breaking.cancel_scope.cancel()
            async with open_consumer(nodes[0].address, position=position, follow=False) as consumer:
                assert await values_of(consumer, 1) == [], "nothing is left but copies"
    assert sorted(seen) == sorted(acknowledged)
    assert moves > 0
    assert copies > 0


async def test_a_node_whose_log_is_read_only_is_left(tmp_path: Path) -> None:
    async with (
        several_nodes(tmp_path, 2) as (first, second),
        open_producer([first.address, second.address], ProducerConfig(backoff=FAST)) as producer,
    ):
        assert (await (await producer.send(b"one")).wait()).node == first.address
        await first.call(first.log.room.ends, "the disk is full")
        with anyio.fail_after(5):
            assert (await (await producer.send(b"two")).wait()).node == second.address


async def test_records_that_one_node_lacks_come_from_another(tmp_path: Path) -> None:
    async with several_nodes(tmp_path, 2) as (first, second):
        await first.append(*(Batch.of([Record(b"%d" % number)]) for number in range(6)))
        reader = await first.call(first.log.reader_at_offset, 0)
        frames = reader.read(1 << 20, 6).frames
        reader.close()
        origin = frames[0].header.origin
        marker = GapMarker(origin, 0, 4, frames[3].header.header_crc, "retention")
        await second.append_gap(marker)
        await second.pull_all(first)
        assert second.log.next_offset == 2
        start = (await first.call(first.log.reader_at_offset, 2)).start_position
        begun = ConsumerConfig(backoff=FAST, position=start.encode())
        # Alone, the second lacks them; it is said, or skipped and said.
        async with open_consumer(second.address, begun) as consumer:
            with pytest.raises(StartOutOfRange, match=f"sequences 2 to 3 of origin {origin} are missing"):
                await values_of(consumer, 1)
        skipping = ConsumerConfig(backoff=FAST, position=begun.position, on_missing="skip")
        async with open_consumer(second.address, skipping) as consumer:
            assert await values_of(consumer, 2) == [b"4", b"5"]
            assert [skipped.node for skipped in consumer.skipped] == [second.address]
        async with open_consumer([second.address, first.address], begun) as consumer:
            with anyio.fail_after(5):
                assert await values_of(consumer, 4) == [b"2", b"3", b"4", b"5"]
            assert consumer.node == first.address
        # Who begins with what the second holds lacks nothing, there or elsewhere.
        async with open_consumer(second.address, follow=False) as consumer:
            assert await values_of(consumer, 9) == [b"4", b"5"]


async def test_nodes_that_answer_no_ping_are_left(tmp_path: Path) -> None:
    impatient = ConnectionConfig(transport=TransportConfig(keepalive_seconds=0.2, keepalive_timeout_seconds=0.2))
    async with several_nodes(tmp_path, 2) as (first, second), cutting_proxy(first.port) as proxy:
        await fill(first.address, 0, 10)
        await second.pull_all(first)
        addresses = [proxy.address, second.address]
        producing = ProducerConfig(backoff=FAST, linger=0.0)
        with anyio.fail_after(20):
            async with (
                open_consumer(addresses, ConsumerConfig(backoff=FAST), connection=impatient) as consumer,
                open_producer(addresses, producing, connection=impatient) as producer,
            ):
                assert await values_of(consumer, 10) == numbers(0, 10)
                assert consumer.node == proxy.address
                proxy.stall()
                delivered = await (await producer.send(b"elsewhere")).wait()
                assert (delivered.node, delivered.offset) == (second.address, 10)
                record = await anext(consumer)
                assert (record.value, record.node, record.offset) == (b"elsewhere", second.address, 10)
                proxy.cut()


async def test_a_first_node_that_is_stalled_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "CONNECT_SECONDS_AMONG_SEVERAL", 0.2)
    async with running_node(tmp_path) as node, cutting_proxy(node.port) as proxy:
        proxy.stall()
        addresses = [proxy.address, node.address]
        with anyio.fail_after(9):
            async with open_consumer(addresses) as consumer, open_producer(addresses) as producer:
                assert (await (await producer.send(b"value")).wait()).node == node.address
                assert await values_of(consumer, 1) == [b"value"]
        proxy.cut()


async def test_a_node_that_knows_of_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "GET_SERVERS", "/log.v1.Log/Nothing")
    async with running_node(tmp_path) as node, open_consumer(node.address) as consumer:
        await fill(node.address, 0, 3)
        assert await values_of(consumer, 3) == numbers(0, 3)
        assert consumer.search_failure is not None
        assert "UNIMPLEMENTED" in consumer.search_failure


async def test_what_an_acknowledgement_achieved(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        asked = Acknowledgement.parse("2", timeout=0.1)
        async with open_producer(node.address, acknowledgement=asked) as producer:
            delivered = await (await producer.send(b"value")).wait()
            assert (delivered.achieved, delivered.reached) == (1, False)
        async with open_producer(node.address, acknowledgement=Acknowledgement.parse("1")) as producer:
            assert (await (await producer.send(b"value")).wait()).reached


def test_acknowledgements_as_text() -> None:
    assert Acknowledgement.parse("local") == Acknowledgement.local()
    assert Acknowledgement.parse("3", 2.0) == Acknowledgement.nodes_of(3, 2.0)
    assert Acknowledgement.parse("majority", 2.0) == Acknowledgement.majority(2.0)
    for text in ("", "all", "-1", "1.5", "²"):
        with pytest.raises(ValueError, match="local, majority, or a number"):
            Acknowledgement.parse(text)
    with pytest.raises(ValueError, match="at least 1 node"):
        Acknowledgement.parse("0")


async def test_an_address_that_is_none() -> None:
    for addresses in ("127.0.0.1", [], ["127.0.0.1:1", "x"]):
        with pytest.raises(ValueError, match=r"no port|at least one"):
            async with open_consumer(addresses):
                pytest.fail("the block must not begin")
        with pytest.raises(ValueError, match=r"no port|at least one"):
            async with open_producer(addresses):
                pytest.fail("the block must not begin")
