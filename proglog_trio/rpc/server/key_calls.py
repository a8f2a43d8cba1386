"""The key methods of the Cluster service: gossip keys installed, used, removed and listed in the whole cluster.

Keys are what they carry, so they want a connection that nobody can listen to: with TLS, or within this machine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import partial
from typing import Any

from attrs import frozen
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.membership import KeyAnswers, KeyManager, KeyOperation, KeysNotAsked
from proglog_trio.rpc.http2.bridge import trio_as_aio
from proglog_trio.rpc.server.stream_io import receive_only

_CHANGES: Mapping[str, tuple[KeyOperation, type, type]] = {
    "InstallKey": (KeyOperation.INSTALL, log_v1.InstallKeyRequest, log_v1.InstallKeyResponse),
    "UseKey": (KeyOperation.USE, log_v1.UseKeyRequest, log_v1.UseKeyResponse),
    "RemoveKey": (KeyOperation.REMOVE, log_v1.RemoveKeyRequest, log_v1.RemoveKeyResponse),
}


@frozen(eq=False)
class KeyCalls:
    """The methods.

    Attributes:
        keys: changes and asks; None: gossip is not encrypted.
    """

    keys: KeyManager | None

    def methods(self, service: str) -> Mapping[str, Handler]:
        """Return the methods by their paths, for grpclib."""
        unary = Cardinality.UNARY_UNARY
        return {
            **{
                f"/{service}/{name}": Handler(partial(self._change, operation, response), unary, request, response)
                for name, (operation, request, response) in _CHANGES.items()
            },
            f"/{service}/ListKeys": Handler(self._list, unary, log_v1.ListKeysRequest, log_v1.ListKeysResponse),
        }

    async def _change(self, operation: KeyOperation, response: Any, stream: Stream[Any, Any]) -> None:  # noqa: ANN401 - a class of messages
        request = await receive_only(stream)
        answers = await self._ask(stream, operation, request.key)
        await stream.send_message(response(answers=_message(answers)))

    async def _list(self, stream: Stream[Any, Any]) -> None:
        await receive_only(stream)
        answers = await self._ask(stream, KeyOperation.LIST, "")
        holders = [
            log_v1.KeyHolders(key=key, members=sorted(names), primary_of=sorted(answers.primary_of.get(key, ())))
            for key, names in sorted(answers.holders.items())
        ]
        await stream.send_message(log_v1.ListKeysResponse(answers=_message(answers), keys=holders))

    async def _ask(self, stream: Stream[Any, Any], operation: KeyOperation, key: str) -> KeyAnswers:
        if not _is_private(stream):
            raise GRPCError(
                Status.FAILED_PRECONDITION, "keys are not sent over a connection without TLS to another machine"
            )
        if self.keys is None:
            raise GRPCError(Status.FAILED_PRECONDITION, "this node's gossip is not encrypted: it has no keys")
        try:
            answers: KeyAnswers = await trio_as_aio(self.keys.ask)(operation, key)
        except ValueError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from None
        except KeysNotAsked as error:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, str(error)) from None
        return answers


def _is_private(stream: Stream[Any, Any]) -> bool:
    transport = stream._stream._transport  # noqa: SLF001 - grpclib tells of a peer's certificate alone, not of TLS
    if transport.get_extra_info("ssl_object") is not None:
        return True
    peer = transport.get_extra_info("peername")
    return bool(peer) and ipaddress.ip_address(str(peer[0]).partition("%")[0]).is_loopback


def _message(answers: KeyAnswers) -> log_v1.KeyAnswers:
    return log_v1.KeyAnswers(done=answers.done, problems=answers.problems, silent=answers.silent)
