from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.swim.node import NodeStatus
from proglog_trio.membership.swim.swim import VERSION
from proglog_trio.membership.swim.versions import MAX_VERSIONS, Versions
from proglog_trio.membership.wire.memberlist import Alive, NodeState
from proglog_trio.steps import complete
from tests.membership.swim.cores import HERE, TestedSwim, alive, endpoint_of

AGENT = bytes((1, 5, 2, 2, 5, 5))


@pytest.mark.parametrize(
    "version",
    [
        bytes(6),
        bytes((0, 5, 2, 2, 5, 4)),
        bytes((1, 0, 2, 2, 5, 4)),
        bytes((3, 2, 2, 2, 5, 4)),
        bytes((1, 5, 6, 2, 5, 4)),
        bytes((1, 5, 2, 2, 5, 6)),
        bytes((5, 1, 2, 2, 5, 4)),
        bytes((1, 1, 1, 2, 5, 4)),
        bytes((3, 5, 3, 2, 5, 4)),
        bytes((1, 6, 6, 2, 5, 4)),
        bytes((1, 5, 2, 2, 3, 3)),
        bytes((1, 5, 2, 5, 6, 5)),
        bytes((1, 5, 2, 2, 6, 6)),
        bytes((1, 5, 2, 2, 5, 0)),
        bytes((255, 255, 255, 255, 255, 255)),
    ],
)
def test_who_would_have_agents_refuse_our_state_is_not_taken_in(version: bytes) -> None:
    core = TestedSwim.make()
    core.broadcasts()
    core.receive(alive("phantom", version=version))
    assert core.status("phantom") is None
    assert core.broadcasts() == []
    assert [state.name for state in complete(core.swim.states.local_state_steps())] == ["me"]
    assert core.swim.rules.counters.incompatible == 1
    # Nor does a member become one by saying so.
    core.receive(alive("c", at=9), alive("c", 2, at=9, version=version))
    assert core.swim.rules.nodes["c"].version == VERSION
    # Nor in a state, where the others are taken all the same.
    states = [
        NodeState(name=name, addr=endpoint_of(at).address, port=1, incarnation=1, vsn=vsn)
        for name, at, vsn in (("a", 2, AGENT), ("phantom", 3, version), ("b", 4, VERSION))
    ]
    complete(core.swim.states.merge_steps(states))
    assert set(core.swim.rules.nodes) == {"me", "a", "b", "c"}


def test_a_member_that_changes_its_version_to_one_that_does_not_fit_stays_as_it_was() -> None:
    core = TestedSwim.make()
    core.receive(alive(), alive(incarnation=2, version=bytes((1, 5, 9, 2, 5, 4))))
    assert (core.status(), core.incarnation(), core.swim.rules.nodes["b"].version) == (NodeStatus.ALIVE, 1, VERSION)
    core.receive(alive(incarnation=3, version=AGENT))
    assert (core.incarnation(), core.swim.rules.nodes["b"].version) == (3, AGENT)


def test_the_members_that_are_known_have_to_understand_a_new_one() -> None:
    core = TestedSwim.make()
    core.receive(alive("old", version=bytes((1, 2, 2, 2, 4, 4))))
    core.receive(alive("agent", at=2, version=AGENT))
    assert core.status("agent") is None
    # Until the last of those who do not is forgotten, which may have another address by then.
    core.receive(alive("old", incarnation=2, version=VERSION), alive("agent", at=2, version=AGENT))
    assert core.status("agent") is NodeStatus.ALIVE


def test_what_is_unsound_about_this_node_is_not_refuted() -> None:
    core = TestedSwim.make()
    core.receive(alive("me", 9, at=HERE, version=bytes(6)))
    assert core.incarnation("me") == 1
    core.receive(alive("me", 9, at=HERE, version=bytes((1, 9, 9, 2, 5, 4))))
    assert core.incarnation("me") == 10


versions = st.tuples(*[st.integers(0, 6)] * 6).map(bytes)


@given(st.lists(versions, max_size=20))
def test_agents_take_every_state_of_ours(heard: list[bytes]) -> None:
    """As memberlist checks it: what each speaks has to be in the range of each."""
    core = TestedSwim.make()
    core.receive(
        *(
            Alive(incarnation=1, node=str(number), addr=bytes((10, 2, 0, number)), port=1, meta=b"", vsn=version)
            for number, version in enumerate(heard)
        )
    )
    states = complete(core.swim.states.local_state_steps())
    lowest, highest = max(state.vsn[0] for state in states), min(state.vsn[1] for state in states)
    assert all(lowest <= state.vsn[2] <= highest for state in states)
    lowest, highest = max(state.vsn[3] for state in states), min(state.vsn[4] for state in states)
    assert all(lowest <= state.vsn[5] <= highest for state in states)


def test_different_versions_are_bounded() -> None:
    known = Versions()
    for highest in range(5, 5 + MAX_VERSIONS):
        version = bytes((1, highest, 2, 2, 5, 4))
        assert known.fit(version)
        known.add(version)
    another = bytes((1, 200, 2, 2, 5, 4))
    assert not known.fit(another)
    assert known.fit(version)
    known.remove(version)
    assert known.fit(another)
