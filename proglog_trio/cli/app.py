"""The command line's entry point.

The modules of the commands are all imported, and import themselves what they do not need to explain themselves when
they are run: `consume` does not pay for the server, nor `node` for the client.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App, CoercionError, CycloptsError, UnusedCliTokensError

from proglog_trio import __version__
from proglog_trio.cli import (
    certs,
    cluster,
    consume,
    keys,
    local_cluster,
    log_dump,
    log_verify,
    node,
    produce,
    status,
)
from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.standard_streams import OutputError
from proglog_trio.config import ConfigError

app = App(
    name="proglog-trio",
    help="A distributed commit log on Trio.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
app.command(node.app)
app.command(produce.app)
app.command(consume.app)
app.command(local_cluster.app)
app.command(status.app)
app.command(cluster.members_app)
app.command(cluster.join_app)
app.command(cluster.leave_app)
app.command(cluster.force_leave_app)
app.command(certs.certs_app)
app.command(certs.keygen_app)
app.command(keys.app)

log_app = App(name="log", help="Look into a data directory without a node.")
log_app.command(log_verify.app)
log_app.command(log_dump.app)
app.command(log_app)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command that ``arguments`` (by default the process's) name, and exit with its code.

    Whatever goes wrong with the way a command was asked for is one line on standard error.
    """
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: Sequence[str]) -> int:
    try:
        result = app(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        return _fail(_describe(error), ExitCode.USAGE)
    except ConfigError as error:
        return _fail(str(error), ExitCode.USAGE)
    except CommandError as error:
        return _fail(str(error), error.code)
    except KeyboardInterrupt:
        _silence_stdout()
        return ExitCode.INTERRUPTED
    except OutputError as error:
        return ExitCode.DONE if error.has_no_reader else _fail(str(error), ExitCode.FAILED)
    return result if isinstance(result, int) else ExitCode.DONE


def _describe(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"Unexpected argument: {error.unused_tokens[0]}."
    message = str(error)
    if isinstance(error, CoercionError) and error.token and error.token.source not in ("", "cli", "env"):
        # cyclopts names the file with every other mistake, but not with one that a converter of ours found
        source = error.token.source
        return message if source in message else f"{message.rstrip('.')} (from {source})."
    return message


def _fail(message: str, code: ExitCode) -> int:
    with contextlib.suppress(OutputError):
        sys.stdout.flush()
    print(f"proglog-trio: {' '.join(message.split())}", file=sys.stderr)
    return code


def _silence_stdout() -> None:
    """Keep the interpreter's last flush of standard output from failing aloud."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
