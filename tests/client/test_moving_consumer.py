"""A consumer that goes from node to node: each record once, in the order of its origin, without a gap.

Producers go from node to node too, so batches exist under two origins. Nodes die and come back (under a new origin, as
a log that is opened again has), pull each other's frames as far as they have got, and lose their oldest records to
retention, except for one node that keeps all.
"""

import random

import hypothesis.strategies as st
import pytest
from attrs import Factory, define
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proglog_trio._proto.log.v1 import (
    ConsumeBatchesRequest,
    ConsumeBatchesRequestAnchor,
    ConsumeBatchesResponse,
    Skipped,
)
from proglog_trio.client.config import Anchor, ConsumerConfig
from proglog_trio.client.consumer_core import ConsumerCore
from proglog_trio.client.errors import ConsumerError, NodeUnreachable, RecordsLost, StartOutOfRange
from proglog_trio.client.nodes import NodeList
from proglog_trio.log.format.frame import Frame, FrameHeader
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.record import pack_values, payload_crc
from proglog_trio.rpc.calls.sessions import StreamBroken
from proglog_trio.rpc.calls.status_code import StatusCode
from tests.client.test_consumer_core import ORIGINS, answer_of, make_frame, take

ADDRESSES = ("keeper:1", "second:1", "third:1")
PRODUCERS = (1, 2, 3)
MAX_SEQUENCES = 14
"""So that no producer can have more runs than the consumer remembers."""


def make_batch(origin: Origin, base_sequence: int, producer: int, sequence: int) -> Frame:
    count = 1 + (producer + sequence) % 4
    payload = pack_values([b"%d.%d.%d" % (producer, sequence, index) for index in range(count)])
    header = FrameHeader(
        origin,
        base_sequence,
        count,
        base_sequence + 1,
        len(payload),
        payload_crc(payload),
        producer_id=producer,
        producer_sequence=sequence,
    )
    return Frame(header.sealed(), payload)


@define
class Node:
    """A log that keeps its rules: each origin without gaps, a producer's batch at most once by its own append."""

    address: str
    origin: Origin
    up: bool = True
    frames: list[tuple[int, Frame]] = Factory(list)
    next_offset: int = 0
    low: dict[Origin, int] = Factory(dict)
    has: dict[Origin, int] = Factory(dict)
    batches: set[tuple[int, int]] = Factory(set)

    def append(self, frame: Frame) -> None:
        header = frame.header
        assert header.base_sequence == self.has.get(header.origin, 0)
        self.frames.append((self.next_offset, frame))
        self.next_offset += header.count
        self.has[header.origin] = header.next_sequence
        self.batches.add((header.producer_id, header.producer_sequence))

    def store(self, producer: int, sequence: int) -> None:
        if (producer, sequence) not in self.batches:
            self.append(make_batch(self.origin, self.has.get(self.origin, 0), producer, sequence))

    def pull(self, other: "Node", most: int) -> None:
        for _, frame in other.frames:
            if most and frame.header.base_sequence == self.has.get(frame.header.origin, 0):
                self.append(frame)
                most -= 1

    def remove_oldest(self, count: int) -> None:
        for _, frame in self.frames[:count]:
            self.low[frame.header.origin] = frame.header.next_sequence
        del self.frames[:count]

    def serve(self, request: ConsumeBatchesRequest) -> tuple[Position, list[tuple[int, Frame]]]:
        """Return the position of the start, and the frames from there to the end; raises StreamBroken."""
        if request.position is not None:
            position = Position.decode(request.position)
            for origin, low in self.low.items():
                if position.next_sequence(origin) < low:
                    raise StreamBroken(
                        f"sequence {position.next_sequence(origin)} was removed", StatusCode.OUT_OF_RANGE
                    )
            return position, [
                (offset, frame)
                for offset, frame in self.frames
                if not position.covers(frame.header.origin, frame.header.base_sequence, frame.header.count)
            ]
        position = Position.empty()
        offset = request.offset or 0
        if request.anchor is not None:
            offset = self.next_offset if request.anchor == ConsumeBatchesRequestAnchor.END else 0
        for origin, low in self.low.items():
            position = position.advanced(origin, 0, low)
        frames = []
        for base, frame in self.frames:
            if base + frame.header.count <= offset:
                position = position.advanced(frame.header.origin, 0, frame.header.next_sequence)
            else:
                frames.append((base, frame))
        return position, frames


@define
class Stream:
    node: Node
    start: Position
    frames: list[tuple[int, Frame]]
    seen: int
    first: bool = True

    def answer(self, most: int) -> ConsumeBatchesResponse:
        self.frames += [item for item in self.node.frames if item[0] >= self.seen]
        self.seen = self.node.next_offset
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


class MovingConsumer(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.origins = 0
        self.nodes = {address: Node(address, self.new_origin()) for address in ADDRESSES}
        self.next_sequence = dict.fromkeys(PRODUCERS, 0)
        self.unanswered: dict[int, list[int]] = {producer: [] for producer in PRODUCERS}
        self.core: ConsumerCore | None = None
        self.list = NodeList(ADDRESSES, random.Random(0))
        self.stream: Stream | None = None
        self.begun = Position.empty()
        self.delivered: list[tuple[Origin, int, bytes]] = []
        self.positions: list[tuple[bytes, int]] = []
        self.before_start: set[bytes] = set()

    def new_origin(self) -> Origin:
        self.origins += 1
        return Origin(self.origins.to_bytes(16, "big"))

    # -- the cluster ---------------------------------------------------------------------------------------------------

    @rule(
        producer=st.sampled_from(PRODUCERS),
        address=st.sampled_from(ADDRESSES),
        new=st.integers(0, 3),
        lost=st.integers(0, 3),
    )
    def produce(self, producer: int, address: str, new: int, lost: int) -> None:
        """Send what was not answered and some more to a node, which stores it; the last answers are lost."""
        node = self.nodes[address]
        if not node.up:
            return
        first = self.next_sequence[producer]
        self.next_sequence[producer] = min(first + new, MAX_SEQUENCES)
        sending = [*self.unanswered[producer], *range(first, self.next_sequence[producer])]
        for sequence in sending:
            node.store(producer, sequence)
        self.unanswered[producer] = sending[len(sending) - min(lost, len(sending)) :]

    @rule(
        producer=st.sampled_from(PRODUCERS),
        first=st.sampled_from(ADDRESSES),
        second=st.sampled_from(ADDRESSES),
        new=st.integers(1, 3),
    )
    def fail_over(self, producer: int, first: str, second: str, new: int) -> None:
        self.produce(producer, first, new, new)
        self.produce(producer, second, 0, 0)

    @rule(to=st.sampled_from(ADDRESSES), source=st.sampled_from(ADDRESSES), most=st.integers(1, 8))
    def pull(self, to: str, source: str, most: int) -> None:
        if self.nodes[to].up and self.nodes[source].up:
            self.nodes[to].pull(self.nodes[source], most)

    @rule(address=st.sampled_from(ADDRESSES))
    def die(self, address: str) -> None:
        self.nodes[address].up = False
        if self.stream is not None and self.stream.node.address == address:
            self.cut()

    @rule(address=st.sampled_from(ADDRESSES))
    def come_back(self, address: str) -> None:
        node = self.nodes[address]
        if not node.up:
            node.up = True
            node.origin = self.new_origin()

    @rule(address=st.sampled_from(ADDRESSES[1:]), most=st.integers(1, 5))
    def retain(self, address: str, most: int) -> None:
        """Remove the oldest frames, of those that the keeper has."""
        node, keeper = self.nodes[address], self.nodes[ADDRESSES[0]]
        count = 0
        for _, frame in node.frames[:most]:
            if frame.header.next_sequence > keeper.has.get(frame.header.origin, 0):
                break
            count += 1
        node.remove_oldest(count)

    # -- the consumer --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.core is None)
    @rule(data=st.data())
    def open(self, data: st.DataObject) -> None:
        node = self.nodes[ADDRESSES[0]]
        start = data.draw(st.sampled_from(["offset", "lowest", "end"]))
        if start == "offset":
            offset = data.draw(st.integers(0, node.next_offset))
            self.core = ConsumerCore(ConsumerConfig(offset=offset))
            assert self.core.bound_to_first_node
        else:
            offset = node.next_offset if start == "end" else 0
            self.core = ConsumerCore(ConsumerConfig(anchor=Anchor.END if start == "end" else Anchor.LOWEST))
        node.up = True
        self.connect_to(node)
        self.answer(1)
        assert not self.core.bound_to_first_node
        for base, frame in node.frames:
            header = frame.header
            before = min(max(offset - base, 0), header.count)
            if before:
                self.begun = self.begun.advanced(header.origin, 0, header.base_sequence + before)
            if before < header.count:
                # A copy of a batch that the start lies in is a copy of the whole.
                names = (header.producer_id, header.producer_sequence)
                self.before_start.update(b"%d.%d.%d" % (*names, index) for index in range(before))

    def connect_to(self, node: Node) -> None:
        assert self.core is not None
        self.core.stream_to(node.address)
        start, frames = node.serve(self.core.request())
        self.stream = Stream(node, start, frames, node.next_offset)

    @precondition(lambda self: self.core is not None and self.stream is None)
    @rule()
    def connect(self) -> None:
        assert self.core is not None
        node = self.nodes[self.list.move(0.0, self.core.failures.lacking)]
        try:
            if not node.up:
                self.core.stream_to(node.address)
                raise StreamBroken("connection refused")
            self.connect_to(node)
        except StreamBroken as failure:
            self.lose(failure)

    @precondition(lambda self: self.stream is not None)
    @rule(most=st.integers(0, 4))
    def answer(self, most: int) -> None:
        assert self.core is not None
        assert self.stream is not None
        self.list.worked(self.stream.node.address)
        self.core.received_answer(self.stream.answer(most))

    @precondition(lambda self: self.stream is not None)
    @rule()
    def cut(self) -> None:
        self.lose(StreamBroken("the connection was lost"))

    def lose(self, failure: StreamBroken) -> None:
        assert self.core is not None
        self.stream = None
        self.list.failed(self.list.current)
        self.core.stream_lost(failure, 0.0, ADDRESSES)
        assert self.core.error is None, "the keeper has everything"

    @precondition(lambda self: self.core is not None)
    @rule(most=st.integers(1, 5))
    def deliver(self, most: int) -> None:
        assert self.core is not None
        for _ in range(most):
            batch = self.core.next_batch()
            if batch is None:
                return
            assert batch.node in ADDRESSES
            for index, record in enumerate(batch):
                offsets = dict(self.nodes[record.node].frames)
                assert record.offset - batch.first - index in offsets or self.nodes[record.node].low
                self.positions.append((batch.encoded_position_after(index), len(self.delivered)))
                self.delivered.append((record.origin, record.sequence, record.value))
            self.positions.append((batch.position, len(self.delivered)))

    @precondition(lambda self: self.positions)
    @rule(back=st.integers(1, 6))
    def another_consumer_goes_on(self, back: int) -> None:
        """A program that restarts from a position it kept, maybe from inside a batch."""
        del self.positions[max(len(self.positions) - back + 1, 1) :]
        position, count = self.positions[-1]
        del self.delivered[count:]
        self.core = ConsumerCore(ConsumerConfig(position=position))
        self.stream = None

    @invariant()
    def each_record_once_and_in_the_order_of_its_origin(self) -> None:
        values = [value for _, _, value in self.delivered]
        assert len(set(values)) == len(values)
        last: dict[Origin, int] = {}
        for origin, sequence, _ in self.delivered:
            assert sequence > last.get(origin, -1)
            assert sequence >= self.begun.next_sequence(origin)
            last[origin] = sequence

    def teardown(self) -> None:
        if self.core is None:
            return
        nodes = list(self.nodes.values())
        for node in nodes:
            node.up = True
        for _ in range(len(nodes) * self.origins):
            for node in nodes:
                for other in nodes:
                    node.pull(other, 10**6)
        keeper = nodes[0]
        for _ in range(10):
            if self.stream is None:
                self.connect()
            if self.stream is not None:
                self.answer(10**6)
                self.deliver(10**6)
        self.each_record_once_and_in_the_order_of_its_origin()
        assert self.core.waiting_bytes == 0
        # Without a gap: what is not delivered under its own name is so under that of its copy.
        delivered = {(origin, sequence) for origin, sequence, _ in self.delivered}
        values = {value for _, _, value in self.delivered} | self.before_start
        for _, frame in keeper.frames:
            header = frame.header
            for index in range(header.count):
                sequence = header.base_sequence + index
                if sequence >= self.begun.next_sequence(header.origin) and (header.origin, sequence) not in delivered:
                    assert b"%d.%d.%d" % (header.producer_id, header.producer_sequence, index) in values


TestMovingConsumer = MovingConsumer.TestCase
TestMovingConsumer.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=60)


# -- one thing at a time -----------------------------------------------------------------------------------------------

A, B = ORIGINS[:2]


def batch(origin: Origin, base_sequence: int, sequence: int, count: int = 1) -> Frame:
    """Batch number sequence of producer 7, with the same records under each origin."""
    payload = pack_values([b"%d.%d" % (sequence, index) for index in range(count)])
    crc = payload_crc(payload)
    header = FrameHeader(origin, base_sequence, count, 1, len(payload), crc, producer_id=7, producer_sequence=sequence)
    return Frame(header.sealed(), payload)


def values(core: ConsumerCore) -> list[bytes]:
    found = []
    while (each := core.next_batch()) is not None:
        found += each.values()
    return found


def test_the_copy_that_is_met_first_is_delivered() -> None:
    """A has 1, 2 and 3, whose answer was lost; B has 3 again, and 4: the consumer meets B's first."""
    core = ConsumerCore(ConsumerConfig())
    core.received_answer(answer_of((0, batch(B, 0, 3)), (1, batch(B, 1, 4))))
    assert values(core) == [b"3.0", b"4.0"]
    core.received_answer(answer_of((2, batch(A, 0, 1)), (3, batch(A, 1, 2)), (4, batch(A, 2, 3)), (5, batch(A, 3, 5))))
    assert values(core) == [b"1.0", b"2.0", b"5.0"], "1 and 2 are new, though they come late"
    assert core.duplicate_records == 1
    assert core.received is not None
    assert core.received.next_sequence(A) == 4


def test_without_remembered_producers_both_copies_are_delivered() -> None:
    core = ConsumerCore(ConsumerConfig(remembered_producers=0))
    core.received_answer(answer_of((0, batch(A, 0, 1)), (1, batch(B, 0, 1))))
    assert values(core) == [b"1.0", b"1.0"]


@pytest.mark.parametrize("own_first", [False, True])
def test_the_rest_of_a_batch_comes_from_either_copy(own_first: bool) -> None:
    core = ConsumerCore(ConsumerConfig())
    core.received_answer(answer_of((0, batch(A, 0, 1, 5))))
    inside = take(core).encoded_position_after(2)
    core = ConsumerCore(ConsumerConfig(position=inside))
    frames = [(0, batch(A, 0, 1, 5)), (5, batch(B, 0, 1, 5)), (10, batch(B, 5, 2))]
    if not own_first:
        frames = [(0, batch(B, 0, 1, 5)), (5, batch(A, 0, 1, 5)), (10, batch(B, 5, 2))]
    core.received_answer(answer_of(*frames))
    rest = take(core)
    assert rest.values() == [b"1.2", b"1.3", b"1.4"]
    assert (rest.origin, rest.base_offset, rest.base_sequence) == (A if own_first else B, 2, 2)
    in_the_rest = rest.encoded_position_after(1)
    assert values(core) == [b"2.0"]
    # And again from inside what is left, wherever it comes from.
    core = ConsumerCore(ConsumerConfig(position=in_the_rest))
    core.received_answer(answer_of(*reversed(frames[:2]), frames[2]))
    assert values(core) == [b"1.3", b"1.4", b"2.0"]


def test_what_is_missing_before_a_copy_is_told_with_what_follows() -> None:
    core = ConsumerCore(ConsumerConfig(on_missing="skip"))
    core.received_answer(answer_of((0, batch(A, 0, 1))))
    take(core)
    core.received_answer(answer_of((5, batch(B, 3, 1))))
    assert core.next_batch() is None
    core.received_answer(answer_of((6, batch(B, 4, 2))))
    (skipped,) = take(core).skipped
    assert (skipped.from_offset, skipped.count) == (5, 0)
    assert skipped.reason == f"sequences 0 to 2 of origin {B} are missing"


def test_what_has_no_offsets_is_told_once_and_passed() -> None:
    core = ConsumerCore(ConsumerConfig(on_missing="skip"))
    core.received_answer(answer_of((0, batch(A, 0, 1))))
    take(core)
    answer = answer_of((1, batch(B, 0, 2)))
    answer.skipped = [Skipped(from_offset=1, to_offset=1, reason="why", origin=A.data, from_sequence=1, to_sequence=7)]
    for _ in range(2):
        core.received_answer(answer)
    (skipped,) = take(core).skipped
    assert (skipped.count, skipped.reason) == (0, f"sequences 1 to 6 of origin {A} are missing: why")
    assert core.received is not None
    assert core.received.next_sequence(A) == 7
    assert core.next_batch() is None
    assert core.skipped_at_end() == ()


def lose(core: ConsumerCore, node: str, status: StatusCode | None, now: float = 0.0) -> None:
    core.stream_to(node)
    core.request()
    core.stream_lost(StreamBroken("why", status), now, ADDRESSES)


@pytest.mark.parametrize(
    ("statuses", "error"),
    [
        ([StatusCode.DATA_LOSS, StatusCode.DATA_LOSS, StatusCode.DATA_LOSS], None),
        ([StatusCode.OUT_OF_RANGE, StatusCode.DATA_LOSS, StatusCode.OUT_OF_RANGE], None),
        ([StatusCode.OUT_OF_RANGE, StatusCode.OUT_OF_RANGE, StatusCode.OUT_OF_RANGE], StartOutOfRange),
    ],
)
def test_what_may_turn_up_is_waited_for(statuses: list[StatusCode], error: type[Exception] | None) -> None:
    core = ConsumerCore(ConsumerConfig(on_missing="wait", reconnect_timeout=60.0))
    core.received_answer(answer_of((0, batch(A, 0, 1))))
    take(core)
    for now in (0.0, 1000.0, 2000.0):
        for node, status in zip(ADDRESSES, statuses, strict=True):
            lose(core, node, status, now)
        if error is not None:
            assert isinstance(core.error, error)
            return
        assert core.error is None
        assert core.failures.waits_for is not None
    core.stream_to(ADDRESSES[1])
    core.request()
    core.received_answer(answer_of((7, batch(A, 1, 2))))
    assert core.failures.waits_for is None
    assert values(core) == [b"2.0"]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (StatusCode.OUT_OF_RANGE, StartOutOfRange),
        (StatusCode.DATA_LOSS, RecordsLost),
        (StatusCode.RESOURCE_EXHAUSTED, ConsumerError),
    ],
)
def test_the_error_comes_when_no_node_is_left(status: StatusCode, error: type[ConsumerError]) -> None:
    core = ConsumerCore(ConsumerConfig(position=Position.empty().encode()))
    for node in ADDRESSES[:2]:
        lose(core, node, status)
        assert core.error is None
    assert set(core.failures.lacking) == set(ADDRESSES[:2])
    lose(core, ADDRESSES[2], None)
    assert core.error is None, "it may have them, once it can be reached"
    lose(core, ADDRESSES[2], status)
    assert isinstance(core.error, error)
    assert str(core.error).startswith("; ".join(f"{node}: why" for node in ADDRESSES))


def test_who_lacked_what_was_next_is_asked_again_later() -> None:
    core = ConsumerCore(ConsumerConfig(position=Position.empty().encode()))
    lose(core, ADDRESSES[0], StatusCode.OUT_OF_RANGE)
    core.stream_to(ADDRESSES[1])
    core.request()
    core.received_answer(answer_of())
    assert core.failures.lacking, "an answer with nothing in it is not what was lacking"
    core.received_answer(answer_of((0, batch(A, 0, 1))))
    assert not core.failures.lacking
    for node in ADDRESSES[1:]:
        lose(core, node, StatusCode.OUT_OF_RANGE)
        assert core.error is None


def test_the_error_says_what_was_lacking_when_the_others_stay_away() -> None:
    core = ConsumerCore(ConsumerConfig(position=Position.empty().encode(), reconnect_timeout=10.0))
    lose(core, ADDRESSES[0], StatusCode.OUT_OF_RANGE, 0.0)
    lose(core, ADDRESSES[1], None, 9.9)
    assert core.error is None
    lose(core, ADDRESSES[1], None, 10.0)
    assert isinstance(core.error, StartOutOfRange)


def ending_at(position: Position, **options: float) -> ConsumerCore:
    """A consumer that opened at the first address, whose log then ended at a position."""
    core = ConsumerCore(ConsumerConfig(follow=False, **options))  # type: ignore[arg-type]  # all of them are floats
    core.stream_to(ADDRESSES[0])
    assert core.asks_end
    assert core.end_request().anchor == ConsumeBatchesRequestAnchor.END
    core.received_end(ConsumeBatchesResponse(position=position.encode()))
    assert not core.asks_end
    core.request()
    return core


def test_the_end_is_that_of_the_node_that_was_opened() -> None:
    core = ending_at(Position.empty().advanced(A, 0, 2).advanced(B, 0, 1))
    core.received_answer(answer_of((0, batch(A, 0, 1))))
    core.stream_to(ADDRESSES[1])
    core.request()
    core.received_answer(answer_of((0, batch(B, 0, 5))))
    with pytest.raises(StreamBroken, match="second:1 does not have all that keeper:1 had") as caught:
        core.stream_ended()
    core.stream_lost(caught.value, 0.0, ADDRESSES)
    assert core.error is None
    assert not core.finished
    core.request()
    core.received_answer(answer_of((1, batch(A, 1, 2))))
    core.stream_ended()
    assert core.ended


def test_a_node_ends_its_own_stream() -> None:
    core = ending_at(Position.empty().advanced(A, 0, 2))
    core.stream_ended()
    assert core.ended, "what it does not give, though it had it, it has marked as a gap"


def test_the_end_of_a_node_that_is_gone_is_not_waited_for_for_ever() -> None:
    core = ending_at(Position.empty().advanced(A, 0, 2), reconnect_timeout=10.0)
    for now in (0.0, 5.0, 9.9, 10.0):
        assert core.error is None
        core.stream_to(ADDRESSES[1])
        core.request()
        core.received_answer(answer_of())
        with pytest.raises(StreamBroken) as caught:
            core.stream_ended()
        core.stream_lost(caught.value, now, ADDRESSES)
    assert isinstance(core.error, NodeUnreachable)
    assert str(core.error).startswith("nothing new for 10 s: second:1 does not have all that keeper:1 had")


def test_an_end_that_is_none() -> None:
    core = ConsumerCore(ConsumerConfig(follow=False))
    with pytest.raises(StreamBroken, match="the position of its end"):
        core.received_end(ConsumeBatchesResponse(position=b"nonsense"))


def test_an_offset_is_resolved_by_one_node() -> None:
    core = ConsumerCore(ConsumerConfig(offset=5))
    lose(core, ADDRESSES[0], None)
    assert core.bound_to_first_node
    assert core.error is None
    lose(core, ADDRESSES[0], StatusCode.OUT_OF_RANGE)
    assert isinstance(core.error, StartOutOfRange), "another node's offset 5 is another record"


def test_a_frame_that_does_not_follow_is_looked_for_elsewhere() -> None:
    core = ConsumerCore(ConsumerConfig())
    core.stream_to(ADDRESSES[0])
    core.received_answer(answer_of((0, batch(A, 0, 1)), (1, batch(B, 0, 1))))
    with pytest.raises(StreamBroken, match=r"sequences 1 to 4 of origin .* are missing before offset 3") as caught:
        core.received_answer(answer_of((2, batch(B, 1, 2)), (3, batch(A, 5, 9))))
    core.stream_lost(caught.value, 0.0, ADDRESSES)
    assert core.error is None
    assert list(core.failures.lacking) == [ADDRESSES[0]]
    assert values(core) == [b"1.0", b"2.0"], "what came before it was taken in"


def test_each_batch_says_whose_offsets_it_has() -> None:
    core = ConsumerCore(ConsumerConfig(on_missing="skip"))
    for node, sequence in zip(ADDRESSES, range(3), strict=True):
        core.stream_to(node)
        core.request()
        core.received_answer(answer_of((7, make_frame(A, sequence, 1)), (8, make_frame(B, 5 * sequence, 1))))
    seen = [take(core) for _ in range(6)]
    assert [each.node for each in seen] == [node for node in ADDRESSES for _ in range(2)]
    assert [record.node for each in seen for record in each] == [each.node for each in seen]
    assert [skipped.node for each in seen for skipped in each.skipped] == list(ADDRESSES[1:])


def test_a_position_from_before_there_was_an_annex() -> None:
    core = ConsumerCore(ConsumerConfig(position=Position.empty().advanced(A, 0, 1).encode()))
    core.received_answer(answer_of((0, batch(A, 0, 1)), (1, batch(A, 1, 2))))
    assert values(core) == [b"2.0"]
    request = ConsumerCore(ConsumerConfig(position=take_position())).request()
    assert request.position == Position.decode(take_position()).encode(), "a node is not sent what is the consumer's"


def take_position() -> bytes:
    core = ConsumerCore(ConsumerConfig())
    core.received_answer(answer_of((0, batch(A, 0, 1))))
    return take(core).position
