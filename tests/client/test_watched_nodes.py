"""Which other node is asked, and when: no I/O, no time."""

from __future__ import annotations

import random
from collections import Counter

import hypothesis.strategies as st
from hypothesis import given

from proglog_trio.client.nodes import NodeList
from proglog_trio.client.watched_nodes import LASTING_SECONDS, LEFT_OUT_SECONDS, WatchedNodes

GIVEN = ("a:1", "b:1", "c:1", "d:1")


class Watching:
    """A client's nodes under a clock of the test's."""

    def __init__(self, *given: str, seed: int = 0) -> None:
        self.now = 0.0
        self.nodes = NodeList(given or GIVEN, random.Random(seed))
        self.watched = WatchedNodes(self.nodes, lambda: self.now)
        self.watched.begin()

    def next_node(self) -> str:
        node = self.watched.next_node()
        assert node is not None
        return node


def test_the_clients_of_a_node_spread_over_the_others() -> None:
    asked = Counter(Watching(seed=seed).next_node() for seed in range(300))
    assert set(asked) == {"b:1", "c:1", "d:1"}
    assert min(asked.values()) > 60


def test_another_is_asked_when_one_tells_no_more() -> None:
    watching = Watching()
    asked = []
    for _ in range(3):
        asked.append(watching.next_node())
        watching.watched.ended(asked[-1], is_useless=False)
    assert set(asked) == {"b:1", "c:1", "d:1"}


def test_one_that_failed_as_a_node_comes_last() -> None:
    for seed in range(30):
        watching = Watching("a:1", "b:1", "c:1", seed=seed)
        watching.nodes.failed("b:1")
        for _ in range(5):
            assert watching.next_node() == "c:1"
            watching.watched.ended("c:1", is_useless=False)


def test_what_failed_beside_another_stream_does_not_count() -> None:
    asked = set()
    for seed in range(30):
        watching = Watching("a:1", "b:1", "c:1", seed=seed)
        watching.watched.ended("b:1", is_useless=False)
        watching.watched.begin()
        asked.add(watching.next_node())
    assert asked == {"b:1", "c:1"}


def test_where_nobody_else_is_known_nobody_is_asked() -> None:
    watching = Watching("a:1")
    assert watching.watched.next_node() is None
    watching.nodes.found(["b:1"], watching.now)
    assert watching.next_node() == "b:1"


def test_one_that_is_of_no_use_is_left_out_for_a_while() -> None:
    watching = Watching("a:1", "b:1")
    watching.watched.ended("b:1", is_useless=True)
    assert watching.watched.next_node() is None
    watching.watched.begin()
    assert watching.watched.next_node() is None, "during the next stream too"
    watching.now = LEFT_OUT_SECONDS - 1
    assert watching.watched.next_node() is None
    watching.now = LEFT_OUT_SECONDS
    assert watching.next_node() == "b:1"


def test_the_waits_grow_until_one_has_told_for_a_while() -> None:
    watching = Watching()
    waits = []
    for _ in range(12):
        waits.append(watching.watched.next_pause())
        node = watching.next_node()
        watching.watched.answered()
        watching.now += LASTING_SECONDS - 1
        watching.watched.ended(node, is_useless=False)
    assert 0.5 <= waits[0] <= 1.0
    assert 30.0 <= waits[-1] <= 60.0
    node = watching.next_node()
    watching.watched.answered()
    watching.now += LASTING_SECONDS / 2
    watching.watched.answered()
    watching.now += LASTING_SECONDS / 2
    watching.watched.ended(node, is_useless=False)
    assert watching.watched.next_pause() <= 1.0
    watching.watched.next_pause()
    watching.watched.begin()
    assert watching.watched.next_pause() <= 1.0, "and with the next stream"


def test_one_that_never_answered_did_not_tell() -> None:
    watching = Watching()
    watching.watched.next_pause()
    node = watching.next_node()
    watching.watched.answered()
    watching.watched.ended(node, is_useless=False)
    node = watching.next_node()
    watching.now += 10 * LASTING_SECONDS
    watching.watched.ended(node, is_useless=False)
    assert watching.watched.next_pause() > 1.0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["next", "ended", "useless", "answered", "found", "move", "failed", "elsewhere", "wait", "begin"]
        ),
        st.integers(0, 99),
    ),
    max_size=80,
)


@given(STEPS)
def test_it_is_never_the_node_in_use_and_little_is_kept(steps: list[tuple[str, int]]) -> None:
    watching = Watching("a:1", "b:1")
    addresses = ["a:1", "b:1", *(f"found:{number}" for number in range(98))]
    asked = "b:1"
    for step, number in steps:
        nodes, watched, address = watching.nodes, watching.watched, addresses[number]
        match step:
            case "next":
                node = watched.next_node()
                known = nodes.known(watching.now)
                assert node is None or (node in known and node != nodes.current)
                assert set(watched._left_out) | set(watched._failures) <= set(known)
                asked = node or asked
            case "ended" | "useless":
                watched.ended(asked, is_useless=step == "useless")
            case "answered":
                watched.answered()
            case "found":
                nodes.found([address], watching.now)
            case "move":
                nodes.failed(nodes.current)
                nodes.move(watching.now)
            case "failed":
                nodes.failed(address)
            case "elsewhere":
                nodes.found_elsewhere(address, "another", watching.now)
            case "wait":
                watching.now += number * 10
            case "begin":
                watched.begin()
        assert watched.next_pause() <= 60.0
