"""Reading records that are JSON objects, as records.py writes them or as anybody may.

Bytes are text in ``value``, ``key`` and ``headers``, or base64 in ``value_base64``, ``key_base64`` and
``headers_base64``: whatever is easier for who writes them.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from proglog_trio.client import Record

PLACE = frozenset({"kind", "offset", "node", "origin", "sequence", "log_time"})
"""The fields that say where a record was read or dumped. Who reads them again passes over them: they get others."""
FIELDS = ("value", "value_base64", "key", "key_base64", "headers", "headers_base64", "timestamp")
_SHOWN_BYTES = 40


def parsed_record(text: bytes) -> Record:
    """Return the record that an object stands for; raises ValueError saying what is wrong with it.

    A field that is none of a record's is refused: it may be one that was misspelled.
    """
    fields = _object(text)
    for name in fields:
        if name not in PLACE and name not in FIELDS:
            raise ValueError(f"{_shown(name)} is no field of a record: those are {', '.join(FIELDS)}")
    value = _bytes(fields, "value")
    key = _bytes(fields, "key")
    headers = _headers(fields)
    timestamp = fields.get("timestamp")
    if timestamp is not None and (type(timestamp) is not int or not -(2**63) <= timestamp < 2**63):
        raise ValueError("its timestamp must be a whole number of milliseconds, of 64 bits")
    if not value and key is None and not headers:
        raise ValueError("it is empty: it has no value, no key and no headers")
    return Record(value or b"", key, headers or None, timestamp)


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text.decode(), object_pairs_hook=_without_repetition)
    except UnicodeDecodeError:
        raise ValueError("it is no UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        again = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"it has {_shown(again)} twice")
    return found


def _bytes(fields: Mapping[str, Any], name: str) -> bytes | None:
    """Return what stands in one of two fields; None, also as null: neither is there."""
    text, encoded = fields.get(name), fields.get(f"{name}_base64")
    if text is not None and encoded is not None:
        raise ValueError(f"it has both {name} and {name}_base64: one says all")
    if encoded is not None:
        return _decoded(f"{name}_base64", encoded)
    return None if text is None else _encoded(name, text)


def _headers(fields: Mapping[str, Any]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for field, read in (("headers", _encoded), ("headers_base64", _decoded)):
        headers = fields.get(field)
        if headers is None:
            continue
        if not isinstance(headers, dict):
            raise ValueError(f"its {field} must be an object: names, and what each has")
        for name, content in headers.items():
            _encoded(f"header {_shown(name)}", name)
            if name in found:
                raise ValueError(f"the header {_shown(name)} stands in headers and in headers_base64")
            found[name] = read(f"header {_shown(name)}", content)
    return found


def _encoded(what: str, text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"its {what} must be text; bytes that are none go to the field that ends with _base64")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"its {what} has a surrogate that is half of a character") from None


def _decoded(what: str, text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"its {what} must be text in base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"its {what} is no base64: {error}") from None


def _shown(name: str) -> str:
    """Return a name for a message, and of a long one its beginning."""
    return repr(name if len(name) <= _SHOWN_BYTES else f"{name[:_SHOWN_BYTES]}…")
