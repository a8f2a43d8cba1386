"""The log output about gossip that does not get through: another key, another cluster, blocked packets, a taken name.

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
    _plain: BoundedNews = field(init=False)
    _sources: BoundedNews = field(init=False)
    _merges: BoundedNews = field(init=False)
    _names: BoundedNews = field(init=False)
    _packets: Repetitions = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._keys = BoundedNews(LOGGED_TROUBLES, PERIOD_SECONDS, _tell_excess_keys, self.clock)
        self._foreigners = BoundedNews(LOGGED_TROUBLES, PERIOD_SECONDS, _tell_excess_foreigners, self.clock)
        self._plain = BoundedNews(LOGGED_TROUBLES, PERIOD_SECONDS, _tell_excess_plain, self.clock)
        self._sources = BoundedNews(LOGGED_TROUBLES, PERIOD_SECONDS, _tell_excess_sources, self.clock)
        self._merges = BoundedNews(LOGGED_TROUBLES, PERIOD_SECONDS, _tell_excess_merges, self.clock)
        self._names = BoundedNews(LOGGED_TROUBLES, PERIOD_SECONDS, _tell_excess_names, self.clock)
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
            _logger.warning(
                "gossip that cannot be decrypted: who sends it has another gossip key than this node, or none",
                address=address,
                members=_members_at(address, rules),
                reason=str(error),
                repeated=repeated,
            )

    def plain(self, host: str, rules: Rules) -> None:
        """Log that plain gossip was taken, although there is a keyring; for who waits until nobody sends any.

        Args:
            host: where it comes from, without the port.
            rules: tell which members are known to be there.
        """
        address = host.partition("%")[0]
        if self._plain.news(address) is not None:
            _logger.info(
                "gossip that is not encrypted was taken: who sends it has no gossip key yet, or does not use it",
                address=address,
                members=_members_at(address, rules),
            )

    def another_cluster(self, foreigner: Foreigner) -> None:
        """Log that one that is no member here is heard of, unless that was logged within the hour."""
        if self._foreigners.news(foreigner.endpoint) is not None:
            who = "one that may not be a member" if foreigner.is_refused else "a member of another cluster"
            _logger.warning(
                f"{who} is heard of; nothing that it says is taken, and it is told nothing",
                member=foreigner.name[:MAX_NAMED],
                address=str(foreigner.endpoint),
                reason=foreigner.why,
            )

    def not_allowed(self, host: str) -> None:
        """Log that something came from an address that no member may have, unless that was logged within the hour."""
        if self._sources.news(host) is not None:
            _logger.warning(
                "gossip from an address that is in none of the networks that members may be in; it is not read",
                address=host,
            )

    def not_merged(self, host: str, reason: str) -> None:
        """Log that one that joined was refused by the merge check, unless that was logged within the hour."""
        if self._merges.news((host, reason)) is not None:
            _logger.warning("a join was refused: its members may not be merged", address=host, reason=reason)

    def name_claimed(self, name: str, endpoint: Endpoint) -> None:
        """Log that another member claims a name that one has, unless that was logged within the hour."""
        if self._names.news((name, endpoint)) is not None:
            _logger.error("another member claims a name that is taken", name=name, claimed_by=str(endpoint))

    def packets_blocked(self, name: str, endpoint: Endpoint, in_a_row: int) -> None:
        """Log that a member answers by stream alone, if it has done so for a while and that was not logged lately."""
        if in_a_row >= STREAMS_IN_A_ROW and self._packets.news(name) is not None:
            _logger.warning(
                "a member answers streams (TCP) and no packets (UDP): is its port blocked for UDP, or not published?",
                member=name,
                address=str(endpoint),
                probes=in_a_row,
            )


def _members_at(address: str, rules: Rules) -> list[str]:
    others = (node for node in rules.nodes.values() if node is not rules.me and node.endpoint.host == address)
    return sorted(node.name for node in others)[:MAX_MEMBERS]


def _tell_excess_plain(unlogged: int) -> None:
    _logger.info("more senders of plain gossip were heard of than are logged", not_logged=unlogged)


def _tell_excess_sources(unlogged: int) -> None:
    _logger.warning("more addresses that no member may have were heard of than are logged", not_logged=unlogged)


def _tell_excess_merges(unlogged: int) -> None:
    _logger.warning("more joins were refused than are logged", not_logged=unlogged)


def _tell_excess_keys(unlogged: int) -> None:
    _logger.warning("more senders of gossip with another key were heard of than are logged", not_logged=unlogged)


def _tell_excess_foreigners(unlogged: int) -> None:
    _logger.warning("more members of other clusters were heard of than are logged", not_logged=unlogged)


def _tell_excess_names(unlogged: int) -> None:
    _logger.warning("more claims of names that are taken were heard of than are logged", not_logged=unlogged)
