"""How both ends of a connection are configured: frames, windows, limits and patience."""

from __future__ import annotations

from attrs import field, frozen, validators
from grpclib.config import Configuration

from proglog_trio.rpc.http2.keepalive import PeerPatience
from proglog_trio.units import KIBIBYTE, MEBIBYTE

FRAME_BYTES = 64 * KIBIBYTE
"""The longest frame, in either direction. A smaller one costs a third of the throughput."""
STREAM_WINDOW_BYTES = 4 * MEBIBYTE
CONNECTION_WINDOW_BYTES = 16 * MEBIBYTE
"""Several times that of a stream: one stalled stream must not starve the others."""
DEFAULT_MESSAGE_BYTES = 4 * MEBIBYTE


@frozen(kw_only=True)
class TransportConfig:
    """What both ends of a connection are configured with.

    Attributes:
        message_bytes: the longest message that is accepted from the peer.
        stream_window_bytes: how much the peer may send on one stream before any of it is read (RFC 9113, section 5.2),
            at most the connection's 16 MiB.
        header_list_bytes: the longest header list that is accepted from the peer (RFC 9113, section 6.5.2); a longer
            one ends its call with RESOURCE_EXHAUSTED, one that costs too much to read ends its connection.
        concurrent_streams: how many streams the peer may have open at once on one connection; more are refused.
        keepalive_seconds: a peer from which nothing came for so long is sent a PING.
        keepalive_timeout_seconds: a peer that does not answer it for so long is taken for dead.
        handshake_seconds: a peer that has not sent its HTTP/2 preface and SETTINGS by then is disconnected.
    """

    message_bytes: int = field(default=DEFAULT_MESSAGE_BYTES, validator=validators.ge(1024))
    stream_window_bytes: int = field(
        default=STREAM_WINDOW_BYTES, validator=[validators.ge(1024), validators.le(CONNECTION_WINDOW_BYTES)]
    )
    header_list_bytes: int = field(default=16 * KIBIBYTE, validator=validators.ge(1024))
    concurrent_streams: int = field(default=100, validator=validators.ge(1))
    keepalive_seconds: float = field(default=10.0, validator=validators.gt(0))
    keepalive_timeout_seconds: float = field(default=10.0, validator=validators.gt(0))
    handshake_seconds: float = field(default=10.0, validator=validators.gt(0))

    @property
    def patience(self) -> PeerPatience:
        """How long the peer is waited for."""
        return PeerPatience(self.handshake_seconds, self.keepalive_seconds, self.keepalive_timeout_seconds)


def grpclib_configuration(server_name: str | None = None) -> Configuration:
    """Return grpclib's own configuration: our window, and its keepalive off, since ours takes its place.

    A stream's window is in TransportConfig: grpclib allows none below 64 KiB.

    Args:
        server_name: what the certificate of a server must be for; None: the host that is dialled.
    """
    return Configuration(
        ssl_target_name_override=server_name,
        _keepalive_time=None,
        http2_connection_window_size=CONNECTION_WINDOW_BYTES,
    )
