"""A cluster's nodes in the domain name system: every program that can look up a name finds them, without a library.

Theory of operation
===================

Layers, each of which knows those below it only:

```
server       sockets: one task for packets, bounded connections for streams (server.py)
directory    looks at the membership when there is news of it; looks host names up (directory.py, host_lookups.py)
responder    a question's bytes in, an answer's bytes out (responder.py): no I/O, no clock, random numbers are given
wire         questions read, answers written, by dnslib (question.py, answer.py)
listing      what stands under which name at one moment (listing.py), of names as DNS has them (names.py)
```

A listing is made once for each change of the members, in steps, and never changed: a question looks into the newest
one, and waits for nothing. So no question costs more for a larger cluster, and no name server that is silent keeps an
answer back: the hosts of nodes that tell a name instead of an address are looked up beside it.

What holds always:

- What is no question (too short, or an answer) gets no answer; so two servers never keep each other busy.
- A question costs one answer, of at most 1,232 bytes by packet (MAX_PACKET_BYTES) and 100 records in a section
  (MAX_RECORDS), whatever the cluster's size. There is no recursion.
- One bad question, connection or host name costs itself alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proglog_trio.lazy_names import lazy_names

if TYPE_CHECKING:
    from proglog_trio.dns.counters import DnsCounters
    from proglog_trio.dns.names import zone_problem
    from proglog_trio.dns.server import DnsConfig, serve_dns

__all__ = ["DnsConfig", "DnsCounters", "serve_dns", "zone_problem"]

if not TYPE_CHECKING:  # or any other name would be typed as what this returns
    # A node's configuration asks for zone_problem alone: it needs neither sockets nor dnslib.
    __getattr__ = lazy_names(
        __name__,
        {
            "proglog_trio.dns.counters": "DnsCounters",
            "proglog_trio.dns.names": "zone_problem",
            "proglog_trio.dns.server": "DnsConfig serve_dns",
        },
    )


def __dir__() -> list[str]:
    return [*globals(), *__all__]
