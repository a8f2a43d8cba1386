"""Certificates and keys in PEM files: what can be said of them before TLS uses them.

Only tls.py imports this, and only when there are files to read: the library that it needs takes a while to load.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from proglog_trio.errors import TlsError
from proglog_trio.units import MEBIBYTE

MAX_PEM_BYTES = 4 * MEBIBYTE


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file, at least one. Raises TlsError."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise TlsError(f"{path} holds no certificate in PEM form") from None


def earliest_expiry(certificates: Iterable[x509.Certificate]) -> datetime:
    """Return when the first of these certificates expires, in UTC."""
    return min(certificate.not_valid_after_utc for certificate in certificates).astimezone(UTC)


def check_key(path: Path, certificate: x509.Certificate, certificate_file: Path) -> None:
    """Raise TlsError if a file does not hold the key of this certificate, which is that of another file."""
    key = _read_key(path)
    if _public(certificate.public_key()) != _public(key.public_key()):
        raise TlsError(
            f"{path} is not the key of the certificate in {certificate_file}; give the two that were made together"
        )


def _public(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]  # every kind of key has it


def _read_key(path: Path) -> PrivateKeyTypes:
    data = _read(path)
    try:
        return load_pem_private_key(data, password=None)
    except TypeError:
        raise TlsError(f"{path}: the key is encrypted with a password; give one that is not") from None
    except ValueError:
        raise TlsError(f"{path} holds no private key in PEM form") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise TlsError(f"{path} cannot be read: {error.strerror}; check the path, and who may read it") from None
    if len(data) > MAX_PEM_BYTES:
        raise TlsError(f"{path} is larger than {MAX_PEM_BYTES} bytes: it is no file of certificates")
    return data
