"""Whatever happens to a cluster, when it is over its logs agree; what a surviving disk acknowledged is not lost."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

from attrs import define
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.clock import FURTHEST_AHEAD_MILLISECONDS
from proglog_trio.log.format.frame import decode_frame
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.record import unpack_records
from proglog_trio.log.new_id import give_new_id
from proglog_trio.replication.events import Diverged, PeerLied
from proglog_trio.replication.peers.peer_clocks import QUESTION_SECONDS, RETURN_SECONDS
from tests.log.driving import DIRECTORY
from tests.log.simulated_disk import Loss, SimulatedDisk
from tests.replication.simulation.cluster import Cluster, Node

EXAMPLES = settings().max_examples
CONVERGENCE_SECONDS = 300.0
PLACES = st.integers(0, 2**16)
SECONDS = st.sampled_from([0.0, 0.001, 0.01, 0.1, 1.0, 4.0, 15.0])
LOSSES = st.sampled_from(list(Loss))
MAX_NODES = 7


@define
class _Acknowledged:
    """A record and how many disks could be lost without it."""

    node: str
    copies: int
    lost: int = 0


CLOCK_JUMPS = (5, 600, 3600, 365 * 86_400, 100 * 365 * 86_400)
"""Seconds by which a wall clock is set."""


class Faults(RuleBasedStateMachine):
    """A cluster to which things happen."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster: Cluster
        self.backups: list[tuple[str, SimulatedDisk]] = []
        self.copies: dict[tuple[Origin, int, str], _Acknowledged] = {}
        self.known = 0
        self.contents: dict[tuple[Origin, int], bytes] = {}
        self.loses_by_retention = False
        self.has_damage = False
        self.has_given_up = False
        # Those whose wall clocks were set wrong once, and those that began with the log of such a one.
        self.misled: set[str] = set()

    @initialize(
        seed=st.integers(0, 2**32 - 1),
        size=st.integers(2, 5),
        pending=st.sampled_from([300, 64 << 20]),
        retention=st.sampled_from([None, None, 6_000]),
        damage=st.booleans(),
        recent=st.sampled_from([0, 2_000, 8 << 20]),
        ahead=st.sampled_from([0, 0, *CLOCK_JUMPS, -CLOCK_JUMPS[-1]]),
    )
    def form(
        self, seed: int, size: int, pending: int, retention: int | None, damage: bool, recent: int, ahead: int
    ) -> None:
        """Start the nodes, the first one with a wall clock that is so many seconds ahead."""
        config = LogConfig(
            DIRECTORY,
            segment_bytes=4096,
            index_interval_bytes=512,
            max_pending_bytes=pending,
            retention_bytes=retention,
            tail_cache_bytes=recent,
        )
        self.loses_by_retention = retention is not None
        self.has_damage = damage
        self.cluster = Cluster(seed, log_config=config)
        if ahead:
            self.set_clock("n0", ahead)
        for number in range(size):
            self.cluster.add(f"n{number}")
        if damage:
            self.cluster.keep_repairing()
        self.cluster.run(2.0)

    def some(self, place: int, wanted: Callable[[Node], bool]) -> Node | None:
        nodes = [node for node in self.cluster.nodes.values() if wanted(node)]
        return nodes[place % len(nodes)] if nodes else None

    def a_live_one(self, place: int) -> Node | None:
        return self.some(place, lambda node: node.life is not None and not node.is_paused)

    def take_acknowledged(self) -> None:
        """Note how many disks hold what was acknowledged since the last step."""
        for origin, sequence, value, name, nodes in self.cluster.acknowledged[self.known :]:
            before = self.contents.setdefault((origin, sequence), value)
            assert before == value, f"sequence {sequence} of {origin} means two things"
            key = (origin, sequence, name)
            known = self.copies.get(key)
            if known is None:
                self.copies[key] = _Acknowledged(name, nodes)
            elif known.copies - known.lost < nodes:
                known.copies = known.lost + nodes
        self.known = len(self.cluster.acknowledged)

    def lose_disk(self, name: str) -> None:
        self.take_acknowledged()
        for record in self.copies.values():
            # Which disks hold the further copies is not known: the lost one may be among them.
            if record.node == name or record.copies - record.lost > 1 or record.lost:
                record.lost += 1

    # -- what happens --------------------------------------------------------------------------------------------------

    @rule(place=PLACES, records=st.integers(1, 20), size=st.sampled_from([20, 300, 1000]), wanted=st.integers(1, 4))
    def produce(self, place: int, records: int, size: int, wanted: int) -> None:
        node = self.a_live_one(place)
        if node is not None:
            log = node.running.opened.log
            if log.pending_bytes < log.config.max_pending_bytes:
                self.cluster.produce(node, wanted=wanted, records=records, size=size)

    @rule(seconds=SECONDS, count=st.integers(1, 10))
    def produce_everywhere(self, seconds: float, count: int) -> None:
        for _ in range(count):
            for node in self.cluster.live:
                log = node.running.opened.log
                if not node.is_paused and log.pending_bytes < log.config.max_pending_bytes:
                    self.cluster.produce(node)
            self.cluster.run(0.003)
        self.cluster.run(seconds)

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.cluster.run(seconds)

    @rule(place=PLACES, loss=LOSSES, seconds=SECONDS)
    def crash(self, place: int, loss: Loss, seconds: float) -> None:
        node = self.some(place, lambda node: node.life is not None)
        if node is not None:
            self.take_acknowledged()
            self.cluster.stop(node, loss)
        self.cluster.run(seconds)

    @rule(loss=LOSSES)
    def crash_all(self, loss: Loss) -> None:
        self.take_acknowledged()
        for node in self.cluster.live:
            self.cluster.stop(node, loss)

    @rule(place=PLACES, seconds=SECONDS)
    def restart(self, place: int, seconds: float) -> None:
        node = self.some(place, lambda node: node.life is None)
        if node is not None:
            self.cluster.start(node)
        self.cluster.run(seconds)

    @rule(place=PLACES)
    def wipe(self, place: int) -> None:
        node = self.some(place, lambda _node: True)
        assert node is not None
        self.lose_disk(node.name)
        if node.life is not None:
            self.cluster.stop(node, Loss.KEEP)
        node.disk = SimulatedDisk(random.Random(place))
        self.cluster.start(node)

    @rule(place=PLACES, seconds=st.sampled_from([sign * span for span in CLOCK_JUMPS for sign in (1, -1)]))
    def clock_jumps(self, place: int, seconds: int) -> None:
        """Set a node's wall clock, while it runs or is down."""
        node = self.some(place, lambda _node: True)
        assert node is not None
        self.set_clock(node.name, seconds)

    def set_clock(self, name: str, seconds: int) -> None:
        self.cluster.wall_offset[name] = self.cluster.wall_offset.get(name, 0) + seconds * 1000
        self.misled.add(name)

    @rule(place=PLACES, ahead=st.integers(0, 2**64 - 1))
    def produce_after(self, place: int, ahead: int) -> None:
        """A producer says that its cause has some log time, however far ahead."""
        node = self.a_live_one(place)
        if node is not None:
            log = node.running.opened.log
            if log.pending_bytes < log.config.max_pending_bytes:
                self.cluster.produce(node, after_log_time=ahead)

    @rule(place=PLACES)
    def back_up(self, place: int) -> None:
        """A copy of the files as they are, of a running node as well."""
        node = self.some(place, lambda _node: True)
        assert node is not None
        self.backups.append((node.name, node.disk.copy()))

    @precondition(lambda self: self.backups)
    @rule(place=PLACES)
    def restore(self, place: int) -> None:
        name, disk = self.backups[place % len(self.backups)]
        node = self.cluster.nodes[name]
        self.lose_disk(name)
        if node.life is not None:
            self.cluster.stop(node, Loss.KEEP)
        node.disk = disk.copy()
        self.cluster.start(node)

    @precondition(lambda self: self.backups and len(self.cluster.nodes) < MAX_NODES)
    @rule(place=PLACES)
    def start_a_copy(self, place: int) -> None:
        """A new node on a copy of another's data directory, while that may be running."""
        original, disk = self.backups[place % len(self.backups)]
        name = f"n{len(self.cluster.nodes)}"
        if original in self.cluster.damaged:
            self.cluster.damaged.add(name)
        if original in self.misled:
            self.misled.add(name)
        self.cluster.add(name, disk.copy())

    @precondition(lambda self: len(self.cluster.nodes) < MAX_NODES)
    @rule()
    def add(self) -> None:
        self.cluster.add(f"n{len(self.cluster.nodes)}")

    @rule(place=PLACES, seconds=SECONDS)
    def pause(self, place: int, seconds: float) -> None:
        node = self.a_live_one(place)
        if node is not None:
            self.cluster.pause(node)
        self.cluster.run(seconds)

    @rule(seconds=SECONDS)
    def pause_all(self, seconds: float) -> None:
        for node in self.cluster.live:
            self.cluster.pause(node)
        self.cluster.run(seconds)

    @rule(place=PLACES, longer=st.sampled_from([0.0, 30.0, 1e6]))
    def resume(self, place: int, longer: float) -> None:
        node = self.some(place, lambda node: node.is_paused)
        if node is not None:
            self.cluster.resume(node, longer)

    @rule(cut=PLACES, one_way=st.booleans(), seconds=SECONDS)
    def partition(self, cut: int, one_way: bool, seconds: float) -> None:
        names = sorted(self.cluster.nodes)
        ours = {name for number, name in enumerate(names) if cut >> number & 1}
        theirs = set(names) - ours
        self.cluster.network.block(ours, theirs)
        if not one_way:
            self.cluster.network.block(theirs, ours)
        self.cluster.run(seconds)

    @rule(place=PLACES, other=PLACES, seconds=SECONDS)
    def cut_one_link(self, place: int, other: int, seconds: float) -> None:
        names = sorted(self.cluster.nodes)
        pair = {names[place % len(names)], names[other % len(names)]}
        self.cluster.network.block(pair, pair)
        self.cluster.run(seconds)

    @rule(seconds=SECONDS)
    def heal(self, seconds: float) -> None:
        self.cluster.network.heal()
        self.cluster.run(seconds)

    @rule(place=PLACES, kind=st.sampled_from(["write", "sync"]))
    def disk_fails(self, place: int, kind: str) -> None:
        """The next write fails: the node turns read-only, and what it holds stays served until it is restarted."""
        node = self.a_live_one(place)
        if node is not None:
            node.disk.fail(kind, 5)

    @rule(place=PLACES, room=st.sampled_from([0, 300, 5_000]))
    def disk_fills(self, place: int, room: int) -> None:
        """There is hardly room on a node's disk, while it runs or is down: it goes on by itself when there is some."""
        node = self.some(place, lambda _node: True)
        assert node is not None
        node.disk.capacity = node.disk.used_bytes + room

    @rule(place=PLACES, seconds=SECONDS)
    def room_is_made(self, place: int, seconds: float) -> None:
        node = self.some(place, lambda node: node.disk.capacity is not None)
        if node is not None:
            node.disk.capacity = None
            self.cluster.run(seconds)

    @precondition(lambda self: self.has_damage)
    @rule(place=PLACES, where=st.integers(0, 2**32), bits=st.integers(1, 255))
    def flip_bits(self, place: int, where: int, bits: int) -> None:
        """Damage one byte of a node's files, while it runs or is down."""
        node = self.some(place, lambda _node: True)
        assert node is not None
        files = [path for path in node.disk.files() if path.suffix == ".store" and node.disk.content(path)]
        if files:
            path = files[where % len(files)]
            self.lose_disk(node.name)
            self.cluster.damaged.add(node.name)
            node.disk.flip(path, where % len(node.disk.content(path)), bits)

    @precondition(lambda self: self.has_damage)
    @rule(place=PLACES, where=st.integers(0, 2**32))
    def cut_file(self, place: int, where: int) -> None:
        """Cut one of the files of a node that is down."""
        node = self.some(place, lambda node: node.life is None)
        if node is None:
            return
        files = [path for path in node.disk.files() if path.suffix == ".store" and node.disk.content(path)]
        if files:
            path = files[where % len(files)]
            content = node.disk.content(path)
            self.lose_disk(node.name)
            self.cluster.damaged.add(node.name)
            node.disk.put(path, content[: where % len(content)])

    @precondition(lambda self: self.loses_by_retention)
    @rule(place=PLACES)
    def retain(self, place: int) -> None:
        node = self.a_live_one(place)
        if node is not None:
            self.cluster.apply_retention(node)

    @precondition(lambda self: self.loses_by_retention)
    @rule(place=PLACES, seconds=SECONDS)
    def fall_behind(self, place: int, seconds: float) -> None:
        """A node is stopped for a moment, in which retention overtakes it."""
        behind = self.a_live_one(place)
        if behind is not None:
            self.let_fall_behind(behind, [node for node in self.cluster.live if node is not behind])
        self.cluster.run(seconds)

    def let_fall_behind(self, behind: Node, others: list[Node]) -> None:
        """Stop a node until the others have nothing left of what the first of them wrote meanwhile."""
        others = [node for node in others if not node.is_paused]
        self.cluster.pause(behind)
        for writer in others:
            for _ in range(12):
                log = writer.running.opened.log
                if log.pending_bytes < log.config.max_pending_bytes:
                    self.cluster.produce(writer, size=1000)
                self.cluster.run(0.01)
        for node in others:
            self.cluster.apply_retention(node)
        self.cluster.resume(behind)

    @rule(place=PLACES)
    def forget_member(self, place: int) -> None:
        """A member is gone for so long that the others forget it; what it alone has may be given up."""
        node = self.some(place, lambda node: node.life is None)
        if node is not None:
            self.lose_disk(node.name)
            self.cluster.forget_member(node.name)

    @rule(place=PLACES)
    def give_up(self, place: int) -> None:
        """An operator gives up what is missing at a node, and it is written down: other nodes that lack it follow."""
        node = self.a_live_one(place)
        if node is not None and node.running.replica.review.give_up(None):
            self.has_given_up = True
            with contextlib.suppress(OSError):
                self.cluster.fill(node)

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def each_log_is_one_range_per_origin(self) -> None:
        if hasattr(self, "cluster"):
            self.take_acknowledged()
            for node in self.cluster.live:
                self.cluster.check_ranges(node)

    @invariant()
    def no_clock_is_moved_far_by_others(self) -> None:
        if hasattr(self, "cluster"):
            for node in self.cluster.live:
                if node.name not in self.misled:
                    assert node.running.opened.log.log_time_ahead <= FURTHEST_AHEAD_MILLISECONDS

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        self.take_acknowledged()
        cluster.network.heal()
        for node in cluster.nodes.values():
            node.disk.clear_faults()
            if node.is_paused:
                cluster.resume(node)
            if node.life is not None:
                log = node.running.opened.log
                if log.read_only_reason is not None and not log.room.is_passing:
                    cluster.stop(node, Loss.KEEP)
            if node.life is None:
                if node.name in cluster.copies:
                    give_new_id(DIRECTORY, disk=node.disk, rng=cluster.rng)
                cluster.start(node)
        cluster.run(20.0)
        for node in cluster.nodes.values():
            if node.life is None:
                # Both had been down, or could not see each other.
                give_new_id(DIRECTORY, disk=node.disk, rng=cluster.rng)
                cluster.start(node)
        cluster.run_until_agreed(CONVERGENCE_SECONDS)
        cluster.run(2.0)
        assert cluster.disagreement() is None
        note(f"{cluster.events} {cluster.problems}")
        self.check_logs()
        self.check_log_time()
        self.check_that_it_goes_on()
        assert not [event for _, event in cluster.events if isinstance(event, Diverged)]
        assert not [problem for problem in cluster.problems if isinstance(problem, PeerLied)]
        self.check_logs()

    def check_log_time(self) -> None:
        """Once all wall clocks are right no node's log time stays ahead of them, whatever any said before."""
        cluster = self.cluster
        for name in cluster.wall_offset:
            cluster.wall_offset[name] = 0
        # One return in an hour: by the nodes' own clocks, which stand for it, that is over.
        for node in cluster.live:
            cluster.pause(node)
        for node in cluster.live:
            cluster.resume(node, RETURN_SECONDS)
        cluster.run(2 * QUESTION_SECONDS)
        self.check_that_no_log_time_is_ahead()
        for node in cluster.live:
            cluster.produce(node)
        cluster.run(0.1)
        cluster.run_until_agreed(CONVERGENCE_SECONDS)
        # It is as it would be had the clocks never been wrong: after another opening, too.
        for node in cluster.live:
            cluster.stop(node, Loss.KEEP)
            cluster.start(node)
        self.check_that_no_log_time_is_ahead()
        cluster.run(5.0)

    def check_that_no_log_time_is_ahead(self) -> None:
        for node in self.cluster.live:
            ahead = node.running.opened.log.log_time_ahead
            assert ahead <= FURTHEST_AHEAD_MILLISECONDS, f"log time of {node.name} stays {ahead} ms ahead"

    def check_that_it_goes_on(self) -> None:
        """What all write now reaches all through any one of them alone, and an effect has a later time than its cause.

        Through one, so that it shows what a node believes of that one, an absence for example: no other helps out.
        """
        cluster = self.cluster
        between, *others = cluster.rng.sample(cluster.live, len(cluster.live))
        for node in others:
            cluster.network.block([node.name], set(cluster.nodes) - {between.name})
        if self.loses_by_retention and others:
            self.let_fall_behind(others[0], [between, *others[1:]])
            cluster.run(5.0)
        cause = 0
        for node in cluster.live:
            known = len(cluster.acknowledged)
            cluster.produce(node, after_log_time=cause)
            cluster.run(0.1)
            assert len(cluster.acknowledged) == known + 1, f"{node.name} acknowledges nothing"
            log = node.running.opened.log
            assert log.own_origin is not None
            effect = log.origins[log.own_origin].last_log_time
            assert effect > cause, f"{node.name} gives an effect an earlier log time than its cause has"
            cause = effect
        cluster.run_until_agreed(CONVERGENCE_SECONDS)

    def check_logs(self) -> None:
        seen: dict[tuple[Origin, int], bytes] = {}
        everywhere: list[set[tuple[Origin, int]]] = []
        for node in self.cluster.live:
            self.cluster.check_ranges(node)
            held: set[tuple[Origin, int]] = set()
            for origin, frames in self.cluster.frames(node).items():
                log_time = -1
                for stored in frames:
                    assert stored.header.log_time > log_time
                    log_time = stored.header.log_time
                    base = stored.envelope.base_sequence
                    assert seen.setdefault((origin, base), stored.data) == stored.data
                    for number, record in enumerate(unpack_records(decode_frame(stored.data).payload)):
                        assert (origin, base + number) not in held
                        held.add((origin, base + number))
                        expected = self.contents.get((origin, base + number))
                        assert expected is None or record.value == expected
                        assert record.value not in self.cluster.refused, "it was refused, and is stored"
            everywhere.append(held)
        anywhere = set().union(*everywhere)
        for (origin, sequence, _), known in self.copies.items():
            if known.lost < known.copies and sequence >= self.cluster.removed_below.get(origin, 0):
                assert (origin, sequence) in anywhere, f"sequence {sequence} of {origin} is lost: {known}"
        if self.loses_by_retention or self.cluster.damaged or self.has_given_up:
            return  # What differs then is what was removed, damaged or given up: check_ranges looks at each log.
        for node, held in zip(self.cluster.live, everywhere, strict=True):
            assert held == everywhere[0], f"{node.name} holds other records than {self.cluster.live[0].name}"


TestFaults = Faults.TestCase
TestFaults.settings = settings(
    max_examples=max(EXAMPLES // 2, 5), stateful_step_count=30, suppress_health_check=list(HealthCheck)
)
