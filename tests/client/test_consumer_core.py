"""The consumer's core against nodes on a lossy link: no gap, no repeat, whatever breaks and whichever node goes on."""

from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from attrs import Factory, define
from betterproto2 import which_one_of
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proglog_trio._proto.log.v1 import (
    ConsumeBatchesRequest,
    ConsumeBatchesRequestAnchor,
    ConsumeBatchesResponse,
    Skipped,
)
from proglog_trio.client.config import Anchor, ConsumerConfig
from proglog_trio.client.consumed_batch import ConsumedBatch
from proglog_trio.client.consumer_core import ConsumerCore
from proglog_trio.client.errors import (
    ConsumerError,
    NodeUnreachable,
    RecordsLost,
    StartOutOfRange,
)
from proglog_trio.client.prefetch import PrefetchShares, waiting_bytes
from proglog_trio.errors import PositionError
from proglog_trio.log.format.frame import Frame, FrameHeader
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.record import pack_values, payload_crc
from proglog_trio.rpc.calls.sessions import StreamBroken
from proglog_trio.rpc.calls.status_code import StatusCode

ORIGINS = [Origin(bytes([number]) * 16) for number in range(3)]


def make_frame(origin: Origin, base_sequence: int, count: int, *, values: list[bytes] | None = None) -> Frame:
    if values is None:
        values = [b"%d.%d" % (origin.data[0], base_sequence + index) for index in range(count)]
    payload = pack_values(values)
    header = FrameHeader(origin, base_sequence, count, base_sequence + 1, len(payload), payload_crc(payload))
    return Frame(header.sealed(), payload)


@define
class Node:
    """A log of frames at offsets, read as a node reads it."""

    frames: list[tuple[int, Frame]] = Factory(list)
    next_offset: int = 0

    def append(self, frame: Frame) -> None:
        self.frames.append((self.next_offset, frame))
        self.next_offset += frame.header.count

    def has(self, origin: Origin) -> int:
        return max((frame.header.next_sequence for _, frame in self.frames if frame.header.origin == origin), default=0)

    def serve(self, request: ConsumeBatchesRequest) -> tuple[Position, list[tuple[int, Frame]]]:
        """Return the position of the start, and the frames from there to the end."""
        if request.position is not None:
            position = Position.decode(request.position)
            frames = [
                (offset, frame)
                for offset, frame in self.frames
                if not position.covers(frame.header.origin, frame.header.base_sequence, frame.header.count)
            ]
            return position, frames
        offset = request.offset or 0
        if request.anchor is not None:
            offset = self.next_offset if request.anchor == ConsumeBatchesRequestAnchor.END else 0
        position = Position.empty()
        frames = []
        for base, frame in self.frames:
            if base + frame.header.count <= offset:
                position = position.advanced(
                    frame.header.origin, frame.header.base_sequence, frame.header.next_sequence
                )
            else:
                frames.append((base, frame))
        return position, frames


@define
class Stream:
    """One stream: what the node still has to send on it."""

    node: Node
    start: Position
    frames: list[tuple[int, Frame]]
    seen: int
    first: bool = True

    def answer(self, most: int) -> ConsumeBatchesResponse:
        self.frames += self.node.frames[self.seen :]
        self.seen = len(self.node.frames)
        part, self.frames = self.frames[:most], self.frames[most:]
        answer = ConsumeBatchesResponse(
            frames=b"".join(frame.encode() for _, frame in part),
            base_offsets=[offset for offset, _ in part],
            end_offset=self.node.next_offset,
        )
        if self.first:
            answer.position = self.start.encode()
            self.first = False
        return answer


class LossyLink(RuleBasedStateMachine):
    """Three origins, two nodes that have their frames in different orders, one consumer that goes from one to the
    other."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = [Node(), Node()]
        self.core: ConsumerCore | None = None
        self.stream: Stream | None = None
        self.delivered: list[tuple[Origin, int]] = []
        self.begun: dict[Origin, int] = {}
        self.position: bytes | None = None

    @rule(origin=st.sampled_from(ORIGINS), count=st.integers(1, 4))
    def append(self, origin: Origin, count: int) -> None:
        node = self.nodes[0]
        node.append(make_frame(origin, node.has(origin), count))

    @rule(origin=st.sampled_from(ORIGINS), most=st.integers(1, 3))
    def replicate(self, origin: Origin, most: int) -> None:
        have = self.nodes[1].has(origin)
        missing = [
            frame
            for _, frame in self.nodes[0].frames
            if frame.header.origin == origin and frame.header.base_sequence >= have
        ]
        for frame in missing[:most]:
            self.nodes[1].append(frame)

    @precondition(lambda self: self.core is None)
    @rule(data=st.data())
    def open(self, data: st.DataObject) -> None:
        node = self.nodes[0]
        start = data.draw(st.sampled_from(["offset", "lowest", "end"]))
        if start == "offset":
            offset = data.draw(st.integers(0, node.next_offset))
            config = ConsumerConfig(offset=offset)
        else:
            offset = node.next_offset if start == "end" else 0
            config = ConsumerConfig(anchor=Anchor.END if start == "end" else Anchor.LOWEST)
        self.core = ConsumerCore(config)
        # An anchor at the end is where the end is when the node first answers: so that answer comes at once.
        self.connect_to(node)
        self.answer(1)
        self.begun = dict.fromkeys(ORIGINS, 0)
        for base, frame in node.frames:
            for index in range(frame.header.count):
                if base + index < offset:
                    self.begun[frame.header.origin] = frame.header.base_sequence + index + 1

    def connect_to(self, node: Node) -> None:
        assert self.core is not None
        start, frames = node.serve(self.core.request())
        self.stream = Stream(node, start, frames, len(node.frames))

    @precondition(lambda self: self.core is not None and self.stream is None)
    @rule(which=st.integers(0, 1))
    def connect(self, which: int) -> None:
        self.connect_to(self.nodes[which])

    @precondition(lambda self: self.stream is not None)
    @rule(most=st.integers(0, 4))
    def answer(self, most: int) -> None:
        assert self.core is not None
        assert self.stream is not None
        self.core.received_answer(self.stream.answer(most))

    @precondition(lambda self: self.stream is not None)
    @rule(most=st.integers(1, 4), place=st.integers(0, 10**6), bit=st.integers(0, 7))
    def damaged_answer(self, most: int, place: int, bit: int) -> None:
        assert self.core is not None
        assert self.stream is not None
        answer = self.stream.answer(most)
        if not answer.frames:
            self.cut()
            return
        frames = bytearray(answer.frames)
        frames[place % len(frames)] ^= 1 << bit
        answer.frames = bytes(frames)
        with pytest.raises(StreamBroken, match="damaged"):
            self.core.received_answer(answer)
        if self.core.error is not None:
            self.core.error = None  # a caller who insists
        self.cut()

    @precondition(lambda self: self.stream is not None)
    @rule()
    def cut(self) -> None:
        assert self.core is not None
        self.stream = None
        self.core.stream_lost(StreamBroken("the connection was lost"), 0.0)

    @precondition(lambda self: self.core is not None)
    @rule(most=st.integers(1, 5))
    def deliver(self, most: int) -> None:
        assert self.core is not None
        for _ in range(most):
            batch = self.core.next_batch()
            if batch is None:
                return
            for record in batch:
                assert record.value == b"%d.%d" % (record.origin.data[0], record.sequence)
                self.delivered.append((record.origin, record.sequence))
            assert batch.next_offset == batch.base_offset + len(batch)
            self.position = batch.position

    @precondition(lambda self: self.position is not None)
    @rule(which=st.integers(0, 1), inside=st.booleans())
    def another_consumer_goes_on(self, which: int, inside: bool) -> None:
        """A program that restarts from the position it kept, maybe from inside the last batch."""
        assert self.position is not None
        position = Position.decode(self.position)
        if inside and len(self.delivered) > 1 and self.delivered[-1][1] > self.begun[self.delivered[-1][0]]:
            origin, sequence = self.delivered.pop()
            held = position.ranges[origin]
            assert held.next == sequence + 1
            ranges = {**position.ranges, origin: type(held)(min(held.low, sequence), sequence)}
            position = Position(ranges)
        self.core = ConsumerCore(ConsumerConfig(position=position.encode()))
        self.position = position.encode()
        self.connect_to(self.nodes[which])

    @invariant()
    def no_gap_and_no_repeat(self) -> None:
        following = dict(self.begun)
        for origin, sequence in self.delivered:
            assert sequence == following[origin]
            following[origin] += 1

    def teardown(self) -> None:
        if self.core is None:
            return
        self.connect_to(self.nodes[0])
        self.answer(10**6)
        self.deliver(10**6)
        self.no_gap_and_no_repeat()
        last = dict(self.begun)
        for origin, sequence in self.delivered:
            last[origin] = sequence + 1
        for origin in ORIGINS:
            assert last[origin] == max(self.nodes[0].has(origin), self.begun[origin])
        assert self.core.waiting_bytes == 0


TestLossyLink = LossyLink.TestCase
TestLossyLink.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def answer_of(*frames: tuple[int, Frame], skipped: Sequence[Skipped] = ()) -> ConsumeBatchesResponse:
    return ConsumeBatchesResponse(
        frames=b"".join(frame.encode() for _, frame in frames),
        base_offsets=[offset for offset, _ in frames],
        position=Position.empty().encode(),
        skipped=list(skipped),
    )


def take(core: ConsumerCore) -> ConsumedBatch:
    batch = core.next_batch()
    assert batch is not None
    return batch


def test_the_first_frame_is_trimmed_to_the_offset() -> None:
    core = ConsumerCore(ConsumerConfig(offset=12))
    core.request()
    core.received_answer(answer_of((10, make_frame(ORIGINS[0], 0, 5))))
    assert core.start is not None
    assert core.start.next_sequence(ORIGINS[0]) == 2
    batch = take(core)
    assert (batch.base_offset, batch.base_sequence, len(batch)) == (12, 2, 3)
    assert batch.values() == [b"0.2", b"0.3", b"0.4"]
    assert Position.decode(batch.position).next_sequence(ORIGINS[0]) == 5


def test_an_offset_inside_a_damaged_frame_is_asked_for_again() -> None:
    core = ConsumerCore(ConsumerConfig(offset=12))
    assert core.request().offset == 12
    answer = answer_of((10, make_frame(ORIGINS[0], 0, 5)))
    damaged = ConsumeBatchesResponse(
        frames=answer.frames[:-1], base_offsets=answer.base_offsets, position=answer.position
    )
    with pytest.raises(StreamBroken, match="damaged"):
        core.received_answer(damaged)
    assert core.request().offset == 12
    core.received_answer(answer)
    assert take(core).base_offset == 12


@pytest.mark.parametrize(
    ("config", "start"),
    [
        (ConsumerConfig(), "anchor"),
        (ConsumerConfig(anchor=Anchor.END), "anchor"),
        (ConsumerConfig(offset=0), "offset"),
        (ConsumerConfig(position=Position.empty().encode()), "position"),
    ],
)
def test_requests(config: ConsumerConfig, start: str) -> None:
    core = ConsumerCore(config)
    assert which_one_of(core.request(), "start")[0] == start
    core.received_answer(answer_of())
    assert which_one_of(core.request(), "start")[0] == "position", "from the first answer on, a position"


def test_prefetch_is_bounded() -> None:
    frame = make_frame(ORIGINS[0], 0, 1)
    core = ConsumerCore(ConsumerConfig(prefetch_bytes=16 * 1024))
    core.shares = PrefetchShares(0, waiting_bytes(len(frame.payload), 1) + 1, 0)
    core.received_answer(answer_of((0, frame)))
    assert core.has_room()
    core.received_answer(answer_of((1, make_frame(ORIGINS[0], 1, 1))))
    assert not core.has_room()
    take(core)
    assert core.has_room()


def test_control_frames_are_passed_over() -> None:
    core = ConsumerCore(ConsumerConfig())
    header = FrameHeader(ORIGINS[0], 0, 1, 1, 1, payload_crc(b"x"), must_understand=8)
    core.received_answer(answer_of((0, Frame(header.sealed(), b"x"))))
    assert core.next_batch() is None


def test_skipped_ranges_are_told_once() -> None:
    core = ConsumerCore(ConsumerConfig(on_missing="skip"))
    gone = Skipped(from_offset=0, to_offset=4, reason="retention removed them")
    core.received_answer(answer_of(skipped=[gone]))
    core.stream_lost(StreamBroken("lost"), 0.0)
    core.request()
    core.received_answer(
        answer_of((6, make_frame(ORIGINS[0], 6, 1)), skipped=[gone, Skipped(from_offset=3, to_offset=6)])
    )
    assert [(each.from_offset, each.to_offset) for each in take(core).skipped] == [(0, 4), (4, 6)]
    assert core.skipped_at_end() == ()


def test_damage_that_stays_ends_in_an_error() -> None:
    core = ConsumerCore(ConsumerConfig())
    damaged = bytearray(make_frame(ORIGINS[0], 0, 1).encode())
    damaged[-1] ^= 1
    for attempt in range(3):
        core.request()
        assert core.error is None, attempt
        with pytest.raises(StreamBroken, match="offset 7") as caught:
            core.received_answer(
                ConsumeBatchesResponse(frames=bytes(damaged), base_offsets=[7], position=Position.empty().encode())
            )
        core.stream_lost(caught.value, float(attempt))
    assert isinstance(core.error, RecordsLost)


def test_frames_without_offsets_are_damage() -> None:
    core = ConsumerCore(ConsumerConfig())
    answer = answer_of((0, make_frame(ORIGINS[0], 0, 1)), (1, make_frame(ORIGINS[0], 1, 1)))
    del answer.base_offsets[1]
    with pytest.raises(StreamBroken, match="bytes follow the 1 frames"):
        core.received_answer(answer)
    assert len(take(core)) == 1, "what is whole was taken in"


def test_a_bad_position_from_the_node_is_damage() -> None:
    core = ConsumerCore(ConsumerConfig())
    with pytest.raises(StreamBroken, match="position"):
        core.received_answer(ConsumeBatchesResponse(position=b"nonsense"))


def test_a_bad_position_of_the_caller() -> None:
    with pytest.raises(PositionError):
        ConsumerCore(ConsumerConfig(position=b"nonsense"))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (StatusCode.OUT_OF_RANGE, StartOutOfRange),
        (StatusCode.DATA_LOSS, RecordsLost),
        (StatusCode.PERMISSION_DENIED, ConsumerError),
    ],
)
def test_final_statuses(status: StatusCode, error: type[ConsumerError]) -> None:
    core = ConsumerCore(ConsumerConfig())
    core.stream_lost(StreamBroken("why", status), 0.0)
    assert type(core.error) is error
    assert isinstance(core.error, ConsumerError)
    assert core.error.status is status
    core.stream_lost(StreamBroken("later", StatusCode.UNIMPLEMENTED), 1.0)
    assert core.error.status is status, "the first reason stays"


def test_reconnecting_has_a_bound() -> None:
    core = ConsumerCore(ConsumerConfig(reconnect_timeout=10.0))
    core.stream_lost(StreamBroken("refused"), 5.0)
    core.stream_lost(StreamBroken("refused"), 14.9)
    assert core.error is None
    core.received_answer(answer_of())
    core.stream_lost(StreamBroken("refused"), 16.0)
    core.stream_lost(StreamBroken("refused"), 25.9)
    core.failures.answered()
    core.stream_lost(StreamBroken("refused"), 30.0)
    assert core.error is None
    core.stream_lost(StreamBroken("refused"), 40.0)
    assert isinstance(core.error, NodeUnreachable)
    assert "no answer for 10 s: refused" in str(core.error)


def test_the_end() -> None:
    following = ConsumerCore(ConsumerConfig())
    with pytest.raises(StreamBroken, match="ended the stream"):
        following.stream_ended()
    reading = ConsumerCore(ConsumerConfig(follow=False))
    assert reading.request().until_end
    reading.stream_ended()
    assert reading.ended
