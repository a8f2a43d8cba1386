"""Certificates for development: an authority of its own, and what it signs. Not for production, where keys have owners.

The names and the layout are those of the book *Distributed Services with Go*, so that what was set up for it finds what
it expects: `root` may do everything that its policy allows, `nobody` nothing.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from proglog_trio.errors import ProglogError
from proglog_trio.host_names import encoded_name

ALWAYS_HOSTS = ("localhost", "127.0.0.1")
DAYS = 365
_CLOCK_DIFFERENCE = timedelta(minutes=5)
CLIENTS = ("root", "nobody")


class CertificatesError(ProglogError):
    """Files that are there already or cannot be written; nothing was written then, or what was is removed."""


@frozen
class Signed:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate's file."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key's file."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@frozen
class Authority:
    """What signs certificates."""

    signed: Signed

    @classmethod
    def make(
        cls, name: str = "proglog development CA", *, days: float = DAYS, now: datetime | None = None
    ) -> Authority:
        """Return a new authority, valid for so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        builder = (
            _builder(subject, subject, key.public_key(), days, now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(Signed(builder.sign(key, hashes.SHA256()), key))

    def server(self, hosts: Sequence[str] = ALWAYS_HOSTS, *, days: float = DAYS, now: datetime | None = None) -> Signed:
        """Return a server's certificate for hosts (names or addresses); the first is its common name."""
        names = x509.SubjectAlternativeName([_alternative_name(host) for host in hosts])
        return self._sign(hosts[0], ExtendedKeyUsageOID.SERVER_AUTH, days, now, names)

    def client(self, name: str, *, days: float = DAYS, now: datetime | None = None) -> Signed:
        """Return a client's certificate; name is whom a policy is about."""
        return self._sign(name, ExtendedKeyUsageOID.CLIENT_AUTH, days, now)

    def _sign(
        self,
        name: str,
        purpose: x509.ObjectIdentifier,
        days: float,
        now: datetime | None,
        names: x509.SubjectAlternativeName | None = None,
    ) -> Signed:
        key = ec.generate_private_key(ec.SECP256R1())
        own = self.signed
        builder = (
            _builder(_name(name), own.certificate.subject, key.public_key(), days, now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own.key.public_key()), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return Signed(builder.sign(own.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float, now: datetime | None
) -> x509.CertificateBuilder:
    moment = now or datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # Machines' clocks differ.
        .not_valid_before(moment - _CLOCK_DIFFERENCE)
        .not_valid_after(moment + timedelta(days=days))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(encoded_name(host))


def development_files(hosts: Iterable[str] = (), *, days: float = DAYS) -> dict[str, bytes]:
    """Return files by name: an authority, a server's certificate for hosts, and those of the two clients."""
    authority = Authority.make(days=days)
    made = {
        "ca": authority.signed,
        "server": authority.server(tuple(dict.fromkeys((*ALWAYS_HOSTS, *hosts))), days=days),
        **{f"{name}-client": authority.client(name, days=days) for name in CLIENTS},
    }
    files = {}
    for name, signed in made.items():
        files[f"{name}.pem"] = signed.certificate_pem
        files[f"{name}-key.pem"] = signed.key_pem
    return files


def write_files(directory: Path, files: dict[str, bytes]) -> None:
    """Write files into a directory, which is made; keys (`…-key.pem`) are readable for their owner alone.

    Raises:
        CertificatesError: one of them is there already, or cannot be written. Nothing is left of the others then.
    """
    present = [name for name in files if os.path.lexists(directory / name)]
    if present:
        raise CertificatesError(f"{directory} has {', '.join(present)} already: nothing is overwritten")
    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            path = directory / name
            mode = 0o600 if name.endswith("-key.pem") else 0o644
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            written.append(path)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise CertificatesError(f"{error.filename or directory} cannot be written: {error.strerror}") from None
