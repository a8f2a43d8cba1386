from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.serf.lamport import LamportClock
from proglog_trio.membership.serf.limits import MessageTooLarge
from proglog_trio.membership.serf.user_events import UserEvent, UserEvents
from proglog_trio.membership.wire import serf as wire
from tests.membership.serf.cores import HERE, THERE, TestedCore, alive, sent, user


def delivered(core: TestedCore) -> list[UserEvent]:
    return [event for event in core.said if isinstance(event, UserEvent)]


def fire(core: TestedCore, name: str, payload: bytes = b"", *, coalesce: bool = False, max_bytes: int = 512) -> None:
    core.core.fire(name, payload, coalesce=coalesce, max_bytes=max_bytes)


def test_an_event_is_delivered_here_and_broadcast() -> None:
    node = TestedCore.make()
    node.receive(alive("b"))
    fire(node, "deploy", b"1", coalesce=True)
    fire(node, "deploy", b"1", coalesce=True)
    assert delivered(node) == [UserEvent("deploy", b"1", 1, True), UserEvent("deploy", b"1", 2, True)]
    broadcast = [each for each in sent(list(node.advance(1))) if isinstance(each, wire.UserEvent)]
    assert {each.ltime: (each.name, each.payload, each.cc) for each in broadcast} == {
        1: ("deploy", b"1", True),
        2: ("deploy", b"1", True),
    }


def test_an_event_of_others_is_delivered_once() -> None:
    node = TestedCore.make()
    event = user(wire.UserEvent(ltime=4, name="deploy", payload=b"1", cc=True))
    node.receive(event, event)
    other = TestedCore.make("b", THERE)
    other.exchange(node)
    node.exchange(other)
    assert delivered(node) == [UserEvent("deploy", b"1", 4, True)]
    assert delivered(other) == [UserEvent("deploy", b"1", 4, False)]  # a state does not say
    fire(node, "next")
    assert delivered(node)[-1].ltime == 5


def test_events_of_a_state_come_in_lamport_order() -> None:
    node, other = TestedCore.make("a", HERE), TestedCore.make("b", THERE)
    for ltime in (513, 700, 512, 511, 514):
        node.receive(user(wire.UserEvent(ltime=ltime, name="e", payload=b"", cc=False)))
    other.exchange(node)
    assert [event.ltime for event in delivered(other)] == [511, 512, 513, 514, 700]


@pytest.mark.parametrize(
    ("name", "payload", "limit", "what"),
    [
        ("deploy", bytes(507), 512, "a user event of 513 bytes"),
        ("ü" * 256, b"\0", 512, "a user event of 513 bytes"),
        ("deploy", bytes(500), 512, "an encoded user event of"),
        ("d", bytes(10), 5, "a user event of 11 bytes is larger than the limit, which is 5"),
    ],
)
def test_what_is_too_large_is_not_fired(name: str, payload: bytes, limit: int, what: str) -> None:
    node = TestedCore.make()
    node.receive(alive("b"))
    with pytest.raises(MessageTooLarge, match=what):
        fire(node, name, payload, max_bytes=limit)
    assert delivered(node) == []
    assert not any(isinstance(each, wire.UserEvent) for each in sent(list(node.advance(1))))
    assert node.core.events.clock.time == 1


EVENTS = st.tuples(st.integers(0, 1200), st.sampled_from("ab"), st.binary(max_size=1))


@given(st.lists(EVENTS, max_size=60), st.integers(0, 1200))
def test_any_event_is_delivered_at_most_once_and_answered_with_a_higher_time(
    events: list[tuple[int, str, bytes]], lowest: int
) -> None:
    heard: list[UserEvent] = []
    receiver = UserEvents(LamportClock(), heard.append)
    for ltime, name, payload in events:
        before = len(heard)
        is_new = receiver.receive(ltime, name, payload)
        assert heard[before:] == ([UserEvent(name, payload, ltime, False)] if is_new else [])
    assert len(set(heard)) == len(heard)
    # Whoever joins witnesses what the other's clock shows, and takes nothing older.
    receiver.clock.witness(lowest - 1)
    receiver.ignore_before(lowest)
    receiver.fire("mine", b"", coalesce=False, max_bytes=512)
    assert heard[-1].name == "mine"
    assert all(heard[-1].ltime > ltime for ltime, _, _ in events)
