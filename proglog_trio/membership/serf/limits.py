"""How large events, queries and answers may be: the sender's limits, which are Serf's.

What others send is not measured by them, since their limits may be higher: of that only the limits of packets and
streams hold.
"""

from __future__ import annotations

from typing import Any

from attrs import Attribute

from proglog_trio.errors import ProglogError

MAX_LIMIT_BYTES = 9 * 1024
"""No limit can be set higher; agents have the same bound."""
DEFAULT_USER_EVENT_BYTES = 512
DEFAULT_QUERY_BYTES = 1024
DEFAULT_QUERY_RESPONSE_BYTES = 1024


class MessageTooLarge(ProglogError):
    """An event, a query or an answer of more bytes than this node is configured to send; nothing was sent."""


def limit_bytes(_instance: object, attribute: Attribute[Any], value: int) -> None:
    """Validate a limit; raises ValueError."""
    if not 1 <= value <= MAX_LIMIT_BYTES:
        raise ValueError(f"{attribute.name} must be 1 to {MAX_LIMIT_BYTES} bytes, not {value}")


def check_size(what: str, size: int, limit: int) -> None:
    """Raise MessageTooLarge if something has more bytes than a limit."""
    if size > limit:
        raise MessageTooLarge(f"{what} of {size} bytes is larger than the limit, which is {limit}")
