"""Looking start addresses up: all at once, each by one thread at a time; none waits for a silent name server.

A name of a service stands for all hosts and ports that its SRV records say, and for each address of those hosts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import trio
from attrs import define, field, frozen

from proglog_trio.address import Address, ServiceName, StartAddress
from proglog_trio.host_names import ip_literal
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership.addresses.own_addresses import lookup_problem
from proglog_trio.membership.addresses.service_records import RecordsNotHad, ServiceRecords
from proglog_trio.membership.swim.node import Endpoint

AnyAddress = TypeVar("AnyAddress", Address, StartAddress)

MAX_LOOKUPS = 16
"""Names that are looked up at the same time: each has one of the process's threads until the system answers."""
LOOKUP_SECONDS = 10.0
"""How long a name is waited for, where nothing else says so; the system goes on asking for longer."""
MAX_HOSTS = 8
"""Hosts of one service that are looked up at the same time."""
MAX_ENDPOINTS = 256
"""That one address stands for."""


@frozen
class LookedUp:
    """What an address stands for.

    Attributes:
        endpoints: each once, MAX_ENDPOINTS at the most.
        problem: why it is not known, or not all of it, in words.
    """

    endpoints: tuple[Endpoint, ...] = ()
    problem: str | None = None


@define(eq=False)
class _LookUp:
    """One that is under way.

    Attributes:
        found: what counts when it is over.
    """

    over: trio.Event = field(factory=trio.Event)
    found: LookedUp = LookedUp(problem="the look-up was ended")


@define(eq=False)
class Lookups:
    """Looks addresses up.

    A thread that asks the system cannot be ended: one that is given up goes on for as long as a name server is silent.
    So what is under way for an address is waited for again, and not asked for anew beside it.

    Attributes:
        nursery: where a look-up goes on that is not waited for any more; None: it is given up.
        records: asks for SRV records.
        errors: where unforeseen errors are counted; the address that one is about stands for nothing then.
    """

    nursery: trio.Nursery | None = None
    records: ServiceRecords = field(factory=ServiceRecords)
    errors: InternalErrors = field(factory=InternalErrors)
    _limiter: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(MAX_LOOKUPS))
    # Of addresses that are asked for now: there may be ever other ones.
    _pending: dict[StartAddress, _LookUp] = field(factory=dict)

    async def look_up(
        self, addresses: Sequence[StartAddress], seconds: float = LOOKUP_SECONDS
    ) -> dict[StartAddress, LookedUp]:
        """Return what each address stands for now, after so many seconds at the latest."""
        found: dict[StartAddress, LookedUp] = {}

        async def one(address: StartAddress) -> None:
            with trio.move_on_after(seconds):
                found[address] = await self._one(address)
            if address not in found:
                found[address] = LookedUp(problem="no name server answers")

        async with trio.open_nursery() as nursery:
            for address in dict.fromkeys(addresses):
                nursery.start_soon(one, address)
        return {address: found[address] for address in addresses}

    async def _one(self, address: StartAddress) -> LookedUp:
        if self.nursery is None:
            return await self._ask(address)
        look_up = self._pending.get(address)
        if look_up is None:
            look_up = self._pending[address] = _LookUp()
            self.nursery.start_soon(self._ask_for_all, address, look_up)
        await look_up.over.wait()
        return look_up.found

    async def _ask_for_all(self, address: StartAddress, look_up: _LookUp) -> None:
        try:
            look_up.found = await self._ask(address)
        finally:
            del self._pending[address]
            look_up.over.set()

    async def _ask(self, address: StartAddress) -> LookedUp:
        # Here, since the nursery is the member's own, which such an error would end.
        with self.errors.boundary(Where.MEMBERSHIP_JOIN, address=str(address)):
            return await (self._service(address) if isinstance(address, ServiceName) else self._host(address))
        return LookedUp(problem="internal error")

    async def _service(self, service: ServiceName) -> LookedUp:
        """Return what all hosts in the SRV records of a name stand for, and what is wrong with the others."""
        try:
            targets = await self.records.targets(service.name)
        except RecordsNotHad as error:
            return LookedUp(problem=str(error))
        found: dict[Address, LookedUp] = {}
        limiter = trio.CapacityLimiter(MAX_HOSTS)

        async def one(target: Address) -> None:
            async with limiter:
                found[target] = await (self._recorded(target) if self.records.name_servers else self._host(target))

        async with trio.open_nursery() as nursery:
            for target in targets:
                nursery.start_soon(one, target)
        endpoints = endpoints_of({target: found[target] for target in targets})
        return LookedUp(tuple(endpoints[:MAX_ENDPOINTS]), "; ".join(problems_of(found)) or None)

    async def _recorded(self, target: Address) -> LookedUp:
        """Look a host up where its name was had: other name servers than the system's know other names."""
        try:
            hosts = (target.host,) if ip_literal(target.host) else await self.records.hosts(target.host)
        except RecordsNotHad as error:
            return LookedUp(problem=str(error))
        return LookedUp(tuple(dict.fromkeys(Endpoint.of(host, target.port) for host in hosts)))

    async def _host(self, address: Address) -> LookedUp:
        try:
            async with self._limiter:
                found = await trio.socket.getaddrinfo(address.host, address.port, type=trio.socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            # A name that is none (a label of more than 63 characters, say) is a UnicodeError.
            return LookedUp(problem=lookup_problem(error))
        endpoints = (Endpoint.of(str(each[4][0]).partition("%")[0], int(each[4][1])) for each in found)
        return LookedUp(tuple(dict.fromkeys(endpoints))[:MAX_ENDPOINTS])


def endpoints_of(looked_up: Mapping[AnyAddress, LookedUp]) -> list[Endpoint]:
    """Return all endpoints that addresses stand for, each once."""
    return list(dict.fromkeys(endpoint for each in looked_up.values() for endpoint in each.endpoints))


def problems_of(looked_up: Mapping[AnyAddress, LookedUp]) -> list[str]:
    """Return what is wrong with the addresses that stand for nothing, or not for all that they should."""
    return [f"{address}: {each.problem}" for address, each in looked_up.items() if each.problem is not None]
