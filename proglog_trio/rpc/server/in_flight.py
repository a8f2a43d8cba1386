"""What lies between the two tasks of a produce stream: appends that are not answered yet, bounded in bytes."""

from __future__ import annotations

import asyncio
from collections import deque

from attrs import Factory, define, field, frozen
from grpclib.exceptions import GRPCError

from proglog_trio.errors import ProglogError
from proglog_trio.log.batch import Appended
from proglog_trio.replication.peers.acknowledgements import AcknowledgementResult

_ANSWERED_AT_ONCE = 500
"""Answers that are made without others having a turn."""


@frozen
class Stored:
    """A batch that is durable, here and on as many other nodes as were waited for."""

    appended: Appended
    achieved: AcknowledgementResult


Answer = Stored | ProglogError | GRPCError


@define
class PendingAppend:
    """An append that is not answered yet.

    Attributes:
        producer_sequence: of the batch that it answers.
        count: how many requests it answers.
        size: its bytes, for the bound.
        answer: becomes what the log says, once it and the nodes that were asked for have the batch.
    """

    producer_sequence: int
    count: int
    size: int
    answer: asyncio.Future[Answer]


@define
class InFlight:
    """What is under way between the two tasks of a produce stream, in the order of the requests.

    One task calls wait_room, add and end, the other next and answered.

    Attributes:
        limit: bytes that may be under way; one append may be larger.
    """

    limit: int
    _appends: deque[PendingAppend] = Factory(deque)
    # Of all that were added and not passed to answered: more than those in _appends while some are being answered.
    _bytes: int = 0
    # No append comes after it is set. _error is raised by next once all that came before is answered.
    _ended: bool = False
    _error: Exception | None = None
    _change: asyncio.Event = field(factory=asyncio.Event)
    _room: asyncio.Event = field(factory=asyncio.Event)

    async def wait_room(self, size: int) -> None:
        """Wait until an append of this size may be added."""
        # One that is larger than the limit goes when nothing else is under way, or it would never go.
        while self._bytes and self._bytes + size > self.limit:
            self._room.clear()
            await self._room.wait()

    def add(self, append: PendingAppend) -> None:
        """Add the next append; there is room for it."""
        self._bytes += append.size
        self._appends.append(append)
        self._change.set()

    def end(self, error: Exception | None = None) -> None:
        """Add no more, because of the error if there is one."""
        self._ended = True
        self._error = error
        self._change.set()

    async def next(self) -> list[PendingAppend]:
        """Return the oldest whose commits are over, at least one; an empty list at the end. Raises the error of end.

        Lets others run first, as receive_available does.
        """
        await asyncio.sleep(0)
        while not self._appends:
            if self._error is not None:
                raise self._error
            if self._ended:
                return []
            self._change.clear()
            await self._change.wait()
        await self._appends[0].answer
        finished: list[PendingAppend] = []
        while self._appends and self._appends[0].answer.done() and len(finished) < _ANSWERED_AT_ONCE:
            finished.append(self._appends.popleft())
        return finished

    def answered(self, finished: list[PendingAppend]) -> None:
        """Make room: what next returned has been sent."""
        self._bytes -= sum(append.size for append in finished)
        self._room.set()
