"""A process that is a member of a gossip cluster and nothing else.

    python -m tests.observed.member_process NAME PROFILE HOST PORT [suspicions]

Prints its address, then what happens, as JSON objects, one a line: `kind` as in tests/observed/member.py, `subjects`,
and `by`; of a query its `number`. Takes commands from its standard input, likewise:

    {"join": "HOST:PORT"}
    {"event": NAME, "payload": HEX}
    {"query": NAME, "relay_factor": N}
    {"answer": NUMBER, "payload": HEX}

At the end of the input it ends without leaving.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog
import trio
from attrs import define, field

from proglog_trio.address import Address
from proglog_trio.membership import (
    AskedQuery,
    GossipConfig,
    GossipProfile,
    JoinFailed,
    MemberEvent,
    Membership,
    ProfileName,
    QueryAcknowledgement,
    QueryOver,
    UserEvent,
    bind_membership,
)
from proglog_trio.node.log_output import configure_log_output

MAX_UNANSWERED = 64
"""Queries that may be answered yet; an older one is forgotten."""


def say(kind: str, subjects: Sequence[str], **more: object) -> None:
    """Print that something has happened."""
    say_line(kind=kind, subjects=subjects, **more)


def say_line(**what: object) -> None:
    """Print one line, at once."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


@define(eq=False)
class MemberProcess:
    """What happens to a member, and what it is told."""

    membership: Membership
    _asked: dict[int, AskedQuery] = field(factory=dict)
    _next_number: int = 0

    async def say_what_happens(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Print each event."""
        async with self.membership.events() as events:
            task_status.started()
            async for event in events:
                match event:
                    case MemberEvent():
                        if event.kind.value in ("join", "leave", "failed"):
                            say(event.kind.value, [member.name for member in event.members])
                    case UserEvent():
                        say("event", [event.name])
                    case AskedQuery():
                        self._say_asked(event)

    def _say_asked(self, query: AskedQuery) -> None:
        number = self._next_number
        self._next_number += 1
        self._asked[number] = query
        self._asked.pop(number - MAX_UNANSWERED, None)
        say("query", [query.name], number=number)

    async def obey(self, command: dict[str, Any]) -> None:
        """Do what one line says."""
        match command:
            case {"join": address}:
                try:
                    await self.membership.join([Address.parse(address)])
                except JoinFailed as error:
                    sys.stderr.write(f"{self.membership.name}: {error}\n")
            case {"event": name, "payload": payload}:
                self.membership.send_event(name, bytes.fromhex(payload))
            case {"query": name, "relay_factor": relay_factor}:
                async for answer in self.membership.query(name, relay_factor=relay_factor):
                    kind = "acknowledgement" if isinstance(answer, QueryAcknowledgement) else "answer"
                    say(kind, [name], by=answer.member)
                say("query over", [name])
            case {"answer": number, "payload": payload}:
                query = self._asked.pop(number, None)
                if query is not None:
                    # Where it is late, the one who asked misses the answer.
                    with suppress(QueryOver):
                        self.membership.answer(query, bytes.fromhex(payload))


def say_suspicions(own_name: str) -> None:
    """Have what is logged of suspicions printed, in place of being logged."""

    def take(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.ProcessorReturnValue:
        if event["event"] == "gossip":
            if event["after"] == "suspect" and str(event["reason"]).startswith(f"{own_name} suspects"):
                say("suspects", [event["member"]])
            if event["after"] == "dead" and event["reason"] == "its suspicion expired":
                say("declares dead", [event["member"]])
        elif "was stopped" in event["event"]:
            say("paused", [own_name])
        raise structlog.DropEvent

    structlog.configure(processors=[take], cache_logger_on_first_use=False)


async def main(name: str, profile: ProfileName, host: str, port: int) -> None:
    """Be a member until standard input ends."""
    config = GossipConfig(name=name, bind_host=host, bind_port=port, profile=GossipProfile.named(profile))
    membership = await bind_membership(config, {})
    process = MemberProcess(membership)
    async with trio.open_nursery() as nursery:
        await nursery.start(process.say_what_happens)
        await nursery.start(membership.run)
        say_line(address=str(membership.address))
        lines = trio.lowlevel.FdStream(0)
        waiting = b""
        while data := await lines.receive_some():
            *whole, waiting = (waiting + data).split(b"\n")
            for line in whole:
                nursery.start_soon(process.obey, json.loads(line))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    configure_log_output("auto", "error")
    if "suspicions" in sys.argv[5:]:
        say_suspicions(sys.argv[1])
    trio.run(main, sys.argv[1], ProfileName(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
