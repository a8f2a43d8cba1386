"""The Cluster service, log.v1.Cluster: the methods of proto/log/v1/cluster.proto over a membership."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import frozen
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.address import Address
from proglog_trio.log.format.origin import Origin
from proglog_trio.membership import JoinFailed, Member, Membership, NotAMember
from proglog_trio.replication.replicator import GivenUp
from proglog_trio.rpc.http2.bridge import trio_as_aio
from proglog_trio.rpc.messages.text import sendable
from proglog_trio.rpc.server.key_calls import KeyCalls
from proglog_trio.rpc.server.status_report import STATUS_MESSAGES
from proglog_trio.rpc.server.stream_io import encode_list, receive_only, send_encoded

SERVICE_NAME = "log.v1.Cluster"
MAX_ADDRESSES = 100
ANSWER_GRACE_SECONDS = 0.2
_MEMBERS = 1
"""The field of GetMembersResponse."""


@frozen(eq=False)
class ClusterService:
    """The service.

    Attributes:
        membership: this node's.
        default_port: of addresses that are given without one.
        stop: called when this node was told to leave, and has left.
        status: says what this node has, and what the others are known to have.
        accept_gaps: gives up what is missing of an origin, or of all; returns when that is written down.
    """

    membership: Membership
    default_port: int
    stop: Callable[[], None]
    status: Callable[[], log_v1.GetStatusResponse]
    accept_gaps: Callable[[Origin | None], Awaitable[GivenUp]]

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return the methods by their paths, for grpclib."""
        unary = Cardinality.UNARY_UNARY
        return {
            f"/{SERVICE_NAME}/GetMembers": Handler(
                self._get_members, unary, log_v1.GetMembersRequest, log_v1.GetMembersResponse
            ),
            f"/{SERVICE_NAME}/Join": Handler(self._join, unary, log_v1.JoinRequest, log_v1.JoinResponse),
            f"/{SERVICE_NAME}/Leave": Handler(self._leave, unary, log_v1.LeaveRequest, log_v1.LeaveResponse),
            f"/{SERVICE_NAME}/ForceLeave": Handler(
                self._force_leave, unary, log_v1.ForceLeaveRequest, log_v1.ForceLeaveResponse
            ),
            f"/{SERVICE_NAME}/GetStatus": Handler(
                self._get_status, unary, log_v1.GetStatusRequest, log_v1.GetStatusResponse
            ),
            f"/{SERVICE_NAME}/AcceptGaps": Handler(
                self._accept_gaps, unary, log_v1.AcceptGapsRequest, log_v1.AcceptGapsResponse
            ),
            **KeyCalls(self.membership.keys).methods(SERVICE_NAME),
        }

    async def _get_members(self, stream: Stream[Any, Any]) -> None:
        await receive_only(stream)
        found = map(self.membership.member, self.membership.names())
        members = (_message(member) for member in found if member is not None)
        await send_encoded(stream, await encode_list(_MEMBERS, members), 1)

    async def _get_status(self, stream: Stream[Any, Any]) -> None:
        await receive_only(stream)
        await stream.send_message(self.status())

    async def _accept_gaps(self, stream: Stream[Any, Any]) -> None:
        request: log_v1.AcceptGapsRequest = await receive_only(stream)
        try:
            origin = Origin.parse(request.origin) if request.origin else None
        except ValueError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from None
        given_up: GivenUp = await trio_as_aio(self.accept_gaps)(origin)
        await stream.send_message(log_v1.AcceptGapsResponse(records=given_up.records, unwritten=given_up.unwritten))

    async def _join(self, stream: Stream[Any, Any]) -> None:
        request: log_v1.JoinRequest = await receive_only(stream)
        if not 0 < len(request.addresses) <= MAX_ADDRESSES:
            raise GRPCError(
                Status.INVALID_ARGUMENT, f"{len(request.addresses)} addresses; 1 to {MAX_ADDRESSES} are allowed"
            )
        try:
            addresses = [Address.parse(text, default_port=self.default_port) for text in request.addresses]
        except ValueError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from None
        try:
            joined: int = await trio_as_aio(self.membership.join)(addresses)
        except JoinFailed as error:
            raise GRPCError(Status.UNAVAILABLE, str(error)) from None
        await stream.send_message(log_v1.JoinResponse(joined=joined))

    async def _leave(self, stream: Stream[Any, Any]) -> None:
        await receive_only(stream)
        try:
            await trio_as_aio(self.membership.leave)()
        except NotAMember as error:
            raise GRPCError(Status.UNAVAILABLE, str(error)) from None
        await stream.send_message(log_v1.LeaveResponse())
        await stream.send_trailing_metadata()
        # A client that sees the connection close together with the answer may take the answer for lost.
        asyncio.get_running_loop().call_later(ANSWER_GRACE_SECONDS, self.stop)

    async def _force_leave(self, stream: Stream[Any, Any]) -> None:
        request: log_v1.ForceLeaveRequest = await receive_only(stream)
        if request.name == self.membership.name:
            raise GRPCError(Status.INVALID_ARGUMENT, f"{request.name!r} is this node itself: tell it to leave instead")
        if not self.membership.force_leave(request.name, prune=request.prune):
            raise GRPCError(Status.NOT_FOUND, f"no member named {request.name!r} is known")
        await stream.send_message(log_v1.ForceLeaveResponse())


def _message(member: Member) -> log_v1.Member:
    return log_v1.Member(
        name=sendable(member.name),
        address=member.address,
        port=member.port,
        tags={sendable(tag): sendable(content) for tag, content in member.tags.items()},
        status=STATUS_MESSAGES[member.status],
        round_trip_seconds=member.round_trip_seconds or 0.0,
    )
