"""The Cluster service, log.v1.Cluster: the methods of proto/log/v1/cluster.proto over a membership.

Gossip keys are installed, used, removed and listed in the whole cluster. Keys are what their calls carry, so these want
a connection that no third party can listen to: with TLS, or within this machine.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import trio
from attrs import frozen
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.address import parse_start_address
from proglog_trio.log.format.origin import Origin
from proglog_trio.membership import (
    JoinFailed,
    KeyAnswers,
    KeyOperation,
    KeysNotAsked,
    Membership,
    NotAMember,
    TagsFileError,
)
from proglog_trio.replication.replicator import GivenUp
from proglog_trio.rpc.http2.bridge import trio_as_aio
from proglog_trio.rpc.messages.stream_io import encode_list, receive_only, send_encoded
from proglog_trio.rpc.messages.text import sendable
from proglog_trio.rpc.server.cluster_events import ClusterEvents, answered_with
from proglog_trio.rpc.server.handlers import Method
from proglog_trio.rpc.server.member_message import member_message

SERVICE_NAME = "log.v1.Cluster"
MAX_ADDRESSES = 100
ANSWER_GRACE_SECONDS = 0.2
_MEMBERS = 1
"""The field of GetMembersResponse."""
_KEY_CHANGES: Mapping[str, tuple[KeyOperation, type, type]] = {
    "InstallKey": (KeyOperation.INSTALL, log_v1.InstallKeyRequest, log_v1.InstallKeyResponse),
    "UseKey": (KeyOperation.USE, log_v1.UseKeyRequest, log_v1.UseKeyResponse),
    "RemoveKey": (KeyOperation.REMOVE, log_v1.RemoveKeyRequest, log_v1.RemoveKeyResponse),
}


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
        methods: dict[str, tuple[Method, type, type]] = {
            "GetMembers": (self._get_members, log_v1.GetMembersRequest, log_v1.GetMembersResponse),
            "Join": (self._join, log_v1.JoinRequest, log_v1.JoinResponse),
            "Leave": (self._leave, log_v1.LeaveRequest, log_v1.LeaveResponse),
            "ForceLeave": (self._force_leave, log_v1.ForceLeaveRequest, log_v1.ForceLeaveResponse),
            "GetStatus": (self._get_status, log_v1.GetStatusRequest, log_v1.GetStatusResponse),
            "AcceptGaps": (self._accept_gaps, log_v1.AcceptGapsRequest, log_v1.AcceptGapsResponse),
            "ListKeys": (self._list_keys, log_v1.ListKeysRequest, log_v1.ListKeysResponse),
            "EstimateRoundTrip": (
                self._estimate_round_trip,
                log_v1.EstimateRoundTripRequest,
                log_v1.EstimateRoundTripResponse,
            ),
            "GetInfo": (self._get_info, log_v1.GetInfoRequest, log_v1.GetInfoResponse),
            "ChangeTags": (self._change_tags, log_v1.ChangeTagsRequest, log_v1.ChangeTagsResponse),
        }
        for name, (operation, request, response) in _KEY_CHANGES.items():
            methods[name] = partial(self._change_key, operation, response), request, response
        unary = {
            f"/{SERVICE_NAME}/{name}": Handler(method, Cardinality.UNARY_UNARY, request, response)
            for name, (method, request, response) in methods.items()
        }
        return {**unary, **ClusterEvents(self.membership).handlers(SERVICE_NAME)}

    async def _get_members(self, stream: Stream[Any, Any]) -> None:
        await receive_only(stream)
        found = map(self.membership.member, self.membership.names())
        members = (member_message(member) for member in found if member is not None)
        await send_encoded(stream, await encode_list(_MEMBERS, members), 1)

    async def _get_status(self, stream: Stream[Any, Any]) -> None:
        await receive_only(stream)
        await stream.send_message(self.status())

    async def _accept_gaps(self, stream: Stream[Any, Any]) -> None:
        request: log_v1.AcceptGapsRequest = await receive_only(stream)
        with answered_with(Status.INVALID_ARGUMENT, ValueError):
            origin = Origin.parse(request.origin) if request.origin else None
        given_up: GivenUp = await trio_as_aio(self.accept_gaps)(origin)
        await stream.send_message(log_v1.AcceptGapsResponse(records=given_up.records, unwritten=given_up.unwritten))

    async def _join(self, stream: Stream[Any, Any]) -> None:
        request: log_v1.JoinRequest = await receive_only(stream)
        if not 0 < len(request.addresses) <= MAX_ADDRESSES:
            raise GRPCError(
                Status.INVALID_ARGUMENT, f"{len(request.addresses)} addresses; 1 to {MAX_ADDRESSES} are allowed"
            )
        with answered_with(Status.INVALID_ARGUMENT, ValueError):
            addresses = [parse_start_address(text, default_port=self.default_port) for text in request.addresses]
        with answered_with(Status.UNAVAILABLE, JoinFailed):
            joined: int = await trio_as_aio(self.membership.join)(addresses, ignore_events=not request.replay_events)
        await stream.send_message(log_v1.JoinResponse(joined=joined))

    async def _leave(self, stream: Stream[Any, Any]) -> None:
        await receive_only(stream)
        with answered_with(Status.UNAVAILABLE, NotAMember):
            await trio_as_aio(self._leave_and_stop)(asyncio.get_running_loop())
        await stream.send_message(log_v1.LeaveResponse())

    async def _leave_and_stop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Leave; then the node stops, whatever became of the client meanwhile (Trio flavour)."""
        with trio.CancelScope(shield=True):
            await self.membership.leave()
        # Not at once: a client that sees the connection close together with the answer may drop the answer.
        loop.call_later(ANSWER_GRACE_SECONDS, self.stop)

    async def _force_leave(self, stream: Stream[Any, Any]) -> None:
        request: log_v1.ForceLeaveRequest = await receive_only(stream)
        if request.name == self.membership.name:
            raise GRPCError(Status.INVALID_ARGUMENT, f"{request.name!r} is this node itself: tell it to leave instead")
        if not self.membership.force_leave(request.name, prune=request.prune):
            raise GRPCError(Status.NOT_FOUND, f"no member named {request.name!r} is known")
        await stream.send_message(log_v1.ForceLeaveResponse())

    async def _estimate_round_trip(self, stream: Stream[Any, Any]) -> None:
        request: log_v1.EstimateRoundTripRequest = await receive_only(stream)
        one, other = request.one or self.membership.name, request.other or self.membership.name
        for name in (one, other):
            if self.membership.member(name) is None:
                raise GRPCError(Status.NOT_FOUND, f"no member named {name!r} is known")
            if self.membership.coordinate(name) is None:
                raise GRPCError(
                    Status.FAILED_PRECONDITION,
                    f"where {name!r} is in the network is not known yet: it says so when this node probes it",
                )
        seconds = self.membership.round_trip(one, other)
        await stream.send_message(log_v1.EstimateRoundTripResponse(seconds=seconds or 0.0, one=one, other=other))

    # -- this node as a member -----------------------------------------------------------------------------------------

    async def _get_info(self, stream: Stream[Any, Any]) -> None:
        await receive_only(stream)
        groups = [
            log_v1.InfoGroup(
                name=group,
                texts={sendable(name): sendable(text) for name, text in figures.items() if isinstance(text, str)},
                numbers={name: number for name, number in figures.items() if isinstance(number, int)},
            )
            for group, figures in self.membership.stats().items()
        ]
        await stream.send_message(log_v1.GetInfoResponse(groups=groups))

    async def _change_tags(self, stream: Stream[Any, Any]) -> None:
        request: log_v1.ChangeTagsRequest = await receive_only(stream)
        with (
            answered_with(Status.INVALID_ARGUMENT, ValueError),
            answered_with(Status.UNAVAILABLE, (TagsFileError, NotAMember)),
        ):
            await trio_as_aio(self.membership.change_tags)(request.set, request.delete)
        tags = {sendable(name): sendable(content) for name, content in self.membership.tags.items()}
        await stream.send_message(log_v1.ChangeTagsResponse(tags=tags))

    # -- keys ----------------------------------------------------------------------------------------------------------

    async def _change_key(self, operation: KeyOperation, response: Any, stream: Stream[Any, Any]) -> None:  # noqa: ANN401 - a class of messages
        request = await receive_only(stream)
        answers = await self._ask_keys(stream, operation, request.key)
        await stream.send_message(response(answers=_answers_message(answers)))

    async def _list_keys(self, stream: Stream[Any, Any]) -> None:
        await receive_only(stream)
        answers = await self._ask_keys(stream, KeyOperation.LIST, "")
        holders = [
            log_v1.KeyHolders(key=key, members=sorted(names), primary_of=sorted(answers.primary_of.get(key, ())))
            for key, names in sorted(answers.holders.items())
        ]
        await stream.send_message(log_v1.ListKeysResponse(answers=_answers_message(answers), keys=holders))

    async def _ask_keys(self, stream: Stream[Any, Any], operation: KeyOperation, key: str) -> KeyAnswers:
        if not _is_private(stream):
            raise GRPCError(
                Status.FAILED_PRECONDITION, "keys are not sent over a connection without TLS to another machine"
            )
        keys = self.membership.keys
        if keys is None:
            raise GRPCError(Status.FAILED_PRECONDITION, "this node's gossip is not encrypted: it has no keys")
        with (
            answered_with(Status.INVALID_ARGUMENT, ValueError),
            answered_with(Status.RESOURCE_EXHAUSTED, KeysNotAsked),
        ):
            answers: KeyAnswers = await trio_as_aio(keys.ask)(operation, key)
        return answers


def _is_private(stream: Stream[Any, Any]) -> bool:
    transport = stream._stream._transport  # noqa: SLF001 - grpclib tells of a peer's certificate alone, not of TLS
    if transport.get_extra_info("ssl_object") is not None:
        return True
    peer = transport.get_extra_info("peername")
    return bool(peer) and ipaddress.ip_address(str(peer[0]).partition("%")[0]).is_loopback


def _answers_message(answers: KeyAnswers) -> log_v1.KeyAnswers:
    return log_v1.KeyAnswers(done=answers.done, problems=answers.problems, silent=answers.silent)
