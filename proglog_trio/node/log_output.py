"""Where log events go: structured, to standard error, readable on a terminal and one JSON object a line otherwise.

Modules take their logger from `structlog.get_logger`; what libraries say through the standard library's logging ends
in the same place, in the same form.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, TextIO

import structlog
from structlog.typing import Processor

from proglog_trio.colours import may_have_colours
from proglog_trio.printable import printable

if TYPE_CHECKING:
    from proglog_trio.node.config import LogFormat, LogLevel

# below warning grpclib logs each stream that a client ends early, asyncio its selector, casbin its policy, h2 and hpack
# every frame in hex
_QUIET_LOGGERS = ("asyncio", "casbin", "grpclib", "h2", "hpack")
# of this program and its libraries, and of several lines where they want it
_OWN_TEXTS = frozenset({"event", "exception", "stack"})


def configure_log_output(log_format: "LogFormat", log_level: "LogLevel", stream: TextIO | None = None) -> None:
    """Send log events of at least ``log_level`` to ``stream`` (standard error by default).

    Called once, by a program that starts, and by no library code. With the format ``auto``, a terminal gets the
    readable form and anything else gets JSON.
    """
    stream = sys.stderr if stream is None else stream
    on_terminal = stream.isatty()
    colours = may_have_colours(stream)
    readable = log_format == "console" or (log_format == "auto" and on_terminal)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(readable, colours)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(log_level.upper())
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def _renderers(readable: bool, colours: bool) -> list[Processor]:
    if readable:
        # rich's tracebacks would cost a node that logs an error once 10 MB for good
        console = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
        return [_printable, console]
    return [
        structlog.processors.format_exc_info,
        _event_first,
        structlog.processors.JSONRenderer(default=_plain),
    ]


def _printable(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what a terminal would obey in values: names and reasons are what others have chosen."""
    for key, value in event.items():
        if isinstance(value, str) and key not in _OWN_TEXTS:
            event[key] = printable(value)
    return event


def _event_first(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Order the keys so that every line begins with when, how serious and what."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}


def _plain(value: object) -> str:
    """Write what JSON has no form for: an origin as hex, a path or an address as its text."""
    return value.hex() if isinstance(value, bytes) else str(value)
