"""What a producer and a consumer can be told."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, Literal, Self

from attrs import Attribute, field, frozen, validators

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.backoff import BackoffConfig
from proglog_trio.client.delivered_window import MAX_PRODUCERS
from proglog_trio.client.prefetch import MIN_PREFETCH_BYTES
from proglog_trio.units import KIBIBYTE, MEBIBYTE

MAX_IN_FLIGHT = 5
"""A node recognises retries of a producer's last 5 batches: with more under way it would refuse some."""
LONGEST_DELIVERY_TIMEOUT = 300.0
"""Seconds for which a node keeps a producer's batches whatever comes; a later retry could be stored twice."""


def _positive(_instance: object, attribute: Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be more than 0, not {value}")


def _not_negative(_instance: object, attribute: Attribute[Any], value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} must not be negative, it is {value}")


def _whole_bytes(instance: object, attribute: Attribute[Any], value: int) -> None:
    if type(value) is not int:
        raise TypeError(f"{attribute.name} must be a whole number of bytes, not {value!r}")
    _positive(instance, attribute, value)


class AcknowledgementLevel(Enum):
    """How many nodes must have a record on disk before it is acknowledged."""

    LOCAL = log_v1.AcknowledgementLevel.LOCAL
    NODES = log_v1.AcknowledgementLevel.NODES
    MAJORITY = log_v1.AcknowledgementLevel.MAJORITY


@frozen
class Acknowledgement:
    """After how many nodes have it on disk a record is acknowledged; make one with local, nodes_of or majority.

    If the other nodes do not follow within the timeout, the delivery has ``reached`` False and ``achieved`` says how
    many did: that is no error, the record is stored.

    Attributes:
        level: see AcknowledgementLevel.
        nodes: how many, the answering one included, if the level is NODES.
        timeout: in seconds, for the other nodes; None: the node's own default.
    """

    level: AcknowledgementLevel = AcknowledgementLevel.LOCAL
    nodes: int = 0
    timeout: float | None = None

    def __attrs_post_init__(self) -> None:
        if self.level is AcknowledgementLevel.NODES and not 1 <= self.nodes < 2**32:
            raise ValueError(f"an acknowledgement by nodes needs at least 1 node (and 32 bits), not {self.nodes}")
        if self.timeout is not None and not 0.001 <= self.timeout <= 4_000_000:
            raise ValueError(f"an acknowledgement timeout is 0.001 to 4,000,000 seconds, not {self.timeout}")

    @classmethod
    def local(cls) -> Self:
        """The answering node has the record on disk."""
        return cls()

    @classmethod
    def nodes_of(cls, nodes: int, timeout: float | None = None) -> Self:
        """So many nodes have it, the answering one included."""
        return cls(AcknowledgementLevel.NODES, nodes, timeout)

    @classmethod
    def parse(cls, text: str, timeout: float | None = None) -> Self:
        """Return what "local", "majority" or a number of nodes stands for; raises ValueError for anything else."""
        if text == "local":
            return cls(timeout=timeout)
        if text == "majority":
            return cls.majority(timeout)
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"{text!r} is no acknowledgement: it is local, majority, or a number of nodes")
        return cls.nodes_of(int(text), timeout)

    @classmethod
    def majority(cls, timeout: float | None = None) -> Self:
        """More than half of the configured cluster size have it."""
        return cls(AcknowledgementLevel.MAJORITY, 0, timeout)

    def message(self) -> log_v1.Acknowledgement | None:
        """Return what stands in a request; None for the default."""
        if self.level is AcknowledgementLevel.LOCAL and self.timeout is None:
            return None
        milliseconds = 0 if self.timeout is None else max(1, round(self.timeout * 1000))
        return log_v1.Acknowledgement(level=self.level.value, nodes=self.nodes, timeout_milliseconds=milliseconds)


@frozen(kw_only=True)
class ProducerConfig:
    """How a producer batches, waits and retries.

    Attributes:
        batch_bytes: a batch is sent when it has so many bytes.
        batch_records: or so many records.
        linger: or when its first record has waited for so many seconds; 0 sends at once what there is.
        buffer_bytes: how many bytes of records may be unacknowledged before ``send`` waits.
        in_flight: how many batches may be under way at once, 1 to 5.
        max_batch_bytes: a record that is larger (packed) is refused by ``send``; the node's own limit or less.
        acknowledgement: see Acknowledgement.
        delivery_timeout: seconds from a record's ``send`` (or from its batch's first) until its delivery fails, at most
            300.
        answer_timeout: seconds without any answer, with batches under way, after which the connection is given up and
            made anew.
        connect_timeout: seconds for the first connection, retries included; None: do not wait for it, and let
            deliveries fail.
        find_nodes: ask each node that is used for the others (GetServers), to go on there when it fails, and one of
            these to tell when it does (WatchServers).
        cluster_name: of the cluster to which all nodes must belong; a node of another is left, nothing is asked of it,
            and it is not tried again for a minute. None: that of the first node that answers.
        backoff: the waits between attempts.
    """

    batch_bytes: int = field(default=MEBIBYTE, validator=_positive)
    batch_records: int = field(default=16_384, validator=_positive)
    linger: float = field(default=0.005, validator=_not_negative)
    buffer_bytes: int = field(default=32 * MEBIBYTE, validator=_positive)
    in_flight: int = MAX_IN_FLIGHT
    max_batch_bytes: int = field(default=4 * MEBIBYTE - 64 * KIBIBYTE, validator=_positive)
    acknowledgement: Acknowledgement = field(factory=Acknowledgement)
    delivery_timeout: float = field(default=120.0, validator=_positive)
    answer_timeout: float = field(default=30.0, validator=_positive)
    connect_timeout: float | None = 10.0
    find_nodes: bool = True
    cluster_name: str | None = None
    backoff: BackoffConfig = field(factory=BackoffConfig)

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.in_flight <= MAX_IN_FLIGHT:
            raise ValueError(f"in_flight must be 1 to {MAX_IN_FLIGHT}, not {self.in_flight}")
        if self.batch_bytes > self.max_batch_bytes:
            raise ValueError(
                f"batch_bytes {self.batch_bytes} is more than max_batch_bytes {self.max_batch_bytes}: lower it"
            )
        if self.delivery_timeout > LONGEST_DELIVERY_TIMEOUT:
            raise ValueError(
                f"delivery_timeout must be at most {LONGEST_DELIVERY_TIMEOUT:g} s, for so long nodes remember what was "
                f"stored; it is {self.delivery_timeout:g}"
            )
        if self.linger >= self.delivery_timeout:
            raise ValueError(
                f"linger {self.linger:g} s leaves nothing of delivery_timeout {self.delivery_timeout:g} s: lower it"
            )
        waited = self.acknowledgement.timeout
        if waited is not None and waited >= min(self.answer_timeout, self.delivery_timeout):
            raise ValueError(
                f"the acknowledgement's timeout {waited:g} s must be less than answer_timeout {self.answer_timeout:g} "
                f"s and delivery_timeout {self.delivery_timeout:g} s"
            )
        if self.connect_timeout is not None and not self.connect_timeout > 0:
            raise ValueError(f"connect_timeout must be more than 0, not {self.connect_timeout}")


class Anchor(Enum):
    """A place to begin that needs no number."""

    LOWEST = log_v1.ConsumeBatchesRequestAnchor.LOWEST
    """The first record that the log still holds."""
    END = log_v1.ConsumeBatchesRequestAnchor.END
    """After the last record that the log holds when the consumer opens."""


OnMissing = Literal["wait", "raise", "skip"]


@frozen(kw_only=True)
class ConsumerConfig:
    """Where a consumer begins, how much it reads ahead and how long it tries.

    Attributes:
        offset, position, anchor: where to begin; at most one of them. Default: the lowest offset. A position (see
            ``Consumer.position``) may come from another consumer, on this node or any other. An offset belongs to one
            node's log: it is resolved at the first address that the consumer is given, and nowhere else.
        follow: at the log's end wait for new records, instead of ending the iteration at what is the end on opening, of
            the log of the node at which the consumer opens. (After a move some more may be given.)
        on_missing: what to do where the next records cannot be had from any node that is asked. "raise": raise
            StartOutOfRange or RecordsLost. "wait": wait for those that are missing at present, or damaged, until a node
            has them, and raise for those that are retired or given up. "skip": ask no other node, leave
            out whatever this one does not have, and count it (`Consumer.skipped`).
        prefetch_bytes: how many bytes are held ahead of the iteration, at least 16 KiB: frames that wait (1 KiB and 48
            bytes for each origin besides their payload), what was received and not read, and what the node may still
            send unasked (half of it, at most 4 MiB). One answer comes on top.
        response_bytes: how many bytes of frames the node should put into one answer; no more than it may send unasked.
            A larger batch is an answer of its own.
        connect_timeout: seconds for the first connection, retries included.
        reconnect_timeout: seconds without a connection to any node after which the iteration raises NodeUnreachable;
            also, without follow, those without anything new from other nodes than the first when that had more. May be
            math.inf.
        find_nodes: ask each node that is used for the others (GetServers), to go on there when it fails, and one of
            these to tell when it does (WatchServers).
        cluster_name: of the cluster to which all nodes must belong; a node of another is left, nothing is asked of it,
            and it is not tried again for a minute. None: that of the first node that answers.
        remembered_producers: of how many producers, the last seen, the consumer knows which batches it has delivered,
            at most 4096. A batch that its producer had to send to two nodes is delivered once if its producer is among
            them. Each makes ``position`` longer by about 20 bytes. 0: none, and deliver such batches twice.
        backoff: the waits between attempts.
    """

    offset: int | None = None
    position: bytes | None = None
    anchor: Anchor | None = None
    follow: bool = True
    on_missing: OnMissing = field(default="raise", validator=validators.in_(("wait", "raise", "skip")))
    prefetch_bytes: int = field(default=12 * MEBIBYTE, validator=_whole_bytes)
    response_bytes: int = field(default=MEBIBYTE, validator=_whole_bytes)
    connect_timeout: float = field(default=10.0, validator=_positive)
    reconnect_timeout: float = field(default=120.0, validator=_positive)
    find_nodes: bool = True
    cluster_name: str | None = None
    remembered_producers: int = 1024
    backoff: BackoffConfig = field(factory=BackoffConfig)

    def __attrs_post_init__(self) -> None:
        starts = [start for start in (self.offset, self.position, self.anchor) if start is not None]
        if len(starts) > 1:
            raise ValueError(
                "a consumer begins at an offset, a position or an anchor, not at several of them: give one"
            )
        if self.offset is not None and not 0 <= self.offset < 2**64:
            raise ValueError(f"an offset is 0 to 2**64 - 1, not {self.offset}")
        if math.isinf(self.connect_timeout):
            raise ValueError("connect_timeout must be finite")
        if not 0 <= self.remembered_producers <= MAX_PRODUCERS:
            raise ValueError(f"remembered_producers must be 0 to {MAX_PRODUCERS}, not {self.remembered_producers}")
        if self.prefetch_bytes < MIN_PREFETCH_BYTES:
            raise ValueError(
                f"prefetch_bytes must be at least {MIN_PREFETCH_BYTES} (16 KiB), it is {self.prefetch_bytes}; half of "
                "it is what the node sends unasked, some batches"
            )
        if self.response_bytes >= 2**32:
            raise ValueError(f"response_bytes must be less than 4 GiB, not {self.response_bytes}")
