"""Clients and nodes of different clusters: nothing is stored by, or read from, a node of another."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from google.rpc import error_details_pb2
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.client import (
    Anchor,
    BackoffConfig,
    ConsumerConfig,
    DeliveryTimeout,
    NodeUnreachable,
    ProducerConfig,
    open_consumer,
    open_producer,
)
from proglog_trio.client.nodes import ELSEWHERE_SECONDS, MAX_FOUND, NodeList
from proglog_trio.rpc.calls.connection import ConnectionConfig, TunedChannel, open_connection
from proglog_trio.rpc.calls.sessions import ExpectedCluster, OtherCluster
from proglog_trio.rpc.messages.cluster_names import CLUSTER_KEY, OTHER_CLUSTER, decode_name, encode_name
from proglog_trio.rpc.server.log_service_state import ServerInfo
from tests.client.harness import RunningNode, running_node
from tests.rpc.support import batch_request

pytestmark = pytest.mark.backends(system=["uvloop"])

FAST = BackoffConfig(first=0.001, longest=0.05)


def running(directory: Path, cluster: str | None, port: int = 0) -> AbstractAsyncContextManager[RunningNode]:
    """Run a node; cluster: None for one of a version that neither says nor looks."""
    return running_node(directory, port, cluster=cluster)


def tell(*nodes: RunningNode) -> None:
    """Have each of these nodes tell of all of them."""
    for node in nodes:
        node.servers[:] = [ServerInfo(f"n{number}", each.address) for number, each in enumerate(nodes)]


# -- names -------------------------------------------------------------------------------------------------------------


@given(st.text(min_size=1, max_size=40))
def test_a_name_is_the_same_after_metadata(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    encoded = encode_name(name)
    assert encoded.isascii()
    assert encoded.isprintable()
    assert decode_name(encoded) == name


# -- nodes -------------------------------------------------------------------------------------------------------------

CALLS: dict[str, tuple[Cardinality, Any, type]] = {
    "Produce": (
        Cardinality.UNARY_UNARY,
        log_v1.ProduceRequest(record=log_v1.Record(value=b"x")),
        log_v1.ProduceResponse,
    ),
    "Consume": (Cardinality.UNARY_UNARY, log_v1.ConsumeRequest(), log_v1.ConsumeResponse),
    "ConsumeStream": (Cardinality.UNARY_STREAM, log_v1.ConsumeRequest(), log_v1.ConsumeResponse),
    "ProduceStream": (
        Cardinality.STREAM_STREAM,
        log_v1.ProduceRequest(record=log_v1.Record(value=b"x")),
        log_v1.ProduceResponse,
    ),
    "GetServers": (Cardinality.UNARY_UNARY, log_v1.GetServersRequest(), log_v1.GetServersResponse),
    "ProduceBatches": (Cardinality.STREAM_STREAM, batch_request([b"x"]), log_v1.ProduceBatchResponse),
    "ConsumeBatches": (Cardinality.UNARY_STREAM, log_v1.ConsumeBatchesRequest(offset=0), log_v1.ConsumeBatchesResponse),
}


async def first_answer(channel: TunedChannel, name: str, metadata: dict[str, str]) -> tuple[Any, Any]:
    """Return the first answer to a call, and the metadata before it (asyncio flavour)."""
    cardinality, request, answer = CALLS[name]
    stream: Any
    async with channel.request(f"/log.v1.Log/{name}", cardinality, type(request), answer, metadata=metadata) as stream:
        await stream.send_message(request, end=True)
        message = await stream.recv_message()
        told = stream.initial_metadata
        if stream._stream.closable:
            await stream.cancel()
        return message, told


async def refused(channel: TunedChannel, name: str, metadata: dict[str, str]) -> GRPCError:
    with pytest.raises(GRPCError) as caught:
        await first_answer(channel, name, metadata)
    return caught.value


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_says_the_cluster_and_is_refused_when_it_is_meant_for_another(
    tmp_path: Path, name: str
) -> None:
    """Also a call that sends no name, as the book's clients, is answered as ever."""
    async with running(tmp_path, "orders ü%") as node, open_connection(node.address) as connection:
        error = await connection.run(refused, name, {CLUSTER_KEY: "billing"})
        assert error.status is Status.FAILED_PRECONDITION
        assert error.message == "this node is of the cluster 'orders ü%', not of 'billing'"
        assert error.details == [
            error_details_pb2.ErrorInfo(reason=OTHER_CLUSTER, domain="log.v1", metadata={"cluster_name": "orders ü%"})
        ]
        assert node.log.next_offset == 0
        assert node.counters.requests_for_other_clusters == 1
        _, _ = await connection.run(first_answer, "Produce", {})
        for sent in ({}, {CLUSTER_KEY: encode_name("orders ü%")}):
            answer, told = await connection.run(first_answer, name, sent)
            assert answer is not None
            assert decode_name(told[CLUSTER_KEY]) == "orders ü%"
        if name == "GetServers":
            assert answer.cluster_name == "orders ü%"


@pytest.mark.parametrize("value", ["%", "%ff", "x" * 2000])
async def test_what_is_no_name_is_another_clusters(tmp_path: Path, value: str) -> None:
    async with running(tmp_path, "orders") as node, open_connection(node.address) as connection:
        error = await connection.run(refused, "Produce", {CLUSTER_KEY: value})
        assert error.status is Status.FAILED_PRECONDITION
        assert len(error.message or "") < 300
        assert node.log.next_offset == 0


async def test_any_call_on_a_connection_that_expects_a_cluster_fails_at_a_node_of_another(tmp_path: Path) -> None:
    """By the node's refusal, and where it does not look, by what it says with its answer."""
    async with running(tmp_path, "billing") as node:
        expected = ExpectedCluster("orders")
        async with open_connection(node.address, ConnectionConfig(cluster=expected)) as connection:
            for name in CALLS:
                with pytest.raises(OtherCluster, match="of the cluster 'billing', not of 'orders'"):
                    await connection.run(first_answer, name, {})
        assert node.log.next_offset == 0


# -- clients -----------------------------------------------------------------------------------------------------------


def producer_config(**changes: Any) -> ProducerConfig:
    return ProducerConfig(backoff=FAST, **changes)


@pytest.mark.parametrize("how", ["given", "told by nodes"])
@pytest.mark.parametrize("configured", [True, False])
async def test_a_producer_never_goes_on_at_a_node_of_another_cluster(
    tmp_path: Path, how: str, configured: bool
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running(tmp_path / "first", "orders"))
        second = await stack.enter_async_context(running(tmp_path / "second", "orders"))
        foreign = await stack.enter_async_context(running(tmp_path / "foreign", "billing"))
        tell(first, second, *([foreign] if how == "told by nodes" else []))
        addresses = [first.address, foreign.address] if how == "given" else [first.address]
        config = producer_config(cluster_name="orders" if configured else None)
        async with open_producer(addresses, config) as producer:
            assert (await (await producer.send(b"1")).wait()).node == first.address
            assert producer.cluster_name == "orders"
            with anyio.fail_after(10):
                while second.address not in producer.nodes:  # noqa: ASYNC110 - no event tells of it
                    await anyio.sleep(0.01)
            await first.stop()
            for number in range(20):
                delivered = await (await producer.send(b"%d" % number)).wait()
                assert delivered.node == second.address
        assert foreign.log.next_offset == 0
        assert second.log.next_offset == 20


@pytest.mark.parametrize("batches", [1, 20])
async def test_a_producer_that_is_given_a_node_of_another_cluster_goes_to_the_next(
    tmp_path: Path, batches: int
) -> None:
    async with running(tmp_path / "a", "billing") as foreign, running(tmp_path / "b", "orders") as node:
        tell(foreign)
        config = producer_config(cluster_name="orders", linger=0.0)
        async with open_producer([foreign.address, node.address], config) as producer:
            deliveries = [await producer.send_batch([b"%d" % number]) for number in range(batches)]
            for delivery in deliveries:
                (stored,) = await delivery.wait()
                assert stored.node == node.address
                assert not stored.duplicate
            assert foreign.address not in producer.nodes
        assert foreign.log.next_offset == 0
        assert node.log.next_offset == batches


async def test_a_producer_with_no_node_of_its_cluster_says_so_and_asks_none_again(tmp_path: Path) -> None:
    async with running(tmp_path, "billing") as foreign:
        config = producer_config(cluster_name="orders", connect_timeout=1.0)
        with pytest.raises(NodeUnreachable, match="of the cluster 'billing', not of 'orders'"):
            async with open_producer(foreign.address, config):
                pass
        assert foreign.counters.connections == 1
        config = producer_config(cluster_name="orders", connect_timeout=None, delivery_timeout=0.5, linger=0.0)
        async with open_producer(foreign.address, config) as producer:
            with pytest.raises(DeliveryTimeout, match="not stored") as caught:
                await (await producer.send(b"x")).wait()
            assert not caught.value.maybe_stored
        assert foreign.log.next_offset == 0


async def test_an_address_that_is_given_to_another_cluster_while_it_is_used(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        second = await stack.enter_async_context(running(tmp_path / "second", "orders"))
        first = await stack.enter_async_context(running(tmp_path / "first", "orders"))
        tell(first, second)
        producer = await stack.enter_async_context(open_producer(first.address, producer_config()))
        consumer = await stack.enter_async_context(
            open_consumer(first.address, ConsumerConfig(backoff=FAST), anchor=Anchor.END)
        )
        await (await producer.send(b"before")).wait()
        assert (await anext(consumer)).value == b"before"
        with anyio.fail_after(10):
            while not all(second.address in each.nodes for each in (producer, consumer)):  # noqa: ASYNC110 - no event
                await anyio.sleep(0.01)
        await first.stop()
        foreign = await stack.enter_async_context(running(tmp_path / "foreign", "billing", first.port))
        with anyio.fail_after(20):
            for _ in range(5):
                delivered = await (await producer.send(b"after")).wait()
                assert delivered.node == second.address
            record = await anext(consumer)
        assert (record.value, record.node) == (b"after", second.address)
        assert foreign.log.next_offset == 0


@pytest.mark.parametrize("follow", [True, False])
async def test_a_consumer_is_given_nothing_of_another_cluster(tmp_path: Path, follow: bool) -> None:
    async with running(tmp_path / "a", "billing") as foreign, running(tmp_path / "b", "orders") as node:
        for each, value in ((foreign, b"invoice"), (node, b"order")):
            async with open_producer(each.address) as producer:
                await (await producer.send(value)).wait()
        config = ConsumerConfig(cluster_name="orders", follow=follow, backoff=FAST)
        async with open_consumer([foreign.address, node.address], config) as consumer:
            record = await anext(consumer)
            assert (record.value, record.node) == (b"order", node.address)
            assert consumer.cluster_name == "orders"
        config = ConsumerConfig(cluster_name="orders", connect_timeout=2.0, backoff=FAST)
        with pytest.raises(NodeUnreachable, match="of the cluster 'billing', not of 'orders'"):
            async with open_consumer(foreign.address, config):
                pass


async def test_nodes_that_do_not_say_their_cluster_are_used_as_before(tmp_path: Path) -> None:
    async with running(tmp_path, None) as node:
        async with open_producer(node.address, producer_config(cluster_name="orders")) as producer:
            await (await producer.send(b"x")).wait()
        async with open_consumer(node.address) as consumer:
            assert (await anext(consumer)).value == b"x"
            assert consumer.cluster_name is None


# -- which node is next ------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["found", "elsewhere", "failed", "move", "wait"]), st.integers(0, 99))))
def test_a_node_of_another_cluster_is_never_next_while_there_is_another(steps: Sequence[tuple[str, int]]) -> None:
    nodes = NodeList(("given:1", "given:2"), random.Random(0))
    addresses = ["given:1", "given:2", *(f"found:{number}" for number in range(1, 99))]
    elsewhere: dict[str, float] = {}
    now = 0.0
    for what, number in steps:
        address = addresses[number % len(addresses)]
        match what:
            case "found":
                nodes.found([address, addresses[number // 2 + 1]], now)
            case "elsewhere":
                nodes.found_elsewhere(address, "it is of another", now)
                elsewhere[address] = now + ELSEWHERE_SECONDS
            case "failed":
                nodes.failed(address)
            case "wait":
                now += number
            case "move":
                chosen = nodes.move(now)
                known = nodes.known(now)
                assert chosen in known or (not known and chosen in nodes.given and nodes.elsewhere(chosen, now))
        assert len(nodes._elsewhere) <= MAX_FOUND + 2
        lasting = [address for address, until in elsewhere.items() if until > now]
        if len(elsewhere) <= MAX_FOUND:
            assert not set(nodes.known(now)) & set(lasting)
