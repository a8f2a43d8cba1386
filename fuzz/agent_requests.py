"""What clients of the agent's RPC send, given to a session as a connection would."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgpack
from attrs import define, field

from proglog_trio.address import Address
from proglog_trio.membership import MemberStatus
from proglog_trio.membership.agent_rpc.log_lines import level_of
from proglog_trio.membership.agent_rpc.member_records import FilterRefused, MemberFilter
from proglog_trio.membership.agent_rpc.messages import (
    COMMANDS,
    JoinMembers,
    MembersFiltered,
    MonitorLog,
    StreamEvents,
    encoded_answer,
)
from proglog_trio.membership.agent_rpc.request_decoder import MAX_BODY_BYTES, MAX_HEADER_BYTES, Request, RequestDecoder
from proglog_trio.membership.agent_rpc.session import MAX_STREAMS, Begin, End, Perform, Send, Session
from proglog_trio.membership.event_handlers.event_filter import parse_filters
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.msgpack_structs import encode_struct
from proglog_trio.steps import complete

KEY = "k"


@define(eq=False)
class _Client:
    session: Session
    decoder: RequestDecoder = field(factory=RequestDecoder)
    begun: list[Begin] = field(factory=list)

    def take(self, data: bytes) -> bool:
        """Take in a piece; tell whether the connection goes on."""
        self.decoder.feed(data)
        while True:
            try:
                request = self.decoder.next()
            except DecodingError:
                return False
            if request is None:
                return True
            if not self._do(request):
                return False

    def _do(self, request: Request) -> bool:
        step = self.session.take(request)
        if not self.session.is_trusted and not isinstance(step, Send):
            raise AssertionError(f"{request.command} is done for a client that is not trusted")
        match step:
            case Send(data, closes):
                msgpack.unpackb(data)
                return not closes
            case End(ended, data):
                msgpack.unpackb(data)
                self.begun = [each for each in self.begun if each not in ended]
            case Begin() as begun:
                self.begun.append(begun)
                self._begin(begun)
            case Perform(performed):
                self._perform(performed)
        if len(self.begun) > MAX_STREAMS:
            raise AssertionError("streams have no bound")
        return True

    def _begin(self, begun: Begin) -> None:
        with contextlib.suppress(ValueError):
            match begun.body:
                case StreamEvents(type):
                    parse_filters(type)
                case MonitorLog(level):
                    level_of(level)

    def _perform(self, request: Request) -> None:
        match request.body:
            case MembersFiltered() as wanted:
                with contextlib.suppress(FilterRefused):
                    complete(MemberFilter.of(wanted)).passes("name", MemberStatus.ALIVE.value, {"role": "web"})
            case JoinMembers(existing):
                for text in existing:
                    with contextlib.suppress(ValueError):
                        Address.parse(text, default_port=1)
        encoded_answer(request.seq)


def requests(data: bytes) -> None:
    """Take what a client sends; the first byte says in what pieces, and whether there is a key."""
    if not data:
        return
    mode, data = data[0], data[1:]
    client = _Client(Session(KEY if mode & 1 else None))
    step = (mode >> 1) or len(data) or 1
    for start in range(0, len(data), step):
        if not client.take(data[start : start + step]):
            break
        held = len(client.decoder._data)  # noqa: SLF001 - what is looked at
        if held > MAX_HEADER_BYTES + MAX_BODY_BYTES + step:
            raise AssertionError(f"{held} bytes are held")


def seeds() -> Iterator[bytes]:
    """Yield conversations that begin well, with each command."""
    greeting = _request("handshake", {"Version": 1})
    key = _request("auth", {"AuthKey": KEY})
    filters = {"Name": "a|b", "Status": "alive", "Tags": {"role": "w.*"}}
    yield b"\0" + greeting + _request("members-filtered", filters)
    yield b"\0" + greeting + _request("stream", {"Type": "user:a,query,*"}) + _request("stop", {"Stop": 1})
    for command, kind in COMMANDS.items():
        body = b"" if kind is None else encode_struct(kind())
        yield b"\1" + greeting + key + _request(command) + body
        yield bytes((3 << 1,)) + greeting + _request(command) + body


def _request(command: str, body: object = None) -> bytes:
    header: bytes = msgpack.packb({"Command": command, "Seq": 1}, use_bin_type=False)
    return header if body is None else header + msgpack.packb(body, use_bin_type=False)
