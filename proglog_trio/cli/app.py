"""The command line's entry point.

The module of a command is imported when the command is run or explained, and imports itself what it does not need to
explain itself when it is run: `consume` does not pay for the server, nor `node` for the client.
"""

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import attrs
from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)
from cyclopts.argument import Argument

from proglog_trio import __version__
from proglog_trio.cli.contexts.choice import context_source
from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.standard_streams import OutputError
from proglog_trio.colours import Colour, painted
from proglog_trio.node.config import SECRET_OPTIONS, ConfigError
from proglog_trio.printable import printable

COMMANDS: Mapping[str, str] = {
    "node": "node:app",
    "produce": "produce:app",
    "consume": "consume:app",
    "cluster": "cluster:app",
    "status": "status:app",
    "gaps": "gaps:app",
    "members": "members:members_app",
    "join": "members:join_app",
    "leave": "members:leave_app",
    "force-leave": "members:force_leave_app",
    "event": "user_messages:event_app",
    "query": "user_messages:query_app",
    "events": "user_messages:events_app",
    "tags": "membership.tags:app",
    "rtt": "membership.rtt:app",
    "info": "membership.info:app",
    "context": "contexts.commands:app",
    "certs": "certs:certs_app",
    "keygen": "certs:keygen_app",
    "keys": "keys:app",
    "log": "log:app",
    "completion": "completion:app",
}
"""By name, the module and what it calls the command."""


_COMPLETE = "__complete"


def command_line(names: Iterable[str] = COMMANDS) -> App:
    """Return the entry point to these commands, by default to all; only their modules are imported."""
    root = App(
        name="proglog-trio",
        help="A distributed commit log on Trio.",
        version=__version__,
        config=context_source,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for name in names:
        module, _, attribute = COMMANDS[name].partition(":")
        root.command(getattr(importlib.import_module(f"proglog_trio.cli.{module}"), attribute))
    return root


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command that ``arguments`` (by default the process's) name, and exit with its code.

    Whatever goes wrong with the way a command was asked for is one line on standard error.
    """
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: Sequence[str]) -> int:
    try:
        result = _version() if [*arguments] == ["--version"] else _command(arguments)
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


def _command(arguments: Sequence[str]) -> object:
    # What is not for one command alone, such as help and a name that is none, is about all of them.
    # A shell that completes asks with the words of the command line behind a name of cyclopts' own.
    words = arguments[1:] if arguments[:1] == [_COMPLETE] else arguments
    app = command_line(words[:1] if words and words[0] in COMMANDS else COMMANDS)
    return app(arguments, exit_on_error=False, print_error=False)


def _version() -> ExitCode:
    """Print the version. By itself cyclopts does that as well, with rich, which takes longer than all the rest."""
    print(__version__)
    return ExitCode.DONE


def _describe(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"Unexpected argument: {_shown(error.unused_tokens[0])}."
    if isinstance(error, UnknownOptionError) and error.token is not None:
        # Without its value, which may be a secret whose option was misspelled.
        option = (error.token.keyword or error.token.value).partition("=")[0]
        error.token = attrs.evolve(error.token, keyword=_shown(option))
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        error.unused_tokens = [_shown(token) for token in error.unused_tokens]
    if isinstance(error, ValidationError) and error.argument is not None and error.argument.name in SECRET_OPTIONS:
        return _describe_secret(error, error.argument)
    message = str(error)
    if isinstance(error, CoercionError) and error.token and error.token.source not in ("", "cli", "env"):
        # cyclopts names the file with every other mistake, but not with one that a converter of ours found
        source = error.token.source
        return message if source in message else f"{message.rstrip('.')} (from {source})."
    return message


def _describe_secret(error: ValidationError, argument: Argument) -> str:
    """Describe what is wrong with a value that is not to be seen."""
    (token,) = argument.tokens[:1]
    source = {"cli": "", "env": f" (from {token.keyword})"}.get(token.source, f" (from {token.source})")
    return f"Invalid value for {argument.name}: {error.exception_message.rstrip('.')}{source}."


def _shown(argument: str) -> str:
    """Return an argument for a message; nothing of one that may be a key, wherever it was given."""
    if re.fullmatch(r"[A-Za-z0-9+/_-]{16,}={0,2}", argument.strip(" \t\r\n\"'")) and not Path(argument).exists():
        return "one that may be a key, and is not shown"
    return argument


def _fail(message: str, code: ExitCode) -> int:
    with contextlib.suppress(OutputError):
        sys.stdout.flush()
    name = painted("proglog-trio:", Colour.ERROR, sys.stderr)
    print(f"{name} {printable(' '.join(message.split()))}", file=sys.stderr)
    return code


def _silence_stdout() -> None:
    """Keep the interpreter's last flush of standard output from failing aloud."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
