"""The client library: write records with a Producer, read them with a Consumer. See docs/how-to/client-library.md.

What this package exports is documented and stays; what is in its modules may change. It runs under Trio and asyncio.
"""

# How it is built, from the program to the wire:
#
# - producer.py and consumer.py are what a program calls; opening.py makes them, over gRPC.
# - block.py has the block of both, and runs the task behind it. All of it is on AnyIO; what AnyIO has no word for is in
#   proglog_trio.rpc.http2.asyncio_loop.
# - sender.py and fetcher.py are the tasks behind them. They wait, look at the clock, and keep one stream at a time to
#   one of the nodes (nodes.py says to which, watched_nodes.py which other one tells when it fails).
# - producer_core.py and consumer_core.py decide what is sent, settled, asked for, delivered and dropped. They do no
#   I/O, read no clock and own no randomness. A core is called by its task, by its link and by the program, all in one
#   thread, and no call of it waits: so none comes in the middle of another.
# - A link carries one stream over some wire. What it and a sender or fetcher say to each other is in
#   proglog_trio.rpc.calls.sessions, which knows no gRPC; tests have links without a network.
#
# What holds always: every record that was handed in is settled exactly once, however the producer ends; what a consumer
# gives as its position has been delivered before it, all of it and nothing more.

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
from proglog_trio.errors import PositionError, TlsError
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.record import Record
from proglog_trio.rpc.calls.connection import ConnectionConfig
from proglog_trio.rpc.calls.status_code import StatusCode
from proglog_trio.rpc.http2.transport_config import TransportConfig
from proglog_trio.security.tls import ClientTls

__all__ = [
    "Acknowledgement", "AcknowledgementLevel", "Anchor", "BackoffConfig", "BatchDelivery", "ClientError",
    "ClientTls", "ConnectionConfig", "ConsumedBatch", "ConsumedRecord", "Consumer", "ConsumerClosed",
    "ConsumerConfig", "ConsumerError", "Delivered", "DeliveredBatch", "Delivery", "DeliveryAbandoned",
    "DeliveryError", "DeliveryRefused", "DeliveryTimeout", "MalformedRecord", "NodeUnreachable", "Origin",
    "PositionError", "Producer", "ProducerClosed", "ProducerConfig", "ProducerStatistics", "Record",
    "RecordTooLarge", "RecordsLost", "RecordsNotDelivered", "SkippedRange", "StartOutOfRange", "StatusCode",
    "TlsError", "TransportConfig", "check_position", "open_consumer", "open_producer",
]  # fmt: skip
