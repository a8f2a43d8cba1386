"""A node's figures for Prometheus: what its parts count anyway, read when they are asked for.

Names are `proglog_<part>_<what it counts>`; what each means stands with the counters themselves, in the attrs classes
whose fields they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

import attrs
from attrs import define, field
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from proglog_trio import __version__
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.log.log import Log
from proglog_trio.membership import Membership, MemberStatus
from proglog_trio.rpc.messages.text import sendable
from proglog_trio.rpc.server.authorization import GateCounters
from proglog_trio.rpc.server.handlers import ServerCounters

_GAUGES = frozenset(
    {
        "connections_open",
        "consumers",
        "nodes",
        "nodes_without_address",
        "nodes_without_name",
        "requests_open",
        "watchers",
    }
)
"""Fields of counters that go down as well."""


@define(eq=False, kw_only=True)
class NodeMetrics(Collector):
    """Gives the figures of one node.

    Attributes:
        log, membership, server, service: what is counted; service: the Log service's counters.
        gate: counts the clients that were turned away; None: none is.
        expiries: gives when which certificate expires.
        errors: counts what was not foreseen.
        isolation: tells that the node is alone or with too few others, in words; None: it is not.
        peer_clocks: gives by how many seconds which peer's wall clock is ahead of this node's.
        others: further counters (attrs classes), by the name of their part.
    """

    log: Log
    membership: Membership
    server: ServerCounters
    service: Any
    gate: GateCounters | None
    expiries: Callable[[], Mapping[str, datetime]]
    errors: InternalErrors
    isolation: Callable[[], str | None] = lambda: None
    peer_clocks: Callable[[], Mapping[str, float]] = dict
    others: dict[str, Any] = field(factory=dict)

    def registry(self) -> CollectorRegistry:
        """Return a registry of these figures alone."""
        registry = CollectorRegistry()
        registry.register(self)
        return registry

    def collect(self) -> Iterator[Metric]:
        """Return the figures as they are now, without those that cannot be had; prometheus_client's name for it."""
        collectors: list[Callable[[], Iterable[Metric]]] = [
            self._info,
            *(partial(_fields, part, counters) for part, counters in self._counters()),
            self._log_offsets,
            self._clocks,
            self._members,
            self._membership,
            self._denials,
            self._certificates,
        ]
        for collector in collectors:
            found: list[Metric] = []
            with self.errors.boundary(Where.METRICS_COLLECTOR):
                # All of a part or nothing of it, so that no family comes in two pieces.
                found = list(collector())
            yield from found
        # Last, so that what happened just now is counted.
        yield self._internal_errors()

    def _info(self) -> Iterable[Metric]:
        info = GaugeMetricFamily("proglog_info", "Always 1; its labels say what runs.", labels=["version", "node_name"])
        info.add_metric([__version__, self.membership.name], 1)
        yield info

    def _counters(self) -> Iterable[tuple[str, Any]]:
        return {
            "log": self.log.counters,
            "server": self.server,
            "service": self.service,
            **self.membership.counters,
            **self.others,
        }.items()

    def _internal_errors(self) -> Metric:
        family = CounterMetricFamily(
            "proglog_internal_errors", "Errors that were not foreseen, by where they were caught.", labels=["where"]
        )
        for where, count in self.errors.counts.items():
            family.add_metric([where.value], count)
        return family

    def _log_offsets(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("proglog_log_lowest_offset", "The first offset that is held.", self.log.lowest_offset)
        yield GaugeMetricFamily("proglog_log_next_offset", "The offset that comes next.", self.log.next_offset)
        read_only = self.log.read_only_reason is not None
        yield GaugeMetricFamily("proglog_log_read_only", "1 while the log takes no records.", int(read_only))
        damage = self.log.damage
        yield CounterMetricFamily("proglog_log_damage_found", "Damaged places, each once.", damage.found)
        yield CounterMetricFamily("proglog_log_damage_repaired", "Damaged places that were repaired.", damage.repaired)
        yield GaugeMetricFamily("proglog_log_damage_left", "Damaged places that are known and left.", damage.left)

    def _clocks(self) -> Iterable[Metric]:
        log = self.log
        yield GaugeMetricFamily(
            "proglog_log_time_ahead_seconds",
            "By how much log time is ahead of the wall clock.",
            log.log_time_ahead / 1000,
        )
        yield GaugeMetricFamily(
            "proglog_log_running_seconds",
            "For how long nodes have run on this data directory; retention by age goes by it.",
            log.running_time.milliseconds() / 1000,
        )
        yield GaugeMetricFamily(
            "proglog_log_retention_overdue_seconds",
            "By how much the oldest records are older than retention by age allows, by the wall clock alone.",
            log.retention.overdue_milliseconds / 1000,
        )
        family = GaugeMetricFamily(
            "proglog_peer_clock_ahead_seconds",
            "By how much a peer's wall clock is ahead of this node's; negative: behind.",
            labels=["peer"],
        )
        # A member of another program may call itself what is no text.
        for peer, ahead in sorted({sendable(peer): ahead for peer, ahead in self.peer_clocks().items()}.items()):
            family.add_metric([peer], ahead)
        yield family

    def _members(self) -> Iterable[Metric]:
        family = GaugeMetricFamily("proglog_members", "Members of the cluster, by status.", labels=["status"])
        for status in MemberStatus:
            family.add_metric([status.value], self.membership.count(status))
        yield family
        yield GaugeMetricFamily(
            "proglog_isolated",
            "1 while the node is alone although there should be others, or with fewer than half of its cluster.",
            int(self.isolation() is not None),
        )

    def _membership(self) -> Iterable[Metric]:
        figures = self.membership.stats()["serf"]
        yield GaugeMetricFamily(
            "proglog_membership_health_score",
            "How much this node doubts itself, and so gives others more time (Lifeguard); 0: not at all.",
            int(figures["health_score"]),
        )
        queues = GaugeMetricFamily(
            "proglog_membership_queue", "Broadcasts that wait to be gossiped, by kind.", labels=["kind"]
        )
        clocks = GaugeMetricFamily("proglog_membership_lamport_time", "Lamport clocks, by kind.", labels=["kind"])
        for name, figure in figures.items():
            kind, _, what = name.rpartition("_")
            if what == "queue":
                queues.add_metric([kind], int(figure))
            elif what == "time":
                clocks.add_metric([kind], int(figure))
        yield queues
        yield clocks
        yield CounterMetricFamily(
            "proglog_membership_coordinate_resets",
            "How often the node's place in the network had become none, and was begun anew.",
            int(figures["coordinate_resets"]),
        )
        yield GaugeMetricFamily(
            "proglog_gossip_unverified",
            "1 while gossip that is not encrypted is taken, or sent, although there is a key.",
            int(self.membership.unverified is not None),
        )

    def _denials(self) -> Iterable[Metric]:
        gate = self.gate or GateCounters()
        denied = CounterMetricFamily("proglog_denied", "Calls that the policy does not allow.", labels=["action"])
        for action, count in sorted(gate.denied.items()):
            denied.add_metric([action], count)
        yield denied
        yield CounterMetricFamily(
            "proglog_unauthenticated", "Calls without a valid client certificate.", gate.unauthenticated
        )
        yield CounterMetricFamily(
            "proglog_connections_withdrawn", "Connections closed for withdrawn rights.", gate.connections_withdrawn
        )

    def _certificates(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "proglog_certificate_expiry_seconds",
            "When the first certificate of a file expires, in seconds of the Unix epoch.",
            labels=["certificate"],
        )
        for what, moment in sorted(self.expiries().items()):
            family.add_metric([what], moment.timestamp())
        yield family


def _fields(part: str, counters: Any) -> Iterator[Metric]:  # noqa: ANN401 - any attrs class of numbers
    for attribute in attrs.fields(type(counters)):
        value = getattr(counters, attribute.name)
        name = f"proglog_{part}_{attribute.name}"
        meaning = f"See {type(counters).__module__}.{type(counters).__name__}.{attribute.name}."
        if attribute.name in _GAUGES:
            yield GaugeMetricFamily(name, meaning, value)
        else:
            yield CounterMetricFamily(name, meaning, value)
