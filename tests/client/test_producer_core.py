"""The producer's core against a node on a lossy link: nothing twice, nothing out of order, everything settled once."""

import random
from collections import deque
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
from proglog_trio.client.errors import (
    DeliveryAbandoned,
    DeliveryRefused,
    DeliveryTimeout,
    RecordsNotDelivered,
)
from proglog_trio.client.packing import RecordPacker
from proglog_trio.client.producer_core import ProducerCore
from proglog_trio.errors import ProglogError
from proglog_trio.log.batch import Appended
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.record import payload_crc
from proglog_trio.log.producer_table import ProducerTable, StoredBatch
from proglog_trio.rpc.calls.sessions import StreamBroken
from proglog_trio.rpc.calls.status_code import StatusCode
from proglog_trio.rpc.messages.status import status_of

ORIGIN = Origin(bytes(range(16)))
REFUSED = b"refused"
TOO_LARGE = b"too large"


@define
class Connection:
    """Requests on their way to the node, and answers on their way back."""

    requests: deque[bytes] = Factory(deque)
    answers: deque[ProduceBatchResponse] = Factory(deque)
    ended_with: StatusCode | None = None


class Node:
    """A node's log with the real table of retried batches."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        self.table = ProducerTable()

    def answer(self, data: bytes) -> ProduceBatchResponse:
        request = ProduceBatchRequest.FromString(data)
        assert payload_crc(request.payload) == request.payload_crc
        values = [record[0] for record in msgpack.unpackb(request.payload)]
        assert len(values) == request.count
        answer = ProduceBatchResponse(producer_sequence=request.producer_sequence)
        if any(value.endswith(REFUSED) for value in values):
            answer.error = Error(code=StatusCode.INVALID_ARGUMENT.value, message="refused")
            return answer
        try:
            found = self.table.find(request.producer_id, request.producer_sequence, request.payload_crc, 0)
        except ProglogError as error:
            answer.error = Error(code=status_of(error).value, message=str(error))
            return answer
        if found is None:
            appended = Appended(len(self.stored), request.count, ORIGIN, len(self.stored), 7)
            self.stored.extend(values)
            self.table.remember(
                request.producer_id, StoredBatch(request.producer_sequence, request.payload_crc, appended), 0
            )
        else:
            appended = found.appended
            answer.duplicate = True
        answer.base_offset = answer.base_sequence = appended.base_offset
        answer.count, answer.origin, answer.log_time = appended.count, bytes(appended.origin), appended.log_time
        answer.achieved, answer.reached = 1, True
        return answer

    def read(self, connection: Connection, *, unavailable: bool = False, stores: bool = True) -> None:
        """Read one request; with unavailable answer so, after storing it or not."""
        data = connection.requests.popleft()
        if any(value.endswith(TOO_LARGE) for (value,) in msgpack.unpackb(ProduceBatchRequest.FromString(data).payload)):
            connection.ended_with = StatusCode.RESOURCE_EXHAUSTED
            connection.requests.clear()
            return
        if unavailable:
            answer = self.answer(data) if stores else ProduceBatchResponse()
            answer = ProduceBatchResponse(producer_sequence=ProduceBatchRequest.FromString(data).producer_sequence)
            answer.error = Error(code=StatusCode.UNAVAILABLE.value, message="the node is stopping")
        else:
            answer = self.answer(data)
        connection.answers.append(answer)


CONFIG = ProducerConfig(batch_bytes=64, batch_records=3, linger=1.0, delivery_timeout=60.0, answer_timeout=20.0)


class LossyLink(RuleBasedStateMachine):
    """One producer, one node, and connections that break while requests and answers are on them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.node = Node()
        self.core = ProducerCore(CONFIG, 1, random.Random(0))
        self.packer = RecordPacker(1000)
        self.connection: Connection | None = None
        self.old: list[Connection] = []
        self.sent: list[tuple[bytes, BatchOutcome, int]] = []

    @rule(count=st.integers(1, 4), kind=st.sampled_from([b"", b"", b"", b"", REFUSED, TOO_LARGE]))
    def send(self, count: int, kind: bytes) -> None:
        for _ in range(count):
            value = b"%06d" % len(self.sent) + kind
            outcome, index = self.core.add_record(self.packer.pack(value), self.now)
            self.sent.append((value, outcome, index))

    @rule(count=st.integers(1, 5))
    def send_batch(self, count: int) -> None:
        values = [b"%06d" % (len(self.sent) + index) for index in range(count)]
        payload = msgpack.packb([[value] for value in values])
        outcome = self.core.add_payload(payload, count, self.now)
        self.sent += [(value, outcome, index) for index, value in enumerate(values)]

    @precondition(lambda self: self.connection is None)
    @rule()
    def connect(self) -> None:
        self.connection = Connection()
        self.core.stream_opened(self.now)

    @precondition(lambda self: self.connection is None)
    @rule()
    def fail_to_connect(self) -> None:
        self.core.stream_lost(StreamBroken("connection refused"))
        assert 0 < self.core.backoff.next_delay() <= CONFIG.backoff.longest

    @precondition(lambda self: self.connection is not None)
    @rule(most=st.integers(1, 6))
    def write(self, most: int) -> None:
        assert self.connection is not None
        for _ in range(most):
            request = self.core.next_request(self.now)
            if request is None:
                break
            self.connection.requests.append(request)

    @precondition(lambda self: self.connection is not None and self.connection.requests)
    @rule(most=st.integers(1, 3), unavailable=st.sampled_from([False, False, False, True]), stores=st.booleans())
    def node_reads(self, most: int, unavailable: bool, stores: bool) -> None:
        assert self.connection is not None
        for _ in range(min(most, len(self.connection.requests))):
            self.node.read(self.connection, unavailable=unavailable, stores=stores)
            if not self.connection.requests:
                break

    @precondition(lambda self: any(connection.requests for connection in self.old))
    @rule(data=st.data(), most=st.integers(1, 5))
    def node_reads_an_old_connection(self, data: st.DataObject, most: int) -> None:
        connection = data.draw(st.sampled_from([connection for connection in self.old if connection.requests]))
        for _ in range(most):
            if connection.requests:
                self.node.read(connection)

    @precondition(lambda self: self.connection is not None)
    @rule(most=st.integers(1, 5))
    def client_reads(self, most: int) -> None:
        for _ in range(most):
            connection = self.connection
            if connection is None:
                return
            if connection.answers:
                try:
                    self.core.answered(connection.answers.popleft(), self.now)
                except StreamBroken as failure:
                    self.lose(failure)
            elif connection.ended_with is not None:
                self.lose(StreamBroken("too large", connection.ended_with))

    @precondition(lambda self: self.connection is not None)
    @rule(arriving=st.integers(0, 5))
    def cut(self, arriving: int) -> None:
        assert self.connection is not None
        while len(self.connection.requests) > arriving:
            self.connection.requests.pop()
        self.lose(StreamBroken("the connection was lost"))

    def lose(self, failure: StreamBroken) -> None:
        self.core.stream_lost(failure)
        self.leave_connection()

    def leave_connection(self) -> None:
        assert self.connection is not None
        self.old.append(self.connection)
        self.connection = None

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 21.0, 61.0]))
    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (wake := self.core.next_wake()) <= end:
            self.now = max(self.now, wake)
            if self.core.tick(self.now) is not None:
                self.leave_connection()
            assert self.core.next_wake() > self.now, "a tick does all there is to do"
        self.now = end

    @rule(seconds=st.sampled_from([0.0, 10.0, 200.0, 1e6, 1e9]))
    def stop_for_a_while(self, seconds: float) -> None:
        """Time passes without a look at it, as in a process that is stopped."""
        self.now += seconds
        if self.core.tick(self.now) is not None:
            self.leave_connection()
        assert self.core.next_wake() > self.now, "a tick does all there is to do"

    @invariant()
    def the_buffer_is_counted(self) -> None:
        unsettled = sum(len(self.packer.pack(value)) for value, outcome, _ in self.sent if not outcome.settled)
        # A batch that was added whole counts its array header too.
        assert 0 <= self.core.buffered_bytes - unsettled <= len(self.sent)
        assert self.core.unsettled == any(not outcome.settled for _, outcome, _ in self.sent)

    @invariant()
    def nothing_twice_and_all_in_order(self) -> None:
        numbers = [int(value[:6]) for value in self.node.stored]
        assert all(before < after for before, after in pairwise(numbers))

    @invariant()
    def settled_in_order(self) -> None:
        settled = [outcome.settled for _, outcome, _ in self.sent]
        assert settled == sorted(settled, reverse=True)

    @invariant()
    def what_is_delivered_is_stored_where_it_says(self) -> None:
        for value, outcome, index in self.sent:
            if outcome.delivered is not None:
                assert self.node.stored[outcome.delivered.base_offset + index] == value

    def teardown(self) -> None:
        # What is still on old connections arrives last of all, which is worst.
        for _ in range(10 * len(self.sent) + 10):
            if not self.core.unsettled:
                break
            if self.connection is None:
                self.connect()
            self.core.close_batch()
            self.write(9)
            assert self.connection is not None
            while self.connection.requests:
                self.node.read(self.connection)
            self.client_reads(9)
        assert not self.core.unsettled
        for connection in self.old:
            while connection.requests:
                self.node.read(connection)
        self.nothing_twice_and_all_in_order()
        self.the_buffer_is_counted()
        self.what_is_delivered_is_stored_where_it_says()
        failed = 0
        for value, outcome, _ in self.sent:
            assert outcome.settled
            if outcome.error is not None:
                failed += 1
                too_old = (
                    isinstance(outcome.error, DeliveryRefused)
                    and outcome.error.status is StatusCode.FAILED_PRECONDITION
                )
                if too_old or not outcome.error.maybe_stored:
                    # Too old for the node's table only if it was overtaken; what it stored it must still know.
                    assert value not in self.node.stored
        assert self.core.statistics.failed == failed
        assert self.core.statistics.delivered == len(self.sent) - failed


TestLossyLink = LossyLink.TestCase
TestLossyLink.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


def make_core(**options: Any) -> ProducerCore:
    return ProducerCore(ProducerConfig(**options), 1, random.Random(0))


PACKED = RecordPacker(1000).pack(b"value")


def test_lingering_and_full_batches() -> None:
    core = make_core(batch_records=2, linger=1.0)
    core.stream_opened(0.0)
    core.add_record(PACKED, 5.0)
    assert core.next_request(5.5) is None
    assert core.next_wake() == 6.0
    core.add_record(PACKED, 5.6)
    assert core.next_request(5.6) is not None, "a full batch does not wait"
    core.add_record(PACKED, 6.0)
    assert core.next_request(7.0) is not None, "a batch that lingered is sent"


def test_at_most_in_flight_batches_are_under_way() -> None:
    core = make_core(batch_records=1, in_flight=2)
    core.stream_opened(0.0)
    for _ in range(3):
        core.add_record(PACKED, 0.0)
    assert [core.next_request(0.0) is None for _ in range(3)] == [False, False, True]


def test_delivery_timeout_says_whether_it_was_sent() -> None:
    core = make_core(linger=0, delivery_timeout=10.0, answer_timeout=99.0, in_flight=1)
    core.stream_opened(0.0)
    first, _ = core.add_record(PACKED, 0.0)
    assert core.next_request(0.0) is not None
    second, _ = core.add_record(PACKED, 1.0)
    core.close_batch()
    third, _ = core.add_record(PACKED, 2.0)
    assert core.tick(10.0) is not None, "the stream goes with the batch"
    assert isinstance(first.error, DeliveryTimeout)
    assert first.error.maybe_stored
    assert "may be stored or not" in str(first.error)
    core.stream_lost(StreamBroken("connection refused"))
    assert core.tick(12.0) is None
    for outcome in (second, third):
        assert isinstance(outcome.error, DeliveryTimeout)
        assert not outcome.error.maybe_stored
        assert "not sent within 10 s (connection refused)" in str(outcome.error)
    assert core.buffered_bytes == 0


def test_answer_timeout_sends_again() -> None:
    core = make_core(linger=0, answer_timeout=5.0)
    core.stream_opened(0.0)
    core.add_record(PACKED, 1.0)
    request = core.next_request(1.0)
    assert core.next_wake() == 6.0
    assert core.tick(6.0) is not None
    core.stream_opened(7.0)
    assert core.next_request(7.0) == request
    assert core.statistics.resent == 1


def test_a_refused_stream_fails_everything() -> None:
    core = make_core()
    outcome, _ = core.add_record(PACKED, 0.0)
    core.stream_opened(0.0)
    core.stream_lost(StreamBroken("PERMISSION_DENIED: no", StatusCode.PERMISSION_DENIED))
    assert isinstance(outcome.error, DeliveryRefused)
    assert outcome.error.status is StatusCode.PERMISSION_DENIED
    assert not outcome.error.maybe_stored


def test_one_batch_too_many_for_the_node_is_found_alone() -> None:
    core = make_core(batch_records=1)
    outcomes = [core.add_record(PACKED, 0.0)[0] for _ in range(4)]
    broken = StreamBroken("RESOURCE_EXHAUSTED: too large", StatusCode.RESOURCE_EXHAUSTED)
    core.stream_opened(0.0)
    for _ in range(4):
        core.next_request(0.0)
    core.stream_lost(broken)
    assert not any(outcome.settled for outcome in outcomes)
    core.stream_opened(1.0)
    assert core.next_request(1.0) is not None
    assert core.next_request(1.0) is None, "one at a time, to see which it is"
    core.stream_lost(broken)
    assert isinstance(outcomes[0].error, DeliveryRefused)
    assert outcomes[0].error.maybe_stored, "an earlier attempt was not answered"
    assert not outcomes[1].settled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"producer_sequence": 9}, "answered batch 9, batch 0 was next"),
        ({"count": 2}, "2 records for a batch of 1"),
        ({"origin": b"short"}, "no origin"),
    ],
)
def test_answers_that_do_not_fit_break_the_stream(change: dict[str, Any], message: str) -> None:
    core = make_core(linger=0)
    core.stream_opened(0.0)
    core.add_record(PACKED, 0.0)
    with pytest.raises(StreamBroken, match="was not sent"):
        core.answered(ProduceBatchResponse(), 0.0)
    core.next_request(0.0)
    good: dict[str, Any] = {"producer_sequence": 0, "count": 1, "origin": bytes(16)}
    with pytest.raises(StreamBroken, match=message):
        core.answered(ProduceBatchResponse(**(good | change)), 0.0)
    assert core.unsettled


def test_abandoned_records_fail() -> None:
    core = make_core(linger=0)
    core.stream_opened(0.0)
    sent, _ = core.add_record(PACKED, 0.0)
    core.next_request(0.0)
    unsent, _ = core.add_record(PACKED, 0.0)
    core.abandon()
    assert isinstance(sent.error, DeliveryAbandoned)
    assert sent.error.maybe_stored
    assert isinstance(unsent.error, DeliveryAbandoned)
    assert not unsent.error.maybe_stored
    assert not core.unsettled


def test_failures_nobody_waited_for_are_reported_once() -> None:
    core = make_core()
    first, _ = core.add_record(PACKED, 0.0)
    core.add_record(PACKED, 0.0)
    core.add_payload(b"\x91" + PACKED, 1, 0.0)
    core.abandon()
    with pytest.raises(DeliveryAbandoned):
        first.result()
    with pytest.raises(RecordsNotDelivered, match="1 records were not delivered") as caught:
        core.ledger.report()
    assert caught.value.count == 1
    core.ledger.report()


def test_observed_log_times_are_passed_on() -> None:
    core = make_core(linger=0)
    core.stream_opened(0.0)
    core.observe(77)
    core.observe(5)
    core.add_record(PACKED, 0.0)
    request = core.next_request(0.0)
    assert request is not None
    assert ProduceBatchRequest.FromString(request).after_log_time == 77


def test_room() -> None:
    core = make_core(buffer_bytes=10)
    assert core.has_room(1000), "an empty buffer takes anything"
    core.add_record(PACKED, 0.0)
    assert core.has_room(10 - len(PACKED))
    assert not core.has_room(11 - len(PACKED))
