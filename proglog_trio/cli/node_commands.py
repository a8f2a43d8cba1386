"""How commands that talk to a node run: under Trio, ended cleanly by Ctrl-C and SIGTERM."""

import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

from cyclopts import Parameter, Token

from proglog_trio.cli.default_signals import end_on
from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.cli.standard_streams import OutputError, dropped_output
from proglog_trio.cli.structlog_loading import load_structlog_without_rich
from proglog_trio.node.garbage import put_off
from proglog_trio.node.option_types import ENVIRONMENT_PREFIX, NAME, TIME, between, parse_seconds, within
from proglog_trio.printable import printable

# a producer cannot be sure for longer that a retry is recognised
_SHORTEST_TIMEOUT, LONGEST_TIMEOUT = 0.1, 300.0


ClusterName = Annotated[
    str | None,
    NAME,
    Parameter(
        name="--cluster-name",
        env_var=f"{ENVIRONMENT_PREFIX}CLUSTER_NAME",
        metavar="NAME",
        show_default=lambda _value: "that of the first node that answers",
        help="The cluster that the nodes belong to. A node of another cluster (at an address that was given away, say) "
        "is not used.",
    ),
]
"""The option of the commands that go on at another node, which must be of the same cluster."""


Timeout = Annotated[
    float,
    TIME,
    within(_SHORTEST_TIMEOUT, LONGEST_TIMEOUT, " seconds"),
    Parameter(
        name="--timeout",
        help="How long to go on trying when the node cannot be reached or does not answer: seconds, or 1m.",
    ),
]
"""The option that bounds every wait for a node."""


FOREVER = "forever"
FOREVER_SECONDS = 100 * 365 * 86_400.0
"""Longer than any process lives, and a number like any other."""


def _read_wait(_type: type, tokens: Sequence[Token]) -> float:
    text = tokens[0].value.strip()
    if text == FOREVER:
        return FOREVER_SECONDS
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise ValueError(f"{error}, and not {FOREVER!r}") from None


Wait = Annotated[
    float | None,
    between(_SHORTEST_TIMEOUT),
    Parameter(
        name="--wait",
        converter=_read_wait,
        n_tokens=1,
        metavar=f"TIME|{FOREVER}",
        show_default=lambda _value: "as long as --timeout",
        help="How long to wait while no node of the cluster can be reached: seconds, 15m, 12h or 7d, or forever.",
    ),
]
"""The option of the commands that can wait for a cluster that is down."""


def run_interruptible(
    main: Callable[[], Awaitable[int]],
    *,
    after_signal: ExitCode = ExitCode.INTERRUPTED,
    on_signal: Callable[[signal.Signals], None] | None = None,
) -> int:
    """Run ``main`` under Trio and return its exit code.

    A SIGINT or SIGTERM is handed to ``on_signal`` and cancels ``main``, and ``after_signal`` is returned once that has
    unwound. A second signal ends the process at once, whatever it hangs on. An exception of ``main`` is raised as it
    is.
    """
    # late: no command needs them to explain itself
    with put_off():
        load_structlog_without_rich()
        import trio

    return trio.run(_run, main, after_signal, on_signal or _say_nothing)


async def _run(
    main: Callable[[], Awaitable[int]], after_signal: ExitCode, on_signal: Callable[[signal.Signals], None]
) -> int:
    import trio

    code: int = after_signal
    failure: BaseException | None = None
    # around the nursery: until all has unwound, a second signal must meet the kernel's handler and not Python's
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:

        async def cancel_on_signal() -> None:
            async for number in signals:
                # so that another one ends the process even when the loop is stuck
                end_on(signal.SIGINT, signal.SIGTERM)
                on_signal(signal.Signals(number))
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_on_signal)
            try:
                code = await main()
            except BaseExceptionGroup as group:
                failure = group.split(trio.Cancelled)[1]
            except Exception as error:  # noqa: BLE001 (carried out of the nursery, which would wrap it in a group)
                failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise _first_of_all(failure)
    return code


def _say_nothing(_signal: signal.Signals) -> None:
    """Unwind in silence."""


def _first_of_all(error: BaseException) -> BaseException:
    """Return what a command failed by; what else went wrong when its output could not be written came of that."""
    found: BaseException | None = error.split(OutputError)[0] if isinstance(error, BaseExceptionGroup) else None
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found or only_leaf(error)


def only_leaf(error: BaseException) -> BaseException:
    """Return the exception inside groups that hold nothing else, or others of its kind; the error itself otherwise.

    Several tasks may meet the same at once: the one that commits and the one that looks at the disk, a lost directory.
    """
    leaves = _leaves(error)
    return leaves[0] if len({type(leaf) for leaf in leaves}) == 1 else error


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def report(message: str) -> bool:
    """Write one line for people to standard error; return whether that could be written."""
    dropped = dropped_output(sys.stderr)
    before = dropped.dropped_lines
    print(printable(message), file=sys.stderr)
    return dropped.dropped_lines == before
