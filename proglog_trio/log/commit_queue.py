"""What was given its place in a log and is not durable yet, in the order in which it is written.

Everything that is appended is planned first: the state is what it will be when all of the queue is durable, and the
next append builds on it. Work is handed over as it is planned. Results come back for the oldest pieces first, by settle
for those that are durable, and by fail for all others at once: what was planned on top of what failed cannot be written
as it is, so it is taken back, and answered.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from attrs import Factory, define, field

from proglog_trio.errors import LogBusy, LogReadOnly, OutcomeUnknown, ProglogError
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.log.batch import Appended
from proglog_trio.log.completion import OpeningCompletion
from proglog_trio.log.config import LogConfig
from proglog_trio.log.counters import LogCounters
from proglog_trio.log.disk import ReserveReached
from proglog_trio.log.durable import DurableLog
from proglog_trio.log.format.envelope import SALT_BYTES, EnvelopeKind, Salt
from proglog_trio.log.format.pending_frame import PendingFrame, bare_envelope
from proglog_trio.log.pending_work import Done, PendingWork, Settle, answering
from proglog_trio.log.room import Room, reserve_reached
from proglog_trio.log.state import LogState
from proglog_trio.log.watchers import Watchers
from proglog_trio.log.writer import CommitFailed, Complete, Roll, Work

MAX_WAITING_RETRIES = 4096
"""So many retries of what is being committed may wait for that; they use no other bound of the log."""


@define
class CommitQueue:
    """The work that is handed over and whose commit is not over, and what waits for it. For the host thread alone.

    Attributes:
        completion: what opening could not write for want of room; until it is done, nothing else is handed over.
        pending_bytes: what the frames in the queue take in the store file.
    """

    _config: LogConfig
    # After all that is in the queue. Equal to what is durable when the queue is empty, unless a write failed of which
    # it is not known what the disk has.
    _state: LogState
    _durable: DurableLog
    _room: Room
    _counters: LogCounters
    _errors: InternalErrors
    _rng: random.Random
    _hand_over: Callable[[Sequence[Work]], None]
    # What stands in the segment that is the newest after all of the queue: its size, and how many of its frames have
    # offsets. The durable figures are those of the segment that is the newest on the disk.
    _planned_bytes: int
    _planned_frames: int
    completion: OpeningCompletion | None
    pending_bytes: int = 0
    # In the order in which it was handed over: what is durable is always the beginning of it.
    _pending: deque[PendingWork] = Factory(deque)
    # Retries of what is in the queue: the offset up to which the log must be durable, and what is told then.
    _retries: list[tuple[int, Settle]] = Factory(list)
    _durable_bytes: int = field(init=False)
    _durable_frames: int = field(init=False)
    # The newest segment is to be left, and has used no offset; see roll_soon.
    _rolls_at_first_frame: bool = False
    # Are called once, when an append would not raise LogBusy any more.
    _room_waiters: Watchers = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._durable_bytes, self._durable_frames = self._planned_bytes, self._planned_frames
        self._room_waiters = Watchers(self._errors)

    # -- what goes in --------------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether another append need not wait."""
        return self.pending_bytes < self._config.max_pending_bytes and len(self._retries) < MAX_WAITING_RETRIES

    def notify_room(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back once when an append need not wait, or would fail for another reason; return what ends it."""
        stop = self._room_waiters.add(callback)
        self.call_room_waiters()
        return stop

    def call_room_waiters(self) -> None:
        """Call what waits for room, if there is some, or if none has to be waited for any more."""
        self._room_waiters.call_once_while(lambda: self.has_room or not self._room.is_open)

    def check_room(self) -> None:
        """Raise LogBusy if too many bytes wait."""
        if self.pending_bytes >= self._config.max_pending_bytes:
            raise LogBusy(f"{self.pending_bytes} bytes wait to be committed")

    def add_frame(self, frame: PendingFrame, now: int, settle: Settle, records: int = 0) -> None:
        """Hand over a frame that the state has just given its place.

        Args:
            frame: the frame, or a gap marker.
            now: the wall clock's time, in milliseconds.
            settle: is told how it ended.
            records: how many it appends for a producer.
        """
        size = frame.stored_bytes
        self._planned_bytes += size
        if frame.count:
            # A gap marker uses no offset: a segment that held nothing else would leave its name to the next.
            self._planned_frames += 1
        self.pending_bytes += size
        state = self._state
        changed = (frame.origin, state.origins[frame.origin])
        self._put(PendingWork(frame, state.next_offset, settle, size, records, changed, state.remembered))
        if self._rolls_at_first_frame:
            self.roll(now)

    def answer_retry(self, appended: Appended, done: Done) -> None:
        """Answer a retry of what got its place before: now if that is durable, else when it is.

        Raises:
            LogBusy: too many wait.
            OutcomeUnknown: it is not known whether what it repeats is stored.
        """
        end = appended.base_offset + appended.count
        is_durable = end <= self._durable.next_offset
        if not is_durable:
            # When it is not known what the disk has, the producers' table still knows what was being written.
            if self._room.reason is not None and not self._room.is_passing:
                self._counters.refused += 1
                raise OutcomeUnknown(self._room.reason)
            if len(self._retries) >= MAX_WAITING_RETRIES:
                raise LogBusy(f"{len(self._retries)} retries wait for what they repeat to be committed")
            self._retries.append((end, answering(appended, done)))
        self._counters.duplicates += 1
        if is_durable:
            done(appended)

    def add_completion(self, completion: OpeningCompletion) -> None:
        """Hand over what opening could not write; there is room now."""
        # Offsets that the tail may have used are given out by nothing else.
        self._state.next_offset = completion.next_offset
        self._put(PendingWork(Complete(completion), completion.next_offset))
        self._planned_frames = max(self._planned_frames, _frames_at_least(completion))

    def roll_if_full(self, now: int) -> None:
        """Go on in a new segment if the newest is full."""
        # Handed over at once: what comes next may yet be refused, and the segment that it begins is a fact by then.
        if self._planned_bytes >= self._config.segment_bytes or self._planned_frames >= self._config.segment_frames:
            self.roll(now)

    def roll(self, now: int) -> bool:
        """Go on in a new segment, and tell whether another one will follow; not if the newest has used no offset.

        A segment is named by the first offset in it, so that one without any would have the same name as the next.
        """
        if not self._planned_frames:
            return self.is_rolling
        header = self._state.to_header(Salt(self._rng.randbytes(SALT_BYTES)), now)
        self._planned_bytes = self._planned_frames = 0
        self._rolls_at_first_frame = False
        self._put(PendingWork(Roll(header), self._state.next_offset))
        return True

    def roll_soon(self, now: int) -> None:
        """Go on in a new segment as soon as the newest has used an offset."""
        self._rolls_at_first_frame = not self._planned_frames
        self.roll(now)

    def roll_at_once(self, now: int) -> None:
        """Go on in a new segment, and give up an offset for that if the newest has used none."""
        if not self._planned_frames:
            self._state.next_offset += 1
            self._planned_frames = 1
            following = self._state.next_offset
            self._put(PendingWork(bare_envelope(EnvelopeKind.REOPENED, following), following))
        self.roll(now)

    @property
    def is_rolling(self) -> bool:
        """Whether another segment is going to follow the one that is the newest on the disk."""
        return any(isinstance(item.work, Roll) for item in self._pending)

    def _put(self, item: PendingWork) -> None:
        # Before it is handed over: its result may come back at once.
        self._pending.append(item)
        self._hand_over([item.work])

    # -- what comes back -----------------------------------------------------------------------------------------------

    def settle(self, count: int) -> None:
        """Settle the oldest pieces of work, which are durable now."""
        self._counters.commits += 1
        self._room.written()
        items = list(islice(self._pending, count))
        # First, and before any answer: who is told that something is durable may read it at once.
        self._durable.advance(items)
        for item in items:
            self._pending.popleft()
            self.pending_bytes -= item.size
            self._durable_bytes += item.size
            if isinstance(item.work, Roll):
                self._durable_bytes = self._durable_frames = 0
            elif isinstance(item.work, Complete):
                self.completion = None
                self._durable_frames = max(self._durable_frames, _frames_at_least(item.work.completion))
            else:
                self._durable_frames += item.work.count > 0
                self._counters.batches_appended += item.changed is not None
                self._counters.bytes_appended += item.size
                self._counters.records_appended += item.records
        ends, retries = self._durable.next_offset, self._retries
        self._retries = [(end, settle) for end, settle in retries if end > ends]
        settled = [(item.settle, None) for item in items if item.settle is not None]
        self._tell([*settled, *((settle, None) for end, settle in retries if end <= ends)])

    def fail(self, error: Exception) -> None:
        """Turn the log read-only and answer all that waits: nothing of it that was not durable will be.

        Args:
            error: CommitFailed says what became of the work; of any other nothing is known.
        """
        self._counters.commits_failed += 1
        was_writable = self._room.reason is None
        if isinstance(error, CommitFailed):
            reason = f"the log takes no more records since a write failed: {error}"
            if isinstance(error.reason, ReserveReached):
                reason = reserve_reached(self._config.reserve_bytes)
            if error.may_go_on:
                self._room.failed(reason, error.wanted)
            else:
                self._room.ends(reason)
            uncertain = error.uncertain
        else:
            # The text of what was not foreseen is no client's business; it is in the log output.
            why = str(error) if isinstance(error, OSError) else "internal error"
            self._room.ends(f"the log takes no more records since a write failed: {why}")
            uncertain = len(self._pending)
        self._counters.read_only_times += was_writable
        pending, retries = list(self._pending), self._retries
        # What was not begun is certainly not stored. Of the rest the producers' table must know, to tell their retries.
        refused = pending[uncertain:]
        last_uncertain = pending[uncertain - 1].next_offset if uncertain else -1
        if uncertain:
            for item in reversed(refused):
                if item.remembered is not None:
                    self._state.producers.forget(item.remembered)
        else:
            durable = self._durable
            remembered = (item.remembered for item in reversed(refused))
            self._state.go_back(durable.next_offset, durable.origins, remembered)
            self._planned_bytes, self._planned_frames = self._durable_bytes, self._durable_frames
        said = self._room.reason or ""
        waiting = [(item.next_offset, item.settle) for item in pending if item.settle is not None]
        self._clear()
        self._tell(
            (settle, OutcomeUnknown(said) if end <= last_uncertain else LogReadOnly(said))
            for end, settle in [*waiting, *retries]
        )

    def abandon(self, error: ProglogError) -> None:
        """Answer all that waits with an error: no result comes back any more."""
        waiting = [item.settle for item in self._pending] + [settle for _, settle in self._retries]
        self._clear()
        self._tell((settle, error) for settle in waiting if settle is not None)

    def _clear(self) -> None:
        self._pending.clear()
        self._retries = []
        self.pending_bytes = 0

    def _tell(self, answers: Iterable[tuple[Settle, ProglogError | None]]) -> None:
        """Tell all that waited; one that fails at it keeps the others from nothing."""
        boundary = self._errors.boundary(Where.LOG_CALLBACK)
        for settle, error in answers:
            with boundary:
                settle(error)


def _frames_at_least(completion: OpeningCompletion) -> int:
    """Where offsets of the newest segment are used, whatever is left there, it can be followed by another."""
    return int(completion.next_offset > completion.files.base_offset)
