"""What one read of a log gives: frames, and what was left out between them."""

from __future__ import annotations

from attrs import field, frozen

from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.sequence_gaps import SequenceGap

# Why offsets are left out, as readers and clients are told.
MISSING_AT_PRESENT = "no node that was reachable had them; they are put here when one turns up that has"
RETIRED = "retention removed them"
GIVEN_UP = "no node has them any more"
CUT_OFF = "they had been acknowledged, and the file ended before them when the log was opened again"


@frozen
class Skipped:
    """The offsets [from_offset, to_offset), which a reader left out because they cannot be read.

    Attributes:
        reason: in words.
        at_present: they are missing: they may be put there later.
        sequences: the origin and the sequences [from, to) of what has no offsets here; None: it has.
    """

    from_offset: int
    to_offset: int
    reason: str
    at_present: bool = False
    sequences: tuple[Origin, int, int] | None = None

    @classmethod
    def gap(cls, gap: SequenceGap, offset: int) -> Skipped:
        """Return a marked gap as what was left out at an offset, of which it uses none."""
        return cls(offset, offset, GIVEN_UP, sequences=(gap.origin, gap.from_sequence, gap.to_sequence))


@frozen
class Chunk:
    """What one read gave.

    Attributes:
        frames: in the order of their offsets; the first may begin before the place that was asked for.
        next_offset: where the next read goes on.
        skipped: what was left out before or between the frames.
        sequence_gaps: the same by origin and sequence, and marked gaps as well, as far as they have shown; for a reader
            from a position alone.
    """

    frames: list[StoredFrame]
    next_offset: int
    skipped: list[Skipped]
    sequence_gaps: list[SequenceGap] = field(factory=list)
