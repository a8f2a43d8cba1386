from __future__ import annotations

from collections.abc import Callable

import pytest

from proglog_trio.membership.serf.keys import KeyOperation, KeyQuestion, refusal, request_payload
from proglog_trio.membership.serf.open_queries import MAX_QUERIES, TooManyQueries, default_timeout
from proglog_trio.membership.swim.effects import Effect, SendPacket
from proglog_trio.membership.wire.memberlist import UserMessage, decode_message
from proglog_trio.membership.wire.serf import (
    RESPONSE_FLAG_ACK,
    KeyResponse,
    Query,
    QueryResponse,
    decode_serf,
    encode_serf,
)
from tests.membership.serf.cores import HERE, THERE, TestedCore, alive


class Asked:
    """Somebody who asks, and what was said."""

    def __init__(self, tested: TestedCore, name: str = "question") -> None:
        self.answers: list[tuple[str, bytes]] = []
        self.ends = 0
        self.before = tested.core.query_clock.time
        tested.core.querying.ask(name, b"payload", lambda *answer: self.answers.append(answer), self._end)
        self.ltime = tested.core.query_clock.time - 1

    def _end(self) -> None:
        self.ends += 1


def queries_in(effects: list[Effect], endpoint: object = THERE) -> list[Query]:
    """The queries that are sent to somebody."""
    found = []
    for effect in effects:
        if isinstance(effect, SendPacket) and effect.target == endpoint:
            for message in effect.messages:
                decoded = decode_message(message)
                if isinstance(decoded, UserMessage):
                    content = decode_serf(decoded.payload)
                    if isinstance(content, Query):
                        found.append(content)
    return found


def with_another(on_key_query: Callable[[KeyQuestion], None] | None = None) -> TestedCore:
    tested = TestedCore.make(on_key_query=on_key_query)
    tested.receive(alive("other"))
    return tested


def answer(tested: TestedCore, query: Query, payload: bytes = b"yes", flags: int = 0, name: str = "other") -> None:
    response = QueryResponse(ltime=query.ltime, id=query.id, from_node=name, flags=flags, payload=payload)
    tested.core.receive(encode_serf(response))


def test_answers_are_collected_until_everybody_has_given_one() -> None:
    tested = with_another()
    asked = Asked(tested)
    query = queries_in(tested.advance(0.2))[0]
    assert (query.name, query.payload, query.source_node) == ("question", b"payload", "me")
    assert (query.addr, query.port) == (HERE.address, HERE.port)
    answer(tested, query, b"", RESPONSE_FLAG_ACK)
    assert asked.answers == []
    answer(tested, query)
    answer(tested, query, b"relayed, and too late")
    assert asked.answers == [("other", b"yes")]
    assert asked.ends == 0  # this node itself has nothing to say to this
    answer(tested, query, b"me too", name="me")
    assert asked.ends == 1
    tested.advance(60)
    assert asked.ends == 1


def test_who_is_silent_is_asked_again_and_not_waited_for_for_ever() -> None:
    tested = with_another()
    tested.advance(120)  # what was to be gossiped about the other has been
    tested.receive(alive("other", incarnation=2))
    asked = Asked(tested)
    timeout = default_timeout(tested.core.swim.rules.profile, 2)
    assert timeout == pytest.approx(3.2)
    while queries_in(tested.advance(0.2)):
        pass
    assert tested.core.refused.malformed == 0
    effects = tested.advance(timeout)
    assert queries_in(effects), "asked again, directly"
    assert asked.ends == 1
    answer(tested, queries_in(effects)[0])
    assert asked.answers == []
    assert tested.core.refused.malformed == 1  # nobody waits for it any more


def test_open_queries_are_bounded() -> None:
    tested = TestedCore.make()
    for _ in range(MAX_QUERIES):
        Asked(tested)
    with pytest.raises(TooManyQueries):
        Asked(tested)
    tested.advance(60)
    Asked(tested)


def test_a_payload_that_fits_into_no_packet() -> None:
    tested = TestedCore.make()
    with pytest.raises(ValueError, match="fits into no packet"):
        tested.core.querying.ask("name", bytes(2000), lambda *_: None, lambda: None)


def test_this_node_answers_its_own_key_query_without_a_packet() -> None:
    questions: list[KeyQuestion] = []
    tested = TestedCore.make(on_key_query=questions.append)
    asked = Asked(tested, KeyOperation.LIST.query_name)
    (question,) = questions
    tested.core.querying.answer_key_query(question.query, b"mine")
    assert (asked.answers, asked.ends) == ([("me", b"mine")], 1)
    assert not queries_in(tested.advance(1), HERE)


def test_a_malformed_key_query_is_answered_with_why() -> None:
    tested = with_another(lambda _: pytest.fail("it is no question"))
    query = Query(
        ltime=3, id=4, addr=THERE.address, port=THERE.port, source_node="other", filters=(), flags=2, relay_factor=0,
        timeout=1, name=KeyOperation.USE.query_name, payload=b"nonsense",
    )  # fmt: skip
    tested.core.receive(encode_serf(query))
    (response,) = _responses(tested.core.swim.effects)
    said = decode_serf(response.payload)
    assert isinstance(said, KeyResponse)
    assert not said.result
    assert "malformed" in said.message


def test_a_key_query_of_another_is_answered_when_it_is_done() -> None:
    questions: list[KeyQuestion] = []
    tested = with_another(questions.append)
    payload = request_payload(KeyOperation.INSTALL, bytes(32))
    query = Query(
        ltime=3, id=4, addr=THERE.address, port=THERE.port, source_node="other", filters=(), flags=2, relay_factor=0,
        timeout=1, name=KeyOperation.INSTALL.query_name, payload=payload,
    )  # fmt: skip
    tested.core.receive(encode_serf(query))
    assert not _responses(tested.core.swim.effects)
    assert [question.key for question in questions] == [bytes(32)]
    tested.core.querying.answer_key_query(query, refusal("not now"))
    (response,) = _responses(tested.core.swim.effects)
    assert (response.ltime, response.id, response.from_node, response.flags) == (3, 4, "me", 0)


def _responses(effects: list[Effect]) -> list[QueryResponse]:
    found = []
    for effect in effects:
        if isinstance(effect, SendPacket):
            for message in effect.messages:
                decoded = decode_message(message)
                if isinstance(decoded, UserMessage):
                    content = decode_serf(decoded.payload)
                    if isinstance(content, QueryResponse):
                        found.append(content)
    return found
