"""What goes wrong with TLS, in words of our own: OpenSSL's are names of its source files and codes."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import structlog

from proglog_trio.security.verified_chain import IntermediateExpired

NO_TLS = "the other side does not speak TLS"
_logger = structlog.get_logger(__name__)

_CERTIFICATE_ALERTS: Mapping[str, str] = {
    "UNKNOWN_CA": "it does not know the authority that signed it",
    "BAD_CERTIFICATE": "it is malformed or for another name",
    "CERTIFICATE_EXPIRED": "it, or that of an intermediate authority, has expired",
    "CERTIFICATE_UNKNOWN": "it does not say why",
    "CERTIFICATE_REVOKED": "it is revoked",
    "CERTIFICATE_REQUIRED": "there is none",
    "UNSUPPORTED_CERTIFICATE": "it is of a kind, or for a purpose, that is not accepted",
}
"""What the other side says of a certificate that it was shown: TLS's alerts (RFC 8446, section 6.2)."""
_NO_TLS = frozenset({"HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG"})
"""What OpenSSL says of bytes that are no TLS record."""
_NO_AGREEMENT: Mapping[str, str] = {
    "UNSUPPORTED_PROTOCOL": "the other side has no TLS version from 1.2 on",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the other side has no TLS version that this one has (1.2 and later)",
    "NO_SHARED_CIPHER": "the other side has no cipher that this one accepts",
    "HANDSHAKE_FAILURE": "the other side accepts none of the ciphers of this one, or shows no certificate",
    "NO_APPLICATION_PROTOCOL": "the other side does not speak HTTP/2",
    "UNEXPECTED_EOF_WHILE_READING": "the other side ended it in the middle of the handshake",
}
_UNACCEPTED: Mapping[int, str] = {
    7: "its signature is wrong",
    9: "it, or that of an authority above it, is not valid yet: is the clock right?",
    10: "it, or that of an authority above it, has expired",
    18: "it is self-signed, and not among the authorities",
    19: "its chain ends at a self-signed authority that is not among those that are accepted",
    2: "the authority that signed it is not known here, and not sent along",
    20: "the authority that signed it is not known here, and not sent along",
    21: "the authority that signed it is not known here, and not sent along",
    22: "its chain of authorities is too long",
    23: "it is revoked",
    24: "an authority above it is none",
    26: "it is for another purpose (a client's for a server, or the other way)",
    79: "an authority above it is none",
}
"""By X509_V_ERR_…, which are numbers that do not change."""
_HOST_MISMATCH = frozenset({62, 64})


def tls_problem(error: ssl.SSLError) -> str:
    """Return for people what has gone wrong with TLS."""
    reason = error.reason or ""
    _logger.debug("TLS failed", reason=reason or str(error))
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate that the other side shows is not accepted: {unaccepted(error)}"
    if reason in _NO_TLS:
        return NO_TLS
    for alert, meaning in _CERTIFICATE_ALERTS.items():
        if reason.endswith(alert):
            return f"the other side does not accept the certificate that it was shown: {meaning}"
    for ending, meaning in _NO_AGREEMENT.items():
        if reason.endswith(ending):
            return f"no TLS connection: {meaning}"
    return "no TLS connection: the two sides do not agree"


def unaccepted(error: ssl.SSLCertVerificationError) -> str:
    """Return for people why a certificate is not accepted."""
    if isinstance(error, IntermediateExpired):
        return f"the certificate of the intermediate authority {error.authority!r}, which signed it, has expired"
    if error.verify_code in _HOST_MISMATCH:
        return "it is for another host than the one that was dialled"
    return _UNACCEPTED.get(error.verify_code, "it cannot be verified")
