from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from grpclib.const import Cardinality, Status

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio._proto.log.v1 import Acknowledgement, AcknowledgementLevel
from proglog_trio.errors import CallFailed
from proglog_trio.log.format.record import pack_values, payload_crc
from proglog_trio.rpc.calls.connection import TunedChannel, open_connection
from proglog_trio.rpc.http2.message_buffer import prefixed
from proglog_trio.rpc.server.log_service_state import LogServiceConfig
from proglog_trio.rpc.server.requested_acknowledgement import AcknowledgementConfig
from tests.rpc.support import RawClient, batch_request, call, eventually, exchange, method_path, produce, running_server


def _request(value: bytes = b"x", **fields: Any) -> Any:
    return log_v1.ProduceRequest(record=log_v1.Record(value=value), **fields)


def _nodes(count: int) -> Any:
    return Acknowledgement(level=AcknowledgementLevel.NODES, nodes=count)


MAJORITY = Acknowledgement(level=AcknowledgementLevel.MAJORITY)

# -- one record --------------------------------------------------------------------------------------------------------


async def test_a_record_keeps_all_that_it_has(tmp_path: Path) -> None:
    record = log_v1.Record(value=b"v", key=b"k", headers={"h": b"1", "empty": b""}, timestamp=-5)
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        for sent in (record, log_v1.Record(key=b"only a key"), log_v1.Record(headers={"only": b"headers"})):
            stored = await connection.run(call, "Produce", log_v1.ProduceRequest(record=sent))
            found = (await connection.run(call, "Consume", log_v1.ConsumeRequest(offset=stored.offset))).record
            assert (found.value, found.key, dict(found.headers), found.timestamp) == (
                *(sent.value, sent.key, dict(sent.headers), sent.timestamp),
            )
            assert (found.offset, found.origin, found.sequence, found.log_time) == (
                *(stored.offset, stored.origin, stored.sequence, stored.log_time),
            )
            assert (stored.achieved, stored.reached, len(stored.origin)) == (1, True, 16)


async def test_after_log_time(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        first = await connection.run(call, "Produce", _request())
        later = first.log_time + (1_000 << 16)
        second = await connection.run(call, "Produce", _request(after_log_time=later))
        assert second.log_time > later
        for ahead in (120_000 << 16, 365 * 86_400_000 << 16, (1 << 64) - 1 - first.log_time):
            far = first.log_time + ahead
            third = await connection.run(call, "Produce", _request(after_log_time=far))
            assert second.log_time < third.log_time < far, "a clock that is so far ahead is not followed, nor refused"


async def test_a_retry_gets_the_first_answer(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        first = await connection.run(call, "Produce", _request(producer_id=7, producer_sequence=0))
        await produce(connection, b"between")
        again = await connection.run(call, "Produce", _request(producer_id=7, producer_sequence=0))
        assert again == first
        with pytest.raises(CallFailed, match="INVALID_ARGUMENT"):
            await connection.run(call, "Produce", _request(b"other", producer_id=7, producer_sequence=0))
        assert server.log.next_offset == 2


@pytest.mark.parametrize(
    ("acknowledgement", "cluster_size", "expected"),
    [
        (Acknowledgement(), None, (1, True)),
        (_nodes(1), None, (1, True)),
        (_nodes(2), None, (1, False)),
        (MAJORITY, 1, (1, True)),
        (MAJORITY, 2, (1, False)),
        (MAJORITY, 3, (1, False)),
    ],
)
async def test_acknowledgement(
    tmp_path: Path, acknowledgement: Any, cluster_size: int | None, expected: tuple[int, bool]
) -> None:
    service_config = LogServiceConfig(acknowledgement=AcknowledgementConfig(cluster_size=cluster_size))
    async with running_server(tmp_path, service_config=service_config) as server:
        async with open_connection(server.address) as connection:
            answer = await connection.run(call, "Produce", _request(acknowledgement=acknowledgement))
            assert (answer.achieved, answer.reached) == expected
            (answer,) = await connection.run(
                exchange, "ProduceBatches", [batch_request([b"x"], acknowledgement=acknowledgement)]
            )
            assert (answer.achieved, answer.reached) == expected
        assert server.log.next_offset == 2


BAD_ACKNOWLEDGEMENTS = pytest.mark.parametrize(
    ("acknowledgement", "status", "words"),
    [
        (_nodes(0), Status.INVALID_ARGUMENT, "needs their number"),
        (MAJORITY, Status.FAILED_PRECONDITION, "configured cluster size"),
        (Acknowledgement(level=AcknowledgementLevel(9)), Status.INVALID_ARGUMENT, "level 9 is not known"),
    ],
)


@BAD_ACKNOWLEDGEMENTS
async def test_an_acknowledgement_that_cannot_be_is_refused_before_anything_is_stored(
    tmp_path: Path, acknowledgement: Any, status: Status, words: str
) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        request = _request(acknowledgement=acknowledgement)
        with pytest.raises(CallFailed, match=f"{status.name}: .*{words}"):
            await connection.run(call, "Produce", request)
        with pytest.raises(CallFailed, match=f"{status.name}: request 1: .*{words}"):
            await connection.run(exchange, "ProduceStream", [request])
        (answer,) = await connection.run(
            exchange, "ProduceBatches", [batch_request([b"x"], acknowledgement=acknowledgement)]
        )
        assert answer.error.code == status.value
        assert words in answer.error.message
        assert server.log.next_offset == 0


async def test_a_record_above_the_batch_limit(tmp_path: Path) -> None:
    async with running_server(tmp_path, max_batch_bytes=1000) as server, open_connection(server.address) as connection:
        with pytest.raises(CallFailed, match="INVALID_ARGUMENT: the batch has 1005 bytes, more than the limit of 1000"):
            await connection.run(call, "Produce", _request(b"x" * 1000))
        assert server.service.counters.batches_refused == 1


# -- ProduceStream -----------------------------------------------------------------------------------------------------


async def test_records_before_a_bad_one_are_stored_and_answered(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        answers: list[int] = []

        async def run(channel: TunedChannel) -> None:
            async with channel.request(
                method_path("ProduceStream"),
                Cardinality.STREAM_STREAM,
                log_v1.ProduceRequest,
                log_v1.ProduceResponse,
            ) as stream:
                for value in (b"a", b"b", b"", b"d"):
                    await stream.send_message(_request(value))
                await stream.end()
                async for answer in stream:
                    answers.append(answer.offset)  # noqa: PERF401 - those before the error are wanted

        with pytest.raises(CallFailed, match="INVALID_ARGUMENT: request 3: the record is empty"):
            await connection.run(run)
        assert answers == [0, 1]
        assert server.log.next_offset == 2


async def test_records_that_differ_in_what_is_said_of_a_batch_are_not_joined(tmp_path: Path) -> None:
    requests = [
        _request(b"0"),
        _request(b"1"),
        _request(b"2", producer_id=1, producer_sequence=0),
        _request(b"3", producer_id=1, producer_sequence=1),
        _request(b"2", producer_id=1, producer_sequence=0),
        _request(b"4", acknowledgement=_nodes(2)),
        _request(b"5", after_log_time=1),
        _request(b"6"),
    ]
    async with running_server(tmp_path) as server, RawClient.open(server.port) as client:
        number = await client.request("ProduceStream")
        await client.send(number, b"".join(prefixed(each.SerializeToString()) for each in requests), end=True)
        assert await client.status(number) == (0, "")
        answers = client.messages(number, log_v1.ProduceResponse)
        assert [answer.offset for answer in answers] == [0, 1, 2, 3, 2, 4, 5, 6]
        assert [answer.sequence for answer in answers] == [0, 1, 2, 3, 2, 4, 5, 6]
        assert [answer.reached for answer in answers] == [True] * 5 + [False, True, True]
        assert server.log.counters.batches_appended == 6


# -- ProduceBatches ----------------------------------------------------------------------------------------------------


async def test_a_refused_batch_is_answered_with_its_error_and_the_stream_goes_on(tmp_path: Path) -> None:
    good = pack_values([b"a", b"b"])
    crc = payload_crc(good)

    def bad(**fields: Any) -> Any:
        return log_v1.ProduceBatchRequest(**{"payload": good, "count": 2, "payload_crc": crc, **fields})

    text = b"no msgpack"
    cut = good[:-1]
    cases = [
        (bad(count=3), "array of 2 records, the batch says 3"),
        (bad(count=0), "no records"),
        (bad(payload_crc=crc ^ 1), "CRC-32C"),
        (bad(payload=text, payload_crc=payload_crc(text)), "msgpack array"),
        (bad(payload=cut, payload_crc=payload_crc(cut)), "ends in the middle"),
        (bad(attributes=0x4000), "0x4000 are not known"),
        (bad(attributes=0x0008), "control frames"),
        (bad(payload=b"", payload_crc=0), "msgpack array"),
    ]
    requests = []
    for number, (request, _) in enumerate(cases):
        request.producer_sequence = 100 + number
        requests += [request, batch_request([b"good"], producer_sequence=number)]
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        answers = await connection.run(exchange, "ProduceBatches", requests)
        for number, (_, words) in enumerate(cases):
            refused, stored = answers[2 * number : 2 * number + 2]
            assert refused.producer_sequence == 100 + number
            assert refused.error.code == Status.INVALID_ARGUMENT.value
            assert words in refused.error.message
            assert (stored.producer_sequence, stored.base_offset, stored.count) == (number, number, 1)
            assert stored.error is None
        assert server.service.counters.batches_refused == len(cases)
        assert server.service.counters.batches_produced == len(cases)


async def test_a_retried_batch_is_answered_as_the_first_was(tmp_path: Path) -> None:
    request = batch_request([b"a", b"b"], producer_id=9, producer_sequence=0)
    other = batch_request([b"c", b"d"], producer_id=9, producer_sequence=0)
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        first, again, refused = await connection.run(exchange, "ProduceBatches", [request, request, other])
        assert (first.duplicate, again.duplicate) == (False, True)
        again.duplicate = False
        assert again == first
        assert refused.error.code == Status.INVALID_ARGUMENT.value


async def test_streams_wait_for_room_in_the_log(tmp_path: Path) -> None:
    requests = [batch_request([b"x" * 1000] * 10, producer_sequence=number) for number in range(200)]
    async with running_server(tmp_path, max_pending_bytes=20_000) as server:
        answered: list[list[Any]] = []

        async def client() -> None:
            async with open_connection(server.address) as connection:
                answered.append(await connection.run(exchange, "ProduceBatches", requests))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(client)
        for answers in answered:
            assert [answer.producer_sequence for answer in answers] == list(range(200))
            assert all(answer.error is None for answer in answers)
        assert server.log.next_offset == 3 * 200 * 10


async def test_a_client_that_reads_no_answers_is_not_read_from(tmp_path: Path) -> None:
    """Its window for answers is full: what it may have under way is bounded, and so is what is stored for it."""
    service_config = LogServiceConfig(in_flight_bytes=100_000)
    async with (
        running_server(tmp_path, service_config=service_config) as server,
        RawClient.open(server.port) as client,
    ):
        client.h2.update_settings({})
        number = await client.request("ProduceBatches")
        request = prefixed(batch_request([b"x"]).SerializeToString())
        sent = 0
        at_once = 16_000 // len(request)
        with trio.move_on_after(60) as scope:
            while True:
                # Takes window updates, but gives none for the answers.
                with trio.move_on_after(0.5):
                    while client.h2.local_flow_control_window(number) < len(request):
                        await client.receive()
                if client.h2.local_flow_control_window(number) < len(request):
                    break
                count = min(at_once, client.h2.local_flow_control_window(number) // len(request))
                client.h2.send_data(number, request * count)
                sent += count
                await client.flush()
        assert not scope.cancelled_caught, "the server reads on for ever"
        before = server.log.next_offset
        assert before < sent
        assert before < 65_535 / 20 + 100_000 / 1024 + 65_536 / len(request)


async def test_a_log_that_is_read_only_says_so(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_connection(server.address) as connection:
        await produce(connection, b"x")
        once = log_v1.ProduceRequest(record=log_v1.Record(value=b"once"), producer_id=1, producer_sequence=1)
        stored = await connection.run(call, "Produce", once)
        server.log.committed(0, OSError(28, "No space left on device"))
        assert await connection.run(call, "Produce", once) == stored, "what is stored is answered"
        with pytest.raises(CallFailed, match=r"ABORTED: .*No space left on device"):
            await produce(connection, b"y")
        (answer,) = await connection.run(exchange, "ProduceBatches", [batch_request([b"y"])])
        assert answer.error.code == Status.ABORTED.value
        with pytest.raises(CallFailed, match=r"ABORTED: .*No space left on device"):
            await connection.run(exchange, "ProduceStream", [_request()])
        # Reading goes on.
        found = await connection.run(call, "Consume", log_v1.ConsumeRequest(offset=0))
        assert found.record.value == b"x"
        await eventually(lambda: not server.service.state.producing)
