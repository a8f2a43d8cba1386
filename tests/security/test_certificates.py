from __future__ import annotations

import ipaddress
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.membership.wire.keyring import decode_key
from proglog_trio.security.certificates import CertificatesError, development_files, write_files
from proglog_trio.security.tls import ClientTls, ServerTls
from tests.node_process import run_command

NAMES = {
    f"{name}{suffix}" for name in ("ca", "server", "root-client", "nobody-client") for suffix in (".pem", "-key.pem")
}


def test_the_files_are_the_books(tmp_path: Path) -> None:
    write_files(
        tmp_path / "new" / "dir", development_files(["log.example", "b\u00fccher.example", "10.0.0.5", "127.0.0.1"])
    )
    directory = tmp_path / "new" / "dir"
    assert {path.name for path in directory.iterdir()} == NAMES
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if path.name.endswith("-key.pem") else 0o644), path
    server = x509.load_pem_x509_certificate((directory / "server.pem").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "log.example", "xn--bcher-kva.example"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("10.0.0.5"),
    ]
    for name in ("root", "nobody"):
        client = x509.load_pem_x509_certificate((directory / f"{name}-client.pem").read_bytes())
        assert client.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name
        ClientTls(
            authorities=directory / "ca.pem",
            certificate=directory / f"{name}-client.pem",
            key=directory / f"{name}-client-key.pem",
        ).context()
    ServerTls(
        certificate=directory / "server.pem", key=directory / "server-key.pem", authorities=directory / "ca.pem"
    ).read()


def test_nothing_is_overwritten_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "root-client-key.pem").write_text("precious")
    with pytest.raises(CertificatesError, match=r"has root-client-key\.pem already: nothing is overwritten"):
        write_files(tmp_path, development_files())
    assert [path.name for path in tmp_path.iterdir()] == ["root-client-key.pem"]


def test_what_was_written_before_an_error_is_removed(tmp_path: Path) -> None:
    with pytest.raises(CertificatesError, match="cannot be written: No such file"):
        write_files(tmp_path, {"a.pem": b"a", "missing/b.pem": b"b"})
    assert not list(tmp_path.iterdir())


async def test_certs_command(tmp_path: Path) -> None:
    code, output, errors = await run_command("certs", str(tmp_path / "pki"), "--host", "log.example", "--days", "3")
    assert (code, output) == (ExitCode.DONE, b"")
    assert {path.name for path in (tmp_path / "pki").iterdir()} == NAMES
    assert "PRIVATE" not in errors
    code, _, errors = await run_command("certs", str(tmp_path / "pki"))
    assert code == ExitCode.USAGE
    assert "nothing is overwritten" in errors
    code, _, errors = await run_command("certs", str(tmp_path / "other"), "--host", "no name")
    assert code == ExitCode.USAGE
    assert not (tmp_path / "other").exists()


async def test_keygen_command() -> None:
    keys = {(await run_command("keygen"))[1].decode() for _ in range(2)}
    assert len(keys) == 2
    assert all(len(decode_key(key)) == 32 for key in keys)
