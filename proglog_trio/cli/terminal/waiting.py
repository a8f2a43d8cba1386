"""Saying on a terminal that a command waits for a node, and that it goes on: a person should not have to guess."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
from attrs import define

from proglog_trio.cli.node_commands import report

LOOK_SECONDS = 1.0
"""How often it is looked whether the command waits; for so long waiting is not worth a word."""


@define
class Waiting:
    """What stands in the way of a command.

    Attributes:
        obstacle: called to learn it; None: nothing does.
    """

    obstacle: Callable[[], str | None]
    _said: bool = False

    def look(self) -> None:
        """Say that the command waits, or goes on, if that is new."""
        found = self.obstacle()
        if found is not None and not self._said:
            report(f"waiting for a node: {found} (Ctrl-C ends this)")
        elif found is None and self._said:
            report("a node is there: going on")
        self._said = found is not None

    async def keep_looking(self) -> None:
        """Look every second; ended by being cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            self.look()


@asynccontextmanager
async def waiting_is_told(addresses: tuple[str, ...]) -> AsyncIterator[Waiting]:
    """Say for the length of the block what the command waits for, if standard error is a terminal.

    The block says what that is; until it does, no node has answered. An error of the block comes out as it is.
    """
    waiting = Waiting(lambda: f"none has answered at {', '.join(addresses)}")
    if not sys.stderr.isatty():
        yield waiting
        return
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiting.keep_looking)
        try:
            yield waiting
        except Exception as error:  # noqa: BLE001 - carried out of the nursery, which would wrap it in a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
