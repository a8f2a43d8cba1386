"""Messages that were read lately, and what they say.

A broadcast reaches each member several times, from several others and byte for byte the same: of what a member receives
while many join, nineteen of twenty messages. To read one is most of the work with it, so each is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from attrs import define, field

Decoded = TypeVar("Decoded")

MAX_DECODINGS = 1024
"""Messages that are kept. Of more that go round at a time, some are read again."""
MAX_KEPT_BYTES = 1500
"""Of one message. Broadcasts fit into a packet."""


@define(eq=False)
class RecentDecodings(Generic[Decoded]):
    """Reads messages, and those of some types that it has read lately not again.

    What is read must depend on the bytes alone, and must not be changed by those who get it.

    Attributes:
        decode: reads a message; what it raises is raised each time.
        types: the first bytes of messages that come several times; others are not kept.
    """

    decode: Callable[[bytes], Decoded]
    types: Collection[int]
    # The oldest first.
    _recent: dict[bytes, Decoded] = field(factory=dict)

    def __call__(self, data: bytes) -> Decoded:
        """Return what a message says; raises what decode does."""
        known = self._recent.get(data)
        if known is not None:
            return known
        decoded = self.decode(data)
        if data and data[0] in self.types and len(data) <= MAX_KEPT_BYTES:
            if len(self._recent) >= MAX_DECODINGS:
                del self._recent[next(iter(self._recent))]
            self._recent[data] = decoded
        return decoded
