"""The lines that are logged, for clients that monitor an agent: the latest ones, and those to come.

They are taken from Python's own logging, where those of a node and of the libraries that it uses end. While a client
wants what is less serious than what is logged otherwise, such as debug lines, that is logged for it alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import trio
from attrs import define

MAX_KEPT_LINES = 512
"""As many as an agent keeps."""
MAX_LINE_CHARACTERS = 2048
"""The rest of a longer line is left out."""
MAX_WAITING_LINES = 1024
"""For one client, and of other threads for this one; further lines are left out, and counted."""
LEVELS: Mapping[str, int] = {
    "TRACE": 5,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERR": logging.ERROR,
}
"""Serf's words for them."""


def level_of(text: str) -> int:
    """Return the level that a client names. Raises ValueError as agents word it."""
    text = text.upper()
    level = LEVELS.get(text)
    if level is None:
        raise ValueError(f"Unknown log level: {text}")
    return level


@define(eq=False)
class _Listener:
    level: int
    send: trio.MemorySendChannel[str]
    left_out: int = 0

    def tell(self, level: int, line: str) -> None:
        if level < self.level:
            return
        try:
            if self.left_out:
                self.send.send_nowait(f"{_now()} [WARN] agent: {self.left_out} lines were left out")
                self.left_out = 0
            self.send.send_nowait(line)
        except trio.WouldBlock:
            self.left_out += 1


class LogLines(logging.Handler):
    """See the module. To be made and listened to in one Trio loop; lines may come from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: deque[tuple[int, str]] = deque(maxlen=MAX_KEPT_LINES)
        self._listeners: set[_Listener] = set()
        self._thread = threading.get_ident()
        self._token = trio.lowlevel.current_trio_token()
        self._crossing = 0
        self._root = logging.getLogger()
        # While a listener wants what is less serious: what is logged otherwise, and the handlers that are kept to it.
        self._usual: int | None = None
        self._raised: list[tuple[logging.Handler, int]] = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Take what is logged for the length of the block."""
        self._root.addHandler(self)
        try:
            yield
        finally:
            self._root.removeHandler(self)

    # -- what is logged ------------------------------------------------------------------------------------------------

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line; called by logging, in any thread."""
        try:
            self._emit(record.levelno, rendered(record))
        except Exception:  # noqa: BLE001 - as all handlers do: who logs must not fail by it
            self.handleError(record)

    def _emit(self, level: int, line: str) -> None:
        if threading.get_ident() == self._thread:
            self._take(level, line)
        elif self._crossing < MAX_WAITING_LINES:
            self._crossing += 1
            try:
                self._token.run_sync_soon(self._take_from_thread, level, line)
            except trio.RunFinishedError:
                self._crossing -= 1

    def _take_from_thread(self, level: int, line: str) -> None:
        self._crossing -= 1
        self._take(level, line)

    def _take(self, level: int, line: str) -> None:
        self._kept.append((level, line))
        for listener in self._listeners:
            listener.tell(level, line)

    # -- who wants it --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def listening(self, level: int) -> AsyncIterator[AsyncIterator[str]]:
        """Give the lines of a level at least: those that are kept, then those to come."""
        send, receive = trio.open_memory_channel[str](MAX_WAITING_LINES)
        listener = _Listener(level, send)
        for kept_level, line in self._kept:
            listener.tell(kept_level, line)
        self._listeners.add(listener)
        try:
            self._adjust()
            yield receive
        finally:
            # Before it is closed: something may be logged at any time.
            self._listeners.discard(listener)
            self._adjust()
            receive.close()

    def _adjust(self) -> None:
        """Have lines of the level that is wanted logged, to listeners alone where they would not be otherwise."""
        usual = self._root.level if self._usual is None else self._usual
        wanted = min((listener.level for listener in self._listeners), default=usual)
        if wanted < usual and self._usual is None:
            self._usual = usual
            self._raised = [
                (each, each.level) for each in self._root.handlers if each is not self and each.level < usual
            ]
            for handler, _ in self._raised:
                handler.setLevel(usual)
        if self._usual is not None:
            self._root.setLevel(min(wanted, usual))
        if wanted >= usual and self._usual is not None:
            for handler, before in self._raised:
                handler.setLevel(before)
            self._usual, self._raised = None, []


def rendered(record: logging.LogRecord) -> str:
    """Return a record in the form of an agent's lines: when, how serious, where, what."""
    if isinstance(record.msg, Mapping):
        # What structlog hands on, to be formatted by the handler.
        fields = dict(record.msg)
        said = str(fields.pop("event", ""))
        for key in (
            "level",
            "logger",
            "timestamp",
            "_record",
            "_from_structlog",
            "exc_info",
            "stack_info",
            "exception",
        ):
            fields.pop(key, None)
        text = " ".join((said, *(f"{key}={_shown(value)}" for key, value in fields.items())))
    else:
        text = record.getMessage()
    line = f"{_now(record.created)} [{_word(record.levelno)}] {record.name.rpartition('.')[2]}: {text}"
    line = line.replace("\n", "\\n").replace("\r", "\\r")
    return line if len(line) <= MAX_LINE_CHARACTERS else f"{line[:MAX_LINE_CHARACTERS]}…"


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    text = str(value)
    return repr(text) if " " in text or not text else text


def _word(level: int) -> str:
    return next(
        (word for word, lowest in sorted(LEVELS.items(), key=lambda item: -item[1]) if level >= lowest), "TRACE"
    )


def _now(seconds: float | None = None) -> str:
    return time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(seconds))
