"""The log against a model, with a power cut, a kill or a failing disk at any operation."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from attrs import Factory, define
from hypothesis import Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from proglog_trio.errors import DataDirectoryError, LogReadOnly, OutcomeUnknown, ProglogError, SequenceOutOfRange
from proglog_trio.log.batch import Appended, Batch
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.frame import FrameHeader, decode_frame
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.pending_frame import PendingFrame
from proglog_trio.log.format.position import Position
from proglog_trio.log.reader import LogReader
from proglog_trio.log.retention import removable, remove_files
from proglog_trio.log.scrub import Scrub
from tests.log.driving import DIRECTORY, NOON, ForeignLog, OpenLog, batch_of, position_after, read_all
from tests.log.simulated_disk import Loss, PowerCut, SimulatedDisk

LOSSES = st.sampled_from(Loss)
SEEDS = st.integers(0, 2**32 - 1)


@define(frozen=True)
class Planned:
    """A frame that was given its place."""

    offset: int
    data: bytes

    @property
    def header(self) -> FrameHeader:
        return FrameHeader.decode(self.data)

    @property
    def end(self) -> int:
        return self.offset + self.header.count

    @property
    def batch(self) -> Batch:
        header = self.header
        return Batch(
            self.data[header.header_length :],
            header.count,
            header.payload_crc,
            producer_id=header.producer_id,
            producer_sequence=header.producer_sequence,
        )


@define
class Model:
    """What the log in the directory must be; a snapshot of the directory has one of its own.

    Attributes:
        chain: all frames that are in the log, or may be once what is under way is committed, in their order.
        acknowledged: so many offsets, from 0, were answered for or served: they must never change.
        acknowledged_next: per origin, the same in sequences; gaps count.
        refused: own frames of which was said that they are not stored: they must never turn up.
    """

    chain: list[Planned]
    acknowledged: int
    acknowledged_next: dict[Origin, int]
    refused: set[bytes] = Factory(set)

    def copy(self) -> Model:
        return Model(list(self.chain), self.acknowledged, dict(self.acknowledged_next), set(self.refused))


class LogMachine(RuleBasedStateMachine):
    @initialize(
        seed=SEEDS,
        segment_bytes=st.sampled_from([300, 1_000, 5_000]),
        segment_frames=st.sampled_from([1, 3, 100]),
        index_interval_bytes=st.sampled_from([1, 300, 32_768]),
        retention_bytes=st.sampled_from([1, 1_500]),
    )
    def begin(
        self, seed: int, segment_bytes: int, segment_frames: int, index_interval_bytes: int, retention_bytes: int
    ) -> None:
        self.rng = random.Random(seed)
        self.disk = SimulatedDisk(self.rng)
        self.config = LogConfig(
            DIRECTORY,
            segment_bytes=segment_bytes,
            segment_frames=segment_frames,
            index_interval_bytes=index_interval_bytes,
            retention_bytes=retention_bytes,
        )
        self.wall = NOON
        self.sync_has_failed = False
        self.lived = 0.0
        self.opened: OpenLog | None = None
        self.loss = Loss.MIX
        self.model = Model([], 0, {})
        self.snapshots: list[tuple[SimulatedDisk, Model]] = []
        self.contents: dict[tuple[Origin, int], bytes] = {}
        self.foreign = [ForeignLog.make(seed + 1), ForeignLog.make(seed + 2)]
        self.values = 0

    # -- what every step needs -----------------------------------------------------------------------------------------

    @property
    def log(self) -> OpenLog:
        assert self.opened is not None
        return self.opened

    @contextmanager
    def powered(self) -> Iterator[None]:
        """Let the power go off within."""
        try:
            yield
        except PowerCut:
            self.restart(self.loss)

    def restart(self, loss: Loss) -> None:
        note(f"the power goes off after {self.disk.operations} operations: {loss}")
        self.disk.restart(loss, self.rng)
        self.opened = None

    def value(self, size: int) -> bytes:
        self.values += 1
        return b"%d:" % self.values + bytes(size)

    def is_writable(self) -> bool:
        return self.opened is not None and self.opened.log.read_only_reason is None

    def note_planned(self, pending_frame: PendingFrame) -> None:
        data = b"".join(pending_frame.buffers)
        if not pending_frame.count:
            return
        for sequence in range(pending_frame.base_sequence, pending_frame.base_sequence + pending_frame.count):
            known = self.contents.setdefault((pending_frame.origin, sequence), data)
            assert known == data, "one sequence was given to two contents"
        assert pending_frame.base_offset >= self.model.acknowledged, "an acknowledged offset was given out again"
        self.model.chain.append(Planned(pending_frame.base_offset, data))

    def newest_work(self) -> PendingFrame:
        pending_frame = self.log.work[-1]
        assert isinstance(pending_frame, PendingFrame)
        return pending_frame

    def answer(self, planned: Planned) -> Callable[[Appended | ProglogError], None]:
        model = self.model

        def done(outcome: Appended | ProglogError) -> None:
            header = planned.header
            if isinstance(outcome, LogReadOnly):
                # It certainly is not stored, so its place and its sequence may be given to another.
                model.refused.add(planned.data)
                if planned in model.chain:
                    model.chain.remove(planned)
                    for sequence in range(header.base_sequence, header.next_sequence):
                        del self.contents[header.origin, sequence]
            if isinstance(outcome, ProglogError):
                return
            assert (outcome.base_offset, outcome.count) == (planned.offset, header.count)
            assert (outcome.origin, outcome.base_sequence) == (header.origin, header.base_sequence)
            assert outcome.log_time == header.log_time
            model.acknowledged = max(model.acknowledged, planned.end)
            note_next(model, header.origin, header.next_sequence)

        return done

    # -- appending -----------------------------------------------------------------------------------------------------

    @precondition(is_writable)
    @rule(
        count=st.integers(1, 3),
        size=st.sampled_from([0, 0, 20, 600, 3_000]),
        producer=st.integers(0, 2),
        ahead=st.sampled_from([0, 0, 1 << 16, 50_000 << 16]),
    )
    def append(self, count: int, size: int, producer: int, ahead: int) -> None:
        held = [planned.header for planned in self.model.chain]
        last = max((header.producer_sequence for header in held if header.producer_id == producer), default=0)
        after = (self.wall << 16) + ahead if ahead else 0
        batch = batch_of(
            *(self.value(size) for _ in range(count)),
            producer_id=producer,
            producer_sequence=last + 1 if producer else 0,
            after_log_time=after,
        )
        settled: list[Callable[[Appended | ProglogError], None]] = []
        self.log.log.append_soon(batch, lambda outcome: settled[0](outcome))
        self.note_planned(self.newest_work())
        planned = self.model.chain[-1]
        settled.append(self.answer(planned))
        header = planned.header
        assert header.log_time > after
        own = self.log.log.directory_id
        for earlier in self.model.chain[:-1]:
            if earlier.header.origin.directory_id == own:
                assert header.log_time > earlier.header.log_time
        assert planned.data[header.header_length :] == batch.payload

    def retriable(self) -> list[Planned]:
        """Return the batches that a producer may send again and have recognized."""
        newest: dict[int, list[Planned]] = {}
        for planned in self.model.chain:
            if planned.header.producer_id:
                newest.setdefault(planned.header.producer_id, []).append(planned)
        return [planned for batches in newest.values() for planned in batches[-5:]]

    @precondition(lambda self: self.opened is not None)
    @rule(pick=SEEDS)
    def retry(self, pick: int) -> None:
        candidates = self.retriable()
        if candidates:
            self.send_again(candidates[pick % len(candidates)])

    def send_again(self, planned: Planned) -> None:
        """Retry a batch: whether the log takes records or not, it says of a stored one that it is, and where."""
        log = self.log.log
        batch = planned.batch
        work = len(self.log.work)
        settled = self.answer(planned)

        def done(outcome: Appended | ProglogError) -> None:
            assert isinstance(outcome, ProglogError) or outcome.duplicate
            settled(outcome)

        if log.read_only_reason is not None and planned.end > log.next_offset:
            with pytest.raises(OutcomeUnknown):
                log.append_soon(batch, done)
        else:
            log.append_soon(batch, done)
        assert len(self.log.work) == work, "a retry was stored again"

    def next_foreign(self, foreign: ForeignLog) -> int:
        """Return which of another log's frames this log needs next."""
        if not foreign.frames:
            return 0
        state = self.log.log._state.origins.get(foreign.frames[0].header.origin)
        wanted = 0 if state is None else state.next
        for number, frame in enumerate(foreign.frames):
            if frame.header.base_sequence == wanted:
                return number
        assert wanted == foreign.frames[-1].header.next_sequence
        return len(foreign.frames)

    @precondition(is_writable)
    @rule(which=st.integers(0, 1), size=st.sampled_from([0, 500]), ahead=st.sampled_from([0, 10, 10_000_000]))
    def append_foreign(self, which: int, size: int, ahead: int) -> None:
        foreign = self.foreign[which]
        number = self.next_foreign(foreign)
        if number == len(foreign.frames):
            foreign.write(
                batch_of(self.value(size), producer_id=10 + which, producer_sequence=number), self.wall + ahead
            )
        frame = foreign.frames[number]
        model, data = self.model, frame.encode()

        def done(error: ProglogError | None) -> None:
            if error is None:
                model.acknowledged = max(model.acknowledged, planned.end)
                note_next(model, frame.header.origin, frame.header.next_sequence)
            elif isinstance(error, LogReadOnly):
                model.chain.remove(planned)

        self.log.log.append_foreign(frame, data, done)
        # It may have been refused, and a retry of its batch with it: it is pulled again then, the very same.
        model.refused.discard(data)
        self.note_planned(self.newest_work())
        planned = self.model.chain[-1]

    @precondition(is_writable)
    @rule(which=st.integers(0, 1), skipped=st.integers(1, 2))
    def append_gap(self, which: int, skipped: int) -> None:
        foreign = self.foreign[which]
        number = self.next_foreign(foreign)
        while len(foreign.frames) < number + skipped:
            foreign.write(batch_of(self.value(0)))
        first, last = foreign.frames[number], foreign.frames[number + skipped - 1]
        marker = GapMarker(
            last.header.origin, first.header.base_sequence, last.header.next_sequence, last.header.header_crc, "test"
        )
        model = self.model

        def done(error: ProglogError | None) -> None:
            if error is None:
                note_next(model, marker.origin, marker.to_sequence)

        self.log.log.append_gap(marker, done)

    # -- committing, rolling, retention --------------------------------------------------------------------------------

    @precondition(is_writable)
    @rule(count=st.sampled_from([1, 2, 1_000, 1_000]))
    def commit(self, count: int) -> None:
        with self.powered():
            self.log.commit(count)

    @precondition(is_writable)
    @rule(count=st.sampled_from([1, 2, 5, 1_000]))
    def write(self, count: int) -> None:
        """The committer's thread is done with some work, and the log has not heard of it yet."""
        with self.powered():
            self.log.write(count)

    @precondition(lambda self: self.opened is not None)
    @rule()
    def note_written(self) -> None:
        self.log.note()

    @precondition(lambda self: self.opened is not None)
    @rule()
    def scrub(self) -> None:
        scrub = Scrub(self.log.log.catalog)
        with self.powered():
            try:
                while not scrub.finished:
                    for _, place in scrub.step(1 << 20):
                        # An index whose sync failed may be torn by a crash; it costs no records, and is made anew.
                        assert self.sync_has_failed, place
                        assert place.detail.startswith("the index file")
                        assert place.next_offset == place.expected_offset
            finally:
                scrub.close()

    @precondition(is_writable)
    @rule()
    def roll(self) -> None:
        self.log.log.roll()

    @precondition(lambda self: self.opened is not None)
    @rule(bytes_kept=st.sampled_from([None, 1, 1_500]), seconds=st.sampled_from([None, 0.0, 5.0]))
    def apply_retention(self, bytes_kept: int | None, seconds: float | None) -> None:
        log = self.log.log
        config = LogConfig(DIRECTORY, retention_bytes=bytes_kept, retention_age=seconds)
        with self.powered():
            found = removable(log.catalog, config, log.running_time)
            if found is None:
                return
            forgotten = log.durable.forget_segments(*found)
            try:
                remove_files(log.catalog, forgotten)
            except OSError as error:
                note(f"some files stay: {error}")

    @rule(milliseconds=st.integers(-5_000, 10_000))
    def time_passes(self, milliseconds: int) -> None:
        self.wall += milliseconds
        self.lived += abs(milliseconds) / 1000

    # -- faults --------------------------------------------------------------------------------------------------------

    @rule(ahead=st.integers(1, 20), loss=LOSSES)
    def power_will_go_off(self, ahead: int, loss: Loss) -> None:
        self.disk.cut_at = self.disk.operations + ahead
        self.loss = loss

    @rule(loss=LOSSES)
    def power_goes_off(self, loss: Loss) -> None:
        self.restart(loss)

    @rule(
        kind=st.sampled_from(["write", "write", "sync", "sync", "truncate", "create", "rename", "sync_directory"]),
        after=st.integers(0, 3),
    )
    def operation_will_fail(self, kind: str, after: int) -> None:
        self.sync_has_failed = self.sync_has_failed or kind != "write"
        self.disk.fail(kind, errno.ENOSPC if kind == "write" else errno.EIO, after)

    @precondition(is_writable)
    @rule(
        kind=st.sampled_from(["write", "write", "sync", "create", "rename", "sync_directory"]),
        after=st.sampled_from([0, 0, 1, 2, 3]),
        rolls=st.booleans(),
        loss=LOSSES,
    )
    def commit_fails(self, kind: str, after: int, *, rolls: bool, loss: Loss) -> None:
        """A commit, of two segments perhaps, meets a failing disk: what was said of a batch is what is found then."""
        self.append(count=1, size=0, producer=1, ahead=0)
        if rolls:
            self.log.log.roll()
        self.append(count=1, size=0, producer=2, ahead=0)
        sent = self.model.chain[-2:]
        self.operation_will_fail(kind=kind, after=after)
        self.commit(count=1_000)
        if self.opened is not None:
            for planned in self.retriable():
                self.send_again(planned)
            for planned in sent:
                if planned.data in self.model.refused:
                    # It is as if it had never been sent, and not taken for one that is stored, or may be.
                    with pytest.raises(LogReadOnly):
                        self.log.log.append_soon(planned.batch, lambda _: None)
            self.restart(loss)
        self.disk.clear_faults()
        self.try_to_open()

    @rule(room=st.sampled_from([0, 100, 700, 5_000]))
    def disk_fills(self, room: int) -> None:
        self.disk.capacity = self.disk.used_bytes + room

    @rule()
    def room_is_made(self) -> None:
        self.disk.capacity = None

    @precondition(lambda self: self.opened is not None)
    @rule(count=st.sampled_from([1, 10]))
    def look_at_disk(self, count: int) -> None:
        with self.powered():
            for _ in range(count):
                self.log.look_at_disk()

    @precondition(lambda self: self.opened is not None and self.opened.log.read_only_reason is not None)
    @rule()
    def read_only_refuses(self) -> None:
        with pytest.raises(LogReadOnly):
            self.log.log.append_soon(batch_of(b"x"), lambda _: None)
        self.check_content(served=False)

    # -- opening and closing -------------------------------------------------------------------------------------------

    @precondition(lambda self: self.opened is not None)
    @rule()
    def close(self) -> None:
        with self.powered():
            try:
                self.log.close()
            except OSError as error:
                note(f"not closed cleanly: {error}")
        if self.opened is not None:
            assert not self.disk.open_files
        self.opened = None

    @precondition(lambda self: self.opened is None)
    @rule()
    def open(self) -> None:
        with self.powered():
            self.try_to_open()

    def try_to_open(self) -> None:
        seed = self.rng.getrandbits(64)
        try:
            opened = OpenLog.open(self.disk, seed, lambda: self.wall, self.config, lambda: self.lived)
        except DataDirectoryError as error:
            note(f"not opened: {error}")
            # A disk that was restored from a snapshot may fail at the first operation of all.
            assert self.disk.trace or self.disk.faults_met, "a fault had been set"
            assert not self.disk.open_files
            self.disk.clear_faults()
            return
        self.opened = opened
        report = opened.log.report
        assert not report.damaged
        assert not report.lost
        assert not report.repaired
        for moved in report.moved_aside:
            assert moved.from_offset >= self.model.acknowledged
        self.check_content(served=True)

    @rule()
    def take_snapshot(self) -> None:
        if len(self.snapshots) < 3:
            self.snapshots.append((self.disk.copy(), self.model.copy()))

    @precondition(lambda self: self.snapshots and self.opened is None)
    @rule(pick=SEEDS)
    def restore_snapshot(self, pick: int) -> None:
        disk, model = self.snapshots[pick % len(self.snapshots)]
        self.disk, self.model = disk.copy(), model.copy()

    # -- what must hold ------------------------------------------------------------------------------------------------

    def check_content(self, *, served: bool) -> None:
        """Check all that the log gives against the model; served: what it gives must stay from now on."""
        log = self.log.log
        model = self.model
        frames = read_all(log)
        below = [planned for planned in model.chain if planned.offset < log.lowest_offset]
        expected = model.chain[len(below) : len(below) + len(frames)]
        found = [Planned(frame.base_offset, frame.data) for frame in frames]
        assert found == expected, "what is found is no prefix of what was appended"
        assert not model.refused.intersection(planned.data for planned in found), "it was refused, and is stored"
        end = found[-1].end if found else log.lowest_offset
        assert log.next_offset >= end
        assert end >= model.acknowledged, "acknowledged records are gone"
        for origin, following in model.acknowledged_next.items():
            assert log.origins[origin].next >= following
        self.check_origins(found)
        self.check_readers(found)
        if served:
            model.chain = below + found
            model.acknowledged = max(model.acknowledged, end)
            for origin, state in log.origins.items():
                note_next(model, origin, state.next)

    def check_origins(self, found: list[Planned]) -> None:
        log = self.log.log
        own_time = 0
        last: dict[Origin, FrameHeader] = {}
        for planned in found:
            frame = decode_frame(planned.data)
            header = frame.header
            state = log.origins[header.origin]
            before = last.get(header.origin)
            if before is not None:
                assert header.log_time > before.log_time
                if header.base_sequence == before.next_sequence:
                    assert header.previous_header_crc == before.header_crc
                else:
                    missing = set(range(before.next_sequence, header.base_sequence))
                    assert missing <= {number for gap in state.gaps for number in range(*gap)}
            elif header.base_sequence > state.low:
                missing = set(range(state.low, header.base_sequence))
                assert missing <= {number for gap in state.gaps for number in range(*gap)}
            last[header.origin] = header
            if header.origin.directory_id == log.directory_id:
                assert header.log_time > own_time
                own_time = header.log_time
        for origin, state in log.origins.items():
            assert log.position.next_sequence(origin) == state.next
            held = {number for gap in state.gaps for number in range(*gap)}
            if state.next - 1 not in held and state.next > state.low:
                assert last[origin].next_sequence == state.next

    def check_readers(self, found: list[Planned]) -> None:
        log = self.log.log
        stored = read_all(log)
        for _ in range(2):
            number = self.rng.randint(0, len(stored))
            if number < len(stored):
                offset = self.rng.randrange(found[number].offset, found[number].end)
                reader = log.reader_at_offset(offset)
                self.check_reader(reader, found[number:])
                for header in (planned.header for planned in found[:number]):
                    assert reader.start_position.next_sequence(header.origin) >= header.next_sequence
                for header in (planned.header for planned in found[number:]):
                    assert reader.start_position.next_sequence(header.origin) <= header.base_sequence
            # A consumer that has some of each origin's frames.
            position = position_after(stored[:number])
            if self.rng.random() < 0.5 and stored:
                chosen = self.rng.choice(stored).header.origin
                position = Position({origin: held for origin, held in position.ranges.items() if origin != chosen})
            below = [origin for origin, state in log.origins.items() if position.next_sequence(origin) < state.low]
            if below:
                with pytest.raises(SequenceOutOfRange):
                    log.reader_at_position(position)
            wanted = [
                planned
                for planned in found
                if not position.covers(planned.header.origin, planned.header.base_sequence, planned.header.count)
            ]
            self.check_reader(log.reader_at_position(position, skip_missing=True), wanted)

    def check_reader(self, reader: LogReader, wanted: list[Planned]) -> None:
        log = self.log.log
        given: list[Planned] = []
        try:
            while reader.next_offset < log.next_offset:
                chunk = reader.read(self.rng.choice([1, 500, 100_000]), log.next_offset)
                assert all(each.sequences is not None for each in chunk.skipped), "nothing that has offsets is left out"
                given += [Planned(frame.base_offset, frame.data) for frame in chunk.frames]
        finally:
            reader.close()
        assert given == wanted

    @invariant()
    def durable_bounds_hold(self) -> None:
        if getattr(self, "opened", None) is None:
            return
        log = self.log.log
        assert log.lowest_offset <= log.next_offset
        assert log.next_offset >= self.model.acknowledged
        bounds = log.bounds()
        assert (bounds.lowest_offset, bounds.next_offset) == (log.lowest_offset, log.next_offset)
        for state in (*bounds.origins.values(), *log.planned_origins.values()):
            assert state.low <= state.next
            assert all(state.low <= first < following <= state.next for first, following in state.gaps)
        assert Position.decode(log.position.encode()) == log.position

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        if self.opened is not None:
            self.restart(Loss.MIX)
        self.disk.clear_faults()
        self.try_to_open()
        self.log.append_values(b"last")
        self.log.close()
        opened = OpenLog.open(self.disk, 1, lambda: self.wall, self.config, lambda: self.lived)
        assert opened.log.report.is_clean
        assert read_all(opened.log)[-1].data.endswith(b"last")
        opened.close()
        assert not self.disk.open_files


def note_next(model: Model, origin: Origin, following: int) -> None:
    model.acknowledged_next[origin] = max(model.acknowledged_next.get(origin, 0), following)


@pytest.mark.parametrize("times", [2, pytest.param(12, marks=pytest.mark.system)])
def test_log_against_the_model(times: int) -> None:
    # Shrinking a failure takes longer than finding one; the steps of the failing run are printed either way.
    phases = [phase for phase in settings().phases if phase is not Phase.shrink]
    examples = times * settings().max_examples
    run_state_machine_as_test(
        LogMachine, settings=settings(max_examples=examples, stateful_step_count=40, phases=phases)
    )
