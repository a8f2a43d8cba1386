"""The log: what is appended, what is durable, what can be read.

A log has two sides. Its own methods run in one thread, the host thread (Trio's), and never block on the disk: an append
gets its place at once, and is answered when its commit is over. `LogWriter` runs commits, one at a time, in another
thread; what it needs is in the work that it is given. service.py puts the two together under Trio.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import trio
from attrs import Factory, define, evolve, field, frozen

from proglog_trio.errors import (
    BatchRefused,
    LogBusy,
    LogClosed,
    LogReadOnly,
    OutcomeUnknown,
    ProducerTableFull,
    ProglogError,
)
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.log.batch import Appended, Batch
from proglog_trio.log.completion import OpeningCompletion
from proglog_trio.log.config import LogConfig
from proglog_trio.log.disk import File, ReserveReached
from proglog_trio.log.format.clock import clamped, is_too_far_ahead
from proglog_trio.log.format.envelope import SALT_BYTES, EnvelopeKind, Salt
from proglog_trio.log.format.frame import Frame
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import DIRECTORY_ID_BYTES, Origin
from proglog_trio.log.format.pending_frame import PendingFrame, bare_envelope
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import MissingRange, OriginState, SegmentHeader
from proglog_trio.log.frame_lookup import FoundFrames, find_frames
from proglog_trio.log.producer_table import Remembered, StoredBatch
from proglog_trio.log.reader import Bounds, LogReader
from proglog_trio.log.recovery import RecoveryReport
from proglog_trio.log.retention_state import RetentionState
from proglog_trio.log.room import Room, reserve_reached
from proglog_trio.log.start_position import position_of
from proglog_trio.log.state import LogState
from proglog_trio.log.storage.catalog import SegmentCatalog
from proglog_trio.log.storage.damage_registry import DamageRegistry
from proglog_trio.log.storage.opening_number import next_opening
from proglog_trio.log.storage.retired_origins import RetiredOrigins
from proglog_trio.log.storage.running_time import RunningTime
from proglog_trio.log.tail_cache import RecentFrames
from proglog_trio.log.writer import CommitFailed, Complete, LogWriter, Roll, Work
from proglog_trio.steps import Steps

MAX_WAITING_RETRIES = 4096
"""So many retries of what is being committed may wait for that; they use no other bound of the log."""

_NO_GAPS: Mapping[Origin, Sequence[tuple[int, int]]] = MappingProxyType({})

Done = Callable[[Appended | ProglogError], None]


@frozen
class _Pending:
    """An append whose commit is not over."""

    work: Work
    next_offset: int
    changed: tuple[Origin, OriginState] | None
    answer: Appended | None
    done: Done | None
    size: int
    remembered: Remembered | None = None


@define
class LogCounters:
    """What happened since the log was opened.

    Attributes:
        batches_appended, bytes_appended: stored, pulled ones included.
        records_appended: stored for producers.
        duplicates: retries that were stored already.
        refused: batches that could not be stored.
        commits_failed: times that writing what waited failed.
        read_only_times: times that the log took no more records.
        commits: times that what waited was written and synced.
        segments_removed: by retention.
        after_log_times_not_followed: that producers asked for, too far ahead of the wall clock.
        pulled_log_times_not_followed: of pulled frames, too far ahead of the wall clock.
        wall_clock_jumps: how often the wall clock was set, forwards or back, by more than it drifts.
        bytes_scrubbed: read in the background, to find damage.
        damaged_places: found while reading.
    """

    batches_appended: int = 0
    records_appended: int = 0
    bytes_appended: int = 0
    duplicates: int = 0
    refused: int = 0
    commits: int = 0
    commits_failed: int = 0
    read_only_times: int = 0
    segments_removed: int = 0
    after_log_times_not_followed: int = 0
    pulled_log_times_not_followed: int = 0
    wall_clock_jumps: int = 0
    bytes_scrubbed: int = 0
    damaged_places: int = 0


def wall_clock_milliseconds() -> int:
    """Return the wall clock's time, in milliseconds since the Unix epoch, as far as a log time can hold it."""
    try:
        return clamped(time.time_ns() // 1_000_000)
    except OverflowError:  # after the year 2262
        return clamped(int(time.time() * 1000))


@define
class Log:
    """A log that is open. Its methods belong to the host thread, but for those that say that they block.

    Attributes:
        config: how it is kept.
        report: what recovery found.
        writer: does the writing.
        on_work: called with the new work whenever there is some; whoever takes it calls committed when it is done.
        wall_clock: milliseconds since the Unix epoch.
        running_time: counts the age of what is held.
        retention: what retention by age did and could not do.
        lowest_offset, next_offset: the log durably holds [lowest_offset, next_offset).
        recent: the newest of what is durable.
        opening: the number of this opening of the directory.
        room: whether it takes records, and when it does again.
        errors: where it counts what those raise who are told of commits.
    """

    config: LogConfig
    report: RecoveryReport
    writer: LogWriter
    catalog: SegmentCatalog
    _state: LogState
    _lock_file: File
    _rng: random.Random
    wall_clock: Callable[[], int]
    running_time: RunningTime
    lowest_offset: int
    next_offset: int
    _durable_origins: dict[Origin, OriginState]
    on_work: Callable[[Sequence[Work]], None]
    opening: int
    _planned_bytes: int
    _planned_frames: int
    room: Room = field(init=False)
    closing: bool = False
    pending_bytes: int = 0
    counters: LogCounters = field(factory=LogCounters)
    errors: InternalErrors = field(factory=InternalErrors)
    retention: RetentionState = field(factory=RetentionState)
    recent: RecentFrames = field(init=False)
    _pending: deque[_Pending] = field(factory=deque)
    _retries: list[tuple[int, Appended, Done]] = field(factory=list)
    # What stands in the newest segment: the planned figures, as far as they are durable.
    _durable_bytes: int = field(init=False)
    _durable_frames: int = field(init=False)
    _completion: OpeningCompletion | None = None
    _room_waiters: dict[int, Callable[[], None]] = Factory(dict)
    _durable_watchers: dict[int, Callable[[], None]] = Factory(dict)
    _next_watcher: int = 0
    _rolls_at_first_frame: bool = False
    # Readers are made in other threads: they must not see offsets and origins of two different moments.
    _bounds_lock: threading.Lock = Factory(threading.Lock)

    def __attrs_post_init__(self) -> None:
        self.recent = RecentFrames(self.config.recent_bytes, self.next_offset)
        self.room = Room(self.config.reserve_bytes)
        self._durable_bytes, self._durable_frames = self._planned_bytes, self._planned_frames

    # -- appending -----------------------------------------------------------------------------------------------------

    def check_steps(self, batch: Batch) -> Steps[None]:
        """Check a batch in steps, for an append_soon that need not do it at once; raises BatchRefused, counted."""
        try:
            yield from batch.check_steps(self.config.max_batch_bytes)
        except BatchRefused:
            self.counters.refused += 1
            raise

    def append_soon(self, batch: Batch, done: Done, *, checked: bool = False) -> None:
        """Give a batch its place now; done is called with it once it is durable, or with why it never will be.

        Args:
            batch: what is to be stored.
            done: is called.
            checked: check_steps has been through all of it.

        Raises:
            BatchRefused, ProducerSequenceTooOld, ProducerTableFull: the batch cannot be stored.
            LogBusy: too much waits for its commit; see notify_room.
            LogReadOnly: nothing can be stored at present. What is stored is answered all the same.
            OutcomeUnknown: it repeats one of which is not known whether it is stored.
            LogClosed: the log is closing.
        """
        if self.closing or not batch.producer_id:
            self._check_writable()
        if self.pending_bytes >= self.config.pending_bytes_limit:
            raise LogBusy(f"{self.pending_bytes} bytes wait to be committed")
        now = self._now()
        try:
            if not checked:
                batch.check(self.config.max_batch_bytes)
            stored = self._stored_before(batch)
            if stored is None:
                self._check_writable()
        except ProglogError:
            self.counters.refused += 1
            raise
        if stored is not None:
            self._answer_retry(stored.appended, done)
            return
        self._roll_if_full(now)
        before = self._state.clock.too_far_ahead
        unplaced, appended = self._state.append(batch, now, self._rng)
        self.counters.after_log_times_not_followed += self._state.clock.too_far_ahead - before
        self._plan(unplaced, appended, done)

    async def append(self, batch: Batch) -> Appended:
        """Append a batch and return when it is durable, waiting for room before; under Trio.

        Raises:
            ProglogError: as append_soon, but for LogBusy.
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
                room = trio.Event()
                stop_waiting = self.notify_room(room.set)
                try:
                    await room.wait()
                finally:
                    stop_waiting()
            else:
                break
        await settled.wait()
        (answer,) = answers
        if isinstance(answer, ProglogError):
            raise answer
        return answer

    def append_foreign(self, frame: Frame, data: bytes, done: Callable[[ProglogError | None], None]) -> None:
        """Append the next frame of another origin, as it was pulled; done is called once it is durable or has failed.

        Raises:
            FrameError: it does not follow what the log has of its origin.
            LogBusy, LogReadOnly, LogClosed: as append_soon.
        """
        self._check_writable()
        if self.pending_bytes >= self.config.pending_bytes_limit:
            raise LogBusy(f"{self.pending_bytes} bytes wait to be committed")
        now = self._now()
        self._roll_if_full(now)
        before = self._state.clock.too_far_ahead
        unplaced = self._state.append_foreign(frame, data, now)
        self.counters.pulled_log_times_not_followed += self._state.clock.too_far_ahead - before
        self._plan(unplaced, None, _only_error(done))

    def append_gap(self, marker: GapMarker, done: Callable[[ProglogError | None], None]) -> None:
        """Append a marker of a gap, or of what is missing at present; as append_foreign."""
        self._check_writable()
        self._roll_if_full(self._now())
        self._plan(self._state.append_gap(marker), None, _only_error(done))

    def roll(self) -> bool:
        """Go on in a new segment; False: the active one has used no offset yet, or the log takes nothing any more."""
        if self.read_only_reason is not None or self.closing:
            return False
        if self._planned_frames:
            self._hand_over([self._plan_roll(self._now())])
            return True
        return self.is_rolling

    @property
    def is_rolling(self) -> bool:
        """Whether another segment is going to follow the active one."""
        return any(isinstance(item.work, Roll) for item in self._pending)

    def _now(self) -> int:
        """Return the wall clock's time for a change of the state, which hears of the running time."""
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
        if self.read_only_reason is not None or self.closing or not is_too_far_ahead(self._state.clock.high_mark, now):
            return False
        self._state.return_to(now)
        # What has the old times is read back at opening no more, then; with it they would be greatest again.
        if not self._planned_frames:
            # The header alone has them, of a segment that no other can follow before it has used an offset.
            self._rolls_at_first_frame = True
        self.roll()
        return True

    def _check_writable(self) -> None:
        if self.closing:
            raise LogClosed("the log is closing")
        if self.read_only_reason is not None:
            raise LogReadOnly(self.read_only_reason)

    def _stored_before(self, batch: Batch) -> StoredBatch | None:
        """Return what a batch repeats, or None if it is new; raises as append_soon."""
        if not batch.producer_id:
            return None
        try:
            return self._state.producers.find(
                batch.producer_id, batch.producer_sequence, batch.payload_crc, self._state.running
            )
        except ProducerTableFull:
            self._check_writable()  # nothing of it would be stored even if there were room in the table
            raise

    def _answer_retry(self, stored: Appended, done: Done) -> None:
        end = stored.base_offset + stored.count
        if end > self.next_offset:
            if self.read_only_reason is not None and not self.room.is_passing:
                self.counters.refused += 1
                raise OutcomeUnknown(self.read_only_reason)
            if len(self._retries) >= MAX_WAITING_RETRIES:
                raise LogBusy(f"{len(self._retries)} retries wait for what they repeat to be committed")
        self.counters.duplicates += 1
        appended = Appended(
            stored.base_offset, stored.count, stored.origin, stored.base_sequence, stored.log_time, duplicate=True
        )
        if end <= self.next_offset:
            done(appended)
        else:
            self._retries.append((end, appended, done))

    def _roll_if_full(self, now: int) -> None:
        # Handed over at once: what comes next may yet be refused, and the segment that it begins is a fact by then.
        full = self._planned_bytes >= self.config.segment_bytes or self._planned_frames >= self.config.segment_frames
        if full and self._planned_frames:
            self._hand_over([self._plan_roll(now)])

    def _plan_roll(self, now: int) -> _Pending:
        header = self._state.to_header(Salt(self._rng.randbytes(SALT_BYTES)), now)
        self._planned_bytes = self._planned_frames = 0
        self._rolls_at_first_frame = False
        return _Pending(Roll(header), self._state.next_offset, None, None, None, 0)

    def _plan(self, unplaced: PendingFrame, answer: Appended | None, done: Done) -> None:
        size = unplaced.stored_bytes
        self._planned_bytes += size
        if unplaced.count:
            # A gap marker uses no offset: a segment that held nothing else would leave its name to the next.
            self._planned_frames += 1
        self.pending_bytes += size
        changed = (unplaced.origin, self._state.origins[unplaced.origin])
        remembered = self._state.remembered
        self._hand_over([_Pending(unplaced, self._state.next_offset, changed, answer, done, size, remembered)])
        if self._rolls_at_first_frame:
            self.roll()

    def _hand_over(self, items: list[_Pending]) -> None:
        self._pending.extend(items)
        self.on_work([item.work for item in items])

    # -- what commits change -------------------------------------------------------------------------------------------

    def committed(self, count: int, error: Exception | None) -> None:
        """Take note that the oldest count pieces of work are durable, and that writing those behind them failed.

        Args:
            count: how many pieces.
            error: why; CommitFailed says what became of those that follow, else nothing is known of them. The work that
                was handed over before is not to be done any more.
        """
        if count or error is None:
            self._take_durable(count)
        if error is not None:
            self._fail(error)

    def _take_durable(self, count: int) -> None:
        self.counters.commits += 1
        self.room.written()
        answers: list[tuple[Done, Appended]] = []
        with self._bounds_lock:
            for _ in range(count):
                item = self._pending.popleft()
                self.next_offset = item.next_offset
                self.pending_bytes -= item.size
                self._durable_bytes += item.size
                if isinstance(item.work, Roll):
                    self.catalog.noted_offset = item.work.header.base_offset
                    self._durable_bytes = self._durable_frames = 0
                elif isinstance(item.work, Complete):
                    self._completion = None
                    self._durable_frames = max(self._durable_frames, _frames_at_least(item.work.completion))
                elif item.work.count:
                    self._durable_frames += 1
                if item.changed is not None:
                    origin, state = item.changed
                    # Since the state was noted, retention may have removed segments, and a repair have filled places.
                    held, planned = self._durable_origins.get(origin), self._state.origins.get(origin)
                    if held is not None and held.low > state.low:
                        state = state.raised(held.low, self.running_time.milliseconds())
                    if state.missing and planned is not None:
                        missing = still_missing(state.missing, planned.missing)
                        gaps = tuple(gap for gap in planned.gaps if gap[1] <= state.next)
                        state = evolve(state, missing=missing, gaps=gaps)
                    self._durable_origins[origin] = state
                    if isinstance(item.work, PendingFrame):
                        self.recent.add(item.work)
                    self.counters.batches_appended += 1
                    self.counters.bytes_appended += item.size
                if item.done is not None:
                    # Foreign frames have no answer of their own; any will do.
                    answers.append((item.done, item.answer if item.answer is not None else _NOTHING))
                    self.counters.records_appended += item.answer.count if item.answer is not None else 0
        waiting, self._retries = self._retries, []
        for end, appended, done in waiting:
            if end <= self.next_offset:
                answers.append((done, appended))
            else:
                self._retries.append((end, appended, done))
        self._answer_all(answers)
        self._call_durable_watchers()
        self._call_room_waiters()

    def _answer_all(self, answers: Iterable[tuple[Done, Appended | ProglogError]]) -> None:
        """Tell those who wait; one who fails at it keeps the others from nothing."""
        boundary = self.errors.boundary(Where.LOG_CALLBACK)
        for done, answer in answers:
            with boundary:
                done(answer)

    def _fail(self, error: Exception) -> None:
        """Turn read-only: nothing that was not durable will be."""
        self.counters.commits_failed += 1
        was_writable = self.read_only_reason is None
        if isinstance(error, CommitFailed):
            reason = f"the log takes no more records since a write failed: {error}"
            if isinstance(error.reason, ReserveReached):
                reason = reserve_reached(self.config.reserve_bytes)
            if error.may_go_on:
                self.room.failed(reason, error.wanted)
            else:
                self.room.ends(reason)
            uncertain = error.uncertain
        else:
            # The text of what nobody foresaw is no client's business; it is in the log output.
            why = str(error) if isinstance(error, OSError) else "internal error"
            self.room.ends(f"the log takes no more records since a write failed: {why}")
            uncertain = len(self._pending)
        self.counters.read_only_times += was_writable
        pending, self._pending = list(self._pending), deque()
        retries, self._retries = self._retries, []
        self.pending_bytes = 0
        # What was not begun is certainly not stored. Of the rest the producers' table must know, to tell their retries.
        refused = pending[uncertain:]
        last_uncertain = pending[uncertain - 1].next_offset if uncertain else -1
        if uncertain:
            for item in reversed(refused):
                if item.remembered is not None:
                    self._state.producers.forget(item.remembered)
        else:
            self._go_back(refused)
        said = self.read_only_reason or ""
        answers: list[tuple[Done, ProglogError]] = []
        for end, done in [
            *((item.next_offset, item.done) for item in pending if item.done is not None),
            *((end, done) for end, _, done in retries),
        ]:
            answers.append((done, OutcomeUnknown(said) if end <= last_uncertain else LogReadOnly(said)))
        self._answer_all(answers)
        self._call_durable_watchers()
        self._call_room_waiters()

    def _go_back(self, refused: Sequence[_Pending]) -> None:
        """Take back what was planned and is certainly not on the disk."""
        self._state.go_back(self.next_offset, self._durable_origins, (item.remembered for item in reversed(refused)))
        self._planned_bytes, self._planned_frames = self._durable_bytes, self._durable_frames

    # -- room on the disk ----------------------------------------------------------------------------------------------

    @property
    def read_only_reason(self) -> str | None:
        """Why it takes no records at present; None: it takes some."""
        return self.room.reason

    def complete_later(self, completion: OpeningCompletion, reason: str) -> None:
        """Take no records before the opening is complete, for which there was no room."""
        self._completion = completion
        self.room.failed(f"the log takes no records since it was opened on a disk without room: {reason}", 0)
        self.counters.read_only_times += 1

    def looked_at_disk(self, free_bytes: int) -> None:
        """Take note of how much is free on the disk; to be called about twice a second.

        The log takes no records while that is less than its reserve, and does again when there is room.
        """
        if self.closing or not self.room.looked(free_bytes):
            return
        if self.read_only_reason is not None:
            self.counters.read_only_times += 1
        elif self._completion is not None:
            self._state.next_offset = self._completion.next_offset
            work = Complete(self._completion)
            self._hand_over([_Pending(work, self._state.next_offset, None, None, None, 0)])
            self._planned_frames = max(self._planned_frames, _frames_at_least(self._completion))
        self._call_durable_watchers()
        self._call_room_waiters()

    def lose(self, reason: str) -> None:
        """Take no records any more: what the log is in is not its own."""
        self.room.ends(f"the log takes no more records: {reason}")
        self._call_durable_watchers()
        self._call_room_waiters()

    def notify_room(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back once when appends need not wait any more, or would fail for another reason; return what ends it."""
        number = self._next_watcher
        self._next_watcher += 1
        self._room_waiters[number] = callback
        self._call_room_waiters()
        return lambda: self._room_waiters.pop(number, None) and None

    def _call_room_waiters(self) -> None:
        while self._room_waiters and (self._has_room or self.read_only_reason is not None or self.closing):
            with self.errors.boundary(Where.LOG_CALLBACK):
                self._room_waiters.pop(next(iter(self._room_waiters)))()

    @property
    def _has_room(self) -> bool:
        return self.pending_bytes < self.config.pending_bytes_limit and len(self._retries) < MAX_WAITING_RETRIES

    def notify_durable(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after each change of next_offset, lowest_offset or read_only_reason; return what ends it."""
        number = self._next_watcher
        self._next_watcher += 1
        self._durable_watchers[number] = callback
        return lambda: self._durable_watchers.pop(number, None) and None

    def _call_durable_watchers(self) -> None:
        boundary = self.errors.boundary(Where.LOG_CALLBACK)
        for callback in list(self._durable_watchers.values()):
            with boundary:
                callback()

    def start_closing(self) -> None:
        """Refuse what comes from now on."""
        self.closing = True
        self._call_durable_watchers()
        self._call_room_waiters()

    def fail_pending(self, reason: str) -> None:
        """Answer everything that is still waiting: the log is closed."""
        failed = [item.done for item in self._pending if item.done is not None]
        failed += [done for _, _, done in self._retries]
        self._pending.clear()
        self._retries.clear()
        self.pending_bytes = 0
        self._answer_all((done, LogClosed(reason)) for done in failed)

    # -- reading -------------------------------------------------------------------------------------------------------

    @property
    def directory_id(self) -> bytes:
        """The 8 bytes that name the data directory."""
        return self._state.directory_id

    @property
    def position(self) -> Position:
        """The position after everything that is durable."""
        return position_of(self._durable_origins)

    @property
    def origins(self) -> MappingProxyType[Origin, OriginState]:
        """What is durable, per origin."""
        return MappingProxyType(self._durable_origins)

    @property
    def planned_origins(self) -> MappingProxyType[Origin, OriginState]:
        """What will be durable when everything is that was appended, per origin."""
        return MappingProxyType(self._state.origins)

    @property
    def damage(self) -> DamageRegistry:
        """What the log holds and cannot read, as far as it is known."""
        return self.catalog.damage

    @property
    def own_origin(self) -> Origin | None:
        """The origin under which this opening of the directory appends; None before its first append."""
        return self._state.own

    def bounds(self) -> Bounds:
        """Return what is durable at this moment; from any thread."""
        with self._bounds_lock:
            return Bounds(self.lowest_offset, self.next_offset, dict(self._durable_origins))

    def _origins_now(self) -> Mapping[Origin, OriginState]:
        return self.bounds().origins

    def reader_at_offset(self, offset: int, *, skip_missing: bool = False) -> LogReader:
        """Return a reader from an offset on; see LogReader.at_offset. Blocks."""
        while True:
            with self._bounds_lock:
                lowest, following = self.lowest_offset, self.next_offset
                at_end = dict(self._durable_origins) if offset >= following else {}
            origins = partial(dict, at_end) if offset >= following else self._origins_now
            reader = LogReader.at_offset(self.catalog, lowest, following, origins, offset, skip_missing=skip_missing)
            if lowest == self.lowest_offset:
                return reader
            # Retention removed segments meanwhile.
            reader.close()

    def reader_at_position(self, position: Position, *, skip_missing: bool = False) -> LogReader:
        """Return a reader of what does not lie before a position; see LogReader.at_position. Blocks."""
        while True:
            bounds = self.bounds()
            unknown = [origin for origin in position.ranges if origin not in bounds.origins]
            if unknown:
                ends = self.retired_origins.ends_of(unknown).items()
                retired = {origin: OriginState(low=end, next=end) for origin, end in ends}
                bounds = evolve(bounds, origins={**bounds.origins, **retired})
            reader = LogReader.at_position(self.catalog, bounds, position, skip_missing=skip_missing)
            if bounds.lowest_offset == self.lowest_offset:
                return reader
            reader.close()

    def frames(self, origin: Origin, from_sequence: int, to_sequence: int, max_bytes: int) -> FoundFrames:
        """Return the sound, durable frames that hold some sequences of an origin; see find_frames. Blocks."""
        return find_frames(self.catalog, origin, from_sequence, to_sequence, max_bytes)

    # -- retention and end ---------------------------------------------------------------------------------------------

    def forget_segments(self, count: int, oldest: SegmentHeader) -> tuple[SegmentFiles, ...]:
        """Take the oldest segments out of the log, so that their files can be removed.

        Args:
            count: how many.
            oldest: the header of the segment that is then the oldest.

        Raises:
            ValueError: that segment begins beyond what the log has taken note of.
        """
        if oldest.base_offset > self.catalog.noted_offset:
            raise ValueError(f"the segment from offset {oldest.base_offset} on has not been noted as durable yet")
        running = self.running_time.milliseconds()
        with self._bounds_lock:
            forgotten = self.catalog.forget(count)
            self.lowest_offset = max(self.lowest_offset, oldest.base_offset)
            for origin, before in oldest.origins.items():
                for origins in (self._state.origins, self._durable_origins):
                    if origin in origins:
                        origins[origin] = origins[origin].raised(before.next, running)
        self.catalog.damage.forget_below(oldest.base_offset)
        self.counters.segments_removed += len(forgotten)
        self._call_durable_watchers()
        return forgotten

    def settle_missing(
        self,
        from_offset: int,
        to_offset: int,
        left: Mapping[Origin, Sequence[MissingRange]],
        gaps: Mapping[Origin, Sequence[tuple[int, int]]] = _NO_GAPS,
    ) -> dict[Origin, list[tuple[int, int]]]:
        """Take note of what is missing at present in closed segments, after they were looked at or filled.

        Args:
            from_offset: where the segments begin.
            to_offset: where the next one does.
            left: what is still missing in them.
            gaps: what in them was missing once, and has been given up.

        Returns: what of the gaps was not known as such.
        """
        changed = False
        news: dict[Origin, list[tuple[int, int]]] = {}
        with self._bounds_lock:
            for origins in (self._state.origins, self._durable_origins):
                for origin, state in origins.items():
                    here = [each for each in state.missing if from_offset <= each.offset < to_offset]
                    if not here:
                        continue
                    # What is left cannot be more than what was missing: nothing else puts markers into closed segments.
                    missing = (*(each for each in state.missing if each not in here), *left.get(origin, ()))
                    missing = tuple(sorted(missing, key=lambda each: each.from_sequence))
                    if missing != state.missing:
                        found = {(max(first, state.low), end) for first, end in gaps.get(origin, ()) if end > state.low}
                        if found.difference(state.gaps):
                            news[origin] = sorted(found.difference(state.gaps))
                        origins[origin] = evolve(state, missing=missing, gaps=tuple(sorted({*state.gaps, *found})))
                        changed = True
        if changed:
            self._call_durable_watchers()
        return news

    def missing_segments(self) -> list[SegmentFiles]:
        """Return the segments in which records are missing at present, in the order of the log."""
        offsets = {each.offset for state in self._durable_origins.values() for each in state.missing}
        found = {self.catalog.containing(offset) for offset in offsets}
        return sorted(found, key=lambda files: files.base_offset)

    @property
    def retired_origins(self) -> RetiredOrigins:
        """Where origins ended of which nothing is left, and which this log does not know, or forgets."""
        return RetiredOrigins(self.catalog.disk, self.config.directory)

    def forget_origins(self, origins: Iterable[Origin]) -> list[Origin]:
        """Drop what is known of origins of which the log has nothing left; return those that are dropped.

        Where they ended is to be among the retired origins by then.

        The origin that is written stays, and so does one that something waits to be committed of.
        """
        forgotten = []
        with self._bounds_lock:
            for origin in origins:
                state = self._durable_origins.get(origin)
                if state is None or state.low < state.next or origin == self.own_origin:
                    continue
                if self._state.origins.get(origin) == state:
                    del self._durable_origins[origin], self._state.origins[origin]
                    forgotten.append(origin)
        return forgotten

    def raise_opening(self, above: int) -> int:
        """Set this opening's number above one that was heard of, durably, and return it. Blocks; raises OSError."""
        self.opening = next_opening(self.catalog.disk, self.config.directory, self._rng, above)
        return self.opening

    def take_new_id(self, rng: random.Random) -> None:
        """Go on under another directory id, durably; nothing may be under way. Blocks; raises CommitFailed."""
        if not self._planned_frames:
            # A segment that used no offset would leave its name to the next.
            self._state.next_offset += 1
            self.writer.commit([bare_envelope(EnvelopeKind.REOPENED, self._state.next_offset)])
        self._state.directory_id = rng.randbytes(DIRECTORY_ID_BYTES)
        self._state.own = None
        self.writer.commit([self._plan_roll(self.wall_clock()).work])

    def close(self, *, cleanly: bool = True) -> None:
        """Close the files and give up the lock; nothing may be under way. Blocks. Raises OSError."""
        try:
            is_sound = self.read_only_reason is None or self.room.is_passing
            self.writer.close(cleanly=cleanly and is_sound and self._completion is None)
        finally:
            self._lock_file.close()


def _frames_at_least(completion: OpeningCompletion) -> int:
    """Where offsets of the newest segment are used, whatever is left there, it can be followed by another."""
    return int(completion.next_offset > completion.files.base_offset)


_NOTHING = Appended(0, 0, Origin(bytes(16)), 0, 0)


def _only_error(done: Callable[[ProglogError | None], None]) -> Done:
    return lambda answer: done(answer if isinstance(answer, ProglogError) else None)


def still_missing(ranges: Iterable[MissingRange], among: Iterable[MissingRange]) -> tuple[MissingRange, ...]:
    """Return the parts of ranges that are missing among others, too."""
    among = tuple(among)
    parts = (each.clipped(other.from_sequence, other.to_sequence) for each in ranges for other in among)
    return tuple(part for part in parts if part is not None)
