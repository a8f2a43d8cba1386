"""The forms in which commands read and write records: what a delimiter then stands behind.

What a form promises is that what one command writes, the other reads as the same records:

- json: all of a record, whatever its bytes.
- base64: value and, with a key separator, key, whatever their bytes.
- raw: values in which no delimiter occurs, and none of which is empty.
"""

import base64
import binascii
import string
from collections.abc import Iterable
from typing import Protocol

from attrs import frozen

from proglog_trio.cli.formats.json_records import parsed_record
from proglog_trio.cli.formats.record_options import Format
from proglog_trio.cli.formats.records import record_line
from proglog_trio.client import ConsumedBatch, Record

BASE64_ALPHABET = frozenset((string.ascii_letters + string.digits + "+/=").encode())
_FIRST_PRINTABLE = 0x20
# What a byte can become in JSON at most: \u0000.
_LONGEST_ESCAPE = 6


class RecordForm(Protocol):
    """How one record is written."""

    def texts(self, batch: ConsumedBatch) -> Iterable[bytes]:
        """Return the text of each record of a batch; raises MalformedRecord."""

    def read(self, text: bytes) -> Record:
        """Return what a text stands for; raises ValueError saying what is wrong with it."""

    def longest(self, record_bytes: int) -> int:
        """Return how many bytes the text of a record of so many bytes can have."""


@frozen
class RawForm:
    """The value as it is, behind the key if there is a separator for it."""

    key_separator: bytes | None = None

    def texts(self, batch: ConsumedBatch) -> Iterable[bytes]:
        """See RecordForm."""
        if self.key_separator is None:
            return batch.values()
        return (_keyed(record.key, self.key_separator, record.value) for record in batch)

    def read(self, text: bytes) -> Record:
        """See RecordForm."""
        if not text:
            raise ValueError("it is empty")
        return Record(*_taken_apart(text, self.key_separator))

    def longest(self, record_bytes: int) -> int:
        """See RecordForm."""
        return record_bytes


@frozen
class Base64Form:
    """The value in base64 (RFC 4648, section 4), behind the key in base64 if there is a separator for it."""

    key_separator: bytes | None = None

    def texts(self, batch: ConsumedBatch) -> Iterable[bytes]:
        """See RecordForm."""
        encode = base64.b64encode
        if self.key_separator is None:
            return map(encode, batch.values())
        separator = self.key_separator
        return (
            _keyed(None if record.key is None else encode(record.key), separator, encode(record.value))
            for record in batch
        )

    def read(self, text: bytes) -> Record:
        """See RecordForm."""
        if not text:
            raise ValueError("it is empty")
        value, key = _taken_apart(text, self.key_separator)
        return Record(_decoded("value", value), None if key is None else _decoded("key", key))

    def longest(self, record_bytes: int) -> int:
        """See RecordForm."""
        return record_bytes * 4 // 3 + 8 + len(self.key_separator or b"")


@frozen
class JsonForm:
    """A JSON object: where the record was read, and its fields; see record_line."""

    def texts(self, batch: ConsumedBatch) -> Iterable[bytes]:
        """See RecordForm."""
        return (
            record_line(
                {
                    "offset": record.offset,
                    "node": record.node,
                    "origin": str(record.origin),
                    "sequence": record.sequence,
                    "log_time": record.log_time,
                },
                record,
            )[:-1]
            for record in batch
        )

    def read(self, text: bytes) -> Record:
        """See RecordForm."""
        return parsed_record(text)

    def longest(self, record_bytes: int) -> int:
        """See RecordForm."""
        return record_bytes * _LONGEST_ESCAPE + 1024


def record_form(name: Format, delimiter: bytes, key_separator: bytes | None) -> RecordForm:
    """Return a form; raises ValueError naming the options that do not go together."""
    if key_separator is not None and delimiter and delimiter in key_separator:
        raise ValueError("--key-separator has what --delimiter says ends a record: give another one")
    if name == "raw":
        return RawForm(key_separator)
    if not delimiter or max(delimiter) >= _FIRST_PRINTABLE:
        raise ValueError(
            f"--format {name} needs a --delimiter of control characters, such as \\n or \\0: others stand in its texts"
        )
    if name == "json":
        if key_separator is not None:
            raise ValueError("--key-separator is not for --format json, which has the key in a field: leave it out")
        return JsonForm()
    if key_separator is not None and not BASE64_ALPHABET.isdisjoint(key_separator):
        raise ValueError("--key-separator must have nothing that stands in base64: take for instance a colon or a tab")
    return Base64Form(key_separator)


def is_value_alone(form: RecordForm) -> bool:
    """Tell whether a text is the value and nothing else: then many of them can be packed in one go."""
    return form == RawForm()


def _keyed(key: bytes | None, separator: bytes, value: bytes) -> bytes:
    return value if key is None else key + separator + value


def _taken_apart(text: bytes, separator: bytes | None) -> tuple[bytes, bytes | None]:
    """Return value and key."""
    if separator is None:
        return text, None
    key, found, value = text.partition(separator)
    return (value, key) if found else (text, None)


def _decoded(what: str, text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its {what} is no base64: {error}") from None
