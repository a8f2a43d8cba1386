"""``proglog-trio context``: clusters by name, so that their addresses and certificates are typed once."""

import json as json_format
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from proglog_trio.cli.contexts.addresses import ADDRESS_VARIABLE, DEFAULT_NODE_ADDRESS, check_addresses, dialled
from proglog_trio.cli.contexts.choice import CONTEXT_VARIABLE, context_names
from proglog_trio.cli.contexts.contexts import MAX_ADDRESSES, Context, Contexts, ContextsError
from proglog_trio.cli.contexts.file import change_contexts, contexts_path, read_contexts
from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.node_commands import report
from proglog_trio.colours import Colour, painted
from proglog_trio.node.option_types import FILE, HOST, NAME, NO_DEFAULT, flag, several
from proglog_trio.printable import printable

app = App(
    name="context",
    help="Give clusters names, so that their addresses and certificates are typed once. What says where a node is "
    "comes in this order: --addr, --context, PROGLOG_ADDR, PROGLOG_CONTEXT, the context in use, 127.0.0.1:8400.",
)

_NewName = Annotated[str, NAME, Parameter(metavar="NAME", help="What the context is called.")]
_Name = Annotated[str, Parameter(metavar="NAME", help="Of the context.", completer=context_names)]
_Json = Annotated[bool, flag("Write a JSON object: what is set, by its name.")]


def _check(type_: type, value: tuple[str, ...]) -> None:
    check_addresses(type_, value)
    if len(value) > MAX_ADDRESSES:
        raise ValueError(f"{len(value)} addresses are more than {MAX_ADDRESSES}.")


@app.command(name="add")
def add(
    name: _NewName,
    /,
    *,
    addr: Annotated[
        tuple[str, ...],
        several(dialled, "HOST:PORT"),
        Parameter(
            validator=_check,
            required=True,
            help="The nodes to talk to; what asks one node asks the first. Repeatable, or separated by commas.",
        ),
    ],
    cluster_name: Annotated[
        str | None,
        NAME,
        NO_DEFAULT,
        Parameter(metavar="NAME", help="What the nodes must say is their cluster's name."),
    ] = None,
    tls_ca_file: Annotated[
        Path | None, FILE, NO_DEFAULT, Parameter(help="The authority that signed the nodes' certificates (PEM).")
    ] = None,
    tls_cert_file: Annotated[
        Path | None, FILE, NO_DEFAULT, Parameter(help="The certificate that says who asks (PEM).")
    ] = None,
    tls_key_file: Annotated[Path | None, FILE, NO_DEFAULT, Parameter(help="The key of that certificate (PEM).")] = None,
    tls_server_name: Annotated[
        str | None, HOST, NO_DEFAULT, Parameter(help="What the nodes' certificates must be for, where not their hosts.")
    ] = None,
    use: Annotated[bool, flag("Have commands use it from now on.")] = False,
    replace: Annotated[bool, flag("Take the place of the context that has the name; all that it had goes.")] = False,
) -> int:
    """Give a cluster a name. Nothing is asked of its nodes, and files need not be there yet."""
    if (tls_cert_file is None) != (tls_key_file is None):
        raise CommandError("--tls-cert-file and --tls-key-file go together: give both, or none.", ExitCode.USAGE)
    context = Context(
        addresses=addr,
        cluster_name=cluster_name,
        tls_ca_file=_absolute(tls_ca_file),
        tls_cert_file=_absolute(tls_cert_file),
        tls_key_file=_absolute(tls_key_file),
        tls_server_name=tls_server_name,
    )

    def change(contexts: Contexts) -> Contexts:
        more = contexts.added(name, context, replace=replace)
        return more.used(name) if use else more

    before = _changed(change)
    report(f"{name} is {'replaced' if name in before.by_name else 'added'}")
    if use:
        _report_use(name)
    elif before.current != name:
        quoted = shlex.quote(name)
        report(f"`proglog-trio context use {quoted}` has commands use it, and --context {quoted} one of them")
    return ExitCode.DONE


@app.command(name="use")
def use(name: _Name, /) -> int:
    """Have commands talk to a context, from now on and in every shell, unless they are told otherwise."""
    _changed(lambda contexts: contexts.used(name))
    _report_use(name)
    return ExitCode.DONE


@app.command(name="list")
def list_(
    *,
    json: Annotated[bool, flag("Write a JSON array of objects: name, in_use, and what is set, by its name.")] = False,
) -> int:
    """Show all contexts: their names and addresses, and * at the one in use."""
    contexts = _read()
    if json:
        described = [_described(name, contexts) for name, context in sorted(contexts.by_name.items())]
        print(json_format.dumps(described, indent=2))
        return ExitCode.DONE
    width = max(map(len, contexts.by_name), default=0)
    for name, context in sorted(contexts.by_name.items()):
        mark, colour = ("*", Colour.CHOSEN) if name == contexts.current else (" ", None)
        print(painted(printable(f"{mark} {name.ljust(width)}  {', '.join(context.addresses)}"), colour, sys.stdout))
    if not contexts.by_name:
        report(f"there is no context; commands talk to {DEFAULT_NODE_ADDRESS}; `proglog-trio context add` makes one")
    return ExitCode.DONE


@app.command(name="show")
def show(
    name: Annotated[
        str | None,
        Parameter(
            metavar="NAME",
            completer=context_names,
            show_default=lambda _value: "the one that applies",
            help="Of the context.",
        ),
    ] = None,
    /,
    *,
    json: _Json = False,
) -> int:
    """Show what a context has; without a name, that of the one that applies where a command is told nothing else."""
    contexts = _read()
    shown = name or os.environ.get(CONTEXT_VARIABLE) or contexts.current
    if shown is None:
        raise CommandError(
            f"no context is in use: commands talk to {DEFAULT_NODE_ADDRESS}; `proglog-trio context list` shows all",
            ExitCode.FAILED,
        )
    try:
        context = contexts.named(shown)
    except ContextsError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    if json:
        print(json_format.dumps(_described(shown, contexts), indent=2))
        return ExitCode.DONE
    rows = {
        "name": shown,
        "in-use": "yes" if shown == contexts.current else "no",
        **context.described(),
        "addresses": ", ".join(context.addresses),
    }
    width = max(map(len, rows))
    for field, value in rows.items():
        print(printable(f"{field.ljust(width)}  {value}"))
    return ExitCode.DONE


@app.command(name="remove")
def remove(name: _Name, /) -> int:
    """Forget a context. If it is the one in use, none is from then on; files that it names stay."""
    before = _changed(lambda contexts: contexts.removed(name))
    report(f"{name} is removed")
    if before.current == name:
        report(f"it was in use: commands talk to {DEFAULT_NODE_ADDRESS} until another is used")
    return ExitCode.DONE


def _described(name: str, contexts: Contexts) -> dict[str, Any]:
    described = contexts.by_name[name].described()
    fields = {field.replace("-", "_"): value for field, value in described.items()}
    return {"name": name, "in_use": name == contexts.current, **fields}


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser().absolute())


def _read() -> Contexts:
    try:
        return read_contexts(contexts_path())
    except ContextsError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error


def _changed(change: Callable[[Contexts], Contexts]) -> Contexts:
    try:
        return change_contexts(contexts_path(), change)
    except ContextsError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error


def _report_use(name: str) -> None:
    report(f"{name} is in use")
    for variable in (ADDRESS_VARIABLE, CONTEXT_VARIABLE):
        if os.environ.get(variable):
            report(f"{variable} is set in this shell and comes before it")
