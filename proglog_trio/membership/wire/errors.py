"""The one error for everything that arrives malformed."""

from __future__ import annotations

from typing import Self

from proglog_trio.errors import ProglogError


class DecodingError(ProglogError):
    """Bytes from the network that are no message, break a limit, or cannot be decrypted.

    Attributes:
        what: what is wrong.
        where: where it is, from the outside in, such as ("packet", "part 2 of 3", "alive", "Port").
    """

    def __init__(self, what: str, *where: str) -> None:
        super().__init__(": ".join((*where, what)))
        self.what = what
        self.where = where

    def within(self, *where: str) -> Self:
        """Return this error as it is seen from further outside."""
        return type(self)(self.what, *where, *self.where)


class NotDecrypted(DecodingError):
    """What arrived is encrypted with another key than any of this node's, or is plain and should not be, or not so."""
