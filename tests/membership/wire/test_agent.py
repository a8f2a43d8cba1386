"""A real `serf` agent and the codec, over blocking sockets: each understands what the other sends."""

from __future__ import annotations

import ipaddress
import json
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from attrs import evolve, field, frozen

from proglog_trio.membership.wire.coordinates import decode_ack_payload
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.memberlist import (
    DEFAULT_VSN,
    Ack,
    Alive,
    Dead,
    Message,
    NodeState,
    NodeStateType,
    Ping,
    PushPull,
    UserMessage,
)
from proglog_trio.membership.wire.packet import encode_packets
from proglog_trio.membership.wire.serf import (
    RESPONSE_FLAG_ACK,
    ConflictResponse,
    Leave,
    Query,
    QueryResponse,
    Relay,
    SerfMessage,
    TagFilter,
    UserEvent,
    decode_serf,
    encode_serf,
)
from proglog_trio.membership.wire.state import SerfPushPull
from proglog_trio.membership.wire.stream import StreamMessage
from proglog_trio.membership.wire.stream_decoder import StreamDecoder
from proglog_trio.membership.wire.tags import decode_tags, encode_tags
from tests.membership.wire.at_once import decode_packet, encode_stream

SERF = shutil.which("serf")
pytestmark = [pytest.mark.system, pytest.mark.skipif(SERF is None, reason="there is no serf command")]

LOOPBACK = "127.0.0.1"
LOOPBACK_BYTES = ipaddress.ip_address(LOOPBACK).packed
SECONDS = 20.0
"""How long the agent may take for anything."""
KEYRING = Keyring((bytes(range(32)), b"k" * 16))


def free_port() -> int:
    """Return a port that is free for both TCP and UDP just now."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((LOOPBACK, 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind((LOOPBACK, port))
            except OSError:
                continue
            return port


@frozen
class Agent:
    """A running agent, called by its name."""

    name: str
    port: int
    rpc_address: str
    keyring: Keyring | None

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(SERF), arguments[0], f"-rpc-addr={self.rpc_address}", *arguments[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def members(self) -> dict[str, dict[str, Any]]:
        with self.start("members", "-format=json") as command:
            output = command.communicate(timeout=SECONDS)[0]
        return {member["name"]: member for member in json.loads(output)["members"]}

    def stream(self, message: StreamMessage, keyring: Keyring | None) -> StreamMessage | None:
        """Return what the agent answers on a connection; None if it closes it without a byte."""
        with socket.create_connection((LOOPBACK, self.port), timeout=SECONDS) as connection:
            connection.sendall(encode_stream(message, keyring=keyring))
            decoder = StreamDecoder(keyring=keyring, from_dialler=False)
            while data := connection.recv(1000):
                answer = decoder.feed(data)
                if answer is not None:
                    return answer
            try:
                decoder.end()
            except DecodingError as error:
                assert "ended after 0 bytes" in str(error)  # noqa: PT017 - it always raises
        return None


@frozen
class Node:
    """One of ours: a socket that answers pings."""

    name: str
    agent: Agent
    socket: socket.socket
    received: list[Message] = field(factory=list)

    @property
    def port(self) -> int:
        port: int = self.socket.getsockname()[1]
        return port

    @property
    def state(self) -> NodeState:
        meta = encode_tags({"role": "ours", "rpc_addr": "127.0.0.1:9"})
        return NodeState(self.name, LOOPBACK_BYTES, self.port, meta, 1, vsn=DEFAULT_VSN)

    def send(self, *messages: Message, port: int | None = None) -> None:
        for packet in encode_packets(messages, keyring=self.agent.keyring, checksum=True):
            self.socket.sendto(packet, (LOOPBACK, port or self.agent.port))

    def pump(self, enough: Callable[[], object], seconds: float = SECONDS) -> None:
        """Take packets and answer pings until there is enough."""
        deadline = time.monotonic() + seconds
        while not enough():
            ready, _, _ = select.select([self.socket], [], [], 0.05)
            assert time.monotonic() < deadline, self.received
            if not ready:
                continue
            data, (_, port) = self.socket.recvfrom(65536)
            contents = decode_packet(data, keyring=self.agent.keyring)
            assert not contents.errors
            for message in contents.messages:
                self.received.append(message)
                if isinstance(message, Ping) and message.node == self.name:
                    self.send(Ack(message.seq_no), port=port)

    def heard(self) -> list[SerfMessage]:
        return [decode_serf(message.payload) for message in self.received if isinstance(message, UserMessage)]

    def join(self) -> PushPull:
        state = SerfPushPull(ltime=1, status_ltimes={self.name: 1}, event_ltime=1, query_ltime=1)
        answer = self.agent.stream(PushPull((self.state,), encode_serf(state), join=True), self.agent.keyring)
        assert isinstance(answer, PushPull)
        return answer


def start_agent(name: str, keyring: Keyring | None, *options: str) -> tuple[Agent, subprocess.Popen[str]]:
    """Start an agent and wait until it runs."""
    for _ in range(3):  # somebody else may take a port between looking and binding
        agent = Agent(name, free_port(), f"{LOOPBACK}:{free_port()}", keyring)
        encryption = [f"-encrypt={keyring.to_base64()[0]}"] if keyring is not None else []
        bind = f"-bind={LOOPBACK}:{agent.port}"
        process = agent.start("agent", f"-node={name}", bind, "-profile=local", "-tag=role=web", *encryption, *options)
        assert process.stdout is not None
        for line in process.stdout:
            if "Serf agent running" in line:
                return agent, process
        process.wait(SECONDS)
        process.stdout.close()
    raise AssertionError("the agent does not start")


def stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.fixture(params=[None, KEYRING], ids=["plain", "encrypted"])
def agent(request: pytest.FixtureRequest) -> Iterator[Agent]:
    running, process = start_agent("real", request.param)
    try:
        yield running
    finally:
        stop(process)


@pytest.fixture
def node(agent: Agent) -> Iterator[Node]:
    with socket.socket(type=socket.SOCK_DGRAM) as own:
        own.bind((LOOPBACK, 0))
        yield Node("ours", agent, own)


def test_looks_without_being_seen(agent: Agent) -> None:
    answer = agent.stream(PushPull(), agent.keyring)
    assert isinstance(answer, PushPull)
    (state,) = answer.nodes
    assert (state.name, state.port, state.state) == ("real", agent.port, NodeStateType.ALIVE)
    assert decode_tags(state.meta) == {"role": "web"}
    serf = decode_serf(answer.user_state)
    assert isinstance(serf, SerfPushPull)
    assert serf.status_ltimes.keys() == {"real"}
    assert agent.members().keys() == {"real"}


def test_pings_over_both_transports(agent: Agent, node: Node) -> None:
    assert isinstance(answer := agent.stream(Ping(5, "real"), agent.keyring), Ack)
    assert answer.seq_no == 5
    node.send(Ping(6, "somebody else"), Ping(77, "real", LOOPBACK_BYTES, node.port, "ours"))
    node.pump(lambda: node.received)
    (ack,) = [message for message in node.received if isinstance(message, Ack)]  # gossip may come with it
    assert ack.seq_no == 77
    coordinate = decode_ack_payload(ack.payload)
    assert coordinate is not None
    assert len(coordinate.vec) == 8


def test_a_whole_life(agent: Agent, node: Node) -> None:
    assert [state.name for state in node.join().nodes] == ["real"]
    node.pump(lambda: agent.members().get("ours", {}).get("status") == "alive")
    assert agent.members()["ours"]["tags"] == {"role": "ours", "rpc_addr": "127.0.0.1:9"}
    node.pump(lambda: any(isinstance(message, Ping) for message in node.received))

    with agent.start("event", "-coalesce=true", "deploy", "v1") as event:
        node.pump(lambda: any(isinstance(message, UserEvent) for message in node.heard()))
        event.communicate(timeout=SECONDS)
    fired = next(message for message in node.heard() if isinstance(message, UserEvent))
    assert (fired.name, fired.payload, fired.cc) == ("deploy", b"v1", True)

    with agent.start("query", "-format=json", "-timeout=2s", "-tag=role=^o", "uptime", "x") as command:
        node.pump(lambda: any(isinstance(message, Query) for message in node.heard()))
        query = next(message for message in node.heard() if isinstance(message, Query))
        assert (query.name, query.payload, query.flags & 1) == ("uptime", b"x", 1)
        assert query.filters == (TagFilter("role", "^o"),)
        assert query.timeout == 2_000_000_000
        for flags, payload in ((RESPONSE_FLAG_ACK, b""), (0, b"up 5 days")):
            response = QueryResponse(query.ltime, query.id, "ours", flags, payload)
            node.send(UserMessage(encode_serf(response)), port=query.port)
        output = command.communicate(timeout=SECONDS)[0]
    assert json.loads(output)["Responses"] == {"ours": "up 5 days"}
    assert json.loads(output)["Acks"] == ["ours"]

    node.send(UserMessage(encode_serf(Leave(query.ltime + 50, "ours"))))
    node.pump(lambda: agent.members()["ours"]["status"] == "leaving")
    node.send(Dead(1, "ours", "ours"))
    node.pump(lambda: agent.members()["ours"]["status"] == "left")


def test_a_wrong_key_is_kept_out(agent: Agent) -> None:
    if agent.keyring is None:
        with pytest.raises(DecodingError, match="stream: is not encrypted"):
            agent.stream(PushPull(), KEYRING)
    else:
        for keyring in (None, Keyring((b"o" * 16,))):
            answer: StreamMessage | None = None
            with suppress(DecodingError, ConnectionError):
                answer = agent.stream(PushPull(), keyring)
            assert answer is None
    assert agent.members().keys() == {"real"}


def test_gossip_of_two_agents(agent: Agent, node: Node) -> None:
    """Responses come through other members when they are asked for, and so do answers about a contested name."""
    other, process = start_agent("other", agent.keyring, f"-join={LOOPBACK}:{agent.port}")
    try:
        node.join()
        node.pump(lambda: {"real", "other", "ours"} <= other.members().keys())
        known = {message.node: message for message in node.received if isinstance(message, Alive)}
        assert known.keys() <= {"real", "other", "ours"}

        query = Query(
            9,
            4711,
            LOOPBACK_BYTES,
            node.port,
            "ours",
            flags=1,
            timeout=5 * 10**9,
            name="_serf_conflict",
        )
        node.send(UserMessage(encode_serf(evolve(query, payload=b"real"))), port=other.port)
        node.pump(lambda: any(isinstance(message, QueryResponse) and not message.flags for message in node.heard()))
        response = next(m for m in node.heard() if isinstance(m, QueryResponse) and not m.flags)
        assert (response.id, response.from_node) == (4711, "other")
        conflict = decode_serf(response.payload)
        assert isinstance(conflict, ConflictResponse)
        assert conflict.member is not None
        assert (conflict.member.name, conflict.member.port) == ("real", agent.port)
        assert conflict.member.tags == {"role": "web"}

        # the agents choose at random through whom: it may take more than one query
        for _ in range(10):
            with agent.start("query", "-relay-factor=2", "-timeout=500ms", "anything") as command:
                node.pump(lambda: command.poll() is not None)
            if any(isinstance(message, Relay) for message in node.heard()):
                break
        relay = next(message for message in node.heard() if isinstance(message, Relay))
        assert (relay.header.dest_name, relay.header.dest_addr.port) == ("real", agent.port)
        assert isinstance(decode_serf(relay.payload), QueryResponse)
    finally:
        stop(process)
