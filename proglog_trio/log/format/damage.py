"""What is known of one damaged place of a log."""

from __future__ import annotations

from attrs import frozen

from proglog_trio.log.format.envelope import EnvelopeKind
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.stored_frame import DamagedPlace


@frozen
class Damage:
    """One damaged place of a log.

    Attributes:
        files: the segment.
        place: where in its file, and which offsets: [place.expected_offset, place.next_offset). No offsets at all
            where a header, an index or an envelope without records is damaged.
        found_by: "opening", "read" or "scrub".
        unrepairable: why the last attempt to repair it left it as it is; None: there was none yet.
    """

    files: SegmentFiles
    place: DamagedPlace
    found_by: str
    unrepairable: str | None = None

    @property
    def sequences(self) -> tuple[Origin, int, int] | None:
        """The origin and its sequences [from, to) that stood there, where the envelope still tells."""
        envelope = self.place.envelope
        if envelope is None or envelope.kind is not EnvelopeKind.RECORDS:
            return None
        return envelope.origin, envelope.base_sequence, envelope.base_sequence + envelope.count

    def __str__(self) -> str:
        return f"{self.files.store.name}: {self.place}"
