from __future__ import annotations

import pytest

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf import members as members_module
from proglog_trio.membership.serf.member import (
    MemberEvent,
    MemberEventKind,
    MemberStatus,
    MemberStatusChange,
)
from proglog_trio.membership.serf.members import MAX_RECENT_INTENTS, Members, together
from proglog_trio.membership.swim.effects import Cause
from proglog_trio.membership.swim.node import Node, NodeStatus
from proglog_trio.membership.swim.swim import VERSION
from tests.membership.serf.cores import THERE, endpoint_of

ALIVE, LEAVING, LEFT, FAILED = MemberStatus.ALIVE, MemberStatus.LEAVING, MemberStatus.LEFT, MemberStatus.FAILED


class Table:
    """Members with what they said."""

    def __init__(self) -> None:
        self.said: list[MemberEvent | MemberStatusChange] = []
        self.members = Members("me", GossipProfile(), self.said.append, lambda meta: {"meta": meta.decode()})

    def see(self, name: str = "b", meta: bytes = b"1") -> None:
        self.members.seen(Node(name, THERE, meta, VERSION, 1, NodeStatus.ALIVE, 0.0))

    def status(self, name: str = "b") -> MemberStatus | None:
        member = self.members.by_name.get(name)
        return None if member is None else member.status

    def join(self, time: int, name: str = "b") -> bool:
        return self.members.join_intent(name, time, 0.0)

    def leave(self, time: int, name: str = "b", *, prune: bool = False) -> bool:
        return self.members.leave_intent(name, time, 0.0, prune=prune)

    def gone(self, name: str = "b", *, left: bool = False, now: float = 0.0) -> None:
        self.members.gone(name, now, left=left)

    @property
    def kinds(self) -> list[str]:
        return [event.kind.value for event in self.said if isinstance(event, MemberEvent)]


@pytest.mark.parametrize(
    ("steps", "status", "kinds"),
    [
        ("see", ALIVE, ["join"]),
        ("see gone", FAILED, ["join", "failed"]),
        ("see departed", LEFT, ["join", "leave"]),
        ("see leave:3 gone", LEFT, ["join", "leave"]),
        ("see leave:3 departed", LEFT, ["join", "leave"]),
        ("see leave:3", LEAVING, ["join"]),
        ("see leave:3 join:4", ALIVE, ["join"]),
        ("see leave:3 join:3", LEAVING, ["join"]),
        ("see leave:3 join:4 gone", FAILED, ["join", "failed"]),
        ("see join:5 leave:4 gone", FAILED, ["join", "failed"]),
        ("see gone leave:3", LEFT, ["join", "failed", "leave"]),
        ("see gone leave:3 join:4", LEFT, ["join", "failed", "leave"]),
        ("see gone prune:3", None, ["join", "failed", "leave", "reap"]),
        ("see departed prune:3", None, ["join", "leave", "reap"]),
        ("see prune:3", LEAVING, ["join"]),
        ("see prune:3 gone", None, ["join", "leave", "reap"]),
        ("see leave:3 prune:4 departed", None, ["join", "leave", "reap"]),
        ("see prune:3 join:4 gone", FAILED, ["join", "failed"]),
        ("see prune:3 join:4 leave:5 gone", LEFT, ["join", "leave"]),
        ("see gone see", ALIVE, ["join", "failed", "join"]),
        ("see leave:3 gone see", ALIVE, ["join", "leave", "join"]),
        ("see gone gone", FAILED, ["join", "failed"]),
        ("see departed gone", LEFT, ["join", "leave"]),
        ("leave:3 see", LEAVING, ["join"]),
        ("join:3 see", ALIVE, ["join"]),
        ("leave:3 join:4 see", ALIVE, ["join"]),
        ("join:4 leave:3 see", ALIVE, ["join"]),
        ("leave:3", None, []),
        ("gone", None, []),
    ],
)
def test_statuses(steps: str, status: MemberStatus | None, kinds: list[str]) -> None:
    table = Table()
    for step in steps.split():
        what, _, time = step.partition(":")
        match what:
            case "see":
                table.see()
            case "gone":
                table.gone()
            case "departed":
                table.gone(left=True)
            case "join":
                table.join(int(time))
            case _:
                table.leave(int(time), prune=what == "prune")
    assert table.status() is status
    assert table.kinds == kinds


@pytest.mark.parametrize(
    ("steps", "status", "time"),
    [
        ("see elsewhere:3", LEAVING, 3),
        ("see join:3 elsewhere:3", ALIVE, 3),
        ("see join:4 elsewhere:3", ALIVE, 4),
        ("see join:3 gone elsewhere:2", FAILED, 3),
        ("see join:3 gone elsewhere:3", LEFT, 3),
        ("see join:3 gone elsewhere:4", LEFT, 4),
        ("see gone elsewhere:0", LEFT, 0),
        ("see leave:3 gone elsewhere:3 elsewhere:3", LEFT, 3),
        ("elsewhere:3 see", LEAVING, 3),
    ],
)
def test_what_others_count_as_left(steps: str, status: MemberStatus, time: int) -> None:
    """The times stay those of intents that somebody had: however often two tell each other, they do not grow."""
    table = Table()
    for step in steps.split():
        what, _, at = step.partition(":")
        match what:
            case "see":
                table.see()
            case "gone":
                table.gone()
            case "join":
                table.join(int(at))
            case "leave":
                table.leave(int(at))
            case _:
                table.members.left_elsewhere("b", int(at), 0.0)
    assert table.status() is status
    assert table.members.by_name["b"].status_time == time


def test_a_member_that_answers_does_not_leave_for_ever() -> None:
    table = Table()
    table.see()
    table.members.leave_intent("b", 3, 100.0, prune=False)
    table.members.stayed("b", 160.0)
    assert table.status() is LEAVING
    table.members.stayed("b", 160.1)
    assert table.status() is ALIVE
    assert table.said[-1] == MemberStatusChange("b", LEAVING, ALIVE, 3, Cause.TIMER)
    table.members.stayed("b", 1000.0)
    assert not table.leave(3)
    table.gone()
    assert table.status() is FAILED


def test_only_newer_intents_are_news_and_they_raise_the_time() -> None:
    table = Table()
    table.see()
    assert table.join(4)
    assert not table.join(4)
    assert not table.leave(4)
    assert table.leave(6)
    assert not table.join(5)
    assert table.members.by_name["b"].status_time == 6


def test_intents_about_the_unknown_are_kept_for_a_while_and_in_number() -> None:
    table = Table()
    assert table.leave(3)
    assert not table.leave(3)
    table.members.reap(301.0)
    table.see()
    assert table.status() is ALIVE
    for number in range(MAX_RECENT_INTENTS + 10):
        table.join(1, f"x{number}")
    assert len(table.members._recent) == MAX_RECENT_INTENTS
    assert "x5" not in table.members._recent


def test_changes() -> None:
    table = Table()
    table.see()
    table.members.changed(Node("b", THERE, b"2", VERSION, 2, NodeStatus.ALIVE, 0.0))
    table.members.changed(Node("unknown", THERE, b"2", VERSION, 2, NodeStatus.ALIVE, 0.0))
    assert table.kinds == ["join", "update"]
    assert table.members.by_name["b"].tags == {"meta": "2"}


def test_one_who_comes_back_has_what_it_says_now() -> None:
    table = Table()
    table.see()
    table.members.by_name["b"].round_trip_seconds = 0.1
    table.gone()
    table.members.seen(Node("b", endpoint_of(7), b"new", VERSION, 2, NodeStatus.ALIVE, 0.0))
    member = table.members.by_name["b"]
    assert (member.endpoint, member.tags, member.round_trip_seconds) == (endpoint_of(7), {"meta": "new"}, None)
    table.members.reap(1e9)
    assert table.status() is ALIVE


def test_the_gone_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "MAX_GONE", 3)
    table = Table()
    for number in range(6):
        table.see(f"n{number}")
        table.gone(f"n{number}", now=float(number))
        if number == 1:
            table.see("n0")
    assert list(table.members.by_name) == ["n0", "n3", "n4", "n5"]
    assert table.status("n0") is ALIVE
    assert table.kinds.count("reap") == 2
    forgotten = [event for event in table.said if isinstance(event, MemberStatusChange) and event.after is None]
    assert [(event.name, event.cause) for event in forgotten] == [("n1", Cause.ROOM), ("n2", Cause.ROOM)]


def test_every_change_of_a_status_is_said_before_its_event() -> None:
    table = Table()
    table.see()
    table.leave(3)
    table.gone()
    changes = [
        (event.before, event.after, event.lamport_time, event.cause)
        for event in table.said
        if isinstance(event, MemberStatusChange)
    ]
    assert changes == [
        (None, ALIVE, 0, Cause.SWIM), (ALIVE, LEAVING, 3, Cause.LAMPORT_TIME), (LEAVING, LEFT, 3, Cause.SWIM),
    ]  # fmt: skip
    assert isinstance(table.said[-1], MemberEvent)


def test_neighbours_of_one_kind_come_together() -> None:
    table = Table()
    for name in "abc":
        table.see(name)
    table.gone("a")
    table.gone("b", left=True)
    table.gone("c")
    events = together(event for event in table.said if isinstance(event, MemberEvent))
    assert [(event.kind, [member.name for member in event.members]) for event in events] == [
        (MemberEventKind.JOIN, ["a", "b", "c"]),
        (MemberEventKind.FAILED, ["a"]),
        (MemberEventKind.LEAVE, ["b"]),
        (MemberEventKind.FAILED, ["c"]),
    ]


def test_a_newer_leave_of_one_who_left_is_passed_on() -> None:
    table = Table()
    table.see()
    assert table.leave(3)
    assert table.leave(4), "still leaving"
    table.gone()
    assert table.leave(5)
    assert not table.leave(5)
    assert table.status() is LEFT
    assert table.kinds == ["join", "leave"]


def test_those_who_never_answered_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "MAX_GONE", 3)
    table = Table()
    for name in ("real", "made up 1", "made up 2", "real too", "made up 3", "made up 4"):
        table.see(name)
        table.members.by_name[name].has_answered = name.startswith("real")
        table.gone(name)
    assert list(table.members.by_name) == ["real", "real too", "made up 4"]
    table.see("real three")
    table.members.by_name["real three"].has_answered = True
    table.gone("real three")
    assert list(table.members.by_name) == ["real", "real too", "real three"]
