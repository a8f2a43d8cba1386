"""Queries: those of others, which are passed on and answered, and this node's own, whose answers are collected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from attrs import define, evolve, field, frozen

from proglog_trio.membership.serf import query_answers as queries
from proglog_trio.membership.serf.asked_queries import AskedQueries
from proglog_trio.membership.serf.given_answers import GivenAnswers
from proglog_trio.membership.serf.keys import KeyQuestion, KeyRefused, refusal
from proglog_trio.membership.serf.lamport import LamportClock
from proglog_trio.membership.serf.limits import check_size
from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.serf.members import Members
from proglog_trio.membership.serf.open_queries import Listener, OpenQueries, OpenQuery, default_timeout
from proglog_trio.membership.serf.seen import RecentRing
from proglog_trio.membership.serf.spreading import MAX_STREAMED_BYTES, Spreading
from proglog_trio.membership.swim.broadcasts import BroadcastQueue
from proglog_trio.membership.swim.node import Endpoint, NodeStatus
from proglog_trio.membership.swim.swim import Swim
from proglog_trio.membership.wire.serf import (
    QUERY_FLAG_ACK,
    QUERY_FLAG_NO_BROADCAST,
    Filter,
    NodeFilter,
    Query,
    QueryResponse,
    Relay,
    RelayAddress,
    RelayHeader,
    TagFilter,
    encode_serf,
)

MAX_RELAYS = 16
"""Others that a response goes through, whatever the query wants; each is a packet of this node's."""
ASKED_AT_ONCE = 32
"""Members that are asked again in one piece."""
JUDGED_AT_ONCE = 2
"""Members whose tags are looked at in one piece: a slow expression takes milliseconds for each."""


@frozen(kw_only=True)
class Question:
    """What is asked, and of whom.

    Attributes:
        name: of the query.
        payload: with it.
        filters: whom it is for: members that pass them all.
        timeout: for how long answers are waited for, in seconds; None: as long as gossip needs.
        relay_factor: through how many others each answer is sent besides.
        acknowledge: each member that has the query says so.
        max_bytes: the most that it may have, encoded.
    """

    name: str
    payload: bytes = b""
    filters: tuple[Filter, ...] = ()
    timeout: float | None = None
    relay_factor: int = 0
    acknowledge: bool = False
    max_bytes: int = MAX_STREAMED_BYTES


@define(eq=False)
class Querying:
    """One member's part in queries.

    Attributes:
        swim: sets timers.
        members: who is asked, and who asks.
        clock: of queries; it is above the time of each that was heard of.
        spreading: sends.
        queue: the broadcasts of queries.
        on_query: called with each query of a user that is for this node, to be answered later by answer.
        on_key_query: called with each key query, to be answered later by answer_key_query; raises KeyRefused. None:
            there is no keyring.
        recent: the ids of the queries that were seen, by Lamport time.
    """

    swim: Swim
    members: Members
    clock: LamportClock
    spreading: Spreading
    queue: BroadcastQueue
    on_query: Callable[[Query], None]
    on_key_query: Callable[[KeyQuestion], None] | None = None
    recent: RecentRing[int] = field(factory=RecentRing)
    _open: OpenQueries = field(factory=OpenQueries)
    _asked: AskedQueries = field(init=False)
    _given: GivenAnswers = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._asked = AskedQueries(self.swim.rules.timers)
        self._given = GivenAnswers(self.swim.rules.timers)

    # -- those of others -----------------------------------------------------------------------------------------------

    def ignore_before(self, ltime: int) -> None:
        """Count queries from before a Lamport time as seen."""
        self.recent.lowest = max(self.recent.lowest, ltime)

    def receive(self, query: Query, payload: bytes) -> None:
        """Pass a query on, and answer it if it is for this node; payload: its bytes."""
        self.clock.witness(query.ltime)
        if not self.recent.add(query.ltime, query.id, self.clock.time):
            if query.flags & QUERY_FLAG_NO_BROADCAST:
                # Nobody passes it on, so it was not gossiped a second time: the asker itself misses something.
                for encoded in self._given.again(query):
                    self._send_response(query, encoded)
            return
        if not query.flags & QUERY_FLAG_NO_BROADCAST:
            self.spreading.spread(self.queue, payload)
        me = self.members.by_name.get(self.swim.name)
        if me is None or not queries.passes(query.filters, me) or not query.addr or not query.port:
            return
        asked_about = self.members.by_name.get(query.payload.decode("utf-8", "surrogateescape"))
        has_keyring = self.on_key_query is not None
        for response in queries.answers(query, me, asked_about, has_keyring=has_keyring):
            self._respond(query, response)
        if not query.name.startswith(queries.INTERNAL_PREFIX):
            self._asked.add(query)
            self.on_query(query)
        elif self.on_key_query is not None and query.name in queries.KEY_QUERIES:
            try:
                self.on_key_query(KeyQuestion.of(query))
            except KeyRefused as error:
                self.answer_key_query(query, refusal(str(error)))

    def answer(self, ltime: int, id: int, payload: bytes, max_bytes: int) -> None:  # noqa: A002 - the protocol's name
        """Answer a query that on_query was given.

        Args:
            ltime: of the query.
            id: likewise.
            payload: the answer.
            max_bytes: the most that the response may have, encoded.

        Raises:
            QueryOver: its time is over, or it was answered.
            MessageTooLarge: the answer is too large; another can be given.
        """
        query = self._asked.get(ltime, id)
        response = queries.response_to(query, self.swim.name, payload)
        check_size("an answer", len(encode_serf(response)), max_bytes)
        self._asked.answered(query)
        self._respond(query, response)

    def answer_key_query(self, query: Query, payload: bytes) -> None:
        """Answer a key query that on_key_query was given."""
        self._respond(query, queries.response_to(query, self.swim.name, payload))

    def _respond(self, query: Query, response: QueryResponse) -> None:
        asker = Endpoint(query.addr, query.port)
        if asker == self.swim.rules.me.endpoint:
            # Its own question: nothing has to leave the node.
            self._open.receive(response)
            return
        encoded = encode_serf(response)
        self._given.add(query, encoded)
        self._send_response(query, encoded)

    def _send_response(self, query: Query, encoded: bytes) -> None:
        asker = Endpoint(query.addr, query.port)
        self.spreading.send(encoded, asker)
        self._relay(encoded, asker, query)

    def _relay(self, response: bytes, asker: Endpoint, query: Query) -> None:
        """Send a response through other members as well, as often as the query wants."""
        rules = self.swim.rules
        if not query.relay_factor:
            return
        header = RelayHeader(
            dest_addr=RelayAddress(ip=asker.address, port=asker.port, zone=""), dest_name=query.source_node
        )
        message = encode_serf(Relay(header, response))
        helpers = rules.table.choose(
            min(query.relay_factor, MAX_RELAYS),
            lambda node: node is not rules.me and node.status is NodeStatus.ALIVE and node.endpoint != asker,
        )
        self.spreading.send(message, *(helper.endpoint for helper in helpers))

    # -- its own -------------------------------------------------------------------------------------------------------

    def ask(self, question: Question, listener: Listener) -> OpenQuery:
        """Ask all members that are alive and for which the question is, this node among them if it is one.

        Raises:
            TooManyQueries: too many are open.
            MessageTooLarge: the question is.
        """
        rules = self.swim.rules
        alive = self.members.with_status(MemberStatus.ALIVE)
        timeout = question.timeout if question.timeout is not None else default_timeout(rules.profile, len(alive))
        query = Query(
            ltime=self.clock.time,
            id=rules.rng.getrandbits(32),
            addr=rules.me.endpoint.address,
            port=rules.me.endpoint.port,
            source_node=self.swim.name,
            filters=question.filters,
            flags=QUERY_FLAG_ACK if question.acknowledge else 0,
            relay_factor=question.relay_factor,
            timeout=round(timeout * 1e9),
            name=question.name,
            payload=question.payload,
        )
        encoded = encode_serf(query)
        check_size("a query", len(encoded), question.max_bytes)
        named = [set(each.nodes) for each in question.filters if isinstance(each, NodeFilter)]
        expected = [member.name for member in alive if all(member.name in names for names in named)]
        opened = self._open.add(query, expected, listener)
        opened.has(
            rules.timers.after(timeout / 2, lambda: self._ask_again(opened)),
            rules.timers.after(timeout, lambda: self._open.close(opened)),
        )
        if any(isinstance(each, TagFilter) for each in question.filters):
            self._judge(opened, iter(expected))
        self.receive(query, encoded)
        self._open.close_if_done(opened)
        return opened

    def _judge(self, opened: OpenQuery, names: Iterator[str]) -> None:
        """Look which members a query is for, a few at a time, and wait for the others no longer."""
        if opened.is_over:
            return
        few = list(islice(names, JUDGED_AT_ONCE))
        for name in few:
            member = self.members.by_name.get(name)
            if member is None or not queries.passes(opened.query.filters, member):
                opened.expected.discard(name)
        self._open.close_if_done(opened)
        if few:
            self.swim.rules.timers.after(0, lambda: self._judge(opened, names))

    def _ask_again(self, opened: OpenQuery) -> None:
        """Ask those that have not answered, each directly: gossip reaches nearly all, and an answer may be lost.

        They are asked to pass nothing on. By that members of this kind tell that the asker misses what they said, and
        say it again; agents answer what they have seen no second time.
        """
        query = evolve(opened.query, flags=opened.query.flags | QUERY_FLAG_NO_BROADCAST)
        self._ask_each(iter(sorted(opened.expected)), encode_serf(query))

    def _ask_each(self, names: Iterator[str], query: bytes) -> None:
        few = list(islice(names, ASKED_AT_ONCE))
        for name in few:
            member = self.members.by_name.get(name)
            if member is not None and name != self.swim.name:
                self.spreading.send(query, member.endpoint)
        if few:
            self.swim.rules.timers.after(0, lambda: self._ask_each(names, query))

    def receive_response(self, response: QueryResponse) -> bool:
        """Count a response; tell whether it is one to an open query of this node."""
        return self._open.receive(response)

    def gone(self, name: str) -> None:
        """Wait for nothing of a member any longer."""
        self._open.gone(name)

    def close(self, opened: OpenQuery) -> None:
        """End an open query: nobody wants its answers any more."""
        self._open.close(opened)

    def close_all(self) -> None:
        """End all open queries: no member can answer any more."""
        self._open.close_all()
