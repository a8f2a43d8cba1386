"""Suspicion (Lifeguard): how long a member that does not answer has to refute before it is dead.

The time is longest when one node alone suspects, and falls with each further node that independently does (Lifeguard,
section IV.B).
"""

from __future__ import annotations

import math

from attrs import define, field


def shortest_suspicion(multiplier: int, members: int, probe_interval: float) -> float:
    """Return the shortest time of a suspicion in seconds, in a cluster of so many members."""
    return multiplier * max(1.0, math.log10(max(1, members))) * probe_interval


@define
class Suspicion:
    """One running suspicion.

    Attributes:
        began: when, in seconds.
        shortest, longest: how long it lasts with all confirmations, and with none.
        confirmations_wanted: how many make it the shortest; 0: it is the shortest at once.
        accusers: who suspects; the first of them began it and is no confirmation.
    """

    began: float
    shortest: float
    longest: float
    confirmations_wanted: int
    accusers: set[str] = field(factory=set)

    @property
    def confirmations(self) -> int:
        """How many besides the first accuser suspect."""
        return max(len(self.accusers) - 1, 0)

    def confirm(self, accuser: str) -> bool:
        """Take note of an accuser; tell whether that is news worth passing on."""
        if self.confirmations >= self.confirmations_wanted or accuser in self.accusers:
            return False
        self.accusers.add(accuser)
        return True

    @property
    def deadline(self) -> float:
        """When the member is dead unless it refutes."""
        return self.began + self.duration

    @property
    def duration(self) -> float:
        """How long the suspicion lasts, with the confirmations there are."""
        if self.confirmations_wanted < 1:
            return self.shortest
        share = math.log(self.confirmations + 1) / math.log(self.confirmations_wanted + 1)
        return max(self.longest - share * (self.longest - self.shortest), self.shortest)
