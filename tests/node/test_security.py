from __future__ import annotations

import re
import signal
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from proglog_trio.address import Address
from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.client import open_consumer, open_producer
from proglog_trio.errors import CallFailed, SecurityFileError
from proglog_trio.internal_errors import Where
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.node.config import NodeConfig
from proglog_trio.node.security import NodeSecurity, load_security
from proglog_trio.rpc.calls.cluster import force_leave
from proglog_trio.security.reloading import Reloader
from tests.members import node_inside
from tests.node_process import NodeProcess, clean_environment, node_command, node_process, run_command
from tests.pki import POLICY, Pki

KEY = "AAECAwQFBgcICQoLDA0ODw=="
OTHER_KEY = "DwECAwQFBgcICQoLDA0ODw=="


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki.make(tmp_path / "pki")


def config(pki: Pki, **options: Any) -> NodeConfig:
    return NodeConfig(
        server_tls_cert_file=pki / "server.pem",
        server_tls_key_file=pki / "server-key.pem",
        server_tls_ca_file=pki / "ca.pem",
        **options,
    )


async def until_logged(node: NodeProcess, *events: str) -> None:
    """Wait until a node has logged all of these."""
    with trio.fail_after(60):
        while not all(event in node.logged() for event in events):  # noqa: ASYNC110 - a file tells of nothing
            await trio.sleep(0.05)


async def figures(address: Address) -> dict[str, float]:
    """What a node's metrics say."""
    async with await trio.open_tcp_stream(address.host, address.port) as stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
        text = b"".join([data async for data in stream]).decode().partition("\r\n\r\n")[2]
    lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


# -- what is loaded ----------------------------------------------------------------------------------------------------


def test_nothing_is_secured_unless_told() -> None:
    security = load_security(NodeConfig())
    assert (security.server, security.peers, security.keyring) == (None, None, None)
    assert security.peer_connection().tls is None
    assert security.expiries() == {}


def test_peers_are_never_dialled_plainly_by_a_node_with_tls(pki: Pki) -> None:
    tls = load_security(config(pki)).peer_connection().tls
    assert tls is not None
    assert (tls.authorities, tls.certificate) == (pki / "ca.pem", None)
    named = config(
        pki,
        peer_tls_ca_file=pki / "other-ca.pem",
        peer_tls_cert_file=pki / "root-client.pem",
        peer_tls_key_file=pki / "root-client-key.pem",
        peer_tls_server_name="127.0.0.1",
    )
    security = load_security(named)
    tls = security.peer_connection().tls
    assert tls is not None
    assert (tls.authorities, tls.server_name) == (pki / "other-ca.pem", "127.0.0.1")
    assert set(security.expiries()) == {"server_certificate", "server_ca", "peer_certificate", "peer_ca"}


def test_a_certificate_that_expires_within_30_days_is_warned_of(pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    pki.replace("server", pki.authority.server(days=31))
    security = load_security(config(pki))
    now = datetime.now(UTC)
    security.warn_of_expiry(now.timestamp)
    assert not caplog.records
    security.warn_of_expiry((now + timedelta(days=2)).timestamp)
    assert "the server certificate expires soon" in caplog.text
    assert caplog.records[-1].levelname == "WARNING"
    security.warn_of_expiry((now + timedelta(days=32)).timestamp)
    assert "the server certificate has expired" in caplog.text
    assert caplog.records[-1].levelname == "ERROR"


def test_a_keyring_file_is_made_with_the_key_and_counts_from_then_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(SecurityFileError, match="give --encrypt as well, once, to make it"):
        load_security(NodeConfig(keyring_file=path))
    assert load_security(NodeConfig(keyring_file=path, encrypt=KEY)).keyring == Keyring.from_base64([KEY])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_security(NodeConfig(keyring_file=path)).keyring == Keyring.from_base64([KEY])
    assert not caplog.records
    assert load_security(NodeConfig(keyring_file=path, encrypt=OTHER_KEY)).keyring == Keyring.from_base64([KEY])
    assert "is not in the keyring file" in caplog.text
    assert KEY not in caplog.text
    assert OTHER_KEY not in caplog.text


async def test_a_look_at_certificates_that_fails_is_followed_by_others(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, internal_errors: list[tuple[Where, Exception]], pki: Pki
) -> None:
    looks: list[float] = []

    async def wait(_reloader: Reloader) -> None:
        await trio.sleep_forever()

    def fail(_security: NodeSecurity) -> None:
        looks.append(trio.current_time())
        raise RuntimeError("unforeseen")

    security = load_security(config(pki))
    # what looks at the files does so in threads, which a clock that jumps does not wait for
    monkeypatch.setattr(Reloader, "run", wait)
    monkeypatch.setattr(NodeSecurity, "warn_of_expiry", fail)
    with trio.move_on_after(3 * 86_400 - 1):
        await security.run()
    assert looks == [pytest.approx(day * 86_400.0) for day in range(3)]
    assert [where for where, _ in internal_errors] == [Where.CERTIFICATE_WATCH] * 3
    assert security.errors.counts[Where.CERTIFICATE_WATCH] == 3


# -- a node ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["server.pem", "server-key.pem", "ca.pem", "root-client-key.pem", "policy.csv"])
def test_wrong_files_are_named(pki: Pki, wrong: str) -> None:
    (pki / wrong).write_text("nonsense")
    with pytest.raises(SecurityFileError, match=re.escape(wrong)) as caught:
        load_security(NodeConfig(**pki.node_options()))
    assert len(str(caught.value).splitlines()) == 1


async def test_a_node_with_wrong_files_does_not_start(pki: Pki, tmp_path: Path) -> None:
    (pki / "policy.csv").write_text("nonsense")
    done = await trio.run_process(
        node_command(tmp_path / "data", *pki.node_arguments(), "--log-level", "error"),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=clean_environment(),
    )
    errors = done.stderr.decode()
    assert done.returncode == ExitCode.USAGE
    assert len(errors.splitlines()) == 1
    assert "policy.csv" in errors
    assert not (tmp_path / "data").exists()


async def test_sighup_reads_files_again_without_dropping_a_connection(pki: Pki, tmp_path: Path) -> None:
    (pki / "policy.csv").write_text(POLICY.replace("root", "nobody"))
    async with node_process(
        tmp_path / "data", *pki.node_arguments(), "--metrics-addr", "127.0.0.1:0", "--log-level", "info"
    ) as node:
        async with open_producer(node.address, connection=pki.connection("nobody")) as producer:
            await (await producer.send(b"before")).wait()
            (pki / "policy.csv").write_text(POLICY + POLICY.replace("root", "nobody"))
            pki.replace("server", pki.authority.server(days=3))
            node.process.send_signal(signal.SIGHUP)
            await until_logged(node, "certificate expires soon", "policy: read again")
            await (await producer.send(b"after")).wait()
        async with open_consumer(node.address, connection=pki.connection("root"), follow=False) as consumer:
            assert [record.value async for record in consumer] == [b"before", b"after"]
        found = await figures(Address.parse(node.ready["metrics_addr"]))
        days = (found['proglog_certificate_expiry_seconds{certificate="server_certificate"}'] - _now()) / 86400
        assert 2 < days < 4
        assert found['proglog_members{status="alive"}'] == 1
        assert found["proglog_membership_health_score"] == 0
        assert {name.partition("{")[2] for name in found if name.startswith("proglog_membership_queue")} == {
            f'kind="{kind}"}}' for kind in ("memberlist", "intent", "event", "query")
        }
        assert {name.partition("{")[2] for name in found if name.startswith("proglog_membership_lamport_time")} == {
            f'kind="{kind}"}}' for kind in ("member", "event", "query")
        }
        assert found["proglog_log_next_offset"] == 2
        assert found["proglog_server_connections_total"] == 2
        assert found["proglog_gossip_packets_refused_total"] == 0
        assert await node.stop() == ExitCode.DONE


def _now() -> float:
    return datetime.now(UTC).timestamp()


async def test_sighup_ends_no_node(tmp_path: Path) -> None:
    async with node_process(tmp_path / "data", "--log-level", "info") as node:
        node.process.send_signal(signal.SIGHUP)
        await until_logged(node, "told to read files again")
        assert await node.stop() == ExitCode.DONE


@pytest.mark.system
async def test_commands_over_tls(pki: Pki, tmp_path: Path) -> None:
    (pki / "policy.csv").write_text(POLICY + "p, operator, *, admin\n")
    pki.client("operator")
    metrics_addr = Address("127.0.0.1", 0)
    async with node_inside(tmp_path / "data", "a", metrics_addr=metrics_addr, **pki.node_options()) as node:
        root, nobody = (pki.command_arguments(name) for name in ("root", "nobody"))
        address = ("--addr", node.address)
        assert (await run_command("produce", *address, *root, stdin=b"one\ntwo\n"))[0] == ExitCode.DONE
        variables = {
            "PROGLOG_TLS_CA_FILE": str(pki / "ca.pem"),
            "PROGLOG_TLS_CERT_FILE": str(pki / "root-client.pem"),
            "PROGLOG_TLS_KEY_FILE": str(pki / "root-client-key.pem"),
        }
        assert (await run_command("consume", *address, stdin=b"", **variables))[:2] == (ExitCode.DONE, b"one\ntwo\n")
        code, output, _ = await run_command("members", *address, *root)
        assert (code, output.split()[0]) == (ExitCode.DONE, b"a")
        code, _, errors = await run_command("produce", *address, *nobody, stdin=b"three\n")
        assert code == ExitCode.FAILED, errors
        assert "nobody not permitted to produce to *" in errors
        for client, problem in (
            ("root", "root not permitted to admin to *"),
            ("operator", "no member named 'x' is known"),
            (None, "a client certificate is needed"),
        ):
            # What the command shows of this is what produce does, above.
            with pytest.raises(CallFailed, match=re.escape(problem)):
                await force_leave(node.address, "x", 60, tls=pki.client_tls(client))
        code, _, errors = await run_command("members", *address, f"--tls-ca-file={pki / 'other-ca.pem'}")
        assert code == ExitCode.UNREACHABLE
        assert "certificate is not accepted" in errors
        for arguments, problem in (
            ([f"--tls-ca-file={pki / 'missing.pem'}"], "missing.pem cannot be read"),
            ([root[1]], "go together"),
        ):
            code, _, errors = await run_command("consume", *address, *arguments)
            assert code == ExitCode.USAGE
            assert problem in errors
        assert node.running.metrics_address is not None
        found = await figures(node.running.metrics_address)
        assert found['proglog_denied_total{action="produce"}'] >= 1
        assert found['proglog_denied_total{action="admin"}'] == 1
        assert found["proglog_unauthenticated_total"] == 1
