"""How long detecting a failure may take, from the protocol's own figures."""

from __future__ import annotations

import math

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.swim.broadcasts import retransmit_limit
from proglog_trio.membership.swim.suspicion import shortest_suspicion
from proglog_trio.membership.swim.swim import push_pull_scale


def dissemination_seconds(profile: GossipProfile, members: int) -> float:
    """Return how long news takes to reach everybody: the rounds in which it spreads, then all its retransmissions."""
    spreading = math.ceil(math.log(members) / math.log(profile.gossip_nodes + 1))
    return profile.gossip_interval * (spreading + retransmit_limit(profile.retransmit_multiplier, members))


def longest_suspicion(profile: GossipProfile, members: int) -> float:
    """Return how long a suspicion lasts that nobody confirms."""
    shortest = shortest_suspicion(profile.suspicion_multiplier, members, profile.probe_interval)
    # A cluster too small for confirmations has no longer time than the shortest.
    return (
        shortest if members - 2 < profile.suspicion_multiplier - 2 else shortest * profile.suspicion_maximum_multiplier
    )


def detection_bound(profile: GossipProfile, members: int) -> float:
    """Return within how long a crash is known everywhere when no message is lost.

    One probe round over the list, the probe that fails, the longest suspicion, and dissemination.
    """
    probing = profile.probe_interval * members + profile.probe_interval
    return probing + longest_suspicion(profile, members) + dissemination_seconds(profile, members)


def recovery_bound(profile: GossipProfile, members: int) -> float:
    """Return within how long a paused node is alive to everybody after it goes on, when no message is lost.

    It takes in what has arrived and says that it is alive, which spreads; whom gossip misses, a push/pull reaches.
    """
    exchanging = profile.push_pull_interval * push_pull_scale(members)
    return profile.probe_timeout + dissemination_seconds(profile, members) + 2 * exchanging
