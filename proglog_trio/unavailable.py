"""Why an address cannot be listened at, in words, and whether that may pass."""

from __future__ import annotations

import errno
import socket

from proglog_trio.errors import AddressInUse, AddressUnavailable

_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


def unavailable(what: str, error: OSError | UnicodeError) -> AddressUnavailable:
    """Return the error for an address that cannot be had.

    Args:
        what: what cannot be done, and where: "cannot listen on 127.0.0.1:8400".
        error: why.
    """
    if isinstance(error, socket.gaierror):
        return AddressUnavailable(f"{what}: the name cannot be looked up ({error.strerror})", may_pass=True)
    if isinstance(error, UnicodeError):
        return AddressUnavailable(f"{what}: that is no name that can be looked up")
    number = error.errno
    if number == errno.EADDRINUSE:
        return AddressInUse(f"{what}: the port is in use", may_pass=True)
    if number == errno.EADDRNOTAVAIL:
        return AddressUnavailable(f"{what}: this machine does not have the address", may_pass=True)
    if number in (errno.EACCES, errno.EPERM):
        return AddressUnavailable(f"{what}: this user may not ({error.strerror}); ports below 1024 are the system's")
    return AddressUnavailable(f"{what}: {error.strerror or error}", may_pass=number in _OUT_OF_RESOURCES)
