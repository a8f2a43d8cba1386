"""A producer that goes from node to node: what it delivered is there, and read once if copies are told apart."""

import random
from collections import deque
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import msgpack
import pytest
from attrs import Factory, define
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proglog_trio._proto.log.v1 import Error, ProduceBatchRequest, ProduceBatchResponse
from proglog_trio.client.config import ProducerConfig
from proglog_trio.client.delivery import BatchOutcome
from proglog_trio.client.errors import DeliveryRefused, DeliveryTimeout
from proglog_trio.client.packing import RecordPacker
from proglog_trio.client.producer_core import ProducerCore
from proglog_trio.errors import LogReadOnly, OutcomeUnknown, ProglogError
from proglog_trio.log.batch import Appended
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.producer_table import ProducerTable, StoredBatch
from proglog_trio.rpc.calls.sessions import StreamBroken
from proglog_trio.rpc.calls.status_code import StatusCode
from proglog_trio.rpc.messages.status import status_of

ADDRESSES = ("first:1", "second:1", "third:1")
CONFIG = ProducerConfig(batch_records=2, linger=1.0, delivery_timeout=60.0, answer_timeout=20.0)
PACKED = RecordPacker(100).pack(b"value")


@define
class Batch:
    origin: Origin
    sequence: int
    crc: int
    values: list[bytes]


@define
class Node:
    """A log with the real table of retried batches, which what it pulls feeds too."""

    address: str
    origin: Origin
    read_only: bool = False
    disk_fails: bool = False
    log: list[Batch] = Factory(list)
    table: ProducerTable = Factory(ProducerTable)

    def append(self, batch: Batch) -> Appended:
        appended = Appended(sum(len(each.values) for each in self.log), len(batch.values), batch.origin, 0, 7)
        self.log.append(batch)
        self.table.remember(1, StoredBatch(batch.sequence, batch.crc, appended), 0)
        return appended

    def answer(self, data: bytes) -> ProduceBatchResponse:
        request = ProduceBatchRequest.FromString(data)
        sequence = request.producer_sequence
        answer = ProduceBatchResponse(producer_sequence=sequence)
        try:
            found = self.table.find(1, sequence, request.payload_crc, 0)
            if found is None and self.read_only:
                raise LogReadOnly("the log takes no more records")
            if found is None and self.disk_fails:
                self.disk_fails, self.read_only = False, True
                values = [record[0] for record in msgpack.unpackb(request.payload)]
                self.append(Batch(self.origin, sequence, request.payload_crc, values))
                raise OutcomeUnknown("a sync failed")
        except ProglogError as error:
            answer.error = Error(code=status_of(error).value, message=str(error))
            return answer
        if found is None:
            values = [record[0] for record in msgpack.unpackb(request.payload)]
            appended = self.append(Batch(self.origin, sequence, request.payload_crc, values))
        else:
            appended = found.appended
        answer.base_offset, answer.count, answer.origin = appended.base_offset, appended.count, bytes(appended.origin)
        return answer


@define
class Connection:
    node: Node
    requests: deque[bytes] = Factory(deque)
    answers: deque[ProduceBatchResponse] = Factory(deque)


class MovingProducer(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.nodes = {address: Node(address, Origin(bytes([n]) * 16)) for n, address in enumerate(ADDRESSES)}
        self.core = ProducerCore(CONFIG, 1, random.Random(0), self.has_others)
        self.packer = RecordPacker(1000)
        self.connection: Connection | None = None
        self.old: list[Connection] = []
        self.sent: list[tuple[bytes, BatchOutcome, int]] = []

    def has_others(self, nodes: AbstractSet[str]) -> bool:
        return not nodes >= set(ADDRESSES)

    @rule(count=st.integers(1, 8))
    def send(self, count: int) -> None:
        for _ in range(count):
            value = b"%06d" % len(self.sent)
            outcome, index = self.core.add_record(self.packer.pack(value), self.now)
            self.sent.append((value, outcome, index))

    @precondition(lambda self: self.connection is None)
    @rule(address=st.sampled_from(ADDRESSES))
    def connect(self, address: str) -> None:
        if address in self.core.refused_by:
            return
        self.connection = Connection(self.nodes[address])
        self.core.stream_opened(self.now, address)

    @precondition(lambda self: self.connection is not None)
    @rule(most=st.integers(1, 6))
    def write(self, most: int) -> None:
        assert self.connection is not None
        while most and (request := self.core.next_request(self.now)) is not None:
            self.connection.requests.append(request)
            most -= 1

    @precondition(lambda self: self.connection is not None)
    @rule(most=st.integers(1, 6))
    def node_reads(self, most: int) -> None:
        assert self.connection is not None
        self.read(self.connection, most)

    @precondition(lambda self: self.old)
    @rule(data=st.data(), most=st.integers(1, 6))
    def node_reads_an_old_connection(self, data: st.DataObject, most: int) -> None:
        self.read(data.draw(st.sampled_from(self.old)), most)

    def read(self, connection: Connection, most: int) -> None:
        while most and connection.requests:
            connection.answers.append(connection.node.answer(connection.requests.popleft()))
            most -= 1

    @precondition(lambda self: self.connection is not None)
    @rule(most=st.integers(1, 6))
    def client_reads(self, most: int) -> None:
        while most and self.connection is not None and self.connection.answers:
            try:
                self.core.answered(self.connection.answers.popleft(), self.now)
            except StreamBroken as failure:
                self.core.stream_lost(failure)
                self.leave_connection()
            most -= 1

    @precondition(lambda self: self.connection is not None)
    @rule(arriving=st.integers(0, 5))
    def cut(self, arriving: int) -> None:
        assert self.connection is not None
        while len(self.connection.requests) > arriving:
            self.connection.requests.pop()
        self.core.stream_lost(StreamBroken("the connection was lost"))
        self.leave_connection()

    def leave_connection(self) -> None:
        assert self.connection is not None
        self.old.append(self.connection)
        self.connection = None

    @rule(to=st.sampled_from(ADDRESSES), source=st.sampled_from(ADDRESSES), most=st.integers(1, 4))
    def pull(self, to: str, source: str, most: int) -> None:
        node = self.nodes[to]
        for origin in {batch.origin for batch in self.nodes[source].log}:
            have = sum(batch.origin == origin for batch in node.log)
            for batch in [batch for batch in self.nodes[source].log if batch.origin == origin][have : have + most]:
                node.append(batch)

    @rule(address=st.sampled_from(ADDRESSES[1:]))
    def turn_read_only(self, address: str) -> None:
        self.nodes[address].read_only = True

    @rule(address=st.sampled_from(ADDRESSES))
    def take_records_again(self, address: str) -> None:
        """There is room on its disk, while requests that were sent before may still arrive."""
        self.nodes[address].read_only = False

    @rule(address=st.sampled_from(ADDRESSES))
    def disk_will_fail(self, address: str) -> None:
        """The next batch is written, and whether that is durable is not known."""
        self.nodes[address].disk_fails = True

    @rule(seconds=st.sampled_from([1.0, 21.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.core.tick(self.now) is not None:
            self.leave_connection()

    @invariant()
    def each_node_stores_what_it_is_sent_once_and_in_order(self) -> None:
        for node in self.nodes.values():
            sequences = [batch.sequence for batch in node.log if batch.origin == node.origin]
            assert all(before < after for before, after in pairwise(sequences))

    @invariant()
    def settled_in_order(self) -> None:
        settled = [outcome.settled for _, outcome, _ in self.sent]
        assert settled == sorted(settled, reverse=True)

    @invariant()
    def what_is_delivered_is_stored_where_it_says(self) -> None:
        for value, outcome, index in self.sent:
            if outcome.delivered is not None:
                log = [value for batch in self.nodes[outcome.delivered.node].log for value in batch.values]
                assert log[outcome.delivered.base_offset + index] == value

    def teardown(self) -> None:
        for _ in range(10 * len(self.sent) + 10):
            if not self.core.unsettled:
                break
            if self.connection is None:
                useful = [address for address in ADDRESSES if address not in self.core.refused_by]
                self.connect(useful[-1])
            self.core.close_batch()
            self.write(9)
            self.node_reads(9)
            self.client_reads(9)
        assert not self.core.unsettled
        for connection in self.old:
            self.read(connection, 100)
        self.each_node_stores_what_it_is_sent_once_and_in_order()
        batches = {batch.sequence: batch for node in self.nodes.values() for batch in node.log}
        for node in self.nodes.values():
            for batch in node.log:
                assert batch.values == batches[batch.sequence].values, "a sequence is one batch, wherever it is"
        stored = [value for _, batch in sorted(batches.items()) for value in batch.values]
        assert stored == sorted(set(stored)), "each once, and in the order of sending"
        for value, outcome, _ in self.sent:
            if outcome.error is None:
                assert value in stored
            elif isinstance(outcome.error, DeliveryRefused):
                assert outcome.error.maybe_stored or value not in stored, "it is stored, and was told not to be"
            else:
                assert isinstance(outcome.error, DeliveryTimeout)
                assert outcome.error.maybe_stored or value not in stored


TestMovingProducer = MovingProducer.TestCase
TestMovingProducer.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=50)


# -- one thing at a time -----------------------------------------------------------------------------------------------


def make_core(*others: str, **options: Any) -> ProducerCore:
    return ProducerCore(
        ProducerConfig(batch_records=1, **options), 1, random.Random(0), lambda nodes: not nodes >= set(others)
    )


def refusal(sequence: int, status: StatusCode) -> ProduceBatchResponse:
    return ProduceBatchResponse(producer_sequence=sequence, error=Error(code=status.value, message="no"))


@pytest.mark.parametrize("status", [StatusCode.FAILED_PRECONDITION, StatusCode.RESOURCE_EXHAUSTED, StatusCode.ABORTED])
def test_what_one_node_cannot_store_goes_to_another(status: StatusCode) -> None:
    core = make_core("a:1", "b:1")
    outcome, _ = core.add_record(PACKED, 0.0)
    core.stream_opened(0.0, "a:1")
    first = core.next_request(0.0)
    with pytest.raises(StreamBroken, match=f"a:1: {status.name}: no") as caught:
        core.answered(refusal(0, status), 0.0)
    core.stream_lost(caught.value)
    assert not outcome.settled
    assert core.refused_by == {"a:1"}
    core.stream_opened(1.0, "b:1")
    assert core.next_request(1.0) == first, "the same producer id and sequence"
    core.answered(refusal(0, status), 1.0)
    assert isinstance(outcome.error, DeliveryRefused), "there is no other"
    assert outcome.error.status is status
    assert core.refused_by == frozenset()
    assert core.statistics.moves == 1


def test_a_batch_that_was_overtaken_goes_nowhere_else() -> None:
    """Where it was sent before, the status may mean that a later one is stored: another node would misplace it."""
    core = make_core("a:1", "b:1")
    outcome, _ = core.add_record(PACKED, 0.0)
    for now in (0.0, 1.0):
        core.stream_opened(now, "a:1")
        core.next_request(now)
        if now == 0.0:
            core.stream_lost(StreamBroken("lost"))
    core.answered(refusal(0, StatusCode.FAILED_PRECONDITION), 1.0)
    assert isinstance(outcome.error, DeliveryRefused)
    assert core.statistics.moves == 0


def test_a_node_that_takes_no_records_is_left_also_where_the_batch_was_sent_before() -> None:
    core = make_core("a:1", "b:1")
    outcome, _ = core.add_record(PACKED, 0.0)
    for now in (0.0, 1.0):
        core.stream_opened(now, "a:1")
        core.next_request(now)
        if now == 0.0:
            core.stream_lost(StreamBroken("lost"))
    with pytest.raises(StreamBroken) as caught:
        core.answered(refusal(0, StatusCode.ABORTED), 1.0)
    core.stream_lost(caught.value)
    assert core.refused_by == {"a:1"}
    assert not outcome.settled


SURE, UNSURE = refusal(0, StatusCode.ABORTED), refusal(0, StatusCode.UNKNOWN)


@pytest.mark.parametrize("end", ["refused", "timeout", "left"])
@pytest.mark.parametrize("attempts", [(SURE,), (SURE, SURE), (None, SURE), (SURE, None), (UNSURE, SURE), (UNSURE,)])
def test_maybe_stored_is_true_unless_every_attempt_was_refused_for_certain(
    attempts: tuple[ProduceBatchResponse | None, ...], end: str
) -> None:
    core = make_core("a:1", "b:1", "c:1", "d:1", delivery_timeout=10.0)
    outcome, _ = core.add_record(PACKED, 0.0)
    for number, answer in enumerate(attempts):
        core.stream_opened(0.0, ("a:1", "b:1")[number])
        assert core.next_request(0.0) is not None
        failure = StreamBroken("lost")
        if answer is not None:
            with pytest.raises(StreamBroken) as caught:
                core.answered(answer, 0.0)
            failure = caught.value
        core.stream_lost(failure)
    maybe = any(answer is not SURE for answer in attempts)
    if end == "refused":
        core.stream_opened(0.0, "c:1")
        core.next_request(0.0)
        core.answered(refusal(0, StatusCode.INVALID_ARGUMENT), 0.0)
        assert isinstance(outcome.error, DeliveryRefused)
    elif end == "timeout":
        core.tick(10.0)
        assert isinstance(outcome.error, DeliveryTimeout)
        assert ("may be stored" in str(outcome.error)) == maybe
    else:
        core.abandon()
    assert outcome.error is not None
    assert outcome.error.maybe_stored == maybe


def test_a_batch_that_is_wrong_is_wrong_everywhere() -> None:
    core = make_core("a:1", "b:1")
    outcome, _ = core.add_record(PACKED, 0.0)
    core.stream_opened(0.0, "a:1")
    core.next_request(0.0)
    core.answered(refusal(0, StatusCode.INVALID_ARGUMENT), 0.0)
    assert isinstance(outcome.error, DeliveryRefused)
