from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import psutil
import pytest
import trio
from grpclib.const import Cardinality

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio._proto.log.v1 import ConsumeBatchesRequest, ConsumeBatchesRequestAnchor
from proglog_trio.errors import CallFailed
from proglog_trio.log.format.frame import iterate_frames
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.record import payload_crc, unpack_records
from proglog_trio.log.retention_service import apply_retention
from proglog_trio.rpc.calls.connection import Connection, TunedChannel, open_connection
from proglog_trio.rpc.http2.message_buffer import prefixed
from proglog_trio.rpc.server.log_service_state import LogServiceConfig
from tests.rpc.support import (
    RawClient,
    RunningServer,
    batch_request,
    call,
    eventually,
    exchange,
    method_path,
    running_server,
)

MEBIBYTE = 1024 * 1024


async def _batches(channel: TunedChannel, request: Any, most: int | None = None) -> list[Any]:
    """Return the answers of ConsumeBatches, until it ends or there are so many."""
    answers: list[Any] = []
    async with channel.request(
        method_path("ConsumeBatches"),
        Cardinality.UNARY_STREAM,
        ConsumeBatchesRequest,
        log_v1.ConsumeBatchesResponse,
    ) as stream:
        await stream.send_message(request)
        async for answer in stream:
            answers.append(answer)
            if len(answers) == most:
                await stream.cancel()
                break
    return answers


async def _records(channel: TunedChannel, offset: int, count: int) -> list[Any]:
    """Return so many records of ConsumeStream."""
    records: list[Any] = []
    async with channel.request(
        method_path("ConsumeStream"), Cardinality.UNARY_STREAM, log_v1.ConsumeRequest, log_v1.ConsumeResponse
    ) as stream:
        await stream.send_message(log_v1.ConsumeRequest(offset=offset))
        async for answer in stream:
            records.append(answer.record)
            if len(records) == count:
                await stream.cancel()
                break
    return records


def _values(answers: Sequence[Any]) -> list[bytes]:
    return [
        record.value
        for answer in answers
        for frame in iterate_frames(answer.frames)
        for record in unpack_records(frame.payload)
    ]


async def _fill(connection: Connection, *batches: Sequence[bytes]) -> None:
    for answer in await connection.run(exchange, "ProduceBatches", [batch_request(values) for values in batches]):
        assert answer.error is None, answer


# -- ConsumeBatches ----------------------------------------------------------------------------------------------------


async def test_batches_come_as_they_were_packed(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        await _fill(connection, [b"a", b"b"], [b"c"], [b"d", b"e"])
        (answer,) = await connection.run(_batches, ConsumeBatchesRequest(offset=0, until_end=True))
        assert _values([answer]) == [b"a", b"b", b"c", b"d", b"e"]
        assert list(answer.base_offsets) == [0, 2, 3]
        assert answer.end_offset == 5
        assert Position.decode(answer.position) == Position.empty()
        # The first frame is the one that holds the offset.
        (answer,) = await connection.run(_batches, ConsumeBatchesRequest(offset=1, until_end=True))
        assert list(answer.base_offsets) == [0, 2, 3]
        (answer,) = await connection.run(_batches, ConsumeBatchesRequest(offset=4, until_end=True))
        assert list(answer.base_offsets) == [3]


async def test_a_position_goes_on_where_another_stream_was(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        await _fill(connection, [b"a", b"b"], [b"c"], [b"d", b"e"])
        (first,) = await connection.run(_batches, ConsumeBatchesRequest(offset=0), 1)
        frames = list(iterate_frames(first.frames))
        position = Position.decode(first.position)
        for frame in frames[:2]:
            header = frame.header
            position = position.advanced(header.origin, header.base_sequence, header.next_sequence)
        request = ConsumeBatchesRequest(position=position.encode(), until_end=True)
        (answer,) = await connection.run(_batches, request)
        assert _values([answer]) == [b"d", b"e"]
        assert Position.decode(answer.position) == position


async def test_anchors(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        await _fill(connection, [b"a"], [b"b"])
        lowest = ConsumeBatchesRequest(anchor=ConsumeBatchesRequestAnchor.LOWEST, until_end=True)
        assert _values(await connection.run(_batches, lowest)) == [b"a", b"b"]
        end = ConsumeBatchesRequest(anchor=ConsumeBatchesRequestAnchor.END, until_end=True)
        (answer,) = await connection.run(_batches, end)
        assert (answer.frames, answer.end_offset) == (b"", 2)
        assert Position.decode(answer.position) == server.log.position


async def test_an_empty_log(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        (answer,) = await connection.run(_batches, ConsumeBatchesRequest(offset=0, until_end=True))
        assert (answer.frames, answer.end_offset, len(answer.base_offsets)) == (b"", 0, 0)


async def test_a_stream_waits_at_the_end_and_goes_on(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        seen: list[bytes] = []

        async def follow(channel: TunedChannel) -> None:
            async with channel.request(
                method_path("ConsumeBatches"),
                Cardinality.UNARY_STREAM,
                ConsumeBatchesRequest,
                log_v1.ConsumeBatchesResponse,
            ) as stream:
                await stream.send_message(ConsumeBatchesRequest(offset=0))
                async for answer in stream:
                    seen.extend(_values([answer]))
                    if len(seen) == 30:
                        await stream.cancel()
                        break

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.run, follow)
                for number in range(30):
                    await _fill(connection, [b"%d" % number])
                    await eventually(lambda number=number: len(seen) > number)  # type: ignore[misc]  # mypy and lambda defaults
        assert seen == [b"%d" % number for number in range(30)]


async def test_response_bytes(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        await _fill(connection, *[[b"x" * 1000]] * 100, [b"y" * 100_000])
        answers = await connection.run(_batches, ConsumeBatchesRequest(offset=0, until_end=True, response_bytes=10_000))
        assert max(len(answer.frames) for answer in answers[:-1]) <= 10_000
        assert len(answers[-1].frames) > 100_000
        assert len(_values(answers)) == 101
        answers = await connection.run(_batches, ConsumeBatchesRequest(offset=0, until_end=True, response_bytes=1))
        assert len(answers) == 101
        # More than one message may have is cut down.
        await _fill(connection, *[[b"x" * 500_000]] * 20)
        request = ConsumeBatchesRequest(offset=0, until_end=True, response_bytes=2**32 - 1)
        answers = await connection.run(_batches, request)
        assert max(len(answer.frames) for answer in answers) <= 3.5 * MEBIBYTE


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ConsumeBatchesRequest(), "INVALID_ARGUMENT: the start is not set"),
        (ConsumeBatchesRequest(anchor=ConsumeBatchesRequestAnchor(7)), "INVALID_ARGUMENT: the anchor 7 is not known"),
        (ConsumeBatchesRequest(position=b"what"), "INVALID_ARGUMENT: 4 bytes are no position"),
        (ConsumeBatchesRequest(offset=3), "OUT_OF_RANGE: offset 3 is out of range: the log holds offsets 0 to 1"),
    ],
)
async def test_starts_that_are_none(tmp_path: Path, request_: Any, words: str) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        await _fill(connection, [b"a", b"b"])
        with pytest.raises(CallFailed, match=words):
            await connection.run(_batches, request_)


async def _with_a_lowest_offset(server: RunningServer, connection: Connection) -> int:
    await _fill(connection, *[[b"x" * 1000]] * 100)
    await apply_retention(server.log)
    assert server.log.lowest_offset > 0
    return server.log.lowest_offset


async def test_below_the_lowest_offset(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, segment_bytes=10_000, retention_bytes=20_000) as server,
        open_connection(server.address) as connection,
    ):
        lowest = await _with_a_lowest_offset(server, connection)
        words = f"OUT_OF_RANGE: offset 0 is out of range: the log holds offsets {lowest} to 99"
        with pytest.raises(CallFailed, match=words) as caught:
            await connection.run(call, "Consume", log_v1.ConsumeRequest(offset=0))
        assert caught.value.details[0].message in words  # type: ignore[attr-defined]  # a LocalizedMessage
        with pytest.raises(CallFailed, match=words):
            await connection.run(_records, 0, 1)
        with pytest.raises(CallFailed, match=words):
            await connection.run(_batches, ConsumeBatchesRequest(offset=0))
        with pytest.raises(CallFailed, match="OUT_OF_RANGE: the position is out of range"):
            await connection.run(_batches, ConsumeBatchesRequest(position=Position.empty().encode()))
        anchor = ConsumeBatchesRequest(anchor=ConsumeBatchesRequestAnchor.LOWEST, until_end=True)
        assert (await connection.run(_batches, anchor))[0].base_offsets[0] == lowest
        skipping = ConsumeBatchesRequest(offset=0, until_end=True, skip_missing=True)
        answers = await connection.run(_batches, skipping)
        assert answers[0].base_offsets[0] == lowest
        (skipped,) = answers[0].skipped
        assert (skipped.from_offset, skipped.to_offset, skipped.reason) == (0, lowest, "retention removed them")


def _damage(directory: Path, content: bytes) -> None:
    """Flip a byte of some stored content."""
    for path in directory.rglob("*"):
        if path.is_file() and (place := path.read_bytes().find(content)) >= 0:
            with path.open("r+b") as file:
                file.seek(place)
                file.write(bytes([content[0] ^ 0xFF]))
            return
    raise AssertionError("it is not stored")


async def test_damage_is_named_or_skipped(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        await _fill(connection, [b"good 1"], [b"damaged", b"with it"], [b"good 2"])
        _damage(tmp_path, b"damaged")
        words = "DATA_LOSS: offsets 1 to 2 are damaged"
        with pytest.raises(CallFailed, match=words):
            await connection.run(_batches, ConsumeBatchesRequest(offset=0, until_end=True))
        with pytest.raises(CallFailed, match=words):
            await connection.run(_records, 0, 4)
        with pytest.raises(CallFailed, match=words):
            await connection.run(call, "Consume", log_v1.ConsumeRequest(offset=1))
        answers = await connection.run(_batches, ConsumeBatchesRequest(offset=0, until_end=True, skip_missing=True))
        assert _values(answers) == [b"good 1", b"good 2"]
        assert [(each.from_offset, each.to_offset) for answer in answers for each in answer.skipped] == [(1, 3)]
        assert [record.value for record in await connection.run(_records, 3, 1)] == [b"good 2"]


# -- ConsumeStream -----------------------------------------------------------------------------------------------------


async def test_every_record_on_its_own(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        await _fill(connection, *[[b"%d" % (10 * batch + index) for index in range(10)] for batch in range(300)])
        for first in (0, 5, 2995):
            records = await connection.run(_records, first, 3000 - first)
            assert [record.offset for record in records] == list(range(first, 3000))
            assert [record.value for record in records] == [b"%d" % offset for offset in range(first, 3000)]
            assert [record.sequence for record in records] == list(range(first, 3000))


async def test_an_offset_beyond_the_end_is_waited_for(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        found: list[Any] = []

        async def follow() -> None:
            found.extend(await connection.run(_records, 3, 2))

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow)
                await eventually(lambda: server.service.counters.consumers == 1)
                for number in range(5):
                    await _fill(connection, [b"%d" % number])
        assert [(record.offset, record.value) for record in found] == [(3, b"3"), (4, b"4")]


@pytest.mark.parametrize(
    "element",
    [
        5,
        None,
        [],
        ["text"],
        [b"v", "text"],
        [b"v", None, [1]],
        [b"v", None, {"h": 1}],
        [b"v", None, None, "now"],
        {"a": 1},
    ],
)
async def test_an_element_that_is_no_record_ends_the_stream_at_its_offset(tmp_path: Path, element: Any) -> None:
    payload: bytes = msgpack.packb([[b"0"], [b"1"], element, [b"3"]])
    request = log_v1.ProduceBatchRequest(payload=payload, count=4, payload_crc=payload_crc(payload))
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        await _fill(connection, [b"before"])
        await connection.run(exchange, "ProduceBatches", [request])
        seen: list[int] = []

        async def read(channel: TunedChannel, offset: int) -> None:
            async with channel.request(
                method_path("ConsumeStream"),
                Cardinality.UNARY_STREAM,
                log_v1.ConsumeRequest,
                log_v1.ConsumeResponse,
            ) as stream:
                await stream.send_message(log_v1.ConsumeRequest(offset=offset))
                async for answer in stream:
                    assert answer.record is not None
                    seen.append(answer.record.offset)

        words = "DATA_LOSS: offsets 3 to 3 are damaged: the producer packed no proper record: "
        with pytest.raises(CallFailed, match=words):
            await connection.run(read, 0)
        assert seen == [0, 1, 2]
        with pytest.raises(CallFailed, match=words):
            await connection.run(call, "Consume", log_v1.ConsumeRequest(offset=3))
        (after,) = await connection.run(_records, 4, 1)
        assert (after.offset, after.value) == (4, b"3")


async def test_a_map_that_python_cannot_hold_spoils_its_own_record_only(tmp_path: Path) -> None:
    payload = b"\x93" + msgpack.packb([b"0"]) + b"\x93\xc4\x01v\xc0\x81\x80\x01" + msgpack.packb([b"2"])
    request = log_v1.ProduceBatchRequest(payload=payload, count=3, payload_crc=payload_crc(payload))
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        (answer,) = await connection.run(exchange, "ProduceBatches", [request])
        assert answer.error is None
        with pytest.raises(CallFailed, match="DATA_LOSS: offsets 1 to 1"):
            await connection.run(_records, 0, 3)
        assert [record.value for record in await connection.run(_records, 2, 1)] == [b"2"]


# -- memory ------------------------------------------------------------------------------------------------------------


def _resident() -> int:
    gc.collect()
    size: int = psutil.Process().memory_info().rss
    return size


@pytest.mark.parametrize("name", ["ConsumeBatches", "ConsumeStream"])
async def test_consumers_that_stop_reading_hold_little(tmp_path: Path, name: str) -> None:
    streams = 50
    request = ConsumeBatchesRequest(offset=0) if name == "ConsumeBatches" else log_v1.ConsumeRequest(offset=0)
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        for _ in range(10):
            await _fill(connection, *[[b"x" * 1000] * 100] * 40)
        before = _resident()
        async with RawClient.open(server.port) as client:
            for _ in range(streams):
                number = await client.request(name)
                await client.send(number, prefixed(request.SerializeToString()), end=True)
            await eventually(lambda: server.service.counters.consumers == streams)
            # Another reads all of it meanwhile: they do not hold it up.
            answers = await connection.run(_batches, ConsumeBatchesRequest(offset=0, until_end=True))
            assert len(_values(answers)) == 40_000
            del answers
            # 40 MB are there for each; a share of the bound is all that it gets.
            assert _resident() - before < 64 * MEBIBYTE + 40 * MEBIBYTE
        await eventually(lambda: server.service.counters.consumers == 0)


async def test_too_many_consumers_are_refused(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, service_config=LogServiceConfig(max_consumers=1)) as server,
        open_connection(server.address) as connection,
        RawClient.open(server.port) as client,
    ):
        number = await client.request("ConsumeStream")
        await client.send(number, prefixed(b""), end=True)
        await eventually(lambda: server.service.counters.consumers == 1)
        with pytest.raises(CallFailed, match="RESOURCE_EXHAUSTED: this node serves at most 1 consumers"):
            await connection.run(_batches, ConsumeBatchesRequest(offset=0))
        assert server.service.counters.consumers_refused == 1


async def test_a_cancelled_trio_scope_ends_the_call_on_both_sides(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        for _ in range(150):  # more than a connection may have open at once
            with trio.move_on_after(0.005):
                await connection.run(_records, 0, 1)
        await eventually(lambda: server.service.counters.consumers == 0)
        await connection.run(call, "GetServers", log_v1.GetServersRequest())
        assert len([task for task in asyncio.all_tasks() if "request_handler" in repr(task)]) == 0
