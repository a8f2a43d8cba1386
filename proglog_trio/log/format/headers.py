"""A record's headers as Python has them: a map of text to bytes, in which no name comes twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

Buffer = bytes | bytearray | memoryview
GivenHeaders = Mapping[str, Buffer] | Iterable[tuple[str, Buffer]]
"""What headers may be given as: a mapping, or pairs of a name and its content."""


class NoHeaders(dict[str, bytes]):
    """The headers of a record that has none: an empty dict that stays empty, since all such records share it.

    It has a hash, and is the same object when it is copied or pickled, as the None that it takes the place of.
    """

    __slots__ = ()

    def _refuse(self, *_arguments: object, **_named: object) -> NoReturn:
        raise TypeError("these are the headers of a record that has none, they cannot be changed: make a dict of them")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none, since it changes
        return hash(())

    def __reduce__(self) -> str:
        return "NO_HEADERS"


NO_HEADERS = NoHeaders()


def headers_of(given: GivenHeaders | None) -> Mapping[str, Any]:
    """Return headers as a map, in the order in which they are given; the types of its names and contents are unchecked.

    Raises:
        TypeError: they are neither a mapping nor pairs.
        ValueError: a name comes twice.
    """
    if given is None:
        return NO_HEADERS
    if isinstance(given, dict):
        return given or NO_HEADERS
    # Of a mapping's items too: what holds headers of HTTP gives a name for each of its contents.
    pairs: object = given.items() if isinstance(given, Mapping) else given
    if not isinstance(pairs, Iterable) or isinstance(pairs, str | Buffer):
        raise TypeError(f"headers must be a mapping or pairs (name, content), not {type(given).__name__}")
    headers: dict[str, Any] = {}
    for number, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"header {number} is no pair (name, content)")
        name, content = pair
        if not isinstance(name, str):
            raise TypeError(f"a header's name must be str, not {type(name).__name__}")
        if name in headers:
            raise ValueError(
                f"header {name!r} is given twice, and a record has one content for a name: "
                "join the contents, or give each a name of its own"
            )
        headers[name] = content
    return headers or NO_HEADERS
