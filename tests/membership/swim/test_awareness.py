from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.swim.awareness import Awareness


def test_the_score_scales_durations() -> None:
    awareness = Awareness(8)
    assert awareness.scale(0.5) == 0.5
    awareness.change(+3)
    assert awareness.scale(0.5) == pytest.approx(2.0)
    awareness.change(-1)
    assert awareness.scale(0.5) == pytest.approx(1.5)


@given(st.integers(1, 20), st.lists(st.integers(-30, 30)))
def test_the_score_stays_within_its_bounds(maximum: int, changes: list[int]) -> None:
    awareness = Awareness(maximum)
    for change in changes:
        before = awareness.score
        awareness.change(change)
        assert 0 <= awareness.score < maximum
        assert (awareness.score - before) * change >= 0
