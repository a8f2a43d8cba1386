"""What a command gives records that have none of their own: a key, headers, a timestamp."""

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from attrs import evolve, frozen
from cyclopts import Parameter, Token

if TYPE_CHECKING:
    from proglog_trio.client import Record

# what packing adds to a header at most: the lengths of its name and of what it has
_HEADER_BYTES = 10


def _read_headers(_type: type, tokens: Sequence[Token]) -> tuple[tuple[str, bytes], ...]:
    found: dict[str, bytes] = {}
    for token in tokens:
        name, separator, content = token.value.partition("=")
        if not separator or not name or not _is_text(name):
            raise ValueError(f"{token.value!r} is no header: write NAME=TEXT")
        if name in found:
            raise ValueError(f"The header {name!r} is given twice: a record has each once")
        found[name] = content.encode("utf-8", "surrogateescape")
    return tuple(found.items())


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_timestamp(_type: type, tokens: Sequence[Token]) -> int | Literal["now"]:
    text = tokens[0].value
    if text == "now":
        return "now"
    if not re.fullmatch(r"-?\d{1,19}", text, re.ASCII) or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"{text!r} is no timestamp: write milliseconds since the Unix epoch, or now")
    return int(text)


GivenKey = Annotated[
    str | None,
    Parameter(
        name="--key",
        metavar="TEXT",
        allow_leading_hyphen=True,
        help="The key of each record that has none of its own.",
    ),
]
GivenHeaders = Annotated[
    tuple[tuple[str, bytes], ...],
    Parameter(
        name="--header",
        converter=_read_headers,
        accepts_keys=False,
        n_tokens=1,
        json_list=False,
        negative="",
        show_default=False,
        metavar="NAME=TEXT",
        allow_leading_hyphen=True,
        help="A header of each record that has none of this name. Repeatable.",
    ),
]
GivenTimestamp = Annotated[
    int | Literal["now"] | None,
    Parameter(
        name="--timestamp",
        converter=_read_timestamp,
        n_tokens=1,
        metavar="MILLISECONDS|now",
        show_choices=False,
        allow_leading_hyphen=True,
        help="The timestamp of each record that has none: milliseconds since the Unix epoch, or when it was read.",
    ),
]


@frozen(kw_only=True)
class Given:
    """What records have that have none of their own."""

    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int | Literal["now"] | None = None

    def add_to(self, record: "Record") -> "Record":
        """Return a record with what it did not have."""
        key = self.key if record.key is None else record.key
        headers = {**dict(self.headers), **(record.headers or {})} if self.headers else record.headers
        timestamp = record.timestamp
        if timestamp is None:
            timestamp = time.time_ns() // 1_000_000 if self.timestamp == "now" else self.timestamp
        return evolve(record, key=key, headers=headers, timestamp=timestamp)


def record_bytes(record: "Record") -> int:
    """Return how many bytes a record has at most when it is packed, but for what does not depend on its headers."""
    headers = record.headers or {}
    return (
        len(record.value)
        + len(record.key or b"")
        + sum(len(name.encode()) + len(headers[name]) + _HEADER_BYTES for name in headers)
    )
