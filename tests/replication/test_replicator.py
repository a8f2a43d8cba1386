"""Peers that come and go: what runs for them, and that nothing is left of them."""

from __future__ import annotations

import errno
import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import Factory, define

from proglog_trio.errors import ConnectionLost
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.log import Log
from proglog_trio.log.opening import open_log
from proglog_trio.log.repair.missing_ranges import Missing
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.messages import Hello, HolderNews, OriginRange, Positions, PullResponse
from proglog_trio.replication.origin_retirement import OriginRetirement
from proglog_trio.replication.peers.directories_file import read_directories
from proglog_trio.replication.pull_session import PullSession
from proglog_trio.replication.replica import Replica, ReplicationConfig
from proglog_trio.replication.replicator import MAX_COPIES, GivenUp, Replicator, log_event
from tests.log.driving import OpenLog
from tests.log.simulated_disk import SimulatedDisk
from tests.replication.driving import AlikeMembers, fetch_nothing, replicator_of


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
    log: Log | None = None,
    fetch: Callable[[str, Missing], Awaitable[list[bytes]]] | None = None,
    members: AlikeMembers | None = None,
    on_copied: Callable[[str], None] = lambda _name: None,
    opened: int = 1,
) -> AsyncIterator[tuple[Replicator, trio.Nursery]]:
    log = log or OpenLog.open(SimulatedDisk()).log
    hello = Hello("proglog", "me", log.directory_id, opened)
    node = LocalNode(log, hello, trio.current_time, log_event)
    replicator = replicator_of(
        lambda host: Replica(node, ReplicationConfig(), host), run_pull, fetch or fetch_nothing, members, on_copied
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(replicator.run)
        yield replicator, nursery
        nursery.cancel_scope.cancel()


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
        assert list(replicator.replica.streams.pulls) == ["b"]
        assert list(replicator.replica.peers.views) == ["b"]
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
        # The stream that broke, and then the address at which no node answers.
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
        log, replica = replicator.replica.node.log, replicator.replica
        disk = log.catalog.disk
        assert isinstance(disk, SimulatedDisk)
        disk.fail("rename", errno.EIO)
        replica.holdings.alive("b", b"b-------")
        with trio.fail_after(10):
            while [each.node_name for each in read_directories(log)] != ["b"]:  # noqa: ASYNC110 - a file
                await trio.sleep(0.01)
        disk.fail("sync", errno.EIO)
        heard = log.opening + (5 << 20)
        replica.holdings.learn_of_others([HolderNews(log.directory_id, heard, {})])
        with trio.fail_after(10):
            while replica.node.hello.opened <= heard:  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.01)
        assert log.opening == replica.node.hello.opened


MISSING_ORIGIN = Origin(b"an origin of 16B")


async def mark_missing(log: Log, records: int) -> None:
    """Let so many records of an origin be missing at present, durably."""
    marked = trio.Event()
    marker = GapMarker(MISSING_ORIGIN, 0, records, 7, "away", in_place=True, final=False)
    log.append_gap(marker, lambda _error: marked.set())
    await marked.wait()


async def test_what_is_given_up_is_on_disk_when_that_is_answered(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with (
            open_log(LogConfig(tmp_path / "log")) as log,
            running_replicator(Streams().run, log) as (replicator, _),
        ):
            await mark_missing(log, 10)
            assert await replicator.accept_gaps(Origin(b"another origin..")) == GivenUp(0, 0)
            assert await replicator.accept_gaps(None) == GivenUp(10, 0)
            # As a process finds it that starts after this one was killed: nothing is closed.
            await trio.to_thread.run_sync(shutil.copytree, tmp_path / "log", tmp_path / "killed")
        async with open_log(LogConfig(tmp_path / "killed")) as log, running_replicator(Streams().run, log):
            # The header of the newest segment is older than that; the segment itself says it.
            while log.origins[MISSING_ORIGIN].missing:  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.01)
            assert log.origins[MISSING_ORIGIN].gaps == ((0, 10),)


async def test_who_gives_up_is_told_what_is_not_written_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proglog_trio.replication.replicator.ACCEPT_SECONDS", 0.05)
    answered = trio.Event()

    async def fetch_late(_address: str, _missing: Missing) -> list[bytes]:
        await answered.wait()
        return []

    with trio.fail_after(60):
        async with (
            open_log(LogConfig(tmp_path)) as log,
            running_replicator(Streams().run, log, fetch_late) as (replicator, _),
        ):
            await mark_missing(log, 10)
            await replicator.join("b", "10.0.0.1:8400")
            assert await replicator.accept_gaps(MISSING_ORIGIN) == GivenUp(10, 10)
            assert log.origins[MISSING_ORIGIN].missing
            answered.set()
            while log.origins[MISSING_ORIGIN].missing:  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.01)
            assert log.origins[MISSING_ORIGIN].gaps == ((0, 10),)


async def test_who_used_a_copy_of_the_directory_stays_named() -> None:
    members = AlikeMembers()
    async with running_replicator(Streams().run, members=members) as (replicator, _):
        members.directory_id = replicator.replica.node.log.directory_id
        for number in range(MAX_COPIES + 1):
            await replicator.join(f"copy {number}", "10.0.0.1:8400")
        assert len(replicator.copies) == MAX_COPIES
        await replicator.leave("copy 1")
        assert "copy 0" not in replicator.copies
        assert (replicator.copies["copy 1"], replicator.copies["copy 2"]) == (False, True)
        assert not replicator.peers


async def test_an_earlier_life_that_is_not_there_any_more_is_no_copy(autojump_clock: trio.testing.MockClock) -> None:
    """The node was started again under another name, before the others have noticed that the earlier one is gone."""
    copied: list[str] = []
    members = AlikeMembers(opening=1, is_there=False)
    running = running_replicator(Streams().run, members=members, on_copied=copied.append, opened=2)
    async with running as (replicator, _):
        members.directory_id = replicator.replica.node.log.directory_id
        await replicator.join("before", "10.0.0.1:8400")
        await trio.sleep(5)
        await replicator.leave("before")
        members.is_there = True
        await trio.sleep(60)
        assert copied == []
        await replicator.join("copy", "10.0.0.1:8400")
        await trio.sleep(5)
        assert copied == ["copy"]


async def test_no_origin_is_forgotten_whose_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while as many ends wait to be written as there may be."""
    for name, value in (
        ("MAX_ORIGINS", 1),
        ("FORGET_LOOKS", 1),
        ("LAG_WATCH_SECONDS", 0.01),
        ("REWRITE_SECONDS", 0.01),
    ):
        monkeypatch.setattr(f"proglog_trio.replication.replicator.{name}", value)
    old, forgotten = Origin(b"an old origin..."), trio.Event()
    looks = itertools.count()
    from_peers = iter([{Origin(b"that a peer told"): 3}])

    def forget_origins(replica: Replica, origins: Iterable[Origin]) -> int:
        assert replica.node.log.durable.retired_origins.ends_of(origins) == {old: 7}
        forgotten.set()
        return 1

    monkeypatch.setattr(OriginRetirement, "pop_ends", lambda _retirement: next(from_peers, {}))
    monkeypatch.setattr(OriginRetirement, "old_origins", lambda _retirement: {} if next(looks) < 1 else {old: 7})
    monkeypatch.setattr(Replica, "forget_origins", forget_origins)
    async with running_replicator(Streams().run) as (replicator, _):
        disk = replicator.replica.node.log.catalog.disk
        assert isinstance(disk, SimulatedDisk)
        disk.fail("rename", errno.EIO)
        with trio.fail_after(10):
            await forgotten.wait()
        assert not sum(replicator.replica.node.errors.counts.values())


async def test_for_a_repair_the_nearest_of_those_that_have_it_is_asked_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    streams, origin = Streams(), Origin(bytes(16))
    far = {"near": 0.001, "middle": 0.03, "far": 0.3, "without": 0.0001}
    async with running_replicator(streams.run) as (replicator, _):
        replicator.replica.gossiped_round_trip = far.get
        for name in far:
            await replicator.join(name, name)
        await settled()
        plan = replicator.replica.scheduler.plan
        for name in ("far", "middle", "near"):
            plan.positions(name, Positions({origin: OriginRange(0, 10)}))
        for _ in range(20):
            assert replicator._peers_with(Missing(origin, 0, 10, 0, 10)) == ["near", "middle", "far", "without"]
        far.clear()
        # Of the streams' first answers, which all took no time, there is nothing to choose.
        asked = {tuple(replicator._peers_with(Missing(origin, 0, 10, 0, 10))) for _ in range(100)}
        assert len(asked) == 6
