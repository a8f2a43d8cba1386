import random
from contextlib import AsyncExitStack

import pytest
import trio
from attrs import evolve

from proglog_trio.membership.stream_io import ExchangeFailed, StreamCodec
from proglog_trio.membership.stream_server import MAX_STREAMS
from proglog_trio.membership.wire.memberlist import (
    ErrorMessage,
    PushPull,
)
from tests.membership.gossiping import KEYRING, at, gossiping, still_answers
from tests.membership.running import LOCAL


async def test_garbage_in_streams_counts_and_is_harmless() -> None:
    rng = random.Random(4)
    async with gossiping() as gossip:
        for _ in range(50):
            stream = await trio.open_tcp_stream(*at(gossip))
            async with stream:
                await stream.send_all(bytes((rng.choice((6, 8, 9, 10, 12, 244, 250)),)) + rng.randbytes(300))
                await stream.send_eof()
                with trio.fail_after(30):
                    await _until_closed(stream)
        await still_answers(gossip)
        assert gossip.counters.streams_refused == 50


async def _until_closed(stream: trio.SocketStream) -> None:
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass


async def test_half_open_and_slow_streams_are_ended() -> None:
    quick = evolve(LOCAL, stream_timeout=0.2)
    async with gossiping(profile=quick) as gossip, trio.open_nursery() as nursery:
        began = trio.current_time()

        async def silent() -> None:
            async with await trio.open_tcp_stream(*at(gossip)) as stream:
                await _until_closed(stream)

        async def slow() -> None:
            async with await trio.open_tcp_stream(*at(gossip)) as stream:
                try:
                    await stream.send_all(b"\x06\xdf\x00\x00\x00\x05")
                    while True:
                        await stream.send_all(b"\xa1")
                        await trio.sleep(0.02)
                except trio.BrokenResourceError:
                    pass

        with trio.fail_after(30):
            async with trio.open_nursery() as streams:
                for _ in range(5):
                    streams.start_soon(silent)
                    streams.start_soon(slow)
        assert trio.current_time() - began >= 0.2
        assert gossip.counters.streams_refused == 10
        await still_answers(gossip)
        nursery.cancel_scope.cancel()


async def test_the_oldest_stream_makes_room_for_one_more() -> None:
    patient = evolve(LOCAL, stream_timeout=30)
    async with gossiping(profile=patient) as gossip, AsyncExitStack() as stack:
        streams = []
        for _ in range(MAX_STREAMS):
            streams.append(await stack.enter_async_context(await trio.open_tcp_stream(*at(gossip))))
            await streams[-1].send_all(b"\x06")
        await still_answers(gossip)
        with trio.fail_after(20):
            await _until_closed(streams[0])
        assert gossip.counters.streams_refused == 1


async def test_who_is_refused_on_a_stream_is_told_why() -> None:
    async with gossiping(keyring=KEYRING) as gossip:
        with pytest.raises(ExchangeFailed, match="is encrypted, and there is no keyring"):
            await StreamCodec().ask(gossip.endpoint, PushPull(), 30)
        async with await trio.open_tcp_stream(*at(gossip)) as stream:
            with trio.fail_after(30):
                # Of a state that is longer than what is read of it first.
                await stream.send_all(b"\x06" + bytes(3 * 1024 * 1024))
                answer = await StreamCodec(KEYRING).receive(stream, from_dialler=False)
        assert isinstance(answer, ErrorMessage)
        assert "is not encrypted" in answer.error
    async with gossiping() as gossip:
        with pytest.raises(ExchangeFailed, match="is not encrypted"):
            await StreamCodec(KEYRING).ask(gossip.endpoint, PushPull(), 30)
