from __future__ import annotations

import pytest
from attrs import define, evolve, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proglog_trio.membership.serf.lamport import LamportClock
from proglog_trio.membership.serf.member import (
    KnownMember,
    MemberEvent,
    MemberEventKind,
    MemberStatus,
)
from proglog_trio.membership.serf.serf import HasLeft
from proglog_trio.membership.snapshot import changes as changes_module
from proglog_trio.membership.snapshot import journal as journal_module
from proglog_trio.membership.snapshot.changes import Changes
from proglog_trio.membership.snapshot.journal import LIVED_SECONDS, Facts, Journal
from proglog_trio.membership.snapshot.lines import Clocks, Header
from proglog_trio.membership.snapshot.memory import Memory, read_steps
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.steps import complete

OURS = Header("9f", None)
STATUSES = [MemberStatus.ALIVE, MemberStatus.LEAVING, MemberStatus.FAILED, MemberStatus.LEFT]


@define(eq=False)
class Written:
    """A journal with the tables that it is of, and the file that it makes."""

    now: float = 1000.0
    members: dict[str, KnownMember] = field(factory=dict)
    clocks: tuple[LamportClock, LamportClock, LamportClock] = field(
        factory=lambda: (LamportClock(), LamportClock(), LamportClock())
    )
    changes: Changes = field(factory=lambda: Changes("me"))
    facts: Facts = field(init=False)
    journal: Journal = field(init=False)
    file: bytes = b""
    rewrites: int = 0

    def __attrs_post_init__(self) -> None:
        self.facts = Facts("me", self.members, *self.clocks, lambda: self.now, self.now)
        self.journal = Journal(OURS, self.facts, self.changes)

    def change(self, name: str, status: MemberStatus, time: int = 1) -> None:
        gone = self.now if status in (MemberStatus.FAILED, MemberStatus.LEFT) else None
        endpoint = Endpoint(bytes((10, 0, 0, 1)), 8401)
        known = KnownMember(name, endpoint, {"role": "x"}, status, bytes(6), status_time=time, gone_since=gone)
        self.members[name] = known
        self.changes.note(MemberEvent(MemberEventKind.UPDATE, (known.snapshot(),)))

    def forget(self, name: str) -> None:
        known = self.members.pop(name)
        self.changes.note(MemberEvent(MemberEventKind.REAP, (known.snapshot(),)))

    def write(self) -> None:
        """Do as the keeper does."""
        if self.journal.is_rewrite_due:
            self.file = bytes(complete(self.journal.rewrite_steps()))
            self.rewrites += 1
        while appended := complete(self.journal.append_steps()):
            self.file += appended

    def read(self) -> Memory:
        return complete(read_steps(self.file, OURS))

    def must_be_written(self) -> None:
        """What was written is what is true."""
        memory = self.read()
        assert memory.damaged == 0
        expected = {name: self.facts.remembered(known) for name, known in self.members.items() if name != "me"}
        assert memory.members == expected
        assert memory.clocks == self.facts.clocks()


class Journals(RuleBasedStateMachine):
    """Whatever happens in whatever order, and however often writing fails: what was written last is what is true."""

    @initialize()
    def begin(self) -> None:
        self.written = Written()

    @rule(name=st.sampled_from("abcd"), status=st.sampled_from(STATUSES), time=st.integers(0, 9))
    def change(self, name: str, status: MemberStatus, time: int) -> None:
        self.written.change(name, status, time)

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        if self.written.members:
            self.written.forget(data.draw(st.sampled_from(sorted(self.written.members))))

    @rule(number=st.integers(0, 2), time=st.integers(0, 50))
    def hear(self, number: int, time: int) -> None:
        self.written.clocks[number].witness(time)

    @rule(seconds=st.floats(0, 200))
    def live(self, seconds: float) -> None:
        self.written.now += seconds

    @rule(cut=st.integers(0, 300))
    def fail(self, cut: int) -> None:
        # A write that fails leaves any part of what was to be appended, and a rewrite leaves the file before.
        journal = self.written.journal
        if journal.is_rewrite_due:
            complete(journal.rewrite_steps())
        else:
            self.written.file += complete(journal.append_steps())[:cut]
        journal.failed()

    @rule()
    def write(self) -> None:
        self.written.write()
        self.written.must_be_written()

    @rule()
    def start_again(self) -> None:
        self.written.write()
        lived = self.written.read().lived
        assert lived <= self.written.facts.lived_at(self.written.now) <= lived + LIVED_SECONDS

    @invariant()
    def the_file_is_bounded(self) -> None:
        assert len(self.written.file) < 300 * 1024


TestJournals = Journals.TestCase


def test_a_member_that_changed_often_has_one_line() -> None:
    written = Written()
    written.write()
    size = len(written.file)
    for time in range(100):
        written.change("a", MemberStatus.ALIVE, time)
        written.change("b", MemberStatus.FAILED, time)
    written.write()
    assert written.file[size:].count(b"\n") == 2
    assert written.rewrites == 1


def test_nothing_is_written_where_nothing_happens() -> None:
    written = Written()
    written.write()
    size = len(written.file)
    written.now += LIVED_SECONDS - 1
    written.write()
    assert len(written.file) == size
    written.now += 1
    written.write()
    assert written.file[size:].count(b"\n") == 1


def test_of_this_node_itself_nothing_is_written() -> None:
    written = Written()
    written.change("me", MemberStatus.ALIVE)
    written.write()
    written.change("me", MemberStatus.LEFT)
    written.write()
    assert b'"me"' not in written.file


def test_a_file_that_has_grown_is_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MIN_REWRITE_BYTES", 1000)
    written = Written()
    for name in "abcdefgh":
        written.change(name, MemberStatus.ALIVE)
    longest = 0
    for time in range(200):
        written.change("a", MemberStatus.ALIVE, time)
        written.write()
        longest = max(longest, len(written.file))
    one = 8 * 200
    assert 5 < written.rewrites < 100
    assert longest < 3 * one + 1000
    written.must_be_written()


def test_too_many_changes_have_all_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "MAX_CHANGED", 10)
    written = Written()
    written.write()
    for number in range(30):
        written.change(f"node-{number}", MemberStatus.ALIVE)
    assert written.changes.are_too_many
    written.write()
    assert written.rewrites == 2
    written.must_be_written()
    written.change("again", MemberStatus.ALIVE)
    written.write()
    assert written.rewrites == 2
    written.must_be_written()


def test_much_is_appended_in_parts_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MAX_APPENDED_BYTES", 1000)
    written = Written()
    written.write()
    for number in range(500):
        written.change(f"node-{number}", MemberStatus.ALIVE)
    part = complete(written.journal.append_steps())
    assert len(part) < 1000 + 16 * 400
    written.file += part
    written.write()
    written.must_be_written()
    assert sum(1 for _ in written.journal.rewrite_steps()) == 500 // journal_module.MEMBERS_AT_ONCE


def test_what_changes_while_all_is_written_anew_is_appended() -> None:
    written = Written()
    for number in range(100):
        written.change(f"node-{number}", MemberStatus.ALIVE)
    steps = written.journal.rewrite_steps()
    next(steps)
    written.change("node-0", MemberStatus.FAILED, 7)
    written.forget("node-99")
    written.change("new", MemberStatus.ALIVE)
    written.file = bytes(complete(steps))
    written.write()
    written.must_be_written()


@pytest.mark.parametrize("remembers", [True, False])
def test_a_leave_is_written_and_empties_what_is_not_to_be_kept(*, remembers: bool) -> None:
    written = Written()
    written.journal.remembers = remembers
    written.change("a", MemberStatus.ALIVE)
    written.clocks[1].witness(7)
    written.write()
    assert not written.read().has_left
    written.changes.note(HasLeft())
    written.change("a", MemberStatus.FAILED)
    written.clocks[1].witness(9)
    written.write()
    memory = written.read()
    assert memory.has_left
    assert set(memory.members) == ({"a"} if remembers else set())
    assert memory.clocks == (Clocks(1, 10, 1) if remembers else Clocks())
    size = len(written.file)
    written.write()
    assert len(written.file) == size
    # What it still hears while it stops.
    written.change("b", MemberStatus.ALIVE)
    written.write()
    assert (len(written.file) > size) is remembers


def test_time_that_a_member_is_gone_is_time_that_the_node_ran() -> None:
    written = Written()
    written.now += 100
    written.change("a", MemberStatus.FAILED)
    written.now += 200
    written.write()
    memory = written.read()
    assert (memory.lived, memory.members["a"].gone_at) == (300, 100)
    # The next life begins, on a clock that begins anew, and on one that is far ahead.
    for begun in (0.0, 1e9):
        facts = evolve(written.facts, begun=begun, lived=memory.lived)
        assert facts.time_of(100) == begun - 200
        assert facts.lived_at(begun + 50) == 350
        assert facts.time_of(10**9) == begun
