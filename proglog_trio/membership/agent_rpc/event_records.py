"""Events as agents send them to streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from attrs import AttrsInstance, frozen

from proglog_trio.membership.agent_rpc.member_records import member_record
from proglog_trio.membership.agent_rpc.messages import MemberEventRecord, QueryEventRecord, UserEventRecord
from proglog_trio.membership.event_handlers.event_filter import QUERY, USER, EventFilter, passes_any
from proglog_trio.membership.events.asked_query import AskedQuery
from proglog_trio.membership.serf.member import KnownMember, MemberEvent
from proglog_trio.membership.serf.user_events import UserEvent

MAX_MEMBERS_OF_RECORD = 64
"""Of those to whom something happened together, in one record: some milliseconds' worth."""


@frozen
class EventRecords:
    """Makes them.

    Attributes:
        known: the members, as the core has them now.
    """

    known: Mapping[str, KnownMember]

    def of(
        self,
        event: MemberEvent | UserEvent | AskedQuery,
        filters: tuple[EventFilter, ...],
        offer: Callable[[AskedQuery], int],
    ) -> Iterator[AttrsInstance]:
        """Yield the records of an event; none, if no filter lets it pass.

        Args:
            event: what happened.
            filters: what is wanted.
            offer: gives a query the number that it can be answered by.
        """
        match event:
            case MemberEvent(kind, members):
                name = f"member-{kind.value}"
                if passes_any(filters, name):
                    for start in range(0, len(members), MAX_MEMBERS_OF_RECORD):
                        some = members[start : start + MAX_MEMBERS_OF_RECORD]
                        records = tuple(member_record(member, self.known.get(member.name)) for member in some)
                        yield MemberEventRecord(name, records)
            case UserEvent():
                if passes_any(filters, USER, event.name):
                    yield UserEventRecord(USER, event.ltime, event.name, event.payload, event.coalesce)
            case AskedQuery():
                if passes_any(filters, QUERY, event.name):
                    yield QueryEventRecord(QUERY, offer(event), event.ltime, event.name, event.payload)
