"""How fast and how often: the timing of the gossip protocol, in three profiles.

The figures are those of HashiCorp memberlist and Serf, so that nodes and `serf` agents in one cluster agree on them.
All durations are in seconds.
"""

from __future__ import annotations

import enum
from typing import Any, Self

from attrs import Attribute, evolve, field, frozen


def _positive(_instance: object, attribute: Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be more than 0, not {value}")


def _not_negative(_instance: object, attribute: Attribute[Any], value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} must not be negative, it is {value}")


class ProfileName(enum.Enum):
    """What kind of network the cluster is on."""

    LAN = "lan"
    LOCAL = "local"
    WAN = "wan"


@frozen(kw_only=True)
class GossipProfile:
    """The timing of the protocol; the default is the lan profile.

    Attributes:
        probe_interval: one member is probed in each.
        probe_timeout: how long a direct probe waits before others are asked to probe.
        indirect_checks: how many others are asked.
        suspicion_multiplier: the shortest suspicion lasts this many probe intervals, times the logarithm of the size.
        suspicion_maximum_multiplier: the longest lasts this many times the shortest.
        gossip_interval, gossip_nodes: how often broadcasts are sent, and to how many members.
        gossip_to_the_dead: for how long dead members are still gossiped to, and kept.
        retransmit_multiplier: a broadcast is sent this many times the logarithm of the size.
        push_pull_interval: how often the whole state is exchanged with one member; 0: never.
        stream_timeout: for a TCP exchange.
        awareness_maximum: the local health score stays below it.
        packet_bytes: the largest UDP packet.
        reconnect_interval: how often one failed member is tried again.
        reconnect_timeout, tombstone_timeout: after how long failed and left members are forgotten.
        recent_intent_timeout: how long an intent about an unknown member is kept.
        leaving_timeout: after how long a member that said it leaves, and answers all the same, counts as alive again.
        leave_propagation: how long a node that left stays reachable, so that the news spreads.
        broadcast_timeout: how long leaving waits for each of its broadcasts to go out.
        reap_interval: how often those timeouts are looked at.
    """

    probe_interval: float = field(default=1.0, validator=_positive)
    probe_timeout: float = field(default=0.5, validator=_positive)
    indirect_checks: int = field(default=3, validator=_not_negative)
    suspicion_multiplier: int = field(default=4, validator=_positive)
    suspicion_maximum_multiplier: int = field(default=6, validator=_positive)
    gossip_interval: float = field(default=0.2, validator=_positive)
    gossip_nodes: int = field(default=3, validator=_positive)
    gossip_to_the_dead: float = field(default=30.0, validator=_not_negative)
    retransmit_multiplier: int = field(default=4, validator=_positive)
    push_pull_interval: float = field(default=30.0, validator=_not_negative)
    stream_timeout: float = field(default=10.0, validator=_positive)
    awareness_maximum: int = field(default=8, validator=_positive)
    packet_bytes: int = field(default=1400, validator=_positive)
    reconnect_interval: float = field(default=30.0, validator=_positive)
    reconnect_timeout: float = field(default=24 * 3600.0, validator=_positive)
    tombstone_timeout: float = field(default=24 * 3600.0, validator=_positive)
    recent_intent_timeout: float = field(default=300.0, validator=_positive)
    leaving_timeout: float = field(default=60.0, validator=_positive)
    leave_propagation: float = field(default=1.0, validator=_not_negative)
    broadcast_timeout: float = field(default=5.0, validator=_positive)
    reap_interval: float = field(default=15.0, validator=_positive)

    def __attrs_post_init__(self) -> None:
        if self.probe_timeout >= self.probe_interval:
            raise ValueError(
                f"probe_timeout ({self.probe_timeout} s) must be shorter than probe_interval ({self.probe_interval} s)"
            )

    @classmethod
    def named(cls, name: ProfileName) -> Self:
        """Return the profile of a name."""
        lan = cls()
        if name is ProfileName.LOCAL:
            return evolve(
                lan,
                probe_timeout=0.2,
                indirect_checks=1,
                suspicion_multiplier=3,
                gossip_interval=0.1,
                gossip_to_the_dead=15.0,
                retransmit_multiplier=2,
                push_pull_interval=15.0,
                stream_timeout=1.0,
            )
        if name is ProfileName.WAN:
            return evolve(
                lan,
                probe_interval=5.0,
                probe_timeout=3.0,
                suspicion_multiplier=6,
                gossip_interval=0.5,
                gossip_nodes=4,
                gossip_to_the_dead=60.0,
                push_pull_interval=60.0,
                leaving_timeout=300.0,
                stream_timeout=30.0,
            )
        return lan
