"""A client of an agent's RPC for tests: what it sends is as plain as what it reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import trio
from attrs import define, field

from proglog_trio.address import Address

SECONDS = 30


@define(eq=False)
class Client:
    """One connection; `read` gives what comes next, whatever it is."""

    stream: trio.SocketStream
    last_seq: int = 0
    _unpacker: msgpack.Unpacker = field(factory=lambda: msgpack.Unpacker(raw=False, unicode_errors="surrogateescape"))
    # Answers to other requests than the one that was waited for.
    pushed: list[tuple[int, str, Any]] = field(factory=list)

    async def send(self, command: str, body: Any = None, *, seq: int | None = None) -> int:
        """Send a request; return its number."""
        if seq is None:
            self.last_seq += 1
            seq = self.last_seq
        data = msgpack.packb({"Command": command, "Seq": seq}, use_bin_type=False)
        await self.stream.send_all(data + (b"" if body is None else msgpack.packb(body, use_bin_type=False)))
        return seq

    async def read(self) -> Any:
        """Return the next object; EOFError: the connection has ended."""
        with trio.fail_after(SECONDS):
            while True:
                try:
                    return self._unpacker.unpack()
                except msgpack.OutOfData:
                    try:
                        data = await self.stream.receive_some(65536)
                    except trio.BrokenResourceError:
                        data = b""
                    if not data:
                        raise EOFError from None
                    self._unpacker.feed(data)

    async def header(self, seq: int) -> str:
        """Return the error of the next header, which is to have a number."""
        header = await self.read()
        assert header["Seq"] == seq, header
        return str(header["Error"])

    async def ask(self, command: str, body: Any = None, *, seq: int | None = None) -> str:
        """Send a request that has no body in its answer; return the error."""
        return await self.header(await self.send(command, body, seq=seq))

    async def get(self, command: str, body: Any = None) -> tuple[str, Any]:
        """Send a request that has one; return the error and it."""
        return await self.ask(command, body), await self.read()

    async def ended(self) -> list[Any]:
        """Return all that still comes."""
        found = []
        try:
            while True:
                found.append(await self.read())
        except EOFError:
            return found


@asynccontextmanager
async def client(
    address: Address | Path, *, handshake: bool = True, auth_key: str | None = None
) -> AsyncIterator[Client]:
    """Connect for the length of the block."""
    if isinstance(address, Path):
        stream: Any = await trio.open_unix_socket(str(address))
    else:
        stream = await trio.open_tcp_stream(address.host, address.port)
    async with stream:
        connected = Client(stream)
        if handshake:
            assert await connected.ask("handshake", {"Version": 1}) == ""
        if auth_key is not None:
            assert await connected.ask("auth", {"AuthKey": auth_key}) == ""
        yield connected


def named(members: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the members of an answer by name."""
    return {member["Name"]: member for member in members["Members"]}
