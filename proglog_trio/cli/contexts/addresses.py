"""The addresses that a command talks to, and where they are from: an option, a variable, a context, or nowhere."""

from collections.abc import Iterable, Sequence
from typing import Annotated

from cyclopts import Parameter, Token

from proglog_trio.address import Address
from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.node.option_types import DEFAULT_RPC_PORT, ENVIRONMENT_PREFIX, ENVIRONMENT_SOURCE, several

ADDRESS_OPTION = "--addr"
ADDRESS_VARIABLE = f"{ENVIRONMENT_PREFIX}ADDR"
DEFAULT_NODE_ADDRESS = f"127.0.0.1:{DEFAULT_RPC_PORT}"


class Addresses(tuple[str, ...]):
    """Addresses, and what said that it is these.

    Attributes:
        source: in words.
    """

    source: str

    @classmethod
    def of(cls, addresses: Iterable[str], source: str) -> "Addresses":
        """Make some."""
        made = cls(addresses)
        made.source = source
        return made


def source_of(addresses: tuple[str, ...]) -> str:
    """Say where addresses are from, and what to do about it, to stand behind an error."""
    if isinstance(addresses, Addresses):
        return f"the address is from {addresses.source}"
    return (
        "that is the default address: say where a node is with --addr, PROGLOG_ADDR or a context "
        "(`proglog-trio context add`)"
    )


def failed_at(addresses: tuple[str, ...], error: Exception, code: ExitCode) -> CommandError:
    """Return the error of a command whose node, at one of these addresses, did not do what was asked.

    Of one that cannot be reached it says where the address is from.
    """
    message = str(error)
    if not any(each in message for each in addresses):
        message = f"{', '.join(addresses)}: {message}"
    return CommandError(f"{message}; {source_of(addresses)}" if code == ExitCode.UNREACHABLE else message, code)


def asked(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Return the one address, of several, that a command about one node talks to."""
    first = addresses[:1]
    return Addresses.of(first, addresses.source) if isinstance(addresses, Addresses) else first


def dialled(address: str) -> str:
    """Return the address with its port, which may be left out when it is the default."""
    return str(Address.parse(address, default_port=DEFAULT_RPC_PORT))


_SEVERAL = several(dialled, "HOST:PORT")


def _read(type_: type, tokens: Sequence[Token]) -> Addresses:
    if _SEVERAL.converter is None or isinstance(_SEVERAL.converter, str):
        raise TypeError("several() has a converter")
    source = tokens[0].source
    names = {"cli": ADDRESS_OPTION, ENVIRONMENT_SOURCE: ADDRESS_VARIABLE}
    return Addresses.of(_SEVERAL.converter(type_, tokens), names.get(source, source))


def check_addresses(_type: type, value: tuple[str, ...]) -> None:
    """Refuse no addresses, and such as nobody can dial (a validator of cyclopts)."""
    if not value:
        raise ValueError("There is no address.")
    for address in value:
        if Address.parse(address, default_port=DEFAULT_RPC_PORT).port == 0:
            raise ValueError("Nothing can be reached at port 0.")


def _check_one(type_: type, value: tuple[str, ...]) -> None:
    check_addresses(type_, value)
    if len(value) > 1 and isinstance(value, Addresses) and value.source == ADDRESS_OPTION:
        raise ValueError("One node is asked: give one address.")


_ADDRESSES = Parameter.combine(
    _SEVERAL, Parameter(name=ADDRESS_OPTION, converter=_read, env_var=ADDRESS_VARIABLE, show_default=", ".join)
)

NodeAddress = Annotated[
    tuple[str, ...],
    _ADDRESSES,
    Parameter(
        validator=_check_one,
        help="The node to talk to. Of several in the variable or the context it is the first.",
    ),
]
"""The option of every command that talks to a node."""

NodeAddresses = Annotated[
    tuple[str, ...],
    _ADDRESSES,
    Parameter(
        validator=check_addresses,
        help="The nodes to talk to: the first, or another when that one fails. Repeatable, or separated by commas; the "
        "other nodes of their cluster are found by themselves.",
    ),
]
"""The option of the commands that go on at another node."""

DEFAULT_ADDRESSES: tuple[str, ...] = (DEFAULT_NODE_ADDRESS,)
