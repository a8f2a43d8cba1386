"""What a client sends at once is taken in a few frames at a time, whatever the pieces that it arrives in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import h2.connection
import h2.events
import pytest
from hyperframe.frame import DataFrame, HeadersFrame, PingFrame, SettingsFrame
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.internal_errors import InternalErrors
from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop
from proglog_trio.rpc.http2.bridge import aio_as_trio
from proglog_trio.rpc.http2.transport import TunedProtocol
from proglog_trio.rpc.server.handlers import ServerCounters
from proglog_trio.rpc.server.server import ServerConfig, ServerProtocol, _Server
from proglog_trio.steps import Turn

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()


class Transport(asyncio.Transport):
    """A connection to a client that reads nothing."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.unread = 0
        self.closed = False
        self.reading = True
        self.pauses = 0

    def write(self, data: Any) -> None:
        self.unread += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unread

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        self.pauses += self.reading
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class StepClock:
    """A second later whenever it is looked at."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def new_protocol(turn: Turn | None = None) -> tuple[ServerProtocol, Transport]:
    transport = Transport()
    protocol = ServerProtocol(_Server([], ServerConfig(), ServerCounters(), None, InternalErrors()))
    if turn is not None:
        protocol._turn = turn
    protocol.connection_made(transport)
    return protocol, transport


async def in_asyncio(function: Callable[[], Awaitable[None]]) -> None:
    async with asyncio_loop():
        await aio_as_trio(function)()


async def test_many_frames_at_once_are_taken_in_in_turns_and_in_order() -> None:
    async def check() -> None:
        # In each turn there is time for one look at the clock: some frames.
        protocol, transport = new_protocol(Turn(StepClock(), seconds=1.0))
        seen: list[bytes] = []
        process = protocol.processor.process

        def note(event: h2.events.Event) -> None:
            if isinstance(event, h2.events.PingReceived):
                seen.append(event.ping_data)
            process(event)

        protocol.processor.process = note  # type: ignore[method-assign]
        numbers = [number.to_bytes(8, "big") for number in range(1000)]
        pings = b"".join(PingFrame(0, number).serialize() for number in numbers)
        protocol.data_received(PREFACE + pings[:10_000])
        first = len(seen)
        assert 0 < first <= 16
        assert not transport.reading
        # What was on its way is kept behind what waits.
        protocol.data_received(pings[10_000:])
        assert len(seen) == first
        before = first
        while not transport.reading:
            await asyncio.sleep(0)
            assert len(seen) - before <= 16
            before = len(seen)
        assert seen == numbers
        assert transport.pauses == 1
        protocol.connection_lost(None)

    await in_asyncio(check)


async def test_headers_are_taken_in_one_request_at_a_time() -> None:
    async def check() -> None:
        protocol, _transport = new_protocol(Turn(StepClock(), seconds=1.0))
        began: list[int] = []
        protocol.processor.processors[h2.events.RequestReceived] = lambda event: began.append(event.stream_id)
        encoder = h2.connection.H2Connection()
        block = encoder.encoder.encode(
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/x"),
                (":authority", "n"),
                ("content-type", "application/grpc"),
            ]
        )
        frames = []
        for number in range(1, 21, 2):
            frame = HeadersFrame(number, block)
            frame.flags.add("END_HEADERS")
            frames.append(frame.serialize())
        protocol.data_received(PREFACE)
        protocol.data_received(b"".join(frames))
        assert len(began) == 1
        protocol.connection_lost(None)

    await in_asyncio(check)


async def test_a_connection_that_is_lost_meanwhile_takes_in_nothing_more() -> None:
    async def check() -> None:
        protocol, transport = new_protocol(Turn(StepClock(), seconds=1.0))
        protocol.data_received(PREFACE + PingFrame(0, b"12345678").serialize() * 1000)
        protocol.connection_lost(None)
        answered = transport.unread
        for _ in range(20):
            await asyncio.sleep(0)
        assert transport.unread == answered
        assert not transport.reading

    await in_asyncio(check)


async def test_a_client_that_never_reads_its_ping_answers_is_dropped() -> None:
    async def check() -> None:
        protocol, transport = new_protocol()
        protocol.pause_writing()
        pings = PingFrame(0, b"12345678").serialize() * 1000
        protocol.data_received(PREFACE)
        sent = 0
        while not transport.closed:
            protocol.data_received(pings)
            for _ in range(1000):
                if transport.reading or transport.closed:
                    break
                await asyncio.sleep(0)
            sent += len(pings)
            assert sent < 4 * 1024 * 1024
        assert transport.unread < 2 * 1024 * 1024
        protocol.connection_lost(None)

    await in_asyncio(check)


FRAMES = st.lists(
    st.one_of(
        st.binary(min_size=8, max_size=8).map(lambda data: PingFrame(0, data).serialize()),
        st.binary(max_size=300).map(lambda data: DataFrame(1, data).serialize()),
        st.binary(max_size=40).map(lambda data: HeadersFrame(3, data).serialize()),
    ),
    min_size=1,
    max_size=60,
)


class _Incoming:
    def __init__(self, begun: bytes, preface: int) -> None:
        self._data = bytearray(begun)
        self._preamble_len = preface


class _Holder:
    def __init__(self, incoming: _Incoming) -> None:
        self.h2_connection = self
        self.incoming_buffer = incoming


@given(FRAMES, st.data(), st.booleans())
def test_what_is_taken_in_at_a_time_ends_with_a_frame(
    frames: list[bytes], data: st.DataObject, with_preface: bool
) -> None:
    preface = b"p" * 24 if with_preface else b""
    whole = preface + b"".join(frames)
    begun_bytes = 0 if with_preface else data.draw(st.integers(0, len(frames[0]) - 1))
    arrived = whole[begun_bytes:]
    protocol = object.__new__(ServerProtocol)
    protocol.connection = _Holder(_Incoming(whole[:begun_bytes], len(preface)))  # type: ignore[assignment]
    end = TunedProtocol._end_of_some_frames(protocol, arrived, 0)
    ends = [len(preface)]
    for frame in frames:
        ends.append(ends[-1] + len(frame))
    assert 0 < end <= len(arrived)
    assert begun_bytes + end in ends
    taken = ends.index(begun_bytes + end)
    assert taken <= 16
    assert not any(frame[3] == 1 for frame in frames[: taken - 1])


@pytest.mark.parametrize("cut", [1, 3, 8, 9, 10, 16])
def test_a_frame_whose_header_is_not_all_there_is_left_to_h2(cut: int) -> None:
    ping = PingFrame(0, b"12345678").serialize()
    protocol = object.__new__(ServerProtocol)
    protocol.connection = _Holder(_Incoming(b"", 0))  # type: ignore[assignment]
    assert TunedProtocol._end_of_some_frames(protocol, ping[:cut], 0) == cut
