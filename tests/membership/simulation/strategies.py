"""Clusters and networks for hypothesis."""

from __future__ import annotations

from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st

from proglog_trio.membership.profile import GossipProfile, ProfileName
from tests.membership.simulation.network import Conditions

EXAMPLES = settings().max_examples
SEEDS = st.integers(0, 2**32 - 1)
PROFILES = st.sampled_from([GossipProfile.named(name) for name in ProfileName])
QUICK_PROFILES = st.sampled_from([GossipProfile.named(name) for name in (ProfileName.LAN, ProfileName.LOCAL)])


def sizes(most: int = 50) -> st.SearchStrategy[int]:
    """Return cluster sizes, small ones more often."""
    return st.one_of(st.integers(2, 6), st.integers(2, 16), st.integers(2, most))


@st.composite
def lossless(draw: st.DrawFn) -> Conditions:
    """Return a network that loses nothing, with delays far below any probe timeout."""
    return Conditions(
        duplication=draw(st.sampled_from([0.0, 0.05, 0.3])),
        delay=draw(st.sampled_from([(0.0, 0.0), (0.0005, 0.002), (0.001, 0.04)])),
        reordering=draw(st.sampled_from([0.0, 0.1])),
        reordering_delay=0.03,
    )


@st.composite
def faulty(draw: st.DrawFn) -> Conditions:
    """Return a network that loses packets, repeats them, and has them overtake each other."""
    return evolve(
        draw(lossless()),
        loss=draw(st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.6])),
        reordering=draw(st.sampled_from([0.0, 0.2])),
        reordering_delay=draw(st.sampled_from([0.1, 1.0, 5.0])),
    )
