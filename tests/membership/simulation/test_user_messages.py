"""User events reach all that stay connected, once and with Lamport times that tell cause from effect; queries end."""

from __future__ import annotations

from contextlib import suppress

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf.asked_queries import QueryOver
from proglog_trio.membership.serf.open_queries import Listener
from proglog_trio.membership.serf.querying import Question
from proglog_trio.membership.serf.serf import CoreEvent
from proglog_trio.membership.serf.user_events import UserEvent
from proglog_trio.membership.wire.serf import Filter, NodeFilter, Query, TagFilter
from tests.membership.simulation.cluster import Cluster, SimulatedNode
from tests.membership.simulation.network import PERFECT, Conditions
from tests.membership.simulation.strategies import EXAMPLES, QUICK_PROFILES, SEEDS, faulty

EVERYWHERE_SECONDS = 1800.0
LARGEST = 9 * 1024
ANSWER_SECONDS = 0.05

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("fire"), st.integers(0, 2**8), st.sampled_from([0, 3, 400, 5000])),
        st.tuples(st.just("run"), st.sampled_from([0.1, 2.0, 40.0]), st.just(0)),
        st.tuples(st.just("cut"), st.integers(0, 2**8), st.just(0)),
        st.tuples(st.just("heal"), st.just(0), st.just(0)),
    ),
    min_size=1,
    max_size=12,
)


@define
class Heard:
    """What each node delivered, and answers that it gives."""

    cluster: Cluster
    events: dict[str, list[UserEvent]] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.cluster.watch = self.take

    def take(self, node: SimulatedNode, event: CoreEvent) -> None:
        if isinstance(event, UserEvent):
            self.events.setdefault(node.name, []).append(event)
        elif isinstance(event, Query) and event.name == "name":
            self.cluster.network.after(ANSWER_SECONDS, self.answer, node, event)

    def answer(self, node: SimulatedNode, query: Query) -> None:
        if node.is_up:
            with suppress(QueryOver):
                self.cluster.act(
                    node, lambda: node.core.querying.answer(query.ltime, query.id, node.name.encode(), 1024)
                )


@settings(max_examples=max(EXAMPLES // 12, 5), deadline=None)
@given(SEEDS, st.integers(2, 12), QUICK_PROFILES, faulty(), STEPS)
def test_each_event_reaches_all_that_stay(
    seed: int, size: int, profile: GossipProfile, conditions: Conditions, steps: list[tuple[str, float, int]]
) -> None:
    cluster = Cluster.make(seed, profile, encoded=size <= 4)
    nodes = cluster.form(size)
    heard = Heard(cluster)
    cluster.network.conditions = conditions
    fired: dict[bytes, UserEvent] = {}
    for number, (what, value, length) in enumerate(steps):
        node = nodes[int(value) % size]
        match what:
            case "fire":
                known = list(heard.events.get(node.name, ()))
                payload = number.to_bytes(2, "big") + bytes(length)
                cluster.act(node, lambda: node.core.fire("e", payload, coalesce=False, max_bytes=LARGEST))  # noqa: B023
                event = heard.events[node.name][-1]
                assert event.payload == payload
                assert all(event.ltime > earlier.ltime for earlier in known)
                fired[payload] = event
            case "run":
                cluster.run(value)
            case "cut":
                ours = {each.endpoint for place, each in enumerate(nodes) if int(value) >> place % 8 & 1}
                theirs = {each.endpoint for each in nodes} - ours
                cluster.network.block(ours, theirs)
                cluster.network.block(theirs, ours)
            case "heal":
                cluster.network.heal()
    cluster.network.heal()
    cluster.network.conditions = PERFECT

    def is_everywhere() -> bool:
        return all(len(heard.events.get(node.name, ())) >= len(fired) for node in nodes)

    assert cluster.run_until(is_everywhere, EVERYWHERE_SECONDS, step=5.0) is not None
    cluster.run(60.0)
    for node in nodes:
        events = heard.events.get(node.name, [])
        assert {event.payload: event for event in events} == fired
        assert len(events) == len(fired)


@settings(max_examples=max(EXAMPLES // 12, 5), deadline=None)
@given(
    SEEDS,
    st.integers(1, 12),
    QUICK_PROFILES,
    faulty(),
    st.sampled_from([0, 1, 3]),
    st.lists(st.tuples(st.integers(0, 15), st.sampled_from(["crash", "leave", "nothing"])), max_size=4),
    st.sampled_from(["all", "some", "tagged"]),
    st.booleans(),
)
def test_queries_end_and_nobody_answers_twice(
    seed: int,
    size: int,
    profile: GossipProfile,
    conditions: Conditions,
    relay_factor: int,
    happenings: list[tuple[int, str]],
    asked: str,
    loses: bool,
) -> None:
    cluster = Cluster.make(seed, profile, encoded=size <= 4)
    nodes = cluster.form(size)
    Heard(cluster)
    cluster.network.conditions = conditions if loses else PERFECT
    filters: dict[str, tuple[Filter, ...]] = {
        "all": (),
        "some": (NodeFilter(tuple(node.name for node in nodes[::2])),),
        "tagged": (TagFilter(tag="rpc_addr", expr="^10"), NodeFilter((nodes[-1].name,))),
    }
    wanted = {"all": nodes, "some": nodes[::2], "tagged": nodes[-1:]}[asked]
    asker = nodes[0]
    timeout = 20.0
    question = Question(
        name="name", filters=filters[asked], relay_factor=relay_factor, timeout=timeout, acknowledge=True
    )
    answers: list[tuple[str, bytes]] = []
    acknowledged: list[str] = []
    ended: list[float] = []
    listener = Listener(
        lambda name, payload: answers.append((name, payload)), lambda: ended.append(cluster.now), acknowledged.append
    )
    began = cluster.now
    cluster.act(asker, lambda: asker.core.querying.ask(question, listener))
    for place, what in happenings:
        node = nodes[place % size]
        if node is asker or not node.is_up or node.leaving:
            continue
        if what == "crash":
            cluster.crash(node)
        elif what == "leave":
            cluster.leave(node)
        cluster.run(0.2)
    cluster.run(began + timeout + 1.0 - cluster.now)
    assert len(ended) == 1
    assert ended[0] <= began + timeout + 0.1
    names = {node.name for node in wanted}
    assert {name for name, _ in answers} <= names
    assert len(answers) == len(dict(answers))
    assert set(acknowledged) <= names
    assert len(acknowledged) == len(set(acknowledged))
    assert all(payload == name.encode() for name, payload in answers)
    if not loses and all(what == "nothing" for _, what in happenings):
        assert {name for name, _ in answers} == names
        assert ended[0] < began + timeout
