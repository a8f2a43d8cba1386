"""Packing records into payloads on the producer's side: one record at a time, or many values in one go in C.

The form is that of proglog_trio.log.format.record. Here each record is packed when it is sent, so that its size is
known and a mistake in it is reported to the caller who made it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import cast

import msgpack

from proglog_trio.client.errors import RecordTooLarge
from proglog_trio.log.format.headers import Buffer, GivenHeaders, headers_of
from proglog_trio.log.format.record import NEWEST_TIMESTAMP, array_header, pack_values

ARRAY_HEADER_BYTES = 5
"""The longest msgpack array header."""
VALUE_OVERHEAD_BYTES = 6
"""What packing adds to a value that stands alone in its record, at most: one array of one, one bin header."""


class RecordPacker:
    """Packs single records; keeps msgpack's buffer between them."""

    __slots__ = ("_limit", "_pack")

    def __init__(self, limit: int) -> None:
        self._pack = msgpack.Packer(use_bin_type=True).pack
        self._limit = limit

    def pack(
        self,
        value: Buffer,
        key: Buffer | None = None,
        headers: GivenHeaders | None = None,
        timestamp: int | None = None,
    ) -> bytes:
        """Return the record's bytes.

        Raises:
            TypeError: a field has another type.
            ValueError: the record is empty, a header's name comes twice, or its timestamp has more than 64 bits.
            RecordTooLarge: it is larger than a batch may be.
        """
        if type(value) is not bytes:
            value = _as_bytes("value", value)
        # Trailing fields that are not given are left out; those between are nil.
        if not headers and timestamp is None and key is None:
            if not value:
                raise ValueError("the record is empty: it has no value, no key and no headers")
            packed: bytes = self._pack((value,))
        else:
            packed = self._pack(_elements(value, key, headers, timestamp))
        if len(packed) + ARRAY_HEADER_BYTES > self._limit:
            raise RecordTooLarge(len(packed), self._limit - ARRAY_HEADER_BYTES)
        return packed


def _as_bytes(what: str, data: object) -> bytes:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    hint = ", encode it" if isinstance(data, str) else ""
    raise TypeError(f"a record's {what} must be bytes, not {type(data).__name__}{hint}")


def _elements(value: bytes, key: object, headers: GivenHeaders | None, timestamp: int | None) -> list[object]:
    key = None if key is None else _as_bytes("key", key)
    packed_headers: dict[str, bytes] = {}
    for name, content in headers_of(headers).items():
        if not isinstance(name, str):
            raise TypeError(f"a header's name must be str, not {type(name).__name__}")
        packed_headers[name] = _as_bytes(f"header {name!r}", content)
    if not value and key is None and not packed_headers:
        raise ValueError("the record is empty: it has no value, no key and no headers")
    if timestamp is not None:
        if type(timestamp) is not int:
            raise TypeError(f"a record's timestamp must be an int of milliseconds, not {type(timestamp).__name__}")
        if not -NEWEST_TIMESTAMP - 1 <= timestamp <= NEWEST_TIMESTAMP:
            raise ValueError(f"a record's timestamp must fit 64 bits, {timestamp} does not")
    elements: list[object] = [value, key, packed_headers or None, timestamp]
    while elements[-1] is None:
        elements.pop()
    return elements


def join_records(packed: Sequence[bytes]) -> bytes:
    """Return the payload of records that are packed already."""
    return array_header(len(packed)) + b"".join(packed)


def checked_values(values: Sequence[Buffer]) -> Sequence[bytes]:
    """Return the values as bytes, all of them checked; raises TypeError or ValueError naming the first wrong one."""
    checked: Sequence[bytes]
    if {bytes}.issuperset(map(type, values)):
        checked = cast("Sequence[bytes]", values)
    else:
        checked = converted = []
        for index, value in enumerate(values):
            try:
                converted.append(_as_bytes("value", value))
            except TypeError as error:
                raise TypeError(f"value {index}: {error}") from None
    if not all(checked):
        index = next(index for index, value in enumerate(checked) if not value)
        raise ValueError(f"value {index} is empty: a record needs a value, a key or headers")
    return checked


def split_values(values: Sequence[bytes], max_bytes: int, max_records: int, limit: int) -> Iterator[tuple[bytes, int]]:
    """Yield payloads and their counts, together all these checked values in order.

    A payload has at most max_bytes and max_records, unless one value alone has more.

    Raises:
        RecordTooLarge: before anything is yielded, if one value alone is larger than limit.
    """
    lengths = list(map(len, values))
    largest = max(lengths, default=0)
    if largest + VALUE_OVERHEAD_BYTES + ARRAY_HEADER_BYTES > limit:
        raise RecordTooLarge(largest + VALUE_OVERHEAD_BYTES, limit - ARRAY_HEADER_BYTES)
    total = sum(lengths) + VALUE_OVERHEAD_BYTES * len(values) + ARRAY_HEADER_BYTES
    if total <= max_bytes and len(values) <= max_records:
        if values:
            yield pack_values(values), len(values)
        return
    room = max_bytes - ARRAY_HEADER_BYTES
    begin, before = 0, 0
    previous = 0
    for index, size in enumerate(accumulate(length + VALUE_OVERHEAD_BYTES for length in lengths)):
        if index > begin and (size - before > room or index - begin >= max_records):
            part = values[begin:index]
            yield pack_values(part), len(part)
            begin, before = index, previous
        previous = size
    part = values[begin:]
    yield pack_values(part), len(part)
