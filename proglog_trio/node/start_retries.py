"""Starting in spite of what may pass: a port that another process still has, an address that comes, a full disk."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
import trio
from attrs import define, field

from proglog_trio.backoff import Backoff, BackoffConfig
from proglog_trio.durations import remaining
from proglog_trio.errors import AddressUnavailable, DataDirectoryUnavailable, SecurityFileNoRoom

FIRST_RETRY_SECONDS = 0.25
LONGEST_RETRY_SECONDS = 5.0

Value = TypeVar("Value")

_logger = structlog.get_logger(__name__)


def _backoff() -> Backoff:
    return Backoff(BackoffConfig(FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS), random.Random())


@define(eq=False)
class StartRetries:
    """Tries the steps of one start again, for all of them together.

    Attributes:
        seconds: for how long, from when this is made; 0: each step is tried once.
    """

    seconds: float
    _deadline: float = field(init=False)
    _backoff: Backoff = field(factory=_backoff)

    def __attrs_post_init__(self) -> None:
        self._deadline = trio.current_time() + self.seconds

    @property
    def left(self) -> float:
        """For how long, in seconds, it is still tried."""
        return remaining(self._deadline, trio.current_time())

    async def until_it_works(self, attempt: Callable[[], Awaitable[Value]]) -> Value:
        """Return what an attempt returns, once one works; raises what it raises if that will not pass, or did not."""
        while True:
            try:
                value = await attempt()
            except (AddressUnavailable, DataDirectoryUnavailable, SecurityFileNoRoom) as error:
                left = self.left
                if not error.may_pass or not left:
                    raise
                delay = min(self._backoff.next_delay(), left)
                _logger.warning("cannot start yet; trying again", reason=str(error), after=round(delay, 2))
                await trio.sleep(delay)
            else:
                self._backoff.succeeded()
                return value
