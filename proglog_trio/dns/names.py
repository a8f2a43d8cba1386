"""Names as DNS has them: a sequence of labels, compared without case (RFC 1035, section 2.3; RFC 4343)."""

from __future__ import annotations

from proglog_trio.host_names import encoded_name, host_problem

Labels = tuple[bytes, ...]
"""The labels of a name in lower case, the last one nearest to the root."""
SUFFIX = b"proglog"
"""The zone of a cluster is its name below this."""
NODE = b"node"
"""Below it are the names of nodes: ``NODE.node.CLUSTER.proglog``."""
NAME_SERVER = b"ns"
SERVICE: Labels = (b"_grpc", b"_tcp")
"""Before a name, it stands for the services there (RFC 2782): ``_grpc._tcp.CLUSTER.proglog``."""
MAX_NAME_BYTES = 255
"""Of a name as it travels: a length before each label, and the root's."""


def labels_of(name: str) -> Labels | None:
    """Return the labels that stand for a name, one or more; None: none do.

    A name with dots has several, as people type it. One in other letters is encoded as resolvers do (IDNA). What no
    host may be called (a space in it, a label of more than 63 bytes) could be asked for by nobody but a tool for DNS.
    """
    if ":" in name or host_problem(name) is not None:
        return None
    return tuple(encoded_name(name).removesuffix(".").lower().encode("ascii").split(b"."))


def zone_of(cluster_name: str) -> Labels | None:
    """Return the name of a cluster's zone; None: the cluster's name has no labels."""
    labels = labels_of(cluster_name)
    return None if labels is None else (*labels, SUFFIX)


def zone_problem(cluster_name: str) -> str | None:
    """Return why a cluster has no zone, to stand behind its name and "it"; None: it has."""
    if ":" in cluster_name:
        return "has ':', which no host name has"
    return host_problem(cluster_name)


def wire_bytes(labels: Labels) -> int:
    """Return how long a name is as it travels, without compression."""
    return sum(len(label) + 1 for label in labels) + 1
