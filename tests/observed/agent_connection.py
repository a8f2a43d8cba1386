"""A connection to an agent's RPC port: commands with their sequence numbers, and the records that answer them.

The protocol is the one of Serf's public documentation ("RPC Protocol"): msgpack objects over TCP, a header with a
sequence number before each command and each answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import trio
from attrs import define, field

Record = dict[str, Any]
"""What follows a header; byte strings are bytes, keys are text."""


class CommandFailed(Exception):
    """The agent answered with an error, or the connection ended; the message says which."""


@define(eq=False)
class _Command:
    # called with each record; None: only the header counts
    take: Callable[[Record], object] | None
    # whether a record comes with the first header already
    at_once: bool
    accepted: trio.Event = field(factory=trio.Event)
    error: str = ""


@define(eq=False)
class AgentConnection:
    """A connection on which run reads.

    Attributes:
        stream: the connection itself.
    """

    stream: trio.SocketStream
    _commands: dict[int, _Command] = field(factory=dict)
    _sending: trio.Lock = field(factory=trio.Lock)
    _next_number: int = 0
    _ended: bool = False

    async def command(
        self,
        name: str,
        body: Record | None = None,
        take: Callable[[Record], object] | None = None,
        *,
        at_once: bool = False,
    ) -> None:
        """Send a command, and wait until it is accepted.

        Args:
            name: of the command.
            body: what goes with it; None: nothing.
            take: called with each record that answers it, now and later.
            at_once: the header that accepts it is followed by a record.

        Raises:
            CommandFailed: the agent refuses it, or the connection has ended.
        """
        command = _Command(take, at_once)
        async with self._sending:
            number = self._next_number
            self._next_number += 1
            self._commands[number] = command
            packed = msgpack.packb({"Command": name, "Seq": number}, use_bin_type=False)
            if body is not None:
                packed += msgpack.packb(body, use_bin_type=False)
            await self.stream.send_all(packed)
        if not self._ended:
            await command.accepted.wait()
        if command.error or self._ended:
            raise CommandFailed(f"{name}: {command.error or 'the connection has ended'}")

    async def run(self) -> None:
        """Read until the connection ends."""
        # Byte strings may hold any bytes; those that say what something is are read as Latin-1 above.
        unpacker = msgpack.Unpacker(raw=False, unicode_errors="surrogateescape")
        # whose record comes next
        awaited: _Command | None = None
        try:
            async for data in self.stream:
                unpacker.feed(data)
                for found in unpacker:
                    if awaited is None:
                        awaited = self._header(found)
                    else:
                        if awaited.take is not None:
                            awaited.take(found)
                        awaited = None
        except trio.BrokenResourceError:
            # It was killed.
            pass
        finally:
            self._ended = True
            for command in self._commands.values():
                command.accepted.set()

    def _header(self, header: Record) -> _Command | None:
        """Take a header; return the command whose record follows, if one does."""
        command = self._commands[header["Seq"]]
        has_record = command.accepted.is_set() or command.at_once
        if not command.accepted.is_set():
            command.error = header["Error"]
            command.accepted.set()
        if command.take is None and not command.at_once:
            del self._commands[header["Seq"]]
        return command if has_record else None
