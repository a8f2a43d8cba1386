"""What a local cluster is to be: its nodes, where each listens, and where each keeps what it has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from proglog_trio.address import Address
from proglog_trio.node.option_types import DEFAULT_RPC_PORT

HOST = "127.0.0.1"
MAX_NODES = 16
PORTS_PER_NODE = 2
HIGHEST_PORT = 65535
LEAVE_SECONDS = 2
NOT_FROM_ENVIRONMENT = (
    "encrypt",
    "keyring-file",
    "no-verify-incoming",
    "no-verify-outgoing",
    "gossip-allowed-cidrs",
    "server-tls-cert-file",
    "server-tls-key-file",
    "server-tls-ca-file",
    "peer-tls-cert-file",
    "peer-tls-key-file",
    "peer-tls-ca-file",
    "peer-tls-server-name",
    "acl-model-file",
    "acl-policy-file",
    "insecure",
    "advertise-addr",
    "advertise-rpc-addr",
    "metrics-addr",
    "dns-addr",
    "serf-rpc-addr",
    "serf-rpc-auth-key",
)
"""Options that no node of a local cluster is given, whatever the environment says. They are plain and on loopback: the
command dials them without TLS, and an address that all of them share can be only one's."""


@frozen
class NodePlan:
    """One node.

    Attributes:
        name: what it is called.
        data_dir: where its log is.
        config_file: where what it is told is written, for it to read.
        log_file: where what it says is kept, run after run.
        rpc_address, gossip_address: where it listens; port 0 stands for any free one.
    """

    name: str
    data_dir: Path
    config_file: Path
    log_file: Path
    rpc_address: Address
    gossip_address: Address


@frozen(kw_only=True)
class ClusterPlan:
    """The cluster.

    Attributes:
        directory: holds everything, absolute.
        size: how many nodes.
        base_port: node k of them, from 0, takes RPCs at base_port + 2 k and gossips one above; 0: any free ports.
        cluster_name: kept in the data directories.
    """

    directory: Path
    size: int = 3
    base_port: int = DEFAULT_RPC_PORT
    cluster_name: str = "proglog"

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.size <= MAX_NODES:
            raise ValueError(f"a local cluster has 1 to {MAX_NODES} nodes, not {self.size}")
        if self.base_port + PORTS_PER_NODE * self.size - 1 > HIGHEST_PORT:
            raise ValueError(
                f"{self.size} nodes need {PORTS_PER_NODE * self.size} ports, and {self.base_port} leaves fewer below "
                f"{HIGHEST_PORT + 1}"
            )

    def nodes(self) -> list[NodePlan]:
        """Return the nodes."""
        return [self._node(index) for index in range(self.size)]

    def _node(self, index: int) -> NodePlan:
        name = f"node-{index + 1}"
        port = self.base_port + PORTS_PER_NODE * index if self.base_port else 0
        return NodePlan(
            name,
            self.directory / name,
            self.directory / f"{name}.toml",
            self.directory / f"{name}.log",
            Address(HOST, port),
            Address(HOST, port + 1 if port else 0),
        )

    def options(self, node: NodePlan, others: Sequence[NodePlan]) -> dict[str, str | int | list[str]]:
        """Return what a node is told, by the keys of its configuration file."""
        joined = [str(other.gossip_address) for other in others if other.gossip_address.port and other is not node]
        return {
            "data-dir": str(node.data_dir),
            "node-name": node.name,
            "bind-addr": str(node.gossip_address),
            "rpc-port": node.rpc_address.port,
            "start-join-addrs": joined,
            "cluster-name": self.cluster_name,
            "cluster-size": self.size,
            "gossip-profile": "local",
            # Enough for one that leaves the others; when all leave at once, no member is there to be told.
            "leave-timeout": LEAVE_SECONDS,
            "log-format": "console",
            # Its ports were looked at before, and the person who started it wants to know at once.
            "start-timeout": 0,
        }

    def write_config_files(self, nodes: Sequence[NodePlan]) -> None:
        """Write what each node is told, anew at every start; raises OSError."""
        for node in nodes:
            # A TOML string, integer or array of strings is written as JSON writes it, but for surrogate escapes.
            lines = [
                f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in self.options(node, nodes).items()
            ]
            node.config_file.write_text(
                "\n".join(["# Written by `proglog-trio cluster` each time it starts.", *lines, ""]), "utf-8"
            )
