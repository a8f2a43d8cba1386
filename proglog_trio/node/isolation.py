"""Whether a node is alone, or with too few others: it stores records all the same, and no client would notice."""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio
from attrs import define

from proglog_trio.internal_errors import InternalErrors, Where

WATCH_SECONDS = 1.0
GRACE_SECONDS = 5.0
"""It is logged once it has lasted for so long: a cluster that starts, or a restart, takes a moment."""

_logger = structlog.get_logger(__name__)


@define(eq=False)
class Isolation:
    """Looks how many nodes of the cluster are there, for one that is meant to have others.

    Attributes:
        alive: gives how many nodes are alive, this one among them.
        cluster_size: how many there are meant to be; None: not known.
        has_start_addresses: this node was told whom to join.
    """

    alive: Callable[[], int]
    cluster_size: int | None
    has_start_addresses: bool

    @property
    def problem(self) -> str | None:
        """That this node is alone, or with fewer than half of its cluster, in words; None: it is not."""
        alive, size = self.alive(), self.cluster_size
        if alive <= 1 and (self.has_start_addresses if size is None else size > 1):
            return "it is alone" if size is None else f"it is alone, in a cluster meant to have {size} nodes"
        if size is not None and 2 * alive < size:
            return f"{alive} of {size} nodes are there, which is fewer than half"
        return None

    async def watch(self, errors: InternalErrors) -> None:
        """Log it when that begins, changes and ends, until cancelled."""
        boundary = errors.boundary(Where.ISOLATION_WATCH)
        told: str | None = None
        seen: str | None = None
        since = trio.current_time()
        while True:
            with boundary:
                now, problem = trio.current_time(), self.problem
                if problem != seen:
                    seen, since = problem, now
                if seen != told and (seen is None or now - since >= GRACE_SECONDS):
                    told = seen
                    if told is None:
                        _logger.info("this node is with enough others again", alive=self.alive())
                    else:
                        _logger.warning("this node is cut off from others, or they have ended", what=told)
            await trio.sleep(WATCH_SECONDS)
