"""The client library for threads: as proglog_trio.client, with ``with`` blocks and plain calls.

It has the names of `proglog_trio.client`; open_producer, open_consumer, Producer, Consumer and the deliveries are its
own, all else is the same. Behind each client is a thread with an asyncio loop. Nothing here is to be called by the
handler of a signal, which may come in the middle of another call.
"""

# How it is built: opening.py makes clients; client_thread.py runs the sender or fetcher of the async client, on a loop
# of its own. What a producer's threads send is made into batches in collector.py, before it crosses to the loop;
# batches cross to a consumer's threads in arrivals.py. waiting.py is how a thread waits for either.

from proglog_trio.client import (
    Acknowledgement,
    AcknowledgementLevel,
    Anchor,
    BackoffConfig,
    ClientError,
    ClientTls,
    ConnectionConfig,
    ConsumedBatch,
    ConsumedRecord,
    ConsumerClosed,
    ConsumerConfig,
    ConsumerError,
    Delivered,
    DeliveredBatch,
    DeliveryAbandoned,
    DeliveryError,
    DeliveryRefused,
    DeliveryTimeout,
    MalformedRecord,
    NodeUnreachable,
    Origin,
    PositionError,
    ProducerClosed,
    ProducerConfig,
    ProducerStatistics,
    Record,
    RecordsLost,
    RecordsNotDelivered,
    RecordTooLarge,
    SkippedRange,
    StartOutOfRange,
    StatusCode,
    TlsError,
    TransportConfig,
    check_position,
)
from proglog_trio.client.errors import ClientForked
from proglog_trio.client.sync.consumer import Consumer
from proglog_trio.client.sync.delivery import BatchDelivery, Delivery
from proglog_trio.client.sync.opening import open_consumer, open_producer
from proglog_trio.client.sync.producer import Producer

__all__ = [
    "Acknowledgement", "AcknowledgementLevel", "Anchor", "BackoffConfig", "BatchDelivery", "ClientError",
    "ClientForked", "ClientTls", "ConnectionConfig", "ConsumedBatch", "ConsumedRecord", "Consumer",
    "ConsumerClosed", "ConsumerConfig", "ConsumerError", "Delivered", "DeliveredBatch", "Delivery",
    "DeliveryAbandoned", "DeliveryError", "DeliveryRefused", "DeliveryTimeout", "MalformedRecord",
    "NodeUnreachable", "Origin", "PositionError", "Producer", "ProducerClosed", "ProducerConfig",
    "ProducerStatistics", "Record", "RecordTooLarge", "RecordsLost", "RecordsNotDelivered", "SkippedRange",
    "StartOutOfRange", "StatusCode", "TlsError", "TransportConfig", "check_position", "open_consumer",
    "open_producer",
]  # fmt: skip
