"""The book's contract, from a client that shares nothing with this package: grpcio, stubs of the book's own proto."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import trio
from google.rpc import error_details_pb2, status_pb2

from tests.rpc.support import RunningServer, running_server

HERE = Path(__file__).parent
MANY = 10_000


async def _foreign(stubs: Path, server: RunningServer, command: str, count: int) -> Any:
    done = await trio.run_process(
        [sys.executable, HERE / "foreign_client.py", stubs, server.address, command, str(count)], capture_stdout=True
    )
    return json.loads(done.stdout)


async def test_streams_of_ten_thousand_records(stubs: Path, tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        assert await _foreign(stubs, server, "produce_stream", MANY) == list(range(MANY))
        assert await _foreign(stubs, server, "consume_stream", MANY) == [f"record {n}" for n in range(MANY)]
        # They were sent one by one, and went into batches.
        assert server.log.counters.batches_appended < MANY / 2


async def test_one_by_one(stubs: Path, tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        assert await _foreign(stubs, server, "produce", 20) == list(range(20))
        assert await _foreign(stubs, server, "consume", 20) == [f"record {n}" for n in range(20)]
        assert await _foreign(stubs, server, "conversation", 50) == list(range(20, 70))


async def test_past_the_end(stubs: Path, tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        found = await _foreign(stubs, server, "past_the_end", 5)
        assert found["code"] == "OUT_OF_RANGE"
        assert found["details"] == "offset 5 is out of range: the log is empty, its next offset is 0"
        status = status_pb2.Status.FromString(found["status"].encode("latin-1"))
        localized = error_details_pb2.LocalizedMessage()
        assert status.details[0].Unpack(localized)
        assert (localized.locale, localized.message) == ("en-US", found["details"])


async def test_an_empty_record(stubs: Path, tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        refused = "INVALID_ARGUMENT: the record is empty: it has no value, no key and no headers"
        assert await _foreign(stubs, server, "empty", 0) == [refused, refused]


async def test_a_stream_waits_at_the_end_until_its_deadline(stubs: Path, tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        assert await _foreign(stubs, server, "deadline", 0) == "DEADLINE_EXCEEDED"
        assert await _foreign(stubs, server, "deadline", 100) == "DEADLINE_EXCEEDED"


async def test_the_servers(stubs: Path, tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        assert await _foreign(stubs, server, "servers", 0) == [["node-1", "127.0.0.1:8400", True]]
