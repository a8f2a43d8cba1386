"""Members of two clusters on real sockets: each is told only what says of which cluster the other is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import structlog.testing
import trio

from proglog_trio.membership.membership import JoinFailed
from proglog_trio.membership.serf.clusters import Foreigner
from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.swim.foreigners import FOREIGN_SECONDS, MAX_FOREIGNERS
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.trouble_log import LOGGED_TROUBLES, TroubleLog
from proglog_trio.membership.wire.memberlist import (
    Dead,
    IndirectPing,
    NodeState,
    NodeStateType,
    Ping,
    PushPull,
    Suspect,
    UserMessage,
)
from proglog_trio.membership.wire.serf import Join, Leave, Query, SerfMessage, UserEvent, encode_serf
from proglog_trio.membership.wire.state import SerfPushPull
from proglog_trio.membership.wire.tags import encode_tags
from proglog_trio.steps import complete
from tests.membership.running import Ours, start_ours_in
from tests.membership.serf.cores import THERE, TestedCore, alive, endpoint_of

TAG = "cluster_name"
ORDERS, BILLING = {TAG: "orders"}, {TAG: "billing"}
VERSION = bytes((1, 5, 2, 2, 5, 4))
ELSEWHERE = endpoint_of(7)


def core_of_orders() -> TestedCore:
    return TestedCore.make(tags=ORDERS, cluster=ORDERS[TAG])


def state_of(name: str, endpoint: Endpoint, tags: dict[str, str] | None, **changes: object) -> NodeState:
    fields: dict[str, object] = {
        "name": name, "addr": endpoint.address, "port": endpoint.port,
        "meta": b"" if tags is None else encode_tags(tags), "incarnation": 1, "state": NodeStateType.ALIVE,
        "vsn": VERSION,
    }  # fmt: skip
    return NodeState(**{**fields, **changes})  # type: ignore[arg-type]  # each has its type


# -- one core ----------------------------------------------------------------------------------------------------------


def test_news_of_a_member_of_another_cluster_is_neither_taken_nor_passed_on() -> None:
    tested = core_of_orders()
    tested.take()
    tested.receive(alive("b1", 3, ELSEWHERE, BILLING))
    assert tested.status("b1") is None
    assert [event for event in tested.said if isinstance(event, Foreigner)] == [
        Foreigner("b1", ELSEWHERE, "it is of the cluster 'billing', not of 'orders'")
    ]
    assert tested.core.swim.rules.counters.of_other_clusters == 1
    assert not any(
        b"b1" in message for queue in tested.core.swim.outbox.queues for message in queue.for_packet(10, 2, 10_000)
    )
    tested.receive(alive("o2", 1, THERE, ORDERS), alive("agent", 1, endpoint_of(9)))
    assert tested.status("o2") is tested.status("agent") is MemberStatus.ALIVE


def test_what_somebody_of_another_cluster_sends_is_not_looked_at() -> None:
    tested = core_of_orders()
    tested.receive(alive("o2", 1, THERE, ORDERS))
    tested.receive(alive("b1", 3, ELSEWHERE, BILLING))
    tested.take()
    query = Query(
        ltime=900, id=1, addr=ELSEWHERE.address, port=ELSEWHERE.port, source_node="b1", filters=(), flags=0,
        relay_factor=0, timeout=10**9, name="q", payload=b"",
    )  # fmt: skip
    event = UserEvent(ltime=900, name="deploy", payload=b"", cc=False)
    said: list[SerfMessage] = [Leave(ltime=900, node="o2", prune=True), Join(ltime=900, node="o2"), query, event]
    before = tested.core.clock.time, tested.core.events.clock.time, tested.core.query_clock.time
    tested.receive(
        Suspect(incarnation=9, node="o2", from_node="b1"),
        Dead(incarnation=9, node="o2", from_node="b1"),
        Ping(seq_no=1, node="me"),
        *(UserMessage(encode_serf(message)) for message in said),
        source=ELSEWHERE,
    )
    assert tested.status("o2") is MemberStatus.ALIVE
    assert before == (tested.core.clock.time, tested.core.events.clock.time, tested.core.query_clock.time)
    assert tested.take() == []
    # The same by way of a member that is one of both: what says whose it is.
    tested.receive(
        UserMessage(encode_serf(query)),
        UserMessage(encode_serf(Join(ltime=900, node="b1"))),
        UserMessage(encode_serf(Leave(ltime=900, node="b1", prune=True))),
        IndirectPing(seq_no=1, target=ELSEWHERE.address, port=ELSEWHERE.port, node="b1", nack=False),
        source=THERE,
    )
    assert before == (tested.core.clock.time, tested.core.events.clock.time, tested.core.query_clock.time)
    assert tested.take() == []


def test_an_intent_about_nobody_moves_no_clock_until_its_member_comes() -> None:
    tested = core_of_orders()
    tested.receive(UserMessage(encode_serf(Join(ltime=900, node="late"))))
    assert tested.core.clock.time < 900
    tested.receive(alive("late", 1, THERE, ORDERS))
    assert tested.core.clock.time == 901
    assert tested.core.members.by_name["late"].status_time == 900


def test_an_endpoint_is_believed_again_once_a_member_of_this_cluster_is_there_or_after_a_while() -> None:
    tested = core_of_orders()
    tested.receive(alive("b1", 3, ELSEWHERE, BILLING))
    assert tested.core.swim.rules.is_elsewhere(ELSEWHERE)
    tested.receive(alive("o9", 1, ELSEWHERE, ORDERS), source=ELSEWHERE)
    assert tested.status("o9") is MemberStatus.ALIVE
    assert not tested.core.swim.rules.is_elsewhere(ELSEWHERE)
    tested.receive(alive("b2", 3, endpoint_of(8), BILLING))
    tested.advance(FOREIGN_SECONDS)
    assert not tested.core.swim.rules.is_elsewhere(endpoint_of(8))


def test_hearsay_about_the_place_of_a_member_that_is_there_changes_nothing() -> None:
    tested = core_of_orders()
    tested.receive(alive("o2", 5, THERE, ORDERS))
    tested.receive(alive("b1", 3, THERE, BILLING), alive("o2", 5, THERE, BILLING), alive("o2", 9, ELSEWHERE, BILLING))
    tested.receive(alive("me", 9, ELSEWHERE, BILLING))
    assert tested.status("o2") is MemberStatus.ALIVE
    assert not tested.core.swim.rules.is_elsewhere(THERE)
    assert tested.core.swim.rules.counters.conflicts == 0, "names are of one cluster"


def test_a_member_that_says_that_it_is_of_another_cluster_now_is_gone() -> None:
    tested = core_of_orders()
    tested.receive(alive("o2", 5, THERE, ORDERS), alive("o2", 6, THERE, BILLING))
    assert tested.status("o2") is MemberStatus.FAILED
    tested.receive(alive("o2", 7, THERE, ORDERS))
    assert tested.status("o2") is MemberStatus.ALIVE


def test_an_earlier_life_of_this_node_in_another_cluster_is_refuted() -> None:
    tested = core_of_orders()
    me = tested.core.swim.rules.me
    tested.receive(alive("me", 7, me.endpoint, BILLING))
    assert me.incarnation == 8
    assert not tested.core.swim.rules.is_elsewhere(me.endpoint)


def test_of_a_state_with_members_of_both_the_members_of_this_one_are_taken_and_no_clocks_or_events() -> None:
    tested = core_of_orders()
    serf = SerfPushPull(
        ltime=900, status_ltimes={"o2": 5, "b1": 800, "nobody": 700}, left_members=("b1",), event_ltime=900,
        events=(), query_ltime=900,
    )  # fmt: skip
    nodes = (state_of("agent", endpoint_of(9), None), state_of("o2", THERE, ORDERS), state_of("b1", ELSEWHERE, BILLING))
    complete(tested.core.push_pull.merge_steps(PushPull(nodes, encode_serf(serf))))
    assert tested.core.members.by_name.keys() == {"me", "agent", "o2"}
    assert tested.core.members.by_name["o2"].status_time == 5
    assert max(tested.core.clock.time, tested.core.events.clock.time, tested.core.query_clock.time) < 10


@pytest.mark.parametrize("status", NodeStateType)
def test_a_member_of_another_cluster_in_any_state_changes_nothing_about_one_of_the_same_name(
    status: NodeStateType,
) -> None:
    tested = core_of_orders()
    tested.receive(alive("n1", 1, THERE, ORDERS), alive("o2", 1, endpoint_of(5), ORDERS))
    nodes = (
        state_of("o2", endpoint_of(5), ORDERS),
        state_of("n1", ELSEWHERE, BILLING, incarnation=50, state=status),
    )
    complete(tested.core.push_pull.merge_steps(PushPull(nodes)))
    assert tested.status("n1") is MemberStatus.ALIVE
    assert tested.core.swim.rules.nodes["n1"].endpoint == THERE
    assert tested.core.swim.rules.nodes["n1"].incarnation == 1


def test_what_is_remembered_of_other_clusters_is_bounded() -> None:
    tested = core_of_orders()
    for number in range(2 * MAX_FOREIGNERS):
        tested.receive(alive(f"b{number}", 1, Endpoint(number.to_bytes(4, "big"), 1), BILLING))
    foreigners = tested.core.swim.rules.foreigners
    assert len(foreigners) == len(foreigners._names) == MAX_FOREIGNERS


def test_what_is_logged_of_other_clusters_is_bounded() -> None:
    now = 0.0
    log = TroubleLog(lambda: now)
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            for number in range(2 * LOGGED_TROUBLES):
                log.another_cluster(Foreigner("b", endpoint_of(number), "it is of the cluster 'billing'"))
        assert len(logged) == LOGGED_TROUBLES
        now = 4000.0
        log.another_cluster(Foreigner("b", endpoint_of(1), "it is of the cluster 'billing'"))
    assert logged[-2]["not_logged"] == LOGGED_TROUBLES
    assert len(logged) == LOGGED_TROUBLES + 2


def test_claims_of_names_are_logged_within_bounds() -> None:
    log = TroubleLog(lambda: 0.0)
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            for number in range(2 * LOGGED_TROUBLES):
                log.name_claimed("b", endpoint_of(number))
    assert len(logged) == LOGGED_TROUBLES


# -- real sockets ------------------------------------------------------------------------------------------------------

Start = Callable[..., Awaitable[Ours]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with start_ours_in() as start:
        yield start


@pytest.mark.parametrize("joiner_knows", [True, False])
async def test_a_join_to_another_cluster_fails_saying_why_and_neither_is_told(start: Start, joiner_knows: bool) -> None:
    """Also where the one that joins is of a version that takes everybody in: it is answered with an error."""
    first = await start("o1", tags={**ORDERS, "rpc_addr": "o1:1"}, cluster_tag=TAG)
    other = await start("b1", tags={**BILLING, "rpc_addr": "b1:1"}, cluster_tag=TAG if joiner_knows else None)
    with pytest.raises(JoinFailed, match=r"of the cluster '(orders|billing)', not of '(orders|billing)'"):
        await other.membership.join([first.address])
    assert first.members().keys() == {"o1"}
    assert other.members().keys() == {"b1"}
    assert not first.peers.told
    assert not other.peers.told
    counters = first.membership.gossip.counters
    assert counters.streams_refused == (0 if joiner_knows else 1)
    assert other.membership.gossip.core.swim.rules.counters.of_other_clusters == (1 if joiner_knows else 0)


async def test_a_start_address_of_another_cluster_is_tried_until_it_is_one_of_this(start: Start) -> None:
    """It may be given back; and a name that is taken there is not taken here."""
    other = await start("o1", tags=BILLING, cluster_tag=TAG)
    joiner = await start("o1", tags=ORDERS, cluster_tag=TAG, join=[other.address])
    assert joiner.members().keys() == {"o1"}
    port = other.address.port
    await other.crash()
    again = await start("o2", tags=ORDERS, cluster_tag=TAG, port=port)
    await joiner.until_status("alive", "o2")
    await again.until_status("alive", "o1")


async def test_a_member_whose_process_is_of_another_cluster_now_fails(start: Start) -> None:
    """Its name and its address are as they were, and it answers to pings until it knows who asks."""
    first = await start("o1", tags=ORDERS, cluster_tag=TAG)
    member = await start("o2", tags=ORDERS, cluster_tag=TAG, join=[first.address])
    await first.until_status("alive", "o2")
    port = member.address.port
    await member.crash()
    await start("o2", tags=BILLING, cluster_tag=TAG, port=port)
    with trio.fail_after(60):
        await first.until_status("failed", "o2")


async def test_plain_members_are_members_as_before(start: Start) -> None:
    first = await start("o1", tags=ORDERS, cluster_tag=TAG)
    plain = await start("agent", tags={"role": "x"}, join=[first.address])
    await first.until_status("alive", "agent")
    await plain.until_status("alive", "o1")
