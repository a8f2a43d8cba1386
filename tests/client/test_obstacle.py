"""What a client says stands in its way, over links of the tests' own under a virtual clock."""

import random

import anyio
import anyio.lowlevel
import pytest

from proglog_trio.client import ConsumerConfig, DeliveryTimeout, ProducerConfig
from proglog_trio.client.consumer import run_consumer
from proglog_trio.client.producer import run_producer
from proglog_trio.rpc.calls.sessions import ConsumeSession, ProduceSession, StreamBroken
from tests.backends import Clock
from tests.client.test_consumer_core import ORIGINS, answer_of, make_frame


async def test_of_a_consumer(autojump_clock: Clock) -> None:
    is_up = True
    lost = anyio.Event()

    async def link(session: ConsumeSession) -> None:
        await anyio.lowlevel.checkpoint()
        if not is_up:
            raise StreamBroken("connection refused")
        session.opened()
        if lost.is_set():
            # an idle log: nothing is answered
            await anyio.sleep_forever()
        session.received(answer_of((0, make_frame(ORIGINS[0], 0, 1))))
        await lost.wait()
        raise StreamBroken("lost")

    async with run_consumer(ConsumerConfig(), link, random.Random(1), ("node:1",)) as consumer:
        assert consumer.obstacle is None
        is_up = False
        lost.set()
        await anyio.sleep(10)
        assert consumer.obstacle == "connection refused"
        is_up = True
        await anyio.sleep(10)
        assert consumer.obstacle is None


async def test_of_a_producer(autojump_clock: Clock) -> None:
    async def link(session: ProduceSession) -> None:
        await anyio.lowlevel.checkpoint()
        raise StreamBroken("connection refused")

    config = ProducerConfig(connect_timeout=None, delivery_timeout=20.0)
    async with run_producer(config, link, random.Random(1), ("node:1",)) as producer:
        assert producer.obstacle is None
        delivery = await producer.send(b"value")
        await anyio.sleep(10)
        assert producer.obstacle == "connection refused"
        with pytest.raises(DeliveryTimeout, match="connection refused"):
            await delivery.wait()
