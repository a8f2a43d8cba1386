"""The log output about those who are turned away: no peer that tries for ever, no stranger may fill the disk."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from attrs import Factory, define

from proglog_trio.repetition import BoundedNews

LOGGED_DENIALS = 20
"""Denials that are logged in each period, at most. One that only repeats another is logged once an hour."""
LOG_PERIOD_SECONDS = 10.0

_logger = structlog.get_logger(__name__)


@define(eq=False)
class DenialLog:
    """Logs denials, within bounds."""

    clock: Callable[[], float] = time.monotonic
    _bounded: BoundedNews = Factory(
        lambda self: BoundedNews(LOGGED_DENIALS, LOG_PERIOD_SECONDS, _tell_excess, self.clock), takes_self=True
    )

    def tell(self, event: str, **what: str) -> None:
        """Log a denial, unless it is only a repetition or one too many."""
        repeated = self._bounded.news((event, *what.values()))
        if repeated is not None:
            _logger.warning(event, **what, repeated=repeated)

    def begin_anew(self) -> None:
        """Treat whatever is denied from now on as news."""
        self._bounded.clear()


def _tell_excess(unlogged: int) -> None:
    _logger.warning("more calls were turned away than are logged", not_logged=unlogged)
