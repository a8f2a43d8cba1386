"""TLS for both ends of a connection, from PEM files: TLS 1.2 and later, HTTP/2 alone, host names checked.

A server asks for a client's certificate when it knows authorities (`ServerTls.authorities`), and verifies one that is
sent: a certificate that is expired or of another authority ends the handshake. A client without one gets through the
handshake, since a health check needs none; authorization.py decides what else it may do.

Most programs that import this use no TLS. What reads certificates takes a while to load, and is loaded when the files
are read for the first time, which is before anything is connected or served.
"""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

from attrs import define, field, frozen

from proglog_trio.errors import TlsError
from proglog_trio.security.reloading import FromFiles
from proglog_trio.security.verified_chain import VerifiedChain

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption; all of TLS 1.3's are so."""


@frozen
class LoadedTls:
    """A context, and until when what it was made of is valid.

    Attributes:
        context: for new connections.
        expires: by what it is ("certificate", "intermediate", "ca"), when the first of the certificates expires.
    """

    context: ssl.SSLContext
    expires: dict[str, datetime]


@frozen(kw_only=True)
class ServerTls:
    """The files of a server.

    Attributes:
        certificate: its own, and then those of intermediate authorities.
        key: its private key, not encrypted.
        authorities: whose client certificates are accepted; None: no client is asked for one.
    """

    certificate: Path
    key: Path
    authorities: Path | None = None

    def read(self) -> FromFiles[LoadedTls]:
        """Read the files; the result can read them again. Raises TlsError."""
        paths = [path for path in (self.certificate, self.key, self.authorities) if path is not None]
        return FromFiles.read("the server's certificate", paths, self._load)

    def _load(self) -> LoadedTls:
        context = _context(ssl.PROTOCOL_TLS_SERVER)
        # A resumed session would not have its client's certificate verified anew.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        expires = _load_own(context, self.certificate, self.key)
        if self.authorities is not None:
            expires["ca"] = _load_authorities(context, self.authorities)
            context.verify_mode = ssl.CERT_OPTIONAL
        return LoadedTls(context, expires)


@define(eq=False, kw_only=True)
class ClientTls:
    """The files of a client. They are read when it first connects, and read again when they have changed by then.

    Attributes:
        authorities: whose server certificates are accepted; None: those that the system trusts.
        certificate, key: to identify this client; both or none.
        server_name: what the server's certificate must be for, instead of the host that is dialled.
    """

    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    _files: FromFiles[LoadedTls] | None = field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client's certificate and its key go together: give both, or none")

    def files(self) -> FromFiles[LoadedTls]:
        """Return what the files hold, read at the first call. Raises TlsError then."""
        if self._files is None:
            paths = [path for path in (self.authorities, self.certificate, self.key) if path is not None]
            self._files = FromFiles.read("the client's certificate", paths, self._load)
        return self._files

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection.

        Raises:
            TlsError: the files cannot be used, and never could be before.
        """
        files = self.files()
        files.refresh()
        return files.value.context

    def _load(self) -> LoadedTls:
        context = _context(ssl.PROTOCOL_TLS_CLIENT)
        context.hostname_checks_common_name = False
        expires: dict[str, datetime] = {}
        if self.authorities is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            expires["ca"] = _load_authorities(context, self.authorities)
        if self.certificate is not None and self.key is not None:
            expires |= _load_own(context, self.certificate, self.key)
        return LoadedTls(context, expires)


def _context(protocol: ssl._SSLMethod) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.sslobject_class = VerifiedChain
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["h2"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _load_own(context: ssl.SSLContext, certificate_file: Path, key_file: Path) -> dict[str, datetime]:
    """Load a certificate and its key; return when it expires, and when the first of its intermediate authorities."""
    from proglog_trio.security.pem_files import check_key, earliest_expiry, read_certificates

    chain = read_certificates(certificate_file)
    check_key(key_file, chain[0], certificate_file)
    try:
        context.load_cert_chain(certificate_file, key_file, password=_no_password)
    except (OSError, ValueError) as error:
        raise TlsError(f"{certificate_file} and {key_file} cannot be used: {_file_problem(error)}") from None
    expires = {"certificate": earliest_expiry(chain[:1])}
    if len(chain) > 1:
        expires["intermediate"] = earliest_expiry(chain[1:])
    return expires


def _file_problem(error: OSError | ValueError) -> str:
    """Return what is wrong with files that hold certificates and keys, and that OpenSSL does not take all the same."""
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.strerror:
        return error.strerror
    return "TLS does not take what is in it; is the key too short, or of a kind that TLS does not use?"


def _no_password() -> str:
    return ""  # without it OpenSSL would ask at the terminal


def _load_authorities(context: ssl.SSLContext, path: Path) -> datetime:
    from proglog_trio.security.pem_files import earliest_expiry, read_certificates

    authorities = read_certificates(path)
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError) as error:
        raise TlsError(f"{path} cannot be used: {_file_problem(error)}") from None
    return earliest_expiry(authorities)
