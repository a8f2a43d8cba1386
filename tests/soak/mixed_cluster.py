"""A cluster of agents and members of ours, each on a machine of its own, that talk."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio
from attrs import define, field, frozen

from tests.interop.namespaces import Network, network
from tests.observed.group import Group, group
from tests.observed.member import ObservedMember
from tests.observed.ours import ObservedOurs

GOSSIP_PORT = 7946
RPC_PORT = 7373
START_SECONDS = 300.0
STARTED_AT_ONCE = 4

EVENTS_EVERY_SECONDS = (1.0, 5.0)
QUERIES_EVERY_SECONDS = (4.0, 10.0)
QUERY_SECONDS = 15.0
"""Longer than a query lasts in a cluster of up to 99: 0.2 s for each of 16 rounds, and twice that for 10 or more."""
MAX_PAYLOAD_BYTES = 300
RELAY_FACTORS = (0, 3)


@frozen
class Query:
    """A query that was asked.

    Attributes:
        name: its own.
        asker: the name of the member.
        relay_factor: of it.
    """

    name: str
    asker: str
    relay_factor: int


@define(eq=False)
class MixedCluster:
    """The members, and what they were told to say.

    Attributes:
        network: between them.
        machines: the command that runs another on each.
        group: the members, in an order in which agents and ours take turns.
        rng: decides who says what, and when.
        sent: when each event was sent, by its name.
        senders: of the events, by their names.
        queries: that were asked.
    """

    network: Network
    machines: list[tuple[str, ...]]
    group: Group
    rng: random.Random
    sent: dict[str, float] = field(factory=dict)
    senders: dict[str, str] = field(factory=dict)
    queries: list[Query] = field(factory=list)

    def is_ours(self, name: str) -> bool:
        """Tell whether a member is no agent."""
        return any(isinstance(member, ObservedOurs) for member in self.group.members if member.name == name)

    async def send_events(self) -> None:
        """Have random members send events until cancelled."""
        while True:
            await trio.sleep(self.rng.uniform(*EVENTS_EVERY_SECONDS))
            name = f"event-{len(self.sent)}"
            sender = self.rng.choice(self.group.members)
            self.sent[name], self.senders[name] = time.perf_counter(), sender.name
            # One that was noted is sent: what is cancelled here would be missed everywhere.
            with trio.CancelScope(shield=True), trio.fail_after(START_SECONDS):
                await sender.send_event(name, self.rng.randbytes(self.rng.randrange(MAX_PAYLOAD_BYTES)))

    async def ask_queries(self) -> None:
        """Have random members ask all until cancelled."""
        while True:
            await trio.sleep(self.rng.uniform(*QUERIES_EVERY_SECONDS))
            asker = self.rng.choice(self.group.members)
            query = Query(f"query-{len(self.queries)}", asker.name, self.rng.choice(RELAY_FACTORS))
            self.queries.append(query)
            with trio.CancelScope(shield=True), trio.fail_after(START_SECONDS):
                await asker.ask(query.name, relay_factor=query.relay_factor)

    def cpu_seconds(self, *, ours: bool) -> float:
        """Return how much processor time the members of one kind have used."""
        members = [member for member in self.group.members if isinstance(member, ObservedOurs) is ours]
        return sum(_cpu_seconds(member) for member in members)


def _cpu_seconds(member: ObservedMember) -> float:
    # proc_pid_stat(5): behind the name, which is in parentheses; the 14th and 15th field of all
    fields = Path(f"/proc/{member.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def mixed_cluster(size: int, profile: str, rng: random.Random, seconds: float) -> AsyncIterator[MixedCluster]:
    """Run a cluster; everybody knows everybody when the block begins.

    Args:
        size: how many members; every second is an agent, and every second agent is at its defaults.
        profile: their timing.
        rng: see MixedCluster.
        seconds: for how long at the most.
    """
    async with network(seconds=seconds + 2 * START_SECONDS) as running, group() as members:
        machines = [await running.machine() for _ in range(size)]
        with trio.fail_after(START_SECONDS):
            async with trio.open_nursery() as nursery:
                limiter = trio.CapacityLimiter(STARTED_AT_ONCE)

                async def start(number: int) -> None:
                    host, enter = machines[number]
                    async with limiter:
                        if number % 2:
                            await members.ours(
                                f"ours-{number}", profile, host=host, port=GOSSIP_PORT, within=enter, suspicions=True
                            )
                        else:
                            await members.agent(
                                f"agent-{number}", profile, host=host, port=GOSSIP_PORT, rpc_port=RPC_PORT,
                                within=enter, is_bound=number % 4 == 0,
                            )  # fmt: skip

                for number in range(size):
                    nursery.start_soon(partial(start, number))
            members.members.sort(key=lambda member: int(member.name.rpartition("-")[2]))
            await members.join_all()
        yield MixedCluster(running, [enter for _, enter in machines], members, rng)
