"""Who is at the other end of a connection: the common name of the certificate that TLS has verified."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any

from attrs import frozen


@frozen
class Identity:
    """Who a connection's client is, as far as a certificate says.

    Attributes:
        subject: the certificate's common name; None: there is none, and problem says why.
        expires: when the certificate does, in seconds of the epoch.
        problem: what to answer a client without a subject.
    """

    subject: str | None
    expires: float = 0.0
    problem: str = "a client certificate is needed for this, and none was sent"

    def is_expired(self, now: Callable[[], float] = time.time) -> bool:
        """Tell whether a certificate that was valid when the connection was made no longer is."""
        return self.subject is not None and self.expires <= now()


def identity_of(transport: asyncio.BaseTransport) -> Identity:
    """Return who is at the other end of a transport; TLS has verified it by now."""
    certificate: dict[str, Any] | None = transport.get_extra_info("peercert")
    if not certificate:
        return Identity(None)
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    if len(names) != 1 or not names[0]:
        # With several, one program may look at the first and another at the last.
        return Identity(None, problem=f"the client's certificate has {len(names)} common names, and one is needed")
    try:
        expires = ssl.cert_time_to_seconds(certificate["notAfter"])
    except (KeyError, ValueError):
        return Identity(None, problem="the client's certificate does not say until when it is valid")
    return Identity(str(names[0]), expires)
