from __future__ import annotations

import random

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.errors import LogBusy
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.frame import MUST_UNDERSTAND_CONTROL, Frame
from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.applier import Allowed, Applier, Outcome
from proglog_trio.replication.events import Diverged, GapMarked, PeerLied, ReplicationEvent
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.messages import Hello
from tests.log.driving import DIRECTORY, ForeignLog, OpenLog, batch_of
from tests.log.simulated_disk import SimulatedDisk


class World:
    def __init__(self, config: LogConfig | None = None) -> None:
        self.opened = OpenLog.open(SimulatedDisk(), config=config)
        self.events: list[ReplicationEvent] = []
        hello = Hello("proglog", "me", self.opened.log.directory_id, 1)
        node = LocalNode(self.opened.log, hello, lambda: 0.0, self.events.append)
        self.counters = node.counters
        self.applier = Applier(node, "peer")
        self.foreign = ForeignLog.make(1)
        self.allowed: Allowed | None = Allowed(is_only_answer=True, gap_to=None)

    def write(self, *values: bytes) -> Frame:
        return self.foreign.write(batch_of(*values))

    def apply(self, frame: Frame | bytes) -> Outcome:
        data = frame.encode() if isinstance(frame, Frame) else frame
        return self.applier.apply(data, 0, lambda _origin: self.allowed)[1]

    @property
    def next(self) -> int:
        origin = self.foreign.frames[0].header.origin
        state = self.opened.log.planned_origins.get(origin)
        return 0 if state is None else state.next


def test_frames_are_applied_in_their_order_and_dropped_the_second_time() -> None:
    world = World()
    first, second = world.write(b"1", b"2"), world.write(b"3")
    assert [world.apply(frame) for frame in (first, second, first, second)] == [
        Outcome.APPLIED,
        Outcome.APPLIED,
        Outcome.DROPPED,
        Outcome.DROPPED,
    ]
    assert world.next == 3
    counters = world.counters
    assert (counters.frames_applied, counters.records_applied, counters.frames_dropped) == (2, 3, 2)
    assert counters.bytes_applied == counters.bytes_dropped == first.length + second.length


def test_a_frame_out_of_turn_is_a_lie_from_one_who_was_asked_once() -> None:
    world = World()
    world.write(b"1")
    second = world.write(b"2")
    with pytest.raises(PeerLied, match=r"sends sequence 1 of origin \w+, where 0 comes next"):
        world.apply(second)
    world.allowed = Allowed(is_only_answer=False, gap_to=None)
    assert world.apply(second) is Outcome.AHEAD
    assert world.next == 0


def test_an_origin_that_was_not_asked_for_is_a_lie() -> None:
    world = World()
    world.allowed = None
    with pytest.raises(PeerLied, match="was not asked for"):
        world.apply(world.write(b"1"))


def test_a_permitted_gap_is_marked_and_the_log_goes_on_after_it() -> None:
    world = World()
    first, *_, last = [world.write(b"1"), world.write(b"2", b"3"), world.write(b"4")]
    world.apply(first)
    world.allowed = Allowed(is_only_answer=True, gap_to=3, is_final=True)
    assert world.apply(last) is Outcome.APPLIED
    world.opened.commit()
    origin = last.header.origin
    assert world.opened.log.origins[origin].gaps == ((1, 3),)
    assert world.events == [GapMarked(origin, 1, 3, "no node has them")]
    assert world.counters.records_missing == 2
    world.allowed = Allowed(is_only_answer=True, gap_to=9)
    world.write(b"5")
    after_another_gap = world.write(b"6")
    with pytest.raises(PeerLied):
        world.apply(after_another_gap)


def test_a_frame_that_straddles_is_a_divergence() -> None:
    world = World()
    first = world.write(b"1")
    world.apply(first)
    other = Frame(evolve(first.header, count=2).sealed(), first.payload)
    assert world.apply(other) is Outcome.DIVERGED
    (event,) = world.events
    assert isinstance(event, Diverged)
    assert "straddles" in event.there
    assert world.next == 1


def test_a_frame_after_another_predecessor_is_a_divergence() -> None:
    world = World()
    world.apply(world.write(b"1"))
    second = world.write(b"2")
    other = Frame(evolve(second.header, previous_header_crc=1).sealed(), second.payload)
    assert world.apply(other) is Outcome.DIVERGED
    (event,) = world.events
    assert isinstance(event, Diverged)
    assert "0x00000001" in event.there
    assert world.apply(second) is Outcome.APPLIED


def test_control_frames_do_not_travel() -> None:
    world = World()
    first = world.write(b"1")
    control = Frame(evolve(first.header, must_understand=MUST_UNDERSTAND_CONTROL).sealed(), first.payload)
    with pytest.raises(PeerLied, match="without records"):
        world.apply(control)


def test_time_does_not_go_back_within_an_origin() -> None:
    world = World()
    world.apply(world.write(b"1"))
    second = world.write(b"2")
    older = Frame(evolve(second.header, log_time=0).sealed(), second.payload)
    with pytest.raises(PeerLied, match="older"):
        world.apply(older)


def test_a_full_log_is_no_fault_of_the_peer() -> None:
    world = World(LogConfig(DIRECTORY, max_pending_bytes=1))
    first, second = world.write(b"1"), world.write(b"2")
    world.apply(first)
    with pytest.raises(LogBusy):
        world.apply(second)
    world.opened.commit()
    assert world.apply(second) is Outcome.APPLIED


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_lie(data: bytes) -> None:
    with pytest.raises(PeerLied):
        World().apply(data)


@given(st.integers(0, 2**32), st.integers(1, 255))
def test_one_changed_byte_is_a_lie(place: int, bits: int) -> None:
    world = World()
    data = bytearray(world.write(b"some value", b"another").encode())
    data[place % len(data)] ^= bits
    with pytest.raises(PeerLied):
        world.apply(bytes(data))
    assert world.next == 0


def test_several_frames_stand_one_after_the_other() -> None:
    world = World()
    frames = [world.write(random.Random(number).randbytes(number)) for number in range(1, 5)]
    data = b"".join(frame.encode() for frame in frames)
    place = 0
    for frame in frames:
        applied, outcome = world.applier.apply(data, place, lambda _origin: world.allowed)
        assert (applied, outcome) == (frame, Outcome.APPLIED)
        place += frame.length
    assert world.next == 4
    assert isinstance(frames[0].header.origin, Origin)
