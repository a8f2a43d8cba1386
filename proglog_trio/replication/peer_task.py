"""One peer: its cancel scope, its nursery, the pull stream in it, and what is logged of it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import structlog
import trio
from attrs import define, field

from proglog_trio.backoff import Backoff, BackoffConfig
from proglog_trio.errors import CallFailed, ProglogError
from proglog_trio.internal_errors import Where
from proglog_trio.replication.events import PeerLied
from proglog_trio.replication.pull_session import PullSession
from proglog_trio.replication.replica import Replica

RunPull = Callable[[str, PullSession], Awaitable[None]]
"""Runs one pull stream to the peer at an address until it ends; raises ProglogError with the reason."""

_BACKOFF = BackoffConfig(first=0.1, longest=5.0)
_logger = structlog.get_logger(__name__)


@define(eq=False, repr=False)
class PeerTask:
    """A peer while it is one.

    Attributes:
        name: of the node.
        address: "host:port", where it takes RPCs.
        scope: cancelled when the peer leaves.
        ended: set when nothing of it is left.
        problem: why there is no stream to it; None: there is one, or none was tried yet.
        streams: how often a stream to it was opened.
    """

    name: str
    address: str
    _replica: Replica
    _run_pull: RunPull
    _rng: random.Random
    _on_connected: Callable[[], None]
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    ended: trio.Event = field(factory=trio.Event)
    problem: str | None = None
    streams: int = 0
    _beginning: trio.Lock = field(factory=trio.Lock, kw_only=True)

    async def run(self) -> None:
        """Pull from the peer until its scope is cancelled."""
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._keep_pulling)
        finally:
            self.ended.set()

    async def _keep_pulling(self) -> None:
        backoff = Backoff(_BACKOFF, self._rng)
        boundary = self._replica.errors.boundary(Where.PEER, peer=self.name, rpc_addr=self.address)
        while True:
            problem = "internal error"
            async with self._beginning:
                # thousands of peers, as somebody may invent them, do not all begin between two looks at the network
                await trio.lowlevel.checkpoint()
            with boundary:
                problem = await self._pull_once(backoff)
            if self.problem != problem:
                # Once for each change: a peer that is away for a day is one line.
                _logger.warning("cannot pull from a peer", peer=self.name, rpc_addr=self.address, reason=problem)
            self.problem = problem
            await trio.sleep(backoff.next_delay())

    async def _pull_once(self, backoff: Backoff) -> str:
        session = self._replica.open_pull(self.name)

        def greeted() -> None:
            backoff.succeeded()
            self.streams += 1
            self.problem = None
            self._on_connected()
            _logger.info("pulling from a peer", peer=self.name, rpc_addr=self.address)

        session.on_greeted = greeted
        try:
            await self._run_pull(self.address, session)
        except ProglogError as error:
            if isinstance(error, PeerLied):
                self._replica.counters.lies += 1
            return _reason(error)
        finally:
            self._replica.close_pull(session)
        return "the peer ended the stream"


def _reason(error: ProglogError) -> str:
    """Return why there is no stream, for people: whose decision it was, where the peer only says what."""
    if isinstance(error, CallFailed):
        match error.status:
            case "PERMISSION_DENIED":
                return f"the peer's policy does not let this node pull: {error.message}"
            case "UNAUTHENTICATED":
                return f"the peer wants to know who this node is: {error.message}"
    return str(error)
