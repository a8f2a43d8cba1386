from __future__ import annotations

from asyncio import sslproto
from typing import Any, cast

import pytest

from proglog_trio.rpc.http2.connection import abort_transport


class _TlsProtocol:
    """What asyncio's transport of TLS calls."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def _start_shutdown(self) -> None:
        self.called.append("shut down")

    def _abort(self, exception: BaseException | None = None) -> None:
        self.called.append("aborted")


@pytest.mark.parametrize("closed", [0, 1, 2, 3])
def test_a_transport_can_be_aborted_however_often_it_was_closed(closed: int) -> None:
    protocol = _TlsProtocol()
    transport = cast("Any", sslproto)._SSLProtocolTransport(None, protocol)
    for _ in range(closed):
        transport.close()
    abort_transport(transport)
    assert protocol.called == ["shut down"][:closed] + ["aborted"][: closed < 2]
