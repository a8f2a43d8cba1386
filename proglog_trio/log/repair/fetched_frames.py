"""Frames that peers sent for a repair, checked each by itself and then as a chain."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from attrs import Factory, define, field, frozen

from proglog_trio.errors import FrameError, PayloadError
from proglog_trio.log.format.frame import FrameHeader, decode_frame
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.record import check_payload
from proglog_trio.log.repair.missing_ranges import Stretch

MAX_FETCHED_BYTES = 256 << 20
"""How many bytes of frames one repair holds in memory at most; what is still missing then is the next one's."""
MAX_ANSWER_BYTES = MAX_FETCHED_BYTES // 4
"""And how many one peer is let send of one range, or little more."""
FRAME_OVERHEAD_BYTES = 1024
"""What a frame takes beside its bytes: ten times those of the smallest, so it counts as well."""
MAX_VERSIONS = 8
"""How many different frames of the same sequence are kept: peers may disagree, and one of them be right."""
MAX_NAMED = 100


@frozen
class Fetched:
    """One frame that a peer sent."""

    header: FrameHeader
    data: bytes


@define
class FetchedFrames:
    """What peers sent, by origin and sequence.

    Attributes:
        max_bytes: how much is held, with what each frame takes beside its bytes.
        held_bytes: how much is.
        refused: in words, why frames were not taken by add_all; the latest.
    """

    max_bytes: int = MAX_FETCHED_BYTES
    held_bytes: int = 0
    refused: deque[str] = field(factory=lambda: deque(maxlen=MAX_NAMED))
    _by_base: dict[tuple[Origin, int], list[Fetched]] = Factory(dict)
    _by_next: dict[tuple[Origin, int], list[Fetched]] = Factory(dict)

    def add(self, data: bytes) -> bool:
        """Take a frame; tell whether it was new and there was room for it.

        Raises:
            FrameError: it is not one whole, sound frame of records.
        """
        frame = decode_frame(data)
        header = frame.header
        if frame.length != len(data):
            raise FrameError(f"{len(data) - frame.length} bytes stand behind a frame of {header.origin}")
        if header.is_control or header.count < 1:
            raise FrameError(f"a frame of {header.origin} holds no records")
        try:
            check_payload(frame.payload, header.count)
        except PayloadError as error:
            raise FrameError(
                f"the payload of {header.origin} sequence {header.base_sequence} is not what its header says: {error}"
            ) from None
        size = len(data) + FRAME_OVERHEAD_BYTES
        same = self._by_base.get((header.origin, header.base_sequence), [])
        if len(same) >= MAX_VERSIONS or self.held_bytes + size > self.max_bytes:
            return False
        if any(known.data == data for known in same):
            return False
        fetched = Fetched(header, bytes(data))
        self._by_base.setdefault((header.origin, header.base_sequence), []).append(fetched)
        self._by_next.setdefault((header.origin, header.next_sequence), []).append(fetched)
        self.held_bytes += size
        return True

    def add_all(self, frames: Iterable[bytes]) -> int:
        """Take frames and note in refused those that are not sound; return how many were taken."""
        taken = 0
        for data in frames:
            try:
                taken += self.add(data)
            except FrameError as error:
                self.refused.append(str(error))
        return taken

    def fitting(self, stretch: Stretch, refused: list[str]) -> dict[int, Fetched]:
        """Return the frames of a stretch that follow one from the other and from what stands around it.

        A frame that the next one, or the state after the run, names by its header CRC can be no other. So the chain is
        followed from the end first, and from the beginning only for what that did not reach.

        Args:
            stretch: what is missing.
            refused: to which is added, in words, what contradicts what the log has.
        """
        chosen: dict[int, Fetched] = {}
        cursor, crc = stretch.to_sequence, stretch.right_crc
        while crc is not None and cursor > stretch.from_sequence:
            candidates = self._by_next.get((stretch.origin, cursor), [])
            found = next((each for each in candidates if each.header.header_crc == crc), None)
            if found is None:
                break
            if found.header.base_sequence < stretch.from_sequence:
                refused.append(_crossing(found))
                return {}
            chosen[found.header.base_sequence] = found
            cursor, crc = found.header.base_sequence, found.header.previous_header_crc
        if cursor == stretch.from_sequence:
            if stretch.left_crc is not None and crc != stretch.left_crc:
                refused.append(
                    f"sequence {cursor} of {stretch.origin} does not follow the frame that the log has before it"
                )
                return {}
            return chosen
        chosen |= self._from_the_left(stretch, cursor, crc if chosen else None, refused)
        return chosen

    def _from_the_left(
        self, stretch: Stretch, until: int, until_crc: int | None, refused: list[str]
    ) -> dict[int, Fetched]:
        chosen: dict[int, Fetched] = {}
        cursor, crc = stretch.from_sequence, stretch.left_crc
        while cursor < until:
            candidates = self._by_base.get((stretch.origin, cursor), [])
            # Behind a gap marker that is lost as well, nothing tells the CRC of the header before.
            found = next((each for each in candidates if crc is None or each.header.previous_header_crc == crc), None)
            if found is None:
                if candidates:
                    refused.append(
                        f"sequence {cursor} of {stretch.origin} does not follow the frame that the log has before it"
                    )
                break
            if found.header.next_sequence > until:
                refused.append(_crossing(found))
                break
            chosen[cursor] = found
            cursor, crc = found.header.next_sequence, found.header.header_crc
        # What reaches the other side must be what that side follows.
        expected = until_crc if until < stretch.to_sequence else stretch.right_crc
        if cursor == until and expected is not None and crc != expected:
            refused.append(
                f"sequence {cursor} of {stretch.origin} in the log does not follow what a peer has before it"
            )
            return {}
        return chosen


def _crossing(found: Fetched) -> str:
    header = found.header
    return (
        f"sequences {header.base_sequence} to {header.next_sequence - 1} of {header.origin} are one frame at a peer, "
        "and the log has a part of them in another"
    )
