"""A cluster changes from plain to encrypted gossip, and back, while it runs: nobody is called failed meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf.member import MemberEventKind
from proglog_trio.membership.wire.keyring import Keyring
from tests.membership.simulation.cluster import Cluster, Encryption, SimulatedNode, address_of
from tests.membership.simulation.network import Conditions
from tests.membership.simulation.strategies import EXAMPLES, PROFILES, SEEDS, lossless

KEYRING = Keyring((bytes(range(16)),))
PLAIN = Encryption()
PREPARED = Encryption(KEYRING, verify_incoming=False, verify_outgoing=False)
ENCRYPTING = Encryption(KEYRING, verify_incoming=False)
ENCRYPTED = Encryption(KEYRING)
STEPS = (PREPARED, ENCRYPTING, ENCRYPTED)
"""In this order each is given to all nodes, one after the other."""


def restart(cluster: Cluster, node: SimulatedNode, encryption: Encryption, *, leaves: bool) -> None:
    """Start a node anew with other options, as an operator does."""
    others = [each.endpoint for each in cluster.live if each is not node]
    if leaves:
        cluster.leave(node)
        cluster.run_until(lambda: not node.running, 60.0)
    else:
        cluster.crash(node)
    again = cluster.start(node.name, node.endpoint, encryption=encryption)
    cluster.join(again, others)


def failures(cluster: Cluster) -> set[str]:
    return {
        member.name
        for node in cluster.nodes.values()
        for event in node.events
        if event.kind is MemberEventKind.FAILED
        for member in event.members
    }


def roll(cluster: Cluster, steps: Sequence[Encryption], *, leaves: bool) -> None:
    for step in steps:
        for name in list(cluster.nodes):
            restart(cluster, cluster.nodes[name], step, leaves=leaves)
            assert cluster.run_until(cluster.agrees, 120.0) is not None, cluster.disagreement()
        # A while in each step, and in the middle of none: they are left half done here and there.
        cluster.run(20.0)
    cluster.run(60.0)


@settings(max_examples=max(EXAMPLES // 20, 3), suppress_health_check=list(HealthCheck))
@given(SEEDS, st.integers(2, 5), PROFILES, lossless(), st.booleans(), st.booleans())
def test_nobody_fails_in_the_documented_steps(
    seed: int, size: int, profile: GossipProfile, conditions: Conditions, leaves: bool, back: bool
) -> None:
    cluster = Cluster.make(seed, profile)
    cluster.network.conditions = conditions
    cluster.form(size)
    roll(cluster, STEPS, leaves=leaves)
    assert all(node.encryption == ENCRYPTED for node in cluster.live)
    if back:
        roll(cluster, (ENCRYPTING, PREPARED, PLAIN), leaves=leaves)
    assert failures(cluster) == set()
    assert cluster.agrees()


@pytest.mark.parametrize("steps", [(ENCRYPTED,), (ENCRYPTING,), (PREPARED, ENCRYPTED)])
def test_with_a_step_left_out_they_lose_each_other(steps: Sequence[Encryption]) -> None:
    """Or else the test above would show nothing."""
    cluster = Cluster.make(1)
    nodes = cluster.form(3)
    *before, last = steps
    roll(cluster, before, leaves=False)
    restart(cluster, cluster.nodes[nodes[0].name], last, leaves=False)
    cluster.run(200.0)
    assert failures(cluster) or not cluster.agrees()


def test_who_has_no_key_is_a_member_until_it_is_encrypted() -> None:
    cluster = Cluster.make(2)
    cluster.form(3)
    roll(cluster, (PREPARED,), leaves=True)
    late = cluster.start("plain", address_of(9))
    cluster.join(late, [cluster.live[0].endpoint])
    assert cluster.run_until(cluster.agrees, 60.0) is not None
