import io
import json
import logging
from pathlib import Path

import pytest
import structlog

from proglog_trio.address import Address
from proglog_trio.node.log_output import configure_log_output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_outside_a_terminal() -> None:
    stream = io.StringIO()
    configure_log_output("auto", "info", stream)
    structlog.get_logger("proglog_trio.node.run").info(
        "node is ready", rpc_addr=Address("::1", 5), path=Path("/x"), raw=b"\1"
    )
    line = stream.getvalue()
    assert list(json.loads(line))[:3] == ["timestamp", "level", "event"]
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "level": "info",
        "event": "node is ready",
        "logger": "proglog_trio.node.run",
        "rpc_addr": "[::1]:5",
        "path": "/x",
        "raw": "01",
    }


def test_readable_on_a_terminal() -> None:
    stream = Terminal()
    configure_log_output("auto", "info", stream)
    structlog.get_logger("proglog_trio.node.run").warning("disk is slow", seconds=3)
    assert "disk is slow" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_no_name_is_obeyed_by_a_terminal() -> None:
    stream = Terminal()
    configure_log_output("auto", "info", stream)
    structlog.get_logger("proglog_trio.membership").warning("a member failed", member="a\x1b[2Jb", reason="gone\x9b2J")
    assert r"a\x1b[2Jb" in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()
    assert "\x9b" not in stream.getvalue()


def test_format_can_be_chosen() -> None:
    stream = Terminal()
    configure_log_output("json", "info", stream)
    structlog.get_logger("x").info("one")
    assert json.loads(stream.getvalue())["event"] == "one"
    stream = Terminal()
    plain = io.StringIO()
    configure_log_output("console", "info", plain)
    structlog.get_logger("y").info("two")
    assert "two" in plain.getvalue()
    assert "\x1b" not in plain.getvalue()


def test_libraries_end_in_the_same_place() -> None:
    stream = io.StringIO()
    configure_log_output("json", "info", stream)
    logging.getLogger("grpclib.server").error("Failed %s", "call", extra={"peer": "127.0.0.1"})
    event = json.loads(stream.getvalue())
    assert (event["event"], event["level"], event["logger"], event["peer"]) == (
        "Failed call",
        "error",
        "grpclib.server",
        "127.0.0.1",
    )


def test_level_holds_for_ours_and_for_libraries() -> None:
    stream = io.StringIO()
    configure_log_output("json", "warning", stream)
    structlog.get_logger("x").info("too small")
    logging.getLogger("y").info("too small")
    assert stream.getvalue() == ""


def test_h2_does_not_log_frames_at_debug() -> None:
    stream = io.StringIO()
    configure_log_output("json", "debug", stream)
    logging.getLogger("h2.connection").debug("a frame in hex")
    logging.getLogger("asyncio").debug("Using selector: EpollSelector")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_tracebacks_are_whole(log_format: str) -> None:
    stream = io.StringIO()
    configure_log_output("json" if log_format == "json" else "console", "info", stream)
    try:
        raise ExceptionGroup("several", [OSError(28, "No space left on device")])
    except ExceptionGroup:
        structlog.get_logger("x").exception("stopped")
    text = stream.getvalue()
    assert "No space left on device" in text
    assert "stopped" in text
    if log_format == "json":
        assert len(text.splitlines()) == 1
