"""The membership protocol in simulated clusters, against what its papers and memberlist's figures lead one to expect.

One cluster of 1,000 nodes (another number with --nodes): everybody joins through one node within a second; then nothing
happens for a while; then a tenth of the nodes dies at once. And many clusters of 50 nodes in which one dies, over
networks that lose more and more packets. Nothing here depends on this machine's speed but how long the run takes.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from functools import lru_cache
from pathlib import Path
from unittest.mock import patch

from attrs import frozen

from benchmarks.common import percentile
from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf import serf
from proglog_trio.membership.serf.member import MemberEvent, MemberEventKind, MemberStatus
from proglog_trio.membership.serf.serf import CoreEvent
from proglog_trio.membership.swim.broadcasts import retransmit_limit
from proglog_trio.membership.swim.effects import StatusChange
from proglog_trio.membership.swim.node import NodeStatus
from proglog_trio.membership.swim.outbox import COMPOUND_OVERHEAD_BYTES
from proglog_trio.membership.swim.suspicion import shortest_suspicion
from proglog_trio.membership.swim.swim import push_pull_scale
from proglog_trio.membership.wire.serf import decode_serf
from tests.membership.simulation.bounds import detection_bound, dissemination_seconds, longest_suspicion
from tests.membership.simulation.cluster import Cluster, SimulatedNode, address_of
from tests.membership.simulation.network import Conditions

PLOT = Path(__file__).parent.parent / "docs" / "explanation" / "membership.svg"
STEP_SECONDS = 0.1
SETTLING_SECONDS = 5.0
IDLE_SECONDS = 20.0
LOSSES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
LIMIT_SECONDS = 600.0


@frozen
class Spread:
    """How news spread.

    Attributes:
        times: in seconds, since it began.
        shares: of all that everybody has to learn, at those times.
        packets, bytes: that each node sent, a second.
    """

    times: list[float]
    shares: list[float]
    packets: float
    bytes: float

    @property
    def seconds(self) -> float:
        """Until everybody knew everything."""
        return self.times[-1]

    def until(self, share: float) -> float:
        """Return when a share of it was known."""
        return next(moment for moment, known in zip(self.times, self.shares, strict=True) if known >= share)


@frozen
class Detection:
    """How long it took in one cluster until all knew of one crash, and how often a node failed that lived."""

    seconds: float
    wrong: int
    node_seconds: float


class Counter:
    """Counts what cores say."""

    def __init__(self) -> None:
        self.events = dict.fromkeys(MemberEventKind, 0)
        self.declared: dict[str, float] = {}
        self.suspected: dict[str, float] = {}
        self.cluster: Cluster

    def watch(self, _node: SimulatedNode, event: CoreEvent) -> None:
        """Take an event."""
        if isinstance(event, MemberEvent):
            self.events[event.kind] += len(event.members)
        elif isinstance(event, StatusChange):
            if event.after is NodeStatus.SUSPECT:
                self.suspected.setdefault(event.name, self.cluster.now)
            elif event.after is NodeStatus.DEAD:
                self.declared.setdefault(event.name, self.cluster.now)


def spread(cluster: Cluster, counter: Counter, kind: MemberEventKind, wanted: int, nodes: int) -> Spread:
    """Let time pass until an event has happened often enough."""
    began = cluster.now
    traffic = cluster.network.traffic
    packets, sent = traffic.packets, traffic.bytes
    before = counter.events[kind]
    times, shares = [0.0], [0.0]
    while counter.events[kind] - before < wanted:
        if cluster.now - began > LIMIT_SECONDS:
            raise SystemExit(f"after {LIMIT_SECONDS} s {counter.events[kind] - before} of {wanted} {kind.value} events")
        cluster.run(STEP_SECONDS)
        times.append(cluster.now - began)
        shares.append((counter.events[kind] - before) / wanted)
    node_seconds = nodes * (cluster.now - began)
    return Spread(times, shares, (traffic.packets - packets) / node_seconds, (traffic.bytes - sent) / node_seconds)


def large_cluster(count: int, profile: GossipProfile, seed: int) -> tuple[Spread, Spread]:
    """Let many nodes join, idle, and a tenth of them die."""
    cluster = Cluster.make(seed, profile, encoded=False, traced=False)
    counter = Counter()
    counter.cluster = cluster
    cluster.watch = counter.watch
    nodes = [cluster.start(f"n{number}", address_of(number)) for number in range(count)]
    for node in nodes[1:]:
        cluster.network.after(cluster.network.rng.random(), cluster.join, node, [nodes[0].endpoint])
    own = counter.events[MemberEventKind.JOIN]
    assert own == count
    joining = spread(cluster, counter, MemberEventKind.JOIN, count * (count - 1), count)
    print(f"\n{count:,} nodes join through one within 1 s")
    print(f"  all know all after {joining.seconds:.1f} s, 99 % is known after {joining.until(0.99):.1f} s")
    print(f"  meanwhile {joining.packets:.1f} packets and {joining.bytes / 1000:.2f} kB per node and second")
    room = profile.gossip_nodes / profile.gossip_interval * profile.packet_bytes
    print(f"  gossip's ceiling: {room / 1000:.1f} kB per node and second besides probes")

    waiting = drain(nodes)
    print(f"  each node would repeat what everybody knows for another {waiting / room:.0f} s; that is left out here")

    cluster.run(SETTLING_SECONDS)
    traffic = cluster.network.traffic
    packets, sent = traffic.packets, traffic.bytes
    cluster.run(IDLE_SECONDS)
    node_seconds = count * IDLE_SECONDS
    print("idle")
    print(
        f"  {(traffic.packets - packets) / node_seconds:.3f} packets (a ping and an ack a probe interval: "
        f"{2 / profile.probe_interval:.3f}), {(traffic.bytes - sent) / node_seconds:.1f} bytes per node and second"
    )
    interval = profile.push_pull_interval * push_pull_scale(count)
    print(f"  besides, one state exchange per node in {interval:.0f} s")
    print(f"  suspicions so far: {len(counter.suspected)}, failures: {len(counter.declared)}")

    victims = nodes[1 :: max(count // (count // 10), 1)][: count // 10]
    for victim in victims:
        cluster.crash(victim)
    began = cluster.now
    alive = count - len(victims)
    failing = spread(cluster, counter, MemberEventKind.FAILED, len(victims) * alive, alive)
    suspected = [counter.suspected[victim.name] - began for victim in victims]
    declared = [counter.declared[victim.name] - began for victim in victims]
    periods = 1 / (1 - math.exp(-alive / count))
    shortest = shortest_suspicion(profile.suspicion_multiplier, count, profile.probe_interval)
    first, last = statistics.mean, max
    sends = retransmit_limit(profile.retransmit_multiplier, count)
    print(f"{len(victims)} of them die at once")
    print(f"  first suspected after {first(suspected):.2f} s on average, {last(suspected):.2f} s at most")
    print(
        f"    (SWIM, 4.1: {periods:.2f} intervals until somebody pings it; a probe takes {profile.probe_interval:g} s)"
    )
    print(f"  first declared dead after {first(declared):.1f} s on average, {last(declared):.1f} s at most")
    print(f"    (a suspicion lasts {shortest:.1f} to {longest_suspicion(profile, count):.1f} s)")
    print(f"  all know all after {failing.seconds:.1f} s, 99 % is known after {failing.until(0.99):.1f} s")
    print(
        f"    (bound for one: {detection_bound(profile, count):.0f} s; dissemination: "
        f"{dissemination_seconds(profile, count):.1f} s, in which a node sends a broadcast {sends} times)"
    )
    print(f"  meanwhile {failing.packets:.1f} packets and {failing.bytes / 1000:.2f} kB per node and second")
    wrong = len(counter.declared) - len(victims)
    print(f"  living nodes declared dead: {wrong}")
    return joining, failing


def drain(nodes: list[SimulatedNode]) -> float:
    """Let every node forget what it still would gossip; return how many bytes that was, per node."""
    size = 0
    for node in nodes:
        swim = node.core.swim
        for queue in swim.outbox.queues:
            while sent := queue.for_packet(swim.rules.known, COMPOUND_OVERHEAD_BYTES, 2**40):
                size += sum(COMPOUND_OVERHEAD_BYTES + len(message) for message in sent)
    return size / len(nodes)


def detection(count: int, profile: GossipProfile, loss: float, seed: int) -> Detection:
    """Let one node of a cluster die on a network that loses packets."""
    cluster = Cluster.make(seed, profile, encoded=False, traced=False)
    nodes = cluster.form(count)
    cluster.network.conditions = Conditions(loss=loss)
    # Until the loss shows in suspicions and in local health, if it does.
    cluster.run(20 * profile.probe_interval + cluster.network.rng.random())
    wrong = [0]
    victim = nodes[seed % count]

    def watch(_node: SimulatedNode, event: CoreEvent) -> None:
        if isinstance(event, MemberEvent) and event.kind is MemberEventKind.FAILED:
            wrong[0] += sum(member.name != victim.name for member in event.members)

    cluster.watch = watch
    began = cluster.now
    cluster.crash(victim)
    took = cluster.run_until(lambda: cluster.all_see(victim.name, MemberStatus.FAILED), LIMIT_SECONDS, STEP_SECONDS)
    return Detection(math.inf if took is None else took, wrong[0], count * (cluster.now - began))


def sweep(count: int, profile: GossipProfile, rounds: int, seed: int) -> list[tuple[float, list[Detection]]]:
    """Measure detection over networks that lose more and more."""
    bound = detection_bound(profile, count)
    print(f"\none of {count} nodes dies; {rounds} clusters for each share of loss; bound without loss {bound:.1f} s")
    print("  loss   median     90 %      max   over the bound   living nodes failed, per node and hour")
    results = []
    for loss in LOSSES:
        runs = [detection(count, profile, loss, seed + number) for number in range(rounds)]
        seconds = [run.seconds for run in runs]
        over = sum(value > bound for value in seconds) / rounds
        wrong = sum(run.wrong for run in runs) / count / sum(run.node_seconds for run in runs) * 3600
        print(
            f"  {loss:4.0%} {statistics.median(seconds):7.1f}s {percentile(seconds, 0.9):7.1f}s {max(seconds):7.1f}s "
            f"{over:12.1%} {wrong:20.3f}",
            flush=True,
        )
        results.append((loss, runs))
    return results


def plot(
    path: Path, count: int, joining: Spread, failing: Spread, small: int, sweeps: list[tuple[float, list[Detection]]]
) -> None:
    """Draw what was measured."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "membership"  # the same figures give the same file
    from matplotlib import pyplot

    profile = GossipProfile()
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    left.plot(joining.times, [100 * share for share in joining.shares])
    left.set(title=f"{count:,} nodes join through one", xlabel="seconds", ylabel="% of all pairs known", ylim=(0, 102))
    middle.plot(failing.times, [100 * share for share in failing.shares], label="simulated")
    shortest = shortest_suspicion(profile.suspicion_multiplier, count, profile.probe_interval)
    longest = longest_suspicion(profile, count)
    middle.axvline(shortest, color="0.5", linestyle=":", label=f"shortest suspicion, {shortest:.0f} s")
    middle.axvline(longest, color="0.5", linestyle="--", label=f"longest suspicion, {longest:.0f} s")
    middle.set(title="a tenth of them dies at once", xlabel="seconds", ylabel="% of all pairs known", ylim=(0, 102))
    middle.legend(loc="center right")
    losses = [100 * loss for loss, _ in sweeps]
    for share, label in ((0.5, "median"), (0.9, "90 %"), (1.0, "longest")):
        values = [percentile([run.seconds for run in runs], share) for _, runs in sweeps]
        right.plot(losses, values, marker="o", label=label)
    bound = detection_bound(profile, small)
    right.axhline(bound, color="0.5", linestyle="--", label=f"bound without loss, {bound:.0f} s")
    right.set(title=f"one of {small} dies", xlabel="% of packets lost", ylabel="seconds until all know", ylim=(0, None))
    right.legend()
    for axes in (left, middle, right):
        axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
    print(f"\nwrote {path}")


def main() -> None:
    """Run everything, print the figures, and draw them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000, help="of the large cluster (default: 1000)")
    parser.add_argument("--small", type=int, default=50, help="of each small cluster (default: 50)")
    parser.add_argument("--rounds", type=int, default=40, help="small clusters for each share of loss (default: 40)")
    parser.add_argument("--seed", type=int, default=1, help="replays a run (default: 1)")
    parser.add_argument(
        "--plot", type=Path, nargs="?", const=PLOT, help=f"draw into a file (default: {PLOT.name} in docs)"
    )
    arguments = parser.parse_args()
    began = time.perf_counter()
    profile = GossipProfile()
    # The same broadcast reaches every node: it is decoded once for all of them.
    with patch.object(serf, "decode_serf", lru_cache(maxsize=65_536)(decode_serf)):
        joining, failing = large_cluster(arguments.nodes, profile, arguments.seed)
        sweeps = sweep(arguments.small, profile, arguments.rounds, arguments.seed)
    if arguments.plot is not None:
        plot(arguments.plot, arguments.nodes, joining, failing, arguments.small, sweeps)
    print(f"took {time.perf_counter() - began:.0f} s of this machine")


if __name__ == "__main__":
    main()
