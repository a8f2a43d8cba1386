"""Suspicion (Lifeguard): how long a member that does not answer has to refute before it is dead.

The time is longest when one node alone suspects, and falls with each further node that independently does (Lifeguard,
section IV.B).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from attrs import define, field

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.swim.timers import Timer, Timers


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
        accusers: the names of those that suspect it; the first of them began it and is no confirmation. It never has
            more than one name over confirmations_wanted, and is empty where it was begun by hearsay.
        timer: runs out at the deadline; None: it is not set yet.
    """

    began: float
    shortest: float
    longest: float
    confirmations_wanted: int
    accusers: set[str] = field(factory=set)
    timer: Timer | None = None

    @property
    def confirmations(self) -> int:
        """How many besides the first accuser suspect."""
        return max(len(self.accusers) - 1, 0)

    def confirm(self, accuser: str) -> bool:
        """Count an accuser; tell whether that is news worth passing on."""
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
        # The first confirmation shortens it most, as the paper has it: logarithms, and 1 with all that are wanted.
        share = math.log(self.confirmations + 1) / math.log(self.confirmations_wanted + 1)
        return max(self.longest - share * (self.longest - self.shortest), self.shortest)


@define(eq=False)
class Suspicions:
    """The suspicions that run now, each with its timer: one for a member at the most.

    Attributes:
        profile, timers: of the core.
        expired: called with the name of a member whose suspicion is over, once that does not run any more.
    """

    profile: GossipProfile
    timers: Timers
    expired: Callable[[str], None]
    _running: dict[str, Suspicion] = field(factory=dict)

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, name: str) -> bool:
        return name in self._running

    def begin(self, name: str, accusers: set[str], members: int) -> None:
        """Begin the suspicion of a member, in a cluster of so many."""
        profile = self.profile
        # Besides the accuser and the accused there must be as many as are to confirm; otherwise none can be waited for.
        wanted = profile.suspicion_multiplier - 2
        if members - 2 < wanted:
            wanted = 0
        shortest = shortest_suspicion(profile.suspicion_multiplier, members, profile.probe_interval)
        longest = profile.suspicion_maximum_multiplier * shortest
        self._arm(name, Suspicion(self.timers.now, shortest, longest, wanted, accusers))

    def confirm(self, name: str, accuser: str) -> bool:
        """Count an accuser of a member whose suspicion runs; tell whether that is news worth passing on."""
        suspicion = self._running[name]
        is_news = suspicion.confirm(accuser)
        if is_news:
            self._arm(name, suspicion)
        return is_news

    def begin_anew(self) -> None:
        """Let every suspicion begin again: this node could not hear whether it was refuted."""
        for name, suspicion in list(self._running.items()):
            suspicion.began = self.timers.now
            self._arm(name, suspicion)

    def end(self, name: str) -> None:
        """End the suspicion of a member, if there is one."""
        suspicion = self._running.pop(name, None)
        if suspicion is not None and suspicion.timer is not None:
            suspicion.timer.cancel()

    def _arm(self, name: str, suspicion: Suspicion) -> None:
        self.end(name)

        def expired() -> None:
            self.end(name)
            self.expired(name)

        suspicion.timer = self.timers.set(suspicion.deadline, expired)
        self._running[name] = suspicion
