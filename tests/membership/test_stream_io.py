from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from proglog_trio.membership.stream_io import ExchangeFailed, StreamCodec
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.memberlist import (
    Ack,
    ErrorMessage,
    NodeState,
    NodeStateType,
    Ping,
    PushPull,
    UserMessage,
)

KEYRING = Keyring((bytes(16),))
PING = Ping(seq_no=7, node="other")
MANY = PushPull(
    tuple(
        NodeState(
            name=f"member-{number}",
            addr=bytes((10, 0, number >> 8, number & 255)),
            port=7946,
            meta=bytes(40),
            incarnation=number,
            state=NodeStateType.ALIVE,
            vsn=bytes((1, 5, 2, 2, 5, 4)),
        )
        for number in range(2000)
    ),
    b"state" * 1000,
)

Serve = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[Endpoint]:
    """Serve streams on a free port."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]

        async def serve_one(stream: trio.SocketStream) -> None:
            async with stream:
                await serve(stream)

        nursery.start_soon(trio.serve_listeners, serve_one, [listener])
        yield Endpoint.of("127.0.0.1", port)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("codec", [StreamCodec(), StreamCodec(KEYRING), StreamCodec(KEYRING, b"here")])
@pytest.mark.parametrize("question", [PING, UserMessage(b"x" * 10_000), MANY], ids=["ping", "user", "push/pull"])
async def test_question_and_answer(codec: StreamCodec, question: Ping | UserMessage | PushPull) -> None:
    received = []

    async def serve(stream: trio.SocketStream) -> None:
        received.append(await codec.receive(stream, from_dialler=True))
        await codec.send(stream, MANY, from_dialler=False)

    async with serving(serve) as endpoint:
        assert await codec.ask(endpoint, question, 30) == MANY
    assert received == [question]


async def test_nobody_listens() -> None:
    async with serving(_close) as endpoint:
        pass
    with pytest.raises(ExchangeFailed, match=f"{endpoint}: .*connect"):
        await StreamCodec().ask(endpoint, PING, 30)


async def _close(_stream: trio.SocketStream) -> None:
    pass


async def _reset(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))


async def _garbage(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def _half(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"\x06")


async def _refuse(stream: trio.SocketStream) -> None:
    await StreamCodec().receive(stream, from_dialler=True)
    await StreamCodec().send(stream, ErrorMessage(error="not here"), from_dialler=False)


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        (_close, ""),
        (_reset, "reset"),
        (_garbage, "is none that a stream can carry"),
        (_half, "ended after 1 bytes"),
        (_refuse, "answers: not here"),
    ],
)
async def test_no_answer_says_why(serve: Serve, reason: str) -> None:
    async with serving(serve) as endpoint:
        with pytest.raises(ExchangeFailed, match=f"{endpoint}.*{reason}"):
            await StreamCodec().ask(endpoint, PING, 30)


async def test_an_answer_that_takes_too_long() -> None:
    async def wait(_stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with serving(wait) as endpoint:
        with pytest.raises(ExchangeFailed, match=r"did not answer within 0\.05 s"):
            await StreamCodec().ask(endpoint, PING, 0.05)


async def test_a_slow_answer_does_not_stretch_the_time() -> None:
    async def drip(stream: trio.SocketStream) -> None:
        with trio.CancelScope():
            await stream.send_all(b"\x06")
            while True:
                await trio.sleep(0.01)
                await stream.send_all(b"\xdf")  # a map, of so many items, that does not end

    began = trio.current_time()
    async with serving(_until_broken(drip)) as endpoint:
        with pytest.raises(ExchangeFailed):
            await StreamCodec().ask(endpoint, PING, 0.2)
    assert trio.current_time() - began < 30


def _until_broken(serve: Serve) -> Serve:
    async def serve_it(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await serve(stream)

    return serve_it


@pytest.mark.parametrize(
    ("asking", "serving_with"),
    [
        (StreamCodec(), StreamCodec(KEYRING)),
        (StreamCodec(KEYRING), StreamCodec()),
        (StreamCodec(KEYRING), StreamCodec(Keyring((bytes(15) + b"x",)))),
        (StreamCodec(), StreamCodec(label=b"here")),
        (StreamCodec(label=b"there"), StreamCodec(label=b"here")),
        (StreamCodec(label=b"there"), StreamCodec()),
    ],
)
async def test_keys_and_labels_that_differ(asking: StreamCodec, serving_with: StreamCodec) -> None:
    refused = []

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await serving_with.receive(stream, from_dialler=True)
        except DecodingError as error:
            refused.append(error)

    async with serving(serve) as endpoint:
        with pytest.raises(ExchangeFailed):
            await asking.ask(endpoint, PING, 30)
    assert len(refused) == 1


async def test_an_ack_is_an_answer() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await StreamCodec().receive(stream, from_dialler=True)
        await StreamCodec().send(stream, Ack(seq_no=7, payload=b""), from_dialler=False)

    async with serving(serve) as endpoint:
        assert await StreamCodec().ask(endpoint, PING, 30) == Ack(seq_no=7, payload=b"")
