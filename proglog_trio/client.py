"""The client library: write records with a Producer, read them with a Consumer. See docs/how-to/client-library.md."""

from .backoff import BackoffConfig
from .log.origin import Origin
from .log.record import Record
from .rpc.client.configuration import Acknowledgement, AcknowledgementLevel, Anchor, ConsumerConfig, ProducerConfig
from .rpc.client.connection import ConnectionConfig
from .rpc.client.consumed import ConsumedBatch, ConsumedRecord, SkippedRange
from .rpc.client.consumer import Consumer, open_consumer
from .rpc.client.delivery import BatchDelivery, Delivered, DeliveredBatch, Delivery
from .rpc.client.errors import (
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
from .rpc.client.pending import ProducerStatistics
from .rpc.client.producer import Producer, open_producer
from .rpc.tls import ClientTls, TlsError

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
    "TlsError",
    "open_consumer",
    "open_producer",
]
