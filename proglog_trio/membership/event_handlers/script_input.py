"""What a script sees of an event: variables of its environment, and its standard input, as Serf's agents have them.

Source: the page on event handlers of Serf's documentation; what it leaves out was learned from running agents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from proglog_trio.membership.event_handlers.event_filter import QUERY, USER
from proglog_trio.membership.events.asked_query import AskedQuery
from proglog_trio.membership.events.coalescing import Event
from proglog_trio.membership.serf.member import Member, MemberEvent
from proglog_trio.membership.serf.user_events import UserEvent

_NOT_IN_NAMES = re.compile("[^A-Z0-9_]")


def type_of(event: Event) -> str:
    """Return what Serf calls an event of this type."""
    match event:
        case MemberEvent(kind):
            return f"member-{kind.value}"
        case UserEvent():
            return USER
        case AskedQuery():
            return QUERY


def name_of(event: Event) -> str | None:
    """Return the name of a user event or query; None: it has none."""
    return None if isinstance(event, MemberEvent) else event.name


def variables(event: Event, me: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Return what a script finds in its environment besides what this process has.

    Args:
        event: what happened.
        me: the name of this node.
        tags: of this node.
    """
    found = {
        "SERF_EVENT": type_of(event),
        "SERF_SELF_NAME": me,
        "SERF_SELF_ROLE": tags.get("role", ""),
        **{f"SERF_TAG_{_NOT_IN_NAMES.sub('_', tag.upper())}": value for tag, value in tags.items()},
    }
    match event:
        case UserEvent():
            found |= {"SERF_USER_EVENT": event.name, "SERF_USER_LTIME": str(event.ltime)}
        case AskedQuery():
            found |= {"SERF_QUERY_NAME": event.name, "SERF_QUERY_LTIME": str(event.ltime)}
    # An environment ends its strings with a zero byte; a name or a tag can have any.
    return {name: value.replace("\0", "") for name, value in found.items()}


def standard_input(event: Event) -> bytes:
    """Return what a script reads: the payload, or a line for each member."""
    if isinstance(event, MemberEvent):
        return b"".join(map(_line, event.members))
    payload = event.payload
    return payload if not payload or payload.endswith(b"\n") else payload + b"\n"


def _line(member: Member) -> bytes:
    tags = ",".join(f"{name}={value}" for name, value in sorted(member.tags.items()))
    fields = (member.name, member.address, member.tags.get("role", ""), tags)
    return ("\t".join(map(_cleaned, fields)) + "\n").encode("utf-8", "surrogateescape")


def _cleaned(text: str) -> str:
    """Return text in which nothing is taken for the end of a field or of a line."""
    return text.replace("\t", "\\t").replace("\n", "\\n")
