"""The log output about members of other clusters that are heard of: each once an hour, and no more than so many."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from attrs import define, field

from ..repetition import PERIOD_SECONDS, Repetitions
from .serf.clusters import MOST_NAMED, Foreigner

LOGGED_FOREIGNERS = 50
"""Members of other clusters that are logged in an hour."""

_logger = structlog.get_logger(__name__)


@define(eq=False)
class ForeignerLog:
    """Logs them, within bounds."""

    clock: Callable[[], float] = time.monotonic
    _repetitions: Repetitions = field(init=False)
    _began: float = field(init=False)
    _logged: int = 0

    def __attrs_post_init__(self) -> None:
        self._repetitions = Repetitions(self.clock)
        self._began = self.clock()

    def tell(self, foreigner: Foreigner) -> None:
        """Log one, unless it was logged within the hour or is one too many."""
        if self._repetitions.news(foreigner.endpoint) is None:
            return
        now = self.clock()
        if now - self._began >= PERIOD_SECONDS:
            if self._logged > LOGGED_FOREIGNERS:
                unlogged = self._logged - LOGGED_FOREIGNERS
                _logger.warning("more members of other clusters were heard of than are logged", not_logged=unlogged)
            self._began, self._logged = now, 0
        self._logged += 1
        if self._logged <= LOGGED_FOREIGNERS:
            _logger.warning(
                "a member of another cluster is heard of; nothing that it says is taken, and it is told nothing",
                member=foreigner.name[:MOST_NAMED],
                address=str(foreigner.endpoint),
                reason=foreigner.why,
            )
