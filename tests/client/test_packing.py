import hypothesis.strategies as st
import pytest
from hypothesis import given

from proglog_trio.client.errors import RecordTooLarge
from proglog_trio.client.packing import RecordPacker, checked_values, join_records, split_values
from proglog_trio.log.format.record import Record, pack_records, unpack_records

RECORDS = st.builds(
    Record,
    st.binary(min_size=1),
    st.none() | st.binary(),
    st.none() | st.dictionaries(st.text(), st.binary(), min_size=1, max_size=3),
    st.none() | st.integers(-(2**63), 2**63 - 1),
)


@given(st.lists(RECORDS, min_size=1, max_size=20))
def test_packing_one_by_one_is_packing_all(records: list[Record]) -> None:
    packer = RecordPacker(1 << 20)
    packed = [packer.pack(each.value, each.key, each.headers, each.timestamp) for each in records]
    payload = join_records(packed)
    assert unpack_records(payload) == unpack_records(pack_records(records))


@pytest.mark.parametrize("count", [1, 15, 16, 65_535, 65_536])
def test_array_headers(count: int) -> None:
    packed = RecordPacker(1000).pack(b"v")
    assert len(unpack_records(join_records([packed] * count))) == count


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=40),
    st.integers(30, 200),
    st.integers(1, 10),
)
def test_splitting_keeps_everything_in_order(values: list[bytes], max_bytes: int, max_records: int) -> None:
    parts = list(split_values(values, max_bytes, max_records, 1000))
    assert [record.value for payload, _ in parts for record in unpack_records(payload)] == values
    for payload, count in parts:
        assert 1 <= count <= max_records
        assert len(payload) <= max_bytes or count == 1


def test_what_is_too_large_is_refused_before_anything_is_packed() -> None:
    with pytest.raises(RecordTooLarge) as caught:
        list(split_values([b"small", b"x" * 2000], 1000, 10, 1000))
    assert caught.value.limit == 995
    assert caught.value.size > 2000


def test_buffers_are_converted() -> None:
    assert checked_values([b"a", bytearray(b"b"), memoryview(b"c")]) == [b"a", b"b", b"c"]
