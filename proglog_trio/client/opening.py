"""Opens producers and consumers over gRPC: the one place where the client library meets what speaks it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs

from proglog_trio.client.config import Acknowledgement, Anchor, ConsumerConfig, ProducerConfig
from proglog_trio.client.consumer import Consumer, run_consumer
from proglog_trio.client.delivered_window import check_position
from proglog_trio.client.nodes import parse_addresses
from proglog_trio.client.prefetch import PrefetchShares
from proglog_trio.client.producer import Producer, run_producer
from proglog_trio.errors import PositionError
from proglog_trio.rpc.calls.client_streams import consume_link, produce_link
from proglog_trio.rpc.calls.connection import ConnectionConfig
from proglog_trio.rpc.calls.sessions import ConsumeLink


def producer_config(config: ProducerConfig | None, acknowledgement: Acknowledgement | None) -> ProducerConfig:
    """Return the configuration that the arguments of open_producer make."""
    config = config or ProducerConfig()
    return config if acknowledgement is None else attrs.evolve(config, acknowledgement=acknowledgement)


def consumer_config(
    config: ConsumerConfig | None,
    offset: int | None,
    position: bytes | None,
    anchor: Anchor | None,
    follow: bool | None,
    connection: ConnectionConfig | None = None,
) -> ConsumerConfig:
    """Return the configuration that the arguments of open_consumer make; raises ValueError if they make none."""
    config = config or ConsumerConfig()
    if offset is not None or position is not None or anchor is not None:
        config = attrs.evolve(config, offset=offset, position=position, anchor=anchor)
    if connection is not None:
        # An answer has places and a position beside its frames, and one that is longer than this would be refused.
        largest = connection.transport.message_bytes * 3 // 4
        config = attrs.evolve(config, response_bytes=min(config.response_bytes, largest))
    if config.position is not None:
        try:
            check_position(config.position)
        except PositionError as error:
            message = f"the position to begin at is none: {error}; give one of consumer.position, or an anchor"
            raise ValueError(message) from None
    return config if follow is None else attrs.evolve(config, follow=follow)


def batches_link(config: ConsumerConfig, connection: ConnectionConfig | None) -> ConsumeLink:
    """Return the link of a consumer, with a window that its prefetch_bytes have room for; raises as open_consumer."""
    return consume_link(connection, PrefetchShares.of(config.prefetch_bytes, config.response_bytes).window)


@asynccontextmanager
async def open_producer(
    addresses: str | Sequence[str],
    config: ProducerConfig | None = None,
    *,
    acknowledgement: Acknowledgement | None = None,
    connection: ConnectionConfig | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[Producer]:
    """Write to a node, and to another when it fails, for the length of an ``async with`` block.

    At its end everything is flushed. When it is left by an exception or cancelled, what is not acknowledged fails at
    once, with DeliveryAbandoned. Until it is left the producer works, also when the scope around it has been cancelled:
    a shielded ``finally`` in the block may send and flush.

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
    """
    config = producer_config(config, acknowledgement)
    parsed = parse_addresses(addresses)
    async with run_producer(config, produce_link(connection), rng or random.Random(), parsed) as producer:
        yield producer


@asynccontextmanager
async def open_consumer(
    addresses: str | Sequence[str],
    config: ConsumerConfig | None = None,
    *,
    connection: ConnectionConfig | None = None,
    rng: random.Random | None = None,
    offset: int | None = None,
    position: bytes | None = None,
    anchor: Anchor | None = None,
    follow: bool | None = None,
) -> AsyncIterator[Consumer]:
    """Read from a node, and from another when it fails, for the length of an ``async with`` block.

    When the block begins, a node has said where the reading starts: with Anchor.END, whatever is appended to its log
    from then on is delivered. When the scope around the block is cancelled, reading ends: what has arrived by then is
    still delivered, in a shielded ``finally`` in the block, and then ConsumerClosed is raised.

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
    """
    config = consumer_config(config, offset, position, anchor, follow, connection)
    parsed = parse_addresses(addresses)
    link = batches_link(config, connection)
    async with run_consumer(config, link, rng or random.Random(), parsed) as consumer:
        yield consumer
