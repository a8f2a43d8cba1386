"""Broadcasts that wait to be gossiped: each is sent a limited number of times, those sent least first.

The limit is retransmit_multiplier times the rounded-up decimal logarithm of the cluster's size, which reaches every
member with high probability (Das, Gupta, Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process Group
Membership Protocol", 2002, section 5.2).
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable

from attrs import define, field

MAX_BROADCASTS = 8192
"""Beyond this the broadcasts that were sent most often are dropped; push/pull carries what they said."""


def retransmit_limit(multiplier: int, members: int) -> int:
    """Return how often a broadcast is sent in a cluster of so many members."""
    return multiplier * math.ceil(math.log10(members + 1))


@define(eq=False)
class Broadcast:
    """A message that waits to be gossiped.

    Attributes:
        message: as it stands in a packet.
        subject: a newer broadcast with the same subject replaces it; None: nothing does.
        finished: called once when it has been sent as often as it will be, or was replaced.
        transmits: how often it was sent.
        number: later broadcasts have higher ones; no two have the same.
    """

    message: bytes
    subject: str | None = None
    finished: Callable[[], None] | None = None
    transmits: int = 0
    number: int = 0

    def finish(self) -> None:
        """Say that it will not be sent any more."""
        if self.finished is not None:
            finished, self.finished = self.finished, None
            finished()


_Entry = tuple[int, int, Broadcast]


def _entry(broadcast: Broadcast) -> _Entry:
    """Return what stands for a broadcast in a sorted list; numbers differ, so broadcasts are never compared."""
    return (-len(broadcast.message), -broadcast.number, broadcast)


@define
class BroadcastQueue:
    """The broadcasts of one layer of the protocol.

    Attributes:
        multiplier: see retransmit_limit.
        dropped: how many went because there were too many.
    """

    multiplier: int
    dropped: int = 0
    # By how often they were sent; each sorted with what is to be sent first in front: large, then new.
    _by_transmits: list[list[_Entry]] = field(factory=list)
    # The one broadcast of each subject that waits.
    _subjects: dict[str, Broadcast] = field(factory=dict)
    # How many there are in _by_transmits.
    _count: int = 0
    _next_number: int = 0

    def __len__(self) -> int:
        return self._count

    def add(self, message: bytes, subject: str | None = None, finished: Callable[[], None] | None = None) -> None:
        """Queue a message, in place of an older one about the same subject."""
        self._next_number += 1
        broadcast = Broadcast(message, subject, finished, 0, self._next_number)
        if subject is not None:
            replaced = self._subjects.get(subject)
            if replaced is not None:
                self._remove(replaced)
                replaced.finish()
            self._subjects[subject] = broadcast
        self._insert(broadcast)
        if self._count > MAX_BROADCASTS:
            max_sent = next(bucket for bucket in reversed(self._by_transmits) if bucket)
            self._remove(max_sent[-1][2], forget=True).finish()
            self.dropped += 1

    def for_packet(self, members: int, overhead: int, limit: int) -> list[bytes]:
        """Return messages to put into one packet, and count them as sent once more.

        Args:
            members: the size of the cluster.
            overhead: what each message takes in the packet besides its own bytes.
            limit: how many bytes there is room for.
        """
        taken: list[Broadcast] = []
        for bucket in self._by_transmits:
            place = 0
            while place < len(bucket) and limit > overhead:
                if overhead - bucket[place][0] > limit:
                    # The first that is small enough: no number is as low as this one's.
                    place = bisect_left(bucket, (overhead - limit, -self._next_number - 1))
                    continue
                negative_length, _, broadcast = bucket.pop(place)
                limit -= overhead - negative_length
                taken.append(broadcast)
        self._count -= len(taken)
        most = retransmit_limit(self.multiplier, members)
        for broadcast in taken:
            broadcast.transmits += 1
            if broadcast.transmits < most:
                self._insert(broadcast)
            else:
                self._forget_subject(broadcast)
        messages = [broadcast.message for broadcast in taken]
        for broadcast in taken:
            if broadcast.transmits >= most:
                broadcast.finish()
        return messages

    def _insert(self, broadcast: Broadcast) -> None:
        while len(self._by_transmits) <= broadcast.transmits:
            self._by_transmits.append([])
        insort(self._by_transmits[broadcast.transmits], _entry(broadcast))
        self._count += 1

    def _remove(self, broadcast: Broadcast, *, forget: bool = False) -> Broadcast:
        bucket = self._by_transmits[broadcast.transmits]
        del bucket[bisect_left(bucket, _entry(broadcast))]
        self._count -= 1
        if forget:
            self._forget_subject(broadcast)
        return broadcast

    def _forget_subject(self, broadcast: Broadcast) -> None:
        if broadcast.subject is not None and self._subjects.get(broadcast.subject) is broadcast:
            del self._subjects[broadcast.subject]
