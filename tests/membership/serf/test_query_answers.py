from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.serf.member import KnownMember, MemberStatus
from proglog_trio.membership.serf.query_answers import LONGEST_EXPRESSIONS, answers, check_filters, passes
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.swim.swim import VERSION
from proglog_trio.membership.wire.serf import (
    QUERY_FLAG_ACK,
    RESPONSE_FLAG_ACK,
    ConflictResponse,
    Filter,
    KeyResponse,
    Member,
    NodeFilter,
    Query,
    QueryResponse,
    TagFilter,
    UnknownFilter,
    decode_serf,
)
from tests.membership.serf.cores import HERE, THERE

ME = KnownMember("me", HERE, {"role": "web-1", "city": "Zürich"}, MemberStatus.ALIVE, VERSION)
OTHER = KnownMember("other", THERE, {"a": "b"}, MemberStatus.FAILED, VERSION)


@pytest.mark.parametrize(
    ("filters", "passed"),
    [
        ((), True),
        ((NodeFilter(("me", "other")),), True),
        ((NodeFilter(("other",)),), False),
        ((NodeFilter(()),), False),
        ((TagFilter(tag="role", expr="web"),), True),
        ((TagFilter(tag="role", expr="^web-[0-9]+$"),), True),
        ((TagFilter(tag="role", expr="^(web|db)-"),), True),
        ((TagFilter(tag="role", expr="^db"),), False),
        ((TagFilter(tag="city", expr=r"^Z\pLrich$"),), True),
        ((TagFilter(tag="absent", expr="^$"),), True),
        ((TagFilter(tag="absent", expr="."),), False),
        ((TagFilter(tag="role", expr="("),), False),
        ((TagFilter(tag="role", expr="(?=web)"),), False),
        ((TagFilter(tag="role", expr="." * 5 + "x*" * LONGEST_EXPRESSIONS),), False),
        ((TagFilter(tag="role", expr="web"), NodeFilter(("other",))), False),
        ((UnknownFilter(b"\x09"),), False),
    ],
)
def test_filters(filters: tuple[Filter, ...], passed: bool) -> None:
    assert passes(filters, ME) is passed


@pytest.mark.parametrize(
    "expression",
    [
        ".*" * 100 + "x",
        "(|a)" * 60 + "x",
        "(a*)*$x",
        "(a|a)*b",
        "a?" * 80 + "a" * 80,
        "((a{1,9}){1,9}){1,9}b",
        "(a+)+$b",
    ],
)
def test_no_expression_takes_long(expression: str) -> None:
    me = KnownMember("me", HERE, {"role": "a" * 480}, MemberStatus.ALIVE, VERSION)
    began = time.process_time()
    passes((TagFilter(tag="role", expr=expression),), me)
    assert time.process_time() - began < 1.0  # with a matcher that backtracks: for ever


@given(st.text(max_size=300), st.text(max_size=80))
def test_any_expression_and_any_tag_give_an_answer(expression: str, tag: str) -> None:
    me = KnownMember("me", HERE, {"t": tag + "\udcff"}, MemberStatus.ALIVE, VERSION)
    assert passes((TagFilter(tag="t", expr=expression),), me) in (True, False)
    assert passes((TagFilter(tag="t", expr="\udcfe" + expression),), me) in (True, False)


@pytest.mark.parametrize(
    ("expression", "what"),
    [("(", "is no regular expression"), ("(?=web)", "is no regular expression"), ("x" * 129, "more than 128")],
)
def test_what_members_could_not_judge_is_not_asked(expression: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        check_filters((NodeFilter(("a",)), TagFilter(tag="role", expr=expression)))


def test_what_members_can_judge_is() -> None:
    check_filters((NodeFilter(("a",)), TagFilter(tag="role", expr="^(web|db)-")))


def query(name: str, payload: bytes = b"", flags: int = 0) -> Query:
    return Query(
        ltime=3, id=4, addr=THERE.address, port=THERE.port, source_node="other", filters=(), flags=flags,
        relay_factor=0, timeout=1, name=name, payload=payload,
    )  # fmt: skip


def answered(query: Query, about: KnownMember | None = None) -> list[QueryResponse]:
    return answers(query, ME, about)


def test_a_users_query_is_acknowledged_if_it_asks_for_that() -> None:
    assert answered(query("deploy")) == []
    (response,) = answered(query("deploy", flags=QUERY_FLAG_ACK))
    assert response == QueryResponse(ltime=3, id=4, from_node="me", flags=RESPONSE_FLAG_ACK, payload=b"")


def test_a_ping_is_acknowledged() -> None:
    assert [response.flags for response in answered(query("_serf_ping", flags=QUERY_FLAG_ACK))] == [RESPONSE_FLAG_ACK]


def test_a_conflict_is_answered_with_whom_this_node_knows() -> None:
    (response,) = answered(query("_serf_conflict", b"other"), OTHER)
    answer = decode_serf(response.payload)
    assert isinstance(answer, ConflictResponse)
    assert isinstance(answer.member, Member)
    assert (answer.member.name, answer.member.addr, answer.member.port) == ("other", THERE.address, THERE.port)
    assert answer.member.tags == {"a": "b"}
    (nobody,) = answered(query("_serf_conflict", b"nobody"), None)
    assert decode_serf(nobody.payload) == ConflictResponse(None)


def test_a_conflict_is_answered_with_the_address_as_it_was_told() -> None:
    mapped = bytes(10) + b"\xff\xff" + THERE.address
    told = KnownMember("other", Endpoint(mapped, 1), {}, MemberStatus.ALIVE, VERSION, told_address=mapped)
    (response,) = answered(query("_serf_conflict", b"other"), told)
    answer = decode_serf(response.payload)
    assert isinstance(answer, ConflictResponse)
    assert answer.member is not None
    assert answer.member.addr == mapped


def test_the_holder_of_a_contested_name_does_not_answer() -> None:
    assert answered(query("_serf_conflict", b"me"), ME) == []


@pytest.mark.parametrize("operation", ["install-key", "use-key", "remove-key", "list-keys"])
def test_key_operations_are_refused(operation: str) -> None:
    (response,) = answered(query(f"_serf_{operation}"))
    answer = decode_serf(response.payload)
    assert isinstance(answer, KeyResponse)
    assert not answer.result
    assert answer.message
