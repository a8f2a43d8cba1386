"""What a client may do when; the words are those of a real agent, which tests/interop compares."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proglog_trio.membership.agent_rpc import session as sessions
from proglog_trio.membership.agent_rpc.messages import (
    COMMANDS,
    AskQuery,
    Auth,
    FireEvent,
    Handshake,
    MonitorLog,
    Respond,
    Stop,
    StreamEvents,
)
from proglog_trio.membership.agent_rpc.request_decoder import Request
from proglog_trio.membership.agent_rpc.session import (
    MAX_OFFERED,
    MAX_STREAMS,
    Begin,
    End,
    Perform,
    QueryNotAnswered,
    Send,
    Session,
)
from proglog_trio.membership.events.asked_query import AskedQuery
from proglog_trio.membership.serf.asked_queries import QueryOver

SEQ = 5


def ask(session: Session, command: str, body: Any = None, seq: int = SEQ) -> Any:
    return session.take(Request(command, seq, body))


def error_of(step: Any) -> str:
    assert isinstance(step, Send | End)
    header = msgpack.unpackb(step.data)
    assert header["Seq"] == SEQ
    return str(header["Error"])


def trusted(auth_key: str | None = None) -> Session:
    session = Session(auth_key)
    assert error_of(ask(session, "handshake", Handshake(1))) == ""
    if auth_key is not None:
        assert error_of(ask(session, "auth", Auth(auth_key))) == ""
    return session


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"handshake"}))
def test_nothing_is_done_before_the_handshake(command: str) -> None:
    kind = COMMANDS[command]
    step = ask(Session(), command, None if kind is None else kind())
    assert error_of(step) == "Handshake required"
    assert step.closes


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"handshake", "auth"}))
def test_nothing_is_done_before_the_client_says_the_key(command: str) -> None:
    session = Session("secret")
    ask(session, "handshake", Handshake(1))
    kind = COMMANDS[command]
    for wrong in ("", "secre", "secrets", "sécret\udcff"):
        assert error_of(ask(session, "auth", Auth(wrong))) == "Invalid authentication token"
        assert error_of(ask(session, command, None if kind is None else kind())) == "Authentication required"
    assert not session.is_trusted
    assert error_of(ask(session, "auth", Auth("secret"))) == ""
    assert error_of(ask(session, "auth", Auth("wrong"))) == "Invalid authentication token"
    assert session.is_trusted


def test_the_handshake_is_done_once_and_in_one_version() -> None:
    session = Session()
    assert error_of(ask(session, "handshake", Handshake(2))) == "Unsupported IPC version"
    assert error_of(ask(session, "handshake", Handshake(1))) == ""
    assert error_of(ask(session, "handshake", Handshake(1))) == "Handshake already performed"


def test_a_key_that_nobody_asked_for_is_wrong() -> None:
    assert error_of(ask(trusted(), "auth", Auth("any"))) == "Invalid authentication token"


def test_the_key_is_shown_nowhere() -> None:
    assert "secret" not in repr(Session("secret"))
    assert "secret" not in repr(Request("auth", 1, Auth("secret")))


def test_after_an_unknown_command_the_connection_is_closed() -> None:
    step = ask(trusted(), "dance")
    assert error_of(step) == "Unsupported command"
    assert step.closes


def test_commands_are_performed() -> None:
    step = ask(trusted("k"), "event", FireEvent("a"))
    assert step == Perform(Request("event", SEQ, FireEvent("a")))


def test_streams_begin_and_end_under_their_numbers() -> None:
    session = trusted()
    stream = ask(session, "stream", StreamEvents("*"), seq=7)
    monitor = ask(session, "monitor", MonitorLog("info"), seq=7)
    assert isinstance(stream, Begin)
    assert isinstance(monitor, Begin)
    again = session.take(Request("stream", 7, StreamEvents("*")))
    assert isinstance(again, Send)
    assert msgpack.unpackb(again.data) == {"Seq": 7, "Error": "Stream with given sequence exists"}
    assert error_of(ask(session, "monitor", MonitorLog("info"))) == "Monitor already exists"
    ended = ask(session, "stop", Stop(7))
    assert set(ended.begun) == {stream, monitor}
    # The number is free at once; the end of the one before, which comes later, does not end the new one.
    new = ask(session, "stream", StreamEvents("user"), seq=7)
    session.ended(stream)
    session.ended(monitor)
    assert ask(session, "stop", Stop(7)).begun == (new,)
    assert ask(session, "stop", Stop(7)).begun == ()


def test_the_number_of_a_query_that_is_open_is_taken() -> None:
    session = trusted()
    assert isinstance(ask(session, "query", AskQuery(name="q")), Begin)
    for command, body in (
        ("query", AskQuery(name="q")),
        ("stream", StreamEvents("*")),
        ("monitor", MonitorLog("info")),
    ):
        assert error_of(ask(session, command, body)) == "Stream with given sequence exists"


def test_streams_are_bounded_together() -> None:
    session = trusted()
    begun = [ask(session, "query", AskQuery(name="q"), seq=number) for number in range(MAX_STREAMS)]
    for command, body in (("stream", StreamEvents("*")), ("monitor", MonitorLog("info")), ("query", AskQuery())):
        assert "Too many streams" in error_of(ask(session, command, body))
    session.ended(begun[-1])
    assert isinstance(ask(session, "monitor", MonitorLog("info"), seq=100), Begin)


def asked(number: int) -> AskedQuery:
    return AskedQuery("load", b"now", "x", 1, number, trio.current_time())


async def test_queries_are_answered_by_the_number_they_were_sent_under() -> None:
    session = trusted()
    answered = []

    def answer(query: AskedQuery, payload: bytes) -> None:
        if payload == b"late":
            raise QueryOver("its time is over")
        answered.append((query.ltime, query.id, payload))

    numbers = [session.offer(asked(each)) for each in range(MAX_OFFERED + 1)]
    assert len(set(numbers)) == len(numbers)
    with pytest.raises(QueryNotAnswered, match="No pending queries matching ID"):
        session.respond(Respond(numbers[0], b"forgotten"), answer)
    with pytest.raises(QueryNotAnswered, match="over"):
        session.respond(Respond(numbers[1], b"late"), answer)
    session.respond(Respond(numbers[-1], b"yes"), answer)
    assert answered == [(1, MAX_OFFERED, b"yes")]
    # They wait for as long as the client is there, and names and payloads may be a MiB each.
    assert {(query.name, query.payload) for query in session._offered.values()} == {("", b"")}


class Sessions(RuleBasedStateMachine):
    """Whatever a client sends, nothing is done for one that is not trusted, and what runs is bounded and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session("key")
        self.running: list[Begin] = []
        self.is_greeted = self.is_trusted = False

    @rule(version=st.integers(0, 2))
    def greet(self, version: int) -> None:
        self._take("handshake", Handshake(version))
        self.is_greeted |= version == 1

    @rule(key=st.sampled_from(["key", "", "other"]))
    def say_key(self, key: str) -> None:
        self._take("auth", Auth(key))
        self.is_trusted |= self.is_greeted and key == "key"

    @rule(
        seq=st.integers(0, 3),
        body=st.sampled_from([("stream", StreamEvents("*")), ("monitor", MonitorLog()), ("query", AskQuery())]),
    )
    def begin(self, seq: int, body: tuple[str, Any]) -> None:
        step = self._take(*body, seq)
        if isinstance(step, Begin):
            self.running.append(step)

    @rule(seq=st.integers(0, 3))
    def stop(self, seq: int) -> None:
        step = self._take("stop", Stop(seq), seq)
        if isinstance(step, End):
            for begun in step.begun:
                self.running.remove(begun)

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.running:
            begun = data.draw(st.sampled_from(self.running))
            self.running.remove(begun)
            self.session.ended(begun)

    def _take(self, command: str, body: Any, seq: int = 0) -> Any:
        step = self.session.take(Request(command, seq, body))
        if not self.is_trusted:
            assert isinstance(step, Send)
        return step

    @invariant()
    def what_runs_is_what_the_session_knows(self) -> None:
        session = self.session
        known = [*session.streams.values(), *session.queries.values(), *([session.monitor] if session.monitor else [])]
        assert set(known) == set(self.running)
        assert session.is_trusted == self.is_trusted


TestSessions = Sessions.TestCase


@given(st.text(max_size=20))
def test_any_command_gets_an_answer(command: str) -> None:
    assert isinstance(trusted().take(Request(command, 1)), Send | Perform) or command in COMMANDS


def test_the_words_are_the_agents() -> None:
    assert sessions.INVALID_FILTER == "Invalid event filter"
