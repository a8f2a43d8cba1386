"""A foreign client: grpcio, with the certificates that it is told to take."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import grpc

from tests.pki import Pki

CALL_SECONDS = 30.0


@contextlib.contextmanager
def channel(address: str, pki: Pki | None, client: str | None = "root", ca: str = "ca") -> Iterator[grpc.Channel]:
    """Open a channel; without pki it is plain, without client it has no certificate."""
    # One connection attempt is enough: what is refused once is refused again.
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    if pki is None:
        opened = grpc.insecure_channel(address, options)
    else:
        key = None if client is None else (pki / f"{client}-client-key.pem").read_bytes()
        chain = None if client is None else (pki / f"{client}-client.pem").read_bytes()
        credentials = grpc.ssl_channel_credentials((pki / f"{ca}.pem").read_bytes(), key, chain)
        opened = grpc.secure_channel(address, credentials, options)
    with opened:
        yield opened


def outcome(opened: grpc.Channel, path: str, request: bytes = b"", seconds: float = CALL_SECONDS) -> tuple[str, str]:
    """Call a method of any kind with one message; return the status and its message, OK after the first answer."""
    call = opened.stream_stream(path, request_serializer=bytes, response_deserializer=bytes)
    answers = call(iter([request]), timeout=seconds)
    try:
        for _ in answers:
            answers.cancel()  # type: ignore[no-untyped-call]  # the stubs leave it out
            return "OK", ""
    except grpc.RpcError as error:
        return str(error.code().name), str(error.details())
    return "OK", ""
