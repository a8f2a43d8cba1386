from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.serf.asked_queries import MAX_ASKED, QueryOver
from proglog_trio.membership.serf.given_answers import MAX_GIVEN, MAX_GIVEN_BYTES
from proglog_trio.membership.serf.keys import KeyOperation, KeyQuestion, refusal, request_payload
from proglog_trio.membership.serf.limits import MessageTooLarge
from proglog_trio.membership.serf.open_queries import MAX_QUERIES, Listener, TooManyQueries, default_timeout
from proglog_trio.membership.serf.querying import Question
from proglog_trio.membership.swim.effects import Effect, SendPacket
from proglog_trio.membership.wire.memberlist import UserMessage, decode_message
from proglog_trio.membership.wire.serf import (
    QUERY_FLAG_ACK,
    QUERY_FLAG_NO_BROADCAST,
    RESPONSE_FLAG_ACK,
    Filter,
    KeyResponse,
    NodeFilter,
    Query,
    QueryResponse,
    TagFilter,
    decode_serf,
    encode_serf,
)
from tests.membership.serf.cores import HERE, THERE, TestedCore, alive, dead, endpoint_of


class Asked:
    """Somebody who asks, and what was said."""

    def __init__(self, tested: TestedCore, name: str = "question", **changes: Any) -> None:
        self.answers: list[tuple[str, bytes]] = []
        self.acknowledgements: list[str] = []
        self.ends = 0
        self.before = tested.core.query_clock.time
        listener = Listener(lambda *answer: self.answers.append(answer), self._end, self.acknowledgements.append)
        self.opened = tested.core.querying.ask(Question(name=name, payload=b"payload", **changes), listener)
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
    # Whoever asks so much does not keep a node from finding out who has its name.
    assert Asked(tested, "_serf_conflict").ends == 1
    tested.advance(60)
    Asked(tested)


def test_a_question_that_is_too_large_is_not_asked() -> None:
    tested = with_another()
    with pytest.raises(MessageTooLarge, match=r"a query of .* bytes is larger than the limit, which is 100"):
        Asked(tested, max_bytes=100)
    assert not queries_in(tested.advance(1))


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


# -- queries of users --------------------------------------------------------------------------------------------------


def user_queries(tested: TestedCore) -> list[Query]:
    return [event for event in tested.said if isinstance(event, Query)]


def asked_of(tested: TestedCore, **changes: Any) -> Query:
    fields: dict[str, Any] = {
        "ltime": 3, "id": 4, "addr": THERE.address, "port": THERE.port, "source_node": "other", "filters": (),
        "flags": QUERY_FLAG_ACK, "relay_factor": 0, "timeout": 10**9, "name": "load", "payload": b"now",
    }  # fmt: skip
    query = Query(**(fields | changes))
    tested.core.receive(encode_serf(query))
    return query


def test_a_query_of_a_user_is_told_once_and_answered_once() -> None:
    tested = with_another()
    query = asked_of(tested)
    asked_of(tested)
    assert user_queries(tested) == [query]
    assert [response.flags for response in _responses(tested.take())] == [RESPONSE_FLAG_ACK]
    tested.core.querying.answer(3, 4, b"0.5", 1024)
    (response,) = _responses(tested.take())
    assert response == QueryResponse(ltime=3, id=4, from_node="me", flags=0, payload=b"0.5")
    with pytest.raises(QueryOver):
        tested.core.querying.answer(3, 4, b"0.5", 1024)
    assert not _responses(tested.take())


def test_a_query_is_not_answered_after_its_time() -> None:
    tested = with_another()
    asked_of(tested)
    tested.advance(0.99)
    tested.core.querying.answer(3, 4, b"0.5", 1024)
    asked_of(tested, id=5)
    tested.advance(1.01)
    with pytest.raises(QueryOver):
        tested.core.querying.answer(3, 5, b"0.5", 1024)


def test_what_was_answered_is_said_again_once_to_the_asker_that_asks_again() -> None:
    tested = with_another()
    asked_of(tested)
    tested.core.querying.answer(3, 4, b"0.5", 1024)
    first = _responses(tested.take())
    assert [response.payload for response in first] == [b"", b"0.5"]
    again = {"flags": QUERY_FLAG_ACK | QUERY_FLAG_NO_BROADCAST}
    asked_of(tested)  # gossip brings it again
    asked_of(tested, **again, port=THERE.port + 1)  # somebody else
    assert _responses(tested.take()) == []
    asked_of(tested, **again)
    assert _responses(tested.take()) == first
    asked_of(tested, **again)
    assert _responses(tested.take()) == []
    assert len(user_queries(tested)) == 1


def test_an_answer_that_comes_after_the_second_question_is_sent() -> None:
    tested = with_another()
    asked_of(tested)
    asked_of(tested, flags=QUERY_FLAG_ACK | QUERY_FLAG_NO_BROADCAST)
    assert [response.flags for response in _responses(tested.take())] == [RESPONSE_FLAG_ACK] * 2
    tested.core.querying.answer(3, 4, b"0.5", 1024)
    assert [response.payload for response in _responses(tested.take())] == [b"0.5"]


def test_what_was_answered_is_said_again_through_others_as_well() -> None:
    tested = with_another()
    tested.receive(alive("helper", endpoint=endpoint_of(1)))
    asked_of(tested, relay_factor=1)
    tested.take()
    asked_of(tested, relay_factor=1, flags=QUERY_FLAG_ACK | QUERY_FLAG_NO_BROADCAST)
    targets = [effect.target for effect in tested.take() if isinstance(effect, SendPacket)]
    assert targets == [THERE, endpoint_of(1)]


def test_answers_are_kept_for_as_long_as_somebody_waits_and_are_bounded() -> None:
    tested = with_another()
    again = {"flags": QUERY_FLAG_ACK | QUERY_FLAG_NO_BROADCAST}
    asked_of(tested)
    tested.advance(1.01)
    asked_of(tested, **again)
    assert _responses(tested.take()) == []
    for number in range(MAX_GIVEN + 1):
        asked_of(tested, ltime=4 + number // 100, id=number)
    tested.take()
    asked_of(tested, ltime=4, id=0, **again)
    assert _responses(tested.take()) == []
    asked_of(tested, ltime=4, id=1, **again)
    assert len(_responses(tested.take())) == 1


def test_answers_that_are_kept_are_bounded_in_bytes() -> None:
    tested = with_another()
    large = bytes(9000)
    count = MAX_GIVEN_BYTES // len(large) + 1
    for number in range(count):
        asked_of(tested, ltime=4, id=number)
        tested.core.querying.answer(4, number, large, 10_000)
    tested.take()
    for number, kept in ((0, False), (count - 1, True)):
        asked_of(tested, ltime=4, id=number, flags=QUERY_FLAG_NO_BROADCAST)
        assert bool(tested.take()) is kept


def test_an_answer_that_is_lost_comes_when_it_is_asked_for_again() -> None:
    mine, theirs = with_another(), TestedCore.make("other", THERE)
    theirs.receive(alive("me", endpoint=HERE))
    asked = Asked(mine, acknowledge=True, filters=(NodeFilter(("other",)),))
    (query, *_) = queries_in(mine.advance(0.2))
    theirs.core.receive(encode_serf(query))
    theirs.core.querying.answer(query.ltime, query.id, b"yes", 1024)
    acknowledgement, lost = _responses(theirs.take())
    mine.core.receive(encode_serf(acknowledgement))
    mine.advance(1.0)
    (direct,) = [query for query in queries_in(mine.advance(1.0)) if query.flags & QUERY_FLAG_NO_BROADCAST]
    theirs.core.receive(encode_serf(direct))
    for response in _responses(theirs.take()):
        mine.core.receive(encode_serf(response))
    assert (asked.acknowledgements, asked.answers, asked.ends) == (["other"], [("other", b"yes")], 1)
    assert lost.payload == b"yes"


def test_who_has_answered_is_not_asked_again() -> None:
    tested = with_another()
    asked = Asked(tested)
    answer(tested, queries_in(tested.advance(0.2))[0])
    effects = tested.advance(60)
    assert not [query for query in queries_in(effects) if query.flags & QUERY_FLAG_NO_BROADCAST]
    assert asked.ends == 1


def test_an_answer_that_is_too_large_leaves_room_for_another() -> None:
    tested = with_another()
    asked_of(tested)
    with pytest.raises(MessageTooLarge, match=r"an answer of .* bytes is larger than the limit, which is 1024"):
        tested.core.querying.answer(3, 4, bytes(1024), 1024)
    tested.core.querying.answer(3, 4, b"short", 1024)


def test_queries_that_may_be_answered_are_bounded() -> None:
    tested = with_another()
    for number in range(MAX_ASKED + 1):
        asked_of(tested, ltime=3 + number // 100, id=number)
    with pytest.raises(QueryOver):
        tested.core.querying.answer(3, 0, b"", 1024)
    tested.core.querying.answer(3, 1, b"", 1024)
    # They wait for as long as each says, which may be years, and names and payloads may be a MiB each.
    assert {(query.name, query.payload) for query, _ in tested.core.querying._asked._open.values()} == {("", b"")}


def test_what_is_for_others_and_what_is_serfs_own_is_told_to_no_user() -> None:
    tested = with_another()
    asked_of(tested, filters=(NodeFilter(("other",)),))
    asked_of(tested, name="_serf_ping", id=9)
    assert user_queries(tested) == []


def test_a_query_of_its_own_is_told_and_answered_without_a_packet() -> None:
    tested = TestedCore.make()
    asked = Asked(tested, acknowledge=True)
    assert asked.acknowledgements == ["me"]
    (query,) = user_queries(tested)
    tested.core.querying.answer(query.ltime, query.id, b"mine", 1024)
    assert (asked.answers, asked.ends) == ([("me", b"mine")], 1)
    assert not _responses(tested.take())


def test_acknowledgements_are_told_once_and_end_nothing() -> None:
    tested = with_another()
    asked = Asked(tested, acknowledge=True, filters=(NodeFilter(("other",)),))
    query = queries_in(tested.advance(0.2))[0]
    assert query.flags == QUERY_FLAG_ACK
    answer(tested, query, b"", RESPONSE_FLAG_ACK)
    answer(tested, query, b"", RESPONSE_FLAG_ACK)
    assert (asked.acknowledgements, asked.answers, asked.ends) == (["other"], [], 0)
    effects = tested.advance(1.7)
    assert not queries_in([each for each in effects if each is not effects[0]][-1:]), (
        "it has the query, and is not asked again"
    )
    answer(tested, query)
    assert (asked.answers, asked.ends) == ([("other", b"yes")], 1)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((), {"me", "other", "web-1", "web-2"}),
        ((NodeFilter(("other", "web-1", "nobody")),), {"other", "web-1"}),
        ((TagFilter(tag="role", expr="^web$"),), {"web-1", "web-2"}),
        ((NodeFilter(("other", "web-1")), TagFilter(tag="role", expr="web")), {"web-1"}),
        ((TagFilter(tag="role", expr="^$"),), {"me", "other"}),
    ],
)
def test_those_are_expected_to_answer_that_are_there_and_pass_the_filters(
    filters: tuple[Filter, ...], expected: set[str]
) -> None:
    tested = with_another()
    for number in range(1, 3):
        tested.receive(alive(f"web-{number}", endpoint=endpoint_of(number), tags={"role": "web"}))
    tested.receive(alive("gone", endpoint=endpoint_of(9), tags={"role": "web"}), dead("gone"))
    asked = Asked(tested, filters=filters)
    tested.advance(0)
    assert asked.opened.expected == expected
    for name in sorted(expected):
        assert asked.ends == 0
        answer(tested, asked.opened.query, name=name)
    assert asked.ends == 1


def test_a_query_for_nobody_ends_at_once() -> None:
    tested = with_another()
    assert Asked(tested, filters=(NodeFilter(("nobody",)),)).ends == 1
    asked = Asked(tested, filters=(TagFilter(tag="role", expr="db"),))
    tested.advance(0)
    assert asked.ends == 1


@pytest.mark.parametrize("by", ["other", "somebody"])
def test_whoever_has_left_or_failed_is_not_waited_for(by: str) -> None:
    tested = with_another()
    tested.receive(alive("b", endpoint=endpoint_of(3)))
    asked = Asked(tested, filters=(NodeFilter(("other", "b")),))
    answer(tested, asked.opened.query, name="b")
    assert asked.ends == 0
    tested.receive(dead("other", by=by))
    assert asked.ends == 1


def test_a_query_that_nobody_waits_for_leaves_nothing_behind() -> None:
    tested = with_another()
    before = len(tested.core.swim.rules.timers)
    for _ in range(100):
        asked = Asked(tested, timeout=86_400.0)
        tested.core.querying.close(asked.opened)
        assert asked.ends == 1
    # What this node could answer to its own question has its time.
    assert len(tested.core.swim.rules.timers) <= before + 100
    tested.advance(86_401)
    answer(tested, asked.opened.query)
    assert asked.answers == []


@given(st.data())
def test_any_query_ends(data: st.DataObject) -> None:
    tested = TestedCore.make()
    names = [f"n{number}" for number in range(data.draw(st.integers(0, 6)))]
    for number, name in enumerate(names):
        tested.receive(
            alive(name, endpoint=endpoint_of(number), tags={"role": data.draw(st.sampled_from(["web", "db"]))})
        )
    filters: list[Filter] = []
    if data.draw(st.booleans()):
        filters.append(NodeFilter(tuple(data.draw(st.lists(st.sampled_from([*names, "me", "nobody"]), max_size=4)))))
    if data.draw(st.booleans()):
        filters.append(TagFilter(tag="role", expr=data.draw(st.sampled_from(["web", "^d", "", "("]))))
    timeout = data.draw(st.floats(0.01, 100))
    asked = Asked(tested, filters=tuple(filters), timeout=timeout, acknowledge=data.draw(st.booleans()))
    for name in data.draw(st.lists(st.sampled_from([*names, "me", "stranger"]), max_size=12)):
        tested.advance(data.draw(st.floats(0, 1)))
        match data.draw(st.integers(0, 2)):
            case 0:
                answer(tested, asked.opened.query, name=name)
            case 1:
                answer(tested, asked.opened.query, b"", RESPONSE_FLAG_ACK, name)
            case 2 if name != "me":
                tested.receive(dead(name))
        assert asked.ends <= 1
        assert not (asked.ends == 0 and asked.opened.is_done)
    tested.advance(timeout)
    assert asked.ends == 1
    assert len({name for name, _ in asked.answers}) == len(asked.answers)
    assert len(set(asked.acknowledgements)) == len(asked.acknowledgements)
