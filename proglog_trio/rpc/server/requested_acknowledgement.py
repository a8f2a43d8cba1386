"""What a producer asks to be told: after how many nodes have its records on disk it is answered."""

from __future__ import annotations

from attrs import field, frozen, validators
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.rpc.messages import records as record_messages

THIS_NODE = 1
MAX_ACKNOWLEDGEMENT_TIMEOUT = 300.0
"""In seconds."""


@frozen
class RequestedAcknowledgement:
    """What a producer is to be told.

    Attributes:
        nodes: how many nodes are to have its records, this one included.
        acknowledgement_timeout: how long to wait for the others, in seconds.
    """

    nodes: int
    acknowledgement_timeout: float


@frozen(kw_only=True)
class AcknowledgementConfig:
    """What a node answers.

    Attributes:
        cluster_size: how many nodes the cluster is configured to have, for majorities; None: not configured.
        acknowledgement_timeout: how long to wait for other nodes where the producer does not say, in seconds.
    """

    cluster_size: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    acknowledgement_timeout: float = field(default=5.0, validator=validators.gt(0))

    def requested(
        self, fields: log_v1.Acknowledgement | record_messages.Acknowledgement | None
    ) -> RequestedAcknowledgement:
        """Return what a producer asks for; None, or what is not set, asks for this node alone.

        Raises:
            GRPCError: it cannot be answered: no node at all, an unknown level, a wait that is too long
                (INVALID_ARGUMENT), or a majority of a cluster whose size is not configured (FAILED_PRECONDITION).
        """
        if fields is None:
            return RequestedAcknowledgement(THIS_NODE, self.acknowledgement_timeout)
        timeout = fields.timeout_milliseconds / 1000 or self.acknowledgement_timeout
        if timeout > MAX_ACKNOWLEDGEMENT_TIMEOUT:
            raise GRPCError(
                Status.INVALID_ARGUMENT,
                f"an acknowledgement timeout of {timeout:g} s is longer than {MAX_ACKNOWLEDGEMENT_TIMEOUT:g} s",
            )
        return RequestedAcknowledgement(self._nodes(fields), timeout)

    def _nodes(self, fields: log_v1.Acknowledgement | record_messages.Acknowledgement) -> int:
        level = fields.level
        if level == log_v1.AcknowledgementLevel.LOCAL:
            return THIS_NODE
        if level == log_v1.AcknowledgementLevel.NODES:
            if fields.nodes < 1:
                raise GRPCError(Status.INVALID_ARGUMENT, "an acknowledgement by nodes needs their number, at least 1")
            return fields.nodes
        if level == log_v1.AcknowledgementLevel.MAJORITY:
            if self.cluster_size is None:
                raise GRPCError(
                    Status.FAILED_PRECONDITION,
                    "an acknowledgement by a majority needs a node with a configured cluster size",
                )
            return self.cluster_size // 2 + 1
        raise GRPCError(Status.INVALID_ARGUMENT, f"the acknowledgement level {int(level)} is not known")
