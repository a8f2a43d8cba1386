"""One client of the agent's RPC, under Trio.

```
Connection.run
├── sender       what waits in the outbox; ends the connection of a client that does not read
├── receiver     requests, one after the other
└── streams      of events, of the log and of answers to queries: a task each, which pushes into the outbox
```
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio
from attrs import AttrsInstance, define, field

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership.agent_rpc.commands import NO_MEMBERS, CommandFailed, Commands
from proglog_trio.membership.agent_rpc.event_records import EventRecords
from proglog_trio.membership.agent_rpc.log_lines import LogLines, level_of
from proglog_trio.membership.agent_rpc.messages import (
    AskQuery,
    CoordinateReport,
    Joined,
    KeyReport,
    LogRecord,
    MonitorLog,
    QueryRecord,
    Respond,
    StreamEvents,
    encoded,
    encoded_answer,
)
from proglog_trio.membership.agent_rpc.outbox import ClientTooSlow, Outbox
from proglog_trio.membership.agent_rpc.request_decoder import BodyMalformed, Request, RequestDecoder
from proglog_trio.membership.agent_rpc.session import (
    INVALID_FILTER,
    Begin,
    End,
    Perform,
    QueryNotAnswered,
    Send,
    Session,
)
from proglog_trio.membership.event_handlers.event_filter import parse_filters
from proglog_trio.membership.events.coalescing import coalesced
from proglog_trio.membership.events.query_answers import AnswersMissed, QueryAcknowledgement, QueryAnswer
from proglog_trio.membership.membership import Membership, NotAMember
from proglog_trio.membership.serf.limits import MessageTooLarge
from proglog_trio.membership.serf.open_queries import TooManyQueries
from proglog_trio.membership.subscriptions import EventsMissed
from proglog_trio.membership.wire.errors import DecodingError

GREETING_SECONDS = 10.0
"""For the handshake, and what a client has to know."""
REQUEST_SECONDS = 10.0
"""For a request that has begun."""
LAST_ANSWER_SECONDS = 5.0
"""For what a client is still to read when nothing more is read of it."""
RECEIVED_AT_ONCE_BYTES = 16 * 1024
NANOSECONDS = 1e9
INTERNAL_ERROR = "internal error"

_EMPTY_BODIES: dict[str, AttrsInstance | bytes] = {
    "join": Joined(),
    "members": NO_MEMBERS,
    "members-filtered": NO_MEMBERS,
    "install-key": KeyReport(),
    "use-key": KeyReport(),
    "remove-key": KeyReport(),
    "list-keys": KeyReport(),
    "stats": encoded({}),
    "get-coordinate": CoordinateReport(),
}
"""What stands behind an error, where clients read an answer in any case."""


class StreamRefused(Exception):
    """A stream that cannot begin; the message is the client's to see."""


class ConnectionRefused(Exception):
    """A connection is ended; the message says what its client did."""


@define
class AgentRpcCounters:
    """What clients of the agent's RPC did since it is served.

    Attributes:
        connections: that were accepted.
        connections_refused: that were ended for what they sent, did not send in time or did not read, or for one more.
        requests: that were whole.
        requests_refused: that were answered with an error.
    """

    connections: int = 0
    connections_refused: int = 0
    requests: int = 0
    requests_refused: int = 0


@define(eq=False)
class Connection:
    """See the module.

    Attributes:
        stream: to the client.
        session: what it may do.
        membership: of this node.
        commands: do what it asks.
        log_lines: what it may monitor.
        counters: see AgentRpcCounters.
        errors: where unforeseen errors are counted.
        has_left: it had this node leave the cluster.
    """

    stream: trio.SocketStream
    session: Session
    membership: Membership
    commands: Commands
    log_lines: LogLines
    counters: AgentRpcCounters
    errors: InternalErrors
    has_left: bool = False
    _outbox: Outbox = field(factory=Outbox)
    _records: EventRecords = field(init=False)
    _scopes: dict[Begin, trio.CancelScope] = field(factory=dict)
    _whole: trio.CancelScope = field(factory=trio.CancelScope)
    _problem: str | None = None
    _connected: float = field(factory=trio.current_time)
    # When the request that is not whole yet began.
    _amid_since: float | None = None

    def __attrs_post_init__(self) -> None:
        self._records = EventRecords(self.membership.gossip.core.members.by_name)

    async def run(self) -> None:
        """Serve the client until it is gone. Raises ConnectionRefused: it was ended."""
        with self._whole:
            async with trio.open_nursery() as sending:
                sending.start_soon(self._send)
                async with trio.open_nursery() as streams:
                    await self._receive(streams)
                    streams.cancel_scope.cancel()
                # What was answered last is still to be read.
                self._outbox.close()
                self._whole.deadline = trio.current_time() + LAST_ANSWER_SECONDS
        if self._problem is not None:
            raise ConnectionRefused(self._problem)

    def end(self, problem: str) -> None:
        """End this connection."""
        self._problem = self._problem or problem
        self._whole.cancel()

    async def _send(self) -> None:
        try:
            await self._outbox.run(self.stream)
        except ClientTooSlow as error:
            self.end(f"the client does not read: {error}")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._whole.cancel()

    # -- requests ------------------------------------------------------------------------------------------------------

    async def _receive(self, streams: trio.Nursery) -> None:
        decoder = RequestDecoder()
        try:
            while True:
                request = decoder.next()
                if request is None:
                    data = await self._more(decoder)
                    if not data:
                        return
                    decoder.feed(data)
                elif not await self._take(request, streams):
                    return
                else:
                    # What stands behind it is another, which begins when it is looked at.
                    self._amid_since = None
                    # Many may be there whole; and none is looked at while the client does not read.
                    await trio.lowlevel.checkpoint()
                    await self._outbox.until_low()
        except BodyMalformed as error:
            self._refuse(error.seq, str(error))
            self._problem = str(error)
        except DecodingError as error:
            self._problem = str(error)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._whole.cancel()

    async def _more(self, decoder: RequestDecoder) -> bytes | bytearray:
        """Return what arrives next; nothing, if the client has ended, or does not send what it must."""
        begun = trio.current_time()
        deadlines = []
        if not self.session.is_trusted:
            deadlines.append((self._connected + GREETING_SECONDS, "did not greet, or say the key, in time"))
        if decoder.is_amid:
            self._amid_since = begun if self._amid_since is None else self._amid_since
            deadlines.append((self._amid_since + REQUEST_SECONDS, "did not end a request in time"))
        else:
            self._amid_since = None
        deadline, problem = min(deadlines, default=(math.inf, ""))
        with trio.CancelScope(deadline=deadline) as scope:
            return await self.stream.receive_some(RECEIVED_AT_ONCE_BYTES)
        if scope.cancelled_caught:
            self._problem = f"the client {problem}"
        return b""

    async def _take(self, request: Request, streams: trio.Nursery) -> bool:
        """Do what a request asks for; tell whether the next may be looked at."""
        self.counters.requests += 1
        match self.session.take(request):
            case Send(data, closes, is_refusal):
                self.counters.requests_refused += is_refusal
                self._outbox.answer(data)
                return not closes
            case Perform(request):
                await self._perform(request)
                return not self.has_left
            case Begin() as begun:
                await streams.start(self._run_stream, begun)
            case End(ended, data):
                for begun in ended:
                    self._scopes[begun].cancel()
                self._outbox.answer(data)
        return True

    def _refuse(self, seq: int, error: str, body: AttrsInstance | bytes | None = None) -> None:
        self.counters.requests_refused += 1
        self._outbox.answer(encoded_answer(seq, body, error=error))

    async def _perform(self, request: Request) -> None:
        command, seq = request.command, request.seq
        boundary = self.errors.boundary(Where.AGENT_RPC, command=command)
        with boundary:
            try:
                if isinstance(request.body, Respond):
                    self.session.respond(request.body, self.membership.answer)
                    answer = None
                elif command == "leave":
                    # Whatever becomes of the client meanwhile: who is to be told that this node has left must be.
                    with trio.CancelScope(shield=True):
                        answer = await self.commands.perform(request)
                    self.has_left = True
                else:
                    answer = await self.commands.perform(request)
            except CommandFailed as error:
                self._refuse(seq, str(error), error.body)
            except (QueryNotAnswered, NotAMember) as error:
                self._refuse(seq, str(error))
            else:
                self._outbox.answer(encoded_answer(seq, answer))
        if boundary.failed:
            self._refuse(seq, INTERNAL_ERROR, _EMPTY_BODIES.get(command))

    # -- streams -------------------------------------------------------------------------------------------------------

    async def _run_stream(self, begun: Begin, *, task_status: trio.TaskStatus[None]) -> None:
        """Send what a client has asked for, until it is over or the client has had enough."""
        boundary = self.errors.boundary(Where.AGENT_RPC, stream=type(begun.body).__name__)
        has_begun = False

        def begin() -> None:
            nonlocal has_begun
            has_begun = True
            self._outbox.answer(encoded_answer(begun.seq))
            task_status.started()

        with trio.CancelScope() as scope:
            self._scopes[begun] = scope
            with boundary:
                try:
                    await self._stream(begun, begin)
                except StreamRefused as error:
                    self._refuse(begun.seq, str(error))
                except (EventsMissed, AnswersMissed) as error:
                    self.end(f"the client does not read: {error}")
        del self._scopes[begun]
        self.session.ended(begun)
        if boundary.failed:
            # A client that is told nothing would wait for ever.
            self.end(INTERNAL_ERROR)
        if not has_begun:
            task_status.started()

    async def _stream(self, begun: Begin, begin: Callable[[], None]) -> None:
        match begun.body:
            case StreamEvents(type):
                await self._send_events(begun.seq, type, begin)
            case MonitorLog(level):
                await self._send_log(begun.seq, level, begin)
            case AskQuery() as query:
                await self._send_answers(begun.seq, query, begin)

    async def _send_events(self, seq: int, wanted: str, begin: Callable[[], None]) -> None:
        try:
            filters = parse_filters(wanted)
        except ValueError:
            raise StreamRefused(INVALID_FILTER) from None
        async with self.membership.events() as events:
            begin()
            async for event in coalesced(events):
                for record in self._records.of(event, filters, self.session.offer):
                    await self._outbox.push(encoded_answer(seq, record))

    async def _send_log(self, seq: int, level: str, begin: Callable[[], None]) -> None:
        try:
            number = level_of(level)
        except ValueError as error:
            raise StreamRefused(str(error)) from None
        async with self.log_lines.listening(number) as lines:
            begin()
            async for line in lines:
                await self._outbox.push(encoded_answer(seq, LogRecord(line)))

    async def _send_answers(self, seq: int, query: AskQuery, begin: Callable[[], None]) -> None:
        try:
            answers = self.membership.query(
                query.name,
                query.payload,
                nodes=query.filter_nodes,
                tags=query.filter_tags,
                timeout=query.timeout / NANOSECONDS or None,
                relay_factor=query.relay_factor,
                acknowledge=query.request_ack,
            )
        except (TooManyQueries, MessageTooLarge, NotAMember, ValueError) as error:
            raise StreamRefused(str(error)) from None
        begin()
        try:
            async for answer in answers:
                match answer:
                    case QueryAcknowledgement(member):
                        record = QueryRecord("ack", member)
                    case QueryAnswer(member, payload):
                        record = QueryRecord("response", member, payload)
                await self._outbox.push(encoded_answer(seq, record))
        finally:
            answers.close()
        await self._outbox.push(encoded_answer(seq, QueryRecord("done")))
