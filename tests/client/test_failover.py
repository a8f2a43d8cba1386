"""Clients whose node stops without a word, in a real cluster with the timing that nodes have by default."""

from __future__ import annotations

import asyncio
import itertools
import math
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import sniffio
import trio
from attrs import define, field

from proglog_trio.address import Address
from proglog_trio.client import BackoffConfig, ConsumerConfig, ProducerConfig, open_consumer, open_producer
from proglog_trio.membership.wire.memberlist import Dead, encode_message
from proglog_trio.rpc.calls.connection import TunedChannel
from proglog_trio.rpc.calls.server_watch import LIFE_SECONDS
from proglog_trio.rpc.server.server_list.news import REST_SECONDS
from tests.node_process import NodeProcess, node_process

FAST = BackoffConfig(first=0.01, longest=0.2)
WARM_SECONDS = 3.0
"""Until each client has found the others, and has one of them that tells."""
KEEPALIVE_SECONDS = 20.0
"""When a client would notice by itself."""
pytestmark = [pytest.mark.system, pytest.mark.backends("trio")]


@define
class Seen:
    """What clients see: when each first used another node after the fault, and how long the longest gap was."""

    first: str
    fault_at: float = math.inf
    moved: dict[str, float] = field(factory=dict)
    is_warm: bool = False

    def note(self, client: str, node: str) -> None:
        if node != self.first and client not in self.moved:
            self.moved[client] = time.monotonic() - self.fault_at


async def clients(address: str, seen: Seen) -> None:
    """Write and read at once, until both do so at another node."""
    async with (
        open_producer(address, ProducerConfig(backoff=FAST, linger=0.0)) as producer,
        open_consumer(address, ConsumerConfig(backoff=FAST)) as consumer,
        anyio.create_task_group() as tasks,
    ):

        async def write() -> None:
            while True:
                delivered = await (await producer.send(b"x")).wait()
                seen.note("producer", delivered.node)
                await anyio.sleep(0.02)

        async def read() -> None:
            async for record in consumer:
                seen.note("consumer", record.node)

        tasks.start_soon(write)
        tasks.start_soon(read)
        await anyio.sleep(WARM_SECONDS)
        assert len(producer.nodes) == len(consumer.nodes) == 3
        seen.is_warm = True
        with anyio.fail_after(3 * KEEPALIVE_SECONDS):
            while len(seen.moved) < 2:  # noqa: ASYNC110 - in whichever loop
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def three_nodes(directory: Path, profile: str = "lan") -> AsyncIterator[list[NodeProcess]]:
    async with AsyncExitStack() as stack:
        nodes: list[NodeProcess] = []
        for name in "abc":
            joins = ["--start-join-addrs", nodes[0].gossip] if nodes else []
            options = ["--node-name", name, "--gossip-profile", profile, *joins]
            nodes.append(await stack.enter_async_context(node_process(directory / name, *options)))
        try:
            yield nodes
        finally:
            for node in nodes:
                if node.process.poll() is None:
                    node.process.send_signal(signal.SIGCONT)


async def run_with(library: str, program: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a program under Trio here, or under asyncio in a thread."""

    async def checked() -> None:
        assert sniffio.current_async_library() == library
        await program()

    if library == "trio":
        await checked()
    else:
        await trio.to_thread.run_sync(asyncio.run, checked())


async def until_warm(seen: Seen) -> None:
    while not seen.is_warm:  # noqa: ASYNC110 - it may be in another loop
        await trio.sleep(0.01)


@pytest.mark.parametrize("library", ["trio", "asyncio"])
@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL])
async def test_clients_go_on_elsewhere_as_soon_as_gossip_knows(
    tmp_path: Path, fault: signal.Signals, library: str
) -> None:
    async with three_nodes(tmp_path) as nodes, trio.open_nursery() as nursery:
        seen = Seen(nodes[0].address)

        async def make_fault() -> None:
            await until_warm(seen)
            seen.fault_at = time.monotonic()
            nodes[0].process.send_signal(fault)

        nursery.start_soon(make_fault)
        await run_with(library, lambda: clients(nodes[0].address, seen))
    # Gossip takes 5 to 6 s with three nodes, and the sign of life has 2; this machine may be busy with other tests.
    assert max(seen.moved.values()) < (KEEPALIVE_SECONDS - 4 if fault == signal.SIGSTOP else 4)


@pytest.mark.parametrize("library", ["trio", "asyncio"])
async def test_a_node_that_others_alone_have_lost_keeps_its_clients(
    tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are told by gossip that it has failed, again and again, and believe it until it says otherwise."""
    asked = 0
    ask = TunedChannel.ask_for_life

    def ask_and_count(channel: TunedChannel, seconds: float, because: str) -> None:
        nonlocal asked
        asked += 1
        ask(channel, seconds, because)

    monkeypatch.setattr(TunedChannel, "ask_for_life", ask_and_count)
    async with three_nodes(tmp_path, "local") as nodes, trio.open_nursery() as nursery:
        a = nodes[0]

        async def program() -> None:
            begun, count = time.monotonic(), 0
            async with open_producer([node.address for node in nodes], ProducerConfig(linger=0.0)) as producer:
                while asked < 3 or time.monotonic() < begun + WARM_SECONDS + 2 * LIFE_SECONDS:
                    assert (await (await producer.send(b"x")).wait()).node == a.address
                    count += 1
                    await anyio.sleep(0.02)
                assert producer.statistics.moves == 0

        nursery.start_soon(say_that_it_failed, "a", nodes[1:])
        with trio.fail_after(60):
            await run_with(library, program)
        nursery.cancel_scope.cancel()


async def say_that_it_failed(name: str, to: list[NodeProcess]) -> None:
    """Tell members by gossip that one has failed; it refutes that as soon as it hears of it.

    Not before they have looked at that too, and rest no more: else they might see what holds in between, for long.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        for number in itertools.count(1):
            said = encode_message(Dead(incarnation=number * 1000, node=name, from_node="d"))
            for node in to:
                address = Address.parse(node.gossip)
                sending.sendto(said, (address.host, address.port))
            await trio.sleep(3 * REST_SECONDS)
