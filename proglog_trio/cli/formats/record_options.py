"""How records are written in a stream of bytes, as commands are told: in which form, and what ends each."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from cyclopts import Parameter, Token

Format = Literal["raw", "json", "base64"]
NEWLINE = b"\n"
MAX_DELIMITER_BYTES = 256

_ESCAPES = {"0": b"\0", "n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\"}
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|.?)", re.DOTALL)


def parse_delimiter(text: str) -> bytes:
    r"""Read a delimiter: as it is, but for the escapes ``\0``, ``\n``, ``\r``, ``\t``, ``\\`` and ``\xHH``.

    No argument can have a zero byte, hence the escapes. Bytes that are no UTF-8 are taken as they are. Empty: there is
    none. Raises ValueError.
    """
    found, end = b"", 0
    for match in _ESCAPE.finditer(text):
        found += _encoded(text[end : match.start()])
        name, end = match[1], match.end()
        if name.startswith("x") and len(name) == 3:
            found += bytes.fromhex(name[1:])
        elif name in _ESCAPES:
            found += _ESCAPES[name]
        else:
            raise ValueError(f"{match[0]!r} is no escape: those are \\0, \\n, \\r, \\t, \\\\ and \\xHH")
    found += _encoded(text[end:])
    if len(found) > MAX_DELIMITER_BYTES:
        raise ValueError(f"a delimiter has at most {MAX_DELIMITER_BYTES} bytes, not {len(found)}")
    return found


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _convert(_type: type, tokens: Sequence[Token]) -> bytes:
    return parse_delimiter(tokens[0].value)


def _shown(value: bytes) -> str:
    return repr(value)[2:-1]


Delimiter = Annotated[
    bytes,
    Parameter(
        name="--delimiter",
        converter=_convert,
        n_tokens=1,
        metavar="TEXT",
        allow_leading_hyphen=True,
        accepts_keys=False,
        show_default=_shown,
        help="What ends each record. It may have the escapes \\0 (a zero byte), \\n, \\r, \\t, \\\\ and \\xHH; empty, "
        "nothing does.",
    ),
]
"""The option of the commands that read or write records."""
