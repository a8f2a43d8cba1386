"""What a client may ask at each moment, and what becomes of its requests: a core without I/O.

A connection gives requests to its session, in their order, and does what comes out:

- Send: these bytes are the answer, and that is all.
- Perform: the command is to be done by whoever knows the cluster, and answered.
- Begin: a stream of events, of the log or of a query's answers begins under a number, and is answered when it has.
- End: streams are over; the answer comes with it.

A session ends with `closes`: the answer is the last thing that the client is told.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from attrs import define, evolve, field, frozen

from proglog_trio.membership.agent_rpc.messages import (
    COMMANDS,
    AskQuery,
    Auth,
    Handshake,
    MonitorLog,
    Respond,
    Stop,
    StreamEvents,
    encoded_answer,
)
from proglog_trio.membership.agent_rpc.request_decoder import Request
from proglog_trio.membership.events.asked_query import AskedQuery
from proglog_trio.membership.serf.asked_queries import QueryOver
from proglog_trio.membership.serf.limits import MessageTooLarge

VERSION = 1
MAX_OFFERED = 1024
"""Queries that one client may answer; for one more, the oldest is forgotten."""
MAX_STREAMS = 64
"""Streams of events, monitors and queries that one client has at once."""

UNSUPPORTED_COMMAND = "Unsupported command"
UNSUPPORTED_VERSION = "Unsupported IPC version"
DUPLICATE_HANDSHAKE = "Handshake already performed"
HANDSHAKE_REQUIRED = "Handshake required"
INVALID_FILTER = "Invalid event filter"
MONITOR_EXISTS = "Monitor already exists"
STREAM_EXISTS = "Stream with given sequence exists"
AUTH_REQUIRED = "Authentication required"
NO_SUCH_QUERY = "No pending queries matching ID"
INVALID_AUTH_TOKEN = "Invalid authentication token"  # noqa: S105 - what is said of one
TOO_MANY_STREAMS = f"Too many streams: a client has {MAX_STREAMS} at once"
"""Agents have no such limit."""


@frozen
class Send:
    """Send an answer; closes: and close the connection; is_refusal: the answer is an error."""

    data: bytes
    closes: bool = False
    is_refusal: bool = False


@frozen
class Perform:
    """Do a command, and answer it."""

    request: Request


@frozen(eq=False)
class Begin:
    """Begin a stream, and answer the request then; each is one by itself, also under a number that was used before."""

    seq: int
    body: StreamEvents | MonitorLog | AskQuery


@frozen
class End:
    """End these streams, and send an answer."""

    begun: tuple[Begin, ...]
    data: bytes


class QueryNotAnswered(Exception):
    """An answer to a query that is not given to who asked; the message is the client's to see."""


Step = Send | Perform | Begin | End


@define(eq=False)
class Session:
    """One client's.

    Attributes:
        auth_key: what a client has to know; None: nothing.
        is_greeted: the handshake was done.
        is_trusted: the client may do everything; never before is_greeted.
        streams: the streams of events that are sent, by number.
        queries: the queries whose answers are sent, by number.
        monitor: the log that is sent; None: it is not.
    """

    auth_key: str | None = field(default=None, repr=False)
    is_greeted: bool = False
    is_trusted: bool = False
    streams: dict[int, Begin] = field(factory=dict)
    queries: dict[int, Begin] = field(factory=dict)
    monitor: Begin | None = None
    # What was sent to be answered, by the number that it was sent under; oldest first.
    _offered: dict[int, AskedQuery] = field(factory=dict)
    _last_offer: int = 0

    def take(self, request: Request) -> Step:
        """Return what is to be done for a request."""
        command, seq, body = request.command, request.seq, request.body
        if command not in COMMANDS:
            # Whether it has a body is not known, so nothing after it can be read.
            return _refusal(seq, UNSUPPORTED_COMMAND, closes=True)
        if isinstance(body, Handshake):
            return self._greet(seq, body)
        if not self.is_greeted:
            return _refusal(seq, HANDSHAKE_REQUIRED, closes=True)
        if isinstance(body, Auth):
            return self._authenticate(seq, body)
        if not self.is_trusted:
            return _refusal(seq, AUTH_REQUIRED)
        if isinstance(body, StreamEvents | MonitorLog | AskQuery):
            return self._begin(seq, body)
        if isinstance(body, Stop):
            return self._stop(seq, body.stop)
        return Perform(request)

    def _greet(self, seq: int, body: Handshake) -> Send:
        if self.is_greeted:
            return _refusal(seq, DUPLICATE_HANDSHAKE)
        if body.version != VERSION:
            return _refusal(seq, UNSUPPORTED_VERSION)
        self.is_greeted = True
        self.is_trusted = self.auth_key is None
        return Send(encoded_answer(seq))

    def _authenticate(self, seq: int, body: Auth) -> Send:
        # Where there is no key, one that is given is wrong as well: agents say so.
        if not _equal(body.auth_key, self.auth_key or ""):
            return _refusal(seq, INVALID_AUTH_TOKEN)
        self.is_trusted = True
        return Send(encoded_answer(seq))

    def _begin(self, seq: int, body: StreamEvents | MonitorLog | AskQuery) -> Send | Begin:
        if isinstance(body, MonitorLog) and self.monitor is not None:
            return _refusal(seq, MONITOR_EXISTS)
        if isinstance(body, StreamEvents) and seq in self.streams:
            return _refusal(seq, STREAM_EXISTS)
        if len(self.streams) + len(self.queries) + (self.monitor is not None) >= MAX_STREAMS:
            return _refusal(seq, TOO_MANY_STREAMS)
        if seq in self.queries:
            return _refusal(seq, STREAM_EXISTS)
        begun = Begin(seq, body)
        match body:
            case StreamEvents():
                self.streams[seq] = begun
            case MonitorLog():
                self.monitor = begun
            case AskQuery():
                self.queries[seq] = begun
        return begun

    def _stop(self, seq: int, stopped: int) -> End:
        found = [self.streams.get(stopped), self.monitor if self.monitor and self.monitor.seq == stopped else None]
        begun = tuple(each for each in found if each is not None)
        for each in begun:
            self.ended(each)
        return End(begun, encoded_answer(seq))

    def offer(self, query: AskedQuery) -> int:
        """Return the number by which the client may answer a query that is sent to it."""
        self._last_offer += 1
        while len(self._offered) >= MAX_OFFERED:
            del self._offered[next(iter(self._offered))]
        # Without what may be a MiB of each: an answer has nothing of it.
        self._offered[self._last_offer] = evolve(query, name="", payload=b"")
        return self._last_offer

    def respond(self, body: Respond, answer: Callable[[AskedQuery, bytes], None]) -> None:
        """Answer a query. Raises QueryNotAnswered: it was never sent to this client, is over or answered already."""
        query = self._offered.get(body.id)
        if query is None:
            raise QueryNotAnswered(NO_SUCH_QUERY)
        try:
            answer(query, body.payload)
        except (QueryOver, MessageTooLarge) as error:
            raise QueryNotAnswered(str(error)) from None

    def ended(self, begun: Begin) -> None:
        """A stream is over, or could not begin: its number may be used again."""
        for table in (self.streams, self.queries):
            if table.get(begun.seq) is begun:
                del table[begun.seq]
        if self.monitor is begun:
            self.monitor = None


def _refusal(seq: int, error: str, *, closes: bool = False) -> Send:
    return Send(encoded_answer(seq, error=error), closes, is_refusal=True)


def _equal(one: str, other: str) -> bool:
    """Compare in a time that does not depend on where they differ."""
    return hmac.compare_digest(one.encode("utf-8", "surrogateescape"), other.encode("utf-8", "surrogateescape"))
