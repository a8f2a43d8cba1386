"""What programs give as headers and what they get: mappings or pairs in, a mapping out."""

import copy
from pathlib import Path

import anyio
import msgpack
import pytest

from proglog_trio.client import Record, open_consumer, open_producer
from proglog_trio.client.packing import RecordPacker
from proglog_trio.log.format.headers import NO_HEADERS
from tests.client.harness import running_node
from tests.client.test_consumed_batch import packed

PAIRS = [("z", b"1"), ("a", b"2"), ("m", b"")]


async def test_headers_go_in_as_a_mapping_or_pairs_and_come_out_as_a_mapping(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        async with open_producer(node.address) as producer:
            await producer.send(b"mapping", headers=dict(PAIRS))
            await producer.send(b"pairs", headers=iter(PAIRS))
            await producer.send(b"none")
            await producer.send(b"empty", key=b"key", headers=[])
            await producer.send_many([Record(b"many", headers=PAIRS), Record(b"bare")])
            with pytest.raises(ValueError, match="'z' is given twice"):
                await producer.send(b"twice", headers=[*PAIRS, ("z", b"3")])
            with pytest.raises(TypeError, match="header 'z' must be bytes, not str, encode it"):
                await producer.send(b"text", headers=[("z", "text")])  # type: ignore[list-item]
        async with open_consumer(node.address, follow=False) as consumer:
            with anyio.fail_after(10):
                records = {record.value: record.headers async for record in consumer}
    assert {value: list(headers.items()) for value, headers in records.items()} == {
        b"mapping": PAIRS, b"pairs": PAIRS, b"none": [], b"empty": [], b"many": PAIRS, b"bare": [],
    }  # fmt: skip
    assert all(records[value] is NO_HEADERS for value in (b"none", b"empty", b"bare"))


def test_records_without_headers_share_an_empty_mapping() -> None:
    batch = packed([b"plain"], [b"keyed", b"key"], [b"nil", None, None, 5], [b"empty", b"key", {}])
    assert all(record.headers is NO_HEADERS for record in batch)
    assert all(batch.record(index).headers is NO_HEADERS for index in range(4))
    assert len(set(batch)) == 4, "a record without headers has a hash"
    assert copy.deepcopy(batch.record(0)) == batch.record(0)


def test_headers_of_a_record_are_its_own() -> None:
    batch = packed([b"value", None, {"name": b"content"}])
    first, second = batch.record(0).headers, batch.record(0).headers
    assert first == second == {"name": b"content"}
    assert first is not second


@pytest.mark.parametrize("headers", [None, {}, [], ()])
def test_a_record_without_headers_is_packed_as_one(headers: object) -> None:
    packer = RecordPacker(1000)
    assert msgpack.unpackb(packer.pack(b"value", headers=headers)) == [b"value"]  # type: ignore[arg-type]
    assert msgpack.unpackb(packer.pack(b"v", timestamp=5, headers=headers)) == [b"v", None, None, 5]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the record is empty"):
        packer.pack(b"", headers=headers)  # type: ignore[arg-type]
