"""Which certificate of a chain has expired: OpenSSL, as Python shows it, says only that one has."""

from __future__ import annotations

import ssl
import time
from typing import Any

_EXPIRED = 10
"""X509_V_ERR_CERT_HAS_EXPIRED."""


class IntermediateExpired(ssl.SSLCertVerificationError):
    """A certificate is valid, and that of an authority between it and those that are trusted has expired.

    Attributes:
        authority: the name of that authority.
    """

    def __init__(self, error: ssl.SSLCertVerificationError, authority: str) -> None:
        super().__init__(*error.args)
        self.reason, self.verify_code, self.verify_message = error.reason, error.verify_code, error.verify_message
        self.authority = authority


class VerifiedChain(ssl.SSLObject):
    """A TLS connection's state that tells an expired intermediate authority from an expired certificate."""

    def do_handshake(self) -> None:
        """Shake hands; raises IntermediateExpired besides what ssl raises."""
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            authority = self._expired_authority() if error.verify_code == _EXPIRED else None
            if authority is None:
                raise
            raise IntermediateExpired(error, authority) from None

    def _expired_authority(self) -> str | None:
        connection: Any = self._sslobj  # type: ignore[attr-defined]  # public from Python 3.13 on
        chain = [certificate.get_info() for certificate in connection.get_unverified_chain() or ()]
        if not chain or _has_expired(chain[0]):
            return None
        return next((_name(each) for each in chain[1:] if _has_expired(each)), None)


def _has_expired(certificate: dict[str, Any]) -> bool:
    return ssl.cert_time_to_seconds(certificate["notAfter"]) < time.time()


def _name(certificate: dict[str, Any]) -> str:
    names = {key: value for part in certificate.get("subject", ()) for key, value in part}
    return str(names.get("commonName") or names.get("organizationName") or "without a name")[:100]
