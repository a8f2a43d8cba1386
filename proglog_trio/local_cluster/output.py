"""Where a local cluster's news go: a live view, lines, or JSON."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

import trio
from attrs import define, field

from proglog_trio.local_cluster.events import Event
from proglog_trio.local_cluster.snapshot import ClusterSnapshot
from proglog_trio.local_cluster.view import summary, view

if TYPE_CHECKING:
    from rich.live import Live


class Writer(Protocol):
    """Where lines go, such as standard output."""

    async def write(self, data: bytes) -> None:
        """Write all of it."""


class Output(Protocol):
    """Is told the news."""

    async def tell(self, event: Event) -> None:
        """Say what has happened."""

    async def show(self, snapshot: ClusterSnapshot) -> None:
        """Show how the cluster is now."""

    def showing(self) -> AbstractAsyncContextManager[None]:
        """Return the block in which show is called."""


@define
class JsonOutput:
    """A JSON object a line, for each event and each snapshot; its key ``event`` says which."""

    _output: Writer

    async def tell(self, event: Event) -> None:
        """Say what has happened."""
        await self._write({"event": event.name, **event.fields()})

    async def show(self, snapshot: ClusterSnapshot) -> None:
        """Show how the cluster is now."""
        await self._write({"event": "status", **snapshot.fields()})

    def showing(self) -> AbstractAsyncContextManager[None]:
        """Return the block in which show is called."""
        return contextlib.nullcontext()

    async def _write(self, fields: dict[str, object]) -> None:
        await self._output.write(json.dumps(fields).encode() + b"\n")


@define
class PlainOutput:
    """Lines for people: events, and how the nodes are whenever that has changed."""

    _output: Writer
    _shown: str = ""

    async def tell(self, event: Event) -> None:
        """Say what has happened."""
        await self._output.write(event.text().encode() + b"\n")

    async def show(self, snapshot: ClusterSnapshot) -> None:
        """Show how the cluster is now."""
        line = summary(snapshot)
        if line != self._shown:
            self._shown = line
            await self._output.write(line.encode() + b"\n")

    def showing(self) -> AbstractAsyncContextManager[None]:
        """Return the block in which show is called."""
        return contextlib.nullcontext()


@define
class TerminalOutput:
    """A view that is drawn again and again at the terminal's bottom, with the events above it.

    Drawn in threads that are abandoned on cancellation: a terminal may be stopped (Ctrl-S) for long.
    """

    _live: Live = field(init=False)

    def __attrs_post_init__(self) -> None:
        from rich.live import Live

        self._live = Live(auto_refresh=False)

    async def tell(self, event: Event) -> None:
        """Say what has happened."""
        await trio.to_thread.run_sync(self._print, event.text(), abandon_on_cancel=True)

    async def show(self, snapshot: ClusterSnapshot) -> None:
        """Show how the cluster is now."""
        await trio.to_thread.run_sync(self._update, snapshot, abandon_on_cancel=True)

    @contextlib.asynccontextmanager
    async def showing(self) -> AsyncIterator[None]:
        """Return the block in which show is called."""
        self._live.start()
        try:
            yield
        finally:
            self._live.stop()

    def _print(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _update(self, snapshot: ClusterSnapshot) -> None:
        self._live.update(view(snapshot), refresh=True)
