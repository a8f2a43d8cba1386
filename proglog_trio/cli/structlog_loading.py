"""Loading structlog without rich, which no command needs for its log.

structlog tries to import rich, which with what it imports itself takes a process longer than structlog does. It is for
tracebacks that `log_output` never asks for. structlog has no other switch for this than that rich is not there.
"""

import sys


def load_structlog_without_rich() -> None:
    """Import structlog as where rich is not installed; do nothing where it is there already, or rich is.

    For a program of ours, as it starts and before it has threads: for as long as this takes, nothing can import rich.
    Afterwards everything can. A program that uses the client library keeps what structlog does for it.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    # what the import system takes for "there is no such module"
    sys.modules["rich"] = None  # type: ignore[assignment]  # documented, and not what the type says
    try:
        import structlog  # noqa: F401 - for all that import it from now on
    finally:
        del sys.modules["rich"]
