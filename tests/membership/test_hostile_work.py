"""How much work there is in one piece, whatever comes: counted in calls of functions, so that no machine is too slow.

`python -m fuzz.holds` measures the same cases, and more, in time on real nodes.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeVar

import pytest

from fuzz import hostile
from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf.serf import Serf
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.swim.node_table import MAX_NODE_BYTES
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.layers import compressed_layer
from proglog_trio.membership.wire.memberlist import NodeState, NodeStateType, PushPull, PushPullHeader, UserMessage
from proglog_trio.membership.wire.msgpack_structs import encode_object, encode_struct
from proglog_trio.membership.wire.packet import decode_packet_steps
from proglog_trio.membership.wire.state import MAX_STATE_EVENTS, MAX_STATE_MEMBERS, decode_state
from proglog_trio.membership.wire.stream import StreamLimits, encode_stream_steps
from proglog_trio.membership.wire.stream_decoder import StreamDecoder
from proglog_trio.membership.wire.tags import encode_tags
from proglog_trio.steps import Steps, complete
from tests.membership.wire.at_once import encode_stream

MAX_CALLS = 5000
"""Of functions, those in C among them, in one step: two milliseconds or so."""

Result = TypeVar("Result")
THERE = Endpoint.of("10.0.0.2", 7946)


class Counted:
    """Counts calls, and keeps the most of a step."""

    def __init__(self) -> None:
        self.most = 0
        self._calls = 0

    def __call__(self, _frame: FrameType, event: str, _argument: object) -> None:
        self._calls += event in ("call", "c_call")

    def do(self, action: Callable[[], Result]) -> Result:
        """Do something as one step."""
        self._calls = 0
        before = sys.getprofile()
        sys.setprofile(self)
        try:
            return action()
        finally:
            sys.setprofile(before)
            self.most = max(self.most, self._calls)

    def run(self, steps: Steps[Result]) -> Result:
        """Do work, and count in each of its steps."""
        while True:
            try:
                self.do(lambda: next(steps))
            except StopIteration as end:
                result: Result = end.value
                return result


def new_core() -> Serf:
    core = Serf("me", Endpoint.of("10.0.0.1", 7946), {}, GossipProfile(), random.Random(1), _ignore, now=0.0)
    core.start()
    return core


def _ignore(_event: object) -> None:
    pass


def names(count: int) -> bytes:
    return hostile.list_of(count, lambda number: encode_object(b"%d" % number))


TAGS = encode_tags({f"t{number}": "" for number in range(80)})
STREAMS: dict[str, Callable[[], bytes]] = {
    "empty states": lambda: hostile.empty_states(600),
    "states": lambda: hostile.plain_state(300, TAGS),
    "suspects": lambda: hostile.plain_state(300, TAGS, NodeStateType.SUSPECT),
    "times": lambda: hostile.user_state({b"StatusLTimes": hostile.map_of(2000, hostile._time_entry)}),
    "left": lambda: hostile.user_state({b"LeftMembers": names(2000)}),
    "events": lambda: hostile.events_state(140, 20, 0),
    "events at one time": lambda: hostile.events_state(1, 3000, 0),
    "no pattern": lambda: compressed_layer(b"\x08" + random.Random(1).randbytes(30_000)),
    "nested": lambda: hostile.user_state({b"Unknown": b"\x91" * 50_000 + b"\x90"}),
}


@pytest.mark.parametrize("case", STREAMS)
def test_a_stream_is_read_merged_and_answered_in_small_steps(case: str) -> None:
    counted = Counted()
    core = new_core()
    data = STREAMS[case]()
    for _ in range(2):
        try:
            message = counted.run(StreamDecoder().feed_steps(data))
        except DecodingError:
            message = None
        if isinstance(message, PushPull):
            try:
                counted.run(core.push_pull.merge_steps(message))
            except DecodingError:
                assert case == "nested"
        state = counted.run(core.push_pull.local_state_steps(join=False))
        counted.run(encode_stream_steps(state))
    assert 0 < counted.most <= MAX_CALLS


def _packets(name: str) -> Iterator[bytes]:
    (case,) = [case for case in hostile.CASES if case.name == name]
    yield from case.make().packets[:2]


@pytest.mark.parametrize(
    "name", [case.name for case in hostile.CASES if "packets" in case.name or "queries" in case.name]
)
def test_a_packet_is_taken_in_small_steps(name: str) -> None:
    counted = Counted()
    core = new_core()
    complete(core.swim.states.merge_steps(hostile.node_states(200)))
    for packet in _packets(name):
        try:
            decoded = counted.run(decode_packet_steps(packet))
        except DecodingError:
            continue
        for message in decoded.messages:
            counted.do(lambda message=message: core.swim.receive((message,), THERE))  # type: ignore[misc]  # called at once
    assert 0 < counted.most <= MAX_CALLS


def test_timers_that_are_due_together_run_until_it_is_enough() -> None:
    core = new_core()
    complete(core.swim.states.merge_steps(hostile.node_states(500)))
    complete(core.swim.states.merge_steps(hostile.node_states(500, state=NodeStateType.SUSPECT)))
    core.swim.rules.timers._time.patience = math.inf  # all at one time; not because of a pause
    counted = Counted()
    passes = 0
    while core.swim.next_deadline is not None and core.swim.next_deadline <= 1000.0 and passes < 5000:
        ran = iter((False, True))
        counted.do(lambda ran=ran: core.swim.advance(1000.0, lambda: next(ran)))  # type: ignore[misc]  # called at once
        core.swim.effects.clear()
        passes += 1
        if all(node.is_gone or node is core.swim.rules.me for node in core.swim.rules.nodes.values()):
            break
    assert passes > 100
    assert counted.most <= MAX_CALLS


def test_members_that_died_together_are_forgotten_without_looking_at_each_for_each() -> None:
    calls = []
    for count in (500, 2000):
        core = new_core()
        complete(core.swim.states.merge_steps(hostile.node_states(count)))
        for node in hostile.node_states(count):
            core.swim.rules.dead(hostile.dead(node.name))
        core.swim.rules.timers._time.now = 100.0
        before = core.swim.rules.table.order
        counted = Counted()
        counted.do(core.swim.rules.table.forget_dead)
        assert core.swim.rules.table.order == ["me"]
        assert core.swim.rules.table.order is not before
        calls.append(counted.most / count)
    assert calls[1] < calls[0] * 1.5


# -- limits ------------------------------------------------------------------------------------------------------------


def test_too_many_nodes_are_refused_when_their_number_is_read() -> None:
    head = b"\x06" + encode_struct(PushPullHeader(StreamLimits().nodes + 1, 0, False))
    with pytest.raises(DecodingError, match="Nodes: is 16385, more than 16384"):
        StreamDecoder().feed(head)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        (
            b"StatusLTimes",
            b"\xdf\x00\x1e\x84\x80",
            f"StatusLTimes: has 2000000 members, more than {MAX_STATE_MEMBERS}",
        ),
        (b"LeftMembers", b"\xdd\x00\x1e\x84\x80", f"LeftMembers: has 2000000 members, more than {MAX_STATE_MEMBERS}"),
        (b"Events", b"\xdd\x00\x1e\x84\x80", "Events: has 2000000 times of events, more than 4096"),
        (
            b"Events",
            b"\x91\x81\xa6Events\xdd\x00\x1e\x84\x80",
            f"Events: element 0: has 2000000 events, more than {MAX_STATE_EVENTS}",
        ),
        (b"LTime", b"\xdb\x00\xff\xff\xff" + bytes(100), "LTime: needs at least"),
    ],
)
def test_a_state_with_too_much_is_refused_when_its_number_is_read(field: bytes, value: bytes, problem: str) -> None:
    payload = b"\x02\x81" + encode_object(field) + value
    with pytest.raises(DecodingError, match=problem):
        complete(decode_state(payload))


def test_a_query_with_too_many_filters_is_refused_and_counted() -> None:
    core = new_core()
    for packet in _packets("queries with 4,000 filters"):
        for message in complete(decode_packet_steps(packet)).messages:
            core.swim.receive((message,), THERE)
    assert core.refused.malformed == 2
    assert not core.swim.effects
    core.receive(hostile.query(b"\x91" + encode_object(b"\2new"))[1:])
    assert core.refused.malformed == 2


def test_members_with_long_names_leave_a_state_that_can_be_sent() -> None:
    core = new_core()
    states = tuple(
        NodeState(
            name=f"{number:0500}", addr=bytes((10, 1, number >> 8, number & 255)), port=1, meta=bytes(500),
            incarnation=1, state=NodeStateType.ALIVE, vsn=hostile.VERSION,
        )
        for number in range(5000)
    )  # fmt: skip
    complete(core.swim.states.merge_steps(states))
    assert core.swim.rules.counters.beyond_limit == 5000 - MAX_NODE_BYTES // 1000
    encode_stream(complete(core.push_pull.local_state_steps(join=False)), compress=False)
    for state in states:
        core.swim.rules.dead(hostile.dead(state.name))
    core.swim.rules.timers._time.now = 100.0
    core.swim.rules.table.forget_dead()
    # Those who are gone for good leave room again.
    complete(core.swim.states.merge_steps(hostile.node_states(10)))
    assert "member-9" in core.swim.rules.nodes


def test_a_user_message_on_a_stream_is_as_long_as_agents_send_it() -> None:
    message = UserMessage(bytes(9 * 1024))
    assert StreamDecoder().feed(encode_stream(message)) == message
