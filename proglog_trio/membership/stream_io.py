"""Gossip's streams: one message each way on a TCP connection, under Trio."""

from __future__ import annotations

from collections.abc import Callable

import trio
from attrs import field, frozen

from proglog_trio.membership.swim.admission import any_address, not_allowed
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.turns import Turns
from proglog_trio.membership.wire.errors import DecodingError, NotDecrypted
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.memberlist import ErrorMessage
from proglog_trio.membership.wire.stream import StreamMessage, encode_stream_steps
from proglog_trio.membership.wire.stream_decoder import StreamDecoder

SMALLEST_COMPRESSED_BYTES = 16 * 1024
"""What has less goes in a few segments, which are on their way sooner than it could be packed and unpacked."""
_RECEIVE_BYTES = 64 * 1024


def _ignore(_host: str) -> None:
    """Do nothing."""


class ExchangeFailed(Exception):
    """An exchange by stream did not happen: no connection, no answer in time, or one that cannot be read."""


@frozen
class StreamCodec:
    """How messages stand on streams.

    Attributes:
        keyring: encrypts, and refuses what is not encrypted; None: everything is plain.
        label: of the cluster.
        verify_incoming: False: what is not encrypted is taken too.
        verify_outgoing: False: nothing is encrypted, although there is a keyring.
        allows: tells whether members may have an address; no stream is opened to any other.
        took_plain: called with the address of who sent a message that is not encrypted, although there is a keyring.
        turns: in which messages are read and written, so that no large one holds the loop.
    """

    keyring: Keyring | None = None
    label: bytes = b""
    verify_incoming: bool = True
    verify_outgoing: bool = True
    allows: Callable[[bytes], bool] = field(default=any_address, eq=False)
    took_plain: Callable[[str], None] = field(default=_ignore, eq=False)
    turns: Turns = field(factory=Turns)

    async def send(self, stream: trio.abc.SendStream, message: StreamMessage, *, from_dialler: bool) -> None:
        """Send a message; raises trio's errors of a broken stream."""
        keyring = self.keyring if self.verify_outgoing else None
        encoding = encode_stream_steps(
            message,
            keyring=keyring,
            label=self.label,
            from_dialler=from_dialler,
            smallest_compressed_bytes=SMALLEST_COMPRESSED_BYTES,
        )
        await stream.send_all(await self.turns.run(encoding))

    async def receive(self, stream: trio.abc.ReceiveStream, *, from_dialler: bool) -> StreamMessage:
        """Receive a message; raises DecodingError if it is malformed or cut off."""
        decoder = StreamDecoder(
            keyring=self.keyring, label=self.label, from_dialler=from_dialler, verify=self.verify_incoming
        )
        has_begun = False
        while True:
            data = await stream.receive_some(_RECEIVE_BYTES)
            if not data and not has_begun and not from_dialler:
                raise DecodingError(f"ended without an answer{self._guess}", "stream")
            has_begun = True
            if not data:
                decoder.end()
                raise DecodingError("ended", "stream")  # end has raised, unless the message was whole before
            message = await self.turns.run(decoder.feed_steps(bytes(data)))
            if message is not None:
                if decoder.was_plain:
                    self.took_plain(host_of(stream) or "")
                return message

    @property
    def _guess(self) -> str:
        """What may be the reason, of all that a member says nothing to."""
        if self.keyring is None and not self.label:
            return ", as members do whose gossip is encrypted, or has a label"
        if self.keyring is None:
            return ", as members do whose gossip is encrypted, or has another label"
        return f", as members do that have another gossip key{', or another label' if self.label else ', or a label'}"

    async def tell(self, target: Endpoint, message: StreamMessage, timeout: float) -> None:
        """Open a stream and send a message that is not answered.

        Args:
            target: to whom.
            message: what to send.
            timeout: for all of it, in seconds.

        Raises:
            ExchangeFailed: saying why it was not sent.
        """
        self._check(target)
        try:
            with trio.fail_after(timeout):
                stream = await trio.open_tcp_stream(target.host, target.port)
                async with stream:
                    await self.send(stream, message, from_dialler=True)
                    await stream.send_eof()
                    # What is closed before it was read may be lost; who reads to the end closes.
                    await stream.receive_some(_RECEIVE_BYTES)
        except trio.TooSlowError:
            raise ExchangeFailed(f"{target} did not take a message within {timeout:g} s") from None
        except (OSError, trio.BrokenResourceError) as error:
            raise ExchangeFailed(f"{target}: {_reason(error)}") from None

    async def ask(self, target: Endpoint, question: StreamMessage, timeout: float) -> StreamMessage:
        """Open a stream, send a message and return the answer.

        Args:
            target: whom.
            question: what to send.
            timeout: for all of it, in seconds.

        Raises:
            ExchangeFailed: saying why there is no answer.
        """
        self._check(target)
        answer: StreamMessage | None = None
        try:
            with trio.fail_after(timeout):
                stream = await trio.open_tcp_stream(target.host, target.port)
                async with stream:
                    await self.send(stream, question, from_dialler=True)
                    answer = await self.receive(stream, from_dialler=False)
        except trio.TooSlowError:
            # Where it was read in the last moment, or after this process was stopped for longer, only closing failed.
            if answer is None:
                raise ExchangeFailed(f"{target} did not answer within {timeout:g} s") from None
        except (OSError, trio.BrokenResourceError) as error:
            raise ExchangeFailed(f"{target}: {_reason(error)}") from None
        except NotDecrypted as error:
            raise ExchangeFailed(f"{target} has another gossip key than this node, or none: {error}") from None
        except DecodingError as error:
            raise ExchangeFailed(f"{target}: {error}") from None
        if isinstance(answer, ErrorMessage):
            raise ExchangeFailed(f"{target} answers: {answer.error[:200]}")
        return answer

    def _check(self, target: Endpoint) -> None:
        """Open no stream to where no member may be, whoever names it."""
        if not self.allows(target.address):
            raise ExchangeFailed(f"{target}: {not_allowed(target.host)}")


def host_of(stream: object) -> str | None:
    """Return the address at the other end of a stream; None: it is closed already, or no stream of a network."""
    if not isinstance(stream, trio.SocketStream):
        return None
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:
        return None


def _reason(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, OSError):
        error = cause
    return str(error) or type(error).__name__
