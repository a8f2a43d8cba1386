"""Records and their payload: a msgpack array of records, packed by the producer and never changed.

A record is the array [value, key, headers, timestamp]: value and key are byte strings, headers is a map of text to
byte strings, timestamp an integer of milliseconds since the Unix epoch. Elements at its end may be left out or nil; a
reader ignores elements after the fourth. The server checks that a payload is whole without making an object of any
record in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgpack
from attrs import field, frozen

from proglog_trio.errors import PayloadError
from proglog_trio.log.format.checksum import crc32c
from proglog_trio.log.format.headers import NO_HEADERS, headers_of
from proglog_trio.steps import Steps, complete

NEWEST_TIMESTAMP = 2**63 - 1
_ARRAY_OF_ONE = b"\x91"


@frozen
class Record:
    """One record, as its producer made it.

    Attributes:
        value: what is recorded.
        key: what it is about, or None.
        headers: what goes with it, text to bytes; empty if nothing does. They may be given as a mapping, as pairs
            (name, content), or as None. A name that comes twice is a ValueError.
        timestamp: when it happened, in milliseconds since the Unix epoch, or None.
    """

    value: bytes
    key: bytes | None = None
    headers: Mapping[str, bytes] = field(default=NO_HEADERS, converter=headers_of)
    timestamp: int | None = None


def _elements(record: Record) -> list[object]:
    if record.timestamp is not None:
        return [record.value, record.key, record.headers or None, record.timestamp]
    if record.headers:
        return [record.value, record.key, record.headers]
    if record.key is not None:
        return [record.value, record.key]
    return [record.value]


def pack_records(records: Iterable[Record]) -> bytes:
    """Return the payload that holds these records.

    Raises:
        ValueError: a record is empty (no value, key, headers), or has a field of another type or size.
    """
    rows = []
    for index, record in enumerate(records):
        if not record.value and record.key is None and not record.headers:
            raise ValueError(f"record {index} is empty: it has no value, no key and no headers")
        rows.append(_elements(record))
    try:
        payload: bytes = msgpack.packb(rows, use_bin_type=True)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"a record cannot be packed: {error}") from error
    return payload


def pack_values(values: Sequence[bytes]) -> bytes:
    """Return the payload of records that are values alone.

    Raises:
        ValueError: one of them is empty.
    """
    if not all(values):
        empty = next(index for index, value in enumerate(values) if not value)
        raise ValueError(f"record {empty} is empty: it has no value, no key and no headers")
    lengths = set(map(len, values))
    if len(lengths) == 1:
        # Values of one length, as of most that write fast: they share what stands before each of them, so that no
        # object is made of any record. A quarter of the time.
        before = _ARRAY_OF_ONE + _msgpack_header(lengths.pop(), 0xC4)
        return b"".join((array_header(len(values)), before, before.join(values)))
    # zip makes the one-element arrays in C.
    payload: bytes = msgpack.packb(list(zip(values, strict=True)), use_bin_type=True)
    return payload


def array_header(count: int) -> bytes:
    """Return what a msgpack array of so many elements begins with."""
    if count < 16:
        return bytes((0x90 | count,))
    return _msgpack_header(count, 0xDB)


def _msgpack_header(number: int, first: int) -> bytes:
    """Return msgpack's shortest type byte and length, of a family whose 8-bit form has the type byte first.

    Arrays have no 8-bit form: theirs begins with the 16-bit one.
    """
    if number < 1 << 8 and first != 0xDB:
        return bytes((first, number))
    if number < 1 << 16:
        return bytes((first + 1,)) + number.to_bytes(2, "big")
    return bytes((first + 2,)) + number.to_bytes(4, "big")


def payload_crc(payload: bytes) -> int:
    """Return the CRC-32C of a payload."""
    return crc32c(payload)


def _array_header(payload: bytes) -> tuple[int, int]:
    """Return how many elements a payload's array has, and how many bytes say so; raises PayloadError."""
    first = payload[0] if payload else -1
    if first & 0xF0 == 0x90:
        return first & 0x0F, 1
    if first == 0xDC and len(payload) >= 3:
        return int.from_bytes(payload[1:3], "big"), 3
    if first == 0xDD and len(payload) >= 5:
        return int.from_bytes(payload[1:5], "big"), 5
    raise PayloadError("the payload does not begin with a msgpack array")


CHECKED_AT_ONCE_BYTES = 256 * 1024
"""Of a payload, in one step: two milliseconds where every byte is an element."""
CHECKED_AT_ONCE_VALUES = 64 * 1024
"""Of values of one length, in one step: half a millisecond."""


def check_payload(payload: bytes, count: int) -> None:
    """Check, in C and without making an object of any record, that a payload is one whole array of count elements.

    Raises:
        PayloadError: it is not.
    """
    complete(check_payload_steps(payload, count))


def check_payload_steps(payload: bytes, count: int) -> Steps[None]:
    """Do as check_payload, in steps: elements may be a byte each, and then 4 MiB of them take 20 ms."""
    length, header_bytes = _array_header(payload)
    if length != count:
        raise PayloadError(f"the payload is an array of {length} records, the batch says {count}")
    if (yield from _is_of_equal_values(payload, header_bytes, count)):
        return
    unpacker = msgpack.Unpacker(max_buffer_size=len(payload))
    with memoryview(payload) as view:
        for start in range(0, len(payload), CHECKED_AT_ONCE_BYTES):
            if start:
                yield
            unpacker.feed(view[start : start + CHECKED_AT_ONCE_BYTES])
            try:
                # Goes on in the middle of the array, where it had no more.
                unpacker.skip()
            except msgpack.OutOfData:
                continue
            except (ValueError, RecursionError) as error:
                # msgpack's FormatError and StackError are ValueErrors.
                reason = str(error) or type(error).__name__
                raise PayloadError(f"the payload is not msgpack near byte {unpacker.tell()}: {reason}") from None
            break
        else:
            raise PayloadError(f"the payload ends in the middle of a record, after {len(payload)} bytes")
    if unpacker.tell() != len(payload):
        raise PayloadError(f"{len(payload) - unpacker.tell()} bytes follow the payload's array")


def _is_of_equal_values(payload: bytes, start: int, count: int) -> Steps[bool]:
    """Tell, in steps, whether a payload is, from a place on, count values of one length, as pack_values makes them.

    What most who write fast send: it is known by the few bytes before each value, an eighth of the time of looking at
    all. A payload of which this is not so may be a whole one all the same.
    """
    if not count or (len(payload) - start) % count:
        return False
    # From one value to the next.
    stride = (len(payload) - start) // count
    length_bytes = {0xC4: 1, 0xC5: 2, 0xC6: 4}.get(payload[start + 1] if stride > 1 else 0)
    if length_bytes is None:
        return False
    header_bytes = 2 + length_bytes
    before = payload[start : start + header_bytes]
    # Where the header itself is cut off, it would need less than no value.
    if before[:1] != _ARRAY_OF_ONE or int.from_bytes(before[2:], "big") != stride - header_bytes:
        return False
    rows_bytes = stride * CHECKED_AT_ONCE_VALUES
    for begin in range(start, len(payload), rows_bytes):
        if begin > start:
            yield
        rows = min(CHECKED_AT_ONCE_VALUES, (len(payload) - begin) // stride)
        end = begin + rows * stride
        columns = (payload[begin + place : end : stride] for place in range(header_bytes))
        if any(column != rows * before[place : place + 1] for place, column in enumerate(columns)):
            return False
    return True


def unpack_rows(payload: bytes) -> list[tuple[object, ...]]:
    """Return a payload's records as bare tuples, unchecked: the fast way, for a reader that checks what it touches.

    Raises:
        PayloadError: the payload is no msgpack array.
    """
    try:
        # Text that is not UTF-8 spoils its own record only: see record_of_row.
        rows = msgpack.unpackb(
            payload, use_list=False, raw=False, strict_map_key=False, unicode_errors="surrogateescape"
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise PayloadError(f"the payload is not msgpack: {str(error) or type(error).__name__}") from None
    if not isinstance(rows, tuple):
        raise PayloadError("the payload is no msgpack array")
    return list(rows)


def _is_text(name: object) -> bool:
    if not isinstance(name, str):
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def record_of_row(row: object, index: int) -> Record:
    """Return the record of one of unpack_rows' tuples; raises PayloadError naming index when it is none."""
    if not isinstance(row, tuple) or not row:
        raise PayloadError(f"record {index} of its batch is no array", index)
    value = row[0]
    key = row[1] if len(row) > 1 else None
    headers = row[2] if len(row) > 2 else None
    timestamp = row[3] if len(row) > 3 else None
    if value is None:
        value = b""
    if not isinstance(value, bytes):
        raise PayloadError(f"record {index} of its batch has a value of type {type(value).__name__}, not bytes", index)
    if key is not None and not isinstance(key, bytes):
        raise PayloadError(f"record {index} of its batch has a key of type {type(key).__name__}, not bytes", index)
    if headers is not None and not (
        isinstance(headers, dict)
        and all(_is_text(name) and isinstance(content, bytes) for name, content in headers.items())
    ):
        raise PayloadError(f"record {index} of its batch has headers that are no map of text to bytes", index)
    if timestamp is not None and (
        not isinstance(timestamp, int)
        or isinstance(timestamp, bool)
        or not -NEWEST_TIMESTAMP - 1 <= timestamp <= NEWEST_TIMESTAMP
    ):
        raise PayloadError(f"record {index} of its batch has a timestamp that is no 64-bit integer", index)
    return Record(value, key, headers, timestamp)


def unpack_records(payload: bytes) -> list[Record]:
    """Return a payload's records; raises PayloadError, naming the index of the first element that is no record."""
    return [record_of_row(row, index) for index, row in enumerate(unpack_rows(payload))]
