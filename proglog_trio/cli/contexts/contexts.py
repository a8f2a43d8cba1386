"""What contexts are, and how they stand in a TOML file. No file is touched here."""

import json
import re
from collections.abc import Mapping
from typing import Any

import attrs

from proglog_trio.address import Address
from proglog_trio.node.option_types import DEFAULT_RPC_PORT, check_host, check_name, nearest

MAX_CONTEXTS = 1000
MAX_ADDRESSES = 64
MAX_FILE_BYTES = 1 << 20

_HEAD = "# Written by `proglog-trio context`, whole each time: comments are not kept.\n"


class ContextsError(Exception):
    """Contexts cannot be used, or not be changed in this way. The message is one line."""


@attrs.frozen(kw_only=True)
class Context:
    """How to reach a cluster.

    Attributes:
        addresses: of its nodes, "host:port"; what asks one node asks the first.
        cluster_name: what the nodes must say that their cluster is called; None: anything.
        tls_ca_file, tls_cert_file, tls_key_file: absolute paths of PEM files.
        tls_server_name: what the nodes' certificates must be for, if not their hosts.
    """

    addresses: tuple[str, ...]
    cluster_name: str | None = None
    tls_ca_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    tls_server_name: str | None = None

    def described(self) -> dict[str, Any]:
        """Return what is set, by its key in the file."""
        fields = attrs.asdict(self, value_serializer=_plain)
        return {key(name): value for name, value in fields.items() if value is not None}


@attrs.frozen
class Contexts:
    """All contexts by their names, and the name of the one in use."""

    by_name: Mapping[str, Context] = attrs.field(factory=dict)
    current: str | None = None

    def named(self, name: str) -> Context:
        """Return a context; raises ContextsError if there is none of this name."""
        if name not in self.by_name:
            known = ", ".join(sorted(self.by_name))
            what = f"there are: {known}" if known else "there is none; `proglog-trio context add` makes one"
            raise ContextsError(f"there is no context {name!r}; {what}")
        return self.by_name[name]

    def added(self, name: str, context: Context, *, replace: bool) -> "Contexts":
        """Return these with one more; raises ContextsError."""
        if name in self.by_name and not replace:
            raise ContextsError(f"there is a context {name!r}; --replace has it replaced")
        if len({*self.by_name, name}) > MAX_CONTEXTS:
            raise ContextsError(f"there are {MAX_CONTEXTS} contexts, which is the most; remove one before")
        return attrs.evolve(self, by_name={**self.by_name, name: context})

    def used(self, name: str) -> "Contexts":
        """Return these with another one in use; raises ContextsError."""
        self.named(name)
        return attrs.evolve(self, current=name)

    def removed(self, name: str) -> "Contexts":
        """Return these without one: none is in use if it was that; raises ContextsError."""
        self.named(name)
        rest = {each: context for each, context in self.by_name.items() if each != name}
        return Contexts(rest, None if self.current == name else self.current)


def key(field: str) -> str:
    """Return what a field is called in the file."""
    return field.replace("_", "-")


def _plain(_context: object, _attribute: object, value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


# -- the file ----------------------------------------------------------------------------------------------------------


def render(contexts: Contexts) -> str:
    """Return the text of the file; raises ContextsError for what cannot stand in it."""
    parts = [_HEAD]
    if contexts.current is not None:
        parts.append(f"current = {_string(contexts.current)}\n")
    for name, context in sorted(contexts.by_name.items()):
        parts.append(f"\n[contexts.{_string(name)}]\n")
        for field, value in context.described().items():
            written = f"[{', '.join(map(_string, value))}]" if isinstance(value, list) else _string(value)
            parts.append(f"{field} = {written}\n")
    text = "".join(parts)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ContextsError("a path has bytes that are no UTF-8 text, which no TOML file can have") from None
    if size > MAX_FILE_BYTES:
        raise ContextsError(f"the contexts take {size} bytes, more than {MAX_FILE_BYTES}; remove one before")
    return text


def _string(text: str) -> str:
    # TOML's basic strings have JSON's escapes, and want one more character escaped
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def parse(text: str) -> Contexts:
    """Read the text of the file; raises ContextsError naming the line."""
    import tomllib  # late: few commands read a file

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ContextsError(f"it is not TOML: {error}") from None
    except RecursionError:
        raise ContextsError("it is not TOML that can be read: nested too deep") from None
    for name in data:
        if name not in ("current", "contexts"):
            raise _wrong(text, (), name, f"the key {name!r} is unknown.{nearest(name, ['current', 'contexts'])}")
    tables = data.get("contexts", {})
    if not isinstance(tables, dict):
        raise _wrong(text, (), "contexts", "contexts must be a table")
    if len(tables) > MAX_CONTEXTS:
        raise ContextsError(f"{len(tables)} contexts are more than {MAX_CONTEXTS}")
    by_name = {name: _context(text, name, table) for name, table in tables.items()}
    current = data.get("current")
    if current is not None and current not in by_name:
        raise _wrong(text, (), "current", f"the context in use, {current!r}, is none that is in the file")
    return Contexts(by_name, current)


def _context(text: str, name: str, table: object) -> Context:
    path = ("contexts", name)
    problem = _problem(check_name, name)
    if problem is not None:
        raise _wrong(text, path, None, f"{name!r} is no name: {problem}")
    if not isinstance(table, dict):
        raise _wrong(text, ("contexts",), name, f"the context {name!r} must be a table")
    fields = {key(attribute.name): attribute.name for attribute in attrs.fields(Context)}
    for found, value in table.items():
        if found not in fields:
            raise _wrong(text, path, found, f"the key {found!r} is unknown.{nearest(found, [*fields.values()])}")
        problem = _field_problem(found, value)
        if problem is not None:
            raise _wrong(text, path, found, f"{found} {problem}")
    if "addresses" not in table:
        raise _wrong(text, path, None, f"the context {name!r} has no addresses")
    if ("tls-cert-file" in table) != ("tls-key-file" in table):
        raise _wrong(text, path, None, f"of {name!r}, tls-cert-file and tls-key-file go together: give both, or none")
    values: dict[str, Any] = {fields[found]: value for found, value in table.items()}
    values["addresses"] = tuple(str(_parsed(each)) for each in values["addresses"])
    return Context(**values)


def _field_problem(found: str, value: object) -> str | None:
    """Return what is wrong with the value of a key; None: nothing."""
    if found == "addresses":
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value) or not value:
            return "must be an array of strings, and not an empty one"
        if len(value) > MAX_ADDRESSES:
            return f"has {len(value)} addresses, more than {MAX_ADDRESSES}"
        return next(filter(None, map(_address_problem, value)), None)
    if not isinstance(value, str):
        return "must be a string"
    checks = {"cluster-name": check_name, "tls-server-name": check_host}
    problem = _problem(checks[found], value) if found in checks else None
    return None if problem is None else f"is wrong: {problem}"


def _address_problem(address: str) -> str | None:
    try:
        return f"has {address!r}: nothing can be reached at port 0" if _parsed(address).port == 0 else None
    except ValueError as error:
        return f"is wrong: {error}"


def _parsed(address: str) -> Address:
    return Address.parse(address, default_port=DEFAULT_RPC_PORT)


def _problem(check: Any, value: str) -> str | None:  # noqa: ANN401 (a validator of cyclopts)
    try:
        check(str, value)
    except ValueError as error:
        return str(error)
    return None


def _wrong(text: str, path: tuple[str, ...], found: str | None, what: str) -> ContextsError:
    """Return an error that names the line where a key stands, or its table if there is no such line."""
    line = _line(text, path, found)
    return ContextsError(what if line is None else f"line {line}: {what}")


def _line(text: str, path: tuple[str, ...], found: str | None) -> int | None:
    """Return where a key of a table stands as files are usually written; None: it cannot be told."""
    table: tuple[str, ...] = ()
    table_line: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[([^\[\]]+)\]\s*(#.*)?$", line)
        if header:
            table = _names(header[1])
            if table == path:
                table_line = number
            continue
        before, separator, _ = line.partition("=")
        if not separator:
            continue
        names = (*table, *_names(before))
        if found is not None and names[: len(path) + 1] == (*path, found):
            return number
        if table_line is None and path and names[: len(path)] == path:
            table_line = number
    return table_line


def _names(text: str) -> tuple[str, ...]:
    """Return the parts of a dotted key."""
    parts = re.findall(r'"((?:[^"\\]|\\.)*)"|\'([^\']*)\'|([^\s."\']+)', text)
    return tuple(_unescaped(basic) if basic else literal or bare for basic, literal, bare in parts)


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text
