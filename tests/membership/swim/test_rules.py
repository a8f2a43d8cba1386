"""The rules of incarnations, one line a rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.swim import node_table
from proglog_trio.membership.swim.effects import Cause, Changed, Gone, NameConflict, Seen, StatusChange
from proglog_trio.membership.swim.node import NodeStatus
from proglog_trio.membership.swim.rules import HIGHEST_INCARNATION
from proglog_trio.membership.swim.swim import VERSION
from proglog_trio.membership.wire.memberlist import Alive, Dead, Message, Suspect
from proglog_trio.steps import complete
from tests.membership.swim.cores import HERE, TestedSwim, alive, endpoint_of

ALIVE, SUSPECT, DEAD, LEFT = NodeStatus


def suspect(incarnation: int = 5, by: str = "c", name: str = "b") -> Suspect:
    return Suspect(incarnation=incarnation, node=name, from_node=by)


def dead(incarnation: int = 5, by: str = "c", name: str = "b") -> Dead:
    return Dead(incarnation=incarnation, node=name, from_node=by)


BEFORE: dict[NodeStatus, list[Message]] = {
    ALIVE: [alive(incarnation=5)],
    SUSPECT: [alive(incarnation=5), suspect()],
    DEAD: [alive(incarnation=5), dead()],
    LEFT: [alive(incarnation=5), dead(by="b")],
}


@pytest.mark.parametrize(
    ("before", "news", "after", "incarnation"),
    [
        (ALIVE, alive(incarnation=4), ALIVE, 5),
        (ALIVE, alive(incarnation=5, meta=b"x"), ALIVE, 5),
        (ALIVE, alive(incarnation=6), ALIVE, 6),
        (ALIVE, alive(incarnation=6, at=9), ALIVE, 5),
        (ALIVE, suspect(4), ALIVE, 5),
        (ALIVE, suspect(5), SUSPECT, 5),
        (ALIVE, suspect(6), SUSPECT, 6),
        (ALIVE, dead(4), ALIVE, 5),
        (ALIVE, dead(5), DEAD, 5),
        (ALIVE, dead(6), DEAD, 6),
        (ALIVE, dead(5, by="b"), LEFT, 5),
        (SUSPECT, alive(incarnation=5), SUSPECT, 5),
        (SUSPECT, alive(incarnation=6), ALIVE, 6),
        (SUSPECT, alive(incarnation=6, at=9), SUSPECT, 5),
        (SUSPECT, suspect(5, by="d"), SUSPECT, 5),
        (SUSPECT, dead(4), SUSPECT, 5),
        (SUSPECT, dead(5), DEAD, 5),
        (SUSPECT, dead(5, by="b"), LEFT, 5),
        (DEAD, alive(incarnation=5), DEAD, 5),
        (DEAD, alive(incarnation=6), ALIVE, 6),
        (DEAD, alive(incarnation=6, at=9), DEAD, 5),
        (DEAD, suspect(7), DEAD, 5),
        (DEAD, dead(7), DEAD, 5),
        (DEAD, dead(7, by="b"), DEAD, 5),
        (LEFT, alive(incarnation=5), LEFT, 5),
        (LEFT, alive(incarnation=6), ALIVE, 6),
        (LEFT, alive(incarnation=1, at=9), ALIVE, 1),
        (LEFT, suspect(7), LEFT, 5),
        (LEFT, dead(7), LEFT, 5),
    ],
)
def test_news_of_another(before: NodeStatus, news: Message, after: NodeStatus, incarnation: int) -> None:
    core = TestedSwim.make()
    core.receive(*BEFORE[before])
    assert core.status() is before
    core.broadcasts()
    core.said.clear()
    core.receive(news)
    assert (core.status(), core.incarnation()) == (after, incarnation)
    if before is after and incarnation == 5:
        assert all(isinstance(notification, NameConflict) for notification in core.said)
        assert core.broadcasts() == []
    else:
        assert [type(message) for message in core.broadcasts()] == [type(news)]


def test_what_is_said_of_each_change() -> None:
    core = TestedSwim.make()
    core.receive(alive(), alive(incarnation=2, meta=b"x"), alive(incarnation=3, meta=b"x"), suspect(3), dead(3))
    core.receive(alive(incarnation=4, meta=b"x"), dead(4, by="b"), alive(incarnation=1, at=9))
    assert core.news() == [
        Seen("b"), Changed("b"), Gone("b", left=False), Seen("b"), Gone("b", left=True), Seen("b"),
    ]  # fmt: skip
    changes = [(event.before, event.after, event.cause) for event in core.said if isinstance(event, StatusChange)]
    assert changes == [
        (None, ALIVE, Cause.INCARNATION),
        (ALIVE, SUSPECT, Cause.INCARNATION),
        (SUSPECT, DEAD, Cause.INCARNATION),
        (DEAD, ALIVE, Cause.INCARNATION),
        (ALIVE, LEFT, Cause.INCARNATION),
        (LEFT, ALIVE, Cause.ADDRESS),
    ]


def test_news_of_the_unknown() -> None:
    core = TestedSwim.make()
    core.broadcasts()
    core.receive(suspect(), dead())
    assert core.status() is None
    assert core.broadcasts() == []


def test_a_name_conflict_is_kept_out_and_reported() -> None:
    core = TestedSwim.make()
    core.receive(alive(), alive(incarnation=9, at=9, meta=b"m"))
    assert core.news()[-1] == NameConflict("b", endpoint_of(9), b"m")
    assert core.swim.rules.counters.conflicts == 1
    core.receive(alive("me", 9, at=9))
    assert core.news()[-1] == NameConflict("me", endpoint_of(9), b"")
    assert core.incarnation("me") == 1


@pytest.mark.parametrize(
    ("news", "incarnation"),
    [
        (alive("me", 1, at=HERE, meta=b"mine"), 1),
        (alive("me", 1, at=HERE, meta=b"other"), 2),
        (alive("me", 1, at=HERE, meta=b"mine", version=bytes((1, 5, 2, 2, 5, 5))), 2),
        (alive("me", 0, at=HERE, meta=b"other"), 1),
        (alive("me", 7, at=HERE, meta=b"mine"), 8),
        (suspect(0, name="me"), 1),
        (suspect(1, name="me"), 2),
        (suspect(9, name="me"), 10),
        (dead(0, name="me"), 1),
        (dead(1, name="me"), 2),
        (dead(9, by="me", name="me"), 10),
    ],
)
def test_news_of_this_node_is_refuted(news: Message, incarnation: int) -> None:
    core = TestedSwim.make(meta=b"mine")
    core.broadcasts()
    core.receive(news)
    assert (core.status("me"), core.incarnation("me")) == (ALIVE, incarnation)
    refuted = incarnation > 1
    assert [(type(message), getattr(message, "incarnation", 0)) for message in core.broadcasts()] == (
        [(Alive, incarnation)] if refuted else []
    )
    assert core.swim.rules.counters.refuted == refuted
    assert core.swim.rules.awareness.score == refuted


def test_a_refutation_beyond_the_highest_incarnation_can_still_be_sent() -> None:
    core = TestedSwim.make()
    for _ in range(3):
        core.receive(suspect(HIGHEST_INCARNATION, name="me"), dead(HIGHEST_INCARNATION, name="me"))
    core.swim.rules.update_me(b"new")
    assert core.incarnation("me") == HIGHEST_INCARNATION
    assert core.broadcasts()


def test_an_expired_suspicion_is_a_death() -> None:
    core = TestedSwim.make(probe_interval=1000.0, probe_timeout=900.0, suspicion_multiplier=3)
    core.receive(alive())
    core.receive(suspect(1))
    core.advance(2999.0)
    assert core.status() is SUSPECT
    core.advance(2.0)
    assert core.status() is DEAD
    change = core.said[-2]
    assert isinstance(change, StatusChange)
    assert change.cause is Cause.TIMER
    assert core.swim.rules.counters.declared_dead == 1


def test_confirmations_shorten_a_suspicion_and_are_passed_on() -> None:
    core = TestedSwim.make(probe_interval=100.0, probe_timeout=90.0)
    for number in range(9):
        core.receive(alive(f"n{number}", at=number))
    core.receive(suspect(1, "x", "n0"))
    core.advance(450.0)  # the shortest lasts 400 s
    core.broadcasts()
    assert core.status("n0") is SUSPECT
    core.receive(suspect(1, "x", "n0"))
    assert core.broadcasts() == []
    core.receive(suspect(1, "y", "n0"))
    assert core.broadcasts() == [suspect(1, "y", "n0")]
    core.receive(suspect(1, "z", "n0"))
    core.advance(0.0)
    assert core.status("n0") is DEAD


@pytest.mark.parametrize("told", [False, True])
def test_hearsay_begins_a_suspicion_and_confirms_none(told: bool) -> None:
    core = TestedSwim.make(probe_interval=100.0, probe_timeout=90.0)
    for number in range(9):
        core.receive(alive(f"n{number}", at=number))
    core.broadcasts()
    heard = suspect(1, "me", "n0")
    core.swim.rules.suspect_by_hearsay(heard, told=told)
    assert core.status("n0") is SUSPECT
    assert core.broadcasts() == ([heard] if told else [])
    core.receive(suspect(1, "x", "n0"))  # the first who has found so himself: he begins it, and confirms nothing
    for _ in range(3):
        core.swim.rules.suspect_by_hearsay(heard, told=told)
    assert core.broadcasts() == [suspect(1, "x", "n0")]
    core.advance(2350.0)  # the shortest lasts 400 s, the longest 2,400 s
    core.receive(suspect(0, "y", "n0"))
    assert core.status("n0") is SUSPECT
    core.advance(100.0)
    assert core.status("n0") is DEAD


def test_a_refuted_suspicion_does_not_expire() -> None:
    core = TestedSwim.make(probe_interval=1000.0, probe_timeout=900.0)
    core.receive(alive(), suspect(1), alive(incarnation=2))
    core.advance(10_000.0)
    assert not any(isinstance(event, StatusChange) and event.after is DEAD for event in core.said[:4])
    assert len(core.swim.rules._suspicions) <= 1


def test_the_dead_are_forgotten_after_a_while_and_their_names_are_free() -> None:
    core = TestedSwim.make()
    core.receive(alive(), dead(1))
    core.advance(20.0)
    assert core.status() is DEAD
    core.advance(15.0)
    assert core.status() is None
    assert core.swim.rules.table.order == ["me"]
    core.receive(alive(incarnation=1, at=9))
    assert core.status() is ALIVE


def test_there_is_a_bound_to_the_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_table, "MAX_NODES", 4)
    core = TestedSwim.make()
    for number in range(6):
        core.receive(alive(f"n{number}", at=number))
    assert len(core.swim.rules.nodes) == 4
    assert core.swim.rules.counters.beyond_limit == 3
    core.receive(alive("n0", 2, at=0))
    assert core.incarnation("n0") == 2


@given(st.integers(0, 40), st.integers(0, 6), st.integers(0, 40))
def test_a_choice_is_of_different_members_that_are_wanted(members: int, count: int, wanted: int) -> None:
    core = TestedSwim.make()
    for number in range(members):
        core.receive(alive(f"n{number}", at=number))
    names = {f"n{number}" for number in range(wanted)}
    chosen = [node.name for node in core.swim.rules.table.choose(count, lambda node: node.name in names)]
    assert len(chosen) == len(set(chosen)) == min(count, members, wanted)
    assert set(chosen) <= names


def test_a_choice_is_even() -> None:
    core = TestedSwim.make()
    for number in range(39):
        core.receive(alive(f"n{number}", at=number))
    counts = dict.fromkeys(core.swim.rules.nodes, 0)
    for _ in range(4000):
        for node in core.swim.rules.table.choose(3, lambda node: node.name != "me"):
            counts[node.name] += 1
    assert counts.pop("me") == 0
    mean = 4000 * 3 / 39
    assert all(abs(count - mean) < 5 * mean**0.5 for count in counts.values())


def test_an_address_is_told_as_it_was_told() -> None:
    tested = TestedSwim.make()
    endpoint = endpoint_of(1)
    mapped = bytes(10) + b"\xff\xff" + endpoint.address
    tested.receive(Alive(1, "b", mapped, endpoint.port, b"", VERSION))
    node = tested.swim.rules.nodes["b"]
    assert node.endpoint == endpoint
    assert [state.addr for state in complete(tested.swim.states.local_state_steps()) if state.name == "b"] == [mapped]
    # The same place, said in another way, is no conflict, and what is newest is told.
    tested.receive(Alive(1, "b", endpoint.address, endpoint.port, b"", VERSION))
    assert not tested.swim.rules.counters.conflicts
    assert [state.addr for state in complete(tested.swim.states.local_state_steps()) if state.name == "b"] == [mapped]
    tested.receive(Alive(2, "b", endpoint.address, endpoint.port, b"", VERSION))
    assert [state.addr for state in complete(tested.swim.states.local_state_steps()) if state.name == "b"] == [
        endpoint.address
    ]


def test_who_never_answered_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_table, "MAX_NODES", 4)
    tested = TestedSwim.make()
    rules = tested.swim.rules
    tested.receive(*(alive(name, at=number) for number, name in enumerate("abc")))
    rules.nodes["a"].has_answered = True
    tested.receive(Suspect(1, "a", "x"), Suspect(1, "b", "x"), alive("d", at=9))
    assert sorted(rules.nodes) == ["a", "c", "d", "me"]
    assert sorted(rules.table.order) == ["a", "c", "d", "me"]
    # Who lives, as far as is known, and who answered once, make none.
    tested.receive(alive("e", at=10))
    assert "e" not in rules.nodes
    assert rules.counters.beyond_limit == 1
    tested.receive(Dead(1, "c", "x"))
    tested.receive(alive("e", at=10))
    assert "e" not in rules.nodes, "looked for once an interval"
    tested.advance(5.0)
    tested.receive(alive("e", at=10))
    assert sorted(rules.nodes) == ["a", "d", "e", "me"]
