"""A session that no client has: what agents answer to what is out of order, and to each command.

`recorded.json` is what an agent answered to it (Debian's package of Serf 0.9.4): `python -m
tests.membership.agent_rpc.sessions HOST:PORT` prints what the one there does.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import trio
from attrs import frozen

from proglog_trio.address import Address
from tests.membership.agent_rpc.clients import Client, client


@frozen
class Ask:
    """A request, and how many objects come back."""

    command: str
    body: Any = None
    objects: int = 1


REQUESTS = (
    Ask("members"),
    Ask("handshake", {"Version": 1}),
    Ask("handshake", {"Version": 2}),
    Ask("handshake", {"Version": 1}),
    Ask("handshake", {"Version": 1}),
    Ask("auth", {"AuthKey": "wrong"}),
    Ask("members", objects=2),
    Ask("members-filtered", {"Name": "nobody|on.", "Tags": {"absent": ".*"}}, objects=2),
    Ask("members-filtered", {"Tags": {"absent": ".+"}}, objects=2),
    Ask("join", {"Existing": [], "Replay": False}, objects=2),
    Ask("stream", {"Type": "nonsense"}),
    Ask("stream", {"Type": "user:never"}),
    Ask("stop", {"Stop": 12345}),
    Ask("tags", {"Tags": None, "DeleteTags": None}),
    Ask("monitor", {"LogLevel": "NONSENSE"}),
    Ask("respond", {"ID": 7, "Payload": b"x"}),
    Ask("get-coordinate", {"Node": "nobody"}, objects=2),
    Ask("query", {"Name": "nobody hears", "FilterNodes": ["nobody"], "Timeout": 300_000_000}, objects=3),
    Ask("event", {"Name": "x", "Payload": None, "Coalesce": True}),
    Ask("force-leave", {"Node": "nobody"}),
    Ask("dance"),
    Ask("members"),
)


async def converse(address: Address) -> list[Any]:
    """Return what comes back to each request."""
    found: list[Any] = []
    async with AsyncExitStack() as stack:

        async def connected(*, handshake: bool) -> Client:
            return await stack.enter_async_context(client(address, handshake=handshake))

        asking = await connected(handshake=False)
        for ask in REQUESTS:
            try:
                await asking.send(ask.command, ask.body)
                found.append([await asking.read() for _ in range(ask.objects)])
            except (EOFError, trio.BrokenResourceError):
                found.append("ended")
                # A client that was ended comes back, and begins as it should.
                asking = await connected(handshake=ask.command != "handshake")
    return found


def comparable(value: Any) -> Any:
    """Return an answer without what differs between any two agents; nil stands for what is empty."""
    match value:
        case Mapping():
            skipped = {"Seq", "Port", "LTime", "DelegateCur"}
            return {key: comparable(each) for key, each in value.items() if key not in skipped}
        case list():
            # Agents list members in any order.
            return sorted((comparable(each) for each in value), key=_name_of) or None
        case str():
            return re.sub(r"^other\d$", "other", value) or None
        case _:
            return value or None


def _name_of(value: Any) -> str:
    return str(value.get("Name", "")) if isinstance(value, Mapping) else ""


def as_json(value: Any) -> Any:
    """Return what JSON can hold."""
    match value:
        case bytes():
            return {"hex": value.hex()}
        case Mapping():
            return {key: as_json(each) for key, each in value.items()}
        case list():
            return [as_json(each) for each in value]
        case _:
            return value


async def _record(address: Address) -> None:
    found = [as_json(comparable(each)) for each in await converse(address)]
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    trio.run(_record, Address.parse(sys.argv[1]))
