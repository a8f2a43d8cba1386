"""Agents and ours in one cluster that loses a tenth of all packets: nobody fails, and what is said reaches all."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product

import pytest
import trio
from attrs import frozen

from tests.observed.member import Kind
from tests.soak.accounts import false_failures, in_words, reach
from tests.soak.loss import lose, lost
from tests.soak.mixed_cluster import QUERY_SECONDS, RELAY_FACTORS, MixedCluster, mixed_cluster

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0), pytest.mark.usefixtures("lossy_machines")]

PROFILE = "lan"
LOST_SHARE = 0.1
TOO_LONG_SECONDS = 30.0
"""A member that lives and is shown as failed for longer is one that users see fail."""
SPREAD_SECONDS = 240.0
"""What gossip misses comes with state exchanges: each member has one with a random other every 30 s."""
ANSWERED_SHARE = 0.98
"""Of the answers to queries with a relay factor, which go four ways; of two packets each, but for the first."""
ANSWERED_DIRECTLY_SHARE = 0.8
"""Of those that go in one packet each, of which a tenth is lost."""
MAX_SHOWN = 20
WHO = {True: "ours", False: "agents"}


async def talk(cluster: MixedCluster, seconds: float) -> float:
    """Have members talk for a while; return how long it took after that until every event was everywhere."""
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cluster.send_events)
            nursery.start_soon(cluster.ask_queries)
    began = trio.current_time()
    names, notes = set(cluster.group.names), cluster.group.notes
    with trio.move_on_after(SPREAD_SECONDS):
        await notes.until(lambda: all(notes.observers(Kind.EVENT, event).keys() == names for event in cluster.sent))
    took = trio.current_time() - began
    await trio.sleep(max(0.0, QUERY_SECONDS - took))
    return took


@frozen
class Answered:
    """What became of the queries that were asked in one way, as shares of all that were asked.

    Attributes:
        by_ours: one of ours asked.
        relay_factor: of the queries.
        count: of them.
        acknowledged, answered: shares of the members, over all of them.
    """

    by_ours: bool
    relay_factor: int
    count: int
    acknowledged: float
    answered: float

    @property
    def way(self) -> str:
        """Who asked, and how."""
        return f"{WHO[self.by_ours]}, relay factor {self.relay_factor}"


def answered(cluster: MixedCluster) -> Iterator[Answered]:
    """Give what became of the queries, by who asked and how."""
    notes, size = cluster.group.notes, len(cluster.group.members)

    def share(kind: Kind, names: Sequence[str]) -> float:
        return sum(len(notes.answering(kind, name)) for name in names) / len(names) / size

    for by_ours, factor in product(WHO, RELAY_FACTORS):
        names = [
            query.name
            for query in cluster.queries
            if query.relay_factor == factor and cluster.is_ours(query.asker) is by_ours
        ]
        if names:
            shares = share(Kind.ACKNOWLEDGEMENT, names), share(Kind.ANSWER, names)
            yield Answered(by_ours, factor, len(names), *shares)


async def test_nobody_healthy_fails_and_every_event_reaches_all(
    soak_members: int, soak_seconds: float, soak_seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(line: str) -> None:
        with capsys.disabled():
            print(line)  # noqa: T201 - figures are what this is for

    say(f"\n{soak_members} members, half of them agents, {PROFILE} profile, {soak_seconds:g} s, seed {soak_seed}")
    longest = soak_seconds + SPREAD_SECONDS + QUERY_SECONDS
    async with mixed_cluster(soak_members, PROFILE, random.Random(soak_seed), longest) as cluster:
        notes, names = cluster.group.notes, cluster.group.names
        await lose(cluster.network, cluster.machines, LOST_SHARE)
        cpu = {ours: cluster.cpu_seconds(ours=ours) for ours in (True, False)}
        began = trio.current_time()
        late = await talk(cluster, soak_seconds)
        took = trio.current_time() - began
        cpu = {ours: cluster.cpu_seconds(ours=ours) - cpu[ours] for ours in (True, False)}
        loss = await lost(cluster.machines)

    reached = {event: reach(notes, event, sent_at, names) for event, sent_at in cluster.sent.items()}
    failures, queries = false_failures(notes), list(answered(cluster))
    said = Counter((happening.kind, cluster.is_ours(happening.observer)) for happening in notes.all)

    say(f"packets: {loss.arrived}, of which {100 * loss.share:.1f} % were lost")
    for ours in (True, False):
        senders = [
            reached[event].seconds for event, sender in cluster.senders.items() if cluster.is_ours(sender) is ours
        ]
        say(f"events of {WHO[ours]}: {len(senders)}; s until everywhere: {in_words(senders)}")
    late_at = Counter(cluster.is_ours(name) for one in reached.values() for name in one.late)
    say(
        f"gossip missed members, who had an event by a state exchange: {late_at[True]} times one of ours, "
        f"{late_at[False]} times an agent; the last event was everywhere {late:.1f} s after the last was sent"
    )
    for each in queries:
        say(
            f"queries of {each.way}: {each.count}; acknowledged {100 * each.acknowledged:.2f} %, "
            f"answered {100 * each.answered:.2f} %"
        )
    for ours in (True, False):
        suspected, declared, paused = (said[kind, ours] for kind in (Kind.SUSPECTS, Kind.DECLARES_DEAD, Kind.PAUSED))
        percent = 100 * cpu[ours] / took / (soak_members / 2)
        say(
            f"{WHO[ours]}: {suspected} suspicions, {declared} declared dead, {percent:.2f} % of a core each"
            + (f", stopped {paused} times" if ours else "")
        )
    say(f"healthy members shown as failed: {len(failures)} times; s: {in_words([each.seconds for each in failures])}")
    for failure in failures[:MAX_SHOWN]:
        by = failure.declared_by or "nobody"
        say(f"  {failure.subject} at {failure.observer} for {failure.seconds:.1f} s, declared by {by}")

    assert 0.8 * LOST_SHARE < loss.share < 1.2 * LOST_SHARE
    assert {event: each for event, each in reached.items() if each.missing or each.repeated} == {}
    assert [failure for failure in failures if failure.seconds > TOO_LONG_SECONDS] == []
    assert [failure for failure in failures if not failure.declared_by or cluster.is_ours(failure.declared_by)] == []
    lowest = {factor: ANSWERED_SHARE if factor else ANSWERED_DIRECTLY_SHARE for factor in RELAY_FACTORS}
    assert [each for each in queries if each.answered < lowest[each.relay_factor]] == []
