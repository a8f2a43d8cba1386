"""An open log: appending to it, reading what is durable of it, and following it. See the theory in __init__.py."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import MappingProxyType

import trio
from attrs import Factory, define, evolve

from proglog_trio.errors import BatchRefused, LogBusy, LogClosed, ProducerTableFull, ProglogError
from proglog_trio.internal_errors import InternalErrors
from proglog_trio.log.batch import Appended, Batch
from proglog_trio.log.commit_queue import CommitQueue
from proglog_trio.log.config import LogConfig
from proglog_trio.log.counters import LogCounters
from proglog_trio.log.disk import File
from proglog_trio.log.durable import DurableLog
from proglog_trio.log.format.clock import is_too_far_ahead
from proglog_trio.log.format.frame import Frame
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import DIRECTORY_ID_BYTES, Origin
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.log.frame_lookup import FoundFrames, find_frames
from proglog_trio.log.pending_work import Done, Settle, answering
from proglog_trio.log.reader import LogReader
from proglog_trio.log.recovery import RecoveryReport
from proglog_trio.log.retention_state import RetentionState
from proglog_trio.log.room import Room
from proglog_trio.log.state import Bounds, LogState, position_of
from proglog_trio.log.storage.catalog import SegmentCatalog
from proglog_trio.log.storage.damage_registry import DamageRegistry
from proglog_trio.log.storage.opening_number import next_opening
from proglog_trio.log.storage.running_time import RunningTime
from proglog_trio.log.writer import LogWriter
from proglog_trio.steps import Steps


@define
class Log:
    """An open log, as open_log gives it. Its methods belong to the host thread, but for those that say that they block.

    Attributes:
        config: how it is kept.
        report: what recovery found.
        writer: does the writing; it belongs to the committer's thread, but for what says that any may call it.
        catalog: the segments.
        running_time: counts the age of what is held.
        wall_clock: milliseconds since the Unix epoch.
        room: whether it takes records, and when it does again.
        durable: what of it is durable.
        counters: what happened to it.
        errors: where it counts what callbacks raise.
        opening: the number of this opening of the directory.
        retention: what retention by age did and could not do.
    """

    config: LogConfig
    report: RecoveryReport
    writer: LogWriter
    catalog: SegmentCatalog
    running_time: RunningTime
    wall_clock: Callable[[], int]
    room: Room
    durable: DurableLog
    counters: LogCounters
    errors: InternalErrors
    opening: int
    # What will be durable when everything is that was appended; the queue has the difference to what is.
    _state: LogState
    _queue: CommitQueue
    _rng: random.Random
    # Held, and so is the directory, as long as it is open.
    _lock_file: File
    retention: RetentionState = Factory(RetentionState)

    # -- appending -----------------------------------------------------------------------------------------------------

    async def append(self, batch: Batch) -> Appended:
        """Append a batch and return when it is durable, waiting for room before.

        When it is cancelled after the batch has got its place, the batch is stored all the same.

        Raises:
            BatchRefused, ProducerSequenceTooOld, ProducerTableFull: the batch cannot be stored.
            LogReadOnly: nothing can be stored at present; nothing of the batch is.
            OutcomeUnknown: it is not known whether the batch is stored; the log takes nothing more until it is opened
                again.
            LogClosed: the log is closing. If the batch had got its place, it may be stored.
        """
        answers: list[Appended | ProglogError] = []
        settled = trio.Event()

        def done(outcome: Appended | ProglogError) -> None:
            answers.append(outcome)
            settled.set()

        while True:
            try:
                self.append_soon(batch, done)
            except LogBusy:
                await _once_called(self.notify_room)
            else:
                break
        await settled.wait()
        (answer,) = answers
        if isinstance(answer, ProglogError):
            raise answer
        return answer

    def append_soon(self, batch: Batch, done: Done, *, checked: bool = False) -> None:
        """Give a batch its place now; done is called with it once it is durable, or with why it never will be.

        Args:
            batch: what is to be stored.
            done: is called.
            checked: check_steps has been through all of it.

        Raises:
            LogBusy: too much waits for its commit; see notify_room.
            ProglogError: as append does; a retry of what is stored is answered also when nothing can be stored.
        """
        # A retry is answered by a log that takes nothing, so for one this comes after looking for what it repeats.
        if self.closing or not batch.producer_id:
            self.room.check_open()
        self._queue.check_room()
        now = self._now()
        try:
            if not checked:
                batch.check(self.config.max_batch_bytes)
            stored = self._state.find_stored(batch)
            if stored is None:
                self.room.check_open()
        except ProglogError as error:
            self.counters.refused += 1
            if isinstance(error, ProducerTableFull):
                self.room.check_open()  # nothing of it would be stored even if there were room in the table
            raise
        if stored is not None:
            self._queue.answer_retry(evolve(stored.appended, duplicate=True), done)
            return
        self._queue.roll_if_full(now)
        before = self._state.clock.too_far_ahead
        frame, appended = self._state.append(batch, now, self._rng)
        self.counters.after_log_times_not_followed += self._state.clock.too_far_ahead - before
        self._queue.add_frame(frame, now, answering(appended, done), appended.count)

    def check_steps(self, batch: Batch) -> Steps[None]:
        """Check a batch in steps, for an append_soon that need not do it at once; raises BatchRefused, counted."""
        try:
            yield from batch.check_steps(self.config.max_batch_bytes)
        except BatchRefused:
            self.counters.refused += 1
            raise

    def append_foreign(self, frame: Frame, data: bytes, done: Settle) -> None:
        """Append the next frame of another origin, as it was pulled; done is called once it is durable or has failed.

        Raises:
            FrameError: it does not follow what the log has of its origin.
            LogBusy, LogReadOnly, LogClosed: as append_soon.
        """
        self.room.check_open()
        self._queue.check_room()
        now = self._now()
        self._queue.roll_if_full(now)
        before = self._state.clock.too_far_ahead
        pending = self._state.append_foreign(frame, data, now)
        self.counters.pulled_log_times_not_followed += self._state.clock.too_far_ahead - before
        self._queue.add_frame(pending, now, done)

    def append_gap(self, marker: GapMarker, done: Settle) -> None:
        """Append a marker of a gap, or of what is missing at present; as append_foreign, but never raises LogBusy."""
        self.room.check_open()
        now = self._now()
        self._queue.roll_if_full(now)
        self._queue.add_frame(self._state.append_gap(marker), now, done)

    def notify_room(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back once when appends need not wait any more, or would fail for another reason; return what ends it."""
        return self._queue.notify_room(callback)

    @property
    def pending_bytes(self) -> int:
        """How many bytes wait for their commit."""
        return self._queue.pending_bytes

    # -- segments and time ---------------------------------------------------------------------------------------------

    def roll(self) -> bool:
        """Go on in a new segment; False: the active one has used no offset yet, or the log takes nothing any more."""
        if not self.room.is_open:
            return False
        return self._queue.roll(self._now())

    @property
    def is_rolling(self) -> bool:
        """Whether another segment is going to follow the active one."""
        return self._queue.is_rolling

    def _now(self) -> int:
        """Return the wall clock's time for a change of the state, which is told the running time."""
        self._state.running = self.running_time.milliseconds()
        return self.wall_clock()

    @property
    def log_time_ahead(self) -> int:
        """By how many milliseconds log time is ahead of the wall clock; 0 if it is not."""
        return self._state.clock.ahead(self.wall_clock())

    def return_to_wall_clock(self) -> bool:
        """Let log time follow the wall clock again, if it is too far ahead: under a new origin, in a new segment.

        To be called when there is evidence that the wall clock is right now, and was wrong when it was ahead: what is
        appended from now on gets log times below those of what this node appended before.

        Returns:
            Whether log time was too far ahead, and the log takes records.
        """
        now = self._now()
        if not self.room.is_open or not is_too_far_ahead(self._state.clock.high_mark, now):
            return False
        self._state.return_to(now)
        # What has the old times is read back at opening no more, then; with it they would be greatest again. Where the
        # newest segment has used no offset, its header alone has them, and it goes with the first frame.
        self._queue.roll_soon(now)
        return True

    # -- what commits and the disk tell --------------------------------------------------------------------------------

    def committed(self, count: int, error: Exception | None) -> None:
        """Settle the oldest count pieces of work, which are durable, and fail those behind them if there is an error.

        Args:
            count: how many pieces.
            error: why; CommitFailed says what became of those that follow, else nothing is known of them. The work that
                was handed over before is not to be done any more.
        """
        if count or error is None:
            self._queue.settle(count)
            self._tell()
        if error is not None:
            self._queue.fail(error)
            self._tell()

    def looked_at_disk(self, free_bytes: int) -> None:
        """Go by how much is free on the disk; to be called about twice a second.

        The log takes no records while that is less than its reserve, and does again when there is room.
        """
        if self.closing or not self.room.looked(free_bytes):
            return
        if self.read_only_reason is not None:
            self.counters.read_only_times += 1
        elif self._queue.completion is not None:
            self._queue.add_completion(self._queue.completion)
        self._tell()

    def lose(self, reason: str) -> None:
        """Take no records any more: what the log is in is not its own."""
        self.room.ends(f"the log takes no more records: {reason}")
        self._tell()

    def start_closing(self) -> None:
        """Refuse what comes from now on."""
        self.room.closing = True
        self._tell()

    def fail_pending(self, reason: str) -> None:
        """Answer everything that is still waiting: the log is closed."""
        self._queue.abandon(LogClosed(reason))

    def _tell(self) -> None:
        self.durable.watchers.call_all()
        self._queue.call_room_waiters()

    # -- reading -------------------------------------------------------------------------------------------------------

    @property
    def lowest_offset(self) -> int:
        """The first offset that it durably holds; below it retention removed everything."""
        return self.durable.lowest_offset

    @property
    def next_offset(self) -> int:
        """The offset after the last that it durably holds."""
        return self.durable.next_offset

    @property
    def read_only_reason(self) -> str | None:
        """Why it takes no records at present; None: it takes some."""
        return self.room.reason

    @property
    def closing(self) -> bool:
        """Whether it is to take nothing any more."""
        return self.room.closing

    @property
    def directory_id(self) -> bytes:
        """The 8 bytes that name the data directory."""
        return self._state.directory_id

    @property
    def own_origin(self) -> Origin | None:
        """The origin under which this opening of the directory appends; None before its first append."""
        return self._state.own

    @property
    def position(self) -> Position:
        """The position after everything that is durable."""
        return position_of(self.durable.origins)

    @property
    def origins(self) -> MappingProxyType[Origin, OriginState]:
        """What is durable, per origin."""
        return MappingProxyType(self.durable.origins)

    @property
    def planned_origins(self) -> MappingProxyType[Origin, OriginState]:
        """What will be durable when everything is that was appended, per origin."""
        return MappingProxyType(self._state.origins)

    @property
    def damage(self) -> DamageRegistry:
        """What the log holds and cannot read, as far as it is known."""
        return self.catalog.damage

    def notify_durable(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after each change of next_offset, lowest_offset or read_only_reason; return what ends it."""
        return self.durable.watchers.add(callback)

    async def wait_beyond(self, offset: int) -> int:
        """Wait until more than an offset is durable, and return next_offset: how far a reader may read then.

        Raises:
            LogClosed: the log is closing. What waits for its commit then may become durable all the same.
        """
        while self.next_offset <= offset:
            if self.closing:
                raise LogClosed("the log is closing")
            await _once_called(self.notify_durable)
        return self.next_offset

    def bounds(self) -> Bounds:
        """Return what is durable at this moment; from any thread."""
        return self.durable.bounds()

    def reader_at_offset(self, offset: int, *, skip_missing: bool = False) -> LogReader:
        """Return a reader from an offset on; see LogReader.at_offset. Blocks; in any thread."""
        return self.durable.reader_at_offset(offset, skip_missing=skip_missing)

    def reader_at_position(self, position: Position, *, skip_missing: bool = False) -> LogReader:
        """Return a reader of what does not lie before a position; see LogReader.at_position. Blocks; in any thread."""
        return self.durable.reader_at_position(position, skip_missing=skip_missing)

    def frames(self, origin: Origin, from_sequence: int, to_sequence: int, max_bytes: int) -> FoundFrames:
        """Return the sound, durable frames that hold some sequences of an origin; see find_frames. Blocks."""
        return find_frames(self.catalog, origin, from_sequence, to_sequence, max_bytes)

    # -- identity and end ----------------------------------------------------------------------------------------------

    def raise_opening(self, above: int) -> int:
        """Set this opening's number above one that was heard of, durably, and return it. Blocks; raises OSError."""
        self.opening = next_opening(self.catalog.disk, self.config.directory, self._rng, above)
        return self.opening

    def change_directory_id(self, rng: random.Random) -> None:
        """Go on under another directory id, from a new segment on; it is kept once the work for that is committed."""
        self._state.directory_id = rng.randbytes(DIRECTORY_ID_BYTES)
        self._state.own = None
        self._queue.roll_at_once(self.wall_clock())

    def close(self, *, cleanly: bool = True) -> None:
        """Close the files and give up the lock; nothing may be under way. Blocks. Raises OSError."""
        try:
            is_sound = self.read_only_reason is None or self.room.is_passing
            self.writer.close(cleanly=cleanly and is_sound and self._queue.completion is None)
        finally:
            self._lock_file.close()


async def _once_called(notify: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
    """Wait until a callback is called that notify is given; what notify returns ends that."""
    called = trio.Event()
    stop = notify(called.set)
    try:
        await called.wait()
    finally:
        stop()
