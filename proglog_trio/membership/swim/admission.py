"""Who may be a member, beside what tells clusters apart: by its address, and by what the program above says of it.

Whether a member may be one is asked when it would become one: it is not known, or it was gone, or is at another
address. Of a member in good standing it is not asked again.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from proglog_trio.membership.swim.node import Endpoint


def any_address(_address: bytes) -> bool:
    """Return True: members may have any address."""
    return True


def anybody(_name: str, _endpoint: Endpoint, _meta: bytes) -> str | None:
    """Return None: everybody may be a member."""
    return None


@frozen
class Admission:
    """What is asked about members.

    Attributes:
        allows: tells whether a member may have an address of 4 or 16 bytes, wherever it was heard of.
        judge: returns why a member of this name, at this endpoint and with this meta may not be one; None: it may.
    """

    allows: Callable[[bytes], bool] = any_address
    judge: Callable[[str, Endpoint, bytes], str | None] = anybody


def not_allowed(host: str) -> str:
    """Return in words why a member at an address that is not allowed is not merged."""
    return f"its address, {host}, is in none of the networks that members may be in"
