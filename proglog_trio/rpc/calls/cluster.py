"""Calls of the Cluster service, from Trio: who is in a node's cluster, and telling the node to join and leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import trio
from grpclib.client import Channel, UnaryUnaryMethod

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.errors import ConnectionNotOpened
from proglog_trio.rpc.calls.connection import ConnectionConfig, open_connection
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
    answer = await call_cluster(
        address, timeout, tls, "GetMembers", log_v1.GetMembersRequest(), log_v1.GetMembersResponse
    )
    return answer.members


async def get_status(address: str, timeout: float, *, tls: ClientTls | None = None) -> log_v1.GetStatusResponse:
    """Return what a node's log has, per origin, and what the others are known to have; raises as get_members."""
    return await call_cluster(address, timeout, tls, "GetStatus", log_v1.GetStatusRequest(), log_v1.GetStatusResponse)


async def join(address: str, members: Sequence[str], timeout: float, *, tls: ClientTls | None = None) -> int:
    """Let a node join a cluster through these members ("host:port"); return how many of them answered.

    Raises:
        NodeConnectionError, CallFailed: see get_members; UNAVAILABLE when none of the members answered.
    """
    request = log_v1.JoinRequest(addresses=list(members))
    answer = await call_cluster(address, timeout, tls, "Join", request, log_v1.JoinResponse)
    return answer.joined


async def leave(address: str, timeout: float, *, tls: ClientTls | None = None) -> None:
    """Let a node leave its cluster and stop; raises as get_members."""
    await call_cluster(address, timeout, tls, "Leave", log_v1.LeaveRequest(), log_v1.LeaveResponse)


async def force_leave(
    address: str, name: str, timeout: float, *, prune: bool = False, tls: ClientTls | None = None
) -> None:
    """Let a failed member count as left, or be forgotten at once.

    Raises:
        NodeConnectionError, CallFailed: see get_members; NOT_FOUND when nobody of that name is known.
    """
    request = log_v1.ForceLeaveRequest(name=name, prune=prune)
    await call_cluster(address, timeout, tls, "ForceLeave", request, log_v1.ForceLeaveResponse)


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
    return await call_cluster(address, timeout, tls, "AcceptGaps", request, log_v1.AcceptGapsResponse)


async def call_cluster(
    address: str, timeout: float, tls: ClientTls | None, method: str, request: object, answer: type[Answer]
) -> Answer:
    """Make one call of the Cluster service; arguments and errors are those of get_members."""

    async def call(channel: Channel) -> Answer:
        unary = UnaryUnaryMethod(channel, _SERVICE + method, type(request), answer)
        return await unary(request)

    try:
        with trio.fail_after(timeout):
            async with open_connection(address, ConnectionConfig(connect_timeout=timeout, tls=tls)) as connection:
                return await connection.run(call)
    except trio.TooSlowError:
        raise ConnectionNotOpened(f"{address} did not answer within {timeout:g} s") from None
