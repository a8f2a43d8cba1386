"""User events and queries over gRPC: the methods of log.v1.Cluster that send, ask and watch."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import attrs
from attrs import define
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.membership import (
    AnswersMissed,
    AskedQuery,
    Coordinate,
    EventsMissed,
    Member,
    MemberEvent,
    MemberEventKind,
    Membership,
    MessageTooLarge,
    NotAMember,
    QueryAcknowledgement,
    QueryAnswer,
    QueryAnswers,
    TooManyQueries,
    UserEvent,
    coalesced,
)
from proglog_trio.rpc.http2.bridge import aio_as_trio, trio_as_aio
from proglog_trio.rpc.messages.stream_io import receive_only
from proglog_trio.rpc.messages.text import sendable
from proglog_trio.rpc.server.status_report import STATUS_MESSAGES

MEMBERS_AT_ONCE = 64
"""In one message: the same may happen to thousands at one moment, and their tags are as long as they like."""
MAX_WATCHERS = 32
"""WatchEvents calls that are served at once: what waits for one may have 8 MiB."""

_KINDS: Mapping[MemberEventKind, log_v1.MembersEventKind] = {
    MemberEventKind.JOIN: log_v1.MembersEventKind.JOIN,
    MemberEventKind.UPDATE: log_v1.MembersEventKind.UPDATE,
    MemberEventKind.LEAVE: log_v1.MembersEventKind.LEAVE,
    MemberEventKind.FAILED: log_v1.MembersEventKind.FAILED,
    MemberEventKind.REAP: log_v1.MembersEventKind.REAP,
}


@define(eq=False)
class ClusterEvents:
    """These methods.

    Attributes:
        membership: this node's.
    """

    membership: Membership
    _watchers: int = 0

    def handlers(self, service: str) -> dict[str, Handler]:
        """Return them by their paths, for grpclib."""
        unary, stream = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            f"/{service}/SendEvent": Handler(
                self._send_event, unary, log_v1.SendEventRequest, log_v1.SendEventResponse
            ),
            f"/{service}/Query": Handler(self._query, stream, log_v1.QueryRequest, log_v1.QueryResponse),
            f"/{service}/WatchEvents": Handler(
                self._watch_events, stream, log_v1.WatchEventsRequest, log_v1.WatchEventsResponse
            ),
        }

    async def _send_event(self, stream: Stream[Any, Any]) -> None:
        request: log_v1.SendEventRequest = await receive_only(stream)
        with (
            answered_with(Status.INVALID_ARGUMENT, MessageTooLarge),
            answered_with(Status.UNAVAILABLE, NotAMember),
        ):
            self.membership.send_event(_name_of(request), request.payload, coalesce=request.coalesce)
        await stream.send_message(log_v1.SendEventResponse())

    async def _query(self, stream: Stream[Any, Any]) -> None:
        request: log_v1.QueryRequest = await receive_only(stream)
        with (
            answered_with(Status.INVALID_ARGUMENT, MessageTooLarge),
            answered_with(Status.INVALID_ARGUMENT, ValueError),
            answered_with(Status.RESOURCE_EXHAUSTED, TooManyQueries),
            answered_with(Status.UNAVAILABLE, NotAMember),
        ):
            answers = self.membership.query(
                _name_of(request),
                request.payload,
                nodes=request.nodes,
                tags=request.tags,
                timeout=request.timeout_seconds or None,
                relay_factor=request.relay_factor,
                acknowledge=not request.no_acknowledgements,
            )
        try:
            await stream.send_initial_metadata()
            with answered_with(Status.RESOURCE_EXHAUSTED, AnswersMissed):
                while (answer := await trio_as_aio(_next_answer)(answers)) is not None:
                    await stream.send_message(_answer_message(answer))
        finally:
            answers.close()

    async def _watch_events(self, stream: Stream[Any, Any]) -> None:
        request: log_v1.WatchEventsRequest = await receive_only(stream)
        if self._watchers >= MAX_WATCHERS:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"this node serves at most {MAX_WATCHERS} watchers of events")
        self._watchers += 1
        try:
            with answered_with(Status.RESOURCE_EXHAUSTED, EventsMissed):
                await trio_as_aio(self._watch)(stream, coalesce=request.coalesce)
        finally:
            self._watchers -= 1

    async def _watch(self, stream: Stream[Any, Any], *, coalesce: bool) -> None:
        """Send what happens until the membership ends (Trio flavour)."""
        async with self.membership.events() as told:
            # Not before: who is told that the stream has begun misses nothing.
            await aio_as_trio(stream.send_initial_metadata)()
            events: AsyncIterator[MemberEvent | UserEvent | AskedQuery] = coalesced(told) if coalesce else told
            async for event in events:
                for message in _event_messages(event):
                    await aio_as_trio(stream.send_message)(message)


async def _next_answer(answers: QueryAnswers) -> QueryAcknowledgement | QueryAnswer | None:
    """Return what comes next, None at the end (Trio flavour)."""
    return await anext(answers, None)


def _name_of(request: log_v1.SendEventRequest | log_v1.QueryRequest) -> str:
    if not request.name:
        raise GRPCError(Status.INVALID_ARGUMENT, "the name is empty")
    return request.name


def _answer_message(answer: QueryAcknowledgement | QueryAnswer) -> log_v1.QueryResponse:
    payload = answer.payload if isinstance(answer, QueryAnswer) else b""
    return log_v1.QueryResponse(
        member=sendable(answer.member),
        is_acknowledgement=isinstance(answer, QueryAcknowledgement),
        payload=payload,
    )


def _event_messages(event: MemberEvent | UserEvent | AskedQuery) -> Iterator[log_v1.WatchEventsResponse]:
    match event:
        case MemberEvent(kind, members):
            for start in range(0, len(members), MEMBERS_AT_ONCE):
                some = [member_message(each) for each in members[start : start + MEMBERS_AT_ONCE]]
                yield log_v1.WatchEventsResponse(members=log_v1.MembersEvent(kind=_KINDS[kind], members=some))
        case UserEvent():
            fired = log_v1.UserEvent(
                name=sendable(event.name),
                payload=event.payload,
                lamport_time=event.ltime,
                coalesce=event.coalesce,
            )
            yield log_v1.WatchEventsResponse(user_event=fired)
        case AskedQuery():
            asked = log_v1.AskedQuery(
                name=sendable(event.name),
                payload=event.payload,
                source=sendable(event.source),
                lamport_time=event.ltime,
                id=event.id,
            )
            yield log_v1.WatchEventsResponse(query=asked)


def member_message(member: Member) -> log_v1.Member:
    """Return what is told of a member."""
    return log_v1.Member(
        name=sendable(member.name),
        address=member.address,
        port=member.port,
        tags={sendable(tag): sendable(content) for tag, content in member.tags.items()},
        status=STATUS_MESSAGES[member.status],
        round_trip_seconds=member.round_trip_seconds or 0.0,
        coordinate=None if member.coordinate is None else _coordinate_message(member.coordinate),
        versions=None if member.versions is None else log_v1.ProtocolVersions(**attrs.asdict(member.versions)),
    )


def _coordinate_message(coordinate: Coordinate) -> log_v1.Coordinate:
    return log_v1.Coordinate(
        vec=list(coordinate.vec),
        error=coordinate.error,
        adjustment=coordinate.adjustment,
        height=coordinate.height,
    )


@contextlib.contextmanager
def answered_with(status: Status, kind: type[Exception] | tuple[type[Exception], ...]) -> Iterator[None]:
    """Have errors of a kind, or of several, answered with a status and what they say."""
    try:
        yield
    except kind as error:
        raise GRPCError(status, str(error)) from None
