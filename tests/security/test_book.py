"""The book's server test, with the book's layout of certificates, policy and model, from grpcio."""

from __future__ import annotations

import ipaddress
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from proglog_trio.client import open_consumer
from proglog_trio.security.certificates import development_files, write_files
from tests.node_process import NodeProcess, node_process
from tests.pki import MODEL, POLICY, Pki
from tests.rpc.book_stubs import HERE


def rsa_files() -> dict[str, bytes]:
    """Certificates as cfssl makes them from the book's requests: RSA, and names with country and organisation."""
    files: dict[str, bytes] = {}
    authority: tuple[x509.Name, rsa.RSAPrivateKey] | None = None
    for name, common_name, usage in (
        ("ca", "My Awesome CA", None),
        ("server", "127.0.0.1", ExtendedKeyUsageOID.SERVER_AUTH),
        ("root-client", "root", ExtendedKeyUsageOID.CLIENT_AUTH),
        ("nobody-client", "nobody", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COUNTRY_NAME, "CA"),
                x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "ON"),
                x509.NameAttribute(NameOID.LOCALITY_NAME, "Toronto"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "My Company"),
                x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            ]
        )
        issuer, signing = authority or (subject, key)
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=usage is None, path_length=None), critical=True)
        )
        if usage is None:
            authority = (subject, key)
        else:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if name == "server":
            hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        files[f"{name}.pem"] = builder.sign(signing, hashes.SHA256()).public_bytes(Encoding.PEM)
        files[f"{name}-key.pem"] = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return files


async def as_client(stubs: Path, node: NodeProcess, directory: Path, client: str, *commands: tuple[str, int]) -> Any:
    """What a client's commands find, one after the other, each with its count."""
    names, counts = (",".join(map(str, each)) for each in zip(*commands, strict=True))
    program = [sys.executable, str(HERE / "foreign_client.py"), str(stubs), node.address, names, counts]
    with trio.fail_after(60):
        done = await trio.run_process([*program, str(directory), client], capture_stdout=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["ours", "cfssl's"])
async def test_the_books_server_test(stubs: Path, tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "pki"
    write_files(directory, development_files() if kind == "ours" else rsa_files())
    (directory / "model.conf").write_text(MODEL)
    (directory / "policy.csv").write_text(POLICY)
    async with node_process(tmp_path / "data", *Pki(directory).node_arguments()) as node:
        *found, past = await as_client(
            stubs, node, directory, "root",
            ("produce", 1), ("consume", 1), ("produce_stream", 2), ("consume_stream", 3), ("past_the_end", 10),
        )  # fmt: skip
        assert found == [[0], ["record 0"], [1, 2], ["record 0", "record 0", "record 1"]]
        assert past["code"] == "OUT_OF_RANGE"
        produce, consume = (
            f"PERMISSION_DENIED: nobody not permitted to {action} to *" for action in ("produce", "consume")
        )
        found = await as_client(stubs, node, directory, "nobody", ("unauthorized", 0))
        assert found == [produce, consume, produce, consume]
        # Nothing of nobody's is there.
        async with open_consumer(node.address, connection=Pki(directory).connection(), follow=False) as consumer:
            assert consumer.end_offset == 3
