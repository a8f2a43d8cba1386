"""Agents and ours in one cluster that loses a tenth of all packets: nobody fails, and what is said reaches all."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import trio

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
ANSWERED_SHARE = 0.97
"""Of the answers to queries with a relay factor, and to all of ours."""


async def talk(cluster: MixedCluster, seconds: float) -> float:
    """Have members talk for a while; return how long it took after that until every event was everywhere."""
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cluster.send_events)
            nursery.start_soon(cluster.ask_queries)
    began = trio.current_time()
    names, notes = set(cluster.group.names), cluster.group.notes
    with trio.move_on_after(SPREAD_SECONDS):
        await notes.until(lambda: all(notes.observers(Kind.EVENT, event) == names for event in cluster.sent))
    took = trio.current_time() - began
    await trio.sleep(max(0.0, QUERY_SECONDS - took))
    return took


class Shares:
    """Shares of answers, by who asked and how."""

    def __init__(self, cluster: MixedCluster) -> None:
        notes, size = cluster.group.notes, len(cluster.group.members)
        self.figures: dict[tuple[bool, int], tuple[int, float, float]] = {}
        for ours in (True, False):
            for factor in RELAY_FACTORS:
                queries = [
                    query.name
                    for query in cluster.queries
                    if query.relay_factor == factor and cluster.is_ours(query.asker) is ours
                ]
                if queries:
                    acknowledged, answered = (
                        sum(len(notes.answering(kind, query)) for query in queries) / len(queries) / size
                        for kind in (Kind.ACKNOWLEDGEMENT, Kind.ANSWER)
                    )
                    self.figures[ours, factor] = (len(queries), acknowledged, answered)


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
    failures, shares = false_failures(notes), Shares(cluster)
    said = Counter((happening.kind, cluster.is_ours(happening.observer)) for happening in notes.all)
    who = {True: "ours", False: "agents"}

    say(f"packets: {loss.arrived}, of which {100 * loss.share:.1f} % were lost")
    for ours in (True, False):
        senders = [
            reached[event].seconds for event, sender in cluster.senders.items() if cluster.is_ours(sender) is ours
        ]
        say(f"events of {who[ours]}: {len(senders)}; s until everywhere: {in_words(senders)}")
    say(f"the last event was everywhere {late:.1f} s after it was the last")
    for (ours, factor), (count, acknowledged, answered) in shares.figures.items():
        say(
            f"queries of {who[ours]}, relay factor {factor}: {count}; acknowledged {100 * acknowledged:.2f} %, "
            f"answered {100 * answered:.2f} %"
        )
    for ours in (True, False):
        suspected, declared, paused = (said[kind, ours] for kind in (Kind.SUSPECTS, Kind.DECLARES_DEAD, Kind.PAUSED))
        percent = 100 * cpu[ours] / took / (soak_members / 2)
        say(
            f"{who[ours]}: {suspected} suspicions, {declared} declared dead, {percent:.2f} % of a core each"
            + (f", stopped {paused} times" if ours else "")
        )
    say(f"healthy members shown as failed: {len(failures)} times; s: {in_words([each.seconds for each in failures])}")
    for each in failures[:20]:
        say(f"  {each.subject} at {each.observer} for {each.seconds:.1f} s, declared by {each.declared_by or 'nobody'}")

    assert 0.8 * LOST_SHARE < loss.share < 1.2 * LOST_SHARE
    assert {event: each for event, each in reached.items() if each.missing or each.repeated} == {}
    assert [each for each in failures if each.seconds > TOO_LONG_SECONDS] == []
    assert [each for each in failures if not each.declared_by or cluster.is_ours(each.declared_by)] == []
    for (ours, factor), (_, _, answered) in shares.figures.items():
        assert answered > ANSWERED_SHARE or not (ours or factor), (who[ours], factor)
