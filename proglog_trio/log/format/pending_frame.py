"""A frame on its way into a log."""

from __future__ import annotations

from attrs import frozen

from proglog_trio.log.format.envelope import ENVELOPE_BYTES, NO_ORIGIN, EnvelopeKind
from proglog_trio.log.format.origin import Origin


@frozen
class PendingFrame:
    """A frame that is to be written: what its envelope needs besides the place.

    Attributes:
        buffers: the portable frame, in one or more pieces; a marker's in one.
        log_time: the frame's.
    """

    kind: EnvelopeKind
    base_offset: int
    origin: Origin
    base_sequence: int
    count: int
    buffers: tuple[bytes, ...]
    log_time: int

    @property
    def length(self) -> int:
        """The portable frame's length in bytes."""
        return sum(map(len, self.buffers))

    @property
    def stored_bytes(self) -> int:
        """What it takes in the store file, its envelope included."""
        return ENVELOPE_BYTES + self.length


def bare_envelope(kind: EnvelopeKind, base_offset: int) -> PendingFrame:
    """Return an envelope with no frame behind it."""
    return PendingFrame(kind, base_offset, NO_ORIGIN, 0, 0, (), 0)
