"""What waits to be sent to one client, within bounds."""

from __future__ import annotations

from collections import deque

import trio
from attrs import define, field

from proglog_trio.membership.wakeup import Wakeup

MAX_UNREAD_BYTES = 1024 * 1024
"""Of events, log lines and answers to queries that wait for one client; what pushes more waits itself."""
LOW_BYTES = 64 * 1024
"""No further request is looked at while more than this waits."""
SENT_AT_ONCE_BYTES = 64 * 1024
PIECE_SECONDS = 30.0
"""A client that does not take a piece in this time does not read."""


class ClientTooSlow(Exception):
    """A client does not read what it has asked for; the message says what waits."""


@define(eq=False)
class Outbox:
    """What waits to be sent, in its order.

    Answers are bounded by who makes them: none is made while much waits. What is pushed is counted by itself, since
    an answer may be larger than all that may be pushed; what gives it has a bound of its own, for while it waits.
    """

    _waiting: deque[tuple[bytes, bool]] = field(factory=deque)
    _waiting_bytes: int = 0
    _pushed_bytes: int = 0
    _news: Wakeup = field(factory=Wakeup)
    _is_low: trio.Event = field(factory=trio.Event)
    _has_room: trio.Event = field(factory=trio.Event)
    _is_closing: bool = False

    def __attrs_post_init__(self) -> None:
        self._is_low.set()
        self._has_room.set()

    def answer(self, data: bytes) -> None:
        """Send the answer to a request."""
        self._add(data, pushed=False)

    async def push(self, data: bytes) -> None:
        """Send what was not asked for just now, as soon as there is room; others have a turn in any case."""
        await trio.lowlevel.checkpoint()
        while not self._has_room.is_set():
            await self._has_room.wait()
        self._add(data, pushed=True)

    def _add(self, data: bytes, *, pushed: bool) -> None:
        self._waiting.append((data, pushed))
        self._waiting_bytes += len(data)
        if pushed:
            self._pushed_bytes += len(data)
            if self._pushed_bytes >= MAX_UNREAD_BYTES and self._has_room.is_set():
                self._has_room = trio.Event()
        if self._waiting_bytes > LOW_BYTES and self._is_low.is_set():
            self._is_low = trio.Event()
        self._news.set()

    async def until_low(self) -> None:
        """Wait until little waits."""
        await self._is_low.wait()

    def close(self) -> None:
        """Have run return when all that waits is sent."""
        self._is_closing = True
        self._news.set()

    async def run(self, stream: trio.abc.SendStream) -> None:
        """Send what comes, until closed.

        Raises:
            ClientTooSlow: the client does not take it.
            trio.BrokenResourceError, trio.ClosedResourceError: the connection has ended.
        """
        while True:
            while self._waiting:
                data, pushed = self._waiting.popleft()
                await self._send(stream, data)
                self._waiting_bytes -= len(data)
                if pushed:
                    self._pushed_bytes -= len(data)
                    if self._pushed_bytes < MAX_UNREAD_BYTES:
                        self._has_room.set()
                if self._waiting_bytes <= LOW_BYTES:
                    self._is_low.set()
            if self._is_closing:
                return
            await self._news.wait()
            self._news.clear()

    async def _send(self, stream: trio.abc.SendStream, data: bytes) -> None:
        with memoryview(data) as view:
            for start in range(0, len(view), SENT_AT_ONCE_BYTES):
                try:
                    with trio.fail_after(PIECE_SECONDS):
                        await stream.send_all(view[start : start + SENT_AT_ONCE_BYTES])
                except trio.TooSlowError:
                    raise ClientTooSlow(f"{self._waiting_bytes} bytes wait to be read") from None
