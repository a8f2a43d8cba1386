"""What a producer asks to be told: after how many nodes have its records on disk it is answered."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from .._proto.log.v1 import AcknowledgementLevel

THIS_NODE = 1


class AcknowledgementAsked(Protocol):
    """An acknowledgement as it comes in a request, of a generated class or of one of record_messages.py."""

    @property
    def level(self) -> int:
        """An AcknowledgementLevel, or a number that is none."""

    @property
    def nodes(self) -> int:
        """How many nodes, if the level says that they are counted."""


@frozen
class Achieved:
    """How many nodes have the records on disk, and whether that is what was asked for."""

    nodes: int
    reached: bool


def nodes_wanted(acknowledgement: AcknowledgementAsked | None, cluster_size: int | None) -> int:
    """Return how many nodes a producer wants to have its records, this one included.

    Args:
        acknowledgement: as it came; None, or one that is not set, asks for this node alone.
        cluster_size: how many nodes the cluster is configured to have, or None.

    Raises:
        GRPCError: nobody can say: no node at all, an unknown level (INVALID_ARGUMENT), or a majority of a cluster whose
            size is not configured (FAILED_PRECONDITION).
    """
    if acknowledgement is None:
        return THIS_NODE
    level = acknowledgement.level
    if level == AcknowledgementLevel.LOCAL:
        return THIS_NODE
    if level == AcknowledgementLevel.NODES:
        nodes = acknowledgement.nodes
        if nodes < 1:
            raise GRPCError(Status.INVALID_ARGUMENT, "an acknowledgement by nodes needs their number, at least 1")
        return nodes
    if level == AcknowledgementLevel.MAJORITY:
        if cluster_size is None:
            raise GRPCError(
                Status.FAILED_PRECONDITION,
                "an acknowledgement by a majority needs a node with a configured cluster size",
            )
        return cluster_size // 2 + 1
    raise GRPCError(Status.INVALID_ARGUMENT, f"the acknowledgement level {int(level)} is not known")


def achieved_here(wanted: int) -> Achieved:
    """Return what is achieved once the records are on this node's disk."""
    return Achieved(THIS_NODE, wanted <= THIS_NODE)
