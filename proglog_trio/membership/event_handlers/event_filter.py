"""Which events somebody wants, as Serf writes it: `member-join,user:deploy,query:load`, or `*` for all."""

from __future__ import annotations

from attrs import frozen

from proglog_trio.membership.serf.member import MemberEventKind

EVERYTHING = "*"
USER, QUERY = "user", "query"
MAX_FILTERS = 64
"""In one text."""
_NAMED = frozenset({USER, QUERY})
_TYPES = frozenset({EVERYTHING, USER, QUERY, *(f"member-{kind.value}" for kind in MemberEventKind)})


@frozen
class EventFilter:
    """One kind of event.

    Attributes:
        type: as Serf calls it, such as `member-join`, `user` or `query`; `*`: all of them.
        name: of the user event or the query; None: any.
    """

    type: str
    name: str | None = None

    def passes(self, type: str, name: str | None = None) -> bool:  # noqa: A002 - Serf's own word
        """Tell whether an event of this type, and of this name if it has one, is wanted."""
        if self.type == EVERYTHING:
            return True
        return self.type == type and (self.name is None or self.name == name)


def parse_filters(text: str) -> tuple[EventFilter, ...]:
    """Return the filters that a text stands for; an empty one stands for all events.

    Raises:
        ValueError: one of them is none.
    """
    parts = text.split(",") if text else [EVERYTHING]
    if len(parts) > MAX_FILTERS:
        raise ValueError(f"{len(parts)} kinds of events are more than {MAX_FILTERS}")
    return tuple(map(_parse_one, parts))


def _parse_one(part: str) -> EventFilter:
    type_, separator, name = part.partition(":")
    if type_ not in _TYPES or (separator and type_ not in _NAMED):
        raise ValueError(
            f"{part!r} is no kind of event: there are {', '.join(sorted(_TYPES))}, user:NAME and query:NAME"
        )
    # As agents do, `user:` is any.
    return EventFilter(type_, name or None)


def passes_any(filters: tuple[EventFilter, ...], type: str, name: str | None = None) -> bool:  # noqa: A002 - as above
    """Tell whether one of the filters lets an event pass."""
    return any(one.passes(type, name) for one in filters)
