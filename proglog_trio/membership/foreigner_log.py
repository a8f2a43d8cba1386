"""The log output about members of other clusters that are heard of: each once an hour, and no more than so many."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from attrs import define, field

from proglog_trio.membership.serf.clusters import MAX_NAMED, Foreigner
from proglog_trio.repetition import PERIOD_SECONDS, BoundedNews

LOGGED_FOREIGNERS = 50
"""Members of other clusters that are logged in an hour."""

_logger = structlog.get_logger(__name__)


@define(eq=False)
class ForeignerLog:
    """Logs them, within bounds."""

    clock: Callable[[], float] = time.monotonic
    _bounded: BoundedNews = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._bounded = BoundedNews(LOGGED_FOREIGNERS, PERIOD_SECONDS, _tell_excess, self.clock)

    def tell(self, foreigner: Foreigner) -> None:
        """Log one, unless it was logged within the hour or is one too many."""
        if self._bounded.news(foreigner.endpoint) is not None:
            _logger.warning(
                "a member of another cluster is heard of; nothing that it says is taken, and it is told nothing",
                member=foreigner.name[:MAX_NAMED],
                address=str(foreigner.endpoint),
                reason=foreigner.why,
            )


def _tell_excess(unlogged: int) -> None:
    _logger.warning("more members of other clusters were heard of than are logged", not_logged=unlogged)
