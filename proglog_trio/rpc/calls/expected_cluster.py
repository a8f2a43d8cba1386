"""Has the calls of a client say which cluster they are meant for, and fail where the node is of another."""

from __future__ import annotations

from grpclib.client import Channel
from grpclib.events import RecvInitialMetadata, RecvTrailingMetadata, SendRequest, listen
from grpclib.exceptions import GRPCError

from proglog_trio.rpc.calls.sessions import ExpectedCluster, OtherCluster
from proglog_trio.rpc.messages.cluster_names import CLUSTER_KEY, decode_name, encode_name, named_in


def check_error(expected: ExpectedCluster, error: GRPCError, address: str) -> None:
    """Raise OtherCluster if an error says that the node at an address is of another cluster."""
    told = named_in(error.details)
    if told is not None:
        raise OtherCluster(f"{address} is of the cluster {told!r}, not of {expected.name!r}") from error


def watch(expected: ExpectedCluster, channel: Channel, address: str) -> None:
    """Have every call on a channel say which cluster it is meant for, and raise OtherCluster at a node of another."""

    async def say(event: SendRequest) -> None:
        if expected.name is not None:
            event.metadata[CLUSTER_KEY] = encode_name(expected.name)

    async def look(event: RecvInitialMetadata | RecvTrailingMetadata) -> None:
        told = event.metadata.get(CLUSTER_KEY)
        if isinstance(told, str):
            expected.check(decode_name(told), address)

    listen(channel, SendRequest, say)
    listen(channel, RecvInitialMetadata, look)
    listen(channel, RecvTrailingMetadata, look)
