"""What a client does with what another node says: over nodes of this process, under Trio and asyncio."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import sniffio
import trio
from attrs import define

from proglog_trio.client import (
    BackoffConfig,
    Consumer,
    ConsumerConfig,
    Producer,
    ProducerConfig,
    open_consumer,
    open_producer,
    watched_nodes,
)
from proglog_trio.internal_errors import Where
from proglog_trio.rpc.calls import server_watch
from proglog_trio.rpc.calls.connection import TunedChannel
from proglog_trio.rpc.calls.server_watch import ServerWatch
from proglog_trio.rpc.server.log_service import LogService
from proglog_trio.rpc.server.log_service_state import ServerInfo
from tests.client.harness import CuttingProxy, cutting_proxy
from tests.rpc.support import RunningServer, eventually, running_server

FAST = BackoffConfig(first=0.001, longest=0.05)
LIFE_SECONDS = 1.0
WAIT_SECONDS = 9.0
"""Less than the keepalive needs, which would notice all of it by itself."""

Program = Callable[[], Coroutine[Any, Any, None]]
RunProgram = Callable[..., Coroutine[Any, Any, None]]
"""Runs a program, for so many seconds at the most."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask at once, and wait for little."""
    monkeypatch.setattr(watched_nodes, "_WAITS", BackoffConfig(first=0.01, longest=0.05))
    monkeypatch.setattr(server_watch, "LIFE_SECONDS", LIFE_SECONDS)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which nodes were asked for a sign of life."""
    nodes: list[str] = []
    ask = TunedChannel.ask_for_life

    def ask_and_note(channel: TunedChannel, seconds: float, because: str) -> None:
        nodes.append(f"{channel._host}:{channel._port}")
        ask(channel, seconds, because)

    monkeypatch.setattr(TunedChannel, "ask_for_life", ask_and_note)
    return nodes


@pytest.fixture(params=["trio", "asyncio"])
def run_program(request: pytest.FixtureRequest) -> RunProgram:
    """Run a program under Trio beside the nodes, or under asyncio in a thread."""

    async def run(program: Program, seconds: float = WAIT_SECONDS) -> None:
        async def checked() -> None:
            assert sniffio.current_async_library() == request.param
            with anyio.fail_after(seconds):
                await program()

        if request.param == "trio":
            await checked()
        else:
            await trio.to_thread.run_sync(asyncio.run, checked())

    return run


@define
class RunningNode:
    """A node of this process, and what it tells of others: to be changed."""

    server: RunningServer
    servers: list[ServerInfo]
    failed: list[ServerInfo]

    @property
    def service(self) -> LogService:
        return self.server.service

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def address(self) -> str:
        return self.server.address


@asynccontextmanager
async def running_node(directory: Path, server_id: str) -> AsyncIterator[RunningNode]:
    servers, failed = list[ServerInfo](), list[ServerInfo]()
    async with running_server(directory, servers=servers, failed=failed, server_id=server_id) as server:
        yield RunningNode(server, servers, failed)


class Nodes:
    """Nodes a, b and c; clients reach the first through a proxy, at another address than nodes tell."""

    def __init__(self, nodes: list[RunningNode], proxy: CuttingProxy) -> None:
        self.nodes = nodes
        self.proxy = proxy
        self.addresses = [proxy.address, *(node.address for node in nodes[1:])]
        self.servers = [ServerInfo(name, node.address) for name, node in zip("abc", nodes, strict=True)]

    async def fail(self, name: str, *, tells: str = "bc") -> None:
        """Have nodes say that one has failed."""
        for node, server in zip(self.nodes, self.servers, strict=True):
            if server.id in tells:
                node.failed.insert(0, self.servers["abc".index(name)])
                await node.service.news.tell()

    @property
    def watchers(self) -> list[int]:
        return [node.service.counters.watchers for node in self.nodes]

    async def watched(self, count: int = 1, *, of: str = "bc") -> None:
        """Wait until so many clients watch at these."""
        await eventually(lambda: sum(self.watchers["abc".index(name)] for name in of) == count)


@asynccontextmanager
async def three_nodes(directory: Path, *, ids: str = "abc") -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(running_node(directory / name, server_id=name if name in ids else ""))
            for name in "abc"
        ]
        proxy = await stack.enter_async_context(cutting_proxy(nodes[0].port))
        running = Nodes(nodes, proxy)
        for node in nodes:
            node.servers += running.servers
        yield running


async def stored(producer: Producer, value: bytes = b"x") -> str:
    delivered = await (await producer.send(value)).wait()
    return delivered.node


def producing(addresses: list[str], **options: Any) -> Any:
    return open_producer(addresses, ProducerConfig(backoff=FAST, linger=0.0, **options))


def consuming(addresses: list[str]) -> Any:
    return open_consumer(addresses, ConsumerConfig(backoff=FAST))


async def test_a_node_that_has_failed_and_does_not_answer_is_left(tmp_path: Path, run_program: RunProgram) -> None:
    async with three_nodes(tmp_path) as nodes, trio.open_nursery() as nursery:
        begun: list[bool] = []

        async def stop_answering() -> None:
            await eventually(lambda: bool(begun))
            await nodes.watched(2)
            nodes.proxy.stall()
            await nodes.fail("a")

        async def program() -> None:
            producer: Producer
            consumer: Consumer
            async with producing(nodes.addresses) as producer, consuming(nodes.addresses) as consumer:
                assert await stored(producer) == nodes.proxy.address
                assert (await anext(consumer)).node == nodes.proxy.address
                begun.append(True)
                while consumer.reading_from == nodes.proxy.address:  # noqa: ASYNC110 - nothing else shows it
                    await anyio.sleep(0.01)
                # At the other address of the same node, it may be: there it answers.
                assert await stored(producer) != nodes.proxy.address

        nursery.start_soon(stop_answering)
        await run_program(program)
        nodes.proxy.cut()


async def test_a_node_that_answers_keeps_its_clients(tmp_path: Path, asked: list[str], run_program: RunProgram) -> None:
    async with three_nodes(tmp_path) as nodes, trio.open_nursery() as nursery:

        async def fail() -> None:
            await nodes.watched(2)
            await nodes.fail("a")

        async def program() -> None:
            producer: Producer
            consumer: Consumer
            async with producing(nodes.addresses) as producer, consuming(nodes.addresses) as consumer:
                await stored(producer)
                while asked != [nodes.proxy.address] * 2:  # noqa: ASYNC110 - nothing else shows it
                    await anyio.sleep(0.01)
                # Nothing is said of what does not happen.
                await anyio.sleep(2 * LIFE_SECONDS)
                assert await stored(producer) == consumer.reading_from == nodes.proxy.address
                assert producer.statistics.moves == 0

        nursery.start_soon(fail)
        await run_program(program)
        assert nodes.proxy.connections == 2


async def test_who_watches_late_is_told_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_nodes, "_WAITS", BackoffConfig(first=1.0))
    async with three_nodes(tmp_path) as nodes:
        await nodes.fail("a")
        with trio.fail_after(WAIT_SECONDS):
            async with producing(nodes.addresses) as producer:
                await stored(producer)
                nodes.proxy.stall()
                assert await stored(producer) != nodes.proxy.address
        nodes.proxy.cut()


@pytest.mark.parametrize("ids", ["abc", "bc"])
async def test_that_another_node_has_failed_concerns_who_cannot_tell_which_one_he_uses(
    tmp_path: Path, asked: list[str], ids: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_watch, "LIFE_SECONDS", 60.0)  # whether it answers in time is not what this is about
    async with three_nodes(tmp_path, ids=ids) as nodes:
        # As the client sees it, the last one does not exist.
        for node in nodes.nodes:
            node.servers[2:] = []
        async with producing(nodes.addresses[:2]) as producer:
            assert await stored(producer) == nodes.proxy.address
            # A node that does not say which one it is may be watched at its other address as well.
            await nodes.watched(of="ab")
            await nodes.fail("c", tells="ab")
            servers = [ServerInfo("new", "127.0.0.1:1")]
            for node in nodes.nodes:
                node.servers += servers
                await node.service.news.tell()
            await eventually(lambda: "127.0.0.1:1" in producer.nodes)
            assert asked == ([] if ids == "abc" else [nodes.proxy.address])
            assert await stored(producer) == nodes.proxy.address


async def test_the_node_in_use_is_not_watched_at_its_other_address(tmp_path: Path) -> None:
    async with three_nodes(tmp_path) as nodes:
        for node in nodes.nodes:
            node.servers[1:] = []
        async with producing([nodes.proxy.address]) as producer:
            await stored(producer)
            watched = producer._sender.watched
            await eventually(lambda: nodes.nodes[0].address in watched._left_out)
            await eventually(lambda: nodes.watchers == [0, 0, 0])
            assert await stored(producer) == nodes.proxy.address


async def test_another_is_watched_when_one_stops(tmp_path: Path) -> None:
    stops = trio.CancelScope()
    async with (
        running_node(tmp_path / "a", server_id="a") as a,
        running_node(tmp_path / "c", server_id="c") as c,
        trio.open_nursery() as nursery,
    ):
        b: RunningNode = await nursery.start(_serve_until, tmp_path / "b", stops)
        async with producing([a.address, b.address]) as producer:
            await stored(producer)
            await eventually(lambda: b.service.counters.watchers == 1)
            # The watched node tells of one that the node in use has not been asked for yet.
            b.servers += [ServerInfo("c", c.address)]
            await b.service.news.tell()
            await eventually(lambda: c.address in producer.nodes)
            stops.cancel()
            await eventually(lambda: c.service.counters.watchers == 1)
            assert await stored(producer) == a.address
        await eventually(lambda: c.service.counters.watchers == 0)


async def _serve_until(directory: Path, stops: trio.CancelScope, *, task_status: trio.TaskStatus[RunningNode]) -> None:
    with stops:
        async with running_node(directory, server_id="b") as node:
            task_status.started(node)
            await trio.sleep_forever()


async def test_where_nodes_do_not_know_the_call_all_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_watch, "WATCH_SERVERS", "/log.v1.Log/Nothing")
    async with three_nodes(tmp_path) as nodes, producing(nodes.addresses) as producer:
        await stored(producer)
        # Each is asked once.
        left_out = {*nodes.addresses[1:], nodes.nodes[0].address}
        await eventually(lambda: set(producer._sender.watched._left_out) == left_out)
        assert await stored(producer) == nodes.proxy.address
        assert producer.search_failure is None
        nodes.proxy.cut()
        assert await stored(producer) != nodes.proxy.address


async def test_without_find_nodes_nobody_is_watched(tmp_path: Path) -> None:
    async with three_nodes(tmp_path) as nodes, producing(nodes.addresses, find_nodes=False) as producer:
        await stored(producer)
        await trio.sleep(0.3)  # nothing is said of what does not happen
        assert nodes.watchers == [0, 0, 0]


async def test_what_is_unforeseen_in_the_watch_ends_no_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, internal_errors: list[tuple[Where, Exception]]
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ServerWatch, "_told", fail)
    async with three_nodes(tmp_path) as nodes, producing(nodes.addresses) as producer:
        await stored(producer)
        await eventually(lambda: len(internal_errors) == 3)
        assert await stored(producer) == nodes.proxy.address
    assert {where for where, _ in internal_errors} == {Where.SERVER_WATCH}


def open_files() -> int:
    gc.collect()
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.system
async def test_nothing_is_left(tmp_path: Path, run_program: RunProgram) -> None:
    """Of a hundred clients that come and go, in whatever state their watch is."""
    async with three_nodes(tmp_path) as nodes:
        await run_program(lambda: _cycle(nodes, 3), 60.0)
        await nodes.watched(0, of="abc")
        before = open_files(), trio.lowlevel.current_statistics().tasks_living
        for _ in range(5):
            await run_program(lambda: _cycle(nodes, 20), 60.0)
        await nodes.watched(0, of="abc")
        for node in nodes.nodes:
            assert not node.service.news._watchers
        await eventually(lambda: len(asyncio.all_tasks()) == 0)
        await eventually(lambda: open_files() <= before[0])
        await eventually(lambda: trio.lowlevel.current_statistics().tasks_living <= before[1])


async def _cycle(nodes: Nodes, times: int) -> None:
    for number in range(times):
        async with producing(nodes.addresses) as producer:
            await stored(producer)
            if number % 2:
                await anyio.sleep(0.003 * number)
    if sniffio.current_async_library() == "asyncio":
        assert len(asyncio.all_tasks()) <= 2, "this one, and the one that a deadline may have"


@pytest.mark.system
async def test_nothing_is_left_of_connections_that_are_cut(tmp_path: Path, run_program: RunProgram) -> None:
    """Of a client's own and of those over which it watches, a hundred times; in the end it has one of each."""
    async with three_nodes(tmp_path) as nodes, AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(cutting_proxy(node.port)) for node in nodes.nodes]
        for node in nodes.nodes:
            node.servers.clear()
        files: list[int] = []

        async def cut() -> None:
            made = 0

            def has_come_back() -> bool:
                return sum(proxy.connections for proxy in proxies) >= made + 2 and sum(nodes.watchers) == 1

            for number in range(100):
                await eventually(has_come_back)
                made = sum(proxy.connections for proxy in proxies)
                for proxy in proxies:
                    proxy.cut()
                if number == 10:
                    files.append(open_files())
            await eventually(lambda: sum(nodes.watchers) == 1)
            await eventually(lambda: open_files() <= files[0] + 4)
            done.append(True)

        done: list[bool] = []

        async def program() -> None:
            async with producing([proxy.address for proxy in proxies]) as producer:
                while not done:
                    await stored(producer)
                    await anyio.sleep(0.005)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            await run_program(program, 60.0)
        await nodes.watched(0, of="abc")
        await eventually(lambda: len(asyncio.all_tasks()) == 0)
