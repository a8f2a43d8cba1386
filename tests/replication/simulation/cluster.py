"""A cluster of replicas in memory: real logs on simulated disks, streams of messages, and simulated time."""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from attrs import Factory, define, field

from proglog_trio.errors import LogClosed, LogReadOnly, ProglogError
from proglog_trio.log.batch import Appended
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.clock import clamped
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.stored_frame import StoredFrame
from proglog_trio.log.repair.fetched_frames import FetchedFrames
from proglog_trio.log.repair.plan import RepairPlan, plan_repair
from proglog_trio.log.retention import removable, remove_files
from proglog_trio.log.scrub import Scrub
from proglog_trio.replication.events import PeerLied, PullRefused, ReplicationEvent
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.messages import Hello, OriginRange, PullRequest, PullResponse
from proglog_trio.replication.peers.acknowledgements import AcknowledgementResult
from proglog_trio.replication.peers.directories_file import keep_directories, read_directories
from proglog_trio.replication.pull_session import PullSession
from proglog_trio.replication.replica import Replica, ReplicationConfig
from proglog_trio.replication.source_reader import FrameSource
from proglog_trio.replication.source_session import SourceSession
from tests.log.driving import DIRECTORY, NOON, OpenLog, batch_of, read_everything
from tests.log.simulated_disk import Loss, SimulatedDisk
from tests.replication.simulation.network import Network, Stream

MAX_IN_FLIGHT = 4
READ_BYTES = 4096
FAILURE_SECONDS = 5.0
"""So long after the last sign of life the membership calls a node failed."""


@define(eq=False, repr=False)
class Life:
    """One run of a node's process."""

    cluster: Cluster
    node: Node
    opened: OpenLog
    local: LocalNode
    opened_as: int
    replica: Replica = field(init=False)
    is_running: bool = True
    commit_scheduled: bool = False
    wake_at: float | None = None
    raising: bool = False
    looks: int = 0
    pulls: dict[str, PullLink] = Factory(dict)

    def __attrs_post_init__(self) -> None:
        self.replica = Replica(
            self.local,
            self.cluster.config,
            self,
            read_directories(self.opened.log),
            lambda peer: self.cluster.round_trip(self.node.name, peer),
        )

    def deadline_changed(self) -> None:
        self.cluster.wake(self.node, self)

    def directories_changed(self) -> None:
        self.cluster.keep_directories(self)

    def superseded(self, opened: int) -> None:
        self.cluster.raise_opening(self, opened)


@define(eq=False, repr=False)
class PullLink:
    """A pull stream to a peer, between the two sessions."""

    cluster: Cluster
    puller: Node
    source: Node
    stream: Stream = field(init=False)
    pull: PullSession = field(init=False)
    served: SourceSession = field(init=False)
    reader: FrameSource = field(init=False)
    puller_life: Life = field(init=False)
    source_life: Life = field(init=False)
    read_to: int = -1
    is_done: bool = False
    is_closed: bool = False
    is_blocked: bool = False
    arrived: deque[PullResponse] = Factory(deque)
    poll_at: dict[bool, float] = Factory(dict)

    def open(self) -> None:
        assert self.puller.life is not None
        assert self.source.life is not None
        self.puller_life, self.source_life = self.puller.life, self.source.life
        self.stream = Stream.open(
            self.cluster.network,
            self.puller.name,
            self.source.name,
            (self.close, lambda: None),
            lambda name: self.cluster.nodes[name].is_paused,
        )
        self.pull = self.puller_life.replica.open_pull(
            self.source.name, lambda: self.poll(True), self.go_on, lambda: None
        )
        self.served = self.source_life.replica.open_source(lambda: self.poll(False))
        self.reader = FrameSource(self.source_life.opened.log)
        self.poll(True)

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self.stream.break_off()
        if self.puller_life.is_running:
            self.puller_life.pulls.pop(self.source.name, None)
            self.puller_life.replica.close_pull(self.pull)
            self.cluster.dial_later(self.puller, self.source.name)
        if self.source_life.is_running:
            self.source_life.replica.close_source(self.served)
            self.reader.close()

    # -- both directions -----------------------------------------------------------------------------------------------

    def poll(self, is_puller: bool, after: float = 0.0) -> None:
        """Let one side look for what it has to send."""
        at = self.cluster.network.now + after
        if is_puller in self.poll_at and self.poll_at[is_puller] <= at:
            return
        self.poll_at[is_puller] = at
        self.cluster.network.after(after, lambda: self._poll(is_puller, at))

    def _poll(self, is_puller: bool, at: float) -> None:
        if self.is_closed or self.poll_at.get(is_puller) != at:
            return
        del self.poll_at[is_puller]
        node = self.puller if is_puller else self.source
        if not (self.puller_life if is_puller else self.source_life).is_running:
            return
        if node.is_paused:
            self.poll(is_puller, 0.5)
            return
        if is_puller:
            while (request := self.pull.next_request()) is not None:
                self.stream.send(True, partial(self.at_source, request))
            deadline = self.pull.deadline
        else:
            self._serve()
            deadline = self.served.deadline
        if deadline is not None and not self.is_closed:
            self.poll(is_puller, max(deadline - node.ahead - self.cluster.network.now, 0.0005))

    def _serve(self) -> None:
        while (response := self.served.next_response()) is not None:
            self.stream.send(False, partial(self.at_puller, response))
        log = self.source_life.opened.log
        while self.stream.in_flight(False) + len(self.arrived) < MAX_IN_FLIGHT and (
            self.served.has_want_changes or not self.is_done or self.read_to < log.next_offset
        ):
            answer = None if self.served.has_want_changes else self.reader.read_recent(READ_BYTES)
            if answer is None:
                answer = self.reader.read(self.served.pop_want_changes(), READ_BYTES)
            self.read_to, self.is_done = answer.read_to, answer.is_done
            data = b"".join(answer.pieces)
            self.served.frames_read(answer.count, len(data), answer.ended)
            if data:
                self.stream.send(False, partial(self.at_puller, PullResponse(frames=data)))
            while (response := self.served.next_response()) is not None:
                self.stream.send(False, partial(self.at_puller, response))

    def at_source(self, request: PullRequest) -> None:
        if not self.source_life.is_running:
            return
        try:
            self.served.received(request)
        except (PullRefused, PeerLied) as error:
            self.cluster.problems.append(error)
            self.close()

    def at_puller(self, response: PullResponse) -> None:
        self.arrived.append(response)
        self._take_arrived()

    def _take_arrived(self) -> None:
        while self.arrived and not self.is_blocked and not self.is_closed:
            response = self.arrived.popleft()
            self._apply(partial(self.pull.received, response))
            self.poll(False)

    def go_on(self) -> None:
        self.is_blocked = False
        self._apply(self.pull.apply)
        self._take_arrived()

    def _apply(self, apply: Callable[[], bool]) -> None:
        if self.is_closed:
            return
        try:
            self.is_blocked = not apply()
        except (LogReadOnly, LogClosed):
            self.close()
        except (PullRefused, PeerLied) as error:
            if isinstance(error, PeerLied):
                self.puller_life.replica.node.counters.lies += 1
            self.cluster.problems.append(error)
            self.close()


@define(eq=False, repr=False)
class Node:
    """A node: its disk outlives its processes.

    Attributes:
        ahead: how far its clock is ahead of the network's, in seconds: it may have been stopped for longer.
    """

    name: str
    disk: SimulatedDisk
    config: LogConfig
    life: Life | None = None
    is_paused: bool = False
    ahead: float = 0.0
    lives: int = 0
    backoff: float = 0.25
    members: set[str] = Factory(set)

    @property
    def running(self) -> Life:
        assert self.life is not None
        return self.life


@define(eq=False, repr=False)
class Cluster:
    """Nodes on one network.

    Attributes:
        acknowledged: what was acknowledged: origin, sequence, value, the node, and how many nodes were said to have it.
        refused: the values of which was said that they are certainly not stored.
        damaged: the nodes on whose disks something was damaged.
        copies: the nodes that ended since another uses a copy of their directory.
        removed_below: per origin up to where retention of any node has removed it.
        wall_offset: by how many milliseconds whose wall clock is wrong.
    """

    seed: int
    config: ReplicationConfig = Factory(ReplicationConfig)
    log_config: LogConfig = field(factory=lambda: LogConfig(DIRECTORY, segment_bytes=8192, index_interval_bytes=512))
    rng: random.Random = field(init=False)
    network: Network = field(init=False)
    nodes: dict[str, Node] = Factory(dict)
    acknowledged: list[tuple[Origin, int, bytes, str, int]] = Factory(list)
    refused: set[bytes] = Factory(set)
    problems: list[ProglogError] = Factory(list)
    events: list[tuple[str, ReplicationEvent]] = Factory(list)
    produced: int = 0
    repaired_offsets: int = 0
    damaged: set[str] = Factory(set)
    wall_offset: dict[str, int] = Factory(dict)
    copies: set[str] = Factory(set)
    removed_below: dict[Origin, int] = Factory(dict)
    distances: dict[frozenset[str], float] = Factory(dict)
    _distance_rng: random.Random = Factory(lambda self: random.Random(f"distances {self.seed}"), takes_self=True)

    def __attrs_post_init__(self) -> None:
        self.rng = random.Random(f"cluster {self.seed}")
        self.network = Network(random.Random(f"network {self.seed}"))
        self._watch_members()
        self._watch_disks()

    @property
    def now(self) -> float:
        return self.network.now

    def run(self, seconds: float) -> None:
        self.network.run(seconds)

    def add(self, name: str, disk: SimulatedDisk | None = None, config: LogConfig | None = None) -> Node:
        disk = disk if disk is not None else SimulatedDisk(random.Random(f"disk {self.seed} {name}"))
        node = self.nodes[name] = Node(name, disk, config if config is not None else self.log_config)
        self.start(node)
        return node

    def round_trip(self, one: str, other: str) -> float | None:
        """Say how far two nodes are from each other; where that is not set it is something else with every question."""
        known = self.distances.get(frozenset({one, other}))
        return self._distance_rng.choice((None, 0.0001, 0.005, 0.02, 0.1, 0.5)) if known is None else known

    def start(self, node: Node) -> Life:
        assert node.life is None
        node.lives += 1
        self.wall_offset.setdefault(node.name, self.rng.randrange(-2000, 2000))

        def wall_clock() -> int:
            return clamped(NOON + self.wall_offset[node.name] + int(self.network.now * 1000))

        opened = OpenLog.open(
            node.disk,
            seed=hash((self.seed, node.name, node.lives)) % 2**32,
            wall_clock=wall_clock,
            config=node.config,
            monotonic_clock=lambda: self.network.now + node.ahead,
            on_work=lambda: self._schedule_commit(node, life),
        )
        hello = Hello(node.config.cluster_name, node.name, opened.log.directory_id, opened.log.opening)
        local = LocalNode(
            opened.log,
            hello,
            lambda: self.network.now + node.ahead,
            lambda event: self.events.append((node.name, event)),
        )
        life = node.life = Life(self, node, opened, local, opened.log.opening)
        self.network.after(1.0, lambda: self._look_at_missing(node, life))
        node.members = set()
        node.backoff = 0.25
        return life

    # -- a node's own tasks --------------------------------------------------------------------------------------------

    def _schedule_commit(self, node: Node, life: Life) -> None:
        if not life.commit_scheduled:
            life.commit_scheduled = True
            self.network.after(self.rng.uniform(0.0005, 0.004), lambda: self._commit(node, life))

    def _commit(self, node: Node, life: Life) -> None:
        if not life.is_running:
            return
        if node.is_paused:
            self.network.after(0.5, lambda: self._commit(node, life))
            return
        life.commit_scheduled = False
        life.opened.commit()

    def wake(self, node: Node, life: Life) -> None:
        deadline = life.replica.scheduler.next_deadline
        if deadline is None or (life.wake_at is not None and life.wake_at <= deadline):
            return
        life.wake_at = deadline

        def wake() -> None:
            if not life.is_running or life.wake_at != deadline:
                return
            life.wake_at = None
            if node.is_paused:
                life.wake_at = self.now + 0.5
                self.network.after(0.5, wake_later)
                return
            life.replica.scheduler.advance()

        def wake_later() -> None:
            life.wake_at = None
            if life.is_running:
                self.wake(node, life)

        self.network.after(max(deadline - node.ahead - self.now, 0.001), wake)

    def _watch_disks(self) -> None:
        for node in self.nodes.values():
            if node.life is not None and not node.is_paused:
                node.life.opened.look_at_disk()
        self.network.after(0.5, self._watch_disks)

    def keep_directories(self, life: Life) -> None:
        """Write down which directories there are; what fails is tried again with the next change."""
        if life.is_running:
            with contextlib.suppress(OSError):
                keep_directories(life.opened.log, life.replica.peers.directories.encode())

    def raise_opening(self, life: Life, opened: int) -> None:
        if life.raising:
            return
        life.raising = True

        def raise_it() -> None:
            if not life.is_running:
                return
            if opened > life.replica.node.hello.opened:
                with contextlib.suppress(OSError):
                    life.replica.reopened(life.opened.log.raise_opening(opened))
            # As a node does: two copies would raise it in turn for ever.
            self.network.after(10.0, lambda: setattr(life, "raising", False))

        self.network.after(self.rng.uniform(0.001, 0.01), raise_it)

    def _look_at_missing(self, node: Node, life: Life) -> None:
        if not life.is_running:
            return
        self.network.after(1.0, lambda: self._look_at_missing(node, life))
        if node.is_paused or life.opened.log.read_only_reason is not None:
            return
        if retired := life.replica.retirement.pop_ends():
            with contextlib.suppress(OSError):
                life.opened.log.durable.retired_origins.add(retired)
        life.looks += 1
        if life.looks % 60 == 0:
            life.replica.review.touch_all()
        if life.replica.review.review():
            with contextlib.suppress(OSError):
                self.fill(node)

    def fill(self, node: Node) -> None:
        """Put what is missing at a node in its place, as far as reachable members have it."""
        log, replica = node.running.opened.log, node.running.replica
        for files in log.durable.missing_segments():
            if files == log.catalog.active.files:
                log.roll()
                node.running.opened.commit()
            if log.read_only_reason is not None:
                return
            if files == log.catalog.active.files or (plan := plan_repair(log.catalog, log.bounds(), files)) is None:
                continue
            outcome = plan.rebuild(self._fetched(node, plan), replica.review.given_up())
            gaps = log.durable.settle_missing(*outcome.offsets, outcome.missing, outcome.gaps)
            replica.review.settled(outcome.filled_offsets, gaps)

    def _fetched(self, node: Node, plan: RepairPlan) -> FetchedFrames:
        fetched = FetchedFrames()
        for missing in plan.missing:
            for other in self.live:
                if other.name in node.members and not other.is_paused and self.network.reaches(node.name, other.name):
                    found = other.running.opened.log.frames(
                        missing.origin, missing.from_sequence, missing.to_sequence, 1 << 24
                    )
                    fetched.add_all(found.frames)
        return fetched

    def forget_old_origins(self, node: Node) -> int:
        """Forget origins of which nothing is left, as a node does once a minute; return how many."""
        replica = node.running.replica
        old = replica.retirement.old_origins()
        replica.node.log.durable.retired_origins.add(old)
        return replica.forget_origins(old)

    def forget_member(self, name: str) -> None:
        """Do as the membership does when a member has been gone for long, or was told to leave."""
        for node in self.live:
            node.running.replica.peers.directories.gone(name)

    # -- membership, by an oracle --------------------------------------------------------------------------------------

    def _watch_members(self) -> None:
        for node in self.nodes.values():
            if node.life is not None and not node.is_paused:
                self._watch(node)
        self.network.after(1.0, self._watch_members)

    def _watch(self, node: Node) -> None:
        for other in self.nodes.values():
            if other is node:
                continue
            alive = (
                other.life is not None
                and not other.is_paused
                and self.network.cut_for(node.name, other.name) < FAILURE_SECONDS
            )
            if alive and other.running.opened.log.directory_id == node.running.opened.log.directory_id:
                # As a node does: of two copies of a directory the one that was started later ends.
                if node.running.opened_as > other.running.opened_as:
                    self.stop(node, Loss.KEEP)
                    self.copies.add(node.name)
                    return
                continue
            if alive and other.name not in node.members:
                node.members.add(other.name)
                node.running.replica.joined(other.name)
                self.dial_later(node, other.name)
            elif not alive and other.name in node.members:
                node.members.discard(other.name)
                link = node.running.pulls.get(other.name)
                if link is not None:
                    link.close()
                node.running.replica.left(other.name)

    # -- repair --------------------------------------------------------------------------------------------------------

    def keep_repairing(self, seconds: float = 10.0) -> None:
        """Let every node scrub its log and repair it with what reachable members have, again and again."""
        for node in self.live:
            if not node.is_paused and node.running.opened.log.read_only_reason is None:
                self.repair(node)
        self.network.after(seconds, lambda: self.keep_repairing(seconds))

    def repair(self, node: Node) -> None:
        log = node.running.opened.log
        scrub = Scrub(log.catalog)
        while not scrub.finished:
            scrub.step(1 << 20)
        for files in log.damage.segments():
            if files == log.catalog.active.files:
                log.roll()
                node.running.opened.commit()
            if files == log.catalog.active.files or (plan := plan_repair(log.catalog, log.bounds(), files)) is None:
                continue
            outcome = plan.rebuild(self._fetched(node, plan))
            log.durable.settle_missing(*outcome.offsets, outcome.missing, outcome.gaps)
            self.repaired_offsets += outcome.repaired_offsets

    def dial_later(self, node: Node, name: str) -> None:
        wait = node.backoff * self.rng.uniform(0.5, 1.0)
        life = node.life
        self.network.after(wait, lambda: self._dial(node, life, name))

    def _dial(self, node: Node, life: Life | None, name: str) -> None:
        if node.life is not life or life is None or name not in node.members or name in life.pulls:
            return
        other = self.nodes[name]
        reachable = self.network.reaches(node.name, name) and self.network.reaches(name, node.name)
        if other.life is None or node.is_paused or other.is_paused or not reachable:
            self.dial_later(node, name)
            return
        link = PullLink(self, node, other)
        life.pulls[name] = link
        link.open()

    # -- what tests do -------------------------------------------------------------------------------------------------

    def produce(
        self, node: Node, *, wanted: int = 1, records: int = 1, size: int = 20, after_log_time: int = 0
    ) -> None:
        life = node.life
        if life is None or life.opened.log.read_only_reason is not None:
            return
        values = []
        for _ in range(records):
            self.produced += 1
            values.append(f"{self.produced}:".encode().ljust(size, b"."))

        def note(nodes: int, answer: Appended) -> None:
            for number, value in enumerate(values):
                self.acknowledged.append((answer.origin, answer.base_sequence + number, value, node.name, nodes))

        def done(answer: Appended | ProglogError) -> None:
            if isinstance(answer, LogReadOnly):
                self.refused.update(values)
            if not isinstance(answer, Appended):
                return
            note(1, answer)
            if wanted > 1:
                first, following = answer.base_sequence, answer.base_sequence + answer.count

                def achieved(achieved: AcknowledgementResult) -> None:
                    if achieved.reached:
                        note(achieved.nodes, answer)

                life.replica.wait_acknowledged(answer.origin, first, following, wanted, 5.0, achieved)

        life.opened.log.append_soon(batch_of(*values, after_log_time=after_log_time), done)

    def stop(self, node: Node, loss: Loss) -> None:
        """End a process at once; with a loss, the machine's power as well."""
        life = node.running
        life.is_running = False
        node.life = None
        node.is_paused = False
        for stream_link in [link for other in self.nodes.values() for link in self._links_of(other, node)]:
            self.network.after(self.network.random_delay(), stream_link.close)
        for link in list(life.pulls.values()):
            link.close()
        node.disk.restart(loss, random.Random(f"{self.seed} {node.name} {node.lives}"))

    def _links_of(self, puller: Node, source: Node) -> list[PullLink]:
        if puller.life is None:
            return []
        return [link for link in puller.life.pulls.values() if link.source is source]

    def pause(self, node: Node) -> None:
        node.is_paused = True

    def resume(self, node: Node, longer: float = 0.0) -> None:
        """Let a process go on: it looks at what is due before it reads; longer: it was stopped so much longer."""
        node.is_paused = False
        node.ahead += longer
        if node.life is not None:
            node.life.wake_at = None
            node.life.replica.scheduler.advance()
        for stream in list(self.network.streams):
            stream.pump()

    def apply_retention(self, node: Node) -> None:
        log = node.running.opened.log
        found = removable(log.catalog, log.config, log.running_time)
        if found is not None:
            remove_files(log.catalog, log.durable.forget_segments(*found))
        for origin, state in log.origins.items():
            self.removed_below[origin] = max(self.removed_below.get(origin, 0), state.low)

    # -- what is checked -----------------------------------------------------------------------------------------------

    @property
    def live(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.life is not None]

    def frames(self, node: Node) -> dict[Origin, list[StoredFrame]]:
        """Return what a node's log durably holds, per origin, in order."""
        found: dict[Origin, list[StoredFrame]] = {}
        for stored in read_everything(node.running.opened.log).frames:
            found.setdefault(stored.envelope.origin, []).append(stored)
        return found

    def disagreement(self) -> str | None:
        """Return in words how the logs of live nodes differ, or None: the same next for every origin.

        An origin of which retention has left nothing anywhere is nothing to a log that never had anything of it.
        """
        states = {node.name: node.running.opened.log.origins for node in self.live}
        for origin in {origin for origins in states.values() for origin in origins}:
            nexts = {name: origins[origin].next if origin in origins else 0 for name, origins in states.items()}
            ranges = [OriginRange.of_state(origins[origin]) for origins in states.values() if origin in origins]
            if not any(held.holds_any(0, held.next) for held in ranges):
                nexts = {name: following for name, following in nexts.items() if following}
            if len(set(nexts.values())) > 1:
                least, most = min(nexts, key=nexts.__getitem__), max(nexts, key=nexts.__getitem__)
                return f"{least} has {nexts[least]} of {origin}, {most} has {nexts[most]}"
        return None

    def run_until_agreed(self, limit: float) -> None:
        began = self.now
        while (difference := self.disagreement()) is not None:
            assert self.now - began < limit, f"after {limit} s: {difference}"
            self.run(0.5)

    def check_ranges(self, node: Node) -> None:
        """One range per origin outside marked gaps, and outside what is damaged; nothing twice."""
        if node.life is None:
            return
        is_sound = node.name not in self.damaged
        log = node.life.opened.log
        held = self.frames(node)
        assert held.keys() <= log.origins.keys()
        for origin, state in log.origins.items():
            frames = held.get(origin, [])
            sequence = None
            for stored in frames:
                base = stored.envelope.base_sequence
                expected = state.low if sequence is None else sequence
                if base != expected:
                    is_missing = base > expected and (not is_sound or are_gaps(state.not_held, expected, base))
                    assert is_missing, f"{node.name} has {base} of {origin} where {expected} comes next"
                sequence = base + stored.envelope.count
            # Also of an origin of which nothing is there: what is no gap is held, to acknowledgements and to peers.
            sequence = state.low if sequence is None else sequence
            assert are_gaps(state.not_held, sequence, state.next) or not is_sound, f"{node.name} has less of {origin}"


def are_gaps(gaps: Sequence[tuple[int, int]], first: int, following: int) -> bool:
    """Tell whether gaps, one after the other, are all that lies between two sequences."""
    for begin, end in gaps:
        if begin == first and first < following:
            first = end
    return first == following
