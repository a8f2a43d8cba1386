"""Events and queries over gRPC: a node in this process, and a member of another program beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.address import Address
from proglog_trio.errors import CallFailed, ConnectionNotOpened
from proglog_trio.membership import AskedQuery, GossipConfig, Membership, QueryHandler, UserEvent, open_membership
from proglog_trio.membership.serf.open_queries import MAX_QUERIES
from proglog_trio.rpc.calls import cluster
from proglog_trio.rpc.server.cluster_events import MAX_WATCHERS
from tests.members import WAIT_SECONDS, NodeInside, node_inside
from tests.membership.running import LOCAL


@asynccontextmanager
async def other_member(
    node: NodeInside, handlers: Mapping[str, QueryHandler] | None = None
) -> AsyncIterator[Membership]:
    """A member of a program that knows no log."""
    async with open_membership(
        GossipConfig(name="other", profile=LOCAL),
        {"role": "other"},
        start_addresses=[Address.parse(node.gossip)],
        query_handlers=handlers or {},
    ) as member:
        with trio.fail_after(WAIT_SECONDS):
            yield member


async def asked(node: NodeInside, name: str = "load", **fields: Any) -> list[log_v1.QueryResponse]:
    told: list[log_v1.QueryResponse] = []
    await cluster.query(node.address, log_v1.QueryRequest(name=name, **fields), told.append, WAIT_SECONDS)
    return told


@asynccontextmanager
async def watching(
    node: NodeInside, *, coalesce: bool = False
) -> AsyncIterator[Callable[[Callable[[log_v1.WatchEventsResponse], bool]], Any]]:
    """Watch a node's events; give what waits for one, and returns it."""
    send, receive = trio.open_memory_channel[log_v1.WatchEventsResponse](1000)

    async def until(wanted: Callable[[log_v1.WatchEventsResponse], bool]) -> log_v1.WatchEventsResponse:
        with trio.fail_after(WAIT_SECONDS):
            async for happened in receive:
                if wanted(happened):
                    return happened
        raise AssertionError("the events have ended")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(cluster.watch_events, node.address, send.send_nowait, WAIT_SECONDS, coalesce=coalesce)
        )
        await _begun(node, until)
        yield until
        nursery.cancel_scope.cancel()


async def _begun(node: NodeInside, until: Callable[..., Any]) -> None:
    """Wait until a watch has begun: send events until one is told of."""
    with trio.fail_after(WAIT_SECONDS):
        while True:
            await cluster.send_event(node.address, "begun", b"", WAIT_SECONDS)
            with trio.move_on_after(0.2):
                await until(lambda happened: happened.user_event is not None)
                return


async def test_events_are_sent_and_watched(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a") as a, watching(a) as until, other_member(a) as other:
        joined = await until(lambda happened: happened.members is not None)
        (told,) = joined.members.members
        (listed,) = [each for each in await cluster.get_members(a.address, 10) if each.name == "other"]
        # How far away it is may have been measured again since it was told.
        listed.round_trip_seconds, listed.coordinate = told.round_trip_seconds, told.coordinate
        assert joined.members == log_v1.MembersEvent(kind=log_v1.MembersEventKind.JOIN, members=[listed])
        async with other.events() as events:
            await cluster.send_event(a.address, "deploy", b"1", WAIT_SECONDS, coalesce=True)
            async for event in events:
                if isinstance(event, UserEvent) and event.name == "deploy":
                    assert (event.payload, event.coalesce) == (b"1", True)
                    break
        other.send_event("built", b"\xff")
        built = await until(lambda happened: happened.user_event is not None and happened.user_event.name == "built")
        assert (built.user_event.payload, built.user_event.coalesce) == (b"\xff", False)
        assert built.user_event.lamport_time > 0
        other.query("question", b"?", nodes=["a"], timeout=5)
        query = await until(lambda happened: happened.query is not None)
        assert (query.query.name, query.query.payload, query.query.source) == ("question", b"?", "other")


async def test_answers_come_as_they_are_given_and_the_stream_ends_with_the_last(tmp_path: Path) -> None:
    async def load(query: AskedQuery) -> bytes:
        return b"0.5 " + query.payload

    async with node_inside(tmp_path / "a", "a") as a, other_member(a, {"load": load}):
        of_other = log_v1.QueryResponse(member="other", payload=b"0.5 now")
        acknowledged = log_v1.QueryResponse(member="other", is_acknowledgement=True)
        fields: dict[str, Any] = {"payload": b"now", "timeout_seconds": 3600.0}
        assert await asked(a, nodes=["other"], **fields) == [acknowledged, of_other]
        assert await asked(a, tags={"role": "^oth"}, no_acknowledgements=True, **fields) == [of_other]
        # A node has nothing to say to it, and its own acknowledgement is the first.
        everybody = await asked(a, timeout_seconds=0.5, relay_factor=1)
        assert everybody[0] == log_v1.QueryResponse(member="a", is_acknowledgement=True)
        assert {each.member for each in everybody} == {"a", "other"}
        assert await asked(a, nodes=["nobody"]) == []


async def test_a_query_that_its_client_leaves_is_over(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a") as a:
        for _ in range(MAX_QUERIES + 5):
            got = trio.Event()
            request = log_v1.QueryRequest(name="load", timeout_seconds=3600.0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cluster.query, a.address, request, lambda _, got=got: got.set(), WAIT_SECONDS)
                with trio.fail_after(WAIT_SECONDS):
                    await got.wait()
                nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"name": ""}, "INVALID_ARGUMENT"),
        ({"name": "_serf_conflict"}, "INVALID_ARGUMENT"),
        ({"payload": bytes(1024)}, "INVALID_ARGUMENT"),
        ({"tags": {"role": "("}}, "INVALID_ARGUMENT"),
        ({"timeout_seconds": -1.0}, "INVALID_ARGUMENT"),
        ({"relay_factor": 256}, "INVALID_ARGUMENT"),
    ],
)
async def test_what_cannot_be_asked(tmp_path: Path, fields: dict[str, Any], status: str) -> None:
    async with node_inside(tmp_path / "a", "a") as a:
        with pytest.raises(CallFailed) as caught:
            await asked(a, **{"name": "load", **fields})
        assert caught.value.status == status


async def test_what_cannot_be_sent(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a", user_event_size_limit=100) as a:
        for name, payload in (("", b""), ("e", bytes(100))):
            with pytest.raises(CallFailed, match=r"empty|limit, which is 100") as caught:
                await cluster.send_event(a.address, name, payload, WAIT_SECONDS)
            assert caught.value.status == "INVALID_ARGUMENT"


async def test_watchers_are_bounded_and_coalesced(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a") as a, trio.open_nursery() as nursery:
        service_full, refusals = trio.Event(), list[str]()

        async def watch() -> None:
            try:
                await cluster.watch_events(a.address, lambda _: None, WAIT_SECONDS)
            except CallFailed as error:
                refusals.append(error.status)
                service_full.set()

        for _ in range(MAX_WATCHERS + 1):
            nursery.start_soon(watch)
        with trio.fail_after(WAIT_SECONDS):
            await service_full.wait()
        assert refusals == ["RESOURCE_EXHAUSTED"]
        nursery.cancel_scope.cancel()
    async with node_inside(tmp_path / "a", "a") as a, watching(a, coalesce=True) as until:
        for number in range(5):
            await cluster.send_event(a.address, "deploy", bytes((number,)), WAIT_SECONDS, coalesce=True)
        told = await until(lambda happened: happened.user_event is not None and happened.user_event.name == "deploy")
        assert told.user_event.payload == b"\x04"


@pytest.mark.parametrize("replay", [False, True])
async def test_events_of_before_are_replayed_to_whom_wants_them(tmp_path: Path, replay: bool) -> None:
    async with (
        open_membership(GossipConfig(name="other", profile=LOCAL)) as other,
        node_inside(tmp_path / "a", "a") as a,
        watching(a) as until,
    ):
        other.send_event("before")
        assert await cluster.join(a.address, [str(other.address)], WAIT_SECONDS, replay_events=replay) == 1
        other.send_event("after")
        told = [await until(lambda happened: happened.user_event is not None) for _ in range(1 + replay)]
        names = [each.user_event.name for each in told if each.user_event.name != "begun"]
        assert names == (["before", "after"] if replay else ["after"])


async def test_a_node_that_is_not_there() -> None:
    with pytest.raises(ConnectionNotOpened):
        await cluster.query("127.0.0.1:1", log_v1.QueryRequest(name="load"), lambda _: None, 1.0)
