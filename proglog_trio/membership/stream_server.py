"""Streams of others: each carries one message here, and the answer to it back."""

from __future__ import annotations

from contextlib import suppress

import structlog
import trio
from attrs import define, evolve, field

from proglog_trio.membership.core_access import CoreAccess
from proglog_trio.membership.serf.clusters import StateRefused
from proglog_trio.membership.serf.merging import MergeRefused
from proglog_trio.membership.stream_io import host_of
from proglog_trio.membership.swim.foreigners import Sender
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.trouble_log import TroubleLog
from proglog_trio.membership.wire.coordinates import encode_seen_payload
from proglog_trio.membership.wire.errors import DecodingError, NotDecrypted
from proglog_trio.membership.wire.memberlist import ErrorMessage, Ping, PushPull, UserMessage
from proglog_trio.steps import Steps

MAX_STREAMS = 128
"""Streams of others that are served at once; for one more, the oldest is ended."""
MAX_PASSED_OVER_BYTES = 20 * 1024 * 1024
"""Of a stream that cannot be read, before it is closed: what a state may have."""
PASSED_OVER_AT_ONCE_BYTES = 64 * 1024
LONGEST_REASON = 500
"""Characters of what is told to a member whose stream cannot be read."""

_logger = structlog.get_logger(__name__)


@define(eq=False)
class StreamServer:
    """Serves the streams of others, bounded in number and time.

    Attributes:
        gossip: owns the core.
        troubles: where streams with another key are named.
    """

    gossip: CoreAccess
    troubles: TroubleLog
    # What ends each, in the order in which they came.
    _served: dict[trio.CancelScope, None] = field(factory=dict)

    async def serve(self, stream: trio.SocketStream, *, only_pings: bool = False) -> None:
        """Serve one stream, and close it; only_pings: this node is no member yet, and answers nothing else."""
        # For one more than there may be, the oldest goes: an exchange that is meant takes milliseconds.
        while len(self._served) >= MAX_STREAMS:
            oldest = next(iter(self._served))
            del self._served[oldest]
            oldest.cancel()
        source = host_of(stream)
        if source is not None and not self._is_allowed(source):
            self.gossip.counters.sources_refused += 1
            self.troubles.not_allowed(source)
            await trio.aclose_forcefully(stream)
            return
        try:
            with trio.move_on_after(self.gossip.config.profile.stream_timeout) as scope:
                self._served[scope] = None
                async with stream:
                    await self._serve(stream, only_pings)
            if scope.cancelled_caught:
                self.gossip.counters.streams_refused += 1
                _logger.debug("a stream was refused", reason="it took too long")
        except (DecodingError, StateRefused, OSError, trio.BrokenResourceError) as error:
            self.gossip.counters.streams_refused += 1
            _logger.debug("a stream was refused", source=source, reason=str(error))
            if isinstance(error, MergeRefused):
                self.troubles.not_merged(source or "", str(error))
            if isinstance(error, NotDecrypted) and source is not None:
                self.troubles.another_key(source, self.gossip.core.swim.rules, error)
        finally:
            self._served.pop(scope, None)

    def _is_allowed(self, host: str) -> bool:
        address = Endpoint.of(host.partition("%")[0], 0).address
        return self.gossip.core.swim.rules.admission.allows(address)

    async def _serve(self, stream: trio.SocketStream, only_pings: bool) -> None:
        try:
            message = await self.gossip.codec.receive(stream, from_dialler=True)
        except DecodingError as error:
            await self._say_why(stream, error)
            raise
        self.gossip.counters.streams_served += 1
        if only_pings and (not isinstance(message, Ping) or message.node):
            return
        match message:
            case PushPull():
                await self._answer_state(stream, message)
            case Ping() if message.source_addr and self._is_elsewhere(message):
                self.gossip.core.swim.rules.counters.of_other_clusters += 1
            case Ping():
                await self._answer_ping(stream, message)
            case UserMessage(payload):
                self.gossip.act(lambda: self.gossip.core.receive(payload))

    async def _answer_ping(self, stream: trio.SocketStream, ping: Ping) -> None:
        core = self.gossip.core
        answer = core.swim.prober.ping(ping, None)
        if answer is None:
            return
        seen = _dialler(stream).address
        if seen and not ping.node and ping.source_node != core.swim.name:
            # One that knows no member yet, and perhaps not its own address. This node itself sees what others may not.
            answer = evolve(answer, payload=encode_seen_payload(core.vivaldi.coordinate, seen))
        await self.gossip.codec.send(stream, answer, from_dialler=False)

    async def _say_why(self, stream: trio.SocketStream, error: DecodingError) -> None:
        """Answer what cannot be read with the reason, as agents do: otherwise operators see but a stream that ended."""
        with suppress(OSError, trio.BrokenResourceError):
            await self.gossip.codec.send(stream, ErrorMessage(str(error)[:LONGEST_REASON]), from_dialler=False)
            await stream.send_eof()
            # To close while the rest is on its way would reset the connection, and the answer be lost with it.
            room = MAX_PASSED_OVER_BYTES
            while room > 0 and (data := await stream.receive_some(PASSED_OVER_AT_ONCE_BYTES)):
                room -= len(data)

    def _is_elsewhere(self, ping: Ping) -> bool:
        return self.gossip.core.swim.rules.is_elsewhere(Endpoint(ping.source_addr, ping.source_port))

    async def _answer_state(self, stream: trio.SocketStream, state: PushPull) -> None:
        answer, problem = await self.gossip.codec.turns.run(
            self.gossip.acting(self._exchanged(state, _dialler(stream)))
        )
        await self.gossip.codec.send(stream, answer, from_dialler=False)
        if problem is not None:
            raise problem

    def _exchanged(
        self, state: PushPull, sender: Sender
    ) -> Steps[tuple[PushPull | ErrorMessage, DecodingError | StateRefused | None]]:
        """Return what was known before a state was merged, and what is wrong with that state.

        A member of another cluster is told that alone: other programs than this one merge what they are told.
        """
        answer = yield from self.gossip.core.push_pull.local_state_steps(join=False)
        if state.nodes or state.user_state:
            # Before anything is waited for: of those that join at one moment, each is then told of the ones before it.
            try:
                yield from self.gossip.core.push_pull.merge_steps(state, sender=sender)
            except StateRefused as error:
                return ErrorMessage(f"the node at {self.gossip.endpoint} does not merge your cluster: {error}"), error
            except DecodingError as error:
                return answer, error
        return answer, None


def _dialler(stream: trio.SocketStream) -> Sender:
    """Return what is at the other end of a stream, as far as it tells."""
    host = host_of(stream)
    return Sender() if host is None else Sender(address=Endpoint.of(host.partition("%")[0], 0).address)
