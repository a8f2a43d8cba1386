"""A member of ours that is observed: what it prints, and what is written to its standard input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import trio
from attrs import define, field

from tests.observed.agent import START_SECONDS
from tests.observed.member import Happening, Kind, ObservedMember


@define(eq=False)
class ObservedOurs(ObservedMember):
    """A running process of member_process.py."""

    _listens: trio.Event = field(factory=trio.Event)

    async def join(self, address: str) -> None:
        """Have it join through a member."""
        await self._tell(join=address)

    async def send_event(self, name: str, payload: bytes = b"") -> None:
        """Have it send a user event."""
        await self._tell(event=name, payload=payload.hex())

    async def ask(self, name: str, *, relay_factor: int = 0) -> None:
        """Have it ask all members."""
        await self._tell(query=name, relay_factor=relay_factor)

    async def _tell(self, **command: object) -> None:
        assert self.process.stdin is not None
        async with self._sending:
            await self.process.stdin.send_all(json.dumps(command).encode() + b"\n")

    async def until_listening(self) -> None:
        """Wait until it gossips."""
        await self._listens.wait()

    def take_line(self, line: str, nursery: trio.Nursery) -> None:
        """Take a line that it printed."""
        said: dict[str, Any] = json.loads(line)
        if "address" in said:
            self.address = said["address"]
            self._listens.set()
            return
        kind = Kind(said["kind"])
        for subject in said["subjects"]:
            self.happened(kind, subject, said.get("by", ""))
        if kind is Kind.QUERY:
            nursery.start_soon(self._answer, said["number"])

    async def _answer(self, number: int) -> None:
        # Where it was killed meanwhile, the one who asked misses the answer.
        with suppress(trio.BrokenResourceError):
            await self._tell(answer=number, payload=self.name.encode().hex())


async def start_ours(
    nursery: trio.Nursery,
    name: str,
    profile: str,
    note: Callable[[Happening], None],
    *,
    host: str,
    port: int = 0,
    within: Sequence[str] = (),
    suspicions: bool = False,
) -> ObservedOurs:
    """Start a member that is alone; it is to be killed before the nursery ends.

    Args:
        nursery: reads what it says.
        name: in the cluster.
        profile: its timing.
        note: called with what it says.
        host, port: where it gossips; port 0: one that is free.
        within: a command in front of its own, that enters a network namespace.
        suspicions: it tells whom it suspects and declares dead, too.
    """
    arguments = [name, profile, host, str(port), *(["suspicions"] if suspicions else [])]
    process = await trio.lowlevel.open_process(
        [*within, sys.executable, "-m", "tests.observed.member_process", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    member = ObservedOurs(name, process, note)
    nursery.start_soon(member.read_lines, lambda line: member.take_line(line, nursery))
    with trio.fail_after(START_SECONDS):
        await member.until_listening()
    return member
