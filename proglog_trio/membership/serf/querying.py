"""Queries: those of others, which are passed on and answered, and this node's own, whose answers are collected."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from proglog_trio.membership.serf import query_answers as queries
from proglog_trio.membership.serf.keys import KeyQuestion, KeyRefused, refusal
from proglog_trio.membership.serf.lamport import LamportClock
from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.serf.members import Members
from proglog_trio.membership.serf.open_queries import OpenQueries, default_timeout
from proglog_trio.membership.serf.seen import RecentRing
from proglog_trio.membership.swim.node import Endpoint, NodeStatus
from proglog_trio.membership.swim.swim import Swim
from proglog_trio.membership.wire.memberlist import UserMessage, encode_message
from proglog_trio.membership.wire.serf import (
    QUERY_FLAG_NO_BROADCAST,
    Query,
    QueryResponse,
    Relay,
    RelayAddress,
    RelayHeader,
    encode_serf,
)

MAX_RELAYS = 16
"""Others that a response goes through, whatever the query wants; each is a packet of this node's."""
ASKED_AT_ONCE = 32
"""Members that are asked again in one piece."""


@define(eq=False)
class Querying:
    """One member's part in queries.

    Attributes:
        swim: sends, and sets timers.
        members: who is asked, and who asks.
        clock: of queries; it is above the time of each that was heard of.
        on_key_query: called with each key query, to be answered later by answer_key_query; raises KeyRefused. None:
            there is no keyring.
        recent: the ids of the queries that were seen, by Lamport time.
    """

    swim: Swim
    members: Members
    clock: LamportClock
    _pass_on: Callable[[bytes], None]
    on_key_query: Callable[[KeyQuestion], None] | None = None
    recent: RecentRing[int] = field(factory=RecentRing)
    _open: OpenQueries = field(factory=OpenQueries)

    def ignore_before(self, ltime: int) -> None:
        """Count queries from before a Lamport time as seen."""
        self.recent.lowest = max(self.recent.lowest, ltime)

    def receive_response(self, response: QueryResponse) -> bool:
        """Count an answer; tell whether it is one to an open query of this node."""
        return self._open.receive(response)

    def receive(self, query: Query, payload: bytes) -> None:
        """Pass a query on, and answer it if it is for this node; payload: its bytes."""
        self.clock.witness(query.ltime)
        if not self.recent.add(query.ltime, query.id, self.clock.time):
            return
        if not query.flags & QUERY_FLAG_NO_BROADCAST:
            self._pass_on(payload)
        me = self.members.by_name.get(self.swim.name)
        if me is None or not queries.passes(query.filters, me) or not query.addr or not query.port:
            return
        asked_about = self.members.by_name.get(query.payload.decode("utf-8", "surrogateescape"))
        has_keyring = self.on_key_query is not None
        for response in queries.answers(query, me, asked_about, has_keyring=has_keyring):
            self._respond(query, response)
        if self.on_key_query is not None and query.name in queries.KEY_QUERIES:
            try:
                self.on_key_query(KeyQuestion.of(query))
            except KeyRefused as error:
                self.answer_key_query(query, refusal(str(error)))

    def answer_key_query(self, query: Query, payload: bytes) -> None:
        """Answer a key query that on_key_query was given."""
        if Endpoint(query.addr, query.port) == self.swim.rules.me.endpoint:
            # Its own question: nothing has to leave the node.
            self._open.receive(
                QueryResponse(ltime=query.ltime, id=query.id, from_node=self.swim.name, flags=0, payload=payload)
            )
        else:
            self._respond(query, queries.response_to(query, self.swim.name, payload))

    def _respond(self, query: Query, response: bytes) -> None:
        asker = Endpoint(query.addr, query.port)
        self.swim.outbox.send(asker, encode_message(UserMessage(response)))
        self._relay(response, asker, query)

    def ask(self, name: str, payload: bytes, answered: Callable[[str, bytes], None], ended: Callable[[], None]) -> None:
        """Ask all members that are alive, this node among them.

        Args:
            name: of the query.
            payload: with it.
            answered: called with each answer: the name of the member, and its payload. Each member answers once.
            ended: called once, when all have answered or the time that gossip needs is over.

        Raises:
            TooManyQueries: too many are open.
            ValueError: the payload is too large for a packet.
        """
        rules = self.swim.rules
        expected = [member.name for member in self.members.with_status(MemberStatus.ALIVE)]
        timeout = default_timeout(rules.profile, len(expected))
        query = Query(
            ltime=self.clock.tick(),
            id=rules.rng.getrandbits(32),
            addr=rules.me.endpoint.address,
            port=rules.me.endpoint.port,
            source_node=self.swim.name,
            filters=(),
            flags=0,
            relay_factor=0,
            timeout=round(timeout * 1e9),
            name=name,
            payload=payload,
        )
        encoded = encode_serf(query)
        if len(encoded) > self.swim.outbox.largest_broadcast:
            raise ValueError(f"a query of {len(encoded)} bytes fits into no packet")
        opened = self._open.add(query, expected, answered, ended)
        rules.timers.after(timeout / 2, lambda: self._ask_again(sorted(opened.expected), encoded))
        rules.timers.after(timeout, lambda: self._open.close(opened))
        self.receive(query, encoded)

    def close_all(self) -> None:
        """End all open queries: no member can answer any more."""
        self._open.close_all()

    def _ask_again(self, silent: list[str], query: bytes) -> None:
        """Ask those that have not answered, each directly: gossip reaches nearly all."""
        for name in silent[:ASKED_AT_ONCE]:
            member = self.members.by_name.get(name)
            if member is not None and name != self.swim.name:
                self.swim.outbox.send(member.endpoint, encode_message(UserMessage(query)))
        rest = silent[ASKED_AT_ONCE:]
        if rest:
            self.swim.rules.timers.after(0, lambda: self._ask_again(rest, query))

    def _relay(self, response: bytes, asker: Endpoint, query: Query) -> None:
        """Send a response through other members as well, as often as the query wants."""
        rules = self.swim.rules
        header = RelayHeader(
            dest_addr=RelayAddress(ip=asker.address, port=asker.port, zone=""), dest_name=query.source_node
        )
        message = encode_message(UserMessage(encode_serf(Relay(header, response))))
        helpers = rules.table.choose(
            min(query.relay_factor, MAX_RELAYS),
            lambda node: node is not rules.me and node.status is NodeStatus.ALIVE and node.endpoint != asker,
        )
        for helper in helpers:
            self.swim.outbox.send(helper.endpoint, message)
