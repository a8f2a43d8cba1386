"""What nodes say to each other when they replicate: read, and then acted on by a replica over a real log in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from attrs import define, evolve, field
from grpclib.exceptions import GRPCError

from fuzz.strict import Strict
from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.errors import FrameError, LogBusy
from proglog_trio.log.format.frame import Frame, FrameHeader
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.record import payload_crc
from proglog_trio.replication.events import PeerLied, PullRefused
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.messages import Hello, OriginRange, Positions, PullResponse
from proglog_trio.replication.replica import Replica, ReplicationConfig
from proglog_trio.replication.source_reader import FrameSource
from proglog_trio.rpc.messages.codec import MessageCodec
from proglog_trio.rpc.messages.replication import (
    encode_fetched,
    encode_frames,
    encode_response,
    frames_steps,
    origin_of,
    request_steps,
    request_to_message,
    response_steps,
)
from proglog_trio.steps import complete
from tests.log.driving import NOON, ForeignLog, OpenLog, batch_of
from tests.log.simulated_disk import SimulatedDisk
from tests.replication.driving import QuietHost

PEER = "peer"
KINDS = 5
CASES_PER_REPLICA = 500
MAX_READ = 64 * 1024
MAX_ANSWERS = 10_000
HOUR = 3600.0
_HEADER_FIELDS = 26

Message = TypeVar("Message")


class PullBroken(AssertionError):
    """Something is left behind, or happened that must not."""


def _nothing() -> None:
    pass


def foreign_log() -> ForeignLog:
    """A log of another directory, the same each time, with frames that follow each other."""
    foreign = ForeignLog.make(1)
    for number in range(4):
        foreign.write(batch_of(*[b"value %d" % number] * (number + 1)))
    return foreign


FRAMES = tuple(foreign_log().frames)
ORIGIN: Origin = FRAMES[0].header.origin
THEIRS = Hello("proglog", PEER, ORIGIN.data[:8], NOON)


@define(eq=False)
class _World:
    """A replica whose log has half of what the peer wrote, and something of its own."""

    opened: OpenLog = field(factory=lambda: OpenLog.open(SimulatedDisk(), errors=Strict()))
    now: float = 0.0
    replica: Replica = field(init=False)

    def __attrs_post_init__(self) -> None:
        log = self.opened.log
        mine = Hello("proglog", "me", log.directory_id, NOON)
        node = LocalNode(log, mine, lambda: self.now, lambda _event: None, errors=Strict())
        self.replica = Replica(node, ReplicationConfig(), QuietHost())
        self.opened.append_values(b"mine")
        for frame in FRAMES[:2]:
            log.append_foreign(frame, frame.encode(), lambda _error: None)
        self.opened.commit()
        self.replica.joined(PEER)

    def origins(self) -> dict[Origin, int]:
        return {origin: state.next for origin, state in self.opened.log.planned_origins.items()}


@define(eq=False)
class Pulls:
    """Messages of pull streams and fetches, both ways; the first byte says which."""

    _codec: MessageCodec = field(factory=lambda: MessageCodec(64 * 1024))
    _world: _World | None = None
    _cases: int = 0

    def pull(self, data: bytes) -> None:
        """Take one message as what the first byte says."""
        if not data:
            return
        if self._world is None or self._cases % CASES_PER_REPLICA == 0:
            if self._world is not None:
                self._world.replica.close()
                self._world.opened.close()
            self._world = _World()
        self._cases += 1
        world, mode, data = self._world, data[0] % KINDS, data[1:]
        before = world.origins()
        known = {*before, ORIGIN}
        take: Callable[[_World, bytes], None] = (
            self._request,
            self._response,
            self._sealed_frame,
            self._fetch,
            self._fetched,
        )[mode]
        with contextlib.suppress(PeerLied, PullRefused, GRPCError, LogBusy, FrameError):
            take(world, data)
        world.opened.commit()
        self._look(world, before, known)

    def _read(self, data: bytes, kind: type[Message]) -> Message:
        message = self._codec.decode(data, kind)
        assert isinstance(message, kind)
        return message

    def _request(self, world: _World, data: bytes) -> None:
        """A puller says something: it is answered as long as there is anything to say."""
        request = complete(request_steps(self._read(data, log_v1.PullRequest)))
        if complete(request_steps(log_v1.PullRequest.parse(bytes(request_to_message(request))))) != request:
            raise PullBroken("a request does not survive encoding")
        session = world.replica.open_source(_nothing)
        source = FrameSource(world.opened.log)
        try:
            session.received(request)
            for _ in _bounded():
                world.now += 1
                response = session.next_response()
                if response is not None:
                    encode_response(response)
                answer = None if session.has_want_changes else source.read_recent(MAX_READ)
                if answer is None:
                    answer = source.read(session.pop_want_changes(), MAX_READ)
                session.frames_read(answer.count, sum(map(len, answer.pieces)), answer.ended)
                encode_frames(answer.pieces)
                if response is None and answer.is_done and not answer.pieces and not answer.ended:
                    break
        finally:
            source.close()
            world.replica.close_source(session)

    def _response(self, world: _World, data: bytes) -> None:
        """A source says something on a stream on which it was asked for what it has."""
        response = complete(response_steps(self._read(data, log_v1.PullResponse)))
        self._pulled(world, response)

    def _sealed_frame(self, world: _World, data: bytes) -> None:
        """A source sends a frame whose checksums are right, whatever else is not."""
        if len(data) < _HEADER_FIELDS:
            return
        fields, payload = data[:_HEADER_FIELDS], data[_HEADER_FIELDS:]
        base = FRAMES[2].header
        header = evolve(
            base,
            origin=ORIGIN if fields[0] & 1 else Origin(payload[:16].ljust(16, b"\1")),
            base_sequence=base.base_sequence if fields[0] & 2 else int.from_bytes(fields[1:9], "little"),
            count=int.from_bytes(fields[9:13], "little"),
            log_time=base.log_time if fields[0] & 4 else int.from_bytes(fields[13:21], "little"),
            previous_header_crc=base.previous_header_crc if fields[0] & 8 else int.from_bytes(fields[21:25], "little"),
            must_understand=fields[25] & 3,
            payload_length=len(payload),
            payload_crc=payload_crc(payload),
        ).sealed()
        self._pulled(world, PullResponse(frames=Frame(header, payload).encode()))

    def _pulled(self, world: _World, response: PullResponse) -> None:
        session = world.replica.open_pull(PEER, _nothing, _nothing, _nothing)
        try:
            session.received(PullResponse(THEIRS, Positions({ORIGIN: OriginRange(0, 1 << 32)}, (), ORIGIN)))
            while session.next_request() is not None:
                pass
            if not session.received(response):
                world.opened.commit()
                session.apply()
            # What is due long after, such as giving up on what nobody has.
            world.now += HOUR
            world.replica.scheduler.advance()
        finally:
            world.replica.close_pull(session)

    def _fetch(self, world: _World, data: bytes) -> None:
        """Somebody asks for frames."""
        request = self._read(data, log_v1.FetchFramesRequest)
        origin, sequence = origin_of(request.origin), request.from_sequence
        for _ in _bounded():
            if sequence >= request.to_sequence:
                break
            found = world.opened.log.frames(origin, sequence, request.to_sequence, MAX_READ)
            if found.next_sequence <= sequence:
                raise PullBroken(f"a fetch does not get on from {sequence}")
            sequence = found.next_sequence
            encode_fetched(tuple(found.frames))

    def _fetched(self, _world: _World, data: bytes) -> None:
        """Somebody sends frames that were asked for."""
        for frame in complete(frames_steps(self._read(data, log_v1.FetchFramesResponse).frames)):
            FrameHeader.decode(frame)

    def _look(self, world: _World, before: dict[Origin, int], known: set[Origin]) -> None:
        replica, after = world.replica, world.origins()
        if replica.streams.pulls or replica.streams.sources:
            raise PullBroken("a session is left")
        if not set(after) <= known:
            raise PullBroken("the log took an origin that nobody asked for")
        if any(after[origin] < following for origin, following in before.items()):
            raise PullBroken("the log lost records")
        if world.opened.log.read_only_reason is not None:
            raise PullBroken(f"the log is read-only: {world.opened.log.read_only_reason}")


def _bounded() -> Iterator[int]:
    yield from range(MAX_ANSWERS)
    raise PullBroken(f"more than {MAX_ANSWERS} answers to one message")


def seeds() -> Iterator[bytes]:
    """Valid input of each kind."""
    hello = log_v1.Hello(version=THEIRS.version, cluster_name="proglog", node_name=PEER, directory_id=b"12345678")
    ranges = [log_v1.OriginRange(origin=ORIGIN.data, low=0, next=10, gaps=[3, 4])]
    positions = log_v1.Positions(ranges=ranges, writing=ORIGIN.data)
    news = log_v1.HolderNews(directory_id=b"abcdefgh", opened=1, origins=[ORIGIN.data], nexts=[3])
    want = log_v1.Want(origin=ORIGIN.data, from_sequence=1)
    rest = b"".join(frame.encode() for frame in FRAMES[2:])
    ended = log_v1.Ended(origin=ORIGIN.data, from_sequence=3, reason=log_v1.EndedReason.DAMAGED)
    yield b"\0" + bytes(log_v1.PullRequest(hello=hello, positions=positions, others=[news], wants=[want]))
    yield b"\0" + bytes(log_v1.PullRequest(hello=hello, wants=[want], stops=[ORIGIN.data]))
    yield b"\1" + bytes(log_v1.PullResponse(frames=rest))
    yield b"\1" + bytes(log_v1.PullResponse(positions=positions, others=[news], ended=[ended]))
    yield b"\1" + bytes(log_v1.PullResponse(ended=[ended], frames=FRAMES[0].encode()))
    for flags in (15, 14, 13, 11, 7, 0):
        yield b"\2" + bytes((flags,)) + bytes(8) + (1).to_bytes(4, "little") + bytes(13) + FRAMES[2].payload
    yield b"\3" + bytes(log_v1.FetchFramesRequest(origin=ORIGIN.data, to_sequence=9, cluster_name="proglog"))
    yield b"\4" + bytes(log_v1.FetchFramesResponse(frames=rest))
