"""Calls of the Cluster service, from Trio: members, events and queries, what a node's log has, and gossip keys.

One connection for each call: they are made by people and by scripts, now and then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import trio
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.errors import ConnectionNotOpened
from proglog_trio.rpc.calls.connection import ConnectionConfig, open_connection
from proglog_trio.rpc.messages.stream_io import receive_next
from proglog_trio.security.tls import ClientTls

Answer = TypeVar("Answer")
_SERVICE = "/log.v1.Cluster/"


async def get_members(address: str, timeout: float, *, tls: ClientTls | None = None) -> list[log_v1.Member]:
    """Return the members of a node's cluster, as it sees them.

    Args:
        address: "host:port" of the node.
        timeout: for connection and answer, in seconds.
        tls: the certificates; None: no TLS.

    Raises:
        NodeConnectionError: the node cannot be reached, or does not answer in time.
        CallFailed: it answers with an error.
        TlsError: the files of tls cannot be used.
    """
    answer = await _call(address, timeout, tls, log_v1.GetMembersRequest(), log_v1.GetMembersResponse)
    return answer.members


async def get_status(address: str, timeout: float, *, tls: ClientTls | None = None) -> log_v1.GetStatusResponse:
    """Return what a node's log has, per origin, and what the others are known to have; raises as get_members."""
    return await _call(address, timeout, tls, log_v1.GetStatusRequest(), log_v1.GetStatusResponse)


async def join(
    address: str, members: Sequence[str], timeout: float, *, replay_events: bool = False, tls: ClientTls | None = None
) -> int:
    """Let a node join a cluster through these members ("host:port"); return how many of them answered.

    Args:
        address: "host:port" of the node.
        members: those that are joined through.
        timeout: for connection and answer, in seconds.
        replay_events: user events that were sent before are delivered too.
        tls: the certificates; None: no TLS.

    Raises:
        NodeConnectionError, CallFailed: see get_members; UNAVAILABLE when none of the members answered.
    """
    request = log_v1.JoinRequest(addresses=list(members), replay_events=replay_events)
    answer = await _call(address, timeout, tls, request, log_v1.JoinResponse)
    return answer.joined


async def leave(address: str, timeout: float, *, tls: ClientTls | None = None) -> None:
    """Let a node leave its cluster and stop; raises as get_members."""
    await _call(address, timeout, tls, log_v1.LeaveRequest(), log_v1.LeaveResponse)


async def force_leave(
    address: str, name: str, timeout: float, *, prune: bool = False, tls: ClientTls | None = None
) -> None:
    """Let a failed member count as left, or be forgotten at once.

    Raises:
        NodeConnectionError, CallFailed: see get_members; NOT_FOUND when the node knows no member of that name.
    """
    request = log_v1.ForceLeaveRequest(name=name, prune=prune)
    await _call(address, timeout, tls, request, log_v1.ForceLeaveResponse)


async def estimate_round_trip(
    address: str, one: str, other: str, timeout: float, *, tls: ClientTls | None = None
) -> log_v1.EstimateRoundTripResponse:
    """Return an estimate of the round-trip time between two members of a node's cluster.

    Args:
        address: as in get_members.
        one: a member's name; "": the node itself.
        other: likewise.
        timeout: as in get_members.
        tls: as in get_members.

    Raises:
        NodeConnectionError, CallFailed: see get_members; NOT_FOUND when the node knows no such member,
            FAILED_PRECONDITION when it does not know yet where one of them is.
    """
    request = log_v1.EstimateRoundTripRequest(one=one, other=other)
    return await _call(address, timeout, tls, request, log_v1.EstimateRoundTripResponse)


async def get_info(address: str, timeout: float, *, tls: ClientTls | None = None) -> dict[str, dict[str, str | int]]:
    """Return a node's own figures as a member, by group and name; raises as get_members."""
    answer = await _call(address, timeout, tls, log_v1.GetInfoRequest(), log_v1.GetInfoResponse)
    return {group.name: {**group.texts, **group.numbers} for group in answer.groups}


async def change_tags(
    address: str,
    set: Mapping[str, str],  # noqa: A002 - the request's word for it
    delete: Sequence[str],
    timeout: float,
    *,
    tls: ClientTls | None = None,
) -> dict[str, str]:
    """Change tags of a node; return all that it has then.

    Args:
        address: as in get_members.
        set: tags that are new, or have another value.
        delete: the names of tags that go.
        timeout: as in get_members.
        tls: as in get_members.

    Raises:
        NodeConnectionError, CallFailed: see get_members; INVALID_ARGUMENT when a tag is not to be changed or there is
            no room for it, UNAVAILABLE when the change cannot be written down.
    """
    request = log_v1.ChangeTagsRequest(set=dict(set), delete=list(delete))
    answer = await _call(address, timeout, tls, request, log_v1.ChangeTagsResponse)
    return dict(answer.tags)


async def accept_gaps(
    address: str, origin: bytes, timeout: float, *, tls: ClientTls | None = None
) -> log_v1.AcceptGapsResponse:
    """Let a node give up what is missing at present in its log; return how many records that are, and are written.

    Args:
        address: as in get_members.
        origin: of which origin, 16 bytes; empty: of all.
        timeout: as in get_members.
        tls: as in get_members.

    Raises:
        NodeConnectionError, CallFailed: see get_members.
    """
    request = log_v1.AcceptGapsRequest(origin=origin)
    return await _call(address, timeout, tls, request, log_v1.AcceptGapsResponse)


async def change_key(
    address: str, method: str, key: str, timeout: float, *, tls: ClientTls | None = None
) -> log_v1.KeyAnswers:
    """Have all members of a node's cluster do something with a key; return what they answered.

    Args:
        address: "host:port" of the node.
        method: InstallKey, UseKey or RemoveKey.
        key: in base64.
        timeout: for connection and answer, in seconds.
        tls: the certificates; None: no TLS.

    Raises:
        NodeConnectionError, CallFailed, TlsError: see get_members.
    """
    request: Any = getattr(log_v1, f"{method}Request")(key=key)
    response: Any = getattr(log_v1, f"{method}Response")
    answer = await _call(address, timeout, tls, request, response)
    return answer.answers or log_v1.KeyAnswers()


async def list_keys(address: str, timeout: float, *, tls: ClientTls | None = None) -> log_v1.ListKeysResponse:
    """Return which members have which keys; arguments and errors are those of change_key."""
    return await _call(address, timeout, tls, log_v1.ListKeysRequest(), log_v1.ListKeysResponse)


async def send_event(
    address: str, name: str, payload: bytes, timeout: float, *, coalesce: bool = False, tls: ClientTls | None = None
) -> None:
    """Have a node send a user event to all members.

    Raises:
        NodeConnectionError, CallFailed, TlsError: see get_members; INVALID_ARGUMENT when the event is too large.
    """
    request = log_v1.SendEventRequest(name=name, payload=payload, coalesce=coalesce)
    await _call(address, timeout, tls, request, log_v1.SendEventResponse)


async def query(
    address: str,
    request: log_v1.QueryRequest,
    told: Callable[[log_v1.QueryResponse], None],
    timeout: float,
    *,
    tls: ClientTls | None = None,
) -> None:
    """Have a node ask members; returns when all that were asked have answered or are gone, or the query's time is over.

    Args:
        address: "host:port" of the node.
        request: what is asked, and of whom.
        told: called with each acknowledgement and answer as it comes.
        timeout: until the node has begun to ask, in seconds.
        tls: the certificates; None: no TLS.

    Raises:
        NodeConnectionError, CallFailed, TlsError: see get_members.
    """
    await _watch(address, timeout, tls, "Query", request, log_v1.QueryResponse, told)


async def watch_events(
    address: str,
    told: Callable[[log_v1.WatchEventsResponse], None],
    timeout: float,
    *,
    coalesce: bool = False,
    tls: ClientTls | None = None,
) -> None:
    """Have a node tell what happens, until this is cancelled or the node stops.

    Args:
        address: "host:port" of the node.
        told: called with each event as it comes.
        timeout: until the node has begun to watch, in seconds.
        coalesce: see the request.
        tls: the certificates; None: no TLS.

    Raises:
        NodeConnectionError, CallFailed, TlsError: see get_members.
    """
    request = log_v1.WatchEventsRequest(coalesce=coalesce)
    await _watch(address, timeout, tls, "WatchEvents", request, log_v1.WatchEventsResponse, told)


async def _watch(
    address: str,
    timeout: float,
    tls: ClientTls | None,
    method: str,
    request: object,
    answer: type[Answer],
    told: Callable[[Answer], None],
) -> None:
    """Make a call whose answers come as a stream; timeout: until that has begun."""

    async def call(channel: Channel) -> None:
        calling = UnaryStreamMethod(channel, _SERVICE + method, type(request), answer)
        async with calling.open() as stream:
            await stream.send_message(request, end=True)
            await stream.recv_initial_metadata()
            begun.deadline = math.inf
            while (message := await receive_next(stream)) is not None:
                told(message)

    try:
        with trio.fail_after(timeout) as begun:
            async with open_connection(address, ConnectionConfig(connect_timeout=timeout, tls=tls)) as connection:
                await connection.run(call)
    except trio.TooSlowError:
        raise ConnectionNotOpened(f"{address} did not answer within {timeout:g} s") from None


async def _call(address: str, timeout: float, tls: ClientTls | None, request: object, answer: type[Answer]) -> Answer:
    """Make the call of the Cluster service that a request is for; arguments and errors are those of get_members."""
    method = type(request).__name__.removesuffix("Request")

    async def call(channel: Channel) -> Answer:
        unary = UnaryUnaryMethod(channel, _SERVICE + method, type(request), answer)
        return await unary(request)

    try:
        with trio.fail_after(timeout):
            async with open_connection(address, ConnectionConfig(connect_timeout=timeout, tls=tls)) as connection:
                return await connection.run(call)
    except trio.TooSlowError:
        raise ConnectionNotOpened(f"{address} did not answer within {timeout:g} s") from None
