from __future__ import annotations

import pytest
from grpclib.const import Status

from proglog_trio.rpc.server.authorization import Gate, requirement_of
from proglog_trio.rpc.server.denial_log import LOGGED_DENIALS
from proglog_trio.rpc.server.identity import Identity
from proglog_trio.security.permissions import Action

FOREVER = float("inf")
PRODUCE, CONSUME, SERVERS = "/log.v1.Log/Produce", "/log.v1.Log/Consume", "/log.v1.Log/GetServers"


class Only:
    """A policy of pairs."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self.pairs = set(pairs)

    def allows(self, subject: str, action: Action) -> bool:
        return (subject, action.value) in self.pairs


def refused(
    gate: Gate, path: str, subject: str | None = "anna", expires: float = FOREVER, peer: str = "192.0.2.1"
) -> tuple[Status, str] | None:
    error = gate.refusal(path, Identity(subject, expires), peer)
    return None if error is None else (error.status, error.message or "")


def test_a_denial_names_subject_and_action() -> None:
    gate = Gate(Only(("anna", "consume")))
    assert refused(gate, CONSUME) is None
    assert refused(gate, PRODUCE) == (Status.PERMISSION_DENIED, "anna not permitted to produce to *")
    assert refused(gate, SERVERS) is None
    assert refused(gate, SERVERS, "bob") == (Status.PERMISSION_DENIED, "bob not permitted to produce or consume to *")
    assert refused(gate, "/log.v1.Cluster/Leave") == (Status.PERMISSION_DENIED, "anna not permitted to admin to *")
    assert gate.counters.denied == {"produce": 1, "produce or consume": 1, "admin": 1}


def test_without_an_identity_only_health_is_open() -> None:
    gate = Gate(Only())
    assert refused(gate, "/grpc.health.v1.Health/Check", None) is None
    assert refused(gate, "/grpc.health.v1.Health/Watch", None) is None
    for path in (PRODUCE, SERVERS, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/a.B/C", "", "/"):
        found = refused(gate, path, None)
        assert found is not None
        assert found[0] is Status.UNAUTHENTICATED
    assert gate.counters.unauthenticated == 6


def test_reflection_needs_a_name_and_no_right() -> None:
    assert refused(Gate(Only()), "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo") is None


def test_a_certificate_that_expires_while_connected_counts_no_more() -> None:
    gate = Gate(Only(("anna", "produce")))
    assert refused(gate, PRODUCE, expires=1.0) == (Status.UNAUTHENTICATED, "the client's certificate has expired")


@pytest.mark.parametrize(
    "path",
    [
        "/log.v1.Log/New",
        "/log.v1.Log/",
        "/log.v1.Log",
        "/log.v1.Cluster",
        "log.v1.Log/Produce ",
        "",
        "//",
        "/x/Produce",
    ],
)
def test_what_is_not_in_the_table_is_denied_to_everybody(path: str) -> None:
    assert requirement_of(path) is None
    gate = Gate(Only(*(("anna", action.value) for action in Action)))
    found = refused(gate, path)
    assert found is not None
    assert found[0] is Status.PERMISSION_DENIED
    assert not gate.permits(path, "anna")


def test_the_log_of_denials_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    gate = Gate(Only(), clock=lambda: now)
    for number in range(LOGGED_DENIALS + 30):
        refused(gate, PRODUCE, peer=f"192.0.2.{number}")
    assert len(caplog.records) == LOGGED_DENIALS
    now += 60
    refused(gate, PRODUCE, "bob")
    assert "not_logged=30" in caplog.text
    assert gate.counters.denied == {"produce": LOGGED_DENIALS + 31}


def test_a_denial_that_is_repeated_is_logged_once_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    gate = Gate(Only(), clock=lambda: now)
    for _ in range(5):
        refused(gate, PRODUCE)
        refused(gate, PRODUCE, subject=None)
    assert len(caplog.records) == 2
    refused(gate, CONSUME)
    refused(gate, PRODUCE, "bob")
    assert len(caplog.records) == 4
    now += 3600
    refused(gate, PRODUCE)
    assert len(caplog.records) == 5
    assert "repeated=4" in caplog.text
    assert gate.counters.denied == {"produce": 7, "consume": 1}


def test_a_denial_under_another_policy_is_news(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(Only())
    refused(gate, PRODUCE)
    gate.policy = Only(("anna", "consume"))
    refused(gate, PRODUCE)
    assert len(caplog.records) == 2
