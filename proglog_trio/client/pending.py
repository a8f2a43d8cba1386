"""What a producer has taken in and not yet settled, and what it counts."""

from __future__ import annotations

from attrs import define, field

from proglog_trio.client.delivery import BatchOutcome
from proglog_trio.client.packing import ARRAY_HEADER_BYTES


@define(eq=False)
class PendingBatch:
    """A batch that is not settled.

    Attributes:
        payload: until it is encoded into its first request; then the request has it.
        deadline: when it is given up.
        after_log_time: what its log time is to be greater than, once it is encoded.
        attempts: on how many streams it was sent.
        refusals: how many of these were answered with its certain refusal.
        nodes: the nodes that it was sent to on earlier streams.
        refused_by: the nodes that cannot store it, though another may.
    """

    payload: bytes
    count: int
    size: int
    outcome: BatchOutcome
    deadline: float
    sequence: int | None = None
    request: bytes = b""
    after_log_time: int = 0
    attempts: int = 0
    refusals: int = 0
    nodes: frozenset[str] = frozenset()
    refused_by: frozenset[str] = frozenset()

    @property
    def maybe_stored(self) -> bool:
        """Whether some attempt was not answered, or not with certainty: any of these may have stored it."""
        return self.attempts > self.refusals


@define(eq=False)
class OpenBatch:
    """The batch that still takes records."""

    outcome: BatchOutcome
    since: float
    records: list[bytes] = field(factory=list)
    size: int = ARRAY_HEADER_BYTES


@define
class ProducerStatistics:
    """What a producer did so far.

    Attributes:
        delivered, failed: records whose delivery was settled so.
        resent: batches that were sent more than once, each time counted.
        duplicates: batches that the node had from an earlier attempt.
        streams: streams that were opened.
        moves: streams that were opened to another node than the one before.
    """

    delivered: int = 0
    failed: int = 0
    resent: int = 0
    duplicates: int = 0
    streams: int = 0
    moves: int = 0
