"""Which node is next."""

import random
from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proglog_trio.client.nodes import FOUND_SECONDS, MAX_FOUND, NodeList, parse_addresses

GIVEN = ("a:1", "b:1")
FOUND = [f"c{number}:1" for number in range(6)]


def make(*given: str, seed: int = 0) -> NodeList:
    return NodeList(given or GIVEN, random.Random(seed))


def test_the_current_one_is_kept_as_long_as_it_works() -> None:
    nodes = make()
    assert nodes.move(0.0) == "a:1"
    nodes.found(["c:1"], 0.0)
    nodes.worked("a:1")
    assert nodes.move(1.0) == "a:1"
    assert nodes.move(1.0, avoid={"a:1"}) != "a:1"


def test_clients_of_a_node_that_dies_spread() -> None:
    chosen: Counter[str] = Counter()
    for seed in range(300):
        nodes = make("a:1", "b:1", "c:1", "d:1", seed=seed)
        nodes.failed("a:1")
        chosen[nodes.move(0.0)] += 1
    assert set(chosen) == {"b:1", "c:1", "d:1"}
    assert min(chosen.values()) > 50


def test_all_others_are_tried_before_one_that_failed() -> None:
    nodes = make("a:1", "b:1", "c:1", "d:1")
    tried = []
    for _ in range(8):
        tried.append(nodes.move(0.0))
        nodes.failed(tried[-1])
    assert tried[0] == "a:1"
    assert set(tried[:4]) == set(tried[4:]) == {"a:1", "b:1", "c:1", "d:1"}


def test_an_address_that_cannot_be_reached_comes_after_those_that_work() -> None:
    nodes = make("a:1")
    nodes.found(["unreachable:1"], 0.0)
    tried = []
    for _ in range(10):  # the node works each time, and is lost again
        for _ in range(2):
            tried.append(nodes.move(0.0))
            if tried[-1] == "a:1":
                nodes.worked("a:1")
                nodes.failed("a:1")
                break
            nodes.failed(tried[-1])
    assert tried.count("unreachable:1") <= 2


def test_nodes_to_avoid_are_chosen_when_there_is_no_other() -> None:
    nodes = make()
    nodes.failed("a:1")
    assert nodes.move(0.0, avoid={"b:1"}) == "a:1"
    assert nodes.move(0.0, avoid=GIVEN) in GIVEN


def test_what_cannot_be_dialled_is_left_out() -> None:
    nodes = make()
    nodes.found(["", "no port", "0.0.0.0:5", "[::]:5", "host:0", "a:1", "[::1]:5", "host:5"], 0.0)
    assert nodes.known(0.0) == ("a:1", "b:1", "[::1]:5", "host:5")


def test_more_than_can_be_kept_are_a_random_part() -> None:
    told = [f"node{number:04}:1" for number in range(1000)]
    kept: set[str] = set()
    for seed in range(3):
        nodes = make(seed=seed)
        nodes.found(told, 0.0)
        assert len(nodes.known(0.0)) == len(GIVEN) + MAX_FOUND
        kept.update(nodes.known(0.0))
    assert len(kept) > len(GIVEN) + MAX_FOUND


def test_addresses() -> None:
    assert parse_addresses("a:1") == ("a:1",)
    assert parse_addresses(["a:1", "b:2", "a:01"]) == ("a:1", "b:2")
    with pytest.raises(ValueError, match="at least one"):
        parse_addresses([])
    with pytest.raises(ValueError, match="has no port"):
        parse_addresses(["a:1", "b"])
    with pytest.raises(ValueError, match="at least one"):
        NodeList((), random.Random(0))


class Nodes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.nodes = make()
        self.told: dict[str, float] = {}
        self.failures: Counter[str] = Counter()

    @rule(addresses=st.sets(st.sampled_from([*FOUND, *GIVEN])))
    def find(self, addresses: set[str]) -> None:
        self.nodes.found(addresses, self.now)
        self.told.update(dict.fromkeys(addresses - set(GIVEN), self.now))

    @rule(seconds=st.floats(0.0, FOUND_SECONDS))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(data=st.data(), works=st.booleans())
    def use(self, data: st.DataObject, works: bool) -> None:
        avoid = data.draw(st.sets(st.sampled_from([*FOUND, *GIVEN])))
        before = self.nodes.current
        node = self.nodes.move(self.now, avoid)
        known = set(self.nodes.known(self.now))
        assert node in known
        candidates = known - avoid or known
        assert node in candidates
        if node != before:
            assert self.failures[node] == min(self.failures[address] for address in candidates)
            assert self.failures[before] or before not in candidates
        if works:
            self.nodes.worked(node)
            del self.failures[node]
            assert self.nodes.move(self.now) == node
        else:
            self.nodes.failed(node)
            self.failures[node] += 1

    @invariant()
    def given_ones_stay_and_found_ones_age(self) -> None:
        fresh = {address for address, told in self.told.items() if self.now - told <= FOUND_SECONDS}
        assert set(self.nodes.known(self.now)) == {*GIVEN, *fresh}
        for address in set(self.failures) - fresh - set(GIVEN):
            del self.failures[address]


TestNodes = Nodes.TestCase
TestNodes.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
