"""A node's figures for Prometheus: what its parts count anyway, read when they are asked for.

Names are `proglog_<part>_<what it counts>`; what each means stands with the counters themselves, in the attrs classes
whose fields they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import attrs
from attrs import define, field
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import __version__
from .log import Log
from .membership.membership import Membership
from .membership.serf.member import MemberStatus
from .rpc.authorization import GateCounters
from .rpc.handlers import ServerCounters

_GAUGES = frozenset({"consumers"})
"""Fields of counters that go down as well."""


@define(eq=False, kw_only=True)
class NodeMetrics(Collector):
    """Gives the figures of one node.

    Attributes:
        log, membership, server, service: what is counted; service: the Log service's counters.
        gate: who was turned away; None: nobody is.
        expiries: gives when which certificate expires.
        others: further counters (attrs classes), by the name of their part.
    """

    log: Log
    membership: Membership
    server: ServerCounters
    service: Any
    gate: GateCounters | None
    expiries: Callable[[], Mapping[str, datetime]]
    others: dict[str, Any] = field(factory=dict)

    def registry(self) -> CollectorRegistry:
        """Return a registry of these figures alone."""
        registry = CollectorRegistry()
        registry.register(self)
        return registry

    def collect(self) -> Iterator[Metric]:
        """Return the figures as they are now; prometheus_client's name for it."""
        info = GaugeMetricFamily("proglog_info", "Always 1; its labels say what runs.", labels=["version", "node_name"])
        info.add_metric([__version__, self.membership.name], 1)
        yield info
        gossip = self.membership.gossip
        parts = {
            "log": self.log.counters,
            "server": self.server,
            "service": self.service,
            "gossip": gossip.counters,
            "swim": gossip.core.swim.rules.counters,
            "serf_refused": gossip.core.refused,
            **self.others,
        }
        for part, counters in parts.items():
            yield from _fields(part, counters)
        yield from self._log_offsets()
        yield self._members()
        yield from self._denials()
        yield self._certificates()

    def _log_offsets(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("proglog_log_lowest_offset", "The first offset that is held.", self.log.lowest_offset)
        yield GaugeMetricFamily("proglog_log_next_offset", "The offset that comes next.", self.log.next_offset)
        damage = self.log.damage
        yield CounterMetricFamily("proglog_log_damage_found", "Damaged places, each once.", damage.found)
        yield CounterMetricFamily("proglog_log_damage_repaired", "Damaged places that were repaired.", damage.repaired)
        yield GaugeMetricFamily("proglog_log_damage_left", "Damaged places that are known and left.", len(damage))

    def _members(self) -> Metric:
        family = GaugeMetricFamily("proglog_members", "Members of the cluster, by status.", labels=["status"])
        for status in MemberStatus:
            family.add_metric([status.value], self.membership.count(status))
        return family

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

    def _certificates(self) -> Metric:
        family = GaugeMetricFamily(
            "proglog_certificate_expiry_seconds",
            "When the first certificate of a file expires, in seconds of the Unix epoch.",
            labels=["certificate"],
        )
        for what, moment in sorted(self.expiries().items()):
            family.add_metric([what], moment.timestamp())
        return family


def _fields(part: str, counters: Any) -> Iterator[Metric]:  # noqa: ANN401 - any attrs class of numbers
    for attribute in attrs.fields(type(counters)):
        value = getattr(counters, attribute.name)
        name = f"proglog_{part}_{attribute.name}"
        meaning = f"See {type(counters).__module__}.{type(counters).__name__}.{attribute.name}."
        if attribute.name in _GAUGES:
            yield GaugeMetricFamily(name, meaning, value)
        else:
            yield CounterMetricFamily(name, meaning, value)
