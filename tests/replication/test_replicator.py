"""Peers that come and go: what runs for them, and that nothing is left of them."""

from __future__ import annotations

import errno
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import Factory, define

from proglog_trio.errors import ConnectionLost
from proglog_trio.log.missing import Missing
from proglog_trio.replication.directories_file import read_directories
from proglog_trio.replication.messages import Hello, HolderNews, Positions, PullResponse
from proglog_trio.replication.pull import PullSession
from proglog_trio.replication.replica import Replica, ReplicationConfig
from proglog_trio.replication.replicator import Replicator, log_event

from ..log.driving import OpenLog
from ..log.simulated_disk import SimulatedDisk


@define
class Streams:
    """What stands for connections: each runs until it is told to fail."""

    opened: list[tuple[str, str]] = Factory(list)
    running: dict[str, trio.Event] = Factory(dict)
    failing: bool = False

    async def run(self, address: str, session: PullSession) -> None:
        self.opened.append((session.peer, address))
        if self.failing:
            raise ConnectionLost("the network is down")
        session.next_request()
        hello = Hello("proglog", session.peer, session.peer.encode().ljust(8, b"-")[:8], 1)
        session.received(PullResponse(hello, Positions()))
        fail = self.running[session.peer] = trio.Event()
        try:
            await fail.wait()
        finally:
            del self.running[session.peer]
        raise ConnectionLost("the peer is gone")


@asynccontextmanager
async def running_replicator(
    run_pull: Callable[[str, PullSession], Awaitable[None]],
) -> AsyncIterator[tuple[Replicator, trio.Nursery]]:
    opened = OpenLog.open(SimulatedDisk())
    hello = Hello("proglog", "me", opened.log.directory_id, 1)
    replica = Replica(opened.log, hello, trio.current_time, log_event, ReplicationConfig())
    replicator = Replicator(replica, run_pull, fetch_nothing, random.Random(1))
    async with trio.open_nursery() as nursery:
        await nursery.start(replicator.run)
        yield replicator, nursery
        nursery.cancel_scope.cancel()


async def fetch_nothing(_address: str, _missing: Missing) -> list[bytes]:
    await trio.lowlevel.checkpoint()
    return []


def tasks_below(nursery: trio.Nursery) -> list[str]:
    """Name every task of a nursery, and of theirs, from trio's own tree."""
    found = []
    for task in nursery.child_tasks:
        found.append(task.name.rpartition(".")[2])
        for child in task.child_nurseries:
            found += tasks_below(child)
    return found


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_a_peer_has_a_scope_and_a_nursery_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    streams = Streams()
    async with running_replicator(streams.run) as (replicator, nursery):
        alone = sorted(tasks_below(nursery))
        await replicator.join("a", "10.0.0.1:8400")
        await replicator.join("b", "10.0.0.2:8400")
        await settled()
        assert sorted(streams.running) == ["a", "b"]
        assert sorted(tasks_below(nursery)) == sorted([*alone, *["_run_peer", "_keep_pulling"] * 2])
        await replicator.leave("a")
        # When leave returns, everything of the peer is gone, and nothing of the other.
        assert sorted(streams.running) == ["b"]
        assert sorted(tasks_below(nursery)) == sorted([*alone, "_run_peer", "_keep_pulling"])
        assert list(replicator.peers) == ["b"]
        assert list(replicator.replica.pulls) == ["b"]
        assert list(replicator.replica.plan.peers) == ["b"]
    assert not streams.running


async def test_a_stream_that_fails_is_opened_again_later_each_time(autojump_clock: trio.testing.MockClock) -> None:
    streams = Streams(failing=True)
    async with running_replicator(streams.run) as (replicator, _):
        began = trio.current_time()
        await replicator.join("a", "10.0.0.1:8400")
        await trio.sleep(60)
        assert 10 <= len(streams.opened) <= 25
        assert replicator.peers["a"].problem == "the network is down"
        streams.failing = False
        await trio.sleep(6)
        assert replicator.peers["a"].problem is None
        assert replicator.peers["a"].streams == 1
        # After it was well, the next attempt comes soon.
        before = len(streams.opened)
        streams.running["a"].set()
        await trio.sleep(0.2)
        assert len(streams.opened) == before + 1
        assert trio.current_time() - began < 70


async def test_a_failure_is_logged_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    streams = Streams(failing=True)
    async with running_replicator(streams.run) as (replicator, _):
        await replicator.join("a", "10.0.0.1:8400")
        await trio.sleep(60)
        assert caplog.text.count("cannot pull from a peer") == 1
        streams.failing = False
        await trio.sleep(6)
        streams.failing = True
        streams.running["a"].set()
        await trio.sleep(60)
        # The stream that broke, and then the address at which nobody answers.
        assert caplog.text.count("cannot pull from a peer") == 3
        assert caplog.text.count("pulling from a peer") == 1


async def test_a_peer_that_comes_back_at_once_is_a_new_one(autojump_clock: trio.testing.MockClock) -> None:
    streams = Streams()
    async with running_replicator(streams.run) as (replicator, _):
        await replicator.join("a", "10.0.0.1:8400")
        await settled()
        await replicator.leave("a")
        await replicator.join("a", "10.0.0.9:8400")
        await settled()
        assert streams.opened == [("a", "10.0.0.1:8400"), ("a", "10.0.0.9:8400")]
        assert list(streams.running) == ["a"]


async def test_joining_twice_is_a_mistake_of_the_caller(autojump_clock: trio.testing.MockClock) -> None:
    async with running_replicator(Streams().run) as (replicator, _):
        await replicator.join("a", "10.0.0.1:8400")
        with pytest.raises(RuntimeError, match="cannot join"):
            await replicator.join("a", "10.0.0.1:8400")


async def test_a_peer_that_has_ended_with_the_replicator_may_still_leave(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Membership and replicator stop together, and membership says of every peer that it leaves."""
    async with running_replicator(Streams().run) as (replicator, _):
        await replicator.join("b", "127.0.0.1:1")
    await replicator.leave("b")
    assert replicator.peers == {}


async def test_what_could_not_be_written_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proglog_trio.replication.replicator.REWRITE_SECONDS", 0.01)
    async with running_replicator(Streams().run) as (replicator, _):
        log, replica = replicator.replica.log, replicator.replica
        disk = log.catalog.disk
        assert isinstance(disk, SimulatedDisk)
        disk.fail("rename", errno.EIO)
        replica.alive("b", b"b-------")
        with trio.fail_after(10):
            while [each.node_name for each in read_directories(log)] != ["b"]:  # noqa: ASYNC110 - a file
                await trio.sleep(0.01)
        disk.fail("sync", errno.EIO)
        heard = log.opening + (5 << 20)
        replica.take_news([HolderNews(log.directory_id, heard, {})])
        with trio.fail_after(10):
            while replica.hello.opened <= heard:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        assert log.opening == replica.hello.opened
