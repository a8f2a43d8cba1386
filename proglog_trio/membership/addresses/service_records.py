"""SRV records (RFC 2782), which the system's own look-up does not give: asked for with dnspython, under Trio."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import trio
from attrs import frozen

from proglog_trio.address import Address
from proglog_trio.host_names import encoded_name

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

MAX_TARGETS = 64
"""Hosts of one name; of more, those that its records prefer."""
MAX_ADDRESSES = 16
"""Addresses of one host, of each family."""
ASK_SECONDS = 8.0
"""For one question, all name servers and repetitions together."""


class RecordsNotHad(Exception):
    """There are no records to use. The message says why."""


@frozen
class ServiceRecords:
    """Asks name servers.

    Attributes:
        name_servers: numeric hosts and ports; none: those of the system, as they are configured when they are asked.
    """

    name_servers: tuple[Address, ...] = ()

    async def targets(self, name: str) -> tuple[Address, ...]:
        """Return the hosts and ports of a service, those first that its records prefer.

        Raises:
            RecordsNotHad: there are none, or no name server says so.
        """
        records = sorted(await self._ask(name, "SRV"), key=lambda record: (record.priority, -record.weight))
        targets = [
            Address(record.target.to_text(omit_final_dot=True), record.port)
            for record in records
            # The root as the only target: the service is decidedly not there (RFC 2782).
            if len(record.target) > 1 and record.port
        ]
        if not targets:
            raise RecordsNotHad("its SRV record says that the service is not there")
        return tuple(dict.fromkeys(targets))[:MAX_TARGETS]

    async def hosts(self, name: str) -> tuple[str, ...]:
        """Return the numeric addresses of a host, IPv4 first.

        Raises:
            RecordsNotHad: it has none, or no name server says so.
        """
        found: dict[str, list[str]] = {}
        problems: list[str] = []

        async def ask(kind: str) -> None:
            try:
                found[kind] = [str(record.address) for record in await self._ask(name, kind)][:MAX_ADDRESSES]
            except RecordsNotHad as error:
                problems.append(str(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "A")
            nursery.start_soon(ask, "AAAA")
        if not found:
            raise RecordsNotHad(problems[0])
        return (*found.get("A", ()), *found.get("AAAA", ()))

    async def _ask(self, name: str, kind: str) -> Iterable[Any]:
        # In a thread: the library takes some 0.1 s to load, and reads the system's configuration.
        resolver = await trio.to_thread.run_sync(self._resolver)

        import dns.asyncbackend
        import dns.exception
        import dns.resolver

        try:
            return await resolver.resolve(
                encoded_name(name),
                kind,
                search=False,
                lifetime=ASK_SECONDS,
                backend=dns.asyncbackend.get_backend("trio"),
            )
        except dns.resolver.NXDOMAIN:
            raise RecordsNotHad(f"there is no name {name}") from None
        except dns.resolver.NoAnswer:
            raise RecordsNotHad(f"{name} has no {kind} records") from None
        except dns.resolver.NoNameservers:
            raise RecordsNotHad(f"{self._asked(resolver)} cannot say what {kind} records {name} has") from None
        except dns.exception.Timeout:
            raise RecordsNotHad(f"no answer from {self._asked(resolver)} within {ASK_SECONDS:g} s") from None
        except (dns.exception.DNSException, OSError, UnicodeError) as error:
            why = str(error) or type(error).__name__
            raise RecordsNotHad(f"the {kind} records of {name} cannot be had: {why}") from None

    def _resolver(self) -> Resolver:
        import dns.asyncbackend
        import dns.asyncresolver
        import dns.resolver

        # What these load when they are first used.
        dns.asyncbackend.get_backend("trio")
        try:
            resolver = dns.asyncresolver.Resolver(configure=not self.name_servers)
        except dns.resolver.NoResolverConfiguration as error:
            raise RecordsNotHad(f"the system has no name server: {error}") from None
        if self.name_servers:
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(server.host, server.port) for server in self.name_servers
            ]
        return resolver

    @staticmethod
    def _asked(resolver: Resolver) -> str:
        servers = [str(server) for server in resolver.nameservers]
        return f"the name server{'s' if len(servers) > 1 else ''} {' and '.join(servers[:3]) or '(none)'}"
