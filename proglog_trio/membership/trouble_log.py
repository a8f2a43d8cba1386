"""The log output about gossip that does not get through: another key, another cluster, packets that are blocked.

Each once an hour, and of each kind no more than so many: addresses of packets can be made up.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from attrs import define, field

from proglog_trio.membership.serf.clusters import MAX_NAMED, Foreigner
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.swim.rules import Rules
from proglog_trio.membership.wire.errors import NotDecrypted
from proglog_trio.repetition import PERIOD_SECONDS, BoundedNews, Repetitions

LOGGED_TROUBLES = 50
"""Of each kind that are logged in an hour."""
MAX_MEMBERS = 10
STREAMS_IN_A_ROW = 3
"""So many probes of a member that are answered by stream alone are no packets that happen to be lost."""

_logger = structlog.get_logger(__name__)


@define(eq=False)
class TroubleLog:
    """Logs them, within bounds."""

    clock: Callable[[], float] = time.monotonic
    _keys: BoundedNews = field(init=False)
    _foreigners: BoundedNews = field(init=False)
    _packets: Repetitions = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._keys = BoundedNews(LOGGED_TROUBLES, PERIOD_SECONDS, _tell_excess_keys, self.clock)
        self._foreigners = BoundedNews(LOGGED_TROUBLES, PERIOD_SECONDS, _tell_excess_foreigners, self.clock)
        self._packets = Repetitions(self.clock)

    def another_key(self, host: str, rules: Rules, error: NotDecrypted) -> None:
        """Log that gossip cannot be decrypted, unless that was logged of its address within the hour.

        Args:
            host: where it comes from, without the port: streams have another each time.
            rules: tell which members are known to be there.
            error: what is wrong with it.
        """
        address = host.partition("%")[0]
        repeated = self._keys.news(address)
        if repeated is not None:
            others = (node for node in rules.nodes.values() if node is not rules.me and node.endpoint.host == address)
            _logger.warning(
                "gossip that cannot be decrypted: who sends it has another gossip key than this node, or none",
                address=address,
                members=sorted(node.name for node in others)[:MAX_MEMBERS],
                reason=str(error),
                repeated=repeated,
            )

    def another_cluster(self, foreigner: Foreigner) -> None:
        """Log that a member of another cluster is heard of, unless that was logged within the hour."""
        if self._foreigners.news(foreigner.endpoint) is not None:
            _logger.warning(
                "a member of another cluster is heard of; nothing that it says is taken, and it is told nothing",
                member=foreigner.name[:MAX_NAMED],
                address=str(foreigner.endpoint),
                reason=foreigner.why,
            )

    def packets_blocked(self, name: str, endpoint: Endpoint, in_a_row: int) -> None:
        """Log that a member answers by stream alone, if it has done so for a while and that was not logged lately."""
        if in_a_row >= STREAMS_IN_A_ROW and self._packets.news(name) is not None:
            _logger.warning(
                "a member answers streams (TCP) and no packets (UDP): is its port blocked for UDP, or not published?",
                member=name,
                address=str(endpoint),
                probes=in_a_row,
            )


def _tell_excess_keys(unlogged: int) -> None:
    _logger.warning("more senders of gossip with another key were heard of than are logged", not_logged=unlogged)


def _tell_excess_foreigners(unlogged: int) -> None:
    _logger.warning("more members of other clusters were heard of than are logged", not_logged=unlogged)
