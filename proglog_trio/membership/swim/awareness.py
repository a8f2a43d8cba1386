"""Local health (Lifeguard): how much this node trusts its own probes.

A score from 0, healthy, up. Probes that fail, nacks that are missing and accusations that have to be refuted raise it;
probes that succeed lower it. A node with a high score gives others more time, since the fault may be its own (Dadgar,
Phillips, Currey, "Lifeguard: Local Health Awareness for More Accurate Failure Detection", 2018, section IV.A).
"""

from __future__ import annotations

from attrs import define


@define
class Awareness:
    """The local health score.

    Attributes:
        maximum: the score stays below it.
        score: 0 is healthy.
    """

    maximum: int
    score: int = 0

    def change(self, delta: int) -> None:
        """Make the score worse (above 0) or better (below 0)."""
        self.score = min(max(self.score + delta, 0), self.maximum - 1)

    def scale(self, seconds: float) -> float:
        """Return a duration as this node's health asks for it."""
        return seconds * (self.score + 1)
