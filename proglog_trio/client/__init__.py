"""The client library: write records with a Producer, read them with a Consumer. See docs/how-to/client-library.md."""

from proglog_trio.backoff import BackoffConfig
from proglog_trio.client.config import Acknowledgement, AcknowledgementLevel, Anchor, ConsumerConfig, ProducerConfig
from proglog_trio.client.consumed_batch import ConsumedBatch, ConsumedRecord, SkippedRange
from proglog_trio.client.consumer import Consumer
from proglog_trio.client.delivered_window import check_position
from proglog_trio.client.delivery import BatchDelivery, Delivered, DeliveredBatch, Delivery
from proglog_trio.client.errors import (
    ClientError,
    ConsumerClosed,
    ConsumerError,
    DeliveryAbandoned,
    DeliveryError,
    DeliveryRefused,
    DeliveryTimeout,
    MalformedRecord,
    NodeUnreachable,
    ProducerClosed,
    RecordsLost,
    RecordsNotDelivered,
    RecordTooLarge,
    StartOutOfRange,
)
from proglog_trio.client.opening import open_consumer, open_producer
from proglog_trio.client.pending import ProducerStatistics
from proglog_trio.client.producer import Producer
from proglog_trio.errors import PositionError
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.record import Record
from proglog_trio.rpc.calls.connection import ConnectionConfig
from proglog_trio.rpc.calls.status_code import StatusCode
from proglog_trio.rpc.http2.transport import TransportConfig
from proglog_trio.security.tls import ClientTls, TlsError

__all__ = [
    "Acknowledgement",
    "AcknowledgementLevel",
    "Anchor",
    "BackoffConfig",
    "BatchDelivery",
    "ClientError",
    "ClientTls",
    "ConnectionConfig",
    "ConsumedBatch",
    "ConsumedRecord",
    "Consumer",
    "ConsumerClosed",
    "ConsumerConfig",
    "ConsumerError",
    "Delivered",
    "DeliveredBatch",
    "Delivery",
    "DeliveryAbandoned",
    "DeliveryError",
    "DeliveryRefused",
    "DeliveryTimeout",
    "MalformedRecord",
    "NodeUnreachable",
    "Origin",
    "PositionError",
    "Producer",
    "ProducerClosed",
    "ProducerConfig",
    "ProducerStatistics",
    "Record",
    "RecordTooLarge",
    "RecordsLost",
    "RecordsNotDelivered",
    "SkippedRange",
    "StartOutOfRange",
    "StatusCode",
    "TlsError",
    "TransportConfig",
    "check_position",
    "open_consumer",
    "open_producer",
]
