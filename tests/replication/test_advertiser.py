from __future__ import annotations

from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.replication.advertiser import Advertiser
from proglog_trio.replication.messages import GAPS_AT_ONCE, HolderNews, OriginRange, Positions
from proglog_trio.replication.peers.directories import Directories
from proglog_trio.replication.peers.progress import ProgressTracker

X, Y = Origin(bytes(15) + b"x"), Origin(bytes(15) + b"y")
STATES = {X: OriginState(0, 5, 77), Y: OriginState(2, 3)}


def advertiser() -> tuple[Advertiser, ProgressTracker]:
    return Advertiser(quick_seconds=0.01, slow_seconds=lambda: 1.0), ProgressTracker(b"me------", lambda *_: None)


def take(
    advertiser: Advertiser,
    now: float,
    states: dict[Origin, OriginState],
    writing: Origin | None,
    holders: ProgressTracker,
) -> tuple[Positions | None, tuple[HolderNews, ...]]:
    told = advertiser.collect(now, states, writing, holders, Directories(b"me------"))
    assert told.directories == ()
    return told.positions, told.others


def test_the_first_time_everything_is_told() -> None:
    told, holders = advertiser()
    assert told.deadline(None) == float("-inf")
    positions, others = take(told, 5.0, STATES, X, holders)
    assert positions == Positions({X: OriginRange(0, 5, 77), Y: OriginRange(2, 3)}, (), X)
    assert others == ()
    assert take(told, 100.0, STATES, X, holders) == (None, ())


def test_changes_go_together_after_a_while_and_urgent_ones_at_once() -> None:
    told, holders = advertiser()
    take(told, 5.0, STATES, X, holders)
    told.note([Y], urgent=False)
    assert told.deadline(X) == 6.0
    assert take(told, 5.9, STATES, X, holders) == (None, ())
    told.note([X], urgent=True)
    assert told.deadline(X) == 5.01
    positions, _ = take(told, 5.9, STATES, X, holders)
    assert positions is not None
    assert list(positions.ranges) == [Y, X]
    assert told.deadline(X) is None


def test_a_new_own_origin_is_told_although_nothing_of_it_is_durable() -> None:
    told, holders = advertiser()
    take(told, 5.0, {}, None, holders)
    assert told.deadline(X) == 5.01
    assert take(told, 6.0, {}, X, holders) == (Positions(writing=X), ())


def test_forgotten_origins_are_told_unless_they_are_back() -> None:
    told, holders = advertiser()
    take(told, 5.0, STATES, None, holders)
    told.note_forgotten([X, Y])
    assert take(told, 7.0, {Y: OriginState(0, 1)}, None, holders) == (Positions(forgotten=(X,)), ())


def test_third_nodes_are_told_of_but_not_to_themselves() -> None:
    told, holders = advertiser()
    told.listener = b"a-------"
    take(told, 5.0, {}, None, holders)
    holders.learn(b"a-------", 1, {X: 5})
    holders.learn(b"b-------", 1, {X: 4})
    told.note_other(b"a-------", [X])
    told.note_other(b"b-------", [X])
    assert take(told, 7.0, {}, None, holders) == (None, (HolderNews(b"b-------", 1, {X: 4}),))


def test_a_message_of_third_nodes_has_no_more_ranges_than_it_may() -> None:
    told, holders = advertiser()
    origins = [Origin(b"%016d" % number) for number in range(6)]
    lacks = {origin: tuple((2 * each, 2 * each + 1) for each in range(300)) for origin in origins}
    holders.learn(b"third---", 1, dict.fromkeys(origins, 1000), lacks)
    told.note_other(b"third---", origins)
    heard: dict[Origin, int] = {}
    for second in range(10):
        _, others = take(told, 10.0 * second, {}, None, holders)
        ranges = sum(len(each) for news in others for each in news.not_held.values())
        assert ranges <= GAPS_AT_ONCE
        heard.update((origin, following) for news in others for origin, following in news.nexts.items())
    assert heard == dict.fromkeys(origins, 1000)


def test_one_origin_with_more_ranges_than_that_goes_alone() -> None:
    told, holders = advertiser()
    lacks = tuple((2 * each, 2 * each + 1) for each in range(GAPS_AT_ONCE + 10))
    holders.learn(b"third---", 1, {X: 5000, Y: 5000}, {X: lacks, Y: lacks})
    told.note_other(b"third---", [X, Y])
    messages = [take(told, 10.0 * second, {}, None, holders)[1] for second in range(3)]
    assert [len(news[0].nexts) if news else 0 for news in messages] == [1, 1, 0]
