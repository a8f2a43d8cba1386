from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest
import structlog
import trio

from proglog_trio.membership.agent_rpc.log_lines import (
    MAX_KEPT_LINES,
    MAX_LINE_CHARACTERS,
    MAX_WAITING_LINES,
    LogLines,
    level_of,
    rendered,
)
from proglog_trio.node.log_output import configure_log_output

pytestmark = pytest.mark.timeout(20)
NAME = "tests.log_lines"


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before, handlers = root.level, list(root.handlers)
    root.setLevel(logging.INFO)
    yield logging.getLogger(NAME)
    root.setLevel(before)
    root.handlers[:] = handlers


async def test_what_was_logged_comes_first_and_then_what_is(logger: logging.Logger) -> None:
    lines = LogLines()
    with lines.attached():
        logger.info("before %d", 1)
        logger.warning("before\n2")
        async with lines.listening(logging.WARNING) as heard:
            logger.error("after")
            logger.info("not wanted")
            found = [await heard.__anext__() for _ in range(2)]
    assert [re.sub(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ", "", line) for line in found] == [
        "[WARN] log_lines: before\\n2",
        "[ERR] log_lines: after",
    ]
    logger.error("nobody listens any more")


async def test_a_listener_that_wants_more_has_it_logged_for_itself_alone(logger: logging.Logger) -> None:
    class Usual(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            usual.append(record.getMessage())

    usual: list[str] = []
    root = logging.getLogger()
    handler = Usual()
    root.addHandler(handler)
    lines = LogLines()
    with lines.attached():
        logger.debug("too early")
        async with lines.listening(logging.DEBUG) as first, lines.listening(level_of("trace")) as second:
            logger.debug("debug")
            assert "debug" in await first.__anext__()
            assert "debug" in await second.__anext__()
        logger.debug("too late")
        assert root.level == logging.INFO
        assert handler.level == logging.NOTSET
        async with lines.listening(logging.INFO) as heard:
            logger.info("info")
            assert "info" in await heard.__anext__()
    assert usual == ["info"]


async def test_two_who_want_more_and_end_in_any_order(logger: logging.Logger) -> None:
    lines, root = LogLines(), logging.getLogger()
    one, other = lines.listening(logging.DEBUG), lines.listening(5)
    with lines.attached():
        await one.__aenter__()
        heard = await other.__aenter__()
        await one.__aexit__(None, None, None)
        logger.debug("still")
        assert "still" in await heard.__anext__()
        assert root.level == 5
        await other.__aexit__(None, None, None)
    assert root.level == logging.INFO


async def test_lines_of_other_threads_come_too(logger: logging.Logger) -> None:
    lines = LogLines()
    with lines.attached():
        async with lines.listening(logging.INFO) as heard:
            await trio.to_thread.run_sync(logger.info, "from a thread")
            assert "from a thread" in await heard.__anext__()


async def test_who_does_not_listen_misses_lines_and_is_told(logger: logging.Logger) -> None:
    lines = LogLines()
    with lines.attached():
        async with lines.listening(logging.INFO) as heard:
            for number in range(MAX_WAITING_LINES + 3):
                logger.info("%d", number)
            for _ in range(MAX_WAITING_LINES):
                await heard.__anext__()
            logger.info("last")
            assert "3 lines were left out" in await heard.__anext__()
            assert "last" in await heard.__anext__()


async def test_who_logs_never_fails_by_it(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    lines = LogLines()
    with lines.attached():
        listening = lines.listening(logging.INFO)
        heard = await listening.__aenter__()
        (listener,) = lines._listeners
        # While the end of a listener is under way, and whatever else may go wrong.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listening.__aexit__, None, None, None)
            nursery.start_soon(log_often, logger)
        assert lines._listeners == set()
        with pytest.raises(trio.ClosedResourceError):
            await anext(heard)
        lines._listeners.add(listener)
        logger.info("to one that is closed")
        lines._listeners.discard(listener)
        logger.info("not %d", "a number")


async def log_often(logger: logging.Logger) -> None:
    for _ in range(20):
        logger.info("x")
        await trio.lowlevel.checkpoint()


async def test_what_is_kept_is_bounded(logger: logging.Logger) -> None:
    lines = LogLines()
    with lines.attached():
        for _ in range(MAX_KEPT_LINES + 10):
            logger.info("x" * 10_000)
    assert len(lines._kept) == MAX_KEPT_LINES
    assert max(len(line) for _, line in lines._kept) == MAX_LINE_CHARACTERS + 1


async def test_events_of_structlog_are_lines(logger: logging.Logger) -> None:
    del logger
    root = logging.getLogger()
    configure_log_output("json", "info", stream=open("/dev/null", "w"))  # noqa: SIM115, PTH123, ASYNC230
    try:
        lines = LogLines()
        with lines.attached():
            structlog.get_logger("a.b.node").warning("a member failed", name="x y", count=3)
        assert [line.partition(" [")[2] for _, line in lines._kept] == [
            "WARN] node: a member failed name='x y' count=3"
        ]
    finally:
        root.handlers[0].stream.close()  # type: ignore[attr-defined]


def test_what_cannot_be_rendered_is_no_error_of_who_logs() -> None:
    assert rendered(logging.LogRecord("a.b", logging.CRITICAL, "", 1, "text", None, None)).endswith("[ERR] b: text")
    assert "[TRACE]" in rendered(logging.LogRecord("a.b", 1, "", 1, "text", None, None))


@pytest.mark.parametrize("text", ["NONSENSE", ""])
def test_an_unknown_level_is_refused_as_agents_do(text: str) -> None:
    with pytest.raises(ValueError, match=f"Unknown log level: {text}"):
        level_of(text)
