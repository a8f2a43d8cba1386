"""Verifying a data directory: every byte read, every CRC and every chain checked, nothing changed.

It may be used while a node writes to the directory: the newest segment is then read up to its durable mark only.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from attrs import Factory, define, evolve, field, frozen

from proglog_trio.errors import FrameError, SegmentError
from proglog_trio.log.chunk import CUT_OFF
from proglog_trio.log.disk import Disk, File, OperatingSystemDisk
from proglog_trio.log.format.envelope import MARKERS, EnvelopeKind
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import MissingRange, OriginState, SegmentHeader
from proglog_trio.log.format.stored_frame import DamagedPlace, StoredFrame
from proglog_trio.log.inspect.segments import open_each, segments_of, size_of_all
from proglog_trio.log.recovery import LOCK_FILE
from proglog_trio.log.storage.damaged_files import DAMAGED_DIRECTORY
from proglog_trio.log.storage.index import is_dense, read_entries, read_mark
from proglog_trio.log.storage.scanner import scan_from
from proglog_trio.log.storage.segment import read_segment_header
from proglog_trio.log.storage.segment_check import scan


class Severity(enum.Enum):
    """How bad a finding is."""

    DAMAGE = "damage"
    """Records that were acknowledged cannot be read, or what is read contradicts itself."""
    WARNING = "warning"
    """Nothing acknowledged is lost, as far as can be told; a node that opens the directory puts it right."""


@frozen
class Finding:
    """Something that is not as it should be.

    Attributes:
        severity: how bad it is.
        file: in which file.
        position: at which byte of it, if at one.
        offset: the local offset concerned, if one is.
        detail: what is wrong, in words.
    """

    severity: Severity
    file: Path
    position: int | None
    offset: int | None
    detail: str

    def __str__(self) -> str:
        place = "" if self.position is None else f" at byte {self.position}"
        offset = "" if self.offset is None else f", offset {self.offset}"
        return f"{self.severity.value}: {self.file.name}{place}{offset}: {self.detail}"


@define
class Summary:
    """What was verified.

    Attributes:
        segments, frames, records, gaps: how many.
        missing: how many records are missing at present, and may be put in their offsets later.
        bytes_read: of the store files.
        damage, warnings: how many findings.
        lowest_offset, next_offset: the log holds [lowest_offset, next_offset).
        origins: per origin what the log has.
    """

    cluster_name: str = ""
    segments: int = 0
    frames: int = 0
    records: int = 0
    gaps: int = 0
    missing: int = 0
    bytes_read: int = 0
    damage: int = 0
    warnings: int = 0
    lowest_offset: int = 0
    next_offset: int = 0
    origins: dict[Origin, OriginState] = Factory(dict)


Progress = Callable[[int, int], None]


@define
class Verifier:
    """Verifies one data directory.

    Attributes:
        directory: the data directory.
        progress: called now and then with the bytes that are read and the bytes there are.
        summary: complete once run has ended.
    """

    directory: Path
    disk: Disk = field(factory=OperatingSystemDisk)
    progress: Progress | None = None
    summary: Summary = field(factory=Summary)
    _total_bytes: int = 0
    _known: dict[Origin, OriginState] = Factory(dict)
    _broken: set[Origin] = Factory(set)

    def run(self) -> Iterator[Finding]:
        """Yield what is wrong, in the order of the log.

        Raises:
            DataDirectoryError: there is no log, it is of a newer format, or it cannot be read.
        """
        for finding in self._run():
            if finding.severity is Severity.DAMAGE:
                self.summary.damage += 1
            else:
                self.summary.warnings += 1
            yield finding

    def _run(self) -> Iterator[Finding]:
        segments = segments_of(self.disk, self.directory)
        self.summary.lowest_offset = self.summary.next_offset = segments[0].base_offset
        self._total_bytes = size_of_all(self.disk, segments)
        live = is_live(self.disk, self.directory)
        yield from self._moved_aside()
        for files, store, following in open_each(self.disk, segments):
            yield from self._verify_segment(files, store, following, live=live)
        self.summary.origins = dict(self._known)

    def _moved_aside(self) -> Iterator[Finding]:
        damaged = self.directory / DAMAGED_DIRECTORY
        try:
            names = self.disk.list_directory(damaged)
        except FileNotFoundError:
            return
        for name in sorted(names):
            detail = "an earlier opening moved this aside; it was possibly acknowledged"
            yield Finding(Severity.WARNING, damaged / name, None, None, detail)

    def _verify_segment(
        self, files: SegmentFiles, store: File, following: int | None, *, live: bool
    ) -> Iterator[Finding]:
        """Verify a segment; following is the offset at which the next one begins, None for the newest."""
        summary = self.summary
        newest = following is None
        summary.segments += 1
        try:
            header, header_bytes, fault = read_segment_header(self.disk, files, store)
        except SegmentError as error:
            yield Finding(Severity.DAMAGE, files.store, 0, files.base_offset, f"the whole segment: {error}")
            self._broken.update(self._known)
            return
        summary.cluster_name = header.cluster_name
        if fault is not None:
            yield Finding(Severity.WARNING, files.store, 0, None, f"{fault}; the copy in the index file is right")
        if files.base_offset != summary.next_offset:
            detail = (
                f"the segment begins at offset {files.base_offset}, the one before it ends at {summary.next_offset}"
            )
            yield Finding(Severity.DAMAGE, files.store, None, summary.next_offset, detail)
        yield from self._compare_snapshot(files, header, first=summary.segments == 1)
        durable = durable_position(self.disk, files, header)
        scanner = scan_from(store, header, len(header_bytes))
        if newest and live and durable is not None:
            scanner.end = durable
        places: dict[int, StoredFrame] = {}
        for found in scan(scanner, following):
            if isinstance(found, DamagedPlace):
                torn = newest and (durable is None or found.position >= durable) and found.next_offset is None
                severity = Severity.WARNING if torn else Severity.DAMAGE
                detail = f"a tail that was possibly acknowledged: {found}" if torn else str(found)
                yield Finding(severity, files.store, found.position, found.expected_offset, detail)
                summary.next_offset = found.next_offset or summary.next_offset
                self._break(found)
            else:
                yield from self._check_frame(files, found)
                places[found.position] = found.without_data()
            self._report_progress(summary.bytes_read + scanner.position)
        summary.bytes_read += scanner.position
        if newest and durable is not None and scanner.position < durable:
            detail = f"the file has {scanner.position} bytes, {durable} had been acknowledged"
            yield Finding(Severity.DAMAGE, files.store, scanner.position, summary.next_offset, detail)
        yield from self._verify_index(files, header_bytes, header, places, live=newest and live, is_closed=not newest)

    def _report_progress(self, done: int) -> None:
        if self.progress is not None:
            self.progress(done, self._total_bytes)

    def _break(self, found: DamagedPlace) -> None:
        """What follows damage need not follow what came before it."""
        if found.envelope is None or found.envelope.origin not in self._known:
            self._broken.update(self._known)
        else:
            self._broken.add(found.envelope.origin)

    def _compare_snapshot(self, files: SegmentFiles, header: SegmentHeader, *, first: bool) -> Iterator[Finding]:
        """Compare what the header says was there before with what was read; the first one is believed."""
        for origin, told in header.origins.items():
            known = self._known.get(origin)
            differs = known is not None and (known.next, known.last_header_crc) != (told.next, told.last_header_crc)
            if not first and (differs or known is None) and origin not in self._broken and not self._broken:
                have = "nothing" if known is None else f"next {known.next}"
                detail = f"the header says next {told.next} for origin {origin}, the segments before it have {have}"
                yield Finding(Severity.DAMAGE, files.store, 0, None, detail)
            self._known[origin] = told
        self._broken.clear()

    def _check_frame(self, files: SegmentFiles, found: StoredFrame) -> Iterator[Finding]:
        envelope = found.envelope
        if envelope.cut_off_below > self.summary.next_offset:
            detail = f"offsets up to {envelope.cut_off_below - 1}: {CUT_OFF}"
            yield Finding(Severity.DAMAGE, files.store, found.position, self.summary.next_offset, detail)
        self.summary.next_offset = envelope.next_offset
        if envelope.kind is not EnvelopeKind.RECORDS and envelope.kind not in MARKERS:
            return
        known = self._known.get(envelope.origin, OriginState())
        frame = found.frame
        header = frame.header
        if envelope.base_sequence != known.next and envelope.origin not in self._broken:
            detail = f"origin {envelope.origin} goes on at sequence {envelope.base_sequence}, not at {known.next}"
            yield Finding(Severity.DAMAGE, files.store, found.position, envelope.base_offset, detail)
        if envelope.kind in MARKERS:
            try:
                marker = GapMarker.of_frame(frame)
            except FrameError as error:
                yield Finding(Severity.DAMAGE, files.store, found.position, None, str(error))
            else:
                first, following = marker.from_sequence, marker.to_sequence
                after = evolve(known, next=following, last_header_crc=marker.previous_header_crc)
                if marker.at_present:
                    self.summary.missing += following - first
                    missing = MissingRange(first, following, envelope.base_offset)
                    self._known[envelope.origin] = evolve(after, missing=(*known.missing, missing))
                else:
                    self.summary.gaps += 1
                    self._known[envelope.origin] = evolve(after, gaps=(*known.gaps, (first, following)))
            return
        self.summary.frames += 1
        self.summary.records += envelope.count
        if envelope.origin not in self._broken:
            if header.previous_header_crc != known.last_header_crc:
                detail = f"sequence {envelope.base_sequence} of {envelope.origin} does not follow the frame before it"
                yield Finding(Severity.DAMAGE, files.store, found.position, envelope.base_offset, detail)
            if header.log_time <= known.last_log_time:
                detail = f"the log time of origin {envelope.origin} goes back at sequence {envelope.base_sequence}"
                yield Finding(Severity.DAMAGE, files.store, found.position, envelope.base_offset, detail)
        self._broken.discard(envelope.origin)
        self._known[envelope.origin] = evolve(
            known, next=header.next_sequence, last_header_crc=header.header_crc, last_log_time=header.log_time
        )

    def _verify_index(
        self,
        files: SegmentFiles,
        header_bytes: bytes,
        header: SegmentHeader,
        places: dict[int, StoredFrame],
        *,
        live: bool,
        is_closed: bool,
    ) -> Iterator[Finding]:
        try:
            file = self.disk.open(files.index)
        except FileNotFoundError:
            detail = "the index is missing; a node makes it anew from the segment"
            yield Finding(Severity.WARNING, files.index, None, None, detail)
            return
        except OSError as error:
            yield Finding(Severity.WARNING, files.index, None, None, f"the index cannot be read: {error.strerror}")
            return
        lacking = set(places)
        try:
            for entry in read_entries(file, header_bytes, header.salt):
                lacking.discard(entry.position)
                found = places.get(entry.position)
                if found is None:
                    if not live:
                        detail = f"an index entry points to byte {entry.position}, where no readable frame begins"
                        yield Finding(Severity.WARNING, files.index, None, entry.offset, detail)
                elif (found.base_offset, found.envelope.origin, found.envelope.base_sequence) != (
                    entry.offset,
                    entry.origin,
                    entry.base_sequence,
                ):
                    detail = f"the index entry for byte {entry.position} does not match the frame there"
                    yield Finding(Severity.WARNING, files.index, None, entry.offset, detail)
            if is_closed and lacking and is_dense(file):
                first = places[min(lacking)]
                detail = f"the index has nothing of {len(lacking)} frames, which a repair would miss"
                yield Finding(Severity.WARNING, files.index, first.position, first.base_offset, detail)
        except SegmentError as error:
            if not live:
                yield Finding(Severity.WARNING, files.index, None, None, str(error))
        finally:
            file.close()


def is_live(disk: Disk, directory: Path) -> bool:
    """Tell whether a node uses a data directory."""
    try:
        disk.lock(directory / LOCK_FILE).close()
    except BlockingIOError:
        return True
    except OSError:
        return False  # A read-only copy cannot be locked, and no node writes to it.
    return False


def durable_position(disk: Disk, files: SegmentFiles, header: SegmentHeader) -> int | None:
    """Return up to where a segment's file was durable by its index file's mark; None: that cannot be read."""
    try:
        file = disk.open(files.index)
    except OSError:
        return None
    with closing(file):
        mark = read_mark(file, header.salt)
    return None if mark is None else mark.position
