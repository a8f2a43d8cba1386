"""A handler: what is run for which events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from attrs import frozen

from proglog_trio.membership.event_handlers.event_filter import EventFilter, parse_filters

if TYPE_CHECKING:
    from proglog_trio.membership.events.coalescing import Event

LOGGED_SCRIPT_CHARACTERS = 200

Action = Callable[["Event"], Awaitable[bytes | None]]
"""Is awaited with an event; what it returns for a query is the answer, and None is none."""


@frozen
class EventHandler:
    """What is run for some events.

    Attributes:
        filters: which events.
        action: a script, for `/bin/sh -c`, or what is awaited.
    """

    filters: tuple[EventFilter, ...]
    action: str | Action

    @classmethod
    def parse(cls, text: str) -> EventHandler:
        """Read `member-join,user:deploy=SCRIPT`, or `SCRIPT` alone for all events.

        Raises:
            ValueError: saying what is wrong.
        """
        wanted, separator, script = text.partition("=")
        if not separator:
            wanted, script = "", text
        if not script.strip():
            raise ValueError(f"{text!r} has no script: write {wanted or 'member-join'}=SCRIPT")
        try:
            return cls(parse_filters(wanted.strip()), script)
        except ValueError as error:
            raise ValueError(f"{error}; for all events, write *={text}") from None

    @property
    def called(self) -> str:
        """What it is called in the log."""
        if isinstance(self.action, str):
            return self.action[:LOGGED_SCRIPT_CHARACTERS]
        return getattr(self.action, "__qualname__", type(self.action).__name__)


def shown(handlers: Iterable[EventHandler]) -> dict[str, str]:
    """Return what is run, by the filter of its events, as `serf info` shows it."""
    return {f"{one.type}:{one.name or ''}": handler.called for handler in handlers for one in handler.filters}
