"""The members that SWIM knows: by name, by place, in the order in which they are probed, within bounds.

The table holds; it decides nothing. What a member's status is, and who is added or removed when, is for the rules.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from attrs import define, field

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.swim.node import Endpoint, Node, NodeStatus
from proglog_trio.membership.swim.timers import Timers
from proglog_trio.membership.swim.versions import Versions

MAX_NODES = 8192
"""Members beyond this are not added."""
MAX_NODE_BYTES = 4 * 1024 * 1024
"""Names and metas of all members together; beyond this none is added. A push/pull of so much, and of those who are
gone, is within the 20 MiB that receivers take; with ordinary names and tags it is enough for MAX_NODES."""

TRIES_PER_CHOICE = 4
"""How many random members are looked at for each that is wanted, before all are looked at."""


@define(eq=False)
class NodeTable:
    """The members, this node among them once it has started.

    Attributes:
        me: this node itself.
        nodes: by name. What is in it is in order, in versions and in the bytes as well, and nowhere else.
        order: the names in the order in which they are probed; a round shuffles it as it goes.
        versions: of all members.
    """

    me: Node
    profile: GossipProfile
    rng: random.Random
    timers: Timers
    nodes: dict[str, Node] = field(factory=dict)
    order: list[str] = field(factory=list)
    versions: Versions = field(factory=Versions)
    # Names and metas of nodes, kept as a sum: each change of a meta goes through here.
    _node_bytes: int = 0
    # Who was last heard of at a place. A member that is gone may still stand here; one that moved does not.
    _by_endpoint: dict[Endpoint, Node] = field(factory=dict)
    # While there is no room: who may make some, as it was an interval ago; None: nothing was looked for since.
    _silent: deque[Node] | None = None

    def add(self, node: Node) -> None:
        """Add a member that is not there yet."""
        self.nodes[node.name] = node
        self.versions.add(node.version)
        self._node_bytes += _size(node.name, node.meta)
        # At a random place, so that a new member is probed neither first nor last by all.
        self.order.insert(self.rng.randint(0, len(self.order)), node.name)

    def at(self, endpoint: Endpoint) -> Node | None:
        """Return the member that is at a place and not gone, this node aside."""
        node = self._by_endpoint.get(endpoint)
        return None if node is None or node is self.me or node.is_gone else node

    def set_meta(self, node: Node, meta: bytes) -> None:
        """Note another meta of a member; this node's may be set before the node is in the table."""
        if node.name in self.nodes:
            self._node_bytes += len(meta) - len(node.meta)
        node.meta = meta

    def set_version(self, node: Node, version: bytes) -> None:
        """Note another version of a member."""
        self.versions.remove(node.version)
        self.versions.add(version)
        node.version = version

    def set_endpoint(self, node: Node, endpoint: Endpoint) -> None:
        """Note where a member is now."""
        self._leave_endpoint(node)
        self._by_endpoint[endpoint] = node
        node.endpoint = endpoint

    def has_room(self, name: str, meta: bytes) -> bool:
        """Tell whether one more member may be added."""
        return len(self.nodes) < MAX_NODES and self._node_bytes + _size(name, meta) <= MAX_NODE_BYTES

    def next_silent(self) -> Node | None:
        """Return a member that never answered and is gone or suspected, each once; it is to make room for another."""
        if self._silent is None:
            self._silent = deque(
                node
                for status in (NodeStatus.DEAD, NodeStatus.LEFT, NodeStatus.SUSPECT)
                for node in self.nodes.values()
                if node.status is status and not node.has_answered and node is not self.me
            )
            self.timers.after(self.profile.probe_interval, self._look_for_silent)
        while self._silent:
            node = self._silent.popleft()
            # It may have changed since it was found.
            if self.nodes.get(node.name) is node and node.status is not NodeStatus.ALIVE and not node.has_answered:
                return node
        return None

    def _look_for_silent(self) -> None:
        # Looking through all of them costs milliseconds: once an interval, however many new ones are heard of.
        self._silent = None

    def _leave_endpoint(self, node: Node) -> None:
        if self._by_endpoint.get(node.endpoint) is node:
            del self._by_endpoint[node.endpoint]

    def forget_dead(self) -> None:
        """Forget members that have been gone for long: their names are free again."""
        limit = self.timers.now - self.profile.gossip_to_the_dead
        forgotten = [
            node
            for node in self.nodes.values()
            if node.status >= NodeStatus.DEAD and node.changed <= limit and node is not self.me
        ]
        if forgotten:
            self.remove(forgotten)

    def remove(self, forgotten: list[Node]) -> None:
        """Remove members; all that are to go at one time together."""
        for node in forgotten:
            del self.nodes[node.name]
            self._leave_endpoint(node)
            self.versions.remove(node.version)
            self._node_bytes -= _size(node.name, node.meta)
        # Once for all of them: many that die together are forgotten together.
        self.order = [name for name in self.order if name in self.nodes]

    def choose(self, count: int, wanted: Callable[[Node], bool]) -> list[Node]:
        """Return up to count random members for which wanted is true."""
        chosen: dict[str, Node] = {}
        # A few of many are found sooner by looking at random ones than by looking at all.
        for _ in range(TRIES_PER_CHOICE * count if len(self.order) > TRIES_PER_CHOICE * count else 0):
            node = self.nodes[self.order[int(self.rng.random() * len(self.order))]]
            if node.name not in chosen and wanted(node):
                chosen[node.name] = node
                if len(chosen) == count:
                    return list(chosen.values())
        candidates = [node for node in self.nodes.values() if node.name not in chosen and wanted(node)]
        return [*chosen.values(), *self.rng.sample(candidates, min(count - len(chosen), len(candidates)))]


def _size(name: str, meta: bytes) -> int:
    return len(name) + len(meta)
