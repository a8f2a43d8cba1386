"""Opens producers and consumers for threads, over gRPC."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from proglog_trio.client.config import Acknowledgement, Anchor, ConsumerConfig, ProducerConfig
from proglog_trio.client.nodes import parse_addresses
from proglog_trio.client.opening import batches_link, consumer_config, producer_config
from proglog_trio.client.sync.client_thread import running
from proglog_trio.client.sync.consumer import Consumer, ConsumerRun, fetching_config
from proglog_trio.client.sync.producer import Producer, ProducerRun
from proglog_trio.rpc.calls.client_streams import produce_link
from proglog_trio.rpc.calls.connection import ConnectionConfig


@contextmanager
def open_producer(
    addresses: str | Sequence[str],
    config: ProducerConfig | None = None,
    *,
    acknowledgement: Acknowledgement | None = None,
    connection: ConnectionConfig | None = None,
    rng: random.Random | None = None,
) -> Iterator[Producer]:
    """Write to a node, and to another when it fails, for the length of a ``with`` block, from any threads.

    A thread of the producer's own does what needs a loop. At the block's end everything is flushed. When it is left by
    an exception, Ctrl-C too, what is not acknowledged fails at once, with DeliveryAbandoned; so it does when the
    program ends without leaving the block.

    Args:
        addresses: one node's ("host:port"), or several nodes'; the first is where the writing begins, if it can be
            reached.
        config: see ProducerConfig.
        acknowledgement: takes the place of config's.
        connection: limits, keepalive and TLS of the connections.
        rng: decides the producer id and the random part of backoffs.

    Raises:
        ValueError: an address is none.
        TlsError: the files of the connection's TLS cannot be used.
        NodeUnreachable: no connection within connect_timeout.
        RecordsNotDelivered: see Producer.flush.
        ClientForked: the block's end is reached in a fork of the process that opened it.
    """
    config = producer_config(config, acknowledgement)
    run = ProducerRun(config, produce_link(connection), rng or random.Random(), parse_addresses(addresses))
    with running(run.thread):
        if run.producer is None:
            raise RuntimeError("a thread that is ready has made its producer")
        yield run.producer
    run.collector.report()


@contextmanager
def open_consumer(
    addresses: str | Sequence[str],
    config: ConsumerConfig | None = None,
    *,
    connection: ConnectionConfig | None = None,
    rng: random.Random | None = None,
    offset: int | None = None,
    position: bytes | None = None,
    anchor: Anchor | None = None,
    follow: bool | None = None,
) -> Iterator[Consumer]:
    """Read from a node, and from another when it fails, for the length of a ``with`` block.

    When the block begins, a node has said where the reading starts: with Anchor.END, whatever is appended to its log
    from then on is delivered.

    Args:
        addresses: one node's ("host:port"), or several nodes'. The first is where the reading begins, if it can be
            reached, and the only one where an offset can be resolved.
        config: see ConsumerConfig.
        connection: limits, keepalive and TLS of the connections.
        rng: decides the random part of backoffs.
        offset: takes the place of the place to begin in config, as do the next two.
        position: see offset.
        anchor: see offset.
        follow: takes the place of config's.

    Raises:
        ValueError: an address or the position is none, or the places to begin contradict one another.
        TlsError: the files of the connection's TLS cannot be used.
        NodeUnreachable: no answer within connect_timeout.
        ClientForked: the block's end is reached in a fork of the process that opened it.
    """
    config = consumer_config(config, offset, position, anchor, follow, connection)
    link = batches_link(fetching_config(config), connection)
    run = ConsumerRun(config, link, rng or random.Random(), parse_addresses(addresses))
    with running(run.thread):
        if run.consumer is None:
            raise RuntimeError("a thread that is ready has made its consumer")
        yield run.consumer
