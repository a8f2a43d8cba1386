from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.event_handlers.event_filter import EventFilter, parse_filters, passes_any
from proglog_trio.membership.event_handlers.event_handler import EventHandler, shown


@pytest.mark.parametrize(
    ("text", "passing", "others"),
    [
        ("", [("member-join", None), ("user", "a"), ("query", "b")], []),
        ("*", [("member-reap", None), ("user", "a")], []),
        ("member-join,member-leave", [("member-join", None), ("member-leave", None)], [("member-failed", None)]),
        ("user", [("user", "a")], [("query", "a")]),
        ("user:deploy", [("user", "deploy")], [("user", "deploy2"), ("query", "deploy")]),
        ("user:", [("user", "a"), ("user", "")], [("query", "a")]),
        ("query:a:b,user", [("query", "a:b"), ("user", "x")], [("query", "a")]),
    ],
)  # fmt: skip
def test_filters_let_pass_what_they_name(
    text: str, passing: list[tuple[str, str | None]], others: list[tuple[str, str | None]]
) -> None:
    filters = parse_filters(text)
    assert all(passes_any(filters, *each) for each in passing)
    assert not any(passes_any(filters, *each) for each in others)


@pytest.mark.parametrize(
    "text", ["nonsense", "member-join,", "member-join:x", "*:x", "user deploy", ",".join(["user"] * 65)]
)
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="kind"):
        parse_filters(text)


@given(st.text())
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert parse_filters(text)


def test_a_handler_has_filters_and_a_script() -> None:
    assert EventHandler.parse("member-join,user:deploy=run --x=1") == EventHandler(
        (EventFilter("member-join"), EventFilter("user", "deploy")), "run --x=1"
    )
    assert EventHandler.parse("handler.sh") == EventHandler((EventFilter("*"),), "handler.sh")
    assert shown([EventHandler.parse("user:deploy,query=x")]) == {"user:deploy": "x", "query:": "x"}


@pytest.mark.parametrize("text", ["", "user=", "user= ", "A=1 run.sh"])
def test_what_is_no_handler_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"script|kind"):
        EventHandler.parse(text)
