"""The server with real sockets: what clients ask, and what becomes of those that behave badly."""

from __future__ import annotations

import logging
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio
from attrs import frozen

from proglog_trio.address import Address
from proglog_trio.errors import AddressInUse, AddressUnavailable
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership import AgentRpcServer, AskedQuery, GossipConfig, Keyring, Membership, open_membership
from proglog_trio.membership.agent_rpc import connection as connections
from proglog_trio.membership.agent_rpc import outbox, server
from proglog_trio.membership.agent_rpc.commands import Commands
from proglog_trio.membership.wire.keyring import encode_key
from tests.membership.agent_rpc.clients import client, named
from tests.membership.running import LOCAL

pytestmark = pytest.mark.timeout(120)
LOOPBACK = Address("127.0.0.1", 0)
KEY, OTHER_KEY = encode_key(bytes(16)), encode_key(bytes(range(32)))


@frozen
class Served:
    membership: Membership
    server: AgentRpcServer
    address: Any


@asynccontextmanager
async def served(
    where: Address | Path = LOOPBACK, *, name: str = "a", keyring: Keyring | None = None, **options: Any
) -> AsyncIterator[Served]:
    config = GossipConfig(name=name, profile=LOCAL, keyring=keyring)
    async with open_membership(config, {"role": "web"}) as membership, trio.open_nursery() as nursery:
        running = AgentRpcServer(membership, **options)
        address = await nursery.start(running.run, where)
        yield Served(membership, running, address)
        nursery.cancel_scope.cancel()


# -- commands ----------------------------------------------------------------------------------------------------------


async def test_members_are_listed_and_filtered() -> None:
    async with served() as a, served(name="b") as b, client(a.address) as asking:
        error, body = await asking.get("join", {"Existing": [str(b.membership.address)], "Replay": False})
        assert (error, body) == ("", {"Num": 1})
        error, members = await asking.get("members")
        assert error == ""
        assert named(members).keys() == {"a", "b"}
        assert named(members)["a"] == {
            "Name": "a", "Addr": b"\x7f\0\0\1", "Port": a.membership.address.port, "Tags": {"role": "web"},
            "Status": "alive", "ProtocolMin": 1, "ProtocolMax": 5, "ProtocolCur": 2, "DelegateMin": 2,
            "DelegateMax": 5, "DelegateCur": 4,
        }  # fmt: skip
        for wanted, found in (
            ({"Name": "a"}, {"a"}),
            ({"Name": "[ab]", "Status": "alive", "Tags": {"role": "w.b"}}, {"a", "b"}),
            ({"Name": "a."}, set()),
            ({"Status": "failed|left"}, set()),
            ({"Tags": {"role": "we"}}, set()),
            ({"Tags": {"role": "eb"}}, set()),
            ({"Tags": {"absent": ".+"}}, set()),
            ({"Tags": {"absent": ""}}, {"a", "b"}),
            ({}, {"a", "b"}),
        ):
            error, members = await asking.get("members-filtered", wanted)
            assert error == ""
            assert set(named(members)) == found, wanted
        for bad in ("[", "x" * 1000, r"(?=a)"):
            error, members = await asking.get("members-filtered", {"Name": bad})
            assert error
            assert members == {"Members": []}


async def test_join_says_what_went_wrong() -> None:
    async with served() as a, client(a.address) as asking:
        for existing in ([f"127.0.0.1:{closed_port()}"], ["a b"], ["127.0.0.1:1"] * 101):
            error, body = await asking.get("join", {"Existing": existing})
            assert error
            assert body == {"Num": 0}
        assert await asking.get("join", {"Existing": []}) == ("", {"Num": 0})


async def test_tags_are_changed() -> None:
    async with served() as a, client(a.address) as asking:
        assert await asking.ask("tags", {"Tags": {"zone": "1"}, "DeleteTags": ["role", "absent"]}) == ""
        assert a.membership.tags == {"zone": "1"}
        assert "512" in await asking.ask("tags", {"Tags": {"large": "x" * 600}})
        assert await asking.ask("tags", {"Tags": None, "DeleteTags": None}) == ""


async def test_figures_and_coordinates() -> None:
    async with served() as a, client(a.address) as asking:
        error, stats = await asking.get("stats")
        assert error == ""
        assert stats["agent"]["name"] == "a"
        assert stats["serf"]["members"] == "1"
        assert stats["tags"] == {"role": "web"}
        assert stats.keys() >= {"agent", "runtime", "serf", "tags", "event_handlers"}
        assert all(isinstance(value, str) for section in stats.values() for value in section.values())
        error, found = await asking.get("get-coordinate", {"Node": "a"})
        assert error == ""
        assert found["Ok"]
        assert len(found["Coord"]["Vec"]) == 8
        assert (await asking.get("get-coordinate", {"Node": "nobody"}))[1]["Ok"] is False


async def test_keys_are_changed_and_listed() -> None:
    async with served(keyring=Keyring.from_base64([KEY])) as a, client(a.address) as asking:
        assert (await asking.get("install-key", {"Key": OTHER_KEY}))[0] == ""
        error, listed = await asking.get("list-keys")
        assert error == ""
        assert listed["Keys"] == {KEY: 1, OTHER_KEY: 1}
        assert listed["NumNodes"] == listed["NumResp"] == 1
        assert (await asking.get("use-key", {"Key": OTHER_KEY}))[0] == ""
        error, refused = await asking.get("remove-key", {"Key": OTHER_KEY})
        assert error == "1/1 nodes reported failure"
        assert refused["NumErr"] == 1
        assert "a" in refused["Messages"]
        assert (await asking.get("remove-key", {"Key": KEY}))[0] == ""
        error, refused = await asking.get("install-key", {"Key": "no key"})
        assert error
        assert "no key" not in error


async def test_without_a_keyring_keys_are_refused() -> None:
    async with served() as a, client(a.address) as asking:
        error, report = await asking.get("list-keys")
        assert "no keyring" in error
        assert report["NumNodes"] == 0


async def test_events_are_sent_and_streamed() -> None:
    async with served() as a, client(a.address) as asking, client(a.address) as watching:
        assert await watching.ask("stream", {"Type": "user:deploy,member-update"}, seq=50) == ""
        assert await asking.ask("event", {"Name": "other", "Payload": b"x", "Coalesce": False}) == ""
        assert await asking.ask("event", {"Name": "deploy", "Payload": b"\xff\0", "Coalesce": False}) == ""
        assert await watching.header(50) == ""
        event = await watching.read()
        assert event == {"Event": "user", "LTime": 2, "Name": "deploy", "Payload": b"\xff\0", "Coalesce": False}
        assert await asking.ask("tags", {"Tags": {"zone": "1"}}) == ""
        assert await watching.header(50) == ""
        event = await watching.read()
        assert event["Event"] == "member-update"
        assert named(event)["a"]["Tags"] == {"role": "web", "zone": "1"}
        assert "512" in await asking.ask("event", {"Name": "deploy", "Payload": b"x" * 600})
        # What was stopped is not sent any more.
        assert await watching.ask("stop", {"Stop": 50}) == ""
        assert await watching.ask("stream", {"Type": "user:last"}, seq=50) == ""
        await asking.ask("event", {"Name": "deploy"})
        await asking.ask("event", {"Name": "last"})
        assert await watching.header(50) == ""
        assert (await watching.read())["Name"] == "last"


async def test_a_query_is_answered_by_another_client() -> None:
    async with served() as a, client(a.address) as asking, client(a.address) as answering:
        assert await answering.ask("stream", {"Type": "query:load"}, seq=9) == ""
        body = {"Name": "load", "Payload": b"15m", "RequestAck": True, "Timeout": 20_000_000_000}
        seq = await asking.send("query", body)
        assert await answering.header(9) == ""
        query = await answering.read()
        assert query == {"Event": "query", "ID": 1, "LTime": query["LTime"], "Name": "load", "Payload": b"15m"}
        assert await answering.ask("respond", {"ID": 2, "Payload": b"x"}) == "No pending queries matching ID"
        assert "1024" in await answering.ask("respond", {"ID": 1, "Payload": b"x" * 2000})
        assert await answering.ask("respond", {"ID": 1, "Payload": b"1.02"}) == ""
        assert await answering.ask("respond", {"ID": 1, "Payload": b"again"}) != ""
        assert await asking.header(seq) == ""
        said = []
        for _ in range(3):
            assert await asking.header(seq) == ""
            said.append(await asking.read())
        assert said == [
            {"Type": "ack", "From": "a", "Payload": None},
            {"Type": "response", "From": "a", "Payload": b"1.02"},
            {"Type": "done", "From": "", "Payload": None},
        ]
        # It is over: its number may be used again.
        assert await asking.ask("query", {**body, "Timeout": 1}, seq=seq) == ""


async def test_reachability_is_asked_about() -> None:
    async with served() as a, client(a.address) as asking:
        body = {"Name": "_serf_ping", "RequestAck": True, "Timeout": 500_000_000}
        assert await asking.ask("query", body, seq=4) == ""
        assert await asking.header(4) == ""
        assert (await asking.read())["Type"] == "ack"
        assert await asking.header(4) == ""
        assert (await asking.read())["Type"] == "done"
        for bad in ({"Name": "_serf_conflict"}, {"Name": "_serf_ping", "Payload": b"x"}, {"Name": "q" * 2000}):
            assert await asking.ask("query", bad) != ""
        assert await asking.ask("query", {"Name": "q", "FilterTags": {"role": "["}}) != ""


async def test_the_log_is_monitored() -> None:
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.INFO)
    try:
        async with served() as a, client(a.address) as watching:
            assert await watching.ask("monitor", {"LogLevel": "loud"}) == "Unknown log level: LOUD"
            assert await watching.ask("monitor", {"LogLevel": "debug"}, seq=3) == ""
            assert await watching.ask("monitor", {"LogLevel": "INFO"}) == "Monitor already exists"
            logging.getLogger("x").debug("something")
            assert await watching.header(3) == ""
            assert (await watching.read())["Log"].endswith("[DEBUG] x: something")
        with trio.fail_after(10):
            while root.level != logging.INFO:  # noqa: ASYNC110 - the server sees the end of the connection later
                await trio.sleep(0.01)
    finally:
        root.setLevel(before)


async def test_a_node_leaves_when_it_is_told_to() -> None:
    left = trio.Event()
    async with served(name="b") as b, served(on_leave=left.set) as a, client(a.address) as asking:
        await asking.get("join", {"Existing": [str(b.membership.address)]})
        assert await asking.ask("leave") == ""
        assert await asking.ended() == []
        with trio.fail_after(10):
            await left.wait()
        assert (await asking_again(a))["Status"] == "left"


async def asking_again(a: Served) -> Any:
    async with client(a.address) as again:
        return named((await again.get("members"))[1])["a"]


async def test_a_node_leaves_though_its_client_is_gone_at_once() -> None:
    left = trio.Event()
    async with served(name="b") as b, served(on_leave=left.set) as a:
        async with client(a.address) as watching, client(a.address) as asking:
            await asking.get("join", {"Existing": [str(b.membership.address)]})
            # What is pushed meets a connection that is not there any more, while the node still leaves.
            assert await asking.ask("stream", {"Type": "*"}) == ""
            await asking.send("leave")
            await trio.aclose_forcefully(asking.stream)
            assert await watching.ask("event", {"Name": "x", "Coalesce": False}) == ""
        with trio.fail_after(30):
            await left.wait()
        assert (await asking_again(a))["Status"] == "left"


async def test_a_failed_member_is_made_to_leave() -> None:
    async with served() as a, client(a.address) as asking:
        assert await asking.ask("force-leave", {"Node": "nobody", "Prune": True}) == ""


# -- who may -----------------------------------------------------------------------------------------------------------


async def test_a_client_says_the_key() -> None:
    async with served(auth_key="secret") as a:
        async with client(a.address) as asking:
            assert await asking.ask("members") == "Authentication required"
            assert await asking.ask("auth", {"AuthKey": "wrong"}) == "Invalid authentication token"
            assert await asking.ask("event", {"Name": "x"}) == "Authentication required"
        async with client(a.address, auth_key="secret") as asking:
            assert (await asking.get("members"))[0] == ""
    assert "secret" not in repr(a.server)


async def test_a_unix_socket_is_the_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "serf.sock"
    async with served(path) as a, client(path) as asking:
        assert a.address == path
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert named((await asking.get("members"))[1]).keys() == {"a"}
        with pytest.raises(AddressInUse, match="another process"):
            await AgentRpcServer(a.membership).run(path)
        assert (await asking.get("members"))[0] == ""
    assert not path.exists()


async def test_a_socket_that_is_left_over_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "serf.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with served(path), client(path) as asking:
        assert (await asking.get("members"))[0] == ""
    path.write_text("mine")
    async with served() as a:
        with pytest.raises(AddressUnavailable, match="no socket"):
            await AgentRpcServer(a.membership).run(path)
        with pytest.raises(AddressUnavailable):
            await AgentRpcServer(a.membership).run(tmp_path / "absent" / "serf.sock")
        with pytest.raises(AddressInUse):
            await AgentRpcServer(a.membership).run(a.address)
    assert path.read_text() == "mine"


# -- who behaves badly -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "answered"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", []),
        (b"\xc1", []),
        (b"\xdf\xff\xff\xff\xff", []),
        (msgpack.packb({"Command": "dance", "Seq": 2}) + b"\xc1", [{"Seq": 2, "Error": "Unsupported command"}]),
        (msgpack.packb({"Command": "event", "Seq": 2}) + b"\x05", [{"Seq": 2, "Error": "body of event: is 5, no map"}]),
    ],
    ids=["http", "no msgpack", "too long", "command", "body"],
)
async def test_who_speaks_otherwise_is_ended_and_nobody_else(data: bytes, answered: list[Any]) -> None:
    async with served() as a, client(a.address) as other, client(a.address) as asking:
        await asking.stream.send_all(data)
        assert await asking.ended() == answered
        assert (await other.get("members"))[0] == ""
    assert a.server.counters.connections == 2


async def test_who_does_not_greet_or_end_a_request_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "GREETING_SECONDS", 0.2)
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.2)
    async with served(auth_key="k") as a, client(a.address, auth_key="k") as patient:
        async with client(a.address, handshake=False) as silent, client(a.address) as unknown:
            assert await silent.ended() == []
            assert await unknown.ended() == []
        async with client(a.address, auth_key="k") as slow:
            await slow.stream.send_all(msgpack.packb({"Command": "event", "Seq": 2}))
            assert await slow.ended() == []
        # One that has said who it is may be silent for as long as it likes.
        assert (await patient.get("members"))[0] == ""
    assert a.server.counters.connections_refused == 3


async def test_each_request_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 1.0)
    async with served() as a, client(a.address) as busy:
        request = msgpack.packb({"Command": "stats", "Seq": 2})
        await busy.stream.send_all(request[:3])
        began = trio.current_time()
        # Whenever the node looks, one has begun that is not whole; none takes long.
        while trio.current_time() < began + 2.5:
            await trio.sleep(0.1)
            await busy.stream.send_all(request[3:] + request[:3])
            assert await busy.header(2) == ""
            assert (await busy.read()).keys() >= {"agent"}
        assert await busy.ended() == []
    assert a.server.counters.connections_refused == 1


async def test_who_does_not_read_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_UNREAD_BYTES", 10_000)
    monkeypatch.setattr(outbox, "PIECE_SECONDS", 0.5)
    async with served() as a, client(a.address) as other:
        async with client(a.address) as lazy:
            assert await lazy.ask("stream", {"Type": "user"}) == ""
            with trio.fail_after(60):
                while a.server.counters.connections_refused == 0:
                    for _ in range(50):
                        a.membership.send_event("flood", b"x" * 400)
                    await trio.sleep(0.01)
            assert len(await lazy.ended()) > 0
        assert (await other.get("members"))[0] == ""


async def test_who_asks_much_and_reads_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PIECE_SECONDS", 0.5)
    async with served() as a, client(a.address) as greedy:
        request = msgpack.packb({"Command": "stats", "Seq": 2})

        waiting: list[int] = []

        async def send() -> None:
            while True:
                await greedy.stream.send_all(request * 1000)
                waiting.extend(each._outbox._waiting_bytes for each in a.server._served)

        with trio.fail_after(60), pytest.raises(trio.BrokenResourceError):
            await send()
        assert a.server.counters.connections_refused == 1
        # What was asked for before it was seen that nobody reads, and no more.
        assert max(waiting) < 2 * outbox.LOW_BYTES


async def test_whose_machine_is_gone_is_found_out() -> None:
    async with served() as a, client(a.address) as asking:
        assert (await asking.get("members"))[0] == ""
        (connection,) = a.server._served
        options = connection.stream.getsockopt
        assert options(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert options(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == server.KEEPALIVE_SECONDS
        assert options(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == server.KEEPALIVE_SECONDS


async def test_clients_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    async with (
        served() as a,
        client(a.address) as first,
        client(a.address, handshake=False) as silent,
        client(a.address) as second,
    ):
        assert await silent.ended() == []
        async with client(a.address, handshake=False) as third:
            assert await third.ended() == []
        assert (await first.get("members"))[0] == (await second.get("members"))[0] == ""


@pytest.mark.internal_errors
async def test_what_was_not_foreseen_costs_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(Commands, "perform", fail)
    errors = InternalErrors()
    async with served(errors=errors) as a, client(a.address) as asking:
        assert await asking.get("members") == ("internal error", {"Members": []})
        assert await asking.ask("event", {"Name": "x"}) == "internal error"
        monkeypatch.setattr(Membership, "events", partial(fail))
        assert await asking.ask("stop", {"Stop": 1}) == ""
    assert errors.counts[Where.AGENT_RPC] == 2


@pytest.mark.internal_errors
async def test_a_stream_that_fails_unforeseen_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("unforeseen")

    errors = InternalErrors()
    async with served(errors=errors) as a, client(a.address) as asking, client(a.address) as other:
        monkeypatch.setattr(Membership, "query", fail)
        await asking.send("query", {"Name": "q"})
        assert await asking.ended() == []
        assert (await other.get("members"))[0] == ""
    assert errors.counts[Where.AGENT_RPC] == 1


async def test_a_client_may_be_gone_at_any_time() -> None:
    async with served() as a:
        for requests in ([], ["members"], ["stream", "members"]):
            async with client(a.address) as leaving:
                for command in requests:
                    await leaving.send(command, {"Type": "*"} if command == "stream" else None)
        async with client(a.address) as half:
            await half.send("members")
            await half.stream.send_eof()
            assert len(await half.ended()) == 2
        with trio.fail_after(10):
            while a.server._served:  # noqa: ASYNC110 - the server sees the end of the connections later
                await trio.sleep(0.01)


async def test_what_a_client_asked_for_ends_with_it() -> None:
    async with served() as a:
        async with client(a.address) as asking:
            for command, body in (
                ("query", {"Name": "q", "Timeout": 10**12}),
                ("stream", {"Type": "*"}),
                ("monitor", {"LogLevel": "ERR"}),
            ):
                assert await asking.ask(command, body) == ""
            (connection,) = a.server._served
            assert len(connection._scopes) == 3
            assert len(a.membership.gossip.core.querying._open._open) == 1
            assert len(a.membership.news.subscriptions._open) == 1
        with trio.fail_after(10):
            while a.server._served:  # noqa: ASYNC110 - the server sees the end of the connection later
                await trio.sleep(0.01)
        assert len(a.membership.gossip.core.querying._open._open) == 0
        assert len(a.membership.news.subscriptions._open) == 0


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


async def test_queries_that_time_out_cannot_be_answered() -> None:
    async with served() as a, client(a.address) as asking:
        assert await asking.ask("stream", {"Type": "query"}, seq=1) == ""
        async with a.membership.events() as events:
            a.membership.query("late", timeout=0.1)
            query = await anext(events)
            assert isinstance(query, AskedQuery)
        assert await asking.header(1) == ""
        number = (await asking.read())["ID"]
        await trio.sleep_until(query.deadline + 0.01)
        assert await asking.ask("respond", {"ID": number, "Payload": b"x"}) != ""
