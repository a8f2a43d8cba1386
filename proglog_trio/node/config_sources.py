"""Where a node's options come from besides its command line: the environment, and a TOML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import attrs
from cyclopts import App, CycloptsError
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Dict, Env

from proglog_trio.node.config import NodeConfig, parameters
from proglog_trio.node.option_types import ARRAY_SEPARATOR, ENVIRONMENT_PREFIX, ENVIRONMENT_SOURCE, nearest

# What stands between the values of one that is an array in the file.
_REPEATABLE: Mapping[str, str] = {
    **dict.fromkeys(("start_join_addrs", "name_servers", "gossip_allowed_cidrs", "gossip_settings", "tag"), ","),
    "event_handler": ARRAY_SEPARATOR,
}
_TOML_NAMES: Mapping[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a float",
    bool: "a boolean",
    list: "an array",
    dict: "a table",
}


class _NodeEnvironment(Env):
    """The environment, without what Kubernetes puts there for a service that is named like an option."""

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        super().__call__(app, commands, arguments)
        for argument in arguments:
            argument.tokens[:] = [
                token
                for token in argument.tokens
                if token.source != self.source or not _is_of_a_service(token.keyword or "", token.value)
            ]


def environment() -> Env:
    """Return the source that reads ``PROGLOG_…`` variables."""
    return _NodeEnvironment(ENVIRONMENT_PREFIX, source=ENVIRONMENT_SOURCE, command=False)


def _is_of_a_service(variable: str, value: str) -> bool:
    """Tell whether a variable is Kubernetes': all containers get NAME_PORT=tcp://… of each service NAME there is."""
    return variable.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://"))


def _known_variables() -> set[str]:
    return {ENVIRONMENT_PREFIX + attribute.name.upper() for attribute in attrs.fields(NodeConfig)}


def variables_of_services(environ: Mapping[str, str]) -> list[str]:
    """List the variables of options that hold what Kubernetes says of a service, and are passed over."""
    known = _known_variables()
    return sorted(name for name, value in environ.items() if name in known and _is_of_a_service(name, value))


def unknown_variables(environ: Mapping[str, str], also_known: Sequence[str] = ()) -> list[str]:
    """List the ``PROGLOG_…`` variables that are no option's.

    They are worth a warning and not an error: container platforms make variables of their own from service names.
    """
    known = {*_known_variables(), *also_known}
    return sorted(name for name in environ if name.startswith(ENVIRONMENT_PREFIX) and name not in known)


def config_file_source(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Add the options of the file that ``--config-file`` or its variable names, if one does (a cyclopts source).

    Raises CycloptsError naming the file and the key: a file that cannot be read, is not TOML, has a key that is no
    option, or a value of another type than the option's.
    """
    paths = [token.value for argument in arguments if argument.name == "--config-file" for token in argument.tokens]
    for path in paths[:1]:
        options = _read_config_file(Path(path))
        Dict(options, use_commands_as_keys=False, source=path)(app, commands, arguments)


def _read_config_file(path: Path) -> dict[str, Any]:
    import tomllib  # late: most nodes have no file, and no command but theirs has one

    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise _wrong(path, f"{error.strerror}.") from None
    except UnicodeDecodeError:
        raise _wrong(path, "it is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise _wrong(path, f"it is not TOML: {error}.") from None
    fields = [attribute.name for attribute in attrs.fields(NodeConfig) if attribute.name != "config_file"]
    # By the name of the field, since a key may be written with dashes and with underscores.
    options: dict[str, tuple[str, Any]] = {}
    for key, value in data.items():
        name = key.replace("-", "_")
        if name not in fields or name in options:
            what = "given twice" if name in options else "no option"
            raise _wrong(path, f"the key {key!r} is {what}.{nearest(key, fields)}")
        expected = _toml_types(name)
        if name in _REPEATABLE and isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = _REPEATABLE[name].join(value)
        if type(value) not in expected:
            names = " or ".join(_TOML_NAMES[kind] for kind in expected)
            found = _TOML_NAMES.get(type(value), "a date or time")
            raise _wrong(path, f"the key {key!r} must be {names}, not {found}.")
        options[name] = (key, value)
    return dict(options.values())


def _wrong(path: Path, what: str) -> CycloptsError:
    return CycloptsError(msg=f"Configuration file {path}: {what}")


def _toml_types(name: str) -> Sequence[type]:
    """List the TOML types that an option can be written in: sizes and times are numbers, or strings with a unit."""
    annotation = get_type_hints(NodeConfig, include_extras=False)[name]
    members = {kind for kind in (bool, int, float) if annotation == kind or annotation == kind | None}
    if members and parameters()[name].converter is not None:
        return (int, float, str) if float in members else (int, str)
    return tuple(members) or (str,)
