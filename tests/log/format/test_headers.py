import copy
import pickle
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.log.format.headers import NO_HEADERS, headers_of
from proglog_trio.log.format.record import Record, pack_records, unpack_records

PAIRS = st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=8)


class Repeating(Mapping[str, bytes]):
    """A mapping whose items have a name twice, as those of HTTP's headers may."""

    def __getitem__(self, name: str) -> bytes:
        return b"first"

    def __iter__(self) -> Any:
        return iter(("name", "name"))

    def __len__(self) -> int:
        return 2


@given(PAIRS)
def test_pairs_are_a_map_in_their_order_or_refused(pairs: list[tuple[str, bytes]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        with pytest.raises(ValueError, match="is given twice"):
            headers_of(iter(pairs))
        return
    assert list(headers_of(iter(pairs)).items()) == pairs
    record = Record(b"value", headers=pairs)
    assert record == Record(b"value", headers=dict(pairs))
    (found,) = unpack_records(pack_records([record]))
    assert list(found.headers.items()) == pairs


@pytest.mark.parametrize("none", [None, {}, (), [], iter(()), MappingProxyType({})])
def test_no_headers_are_one_object(none: Any) -> None:
    assert headers_of(none) is NO_HEADERS
    assert Record(b"value").headers is NO_HEADERS
    for timestamp in (None, 5):
        (found,) = unpack_records(pack_records([Record(b"value", timestamp=timestamp, headers={})]))
        assert found.headers is NO_HEADERS


@pytest.mark.parametrize(
    "change",
    [
        lambda headers: headers.__setitem__("name", b"content"),
        lambda headers: headers.__delitem__("name"),
        lambda headers: headers.__ior__({"name": b"content"}),
        lambda headers: headers.update(name=b"content"),
        lambda headers: headers.setdefault("name", b"content"),
        lambda headers: headers.pop("name", None),
        lambda headers: headers.popitem(),
        lambda headers: headers.clear(),
    ],
)
def test_no_headers_stay_none(change: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match="cannot be changed: make a dict of them"):
        change(NO_HEADERS)
    assert not NO_HEADERS


def test_no_headers_are_what_an_empty_dict_is() -> None:
    assert NO_HEADERS == {}
    assert NO_HEADERS.get("name") is None
    assert NO_HEADERS | {"name": b"content"} == {"name": b"content"}
    assert dict(NO_HEADERS) == {}
    assert hash(Record(b"value")) == hash(Record(b"value"))
    assert copy.deepcopy(Record(b"value")).headers is NO_HEADERS
    assert copy.copy(NO_HEADERS) is NO_HEADERS
    assert pickle.loads(pickle.dumps(NO_HEADERS)) is NO_HEADERS  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (5, "must be a mapping or pairs"),
        ("name", "must be a mapping or pairs"),
        (b"name", "must be a mapping or pairs"),
        ([("a", b"1"), ("b", b"2", b"3")], "header 1 is no pair"),
        (["ab"], "header 0 is no pair"),
        ([(["name"], b"1")], "name must be str, not list"),
    ],
)
def test_what_is_no_headers(headers: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        headers_of(headers)


def test_a_mapping_that_repeats_itself() -> None:
    with pytest.raises(ValueError, match="'name' is given twice, and a record has one content for a name"):
        headers_of(Repeating())
