"""Looking start addresses up: all at once, each by one thread at a time; none waits for a silent name server."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from attrs import define, field, frozen

from proglog_trio.address import Address
from proglog_trio.membership.own_addresses import lookup_problem
from proglog_trio.membership.swim.node import Endpoint

MAX_LOOKUPS = 16
"""Names that are looked up at the same time: each has one of the process's threads until the system answers."""
LOOKUP_SECONDS = 10.0
"""How long a name is waited for, where nothing else says so; the system goes on asking for longer."""


@frozen
class LookedUp:
    """What an address stands for.

    Attributes:
        endpoints: each once; none where there is a problem.
        problem: why it is not known, in words.
    """

    endpoints: tuple[Endpoint, ...] = ()
    problem: str | None = None


@define(eq=False)
class Lookups:
    """Looks addresses up.

    A thread that asks the system cannot be ended: one that is given up goes on for as long as a name server is silent.
    So what is under way for an address is waited for again, and not asked for anew beside it.

    Attributes:
        nursery: where a look-up goes on that is not waited for any more; None: it is given up.
    """

    nursery: trio.Nursery | None = None
    _limiter: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(MAX_LOOKUPS))
    # Addresses that are asked for now; what was found is in _found when its event is set, and stays there.
    _pending: dict[Address, trio.Event] = field(factory=dict)
    _found: dict[Address, LookedUp] = field(factory=dict)

    async def look_up(self, addresses: Sequence[Address], seconds: float = LOOKUP_SECONDS) -> dict[Address, LookedUp]:
        """Return what each address stands for now, after so many seconds at the latest."""
        found: dict[Address, LookedUp] = {}

        async def one(address: Address) -> None:
            with trio.move_on_after(seconds):
                found[address] = await self._one(address)
            if address not in found:
                found[address] = LookedUp(problem="no name server answers")

        async with trio.open_nursery() as nursery:
            for address in dict.fromkeys(addresses):
                nursery.start_soon(one, address)
        return {address: found[address] for address in addresses}

    async def _one(self, address: Address) -> LookedUp:
        if self.nursery is None:
            return await self._ask(address)
        event = self._pending.get(address)
        if event is None:
            event = self._pending[address] = trio.Event()
            self.nursery.start_soon(self._ask_for_all, address, event)
        await event.wait()
        return self._found[address]

    async def _ask_for_all(self, address: Address, answered: trio.Event) -> None:
        self._found[address] = LookedUp(problem="the look-up was ended")
        try:
            self._found[address] = await self._ask(address)
        finally:
            del self._pending[address]
            answered.set()

    async def _ask(self, address: Address) -> LookedUp:
        try:
            async with self._limiter:
                found = await trio.socket.getaddrinfo(address.host, address.port, type=trio.socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            # A name that is none (a label of more than 63 characters, say) is a UnicodeError.
            return LookedUp(problem=lookup_problem(error))
        endpoints = (Endpoint.of(str(each[4][0]).partition("%")[0], int(each[4][1])) for each in found)
        return LookedUp(tuple(dict.fromkeys(endpoints)))


def endpoints_of(looked_up: dict[Address, LookedUp]) -> list[Endpoint]:
    """Return all endpoints that addresses stand for, each once."""
    return list(dict.fromkeys(endpoint for each in looked_up.values() for endpoint in each.endpoints))


def problems_of(looked_up: dict[Address, LookedUp]) -> list[str]:
    """Return what is wrong with the addresses that stand for nothing."""
    return [f"{address}: {each.problem}" for address, each in looked_up.items() if each.problem is not None]
