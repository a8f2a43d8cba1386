import math
import random

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.serf.vivaldi import (
    ADJUSTMENT_WINDOW,
    DIMENSIONS,
    HIGHEST_ERROR,
    LOWEST_HEIGHT,
    ORIGIN,
    Vivaldi,
    estimate,
    raw_distance,
)
from proglog_trio.membership.wire.coordinates import Coordinate, decode_ack_payload, encode_ack_payload


def test_distances() -> None:
    one = Coordinate((0.003, *(0.0,) * 7), 1.0, 0.0, 0.001)
    other = Coordinate((0.0, 0.004, *(0.0,) * 6), 1.0, 0.0, 0.002)
    assert raw_distance(one, other) == pytest.approx(0.008)
    assert estimate(one, other) == estimate(other, one) == pytest.approx(0.008)
    assert estimate(evolve(one, adjustment=0.001), other) == pytest.approx(0.009)
    # Adjustments that would make it negative do not count.
    assert estimate(evolve(one, adjustment=-1.0), other) == pytest.approx(0.008)


@pytest.mark.parametrize("seed", range(3))
def test_members_on_a_plane_learn_their_distances(seed: int) -> None:
    rng = random.Random(seed)
    places = [(rng.uniform(0, 0.05), rng.uniform(0, 0.05)) for _ in range(12)]
    members = [Vivaldi(random.Random(number)) for number in range(len(places))]
    for _ in range(2000):
        one, other = rng.sample(range(len(places)), 2)
        seconds = math.dist(places[one], places[other]) * rng.uniform(0.95, 1.05) + 0.001
        members[one].measured(str(other), members[other].coordinate, seconds)
    errors = [
        abs(
            estimate(members[one].coordinate, members[other].coordinate) - math.dist(places[one], places[other]) - 0.001
        )
        for one in range(len(places))
        for other in range(one)
    ]
    assert sorted(errors)[len(errors) // 2] < 0.005
    assert all(member.coordinate.error < 0.5 for member in members)


def test_one_measurement_that_took_long_hardly_counts() -> None:
    steady, shaken = Vivaldi(random.Random(1)), Vivaldi(random.Random(1))
    for number in range(200):
        steady.measured("x", ORIGIN, 0.010)
        shaken.measured("x", ORIGIN, 5.0 if number % 20 == 19 else 0.010)
    assert estimate(shaken.coordinate, ORIGIN) == pytest.approx(estimate(steady.coordinate, ORIGIN), rel=0.01)


@pytest.mark.parametrize(
    ("other", "seconds"),
    [
        (Coordinate((0.0,) * 7, 1.0, 0.0, 0.0), 0.1),
        (Coordinate((), 1.0, 0.0, 0.0), 0.1),
        (evolve(ORIGIN, vec=(math.nan, *(0.0,) * 7)), 0.1),
        (evolve(ORIGIN, height=math.inf), 0.1),
        (evolve(ORIGIN, vec=(1e155, *(0.0,) * 7)), 0.1),
        (evolve(ORIGIN, error=-1.0), 0.1),
        (evolve(ORIGIN, height=-1.0), 0.1),
        (ORIGIN, -0.1),
        (ORIGIN, 11.0),
        (ORIGIN, math.nan),
    ],
)
def test_what_is_no_measurement(other: Coordinate, seconds: float) -> None:
    vivaldi = Vivaldi(random.Random(1))
    vivaldi.measured("x", other, seconds)
    assert vivaldi.coordinate == ORIGIN
    assert vivaldi.refused == 1


FIGURE = st.floats() | st.floats(-100_000, 100_000) | st.floats(-2, 2)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("xyz"),
            st.builds(Coordinate, st.tuples(*[FIGURE] * DIMENSIONS), FIGURE, FIGURE, FIGURE),
            st.floats(0, 10),
        ),
        max_size=2 * ADJUSTMENT_WINDOW,
    )
)
def test_no_coordinate_of_others_makes_this_one_unusable(measurements: list[tuple[str, Coordinate, float]]) -> None:
    vivaldi = Vivaldi(random.Random(1))
    for name, other, seconds in measurements:
        vivaldi.measured(name, other, seconds)
        me = vivaldi.coordinate
        assert all(map(math.isfinite, (*me.vec, me.error, me.adjustment, me.height)))
        assert me.height >= LOWEST_HEIGHT
        assert me.error <= HIGHEST_ERROR
        assert decode_ack_payload(encode_ack_payload(me)) == me


def test_what_is_kept_of_a_member_is_forgotten_with_it() -> None:
    vivaldi = Vivaldi(random.Random(1))
    vivaldi.measured("x", ORIGIN, 0.1)
    vivaldi.forget("x")
    vivaldi.forget("y")
    assert not vivaldi._recent


def test_of_two_measurements_the_longer_counts_as_with_agents() -> None:
    """Go's client takes the sorted samples' element at half their number."""
    two, one = Vivaldi(random.Random(1)), Vivaldi(random.Random(1))
    for seconds in (0.030, 0.010):
        two.measured("x", ORIGIN, seconds)
    for seconds in (0.030, 0.030):
        one.measured("x", ORIGIN, seconds)
    assert two.coordinate == one.coordinate


def test_what_was_usable_is_said() -> None:
    vivaldi = Vivaldi(random.Random(1))
    assert vivaldi.measured("x", ORIGIN, 0.1)
    assert not vivaldi.measured("x", ORIGIN, -0.1)
    assert not vivaldi.measured("x", evolve(ORIGIN, height=math.nan), 0.1)
