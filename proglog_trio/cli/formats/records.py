"""Records as JSON, one object a line."""

import base64
import json
from collections.abc import Mapping
from typing import Any, Protocol


class RecordFields(Protocol):
    """What a record is made of, wherever it was read."""

    @property
    def value(self) -> bytes:
        """What is recorded."""

    @property
    def key(self) -> bytes | None:
        """What it is about."""

    @property
    def headers(self) -> Mapping[str, bytes]:
        """What goes with it."""

    @property
    def timestamp(self) -> int | None:
        """Milliseconds since the Unix epoch."""


def record_line(place: Mapping[str, Any], record: RecordFields) -> bytes:
    """Return a line with ``place`` and the record's fields that are set.

    Bytes that are UTF-8 are text in ``value``, ``key`` and ``headers``; others are in ``value_base64``, ``key_base64``
    and ``headers_base64`` instead.
    """
    fields = dict(place)
    if record.timestamp is not None:
        fields["timestamp"] = record.timestamp
    if record.key is not None:
        name, text = _text("key", record.key)
        fields[name] = text
    for header, data in record.headers.items():
        name, text = _text("headers", data)
        fields.setdefault(name, {})[header] = text
    name, text = _text("value", record.value)
    fields[name] = text
    return json_line(fields)


def json_line(fields: Mapping[str, Any]) -> bytes:
    """Return an object as one line; a header's name that is no text keeps its bytes as lone surrogates."""
    return json.dumps(fields, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def _text(name: str, data: bytes) -> tuple[str, str]:
    try:
        return name, data.decode()
    except UnicodeDecodeError:
        return f"{name}_base64", base64.b64encode(data).decode()
