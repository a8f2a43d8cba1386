from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.rpc.http2.message_buffer import PREFIX_BYTES, MessageBuffer, message_prefix, prefixed

LIMIT = 1000


class Receiver:
    def __init__(self) -> None:
        self.acknowledged = 0
        self.refused = 0
        self.buffer = MessageBuffer(self._acknowledge, LIMIT, Status.UNIMPLEMENTED, self._refuse)

    def _acknowledge(self, size: int) -> None:
        self.acknowledged += size

    def _refuse(self) -> None:
        self.refused += 1


async def _by_grpclib(buffer: MessageBuffer) -> list[bytes]:
    messages = []
    while prefix := await buffer.read(PREFIX_BYTES):
        messages.append(await buffer.read(int.from_bytes(prefix[1:], "big")))
    return messages


async def _at_once(buffer: MessageBuffer) -> list[bytes]:
    messages = []
    while some := await buffer.read_messages(500):
        messages += some
    return messages


READERS = pytest.mark.parametrize("read", [_by_grpclib, _at_once])
Reader = Callable[[MessageBuffer], Awaitable[list[bytes]]]


def _chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[first:second] for first, second in itertools.pairwise(places)] or [b""]


@READERS
@given(
    messages=st.lists(st.binary(max_size=LIMIT), max_size=30), cuts=st.lists(st.integers(0, 40_000)), late=st.booleans()
)
def test_any_chunks_give_the_same_messages_and_all_bytes_back(
    read: Reader, messages: list[bytes], cuts: list[int], late: bool
) -> None:
    data = b"".join(map(prefixed, messages))

    async def run() -> tuple[list[bytes], int]:
        receiver = Receiver()

        async def receive() -> None:
            for chunk in _chunked(data, cuts):
                receiver.buffer.add(chunk, len(chunk))
                if late:
                    await asyncio.sleep(0)
            receiver.buffer.eof()

        if late:
            sender = asyncio.ensure_future(receive())
            found = await read(receiver.buffer)
            await sender
        else:
            await receive()
            found = await read(receiver.buffer)
        return found, receiver.acknowledged + receiver.buffer.unacked_size()

    found, acknowledged = asyncio.run(run())
    assert found == messages
    assert acknowledged == len(data)


@READERS
@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (
            message_prefix(0xFFFFFFFF) + b"x",
            Status.RESOURCE_EXHAUSTED,
            "4294967295 bytes is longer than the limit of 1000",
        ),
        (message_prefix(LIMIT + 1), Status.RESOURCE_EXHAUSTED, "1001 bytes is longer than the limit of 1000"),
        (b"\x01\x00\x00\x00\x01x", Status.UNIMPLEMENTED, "compressed"),
        (message_prefix(10) + b"four", Status.INTERNAL, "ended after"),
        (b"\x00\x00", Status.INTERNAL, "ended after 2 of the 5 bytes of the length prefix"),
    ],
)
def test_bad_messages_are_refused(read: Reader, data: bytes, status: Status, words: str) -> None:
    async def run() -> Receiver:
        receiver = Receiver()
        receiver.buffer.add(data, len(data))
        if status is Status.INTERNAL:
            receiver.buffer.eof()
        with pytest.raises(GRPCError, match=words) as caught:
            await read(receiver.buffer)
        assert caught.value.status is status
        return receiver

    assert asyncio.run(run()).refused == 1


def test_messages_before_a_bad_one_are_returned() -> None:
    async def run() -> None:
        buffer = Receiver().buffer
        data = prefixed(b"good") + message_prefix(LIMIT + 1)
        buffer.add(data, len(data))
        assert await buffer.read_messages(10_000) == [b"good"]
        with pytest.raises(GRPCError):
            await buffer.read_messages(10_000)

    asyncio.run(run())


def test_what_nobody_reads_is_not_given_back_to_the_window() -> None:
    async def run() -> None:
        receiver = Receiver()
        for _ in range(10):
            receiver.buffer.add(prefixed(b"x" * 95), 100)
        assert receiver.acknowledged == 0
        await receiver.buffer.read_messages(300)
        assert receiver.acknowledged == 300

    asyncio.run(run())


@given(
    messages=st.lists(st.integers(0, LIMIT).map(bytes), min_size=1, max_size=20),
    pieces=st.lists(st.tuples(st.integers(1, 10) | st.integers(1, 3000), st.booleans()), min_size=1, max_size=20),
)
def test_no_more_is_given_back_early_than_is_waited_for(messages: list[bytes], pieces: list[tuple[int, bool]]) -> None:
    """However much arrives before a reader that has what it waited for gets its turn."""
    data = b"".join(map(prefixed, messages))

    async def measure() -> None:
        receiver = Receiver()
        read: list[bytes] = []

        allowed = asyncio.Semaphore(0)
        given_out = 0

        async def read_all() -> None:
            while True:
                await allowed.acquire()
                prefix = await receiver.buffer.read(PREFIX_BYTES)
                if not prefix:
                    return
                read.append(await receiver.buffer.read(int.from_bytes(prefix[1:], "big")))

        reader = asyncio.create_task(read_all())
        place = 0
        for size, turn in itertools.cycle(pieces):
            consumed = sum(PREFIX_BYTES + len(message) for message in read)
            waited_for = PREFIX_BYTES + len(messages[len(read)]) if len(read) < min(given_out, len(messages)) else 0
            assert receiver.acknowledged <= consumed + waited_for
            if place == len(data):
                break
            receiver.buffer.add(data[place : place + size], len(data[place : place + size]))
            place = min(len(data), place + size)
            if turn:
                allowed.release()
                given_out += 1
                for _ in range(3):
                    await asyncio.sleep(0)
        receiver.buffer.eof()
        for _ in range(len(messages) + 1):
            allowed.release()
        await reader
        assert read == messages
        assert receiver.acknowledged == len(data)

    asyncio.run(measure())


def test_a_message_larger_than_the_window_is_given_back_while_it_is_waited_for() -> None:
    async def run() -> None:
        receiver = Receiver()
        receiver.buffer.add(message_prefix(900) + b"x" * 95, 100)
        reading = asyncio.ensure_future(receiver.buffer.read_messages(1))
        await asyncio.sleep(0)
        assert receiver.acknowledged == 100
        receiver.buffer.add(b"x" * 805, 810)  # with padding
        assert receiver.acknowledged == 910
        assert await reading == [b"x" * 900]

    asyncio.run(run())


def test_a_cancelled_reader_loses_nothing() -> None:
    async def run() -> None:
        buffer = Receiver().buffer
        buffer.add(b"\x00\x00", 2)
        reading: asyncio.Task[Any] = asyncio.ensure_future(buffer.read_messages(1))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        buffer.add(b"\x00\x00\x01x", 4)
        assert await buffer.read_messages(1) == [b"x"]

    asyncio.run(run())
