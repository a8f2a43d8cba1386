from collections.abc import Mapping
from typing import Any

import pytest

from proglog_trio.membership import AskedQuery, Member, MemberEvent, MemberEventKind, MemberStatus, UserEvent
from proglog_trio.membership.event_handlers.script_input import name_of, standard_input, type_of, variables


def member(name: str, **tags: str) -> Member:
    return Member(name, "10.0.0.1", 7946, tags, MemberStatus.ALIVE)


def of_user(payload: bytes = b"", name: str = "deploy") -> UserEvent:
    return UserEvent(name=name, payload=payload, ltime=7, coalesce=False)


QUERY = AskedQuery("load", b"15m", "b", 9, 1, 0.0)
JOINED = MemberEvent(MemberEventKind.JOIN, (member("a", role="web", zone="1"), member("b")))


@pytest.mark.parametrize(
    ("event", "kind", "name", "more"),
    [
        (JOINED, "member-join", None, {}),
        (of_user(), "user", "deploy", {"SERF_USER_EVENT": "deploy", "SERF_USER_LTIME": "7"}),
        (QUERY, "query", "load", {"SERF_QUERY_NAME": "load", "SERF_QUERY_LTIME": "9"}),
    ],
    ids=["member", "user", "query"],
)
def test_what_a_script_finds_in_its_environment(
    event: Any, kind: str, name: str | None, more: Mapping[str, str]
) -> None:
    assert type_of(event) == kind
    assert name_of(event) == name
    assert variables(event, "me", {"role": "web", "a-b c": "x=y"}) == {
        "SERF_EVENT": kind,
        "SERF_SELF_NAME": "me",
        "SERF_SELF_ROLE": "web",
        "SERF_TAG_ROLE": "web",
        "SERF_TAG_A_B_C": "x=y",
        **more,
    }
    assert variables(event, "me", {})["SERF_SELF_ROLE"] == ""


def test_what_no_environment_holds_is_left_out() -> None:
    assert variables(of_user(name="a\0b"), "me", {"t": "\0"})["SERF_USER_EVENT"] == "ab"


def test_what_a_script_reads() -> None:
    assert standard_input(JOINED) == b"a\t10.0.0.1\tweb\trole=web,zone=1\nb\t10.0.0.1\t\t\n"
    assert standard_input(MemberEvent(MemberEventKind.FAILED, (member("a\tb\n", x="\udcff"),))) == (
        b"a\\tb\\n\t10.0.0.1\t\tx=\xff\n"
    )
    assert standard_input(of_user(b"")) == b""
    assert standard_input(of_user(b"x")) == b"x\n"
    assert standard_input(of_user(b"x\n")) == b"x\n"
    assert standard_input(QUERY) == b"15m\n"
