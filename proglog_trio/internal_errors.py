"""Error boundaries: what was not foreseen ends the one thing that it happened to, and nothing else.

Each connection, peer, packet, stream, request, timer and turn of a loop has a boundary. It catches whatever is an
Exception, groups of them included, counts it, logs it with its traceback, and the rest goes on. What is no Exception
(a cancellation, KeyboardInterrupt) passes, also out of a group in which both are.

A boundary is for mistakes in this program. What was foreseen (a peer that has ended, malformed input, a full disk) is
caught where it is understood, inside the boundary, and never counted here.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from types import TracebackType
from typing import Self

import structlog
import trio
from attrs import Factory, define, field

PERIOD_SECONDS = 3600.0
MAX_TOLD = 5
"""So many different errors of one place are logged in a period, each once; all are counted."""
LONGEST_TRACEBACK = 8192
"""In characters; the middle of a longer one is left out. A message may be as large as what a peer sent."""
_MAX_FRAMES = 64
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 5.0

_logger = structlog.get_logger(__name__)


class Where(StrEnum):
    """Where an error was caught; a label of the metrics, and a line of docs/reference/what-ends-a-node.md."""

    AGENT_RPC = "agent_rpc"
    ASYNCIO = "asyncio"
    CERTIFICATE_WATCH = "certificate_watch"
    DISK_WATCH = "disk_watch"
    DNS_LISTING = "dns_listing"
    DNS_LOOKUP = "dns_lookup"
    DNS_PACKET = "dns_packet"
    DNS_STREAM = "dns_stream"
    EVENT_HANDLER = "event_handler"
    GOSSIP_EXCHANGE = "gossip_exchange"
    GOSSIP_KEYS = "gossip_keys"
    GOSSIP_MESSAGE = "gossip_message"
    GOSSIP_NEWS = "gossip_news"
    GOSSIP_PACKET = "gossip_packet"
    GOSSIP_SEND = "gossip_send"
    GOSSIP_STREAM = "gossip_stream"
    GOSSIP_TIMER = "gossip_timer"
    ISOLATION_WATCH = "isolation_watch"
    LAG_WATCH = "lag_watch"
    LOG_CALLBACK = "log_callback"
    MEMBERSHIP_HANDLER = "membership_handler"
    MEMBERSHIP_JOIN = "membership_join"
    MEMBERSHIP_QUERY = "membership_query"
    MEMBERSHIP_SNAPSHOT = "membership_snapshot"
    MEMBERSHIP_SUBSCRIBER = "membership_subscriber"
    MERGE_CHECK = "merge_check"
    METRICS_COLLECTOR = "metrics_collector"
    METRICS_REQUEST = "metrics_request"
    PEER = "peer"
    REPAIR = "repair"
    REPLICATION = "replication"
    RETENTION = "retention"
    RPC_ACCEPT = "rpc_accept"
    RPC_CONNECTION = "rpc_connection"
    RPC_REQUEST = "rpc_request"
    RUNNING_TIME = "running_time"
    SCRUB = "scrub"
    SECURITY_RELOAD = "security_reload"
    SERVER_LIST = "server_list"
    SERVER_WATCH = "server_watch"
    STOPPING = "stopping"


Boundaries = Callable[[Where], AbstractContextManager[object]]
"""Gives a protocol core, which logs nothing and knows no time, its boundaries."""


def no_boundary(_where: Where) -> AbstractContextManager[object]:
    """Return what catches nothing: for a core that runs by itself, whose mistakes are to be seen."""
    return nullcontext()


@define
class _Period:
    """What was logged of one place since a moment: an error is news only if its kind is not among that."""

    since: float
    told: set[tuple[type[BaseException], str, int]] = Factory(set)


@define(eq=False)
class InternalErrors:
    """Counts and logs what was not foreseen; one for a node, given to its parts. To be used in the host thread only.

    Attributes:
        counts: how many, by where they were caught.
        not_logged: how many of them could not be logged, since that failed too.
        clock: seconds, monotonic.
    """

    counts: dict[Where, int] = Factory(lambda: dict.fromkeys(Where, 0))
    not_logged: int = 0
    clock: Callable[[], float] = time.monotonic
    # What has been logged of a place in its present period. Of each at most MAX_TOLD kinds, so it stays small.
    _periods: dict[Where, _Period] = Factory(dict)
    # How many errors of a place were counted and not logged since one of them last was; the next that is says so.
    _untold: dict[Where, int] = Factory(dict)

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(self.counts.values())

    def boundary(self, where: Where, **context: object) -> Boundary:
        """Return a context manager that catches what is unforeseen.

        Args:
            where: what it counts for.
            context: what else is logged with it, such as whose connection it was.
        """
        return Boundary(self, where, context)

    def turns(self, where: Where, **context: object) -> Turns:
        """Return an asynchronous context manager for each turn of a loop; see Turns."""
        return Turns(self.boundary(where, **context))

    def note(self, where: Where, error: Exception, **context: object) -> None:
        """Count an error, and log it if its like was not logged before in this period; never raises an Exception."""
        self.counts[where] += 1
        unlogged = self._untold.get(where, 0)
        if not self._is_news(where, error):
            self._untold[where] = unlogged + 1
            return
        self._untold[where] = 0
        if unlogged:
            context["not_logged_before"] = unlogged
        try:
            # Not by exc_info, since that would be as long as its message.
            _logger.error("internal error", where=where.value, exception=shortened_traceback(error), **context)
        except Exception:  # noqa: BLE001 - standard error may be closed, and that must not end what this boundary is for
            self.not_logged += 1

    def _is_news(self, where: Where, error: Exception) -> bool:
        now = self.clock()
        period = self._periods.get(where)
        if period is None or now - period.since >= PERIOD_SECONDS:
            period = self._periods[where] = _Period(now)
        kind = _kind(error)
        # Many kinds from one place are one cause in many guises: another line, or another type of error, each time.
        if kind in period.told or len(period.told) >= MAX_TOLD:
            return False
        period.told.add(kind)
        return True


def _kind(error: BaseException) -> tuple[type[BaseException], str, int]:
    """Return the type of an error, a group's first, and the line of the program that raised it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    place = ("", 0) if last is None else (last.tb_frame.f_code.co_filename, last.tb_lineno)
    return (type(error), *place)


def shortened_traceback(error: BaseException) -> str:
    """Return an error's traceback as text, of LONGEST_TRACEBACK characters at the most."""
    # A negative limit keeps the frames that are nearest to the error.
    text = "".join(traceback.format_exception(error, limit=-_MAX_FRAMES)).rstrip("\n")
    if len(text) <= LONGEST_TRACEBACK:
        return text
    left_out = f"\n[… {len(text)} characters in all …]\n"
    half = (LONGEST_TRACEBACK - len(left_out)) // 2
    return text[:half] + left_out + text[-half:]


@define(eq=False)
class Boundary:
    """Catches what is unforeseen in a block; see InternalErrors.boundary. May be entered again once it was left.

    Attributes:
        failed: whether something was caught when the block was last left.
    """

    errors: InternalErrors
    where: Where
    context: dict[str, object]
    failed: bool = False

    def __enter__(self) -> Self:
        self.failed = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return error is not None and self.catches(error)

    def catches(self, error: BaseException) -> bool:
        """Count an error if it is an Exception, and tell whether it is; of a group with others, raise the others."""
        mine: Exception | None = None
        others: BaseException | None = None
        if isinstance(error, Exception):
            mine = error
        elif isinstance(error, BaseExceptionGroup):
            mine, others = error.split(Exception)
        if mine is None:
            return False
        self.failed = True
        self.errors.note(self.where, mine, **self.context)
        if others is not None:
            raise others
        return True


@define(eq=False)
class Turns:
    """The boundary of each turn of a loop under Trio, in `async with`.

    After a turn that failed there is a pause, longer each time and 5 seconds at the most, so that a cause that stays
    does not keep the loop busy with nothing else. A turn without an error ends that.
    """

    _boundary: Boundary
    _pause: float = field(default=0.0, init=False)

    async def __aenter__(self) -> None:
        """Begin a turn."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            self._pause = 0.0
            return False
        if not self._boundary.catches(error):
            return False
        self._pause = min(max(self._pause * 2, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        await trio.sleep(self._pause)
        return True
