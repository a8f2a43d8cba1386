"""This node's name, when a member at another address claims it too: the one that most others know there keeps it.

As Serf's agents do: they ask all members where they know the name (the query `_serf_conflict`), and shut down unless
most of the answers name their own address. So that only one of the two yields, a node stays where as many know it here
as elsewhere, and where none answers; and a member that has failed elsewhere does not count.
"""

from __future__ import annotations

import structlog
import trio
from attrs import Factory, define

from proglog_trio.errors import NameTaken
from proglog_trio.internal_errors import Where
from proglog_trio.membership.gossip import Gossip
from proglog_trio.membership.serf.open_queries import Listener, TooManyQueries
from proglog_trio.membership.serf.query_answers import CONFLICT_QUERY
from proglog_trio.membership.serf.querying import Question
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wakeup import Wakeup
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.serf import ConflictResponse, MemberStatus, decode_serf

PAUSE_SECONDS = 30.0
"""After one question the next comes so much later: the claim is heard again and again."""
_THERE = (MemberStatus.ALIVE, MemberStatus.LEAVING)

_logger = structlog.get_logger(__name__)


@define
class _Votes:
    here: int = 0
    elsewhere: dict[Endpoint, int] = Factory(dict)


@define(eq=False)
class NameContest:
    """Settles which member keeps this node's name.

    Attributes:
        ending: why this node yields, once it does.
    """

    gossip: Gossip
    _claimed: Wakeup
    ending: NameTaken | None = None

    async def run(self) -> None:
        """Settle each claim; ends, with `ending` set, if this node yields."""
        turns = self.gossip.errors.turns(Where.MEMBERSHIP_JOIN)
        while self.ending is None:
            async with turns:
                await self._claimed.wait()
                self.ending = await self._settled()
                if self.ending is None:
                    await trio.sleep(PAUSE_SECONDS)
                    self._claimed.clear()

    async def _settled(self) -> NameTaken | None:
        """Ask where others know this node; return why it yields, or None: it stays."""
        votes = await self._ask()
        most = max(votes.elsewhere, key=votes.elsewhere.__getitem__, default=None)
        elsewhere = sum(votes.elsewhere.values())
        name = self.gossip.config.name
        if most is None or elsewhere <= votes.here:
            _logger.warning("this node keeps its contested name", here=votes.here, elsewhere=elsewhere)
            return None
        return NameTaken(
            f"the cluster has a member named {name!r} already, at {most}: {elsewhere} of {votes.here + elsewhere} "
            "members that answered know it elsewhere: give this node another name, or stop that one"
        )

    async def _ask(self) -> _Votes:
        votes = _Votes()
        ended = trio.Event()

        def answered(_name: str, payload: bytes) -> None:
            try:
                answer = decode_serf(payload)
            except DecodingError as error:
                _logger.debug("an answer about a contested name cannot be read", reason=str(error))
                return
            if not isinstance(answer, ConflictResponse) or answer.member is None:
                return
            endpoint = Endpoint(answer.member.addr, answer.member.port)
            if endpoint == self.gossip.endpoint:
                votes.here += 1
            elif answer.member.status in _THERE:
                votes.elsewhere[endpoint] = votes.elsewhere.get(endpoint, 0) + 1

        name = self.gossip.config.name.encode("utf-8", "surrogateescape")
        question, listener = Question(name=CONFLICT_QUERY, payload=name), Listener(answered, ended.set)

        def ask() -> None:
            self.gossip.core.querying.ask(question, listener)

        try:
            self.gossip.act(ask)
        except TooManyQueries as error:
            _logger.warning("no member can be asked about this node's contested name now", reason=str(error))
            return votes
        await ended.wait()
        return votes
