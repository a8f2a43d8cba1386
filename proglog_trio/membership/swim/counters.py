"""What a SWIM core counts, for metrics and tests."""

from __future__ import annotations

from attrs import define


@define
class Counters:
    """What happened since the core was made.

    Attributes:
        incompatible: news of members that are not added, since they and others here do not understand each other.
        of_other_clusters: what came from members of other clusters, or was about them, and was dropped: news of a
            member, a message, or a whole state. What comes from those that may not be members counts here too.
        not_admitted: news of those that may not be members: their address is in no allowed network, or the program's
            merge check says no.
    """

    suspected: int = 0
    refuted: int = 0
    declared_dead: int = 0
    conflicts: int = 0
    beyond_limit: int = 0
    incompatible: int = 0
    of_other_clusters: int = 0
    not_admitted: int = 0
    probes: int = 0
    probes_failed: int = 0
    packets_sent: int = 0
    bytes_sent: int = 0
    pauses: int = 0
