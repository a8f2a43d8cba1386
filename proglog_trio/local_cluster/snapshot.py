"""How a local cluster is at a moment: what its nodes say, put side by side. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from proglog_trio._proto.log.v1 import GetStatusResponse, Member
from proglog_trio.address import Address
from proglog_trio.local_cluster.events import ending

_RATES = {
    "produced": "records_produced",
    "pulled": "records_applied",
    "consumed": "records_consumed",
    "bytes_to_peers": "bytes_sent",
}
"""What is counted a second, and by which counter of GetStatus."""


@frozen
class Rates:
    """What a node did a second.

    Attributes:
        produced, pulled: records in, from producers and from other nodes.
        consumed: records out, to consumers.
        bytes_to_peers: out, to other nodes, in bytes.
    """

    produced: float
    pulled: float
    consumed: float
    bytes_to_peers: float

    @classmethod
    def between(cls, earlier: GetStatusResponse, later: GetStatusResponse, seconds: float) -> Rates | None:
        """Return the rates between two statuses; None if the node was restarted between them."""
        grown = {
            rate: later.counters.get(counter, 0) - earlier.counters.get(counter, 0) for rate, counter in _RATES.items()
        }
        if seconds <= 0 or min(grown.values()) < 0:
            return None
        return cls(**{rate: number / seconds for rate, number in grown.items()})


@frozen
class NodeSnapshot:
    """One node.

    Attributes:
        name: what it is called.
        address: where it takes RPCs.
        exit_code: how its process ended, if it has.
        status: what it says; None: nothing.
        problem: why it says nothing.
        asked_at: when, in seconds.
        rates: since the snapshot before.
    """

    name: str
    address: Address
    exit_code: int | None
    status: GetStatusResponse | None
    problem: str | None
    asked_at: float
    rates: Rates | None = None

    @property
    def state(self) -> str:
        """In words: how the process is."""
        if self.status is not None:
            return "running" if self.exit_code is None else "started again"
        return ending(self.exit_code) if self.exit_code is not None else "no answer"

    def after(self, earlier: NodeSnapshot | None) -> Rates | None:
        """Return its rates since an earlier snapshot."""
        if earlier is None or earlier.status is None or self.status is None:
            return None
        return Rates.between(earlier.status, self.status, self.asked_at - earlier.asked_at)

    def fields(self) -> dict[str, Any]:
        """Return what there is to say, as JSON has it."""
        status, rates = self.status, self.rates
        return {
            "name": self.name,
            "rpc_addr": str(self.address),
            "state": self.state,
            "problem": self.problem,
            "next_offset": status.next_offset if status is not None else None,
            "behind": behind(status) if status is not None else None,
            "peers": [
                {"name": peer.name, "connected": peer.connected, "peer_behind": peer.peer_behind}
                for peer in (status.peers if status is not None else ())
            ],
            "per_second": None if rates is None else {rate: round(getattr(rates, rate), 1) for rate in _RATES},
        }


@frozen
class OriginPlaces:
    """Where each node is in one origin.

    Attributes:
        origin: its 16 bytes.
        written_by: the node that writes it; empty: none.
        nexts: by node, those that were asked.
    """

    origin: bytes
    written_by: str
    nexts: Mapping[str, int]

    @property
    def is_even(self) -> bool:
        """Whether all have the same."""
        return len(set(self.nexts.values())) <= 1


@frozen
class ClusterSnapshot:
    """The cluster.

    Attributes:
        cluster_name: its name.
        nodes: in their order.
        members: as the first node that answers sees them.
    """

    cluster_name: str
    nodes: Sequence[NodeSnapshot]
    members: Sequence[Member]

    def status_of(self, name: str) -> str:
        """Return a member's status, in words."""
        for member in self.members:
            if member.name == name:
                return member_status(member)
        return "unknown"

    def others(self) -> Iterator[Member]:
        """Yield the members that are none of these nodes."""
        names = {node.name for node in self.nodes}
        return (member for member in self.members if member.name not in names)

    def origins(self) -> list[OriginPlaces]:
        """Return what each node that answered has, origin by origin: those that are written first."""
        statuses = {node.name: node.status for node in self.nodes if node.status is not None}
        writers: dict[bytes, str] = {}
        for status in statuses.values():
            for each in status.origins:
                writers[each.origin] = writers.get(each.origin) or each.written_by
        found = [
            OriginPlaces(origin, writer, {name: _next_of(status, origin) for name, status in statuses.items()})
            for origin, writer in writers.items()
        ]
        return sorted(found, key=lambda places: (not places.written_by, places.is_even, places.written_by))

    def fields(self) -> dict[str, Any]:
        """Return what there is to say, as JSON has it."""
        return {
            "members": {member.name: member_status(member) for member in self.members},
            "nodes": [node.fields() for node in self.nodes],
            "origins": [
                {"origin": places.origin.hex(), "written_by": places.written_by or None, "next": dict(places.nexts)}
                for places in self.origins()
            ],
        }


def member_status(member: Member) -> str:
    """Return a member's status, in words."""
    return str(member.status.name).lower()


def behind(status: GetStatusResponse) -> int:
    """Return how many records a node knows of and has not."""
    return sum(origin.behind for origin in status.origins)


def _next_of(status: GetStatusResponse, origin: bytes) -> int:
    return next((each.next for each in status.origins if each.origin == origin), 0)
