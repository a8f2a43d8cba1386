"""However many origins there are: what peers say to each other fits into small messages, and all of it is said once."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.replication import advertiser
from proglog_trio.replication import pull_session as pull
from proglog_trio.replication import source_session as source
from proglog_trio.replication.advertiser import Advertiser
from proglog_trio.replication.messages import (
    ENTRIES_AT_ONCE,
    GAPS_AT_ONCE,
    MAX_ORIGINS,
    HolderNews,
    OriginRange,
    Positions,
    PullRequest,
    PullResponse,
    Want,
)
from proglog_trio.replication.peers.directories import Directories
from proglog_trio.replication.peers.peer_view import PeerView
from proglog_trio.replication.peers.progress import ProgressTracker
from proglog_trio.rpc.http2.message_buffer import PREFIX_BYTES
from proglog_trio.rpc.messages.codec import MessageCodec
from proglog_trio.rpc.messages.replication import (
    encode_response,
    request_steps,
    request_to_message,
    response_steps,
)
from proglog_trio.rpc.server.server import MAX_REST_BYTES
from proglog_trio.steps import complete
from tests.log.simulated_disk import Loss
from tests.replication.simulation.cluster import Cluster

SMALLEST_LIMIT_BYTES = 128 * 1024
"""The least that --max-message-bytes may be."""
HELD_SECONDS = 0.010
ME = b"me------"


def origin_of(number: int) -> Origin:
    return Origin(number.to_bytes(16, "big"))


def carried(request: PullRequest) -> PullRequest:
    """Return what arrives of a request, through the codec of the server and within the least limit."""
    data = bytes(request_to_message(request))
    assert len(data) + PREFIX_BYTES < SMALLEST_LIMIT_BYTES
    arrived: log_v1.PullRequest = MessageCodec(MAX_REST_BYTES).decode(data, log_v1.PullRequest)
    return complete(request_steps(arrived))


def carried_back(response: PullResponse) -> PullResponse:
    data = encode_response(response)
    assert len(data) < SMALLEST_LIMIT_BYTES
    arrived: log_v1.PullResponse = MessageCodec(MAX_REST_BYTES).decode(data[PREFIX_BYTES:], log_v1.PullResponse)
    return complete(response_steps(arrived))


def told(advertiser: Advertiser, states: dict[Origin, OriginState], holders: ProgressTracker) -> Iterator[PullRequest]:
    """Yield what a advertiser has to tell, message by message."""
    while True:
        found = advertiser.collect(0.0, states, None, holders, Directories(ME))
        if not found:
            return
        yield PullRequest(None, found.positions, found.others)


def worst_state(number: int, gaps: int = 0) -> OriginState:
    """Return a state whose numbers take the most bytes."""
    low = 2**63
    between = tuple((low + 4 * gap + 1, low + 4 * gap + 2) for gap in range(gaps))
    return OriginState(low, 2**64 - 1 - number, 2**32 - 1, gaps=between)


# -- what is told ------------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(st.integers(0, 2000), st.integers(0, 3), max_size=3 * ENTRIES_AT_ONCE),
    st.sets(st.integers(0, 2000), max_size=300),
    st.dictionaries(st.integers(0, 20), st.sets(st.integers(0, 2000), max_size=100), max_size=20),
    st.integers(0, 2**32),
)
def test_everything_is_told_once_in_small_messages(
    states: dict[int, int], forgotten: set[int], others: dict[int, set[int]], seed: int
) -> None:
    """And the node that is told knows when it has been told all that there was at first, whatever comes meanwhile."""
    rng = random.Random(seed)
    log = {origin_of(number): worst_state(number, gaps * 300) for number, gaps in states.items()}
    holders = ProgressTracker(ME, lambda *_: None)
    telling = Advertiser(0.0, lambda: 0.0)
    for number, origins in others.items():
        holders.learn(number.to_bytes(8, "big"), 1, {origin_of(each): 2**64 - 1 for each in origins})
    telling.note_forgotten(origin_of(number) for number in forgotten)
    for number, origins in others.items():
        telling.note_other(number.to_bytes(8, "big"), {origin_of(each) for each in origins})
    first = dict(log)
    peer, heard = PeerView("a", 0.0), set[tuple[bytes, Origin]]()
    for request in told(telling, log, holders):
        arrived = carried(request)
        positions = arrived.positions
        if positions is not None:
            assert len(positions.ranges) <= ENTRIES_AT_ONCE
            assert len(positions.forgotten) <= ENTRIES_AT_ONCE
            assert (
                len(positions.ranges) == 1 or sum(len(held.gaps) for held in positions.ranges.values()) <= GAPS_AT_ONCE
            )
            peer.heard(positions)
        pairs = [(news.directory_id, origin) for news in arrived.others for origin in news.nexts]
        assert len(pairs) <= ENTRIES_AT_ONCE
        assert not heard & {*pairs}
        heard |= {*pairs}
        assert not peer.has_told or first.keys() <= peer.ranges.keys()
        if rng.random() < 0.3:
            new = origin_of(rng.randrange(3000, 9000))
            log[new] = OriginState(0, rng.randrange(1, 9))
            telling.note([new, *rng.sample(sorted(log), 1)], urgent=False)
    assert peer.has_told
    assert peer.ranges == {origin: OriginRange.of_state(state) for origin, state in log.items()}
    assert heard == {
        (number.to_bytes(8, "big"), origin_of(each)) for number, origins in others.items() for each in origins
    }


@pytest.mark.parametrize("count", [5_500, 20_000, pytest.param(MAX_ORIGINS, marks=pytest.mark.system)])
def test_as_many_origins_as_there_may_be_hold_nobody_up(count: int) -> None:
    """Each message is made, read and taken within the time that one may hold the loop."""
    log = {origin_of(number): worst_state(number) for number in range(count)}
    telling, holders, peer = Advertiser(0.0, lambda: 0.0), ProgressTracker(ME, lambda *_: None), PeerView("a", 0.0)
    peer.connect(bytes(8))
    took = []
    messages = 0
    positions: Positions | None
    while True:
        began = time.thread_time()
        positions = telling.collect(0.0, log, None, holders, Directories(ME)).positions
        if positions is None:
            break
        request = PullRequest(None, positions)
        data = bytes(request_to_message(request))
        made = time.thread_time()
        arrived = complete(request_steps(MessageCodec(MAX_REST_BYTES).decode(data, log_v1.PullRequest))).positions
        assert arrived is not None
        peer.heard(arrived)
        took += [made - began, time.thread_time() - made]
        messages += 1
        assert len(data) < SMALLEST_LIMIT_BYTES
        assert peer.has_told is (not positions.more_follows)
    assert peer.has_told
    assert len(peer.ranges) == count
    assert messages == -(-count // ENTRIES_AT_ONCE)
    # One in a hundred may have a collection of garbage in it.
    assert sorted(took)[-2 - len(took) // 100] < HELD_SECONDS


def test_responses_are_as_small() -> None:
    log = {origin_of(number): worst_state(number) for number in range(3 * ENTRIES_AT_ONCE)}
    telling, holders = Advertiser(0.0, lambda: 0.0), ProgressTracker(ME, lambda *_: None)
    ranges: dict[Origin, OriginRange] = {}
    for request in told(telling, log, holders):
        positions = carried_back(PullResponse(None, request.positions, request.others)).positions
        assert positions is not None
        ranges |= positions.ranges
    assert ranges == {origin: OriginRange.of_state(state) for origin, state in log.items()}


def test_the_fullest_message_is_within_the_least_limit() -> None:
    """Every list of it as long as it may be, and every number as large."""
    origins = [origin_of(2**127 + number) for number in range(ENTRIES_AT_ONCE)]
    gaps = GAPS_AT_ONCE // ENTRIES_AT_ONCE
    ranges = {origin: OriginRange.of_state(worst_state(number, gaps)) for number, origin in enumerate(origins)}
    request = PullRequest(
        None,
        Positions(ranges, tuple(origins), origins[0]),
        tuple(HolderNews(n.to_bytes(8, "big"), 2**64 - 1, {o: 2**64 - 1}) for n, o in enumerate(origins)),
        tuple(Want(origin, 2**64 - 1) for origin in origins),
        tuple(origins),
    )  # fmt: skip
    assert carried(request) == request


# -- a whole cluster ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_nodes_agree_however_little_a_message_says(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    for module in (advertiser, pull, source):
        monkeypatch.setattr(module, "ENTRIES_AT_ONCE", at_once)
    cluster = Cluster(at_once)
    nodes = [cluster.add(name) for name in "abc"]
    cluster.run(3)
    for life in range(4):
        for node in nodes:
            cluster.produce(node, records=2)
        cluster.run(1)
        cluster.stop(nodes[life % 3], Loss.KEEP)
        cluster.run(1)
        cluster.start(nodes[life % 3])
        cluster.run(3)
    cluster.run_until_agreed(60)
    for node in nodes:
        cluster.check_ranges(node)
        assert node.running.opened.log.next_offset == 4 * 3 * 2
    assert not cluster.problems
