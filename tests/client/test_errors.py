"""What a client's errors say: each is in the users' table, and names the next step in one line."""

import re
from pathlib import Path

import pytest

from proglog_trio import client
from proglog_trio.client import ConsumerConfig, DeliveryError, NodeUnreachable, RecordsNotDelivered, RecordTooLarge
from proglog_trio.client.delivery import BatchOutcome, FailureLedger
from proglog_trio.client.errors import MalformedRecord, consuming_next, producing_next
from proglog_trio.client.pending import PendingBatch
from proglog_trio.client.stream_failures import StreamFailures
from proglog_trio.rpc.calls.sessions import StreamBroken
from proglog_trio.rpc.calls.status_code import StatusCode

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "client-errors.md").read_text()
ROWS = re.findall(r"^\| (.*?) \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
ERRORS = sorted(
    name for name in client.__all__ if isinstance(each := getattr(client, name), type) and issubclass(each, Exception)
)


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_in_the_table(name: str) -> None:
    (row,) = [row for row in ROWS if f"`{name}`" in row[0]]
    _, cause, step = row
    assert cause
    assert step


def test_the_table_has_no_other_errors() -> None:
    named = {name for row in ROWS[1:] for name in re.findall(r"`(\w+)`", row[0])}
    assert named - {"ValueError", "TypeError"} == set(ERRORS)


def one_line_with_next_step(message: str) -> bool:
    return "\n" not in message and re.search(r"; [a-z]+ .+", message) is not None


@pytest.mark.parametrize("status", [status for status in StatusCode if status])
def test_a_refusal_names_what_to_do(status: StatusCode) -> None:
    assert one_line_with_next_step(f"x{producing_next(status)}")
    assert one_line_with_next_step(f"x{consuming_next(status)}")


@pytest.mark.parametrize(
    ("status", "step"),
    [
        (StatusCode.OUT_OF_RANGE, "begin at a place that the log holds"),
        (StatusCode.DATA_LOSS, 'wait with on_missing="wait"'),
        (StatusCode.RESOURCE_EXHAUSTED, "raise message_bytes (TransportConfig)"),
        (StatusCode.PERMISSION_DENIED, "--acl-policy-file"),
        (StatusCode.UNIMPLEMENTED, "check that the address is a node's"),
        (StatusCode.NOT_FOUND, "see the node's log"),
    ],
)
def test_a_consumers_refusal(status: StatusCode, step: str) -> None:
    failures = StreamFailures(ConsumerConfig())
    error = failures.lost("node:1", StreamBroken(f"{status.name}: in the node's words", status), 0.0, ["node:1"])
    assert error is not None
    assert str(error).startswith(f"{status.name}: in the node's words; ")
    assert step in str(error)


def test_what_is_waited_for_is_told_without_a_next_step() -> None:
    failures = StreamFailures(ConsumerConfig(on_missing="wait"))
    failure = StreamBroken("DATA_LOSS: offsets 3 to 4 are missing", StatusCode.DATA_LOSS)
    assert failures.lost("node:1", failure, 0.0, ["node:1"]) is None
    assert failures.waits_for == "DATA_LOSS: offsets 3 to 4 are missing"


@pytest.mark.parametrize(("attempts", "step"), [(0, "raise delivery_timeout"), (2, "look for them before you send")])
@pytest.mark.parametrize("obstacle", [None, StreamBroken("connection refused")])
def test_a_delivery_that_failed(attempts: int, step: str, obstacle: StreamBroken | None) -> None:
    batch = PendingBatch(b"", 1, 1, BatchOutcome(FailureLedger()), 0.0, attempts=attempts)
    for error in (batch.timed_out(5.0, obstacle), batch.abandoned()):
        assert one_line_with_next_step(str(error))
    assert step in str(batch.timed_out(5.0, obstacle))
    assert ("(connection refused)" in str(batch.timed_out(5.0, obstacle))) == (obstacle is not None)


def test_other_errors() -> None:
    first = DeliveryError("why", maybe_stored=False)
    assert "raise connect_timeout" in str(NodeUnreachable("no connection within 3 s: refused", "connect_timeout"))
    assert one_line_with_next_step(str(RecordTooLarge(10, 5)))
    assert "deliveries that are waited for say which" in str(RecordsNotDelivered(3, first))
    assert one_line_with_next_step(str(MalformedRecord("no array", offset=1, origin="o", sequence=2)))
