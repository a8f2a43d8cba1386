"""The client library; programs import it as proglog_trio.client."""

from ...backoff import BackoffConfig
from ...log.origin import Origin
from ...log.record import Record
from ..tls import ClientTls, TlsError
from .configuration import Acknowledgement, AcknowledgementLevel, Anchor, ConsumerConfig, ProducerConfig
from .connection import ConnectionConfig
from .consumed import ConsumedBatch, ConsumedRecord, SkippedRange
from .consumer import Consumer, open_consumer
from .delivery import BatchDelivery, Delivered, DeliveredBatch, Delivery
from .errors import (
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
from .pending import ProducerStatistics
from .producer import Producer, open_producer

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
