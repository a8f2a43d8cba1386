"""Of sources that would do equally well the nearest is taken, and nothing else goes by how near one is."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.replication.decisions import Decision, Start, Stop
from proglog_trio.replication.distance import CLASS_SECONDS, UNKNOWN_CLASS, distance_class
from proglog_trio.replication.messages import Ended, EndReason, OriginRange, Positions
from proglog_trio.replication.peers.directories import Directories
from proglog_trio.replication.peers.peer_table import PeerTable
from proglog_trio.replication.pull_plan import PullPlan

X = Origin(bytes(15) + b"x")
ALL = OriginRange(0, 20)


@define
class Planned:
    """A plan of a node that has sequences 0 to 4 of X, and how far its peers are."""

    seconds: dict[str, float | None]
    plan: PullPlan = field(init=False)

    def __attrs_post_init__(self) -> None:
        peers = PeerTable(Directories(b"me------"))
        self.plan = PullPlan("me", lambda _origin: OriginState(0, 5), peers, round_trip_to=self.seconds.get)

    def connect(self, held: Mapping[str, OriginRange], *, writer: str | None = None) -> None:
        for name, range_ in held.items():
            directory_id = name.encode().ljust(8, b"-")
            self.plan.peers.directories.met(directory_id, name)
            self.plan.joined(name, 0.0)
            self.plan.connected(name, directory_id)
            self.plan.positions(name, Positions({X: range_}, writing=X if name == writer else None))

    def decide(self, now: float = 0.0) -> list[Decision]:
        return self.plan.decide(now)

    @property
    def source(self) -> str | None:
        assignment = self.plan.assigned.get(X)
        return None if assignment is None else assignment.peer


def source_among(seconds: dict[str, float | None], held: Mapping[str, OriginRange], writer: str | None = None) -> str:
    planned = Planned(seconds)
    planned.connect(held, writer=writer)
    (start,) = planned.decide()
    assert isinstance(start, Start)
    assert planned.source == start.peer
    return start.peer


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"a": 0.090, "b": 0.001, "c": 0.030}, "b"),
        ({"a": 0.001, "b": 0.090, "c": 0.030}, "a"),
        ({"a": 0.300, "b": 0.300, "c": 0.100}, "c"),
        # One that is not known, or is no time, is behind those that are.
        ({"a": None, "b": None, "c": 9.0}, "c"),
        ({"a": math.nan, "b": 0.5, "c": -1.0}, "b"),
    ],
)
def test_the_nearest_of_equals_is_the_source(seconds: dict[str, float | None], expected: str) -> None:
    assert source_among(seconds, dict.fromkeys("abc", ALL)) == expected


def test_within_a_class_distance_decides_nothing() -> None:
    undecided = source_among({}, dict.fromkeys("abc", ALL))
    for near in "abc":
        seconds: dict[str, float | None] = {name: 0.0011 if name == near else 0.0019 for name in "abc"}
        assert source_among(seconds, dict.fromkeys("abc", ALL)) == undecided


@pytest.mark.parametrize(
    ("held", "writer", "expected", "why"),
    [
        ({"near": OriginRange(0, 10), "far": OriginRange(0, 20)}, None, "far", "it has more"),
        ({"near": ALL, "far": ALL}, "far", "far", "it writes it"),
        ({"near": OriginRange(8, 20), "far": ALL}, None, "far", "it has what comes next"),
        ({"near": OriginRange(0, 20, missing=((5, 6),)), "far": ALL}, None, "far", "it has what comes next"),
    ],
)
def test_what_one_has_counts_before_how_near_it_is(
    held: Mapping[str, OriginRange], writer: str | None, expected: str, why: str
) -> None:
    assert source_among({"near": 0.0001, "far": 0.5}, held, writer) == expected, why


def test_a_source_is_kept_however_the_distances_change() -> None:
    planned = Planned({"a": 0.001, "b": 0.2})
    planned.connect({"a": ALL, "b": ALL})
    planned.decide()
    assert planned.source == "a"
    for turn in range(20):
        planned.seconds.update(a=0.2 if turn % 2 else 0.001, b=0.001 if turn % 2 else 0.2)
        planned.plan.touch_all()
        assert planned.decide(turn * 0.05) == []
    assert planned.source == "a"


def test_a_near_source_that_stalls_is_left_for_a_far_one() -> None:
    planned = Planned({"a": 0.001, "b": 0.2})
    planned.connect({"a": ALL, "b": ALL})
    planned.decide()
    assert [type(decision) for decision in planned.decide(2.5)] == [Stop, Start]
    assert planned.source == "b"


def test_a_source_from_which_something_is_passed_is_kept_as_well() -> None:
    planned = Planned({"a": 0.001, "b": 0.2})
    planned.connect({"a": OriginRange(10, 20), "b": OriginRange(10, 20)})
    assert planned.decide() == []
    planned.decide(10.0)
    assert planned.source == "a"
    planned.seconds.update(a=0.2, b=0.001)
    planned.plan.touch_all()
    assert planned.decide(10.1) == []
    # One that leaves out less is better, wherever it is.
    planned.plan.positions("b", Positions({X: OriginRange(8, 20)}))
    planned.decide(10.2)
    assert planned.source == "b"


def test_one_that_cannot_send_it_is_left_for_the_next_nearest() -> None:
    planned = Planned({"a": 0.001, "b": 0.03, "c": 0.5})
    planned.connect(dict.fromkeys("abc", ALL))
    planned.decide()
    planned.plan.ended("a", Ended(X, 5, None, EndReason.DAMAGED), 0.1)
    planned.decide(0.1)
    assert planned.source == "b"


@given(st.floats() | st.none(), st.floats() | st.none())
def test_classes_are_in_order(one: float | None, other: float | None) -> None:
    assert 0 <= distance_class(one) <= UNKNOWN_CLASS
    if one is not None and other is not None and 0 <= one <= other:
        assert distance_class(one) <= distance_class(other) < UNKNOWN_CLASS
    assert distance_class(CLASS_SECONDS[0]) == 1
