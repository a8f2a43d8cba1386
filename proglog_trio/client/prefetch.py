"""How a consumer's prefetch_bytes are divided between what waits and what its node may send unasked.

What is held for one consumer is what waits to be delivered, what was received of its stream and not read yet, and what
the stream's flow-control window lets the node send besides. Received bytes are given back to the window when they are
read, so the last two are one window at the most, plus the rest of an answer that is being waited for. And an answer is
read only while less waits than what the window leaves of prefetch_bytes. So all of it is below

    prefetch_bytes + one answer

An answer has at most response_bytes of frames, or one frame that is larger: what one producer packed, which cannot be
had in parts.
"""

from __future__ import annotations

from attrs import frozen

from proglog_trio.units import KIBIBYTE, MEBIBYTE

MIN_PREFETCH_BYTES = 16 * KIBIBYTE
"""Half of it is the window: with a smaller one nearly every frame would be a wait for the client's answer."""
MAX_WINDOW_BYTES = 4 * MEBIBYTE
"""What a fast node sends meanwhile on a line of 100 ms; more only waits on this side of it."""
WAITING_FRAME_BYTES = 1024
"""What a frame that waits costs besides its payload: the Python objects that say where it belongs (1,000 measured)."""
WAITING_ORIGIN_BYTES = 48
"""And for each origin in the position before it (41 measured)."""


@frozen
class PrefetchShares:
    """What the parts may be, in bytes.

    Attributes:
        window: of the stream, for flow control.
        waiting: another answer is read while less than this waits.
        response: what the node is asked to put into one answer.
    """

    window: int
    waiting: int
    response: int

    @classmethod
    def of(cls, prefetch_bytes: int, response_bytes: int) -> PrefetchShares:
        """Divide what a consumer's configuration says of both."""
        window = min(MAX_WINDOW_BYTES, prefetch_bytes // 2)
        return cls(window, prefetch_bytes - window, min(response_bytes, window))


def waiting_bytes(payload_bytes: int, origins: int) -> int:
    """Return what a frame counts for while it waits behind a position of so many origins."""
    return payload_bytes + WAITING_FRAME_BYTES + WAITING_ORIGIN_BYTES * origins
