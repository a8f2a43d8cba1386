"""Certificates for tests: an authority's, another's, some that have expired, and the book's model and policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proglog_trio.rpc.calls.connection import ConnectionConfig
from proglog_trio.security.certificates import Authority, Signed, write_files
from proglog_trio.security.tls import ClientTls, ServerTls

# the book's files, word for word
MODEL = """\
# Request definition
[request_definition]
r = sub, obj, act

# Policy definition
[policy_definition]
p = sub, obj, act

# Policy effect
[policy_effect]
e = some(where (p.eft == allow))

# Matchers
[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act
"""
POLICY = """\
p, root, *, produce
p, root, *, consume
"""


def write_pair(directory: Path, name: str, signed: Signed) -> None:
    """Write a certificate and its key as `name.pem` and `name-key.pem`."""
    write_files(directory, {f"{name}.pem": signed.certificate_pem, f"{name}-key.pem": signed.key_pem})


def authority_above(name: str, issuer: Authority | None = None, *, days: float = 30) -> Authority:
    """An authority that may sign others, signed by another or by itself; it expires so many days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.signed.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=60))
        .not_valid_after(datetime.now(UTC) + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key if issuer is None else issuer.signed.key, hashes.SHA256())
    )
    return Authority(Signed(certificate, key))


@frozen
class Pki:
    """Files of certificates in a directory.

    Attributes:
        directory: where they are.
        authority: signs those that are right; other: those that are not.
    """

    directory: Path
    authority: Authority = field(factory=Authority.make)
    other: Authority = field(factory=Authority.make)

    @classmethod
    def make(cls, directory: Path) -> Pki:
        """Write ca, server, root-client, nobody-client, other-ca, other-client and expired-client, model and policy."""
        directory.mkdir(exist_ok=True)
        made = cls(directory)
        write_pair(directory, "ca", made.authority.signed)
        write_pair(directory, "other-ca", made.other.signed)
        write_pair(directory, "server", made.authority.server())
        write_pair(directory, "other-client", made.other.client("root"))
        long_ago = datetime.now(UTC) - timedelta(days=10)
        write_pair(directory, "expired-client", made.authority.client("root", days=1, now=long_ago))
        for name in ("root", "nobody"):
            made.client(name)
        (directory / "model.conf").write_text(MODEL)
        (directory / "policy.csv").write_text(POLICY)
        return made

    def __truediv__(self, name: str) -> Path:
        return self.directory / name

    def client(self, name: str) -> None:
        """Write a client's certificate as `name-client`."""
        write_pair(self.directory, f"{name}-client", self.authority.client(name))

    def replace(self, name: str, signed: Signed) -> None:
        """Put a new certificate and key in the place of others, each file whole at a time."""
        for suffix, data in ((".pem", signed.certificate_pem), ("-key.pem", signed.key_pem)):
            temporary = self / f"{name}{suffix}.new"
            temporary.write_bytes(data)
            temporary.replace(self / f"{name}{suffix}")

    @property
    def server_tls(self) -> ServerTls:
        """The files of a server that verifies clients."""
        return ServerTls(certificate=self / "server.pem", key=self / "server-key.pem", authorities=self / "ca.pem")

    def client_tls(self, name: str | None = "root", ca: str = "ca", server_name: str | None = None) -> ClientTls:
        """The files of a client; None: it has no certificate."""
        certificate = None if name is None else self / f"{name}-client.pem"
        key = None if name is None else self / f"{name}-client-key.pem"
        return ClientTls(authorities=self / f"{ca}.pem", certificate=certificate, key=key, server_name=server_name)

    def connection(self, name: str | None = "root") -> ConnectionConfig:
        """How a client connects."""
        return ConnectionConfig(tls=self.client_tls(name))

    def node_arguments(self, *, access: bool = True) -> list[str]:
        """A node's options for mutual TLS, to others as well, and for the policy."""
        options = {
            "server-tls-cert-file": "server.pem",
            "server-tls-key-file": "server-key.pem",
            "server-tls-ca-file": "ca.pem",
            "peer-tls-cert-file": "root-client.pem",
            "peer-tls-key-file": "root-client-key.pem",
            "peer-tls-ca-file": "ca.pem",
            **({"acl-model-file": "model.conf", "acl-policy-file": "policy.csv"} if access else {}),
        }
        return [f"--{option}={self / name}" for option, name in options.items()]

    def node_options(self) -> dict[str, Any]:
        """The same as fields of a NodeConfig."""
        options = [argument.removeprefix("--").partition("=") for argument in self.node_arguments()]
        return {name.replace("-", "_"): Path(path) for name, _, path in options}

    def command_arguments(self, name: str = "root") -> list[str]:
        """A command's options to reach such a node."""
        return [
            f"--tls-ca-file={self / 'ca.pem'}",
            f"--tls-cert-file={self / f'{name}-client.pem'}",
            f"--tls-key-file={self / f'{name}-client-key.pem'}",
        ]
