"""Which cluster a client is of: told to it, or learned from the first node that answers; and who is of another."""

from __future__ import annotations

from attrs import define
from grpclib.client import Channel
from grpclib.events import RecvInitialMetadata, RecvTrailingMetadata, SendRequest, listen
from grpclib.exceptions import GRPCError

from proglog_trio.errors import ProglogError
from proglog_trio.rpc.messages.cluster_names import CLUSTER_KEY, decode_name, encode_name, named_in


class OtherCluster(ProglogError):
    """A node is of another cluster than its client: nothing was asked of it, and what it answers does not count."""


@define
class ExpectedCluster:
    """The cluster of one client. Nodes of versions that do not say of which cluster they are pass.

    Attributes:
        name: None until it is known.
    """

    name: str | None = None

    def check(self, told: str, address: str) -> None:
        """Take note of the cluster that a node says it is of.

        Raises:
            OtherCluster: it is another.
        """
        if self.name is None:
            self.name = told
        elif told != self.name:
            raise OtherCluster(f"{address} is of the cluster {told!r}, not of {self.name!r}")

    def check_error(self, error: GRPCError, address: str) -> None:
        """Raise OtherCluster if an error says that a node is of another cluster."""
        told = named_in(error.details)
        if told is not None:
            raise OtherCluster(f"{address} is of the cluster {told!r}, not of {self.name!r}") from error

    def watch(self, channel: Channel, address: str) -> None:
        """Have every call on a channel say which cluster it is meant for, and fail where the node is of another."""

        async def say(event: SendRequest) -> None:
            if self.name is not None:
                event.metadata[CLUSTER_KEY] = encode_name(self.name)

        async def look(event: RecvInitialMetadata | RecvTrailingMetadata) -> None:
            told = event.metadata.get(CLUSTER_KEY)
            if isinstance(told, str):
                self.check(decode_name(told), address)

        listen(channel, SendRequest, say)
        listen(channel, RecvInitialMetadata, look)
        listen(channel, RecvTrailingMetadata, look)
