"""Driving a Log without Trio: opening it on a simulated disk, committing its work step by step, reading all of it.

And, at the end, what tests of open_log share.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import Factory, define

from proglog_trio.errors import DataLoss, ProglogError, RecordsGivenUp
from proglog_trio.internal_errors import InternalErrors
from proglog_trio.log.batch import Appended, Batch
from proglog_trio.log.config import LogConfig
from proglog_trio.log.disk import Disk
from proglog_trio.log.format.frame import Frame, decode_frame
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.record import Record, pack_values, payload_crc
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.log import Log
from proglog_trio.log.opening import open_log_files
from proglog_trio.log.state import LogState
from proglog_trio.log.writer import CommitFailed, Work

DIRECTORY = Path("/data")
NOON = 1_700_000_000_000


def batch_of(*values: bytes, producer_id: int = 0, producer_sequence: int = 0, after_log_time: int = 0) -> Batch:
    payload = pack_values(values)
    return Batch(
        payload,
        len(values),
        payload_crc(payload),
        producer_id=producer_id,
        producer_sequence=producer_sequence,
        after_log_time=after_log_time,
    )


def record_batch(value: bytes) -> Batch:
    return Batch.of([Record(value)])


@define
class OpenLog:
    """A log and its work that is not done yet.

    Attributes:
        unnoted: how much work is done that the log has not heard of yet, and what went wrong.
        has_ended: nothing is committed any more.
    """

    log: Log
    work: list[Work]
    unnoted: list[tuple[int, CommitFailed | None]] = Factory(list)
    has_ended: bool = False

    @classmethod
    def open(
        cls,
        disk: Disk,
        seed: int = 0,
        wall_clock: Callable[[], int] = lambda: NOON,
        config: LogConfig | None = None,
        monotonic_clock: Callable[[], float] = lambda: 0.0,
        errors: InternalErrors | None = None,
        on_work: Callable[[], None] = lambda: None,
    ) -> OpenLog:
        work: list[Work] = []

        def hand_over(more: Sequence[Work]) -> None:
            work.extend(more)
            on_work()

        log = open_log_files(
            config if config is not None else LogConfig(DIRECTORY),
            hand_over,
            disk=disk,
            rng=random.Random(seed),
            wall_clock=wall_clock,
            monotonic_clock=monotonic_clock,
            errors=errors,
        )
        return cls(log, work)

    def commit(self, count: int | None = None) -> CommitFailed | None:
        """Do the oldest pieces of work, as the committer does; return what went wrong."""
        self.note()
        error = self.write(count)
        self.note()
        return error

    def write(self, count: int | None = None) -> CommitFailed | None:
        """Do the oldest pieces of work, as the committer's thread does, without telling the log."""
        if self.has_ended or any(error is not None for _, error in self.unnoted):
            return None  # the thread does nothing more until the log has heard that it failed
        count = len(self.work) if count is None else min(count, len(self.work))
        work, self.work[:count] = self.work[:count], []
        if not work:
            return None
        durable, error = len(work), None
        try:
            self.log.writer.commit(work)
        except CommitFailed as caught:
            durable, error = caught.durable, caught
        self.unnoted.append((durable, error))
        return error

    def note(self) -> None:
        """Tell the log of the work that is done."""
        unnoted, self.unnoted[:] = list(self.unnoted), []
        for count, error in unnoted:
            if error is not None:
                self.work.clear()
                self.has_ended = not error.may_go_on
            self.log.committed(count, error)
            if error is not None:
                self.work.clear()  # what came while the log had not heard of it is not written either

    def look_at_disk(self) -> None:
        """Tell the log how much is free, as maintenance.py does twice a second."""
        self.log.writer.check_place()
        self.log.looked_at_disk(self.log.writer.free_bytes())

    def append(self, batch: Batch) -> Appended:
        """Append and commit."""
        answers: list[Appended | ProglogError] = []
        self.log.append_soon(batch, answers.append)
        self.commit()
        (answer,) = answers
        if isinstance(answer, ProglogError):
            raise answer
        return answer

    def append_values(self, *values: bytes) -> Appended:
        return self.append(batch_of(*values))

    def close(self, *, cleanly: bool = True) -> None:
        self.commit()
        self.log.start_closing()
        self.log.fail_pending("closed")
        self.log.close(cleanly=cleanly)


@define
class ForeignLog:
    """What another directory writes, frame by frame."""

    state: LogState
    rng: random.Random
    frames: list[Frame] = Factory(list)

    @classmethod
    def make(cls, seed: int) -> ForeignLog:
        rng = random.Random(seed)
        return cls(LogState(rng.randbytes(8), "proglog"), rng)

    def write(self, batch: Batch, wall: int = NOON) -> Frame:
        pending_frame, _ = self.state.append(batch, wall, self.rng)
        frame = decode_frame(b"".join(pending_frame.buffers))
        self.frames.append(frame)
        return frame


@define
class Everything:
    """What reading a log from its lowest offset gives, damage included."""

    frames: list[StoredFrame]
    losses: list[DataLoss | RecordsGivenUp]

    @property
    def lost(self) -> set[int]:
        return {offset for loss in self.losses for offset in range(loss.from_offset, loss.to_offset)}


def read_everything(log: Log, offset: int | None = None, max_bytes: int = 1 << 20) -> Everything:
    """Read from an offset (the lowest) to the end, going on after damage, and check that reading keeps its contract."""
    found = Everything([], [])
    reader = log.reader_at_offset(log.lowest_offset if offset is None else offset)
    while reader.next_offset < log.next_offset:
        before, known = reader.next_offset, len(found.losses)
        frames: list[StoredFrame] = []
        try:
            chunk = reader.read(max_bytes, log.next_offset)
            frames = chunk.frames
            assert not chunk.skipped
            assert chunk.next_offset == reader.next_offset
        except (DataLoss, RecordsGivenUp) as caught:
            found.losses.append(caught)
        for loss in found.losses[known:]:
            assert before <= loss.from_offset < loss.to_offset <= log.next_offset
            assert reader.next_offset == loss.to_offset
        assert reader.next_offset > before or frames, "a read gives something unless it is at the end"
        found.frames += frames
    reader.close()
    return found


def read_all(log: Log, offset: int | None = None) -> list[StoredFrame]:
    """Return all frames from an offset on (the lowest); damage is an error."""
    found = read_everything(log, offset)
    if found.losses:
        raise found.losses[0]
    return found.frames


def position_after(frames: Sequence[StoredFrame]) -> Position:
    """Return the position of one who has these frames."""
    position = Position.empty()
    for frame in frames:
        header = frame.header
        position = position.advanced(header.origin, header.base_sequence, header.next_sequence)
    return position


def config_of(path: Path) -> LogConfig:
    return LogConfig(path / "data", scrub_bytes_per_second=None)


def read(log: Log, offset: int = 0) -> list[StoredFrame]:
    reader = log.reader_at_offset(offset)
    frames: list[StoredFrame] = []
    while reader.next_offset < log.next_offset:
        frames += reader.read(1 << 20, log.next_offset).frames
    reader.close()
    return frames
