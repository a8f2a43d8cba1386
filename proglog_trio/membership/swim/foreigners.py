"""Members of other clusters that are heard of: which they are, and where, so that nothing that they say counts.

Two clusters hear of each other when an address of one is given to a machine of the other, when a member joins through
the wrong address, or through an agent that is a member of both. What tells them apart is not SWIM's: a function is
passed in that says of a member's meta where it belongs.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Generic, TypeVar

from attrs import define, field, frozen

from proglog_trio.membership.swim.node import Endpoint

MAX_FOREIGNERS = 1024
"""Endpoints, and names, of members of other clusters that are remembered; beyond this the oldest is forgotten."""
FOREIGN_SECONDS = 300.0
"""For how long one is remembered after it was last heard of; a machine may be given back meanwhile."""
_REMEMBERED_METAS = 1024
"""Metas of which it is remembered where they belong: the same are told again and again."""

_Key = TypeVar("_Key", bound=Hashable)


class Belonging(enum.Enum):
    """Where a member belongs, by what it says of itself."""

    HERE = "here"
    """To this cluster."""
    ELSEWHERE = "elsewhere"
    """To another one: it must not be merged."""
    UNSAID = "unsaid"
    """It does not say: it is a plain member that may be merged."""


def unsaid(_meta: bytes) -> Belonging:
    """Return where members belong when nothing tells clusters apart."""
    return Belonging.UNSAID


@frozen
class Sender:
    """Who sent a state, as far as its connection tells.

    Attributes:
        endpoint: the one that was dialled; None: the other side dialled.
        address: the address of the other side, 4 or 16 bytes; empty: not known.
    """

    endpoint: Endpoint | None = None
    address: bytes = b""


@define(eq=False)
class _Recent(Generic[_Key]):
    """Keys with the time at which each was last heard of, oldest first."""

    _heard: dict[_Key, float] = field(factory=dict)

    def note(self, key: _Key, now: float) -> bool:
        """Note that a key was heard of now; tell whether that is news."""
        known = self._heard.pop(key, None)
        self._heard[key] = now
        if len(self._heard) > MAX_FOREIGNERS:
            del self._heard[next(iter(self._heard))]
        return known is None or now - known >= FOREIGN_SECONDS

    def has(self, key: _Key, now: float) -> bool:
        heard = self._heard.get(key)
        return heard is not None and now - heard < FOREIGN_SECONDS

    def forget(self, key: _Key) -> None:
        self._heard.pop(key, None)

    def __len__(self) -> int:
        return len(self._heard)


@define(eq=False)
class Foreigners:
    """The members of other clusters that were heard of lately.

    Attributes:
        belonging: says of a member's meta where it belongs.
    """

    belonging: Callable[[bytes], Belonging] = unsaid
    _endpoints: _Recent[Endpoint] = field(factory=_Recent)
    _names: _Recent[str] = field(factory=_Recent)

    def __attrs_post_init__(self) -> None:
        self.belonging = lru_cache(maxsize=_REMEMBERED_METAS)(self.belonging)

    def note_name(self, name: str, now: float) -> None:
        """Note that one has this name, which is no member's of this cluster."""
        self._names.note(name, now)

    def note(self, endpoint: Endpoint, now: float) -> bool:
        """Note that one is at an endpoint; tell whether that is news."""
        return self._endpoints.note(endpoint, now)

    def is_at(self, endpoint: Endpoint, now: float) -> bool:
        """Tell whether one was heard of at an endpoint lately."""
        return self._endpoints.has(endpoint, now)

    def is_named(self, name: str, now: float) -> bool:
        """Tell whether one of a name was heard of lately."""
        return self._names.has(name, now)

    def welcome(self, name: str, endpoint: Endpoint) -> None:
        """Note that a member of this cluster has this name and is there, which ends what was noted of another."""
        self._names.forget(name)
        self._endpoints.forget(endpoint)

    def __len__(self) -> int:
        """How many endpoints are remembered; 0 in nearly every cluster."""
        return len(self._endpoints)
