"""What a core is given back of an earlier life, before and after it meets the others."""

from __future__ import annotations

import pytest

from proglog_trio.membership.serf import members as members_module
from proglog_trio.membership.serf.member import KnownMember, MemberEventKind, MemberStatus
from proglog_trio.membership.swim.effects import ExchangeState
from proglog_trio.membership.wire.serf import Join, Leave
from tests.membership.serf.cores import THERE, TestedCore, alive, user

DAY = 86_400.0


def known(name: str, status: MemberStatus = MemberStatus.FAILED, gone_since: float = 0.0, time: int = 5) -> KnownMember:
    return KnownMember(name, THERE, {"role": "x"}, status, bytes(6), status_time=time, gone_since=gone_since)


def test_nobody_is_told_of_the_restored_until_they_are_seen() -> None:
    tested = TestedCore.make()
    before = len(tested.said)
    tested.core.members.restore(known("b"))
    assert len(tested.said) == before
    assert tested.status("b") is MemberStatus.FAILED
    tested.receive(alive("b", tags={"role": "y"}))
    assert tested.events(MemberEventKind.JOIN) == [("join", "me"), ("join", "b")]
    assert tested.status("b") is MemberStatus.ALIVE
    assert tested.core.members.by_name["b"].tags == {"role": "y"}


def test_the_restored_are_counted_like_all_others() -> None:
    tested = TestedCore.make()
    members = tested.core.members
    for name, status, gone_since in (("b", MemberStatus.FAILED, 0.0), ("c", MemberStatus.FAILED, -DAY)):
        members.restore(known(name, status, gone_since))
    members.restore(known("d", MemberStatus.LEFT))
    members.restore(known("b"))
    assert members.counts == counted(tested)
    assert members.counts[MemberStatus.FAILED] == 2
    tested.receive(alive("b"))
    assert members.counts == counted(tested)
    tested.advance(60)
    assert tested.status("c") is None
    assert members.counts == counted(tested)


def counted(tested: TestedCore) -> dict[MemberStatus, int]:
    return {status: len(tested.core.members.with_status(status)) for status in MemberStatus}


def test_one_that_is_there_already_is_not_restored() -> None:
    tested = TestedCore.make()
    tested.receive(alive("b"))
    tested.core.members.restore(known("b"))
    assert tested.status("b") is MemberStatus.ALIVE


def test_the_restored_are_tried_again_and_forgotten_when_a_day_is_over_in_all() -> None:
    tested = TestedCore.make()
    # It had been gone for 23 hours when this node was started.
    tested.core.members.restore(known("b", gone_since=-23 * 3600.0))
    tested.core.members.restore(known("c", MemberStatus.LEFT, gone_since=-DAY))
    effects = tested.advance(60)
    assert ExchangeState(THERE, "b", join=True, is_remembered=True) in effects
    assert (tested.status("b"), tested.status("c")) == (MemberStatus.FAILED, None)
    assert tested.events(MemberEventKind.REAP) == [("reap", "c")]
    tested.advance(3600)
    assert tested.status("b") is None


def test_intents_about_the_restored_count_by_their_times() -> None:
    tested = TestedCore.make()
    tested.core.members.restore(known("b", time=5))
    tested.receive(user(Leave(ltime=5, node="b", prune=False)))
    assert tested.status("b") is MemberStatus.FAILED
    tested.receive(user(Leave(ltime=6, node="b", prune=False)))
    assert tested.status("b") is MemberStatus.LEFT
    tested.receive(user(Join(ltime=7, node="b")))
    assert tested.core.members.by_name["b"].status_time == 7


def test_there_is_room_for_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "MAX_GONE", 3)
    tested = TestedCore.make()
    for name in "abcde":
        tested.core.members.restore(known(name))
    assert sorted(tested.core.members.by_name) == ["a", "b", "c", "me"]
    monkeypatch.setattr(members_module, "MAX_GONE", 100)
    monkeypatch.setattr(members_module, "MAX_GONE_NAME_BYTES", 10)
    tested.core.members.restore(known("longer-than-that"))
    tested.core.members.restore(known("d"))
    assert sorted(tested.core.members.by_name) == ["a", "b", "c", "d", "me"]
    # They make room for each other as those do who go now.
    monkeypatch.setattr(members_module, "MAX_GONE", 3)
    tested.receive(alive("new"))
    tested.core.members.gone("new", tested.core.swim.now, left=False)
    assert sorted(tested.core.members.by_name) == ["c", "d", "me", "new"]


@pytest.mark.parametrize("highest", [9, 2**64 - 1])
def test_clocks_go_on_above_what_was_heard(highest: int) -> None:
    tested = TestedCore.make()
    core = tested.core
    core.restore_clocks(member=highest, event=highest, query=highest)
    assert (core.clock.time, core.events.clock.time, core.query_clock.time) == (highest,) * 3
    # An older snapshot turns nothing back.
    core.restore_clocks(member=1, event=1, query=1)
    assert (core.clock.time, core.events.clock.time, core.query_clock.time) == (highest,) * 3
    assert core.events.receive(highest, "deploy", b"")
    assert not core.events.receive(highest - 1, "deploy", b"")
    if highest == 9:
        core.intents.announce_join()
        assert core.members.by_name["me"].status_time == 10


def test_a_join_is_newer_than_the_leave_of_an_earlier_life() -> None:
    """Also where the member that it joins through has not heard of that leave."""
    other, third, again = TestedCore.make("other"), TestedCore.make("third"), TestedCore.make(endpoint=THERE)
    for core in (other, third):
        core.receive(alive("me", endpoint=THERE))
    third.receive(user(Leave(ltime=20, node="me", prune=False)))
    again.core.restore_clocks(member=21, event=1, query=1)
    again.exchange(other, join=True)
    again.core.intents.announce_join()
    again.exchange(other)
    other.exchange(third)
    again.exchange(third)
    assert third.status("me") is MemberStatus.ALIVE
    assert other.status("me") is MemberStatus.ALIVE
