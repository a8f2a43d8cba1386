"""What waits for those who watch the servers: no I/O."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import given

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop
from proglog_trio.rpc.http2.bridge import aio_as_trio
from proglog_trio.rpc.server.log_service_state import ServerInfo
from proglog_trio.rpc.server.server_list.news import (
    MAX_FAILED,
    REST_SECONDS,
    WAKING_SECONDS,
    WOKEN_AT_ONCE,
    ServerNews,
    Watcher,
    encode_rest,
)

NODES = [ServerInfo(f"n{number}", f"127.0.0.1:{number}") for number in range(200)]


class Cluster:
    """Servers as a test says, and their news."""

    def __init__(self) -> None:
        self.alive: list[ServerInfo] = []
        # The last that failed is the first.
        self.failed: list[ServerInfo] = []
        self.looks = 0
        self.news = ServerNews("c", "n0", self._look, lambda: self.failed[:MAX_FAILED])

    def _look(self) -> list[ServerInfo]:
        self.looks += 1
        return sorted(self.alive, key=lambda node: node.id)

    def fail(self, node: ServerInfo) -> None:
        if node in self.alive:
            self.alive.remove(node)
            self.failed.insert(0, node)

    def join(self, node: ServerInfo) -> None:
        if node in self.failed:
            self.failed.remove(node)
        if node not in self.alive:
            self.alive.append(node)


STEPS = st.lists(st.tuples(st.sampled_from(["join", "fail", "look", "take"]), st.sampled_from(NODES[:6])))


@given(STEPS)
def test_a_watcher_is_told_of_each_that_failed_and_of_the_last_list(steps: list[tuple[str, ServerInfo]]) -> None:
    cluster = Cluster()
    # What happened since it was last told: those that failed between two looks, and whether the list is another.
    expected: set[ServerInfo] = set()
    failed_at_look: set[ServerInfo] = set()
    told = seen = list[ServerInfo]()
    with cluster.news.watcher() as watcher:
        watcher.take()
        for step, node in steps:
            if step == "join":
                cluster.join(node)
            elif step == "fail":
                cluster.fail(node)
            elif step == "look":
                cluster.news.look()
                expected |= set(cluster.failed) - failed_at_look
                failed_at_look, seen = set(cluster.failed), sorted(cluster.alive, key=lambda each: each.id)
                assert watcher.has_news or (not expected and seen == told)
            else:
                had_news = watcher.has_news
                failed = watcher.take()
                assert len(failed) == len(set(failed))
                assert set(failed) == expected
                assert had_news or not failed
                expected.clear()
                told = seen


def test_of_many_that_failed_the_newest_are_told() -> None:
    watcher = Watcher()
    for node in NODES:
        watcher.note([node])
    assert watcher.take() == NODES[: -MAX_FAILED - 1 : -1]
    watcher.note(NODES[:MAX_FAILED])
    watcher.note([NODES[5]])
    assert watcher.take() == [NODES[5], *(node for node in NODES[:MAX_FAILED] if node is not NODES[5])]
    assert watcher.take() == []


def test_who_begins_to_watch_is_told_who_counts_as_failed() -> None:
    cluster = Cluster()
    for node in NODES[:3]:
        cluster.join(node)
        cluster.fail(node)
    with cluster.news.watcher() as watcher:
        assert watcher.has_news
        assert watcher.take() == NODES[2::-1]
        cluster.news.look()
        assert not watcher.has_news


async def test_watchers_are_woken_in_groups(autojump_clock: trio.testing.MockClock) -> None:
    cluster = Cluster()
    groups: list[float] = []
    async with asyncio_loop(), trio.open_nursery() as nursery:

        async def watch() -> None:
            with cluster.news.watcher() as watcher:
                watcher.take()
                await aio_as_trio(watcher.wait)()
                groups.append(trio.current_time())

        for _ in range(3 * WOKEN_AT_ONCE):
            nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        cluster.join(NODES[0])
        begun = trio.current_time()
        await cluster.news.tell()
    assert [groups.count(begun + number * WAKING_SECONDS) for number in range(3)] == [WOKEN_AT_ONCE] * 3
    assert not cluster.news._watchers


async def test_members_are_looked_at_no_more_often_than_that(autojump_clock: trio.testing.MockClock) -> None:
    cluster, changes = Cluster(), 0

    async def change_after(seen: int) -> int:
        while changes <= seen:  # noqa: ASYNC110 - in virtual time
            await trio.sleep(0.01)
        return changes

    async with asyncio_loop(), trio.open_nursery() as nursery:
        nursery.start_soon(cluster.news.follow, change_after, InternalErrors())
        await trio.sleep(100 * REST_SECONDS)
        assert cluster.looks == 1
        for _ in range(1000):
            changes += 1
            await trio.sleep(REST_SECONDS / 100)
        assert 10 <= cluster.looks <= 13
        nursery.cancel_scope.cancel()


async def test_a_look_that_fails_is_not_the_last(
    autojump_clock: trio.testing.MockClock, internal_errors: list[tuple[Where, Exception]]
) -> None:
    cluster, changes = Cluster(), 0

    async def change_after(seen: int) -> int:
        nonlocal changes
        changes += 1
        if changes == 1:
            raise ZeroDivisionError
        return changes

    async with asyncio_loop(), trio.open_nursery() as nursery:
        nursery.start_soon(cluster.news.follow, change_after, InternalErrors())
        await trio.sleep(10 * REST_SECONDS)
        assert cluster.looks > 5
        nursery.cancel_scope.cancel()
    assert [where for where, _ in internal_errors] == [Where.SERVER_LIST]


async def test_the_list_is_encoded_once_for_all_and_anew_when_it_changes() -> None:
    cluster = Cluster()
    cluster.alive = NODES[:100]
    cluster.news.look()

    def decoded(data: bytes) -> list[str]:
        answer = log_v1.WatchServersResponse.FromString(data + encode_rest("c", "n0", NODES[3:4]))
        assert (answer.cluster_name, answer.server_id) == ("c", "n0")
        assert answer.failed == [log_v1.Server(id="n3", rpc_addr="127.0.0.1:3", is_leader=True)]
        return [server.rpc_addr for server in answer.servers]

    encoded: list[bytes] = []
    async with asyncio_loop(), trio.open_nursery() as nursery:

        async def encode() -> None:
            encoded.append(await aio_as_trio(cluster.news.encoded)())

        for _ in range(5):
            nursery.start_soon(encode)
        await trio.testing.wait_all_tasks_blocked()
        cluster.fail(NODES[0])
        cluster.news.look()
        await encode()
    assert len({id(each) for each in encoded[:5]}) == 1
    addresses = sorted(node.rpc_addr for node in NODES[:100])
    assert sorted(decoded(encoded[0])) == addresses
    assert sorted(decoded(encoded[-1])) == [address for address in addresses if address != NODES[0].rpc_addr]


async def test_a_list_that_changes_while_it_is_encoded_is_encoded_again() -> None:
    cluster = Cluster()
    cluster.alive = [ServerInfo(f"n{number:05}", f"127.0.0.1:{number}") for number in range(5000)]
    cluster.news.look()
    encoded: list[bytes] = []
    async with asyncio_loop(), trio.open_nursery() as nursery:

        async def encode() -> None:
            encoded.append(await aio_as_trio(cluster.news.encoded)())

        nursery.start_soon(encode)
        while not cluster.news._encoding.locked():
            await trio.lowlevel.checkpoint()
        del cluster.alive[0]
        cluster.news.look()
    assert len(log_v1.WatchServersResponse.FromString(encoded[0]).servers) == 4999


@pytest.mark.parametrize("name", ["\udcff", "ä"])
async def test_names_that_are_no_text_can_be_told(name: str) -> None:
    cluster = Cluster()
    cluster.alive = [ServerInfo(name, "127.0.0.1:1")]
    cluster.news.look()
    async with asyncio_loop():
        data = await aio_as_trio(cluster.news.encoded)() + encode_rest("c", name, cluster.alive)
    told = log_v1.WatchServersResponse.FromString(data)
    assert told.servers == told.failed
    assert told.server_id == told.servers[0].id
