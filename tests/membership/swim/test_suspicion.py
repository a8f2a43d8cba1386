from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.swim.suspicion import Suspicion, shortest_suspicion


@pytest.mark.parametrize(
    ("multiplier", "members", "interval", "seconds"),
    [
        (4, 1, 1.0, 4.0),
        (4, 10, 1.0, 4.0),
        (4, 100, 1.0, 8.0),
        (4, 1000, 1.0, 12.0),
        (6, 1000, 5.0, 90.0),
        (3, 0, 1.0, 3.0),
    ],
)
def test_the_shortest(multiplier: int, members: int, interval: float, seconds: float) -> None:
    assert shortest_suspicion(multiplier, members, interval) == pytest.approx(seconds)


@given(st.floats(0.1, 100), st.integers(1, 10), st.integers(0, 6), st.integers(0, 8))
def test_the_duration_is_the_formula(shortest: float, factor: int, wanted: int, confirmations: int) -> None:
    longest = shortest * factor
    suspicion = Suspicion(10.0, shortest, longest, wanted, {"first"})
    accepted = sum(suspicion.confirm(f"n{number}") for number in range(confirmations))
    assert accepted == min(confirmations, wanted)
    expected = shortest
    if wanted:
        expected = longest - math.log(accepted + 1) / math.log(wanted + 1) * (longest - shortest)
    assert suspicion.duration == pytest.approx(max(expected, shortest))
    assert suspicion.deadline == pytest.approx(10.0 + suspicion.duration)
    assert shortest <= suspicion.duration <= longest


def test_figures_of_a_cluster_of_ten() -> None:
    suspicion = Suspicion(0.0, 4.0, 24.0, 2, {"a"})
    assert suspicion.duration == 24.0
    assert suspicion.confirm("b")
    assert suspicion.duration == pytest.approx(11.38, abs=0.01)
    assert suspicion.confirm("c")
    assert suspicion.duration == 4.0


def test_nobody_confirms_twice_and_the_first_is_no_confirmation() -> None:
    suspicion = Suspicion(0.0, 4.0, 24.0, 2, {"a"})
    assert not suspicion.confirm("a")
    assert suspicion.confirm("b")
    assert not suspicion.confirm("b")
    assert suspicion.confirmations == 1
    assert suspicion.confirm("c")
    assert not suspicion.confirm("d")
    assert suspicion.accusers == {"a", "b", "c"}
