"""Calls of the Cluster service about gossip keys, from Trio."""

from __future__ import annotations

from typing import Any

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.rpc.calls.cluster import call_cluster
from proglog_trio.security.tls import ClientTls


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
        NodeConnectionError, CallFailed, TlsError: see cluster.get_members.
    """
    request: Any = getattr(log_v1, f"{method}Request")(key=key)
    response: Any = getattr(log_v1, f"{method}Response")
    answer = await call_cluster(address, timeout, tls, method, request, response)
    answers: log_v1.KeyAnswers = answer.answers or log_v1.KeyAnswers()
    return answers


async def list_keys(address: str, timeout: float, *, tls: ClientTls | None = None) -> log_v1.ListKeysResponse:
    """Return which members have which keys; arguments and errors are those of change_key."""
    return await call_cluster(address, timeout, tls, "ListKeys", log_v1.ListKeysRequest(), log_v1.ListKeysResponse)
