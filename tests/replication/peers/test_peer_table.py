"""Who may have what is missing: absence has a range, and ends when a peer says otherwise."""

from __future__ import annotations

from proglog_trio.log.format.gap_marker import HIGHEST_SEQUENCE
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.replication.messages import OriginRange, Positions
from proglog_trio.replication.peers.directories import Directories
from proglog_trio.replication.peers.peer_table import PeerTable
from proglog_trio.replication.pull_plan import PullPlan

X = Origin(bytes(15) + b"x")
A, B = b"a-------", b"b-------"


def plan_with(**ranges: OriginRange) -> PullPlan:
    peers = PeerTable(Directories(b"me------"))
    plan = PullPlan("me", lambda _origin: OriginState(0, 5), peers)
    for name, held in ranges.items():
        directory_id = name.encode().ljust(8, b"-")
        peers.directories.met(directory_id, name)
        plan.joined(name, 0.0)
        plan.connected(name, directory_id)
        plan.positions(name, Positions({X: held}))
    return plan


def may_have(plan: PullPlan, first: int, following: int, asked: set[bytes]) -> list[str]:
    return [each.node_name for each in plan.peers.may_have(X, first, following, asked)]


def test_who_lacks_only_the_next_sequence_is_not_taken_to_lack_those_after_it() -> None:
    plan = plan_with(a=OriginRange(0, 20, missing=((5, 10),)), b=OriginRange(0, 5))
    asked: set[bytes] = set()
    plan.peers.ask(X, 5, HIGHEST_SEQUENCE, asked)
    assert asked == {B}
    plan.disconnected("a", 1.0)
    assert may_have(plan, 5, 30, asked) == ["a"]


def test_who_has_got_it_meanwhile_lacks_it_no_more_also_when_it_is_away() -> None:
    plan = plan_with(a=OriginRange(0, 20, missing=((5, 10),)))
    asked: set[bytes] = set()
    plan.peers.ask(X, 5, 10, asked)
    assert asked == {A}
    assert may_have(plan, 5, 10, asked) == []
    plan.positions("a", Positions({X: OriginRange(0, 20)}))
    plan.peers.ask(X, 5, 10, asked)
    plan.disconnected("a", 1.0)
    assert may_have(plan, 5, 10, asked) == ["a"]


def test_who_was_asked_and_did_not_have_it_is_not_waited_for_when_it_is_away() -> None:
    plan = plan_with(a=OriginRange(0, 5))
    asked: set[bytes] = set()
    plan.peers.ask(X, 5, 10, asked)
    plan.disconnected("a", 1.0)
    assert may_have(plan, 5, 10, asked) == []
    assert may_have(plan, 5, 10, set()) == ["a"]
