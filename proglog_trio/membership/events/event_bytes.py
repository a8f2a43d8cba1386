"""What events count for, where it is bounded how many bytes of them wait."""

from __future__ import annotations

from proglog_trio.membership.events.asked_query import AskedQuery
from proglog_trio.membership.serf.member import MemberEvent
from proglog_trio.membership.serf.user_events import UserEvent


def payload_bytes(event: MemberEvent | UserEvent | AskedQuery) -> int:
    """Return how much an event counts for: what goes with it, and its name, are as long as some member wants."""
    return 0 if isinstance(event, MemberEvent) else len(event.name) + len(event.payload)
