"""One peer: its cancel scope, its nursery, the pull streams in it, one after the other, and what is logged of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

import structlog
import trio
from attrs import define, field

from proglog_trio.backoff import Backoff, BackoffConfig
from proglog_trio.errors import CallFailed, ProglogError
from proglog_trio.internal_errors import Where
from proglog_trio.replication.events import PeerLied
from proglog_trio.replication.pull_session import PullSession
from proglog_trio.replication.replica import Replica


class PullStream(Protocol):
    """One attempt at a pull stream, before it is opened: what a session needs of the connection below it."""

    def on_ready(self) -> None:
        """Look for what the session has to send."""

    def on_room(self) -> None:
        """Let the session apply the frames that wait."""

    async def run(self, session: PullSession) -> None:
        """Open the stream and carry the session's messages until it ends; raises ProglogError with the reason."""


NewStream = Callable[[str], PullStream]
"""Makes a stream to the peer at an address."""

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
    _new_stream: NewStream
    _rng: random.Random
    _on_connected: Callable[[], None]
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    ended: trio.Event = field(factory=trio.Event)
    problem: str | None = None
    streams: int = 0
    # Shared by all peers.
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
        boundary = self._replica.node.errors.boundary(Where.PEER, peer=self.name, rpc_addr=self.address)
        while True:
            problem = "internal error"
            async with self._beginning:
                # thousands of peers, as a member may invent them, do not all begin between two looks at the network
                await trio.lowlevel.checkpoint()
            with boundary:
                problem = await self._pull_once(backoff)
            if self.problem != problem:
                # Once for each change: a peer that is away for a day is one line.
                _logger.warning("cannot pull from a peer", peer=self.name, rpc_addr=self.address, reason=problem)
            self.problem = problem
            await trio.sleep(backoff.next_delay())

    async def _pull_once(self, backoff: Backoff) -> str:
        def greeted() -> None:
            backoff.succeeded()
            self.streams += 1
            self.problem = None
            self._on_connected()
            _logger.info("pulling from a peer", peer=self.name, rpc_addr=self.address)

        stream = self._new_stream(self.address)
        session = self._replica.open_pull(self.name, stream.on_ready, stream.on_room, greeted)
        try:
            await stream.run(session)
        except ProglogError as error:
            if isinstance(error, PeerLied):
                self._replica.node.counters.lies += 1
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
