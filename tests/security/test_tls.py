from __future__ import annotations

import contextlib
import socket
import ssl
import warnings
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import structlog
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from proglog_trio.client import (
    ConnectionConfig,
    NodeUnreachable,
    ProducerConfig,
    TlsError,
    open_consumer,
    open_producer,
)
from proglog_trio.errors import CallFailed, ConnectionNotOpened, NodeConnectionError
from proglog_trio.internal_errors import InternalErrors
from proglog_trio.rpc.calls.connection import open_connection
from proglog_trio.rpc.http2.transport_config import TransportConfig
from proglog_trio.rpc.server.authorization import Gate
from proglog_trio.rpc.server.server import ServerConfig, ServerSecurity
from proglog_trio.security.access_policy import AccessPolicy
from proglog_trio.security.permissions import PermitAll, Policy
from proglog_trio.security.reloading import FromFiles
from proglog_trio.security.tls import ClientTls, ServerTls
from proglog_trio.security.tls_problems import tls_problem
from tests.pki import Pki, authority_above, write_pair
from tests.rpc.support import RunningServer, eventually, produce, running_server


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki.make(tmp_path / "pki")


@contextlib.asynccontextmanager
async def secured_server(
    pki: Pki, directory: Path, policy: FromFiles[Policy] | Policy | None = None, config: ServerConfig | None = None
) -> AsyncIterator[tuple[RunningServer, ServerSecurity]]:
    security = ServerSecurity(pki.server_tls.read(), Gate(policy or PermitAll()))
    async with running_server(directory / "data", security=security, config=config) as server:
        yield server, security


# -- who gets through the handshake ------------------------------------------------------------------------------------


async def test_who_has_a_certificate_produces_and_consumes(pki: Pki, tmp_path: Path) -> None:
    async with secured_server(pki, tmp_path) as (server, _):
        async with open_producer(server.address, connection=pki.connection()) as producer:
            await producer.send(b"value")
        async with open_consumer(server.address, connection=pki.connection("nobody"), follow=False) as consumer:
            assert [record.value async for record in consumer] == [b"value"]


async def test_without_one_everything_but_health_is_unauthenticated(pki: Pki, tmp_path: Path) -> None:
    async with secured_server(pki, tmp_path) as (server, security):
        async with open_connection(server.address, pki.connection(None)) as connection:
            with pytest.raises(CallFailed, match="UNAUTHENTICATED: a client certificate is needed for this") as error:
                await produce(connection, b"value")
        assert error.value.status == "UNAUTHENTICATED"
        assert security.gate is not None
        assert security.gate.counters.unauthenticated == 1
        assert server.log.next_offset == 0


@pytest.mark.parametrize("name", ["other", "expired"])
async def test_a_certificate_that_is_not_accepted_ends_the_handshake(pki: Pki, tmp_path: Path, name: str) -> None:
    async with secured_server(pki, tmp_path) as (server, _):
        # With TLS 1.3 a client learns of it when it first reads.
        with pytest.raises(NodeConnectionError):
            async with open_connection(server.address, pki.connection(name)) as connection:
                await produce(connection, b"value")
        await eventually(lambda: server.counters.handshakes_failed == 1)
        assert (server.counters.connections, server.log.next_offset) == (0, 0)


async def test_a_plain_client_is_told_and_so_is_the_node(pki: Pki, tmp_path: Path) -> None:
    async with secured_server(pki, tmp_path) as (server, _):
        with structlog.testing.capture_logs() as logs, trio.fail_after(10):
            with pytest.raises(NodeConnectionError, match="before HTTP/2 began, as one that has TLS does"):
                async with open_connection(server.address) as connection:
                    await produce(connection, b"value")
            await eventually(lambda: server.counters.handshakes_failed == 1)
    (told,) = [log for log in logs if log["log_level"] == "warning"]
    assert told["event"] == "a client did not get through the TLS handshake"
    assert (told["peer"], told["reason"]) == ("127.0.0.1", "the other side does not speak TLS")


async def test_a_foreign_server_that_says_that_it_speaks_tls() -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(bytes.fromhex("15030100020246"))
            # What is closed while it has not read everything is reset, and what it has sent may be lost with that.
            async for _ in stream:
                pass

    async with trio.open_nursery() as nursery:
        (listener, *_) = await nursery.start(partial(trio.serve_tcp, refuse, 0, host="127.0.0.1"))
        with pytest.raises(NodeConnectionError, match="the node speaks TLS, and this client does not"):
            async with open_connection("{}:{}".format(*listener.socket.getsockname())) as connection:
                await produce(connection, b"value")
        nursery.cancel_scope.cancel()


def refuse_certificate(port: int, authorities: Path) -> None:
    context = ssl.create_default_context(cafile=authorities)
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port)) as plain, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(plain, server_hostname="localhost")


async def test_a_client_that_does_not_accept_the_node_is_named_there(pki: Pki, tmp_path: Path) -> None:
    async with secured_server(pki, tmp_path) as (server, _):
        with structlog.testing.capture_logs() as logs:
            # asyncio's clients only close; others, in other languages, say why
            await trio.to_thread.run_sync(refuse_certificate, server.port, pki / "other-ca.pem")
            await eventually(lambda: server.counters.handshakes_failed == 1)
    (told,) = [log for log in logs if log["log_level"] == "warning"]
    assert told["reason"].startswith(
        "the other side does not accept the certificate that it was shown: it does not know"
    )


@pytest.mark.parametrize(
    ("tls", "reason"),
    [
        ({"ca": "other-ca"}, "the node's certificate is not accepted: .*authority"),
        ({"server_name": "elsewhere.example"}, "the node's certificate is not accepted: it is for another host"),
    ],
)
async def test_a_client_accepts_no_other_node(pki: Pki, tmp_path: Path, tls: dict[str, str], reason: str) -> None:
    async with secured_server(pki, tmp_path) as (server, _):
        config = ConnectionConfig(tls=pki.client_tls("root", **tls))
        with pytest.raises(ConnectionNotOpened, match=reason):
            async with open_connection(server.address, config):
                pass


async def test_the_name_of_the_certificate_can_be_given(pki: Pki, tmp_path: Path) -> None:
    pki.replace("server", pki.authority.server(["the-books-name"]))
    async with secured_server(pki, tmp_path) as (server, _):
        with pytest.raises(ConnectionNotOpened, match="not accepted"):
            async with open_connection(server.address, pki.connection()):
                pass
        config = ConnectionConfig(tls=pki.client_tls(server_name="the-books-name"))
        async with open_connection(server.address, config) as connection:
            assert await produce(connection, b"value") == [0]


async def test_the_dot_behind_a_name_is_not_in_its_certificate(pki: Pki, tmp_path: Path) -> None:
    async with secured_server(pki, tmp_path) as (server, _):
        config = ConnectionConfig(tls=pki.client_tls(server_name="localhost."))
        async with open_connection(server.address, config) as connection:
            await produce(connection, b"value")


async def test_no_version_before_1_2(pki: Pki, tmp_path: Path) -> None:
    async with secured_server(pki, tmp_path) as (server, _):
        for version, accepted in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(pki / "ca.pem")
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # that it is deprecated is what this is about
                context.maximum_version = version
            raw = await trio.open_tcp_stream("127.0.0.1", server.port)
            async with trio.SSLStream(raw, context, server_hostname="127.0.0.1") as stream:
                try:
                    await stream.do_handshake()
                except trio.BrokenResourceError:
                    assert not accepted
                else:
                    assert accepted
                await trio.aclose_forcefully(stream)


async def test_a_certificate_with_two_names_is_nobodys(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in ("nobody", "root")])
    with monkeypatch.context() as patch:
        patch.setattr("proglog_trio.security.certificates._name", lambda _: two)
        write_pair(pki.directory, "two-client", pki.authority.client("unused"))
    async with (
        secured_server(pki, tmp_path) as (server, _),
        open_connection(server.address, pki.connection("two")) as connection,
    ):
        with pytest.raises(CallFailed, match="UNAUTHENTICATED: the client's certificate has 2 common names"):
            await produce(connection, b"value")


# -- rights that change ------------------------------------------------------------------------------------------------


async def test_withdrawn_rights_end_what_is_under_way_and_others_go_on(pki: Pki, tmp_path: Path) -> None:
    (pki / "policy.csv").write_text("p, root, *, produce\np, nobody, *, produce\n")
    policy = AccessPolicy.read(pki / "model.conf", pki / "policy.csv")
    async with secured_server(pki, tmp_path, policy) as (server, security):
        async with (
            open_producer(server.address, connection=pki.connection("root")) as kept,
            open_connection(server.address, pki.connection("nobody")) as idle,
        ):
            await (await kept.send(b"one")).wait()
            async with open_producer(server.address, connection=pki.connection("nobody")) as dropped:
                await (await dropped.send(b"two")).wait()
                (pki / "policy.csv").write_text("p, root, *, produce\n")
                assert policy.refresh()
                policy.tell(InternalErrors())
                with pytest.raises(Exception, match="nobody not permitted to produce"):
                    await (await dropped.send(b"three")).wait()
            await (await kept.send(b"four")).wait()
            # A connection that was not in the middle of anything is told when it asks.
            with pytest.raises(CallFailed, match="PERMISSION_DENIED"):
                await produce(idle, b"five")
        assert security.gate is not None
        assert security.gate.counters.connections_withdrawn == 1
        assert server.log.next_offset == 3


async def test_certificates_change_without_a_dropped_connection(pki: Pki, tmp_path: Path) -> None:
    async with secured_server(pki, tmp_path) as (server, security):
        async with open_connection(server.address, pki.connection()) as before:
            # Another authority, for both sides.
            pki.replace("ca", pki.other.signed)
            pki.replace("server", pki.other.server())
            assert security.tls.refresh()
            assert await produce(before, b"on the old connection") == [0]
            async with open_connection(server.address, pki.connection("other")) as after:
                assert await produce(after, b"on a new one") == [1]
            with pytest.raises(NodeConnectionError):
                async with open_connection(server.address, pki.connection("root")) as old:
                    await produce(old, b"with the old certificate")
            assert await produce(before, b"still there") == [2]
        assert server.counters.connections == 2


async def test_a_client_reads_its_files_again_when_it_connects(pki: Pki, tmp_path: Path) -> None:
    async with secured_server(pki, tmp_path) as (server, security):
        config = pki.connection()
        async with open_connection(server.address, config) as connection:
            assert await produce(connection, b"value") == [0]
        pki.replace("ca", pki.other.signed)
        pki.replace("server", pki.other.server())
        pki.replace("root-client", pki.other.client("root"))
        assert security.tls.refresh()
        async with open_connection(server.address, config) as connection:
            assert await produce(connection, b"value") == [1]
        # Half of the files have been replaced: what was read before goes on to count.
        (pki / "root-client.pem").write_bytes(pki.other.client("root").certificate_pem)
        async with open_connection(server.address, config) as connection:
            assert await produce(connection, b"value") == [2]


# -- handshakes that do not end ----------------------------------------------------------------------------------------


async def test_a_slow_handshake_ends(pki: Pki, tmp_path: Path) -> None:
    config = ServerConfig(transport=TransportConfig(handshake_seconds=0.2))
    async with secured_server(pki, tmp_path, config=config) as (server, _):
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            await stream.send_all(b"\x16")
            with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
        await eventually(lambda: server.counters.handshakes_failed == 1)


async def test_half_open_connections_make_room(pki: Pki, tmp_path: Path) -> None:
    config = ServerConfig(max_handshakes=5)
    async with secured_server(pki, tmp_path, config=config) as (server, _), contextlib.AsyncExitStack() as stack:
        silent = []
        for _ in range(20):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            stack.push_async_callback(trio.aclose_forcefully, stream)
            silent.append(stream)
        async with open_connection(server.address, pki.connection()) as connection:
            assert await produce(connection, b"value") == [0]
        await eventually(lambda: server.counters.handshakes_failed >= 15)
        with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError):
            assert await silent[0].receive_some() == b""
        assert (await server.stop()) < 5


# -- files -------------------------------------------------------------------------------------------------------------


def test_what_is_wrong_with_files_is_said(pki: Pki) -> None:
    (pki / "nonsense.pem").write_text("nonsense")
    key = ec.generate_private_key(ec.SECP256R1())
    (pki / "locked.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    )
    certificate, own = pki / "server.pem", pki / "server-key.pem"
    for files, problem in (
        ((pki / "missing.pem", own, None), r"missing\.pem cannot be read: No such file or directory"),
        ((pki / "nonsense.pem", own, None), r"nonsense\.pem holds no certificate in PEM form"),
        ((certificate, pki / "nonsense.pem", None), r"nonsense\.pem holds no private key in PEM form"),
        ((certificate, pki / "locked.pem", None), r"locked\.pem: the key is encrypted with a password"),
        ((certificate, pki / "ca-key.pem", None), r"ca-key\.pem is not the key of the certificate in .*server\.pem"),
        ((certificate, own, pki / "nonsense.pem"), r"nonsense\.pem holds no certificate in PEM form"),
        ((pki.directory, own, None), "cannot be read: Is a directory"),
    ):
        with pytest.raises(TlsError, match=problem):
            ServerTls(certificate=files[0], key=files[1], authorities=files[2]).read()


async def test_a_client_with_wrong_files_says_so_at_once(pki: Pki) -> None:
    (pki / "root-client-key.pem").write_text("nonsense")
    for opened in (open_producer, open_consumer):
        with pytest.raises(TlsError, match=r"root-client-key\.pem holds no private key"):
            async with opened("127.0.0.1:1", connection=pki.connection()):
                pass
    with pytest.raises(ValueError, match="go together"):
        ClientTls(certificate=pki / "root-client.pem")


async def test_a_client_of_a_node_without_tls(pki: Pki, tmp_path: Path) -> None:
    async with running_server(tmp_path / "data") as server:
        config = ProducerConfig(connect_timeout=2.0)
        with (
            structlog.testing.capture_logs() as logs,
            pytest.raises(NodeUnreachable, match="the node does not speak TLS: leave out certificates"),
        ):
            async with open_producer(server.address, config, connection=pki.connection()):
                pass
    assert {log["event"] for log in logs if log["log_level"] == "warning"} == {
        "a client speaks TLS at a port that has none"
    }


@pytest.mark.parametrize("expired", ["server", "client"])
async def test_an_expired_intermediate_authority_is_called_that(pki: Pki, tmp_path: Path, expired: str) -> None:
    above = authority_above("above")
    (pki / "ca.pem").write_bytes(above.signed.certificate_pem)
    for name in ("server", "root-client"):
        between = authority_above("middle", above, days=-1 if name.startswith((expired, f"root-{expired}")) else 30)
        signed = between.server() if name == "server" else between.client("root")
        (pki / f"{name}.pem").write_bytes(signed.certificate_pem + between.signed.certificate_pem)
        (pki / f"{name}-key.pem").write_bytes(signed.key_pem)
    reason = "the certificate of the intermediate authority 'middle', which signed it, has expired"
    with structlog.testing.capture_logs() as logs:
        async with secured_server(pki, tmp_path) as (server, _):
            with pytest.raises(NodeConnectionError) as caught:
                async with open_connection(server.address, pki.connection()) as connection:
                    await produce(connection, b"value")
            if expired == "server":
                assert reason in str(caught.value)
            else:
                await eventually(lambda: server.counters.handshakes_failed == 1)
                (told,) = [log for log in logs if log["event"] == "a certificate was not accepted"]
                assert told["reason"] in (reason, "it, or that of an authority above it, has expired")


def test_what_openssl_says_reaches_nobody(pki: Pki) -> None:
    short = rsa.generate_private_key(65537, 1024)  # noqa: S505 - it is to be refused
    chain = pki.authority.server(days=3)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(chain.certificate.subject)
        .issuer_name(chain.certificate.issuer)
        .public_key(short.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2050, 1, 1, tzinfo=UTC))
        .sign(pki.authority.signed.key, hashes.SHA256())
    )
    (pki / "short.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (pki / "short-key.pem").write_bytes(short.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(TlsError, match=r"short-key\.pem cannot be used: TLS does not take what is in it"):
        ServerTls(certificate=pki / "short.pem", key=pki / "short-key.pem").read()
    (pki / "cut.pem").write_bytes((pki / "server.pem").read_bytes()[:-100] + b"\n-----END CERTIFICATE-----\n")
    with pytest.raises(TlsError, match=r"cut\.pem holds no certificate in PEM form$"):
        ServerTls(certificate=pki / "cut.pem", key=pki / "server-key.pem").read()
    error = ssl.SSLError(1, "[SSL: SOMETHING_NEW] (_ssl.c:1)")
    error.reason = "SOMETHING_NEW"
    assert tls_problem(error) == "no TLS connection: the two sides do not agree"


def test_the_first_expiry_counts(pki: Pki) -> None:
    now = datetime.now(UTC)
    soon = pki.authority.server(days=3)
    (pki / "server.pem").write_bytes(soon.certificate_pem + pki.authority.signed.certificate_pem)
    (pki / "server-key.pem").write_bytes(soon.key_pem)
    expires = pki.server_tls.read().value.expires
    assert timedelta(days=2) < expires["certificate"] - now < timedelta(days=4)
    assert expires["intermediate"] - now > timedelta(days=300)
    assert expires["ca"] - now > timedelta(days=300)
