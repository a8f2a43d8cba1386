"""Which context a command talks to, as a source of its options.

What says where a node is comes in this order: --addr, --context, PROGLOG_ADDR, PROGLOG_CONTEXT, the context in use, the
default. A context stands for all that it has, and each of its settings gives way to an option for it alone.
"""

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter, Token
from cyclopts.argument import Argument, ArgumentCollection

from proglog_trio.cli.contexts.addresses import ADDRESS_OPTION
from proglog_trio.cli.contexts.contexts import ContextsError
from proglog_trio.cli.contexts.file import contexts_path, read_contexts
from proglog_trio.node.option_types import ENVIRONMENT_PREFIX, ENVIRONMENT_SOURCE

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext

CONTEXT_OPTION = "--context"
CONTEXT_VARIABLE = f"{ENVIRONMENT_PREFIX}CONTEXT"

_FIELDS = {
    ADDRESS_OPTION: "addresses",
    "--cluster-name": "cluster_name",
    "--tls-ca-file": "tls_ca_file",
    "--tls-cert-file": "tls_cert_file",
    "--tls-key-file": "tls_key_file",
    "--tls-server-name": "tls_server_name",
}
"""The options that a context has, and what they are called there."""


def context_names(_context: "CompletionContext | None" = None) -> dict[str, str]:
    """Return the contexts' names with their addresses, for a shell to offer; none if the file cannot be read."""
    try:
        contexts = read_contexts(contexts_path())
    except ContextsError:
        return {}
    return {name: ", ".join(context.addresses) for name, context in contexts.by_name.items()}


ContextName = Annotated[
    str | None,
    Parameter(
        name=CONTEXT_OPTION,
        env_var=CONTEXT_VARIABLE,
        metavar="NAME",
        completer=context_names,
        show_default=lambda _value: "the one in use, if there is one",
        help="The context to talk to; see `proglog-trio context`. --addr and the --tls options come before it.",
    ),
]
"""The option of every command that talks to a node. What it stands for is in its other options then."""


def context_source(_app: App, _commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Add the options of the context that applies, if one does (a cyclopts source).

    Raises CycloptsError: there is no such context, or the file cannot be read.
    """
    by_name = {argument.name: argument for argument in arguments}
    if CONTEXT_OPTION not in by_name:
        return
    named = by_name[CONTEXT_OPTION].tokens[:1]
    if named and named[0].source != ENVIRONMENT_SOURCE:
        # What was typed comes before the whole environment, also where the context says nothing.
        for option in _FIELDS.keys() & by_name.keys():
            _forget_environment(by_name[option])
    elif by_name[ADDRESS_OPTION].tokens:
        return
    try:
        contexts = read_contexts(contexts_path())
        name = named[0].value if named else contexts.current
        if name is None:
            return
        context = contexts.named(name)
    except ContextsError as error:
        raise CycloptsError(msg=_described(error, named)) from None
    source = f"the context {name!r} ({_origin(named)})"
    for option, field in _FIELDS.items():
        value = getattr(context, field)
        if option in by_name and value is not None and not by_name[option].tokens:
            values = value if isinstance(value, tuple) else (value,)
            for each in values:
                by_name[option].append(Token(keyword=option, value=each, source=source))


def _forget_environment(argument: Argument) -> None:
    argument.tokens[:] = [token for token in argument.tokens if token.source != ENVIRONMENT_SOURCE]


def _origin(named: list[Token]) -> str:
    if not named:
        return "which is in use"
    return CONTEXT_VARIABLE if named[0].source == ENVIRONMENT_SOURCE else CONTEXT_OPTION


def _described(error: ContextsError, named: list[Token]) -> str:
    if named:
        return f"{_origin(named)}: {error}."
    return f"The contexts cannot be read: {error}. With --addr none is needed."
