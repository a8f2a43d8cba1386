"""Looking whether a local cluster's ports are free, before anything is started."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from proglog_trio.address import Address
from proglog_trio.errors import AddressUnavailable
from proglog_trio.local_cluster.plan import NodePlan


def check_ports(nodes: Sequence[NodePlan]) -> None:
    """Listen for a moment where the nodes will. What is taken after that, a node finds out itself.

    Raises:
        AddressUnavailable: a port is taken; the message says by which node it is needed.
    """
    for node in nodes:
        for address, what in ((node.rpc_address, "RPC"), (node.gossip_address, "gossip")):
            if address.port == 0:
                continue
            try:
                _listen(address, socket.SOCK_STREAM)
                if what == "gossip":
                    _listen(address, socket.SOCK_DGRAM)
            except OSError as error:
                raise AddressUnavailable(
                    f"{node.name} cannot have port {address.port} for {what}: {error.strerror}. Is another cluster "
                    "running, or a node? --base-port takes other ports"
                ) from error


def _listen(address: Address, kind: socket.SocketKind) -> None:
    with contextlib.closing(socket.socket(socket.AF_INET, kind)) as listening:
        if kind is socket.SOCK_STREAM:
            # As the node does: connections of an earlier run that are closing are no hindrance.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address.host, address.port))
        if kind is socket.SOCK_STREAM:
            listening.listen()
