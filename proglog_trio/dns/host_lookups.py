"""Looking up the hosts of nodes that tell a name, beside all else: no answer waits for it."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import trio
from attrs import define, field

from proglog_trio.dns.listing import IpAddress
from proglog_trio.host_names import encoded_name, ip_literal
from proglog_trio.internal_errors import InternalErrors, Where

MAX_HOSTS = 1024
MAX_ADDRESSES = 8
"""Of one host."""
MAX_LOOKUPS = 8
"""Each takes a thread, until the system answers."""
AGAIN_SECONDS = 30.0
"""How old what was found may become."""
RETRY_SECONDS = 5.0

Lookup = Callable[[str], Awaitable[Sequence[IpAddress]]]
"""Returns the addresses of a host, none if there are none or nobody knows."""


@define(eq=False)
class HostLookups:
    """Keeps the addresses of hosts: looked up at once, and again for as long as they are wanted.

    What was found stays until something else is: a name server that is silent takes no node out.

    Attributes:
        errors: where unforeseen errors are counted.
        changed: called when a host has other addresses than before.
        lookup: asks for those of one host.
    """

    errors: InternalErrors
    changed: Callable[[], None]
    lookup: Lookup = field(factory=lambda: SystemLookup().look_up)
    _found: dict[str, tuple[IpAddress, ...]] = field(factory=dict)
    _wanted: dict[str, trio.CancelScope] = field(factory=dict)
    _nursery: trio.Nursery | None = None

    @property
    def found(self) -> Mapping[str, Sequence[IpAddress]]:
        """The addresses of each host that was found."""
        return self._found

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look up what is wanted, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def want(self, hosts: AbstractSet[str]) -> None:
        """Keep the addresses of these hosts from now on, and of no others; of too many, the first by name.

        Raises:
            RuntimeError: run does not run.
        """
        if self._nursery is None:
            raise RuntimeError("hosts are looked up while run runs")
        kept = set(sorted(hosts)[:MAX_HOSTS]) if len(hosts) > MAX_HOSTS else hosts
        for host in self._wanted.keys() - kept:
            self._wanted.pop(host).cancel()
            self._found.pop(host, None)
        for host in kept - self._wanted.keys():
            self._wanted[host] = scope = trio.CancelScope()
            self._nursery.start_soon(self._keep, host, scope)

    async def _keep(self, host: str, scope: trio.CancelScope) -> None:
        turns = self.errors.turns(Where.DNS_LOOKUP, host=host)
        with scope:
            while True:
                async with turns:
                    addresses = tuple(await self.lookup(host))[:MAX_ADDRESSES]
                    if addresses and addresses != self._found.get(host):
                        self._found[host] = addresses
                        self.changed()
                    await trio.sleep(AGAIN_SECONDS if addresses else RETRY_SECONDS)


@define(eq=False)
class SystemLookup:
    """Asks the system, in threads. One that is given up goes on until the system answers, and counts until then."""

    _limiter: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(MAX_LOOKUPS))

    async def look_up(self, host: str) -> Sequence[IpAddress]:
        """Return the addresses of a host in the order of their numbers, none if there are none or nobody knows."""
        try:
            return await trio.to_thread.run_sync(_ask, host, abandon_on_cancel=True, limiter=self._limiter)
        except (OSError, UnicodeError):
            return ()


def _ask(host: str) -> Sequence[IpAddress]:
    found = socket.getaddrinfo(encoded_name(host), None, type=socket.SOCK_STREAM)
    addresses = {ip_literal(str(each[4][0])) for each in found}
    # A link-local one says nothing to who has other interfaces.
    useful = [each for each in addresses if each is not None and not (each.version == 6 and each.is_link_local)]
    return sorted(useful, key=lambda address: (address.version, int(address)))
