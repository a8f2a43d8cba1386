"""The answers to a query of this node's, as they come."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio
from attrs import define, field, frozen

from proglog_trio.errors import ProglogError

MAX_WAITING_BYTES = 4 * 1024 * 1024
"""Of one query's answers that wait to be read, with what each takes besides."""
ANSWER_OVERHEAD_BYTES = 200


class AnswersMissed(ProglogError):
    """The answers to a query came faster than they were read, so that there was no room for some."""


@frozen
class QueryAcknowledgement:
    """A member has the query.

    Attributes:
        member: its name.
    """

    member: str


@frozen
class QueryAnswer:
    """A member's answer.

    Attributes:
        member: its name.
        payload: what it says.
    """

    member: str
    payload: bytes


@define(eq=False)
class QueryAnswers:
    """Iterates over acknowledgements and answers; see Membership.query. For one task.

    It ends when all that were asked have answered or are gone, when the time is over, when this node is no member any
    more, or by close. It raises AnswersMissed if more than 4 MiB wait to be read.
    """

    _close: Callable[[], None] = field(default=lambda: None, repr=False)
    _send: trio.MemorySendChannel[QueryAcknowledgement | QueryAnswer] = field(init=False, repr=False)
    _receive: trio.MemoryReceiveChannel[QueryAcknowledgement | QueryAnswer] = field(init=False, repr=False)
    _waiting_bytes: int = 0
    _missed: bool = False

    def __attrs_post_init__(self) -> None:
        # Bounded below, in bytes.
        self._send, self._receive = trio.open_memory_channel(math.inf)

    def __aiter__(self) -> QueryAnswers:
        return self

    async def __anext__(self) -> QueryAcknowledgement | QueryAnswer:
        try:
            answer = await self._receive.receive()
        except trio.EndOfChannel:
            if self._missed:
                raise AnswersMissed(f"more than {MAX_WAITING_BYTES} bytes of answers waited to be read") from None
            raise StopAsyncIteration from None
        self._waiting_bytes -= _size(answer)
        return answer

    def close(self) -> None:
        """Wait for no more: the query's answers are dropped from now on. What has come can still be read."""
        self._close()

    # -- called by what asks -------------------------------------------------------------------------------------------

    def acknowledged(self, member: str) -> None:
        """Add an acknowledgement."""
        self._add(QueryAcknowledgement(member))

    def answered(self, member: str, payload: bytes) -> None:
        """Add an answer."""
        self._add(QueryAnswer(member, payload))

    def ended(self) -> None:
        """There will be no more."""
        self._send.close()

    def closed_by(self, close: Callable[[], None]) -> None:
        """Have close do this, which is to lead to ended."""
        self._close = close

    def _add(self, answer: QueryAcknowledgement | QueryAnswer) -> None:
        if self._missed:
            return
        self._waiting_bytes += _size(answer)
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self._missed = True
            self._send.close()
        else:
            self._send.send_nowait(answer)


def _size(answer: QueryAcknowledgement | QueryAnswer) -> int:
    payload = len(answer.payload) if isinstance(answer, QueryAnswer) else 0
    return ANSWER_OVERHEAD_BYTES + len(answer.member) + payload
