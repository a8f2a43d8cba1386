"""What a producer asks to be told: after how many nodes have its records on disk it is answered."""

from __future__ import annotations

from typing import Protocol

from attrs import field, frozen, validators
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from proglog_trio._proto.log.v1 import AcknowledgementLevel

THIS_NODE = 1
LONGEST_WAIT_SECONDS = 300.0


class AcknowledgementAsked(Protocol):
    """An acknowledgement as it comes in a request, of a generated class or of one of record_messages.py."""

    @property
    def level(self) -> int:
        """An AcknowledgementLevel, or a number that is none."""

    @property
    def nodes(self) -> int:
        """How many nodes, if the level says that they are counted."""

    @property
    def timeout_milliseconds(self) -> int:
        """How long to wait for other nodes; 0: as the node is configured."""


@frozen
class Wanted:
    """What a producer wants to be told.

    Attributes:
        nodes: how many nodes are to have its records, this one included.
        seconds: how long to wait for the others.
    """

    nodes: int
    seconds: float


@frozen(kw_only=True)
class AcknowledgementConfig:
    """What a node answers.

    Attributes:
        cluster_size: how many nodes the cluster is configured to have, for majorities; None: not configured.
        seconds: how long to wait for other nodes where the producer does not say.
    """

    cluster_size: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    seconds: float = field(default=5.0, validator=validators.gt(0))


def wanted_of(acknowledgement: AcknowledgementAsked | None, config: AcknowledgementConfig) -> Wanted:
    """Return what a producer wants; None, or what is not set, asks for this node alone.

    Raises:
        GRPCError: nobody can say: no node at all, an unknown level, a wait that is too long (INVALID_ARGUMENT), or a
            majority of a cluster whose size is not configured (FAILED_PRECONDITION).
    """
    if acknowledgement is None:
        return Wanted(THIS_NODE, config.seconds)
    seconds = acknowledgement.timeout_milliseconds / 1000 or config.seconds
    if seconds > LONGEST_WAIT_SECONDS:
        raise GRPCError(
            Status.INVALID_ARGUMENT,
            f"an acknowledgement timeout of {seconds:g} s is longer than {LONGEST_WAIT_SECONDS:g} s",
        )
    return Wanted(_nodes(acknowledgement, config), seconds)


def _nodes(acknowledgement: AcknowledgementAsked, config: AcknowledgementConfig) -> int:
    level = acknowledgement.level
    if level == AcknowledgementLevel.LOCAL:
        return THIS_NODE
    if level == AcknowledgementLevel.NODES:
        nodes = acknowledgement.nodes
        if nodes < 1:
            raise GRPCError(Status.INVALID_ARGUMENT, "an acknowledgement by nodes needs their number, at least 1")
        return nodes
    if level == AcknowledgementLevel.MAJORITY:
        if config.cluster_size is None:
            raise GRPCError(
                Status.FAILED_PRECONDITION,
                "an acknowledgement by a majority needs a node with a configured cluster size",
            )
        return config.cluster_size // 2 + 1
    raise GRPCError(Status.INVALID_ARGUMENT, f"the acknowledgement level {int(level)} is not known")
