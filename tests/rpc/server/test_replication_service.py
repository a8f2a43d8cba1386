"""Pull streams over real sockets: what crosses, what is refused, and that nothing stays behind."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from attrs import frozen
from grpclib.const import Cardinality

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.errors import CallFailed, LogClosed, ProglogError
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.frame import FrameHeader
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.frame_lookup import FoundFrames
from proglog_trio.log.log import Log
from proglog_trio.log.opening import open_log
from proglog_trio.log.repair.missing_ranges import Missing
from proglog_trio.log.scrub import Scrub
from proglog_trio.replication import advertiser
from proglog_trio.replication import pull_session as pull
from proglog_trio.replication import source_session as source
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.messages import ENTRIES_AT_ONCE, Hello, PullRequest, Want
from proglog_trio.replication.replica import Replica, ReplicationConfig
from proglog_trio.replication.replicator import Replicator, log_event
from proglog_trio.rpc.calls.connection import ConnectionConfig, TunedChannel, open_connection
from proglog_trio.rpc.calls.pull_stream import PULL, PullStream, fetch_frames
from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop
from proglog_trio.rpc.http2.transport_config import TransportConfig
from proglog_trio.rpc.messages.replication import request_to_message
from proglog_trio.rpc.server.log_service import open_log_service
from proglog_trio.rpc.server.replication_service import ReplicationService
from proglog_trio.rpc.server.server import ServerConfig, serve
from tests.log.driving import ForeignLog, batch_of
from tests.replication.driving import AlikeMembers
from tests.rpc.support import eventually


@frozen
class RunningNode:
    """A log that is served to pullers and replicated into, without gossip."""

    name: str
    log: Log
    replicator: Replicator
    address: str


@asynccontextmanager
async def running_node(
    directory: Path, name: str, cluster_name: str = "proglog", message_bytes: int | None = None
) -> AsyncIterator[RunningNode]:
    config = LogConfig(directory / name, cluster_name=cluster_name, scrub_bytes_per_second=None)
    async with (
        asyncio_loop(),
        open_log(config) as log,
        open_log_service(log, list) as service,
        trio.open_nursery() as nursery,
    ):
        hello = Hello(cluster_name, name, log.directory_id, log.wall_clock())
        local = LocalNode(log, hello, trio.current_time, log_event)
        replicator = Replicator(
            lambda host: Replica(local, ReplicationConfig(), host),
            partial(PullStream, ConnectionConfig()),
            partial(fetch_frames, ConnectionConfig(), cluster_name),
            random.Random(1),
            AlikeMembers(),
            lambda _name: None,
        )
        await nursery.start(replicator.run)
        replication = ReplicationService(replicator.replica, service.state.executor)
        limits = TransportConfig() if message_bytes is None else TransportConfig(message_bytes=message_bytes)
        serving = partial(serve, [replication], config=ServerConfig(transport=limits))
        host, port = await nursery.start(serving, "127.0.0.1", 0)
        yield RunningNode(name, log, replicator, f"{host}:{port}")
        nursery.cancel_scope.cancel()


def contents(frames: Sequence[StoredFrame]) -> list[tuple[int, bytes]]:
    """What a repair must not change: offsets and portable frames."""
    return [(stored.base_offset, stored.data) for stored in frames]


def frames_of(log: Log) -> list[StoredFrame]:
    reader = log.reader_at_offset(0)
    frames: list[StoredFrame] = []
    while reader.next_offset < log.next_offset:
        frames += reader.read(1 << 20, log.next_offset).frames
    reader.close()
    return frames


def scrub(log: Log) -> None:
    passing = Scrub(log.catalog)
    while not passing.finished:
        passing.step(1 << 20)


async def test_two_nodes_end_with_every_record_once(tmp_path: Path) -> None:
    async with running_node(tmp_path, "a") as a, running_node(tmp_path, "b") as b:
        await a.replicator.join("b", b.address)
        await b.replicator.join("a", a.address)
        for number in range(50):
            await a.log.append(batch_of(b"a%d" % number, b"x" * 1000))
            await b.log.append(batch_of(b"b%d" % number))
        await eventually(lambda: a.log.next_offset == b.log.next_offset == 150)
        mine = sorted(stored.data for stored in await trio.to_thread.run_sync(frames_of, a.log))
        theirs = sorted(stored.data for stored in await trio.to_thread.run_sync(frames_of, b.log))
        assert mine == theirs
        assert len(set(mine)) == 100
        for node in (a, b):
            assert node.replicator.replica.node.counters.frames_applied == 50
            assert node.replicator.replica.node.counters.frames_dropped == 0


async def test_a_large_log_is_caught_up_with_while_new_records_come(tmp_path: Path) -> None:
    async with running_node(tmp_path, "a") as a, running_node(tmp_path, "b") as b:
        for _ in range(40):
            await a.log.append(batch_of(*[os.urandom(1000)] * 500))
        await b.replicator.join("a", a.address)
        for _ in range(10):
            await a.log.append(batch_of(b"new"))
        await eventually(lambda: b.log.next_offset == a.log.next_offset == 40 * 500 + 10)
        assert b.replicator.replica.node.counters.frames_dropped == 0


async def test_a_thousand_joins_and_leaves_leave_nothing_behind(tmp_path: Path) -> None:
    async with running_node(tmp_path, "a") as a, running_node(tmp_path, "b") as b:
        await a.log.append(batch_of(b"1"))
        replica = b.replicator.replica
        descriptors: list[int] = []
        for number in range(1000):
            await b.replicator.join("a", a.address)
            if number % 10 == 0:
                await eventually(lambda: replica.peers.views["a"].has_told)
            elif number % 3 == 0:
                await trio.lowlevel.checkpoint()
            await b.replicator.leave("a")
            if number in (99, 999):
                await eventually(lambda: not a.replicator.replica.streams.sources)
                gc.collect()
                descriptors.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - names are enough
        assert b.log.next_offset == 1
        assert descriptors[1] <= descriptors[0] + 2
        assert not replica.streams.pulls
        assert not replica.peers.views
        assert not replica.scheduler.plan.assigned
        assert not b.replicator.peers


async def fill_with_origins(log: Log, count: int) -> None:
    """Append a record each of so many origins."""
    durable = trio.Event()
    left = count

    def done(error: ProglogError | None) -> None:
        nonlocal left
        assert error is None
        left -= 1
        if not left:
            durable.set()

    for number in range(count):
        frame = ForeignLog.make(number).write(batch_of(b"x"), wall=log.wall_clock())
        log.append_foreign(frame, frame.encode(), done)
        if number % 100 == 0:
            await trio.lowlevel.checkpoint()
    await durable.wait()


@pytest.mark.parametrize(
    ("count", "at_once"), [(100, 3), pytest.param(20_000, ENTRIES_AT_ONCE, marks=pytest.mark.system)]
)
@pytest.mark.timeout(600)
async def test_many_origins_replicate_whatever_the_limit_of_users_messages_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, at_once: int
) -> None:
    """Each way: the puller's positions are requests, and the source's are answers."""
    for module in (advertiser, pull, source):
        monkeypatch.setattr(module, "ENTRIES_AT_ONCE", at_once)

    async def within_minutes(condition: Callable[[], bool]) -> None:
        with trio.fail_after(250):
            while not condition():  # noqa: ASYNC110 - no event tells of it
                await trio.sleep(0.05)

    async with (
        running_node(tmp_path, "a", message_bytes=128 * 1024) as a,
        running_node(tmp_path, "b", message_bytes=128 * 1024) as b,
    ):
        await fill_with_origins(a.log, count)
        await a.replicator.join("b", b.address)
        await b.replicator.join("a", a.address)
        await within_minutes(lambda: b.log.next_offset == count)
        assert b.log.origins.keys() == a.log.origins.keys()
        await b.log.append(batch_of(b"from b"))
        await within_minutes(lambda: a.log.next_offset == count + 1)
        assert [node.replicator.peers[other].problem for node, other in ((a, "b"), (b, "a"))] == [None, None]
        # A puller that comes anew with all of that, as after a restart.
        await b.replicator.leave("a")
        await b.replicator.join("a", a.address)
        await within_minutes(lambda: b.replicator.replica.peers.views["a"].has_told)
        await a.log.append(batch_of(b"from a"))
        await within_minutes(lambda: b.log.next_offset == count + 2)


async def test_another_cluster_is_refused_by_both_sides(tmp_path: Path) -> None:
    async with running_node(tmp_path, "a") as a, running_node(tmp_path, "b", "another") as b:
        await a.log.append(batch_of(b"1"))
        await b.replicator.join("a", a.address)
        await eventually(lambda: b.replicator.peers["a"].problem is not None)
        problem = b.replicator.peers["a"].problem
        assert problem is not None
        assert "cluster 'another'" in problem
        assert b.log.next_offset == 0


async def _send(channel: TunedChannel, *requests: Any) -> None:
    async with channel.request(PULL, Cardinality.STREAM_STREAM, log_v1.PullRequest, log_v1.PullResponse) as stream:
        for request in requests:
            await stream.send_message(request)
        await stream.end()
        while await stream.recv_message() is not None:
            pass


async def test_what_is_damaged_is_fetched_from_a_peer_while_the_node_goes_on(tmp_path: Path) -> None:
    async with running_node(tmp_path, "a") as a, running_node(tmp_path, "b") as b:
        await b.replicator.join("a", a.address)
        for number in range(30):
            await a.log.append(batch_of(b"%d" % number, b"x" * 200))
        await eventually(lambda: b.log.next_offset == 60)
        frames = await trio.to_thread.run_sync(frames_of, b.log)
        files = b.log.catalog.active.files
        data = bytearray(files.store.read_bytes())
        data[frames[7].end - 1] ^= 1
        data[frames[20].position + 3] ^= 1  # an envelope
        with files.store.open("r+b") as file:
            file.write(data)
        await trio.to_thread.run_sync(scrub, b.log)
        await eventually(lambda: b.log.damage.repaired == 2 and not len(b.log.damage))
        assert contents(await trio.to_thread.run_sync(frames_of, b.log)) == contents(frames)
        assert files != b.log.catalog.active.files


async def test_what_no_peer_has_stays_named_until_one_has_it(tmp_path: Path) -> None:
    async with running_node(tmp_path, "a") as a, running_node(tmp_path, "b") as b, running_node(tmp_path, "c") as c:
        for number in range(10):
            await a.log.append(batch_of(b"%d" % number))
        await c.replicator.join("a", a.address)
        await eventually(lambda: c.log.next_offset == 10)
        frames = await trio.to_thread.run_sync(frames_of, a.log)
        store = a.log.catalog.active.files.store
        data = bytearray(store.read_bytes())
        data[frames[3].end - 1] ^= 1
        with store.open("r+b") as file:
            file.write(data)
        await trio.to_thread.run_sync(scrub, a.log)
        await a.replicator.join("b", b.address)
        await eventually(lambda: a.log.damage.unrepairable == 1)
        await a.replicator.join("c", c.address)
        await eventually(lambda: not len(a.log.damage))
        assert contents(await trio.to_thread.run_sync(frames_of, a.log)) == contents(frames)


async def test_frames_of_another_cluster_are_not_given(tmp_path: Path) -> None:
    async with running_node(tmp_path, "a") as a:
        stored = await a.log.append(batch_of(b"1"))
        missing = Missing(stored.origin, 0, 1, 0, 1)
        assert len(await fetch_frames(ConnectionConfig(), "proglog", a.address, missing)) == 1
        with pytest.raises(CallFailed, match=r"FAILED_PRECONDITION: .* not of 'another'"):
            await fetch_frames(ConnectionConfig(), "another", a.address, missing)


@pytest.mark.parametrize("sent", [0, 1])
async def test_frames_that_came_before_a_node_failed_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: int
) -> None:
    """Otherwise what takes longer than a connection holds, or than is waited for, would begin anew each time."""
    frames, answers = Log.frames, 0

    def some_frames(log: Log, origin: Origin, first: int, following: int, _max_bytes: int) -> FoundFrames:
        nonlocal answers
        if answers == sent:
            raise LogClosed("the node stops")
        answers += 1
        return frames(log, origin, first, following, 1)

    async with running_node(tmp_path, "a") as a:
        stored = [await a.log.append(batch_of(b"%d" % number)) for number in range(3)]
        monkeypatch.setattr(Log, "frames", some_frames)
        missing = Missing(stored[0].origin, 0, 3, 0, 3)
        if not sent:
            with pytest.raises(CallFailed, match="the node stops"):
                await fetch_frames(ConnectionConfig(), "proglog", a.address, missing)
            return
        (frame,) = await fetch_frames(ConnectionConfig(), "proglog", a.address, missing)
        assert FrameHeader.decode(frame).base_sequence == 0


HELLO = Hello("proglog", "stranger", b"12345678", 1)


@pytest.mark.parametrize(
    ("request_message", "status", "words"),
    [
        (log_v1.PullRequest(), "INVALID_ARGUMENT", "says nothing of itself"),
        (request_to_message(PullRequest(Hello("other", "x", bytes(8), 1))), "FAILED_PRECONDITION", "'other'"),
        (
            request_to_message(PullRequest(Hello("proglog", "x", bytes(8), 1, version=9))),
            "FAILED_PRECONDITION",
            "version 9",
        ),
        (log_v1.PullRequest(hello=log_v1.Hello(directory_id=b"1")), "INVALID_ARGUMENT", "by 1 bytes"),
    ],
)
async def test_bad_requests_are_refused_with_their_reason(
    tmp_path: Path, request_message: log_v1.PullRequest, status: str, words: str
) -> None:
    async with running_node(tmp_path, "a") as a, open_connection(a.address) as connection:
        with pytest.raises(CallFailed, match=words) as caught:
            await connection.run(_send, request_message)
        assert caught.value.status == status
        await eventually(lambda: not a.replicator.replica.streams.sources)


async def test_a_puller_that_ends_its_side_is_let_go(tmp_path: Path) -> None:
    async with running_node(tmp_path, "a") as a, open_connection(a.address) as connection:
        stored = await a.log.append(batch_of(b"1"))
        request = request_to_message(PullRequest(HELLO, wants=(Want(stored.origin, 0),)))
        await connection.run(_send, request)
        await eventually(lambda: not a.replicator.replica.streams.sources)
