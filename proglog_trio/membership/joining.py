"""Joining through start addresses, for as long as one of them is no live member, and through the members of before.

A cluster may come apart at any time: a seed is started again and knows no member, a partition lasts until each side has
forgotten the other, a name stands for other machines than before. So a node never stops looking: all addresses at
once, names anew each time. And while it is alone it goes through the members that it knew before it was started, some
at a time, in turn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import structlog
import trio
from attrs import define, field

from proglog_trio.address import StartAddress
from proglog_trio.errors import DirectoryCopied, NameTaken
from proglog_trio.internal_errors import Where
from proglog_trio.membership.addresses.lookup import Lookups
from proglog_trio.membership.exchanges import knows_where
from proglog_trio.membership.gossip import Gossip
from proglog_trio.membership.names import NameHeld, Names
from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.stream_io import ExchangeFailed
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wakeup import Wakeup
from proglog_trio.membership.wire.memberlist import NodeStateType, PushPull
from proglog_trio.repetition import Repetitions

FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 15.0
START_SECONDS = 2.0
"""A node that starts waits so long for its start addresses, and is ready then: what answers later is joined later."""
LATECOMER_SECONDS = 0.5
"""Once one has answered, the others get so long to say what they know of this node's name."""
MAX_LOOKS = 32
"""Start addresses that are looked at, at the same time."""
BEFORE_AT_ONCE = 8
"""Members of before that are looked at, at the same time; those that answer tell all members that there are."""
ENOUGH_OF_BEFORE = 3
"""Once so many of them have answered, the others need not."""

_logger = structlog.get_logger(__name__)


@define
class _Look:
    """What a look at the start addresses has shown.

    Attributes:
        answers: what those that answered know.
        problems: why the others did not, by what they are called.
        away: what is no live member, whether it answered or not.
        is_alone: members of before were looked at, and none of them answered as a member of this cluster.
    """

    answers: dict[Endpoint, PushPull] = field(factory=dict)
    problems: dict[str, str] = field(factory=dict)
    away: set[Endpoint | StartAddress] = field(factory=set)
    is_alone: bool = False


@define(eq=False)
class Joining:
    """Looks after the start addresses of one member, and has it find its cluster again.

    Attributes:
        before: the names of the members of before, the most promising first, by where they were.
        patience: how long, in seconds, a name that another member has is waited for.
        ending: why this node cannot be a member, if run ended by that.
        away: how many start addresses, or endpoints that they stand for, were no live members at the last look.
    """

    gossip: Gossip
    addresses: Sequence[StartAddress]
    patience: float
    lookups: Lookups
    _rng: random.Random
    _departed: Wakeup
    before: Mapping[Endpoint, str] = field(factory=dict)
    ending: NameTaken | DirectoryCopied | None = None
    away: int = 0
    _names: Names = field(init=False)
    # Since when another member was found to have the name, at each claim; None: at the last claim none had.
    _held_since: float | None = None
    # This node has been in company once, in this or an earlier life: what was fired before that is history to it.
    _has_joined: bool = False
    # Members of before: where each was, who was looked at last, and whether all were once.
    _places: dict[str, Endpoint] = field(init=False)
    _next_before: int = 0
    _has_been_round: bool = False
    _told: Repetitions = field(factory=lambda: Repetitions(trio.current_time))

    def __attrs_post_init__(self) -> None:
        self._names = Names(self.gossip)
        self._has_joined = bool(self.before)
        self._places = {name: endpoint for endpoint, name in self.before.items()}

    async def first(self) -> list[Endpoint]:
        """Return which members answer at once and can be joined through; none sees this node by that.

        None, with `ending` set, if this node cannot be a member.
        """
        while self.addresses or self.before:
            look = await self._look(START_SECONDS, LATECOMER_SECONDS)
            self._tell_of(look)
            if not look.answers or await self._may_be_seen_by(look):
                return list(look.answers)
            if self.ending is not None:
                break
            await trio.sleep(self.gossip.config.profile.probe_interval)
        return []

    async def run(self) -> None:
        """Look for as long as this node is a member; ends, with `ending` set, if it cannot be one."""
        turns = self.gossip.errors.turns(Where.MEMBERSHIP_JOIN)
        self._departed.clear()
        wait = FIRST_RETRY_SECONDS
        away: set[Endpoint | StartAddress] = set()
        while self.ending is None:
            async with turns:
                await self._pause(wait)
                look = await self._look()
                self._tell_of(look)
                # Sooner for what was there until now, or is new.
                is_news = look.away - away or (look.is_alone and not self._has_been_round)
                wait = FIRST_RETRY_SECONDS if is_news else min(2 * wait, LONGEST_RETRY_SECONDS)
                away = look.away
                self.away = len(away)
                if not away and self._has_company:
                    wait = LONGEST_RETRY_SECONDS
                if look.answers and not await self._may_be_seen_by(look):
                    wait = self.gossip.config.profile.probe_interval
                    continue
                await self.join_through(
                    [endpoint for endpoint, answer in look.answers.items() if not self._is_joined(answer)]
                )

    async def join_through(self, endpoints: Sequence[Endpoint]) -> None:
        """Join through all of these, at once."""
        if not endpoints:
            return
        # What was fired before this node came is history to it; what was while it was cut off is not.
        ignore_events = not self._has_joined
        joined, problems = await exchange_with(self.gossip, endpoints, ignore_events=ignore_events)
        if joined:
            self._has_joined = True
            self.gossip.act(self.gossip.core.intents.announce_join)
            _logger.info("joined the cluster", through=joined)
        for problem in problems:
            if self._told.news(problem) is not None:
                _logger.warning("cannot join through a start address", reason=problem)

    async def _pause(self, wait: float) -> None:
        with trio.move_on_after(wait * self._rng.uniform(0.5, 1.0)):
            # A member has gone, which may be one at a start address.
            await self._departed.wait()
            # Many may go at one time.
            await trio.sleep(FIRST_RETRY_SECONDS * self._rng.uniform(0.5, 1.0))
        self._departed.clear()

    # -- looking -------------------------------------------------------------------------------------------------------

    async def _look(self, seconds: float = math.inf, latecomers: float = math.inf) -> _Look:
        """Ask what they know: all start addresses that are no live members, and some members of before, all at once.

        Args:
            seconds: how long at most, over the timeouts of each.
            latecomers: how long after the first answer.
        """
        found = _Look()
        limiter = trio.CapacityLimiter(MAX_LOOKS)
        live = self._live()

        async def look_at(endpoint: Endpoint) -> None:
            async with limiter:
                boundary = self.gossip.errors.boundary(Where.MEMBERSHIP_JOIN, through=str(endpoint))
                with boundary:
                    try:
                        found.answers[endpoint] = await self.gossip.exchanges.look(endpoint)
                    except ExchangeFailed as error:
                        found.problems[str(endpoint)] = str(error)
                        return
                if not boundary.failed:
                    scope.deadline = min(scope.deadline, trio.current_time() + latecomers)

        async def look_up(address: StartAddress) -> None:
            looked_up = (await self.lookups.look_up([address]))[address]
            if looked_up.problem is not None:
                found.away.add(address)
                found.problems[str(address)] = f"{address}: {looked_up.problem}"
            for endpoint in looked_up.endpoints:
                if endpoint != self.gossip.endpoint and endpoint not in live and endpoint not in found.away:
                    found.away.add(endpoint)
                    looks.start_soon(look_at, endpoint)

        with trio.move_on_after(seconds) as scope:
            async with trio.open_nursery() as looks:
                for address in dict.fromkeys(self.addresses):
                    looks.start_soon(look_up, address)
                looks.start_soon(self._look_at_those_of_before, found, scope, latecomers)
        return found

    async def _look_at_those_of_before(self, found: _Look, scope: trio.CancelScope, latecomers: float) -> None:
        """Ask the members of before whose turn it is, if this node is alone.

        Args:
            found: what the look has shown so far.
            scope: of the look.
            latecomers: how long it goes on after the first answer.
        """
        if not self.before or self._has_company:
            return
        endpoints = list(self.before)[self._next_before : self._next_before + BEFORE_AT_ONCE]
        self._next_before += BEFORE_AT_ONCE
        if self._next_before >= len(self.before):
            self._next_before, self._has_been_round = 0, True
        answered = 0

        async def look_at(endpoint: Endpoint) -> None:
            nonlocal answered
            name = self.before[endpoint]
            with self.gossip.errors.boundary(Where.MEMBERSHIP_JOIN, through=str(endpoint)):
                try:
                    answer = await self.gossip.exchanges.look(endpoint)
                except ExchangeFailed as error:
                    _logger.debug("a member of before does not answer", member=name, reason=str(error))
                    return
                if not knows_where(answer, self._places.get):
                    _logger.debug("nobody is known where a member of before was", member=name, address=str(endpoint))
                    return
                # Several may come in one round of the loop, before those that are cancelled notice.
                if answered < ENOUGH_OF_BEFORE:
                    found.answers[endpoint] = answer
                    answered += 1
                scope.deadline = min(scope.deadline, trio.current_time() + latecomers)
                if answered >= ENOUGH_OF_BEFORE:
                    looks.cancel_scope.cancel()

        found.is_alone = True
        async with trio.open_nursery() as looks:
            for endpoint in endpoints:
                looks.start_soon(look_at, endpoint)
        found.is_alone = not answered

    def _live(self) -> set[Endpoint]:
        members = self.gossip.core.members.with_status(MemberStatus.ALIVE, MemberStatus.LEAVING)
        return {member.endpoint for member in members}

    @property
    def _has_company(self) -> bool:
        return len(self._live()) > 1

    def _is_joined(self, answer: PushPull) -> bool:
        """Tell whether what answered is in one cluster with this node: an address need not be one that members tell."""
        me, knows_me = self.gossip.config.name, False
        known = {member.name for member in self.gossip.core.members.with_status(MemberStatus.ALIVE)}
        # No more than is needed of each: there may be 16,384, and all are looked at in one piece.
        for state in answer.nodes:
            if not state.addr or state.state is not NodeStateType.ALIVE:
                continue
            if state.name == me:
                knows_me = Endpoint(state.addr, state.port) == self.gossip.endpoint
            elif state.name not in known:
                return False
        return knows_me

    async def _may_be_seen_by(self, look: _Look) -> bool:
        """Tell whether this node may be seen by those that answered; a node that has company is known already.

        It may not while another member has its name, and never (ending is set then) if one uses a copy of its data
        directory, or had its name for as long as there was patience.
        """
        if self._has_company:
            return True
        try:
            await self._names.claim(list(look.answers.values()))
        except NameHeld as held:
            now = trio.current_time()
            self._held_since = now if self._held_since is None else self._held_since
            if now - self._held_since >= self.patience:
                self.ending = NameTaken(f"{held}: give this node another name, or stop that one")
            elif self._told.news("held") is not None:
                _logger.warning("this node's name is not free yet; waiting", reason=str(held), seconds=self.patience)
            return False
        except DirectoryCopied as error:
            self.ending = error
            return False
        self._held_since = None
        return True

    def _tell_of(self, look: _Look) -> None:
        if look.is_alone and not look.answers and self._told.news("before") is not None:
            _logger.warning(
                "this node is alone: no member of before answers so far; they are tried again", members=len(self.before)
            )
        for name, problem in look.problems.items():
            if self._told.news((name, problem)) is not None:
                _logger.warning("a start address does not answer; it is tried again", reason=problem)


async def exchange_with(gossip: Gossip, endpoints: Sequence[Endpoint], *, ignore_events: bool) -> tuple[int, list[str]]:
    """Exchange states with all of these at once, in order to join; return with how many, and why not with others."""
    joined = 0
    problems: list[str] = []
    limiter = trio.CapacityLimiter(MAX_LOOKS)

    async def exchange(endpoint: Endpoint) -> None:
        nonlocal joined
        async with limiter:
            boundary = gossip.errors.boundary(Where.MEMBERSHIP_JOIN, through=str(endpoint))
            with boundary:
                try:
                    await gossip.exchanges.exchange(endpoint, join=True, ignore_events=ignore_events)
                except ExchangeFailed as error:
                    problems.append(str(error))
                else:
                    joined += 1
            if boundary.failed:
                problems.append(f"{endpoint}: internal error")

    async with trio.open_nursery() as nursery:
        for endpoint in endpoints:
            nursery.start_soon(exchange, endpoint)
    return joined, problems
