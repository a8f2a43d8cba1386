"""What a producer has taken in and not yet settled, and what it counts."""

from __future__ import annotations

from attrs import define, field

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.client.delivery import BatchOutcome, DeliveredBatch
from proglog_trio.client.errors import DeliveryAbandoned, DeliveryTimeout
from proglog_trio.client.packing import ARRAY_HEADER_BYTES
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.record import payload_crc
from proglog_trio.rpc.calls.sessions import StreamBroken
from proglog_trio.rpc.messages.protobuf import encode_message

_LOOK = "look for them before you send them again"
_AGAIN = "send them again when a node can be reached, or raise delivery_timeout"


@define(eq=False)
class PendingBatch:
    """A batch that takes no more records and is not settled.

    Attributes:
        payload: until it is encoded into its first request; then the request has it.
        size: what counts against the producer's buffer, in bytes.
        deadline: when it is given up.
        sequence: its number among all batches of its producer; None until it is encoded, and then for ever the same, by
            which nodes recognise it.
        request: the encoded ProduceBatchRequest; it is the same on each stream, byte for byte.
        after_log_time: what its log time is to be greater than, once it is encoded.
        attempts: on how many streams it was sent.
        refusals: how many of these were answered with its certain refusal; at most attempts.
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

    def encode(
        self, producer_id: int, sequence: int, acknowledgement: log_v1.Acknowledgement | None, after_log_time: int
    ) -> None:
        """Give it its sequence and make its request."""
        self.sequence = sequence
        self.after_log_time = after_log_time
        request = log_v1.ProduceBatchRequest(
            payload=self.payload,
            count=self.count,
            payload_crc=payload_crc(self.payload),
            producer_id=producer_id,
            producer_sequence=sequence,
            acknowledgement=acknowledgement,
            after_log_time=after_log_time,
        )
        self.request = encode_message(request)
        self.payload = b""

    def stored(self, answer: log_v1.ProduceBatchResponse, node: str) -> DeliveredBatch:
        """Return where a node's answer says that it is stored.

        Raises:
            StreamBroken: the answer is not one to this batch.
        """
        if answer.count != self.count:
            raise StreamBroken(f"the node answered {answer.count} records for a batch of {self.count}")
        try:
            origin = Origin.parse(answer.origin)
        except ValueError as error:
            raise StreamBroken(f"the node's answer has no origin: {error}") from None
        return DeliveredBatch(
            answer.base_offset,
            self.count,
            origin,
            answer.base_sequence,
            answer.log_time,
            answer.achieved,
            answer.reached,
            answer.duplicate,
            node,
        )

    def timed_out(self, seconds: float, obstacle: StreamBroken | None) -> DeliveryTimeout:
        """Return its error when it was not acknowledged within so many seconds.

        Args:
            seconds: how many.
            obstacle: what stood in the way last.
        """
        reason = "" if obstacle is None else f" ({obstacle})"
        if self.maybe_stored:
            message = f"no acknowledgement within {seconds:g} s{reason}: the records may be stored or not; {_LOOK}"
        elif self.attempts:
            message = f"no node took them within {seconds:g} s{reason}: the records are not stored; {_AGAIN}"
        else:
            message = f"not sent within {seconds:g} s{reason}: the records are not stored; {_AGAIN}"
        return DeliveryTimeout(message, maybe_stored=self.maybe_stored)

    def abandoned(self) -> DeliveryAbandoned:
        """Return its error when the producer was left first."""
        state = "was sent and may be stored or not" if self.maybe_stored else "is not stored"
        message = f"the producer was left before its batch was acknowledged; it {state}; flush before an error ends it"
        return DeliveryAbandoned(message, maybe_stored=self.maybe_stored)


@define(eq=False)
class OpenBatch:
    """The batch that still takes records.

    Attributes:
        since: when its first record came.
        records: each packed by itself; at least one.
        size: in bytes, as a payload with the longest array header.
    """

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
