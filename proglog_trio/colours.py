"""Whether what a stream shows may have colours, and the colours: as rich decides it, without loading rich."""

import os
from collections.abc import Mapping
from enum import Enum
from typing import TextIO

_NO_COLOURS = frozenset({"dumb", "unknown"})
_RESET = "\x1b[0m"


class Colour(Enum):
    """What stands before a text that is to look so (ECMA-48, SGR)."""

    ERROR = "\x1b[1;31m"
    FAILED = "\x1b[31m"
    WARNING = "\x1b[33m"
    PAST = "\x1b[2m"
    CHOSEN = "\x1b[1m"


def may_have_colours(stream: TextIO, environ: Mapping[str, str] | None = None) -> bool:
    """Tell whether a stream may get colours: if it is a terminal that has some, and nobody wants none.

    A NO_COLOR that is not empty forbids them (no-color.org); otherwise FORCE_COLOR allows them where there is no
    terminal, and forbids them if it is empty.
    """
    environ = os.environ if environ is None else environ
    if environ.get("NO_COLOR") or environ.get("TERM", "").lower() in _NO_COLOURS:
        return False
    forced = environ.get("FORCE_COLOR")
    if forced is not None:
        return forced != ""
    return stream.isatty()


def painted(text: str, colour: Colour | None, stream: TextIO) -> str:
    """Return a text in a colour, if the stream may have some; it must be printable already."""
    return text if colour is None or not may_have_colours(stream) else f"{colour.value}{text}{_RESET}"
