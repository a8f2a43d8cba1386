"""What the options of commands have in common: how a size, a time, an address or a name is read, and what is refused.

A field or an argument puts them together: `Annotated[float, TIME, between(0, 300)]`.
"""

import base64
import binascii
import os
import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import attrs
from cyclopts import Parameter, Token

from proglog_trio.address import Address, StartAddress, parse_start_address
from proglog_trio.host_names import host_problem, ip_literal

ENVIRONMENT_PREFIX = "PROGLOG_"
ENVIRONMENT_SOURCE = "env"
"""What a token says of where it is from, if that is a variable."""
ARRAY_SEPARATOR = "\0"
"""Between the elements of an array in the file that may have commas and newlines: no argument and no script has one."""
DEFAULT_RPC_PORT = 8400
DEFAULT_GOSSIP_PORT = 8401
DNS_PORT = 53
LEARNT = "auto"
"""In place of the host that others are told: what other members see this node at."""
MAX_NETWORKS = 256
DEFAULT_AGENT_RPC_PORT = 7373
"""Serf's own, which its tools dial when they are told no other."""

# gossip carries names in length-prefixed msgpack tags within one datagram; a name has to leave room for the rest
_MAX_NAME_BYTES = 128
# its length is one byte before every packet
_MAX_LABEL_BYTES = 255
_MAX_SECRET_BYTES = 512
# sockaddr_un has room for 108, with a zero byte at the end
_MAX_SOCKET_PATH_BYTES = 107
_GOSSIP_KEY_BYTES = (16, 24, 32)
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


# -- numbers -----------------------------------------------------------------------------------------------------------


def parse_bytes(text: str) -> int:
    """Read a number of bytes: ``1048576``, ``64MiB``, ``1.5GiB``, ``10GB``. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kKMGT])(i?)B?|B)?", text.strip(), re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a number of bytes, such as 1048576, 64MiB or 10GB")
    from fractions import Fraction  # late: a node is seldom told a number of bytes

    number, unit, binary = match.groups()
    exponent = "kmgt".index(unit.lower()) + 1 if unit else 0
    scaled = Fraction(number) * (1024 if binary else 1000) ** exponent
    if scaled.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(scaled)


def parse_seconds(text: str) -> float:
    """Read a length of time: ``90`` (seconds), ``90s``, ``15m``, ``12h``, ``7d``, ``2w``. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", text.strip(), re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a length of time, such as 90 (seconds), 15m, 12h or 7d")
    return float(match[1]) * _SECONDS[match[2]]


def parse_whole_seconds(text: str) -> int:
    """Read a length of time as parse_seconds does. Raises ValueError, too if it is not a whole number of seconds."""
    seconds = parse_seconds(text)
    if not seconds.is_integer():
        raise ValueError(f"{text!r} is not a whole number of seconds")
    return int(seconds)


def between(lowest: float, highest: float | None = None) -> Parameter:
    """Return what refuses a number that is lower or higher; both are allowed themselves."""

    def check(_type: type, value: float | None) -> None:
        if value is None:
            return
        if value < lowest:
            raise ValueError(f"Must be at least {lowest}.")
        if highest is not None and value > highest:
            raise ValueError(f"Must be at most {highest}.")

    return Parameter(validator=check)


def within(lowest: float, highest: float, unit: str = "") -> Parameter:
    """Return what refuses a number out of a range, and names the whole range; unit: what stands behind it."""

    def check(_type: type, value: float) -> None:
        if not lowest <= value <= highest:
            raise ValueError(f"Must be from {lowest} to {highest}{unit}.")

    return Parameter(validator=check)


# -- text --------------------------------------------------------------------------------------------------------------


def check_name(_type: type, value: str | None) -> None:
    """Refuse what is no name of a node or of a cluster (a validator of cyclopts)."""
    if value is None:
        return
    if not value or not value.isprintable() or len(value.encode()) > _MAX_NAME_BYTES or value != value.strip():
        raise ValueError(f"A name is 1 to {_MAX_NAME_BYTES} bytes of printable text without spaces at its ends.")


def check_label(_type: type, value: str | None) -> None:
    """Refuse what is no label of gossip (a validator of cyclopts)."""
    if value is not None and not (value.isprintable() and 0 < len(value.encode()) <= _MAX_LABEL_BYTES):
        raise ValueError(f"A label is 1 to {_MAX_LABEL_BYTES} bytes of printable text.")


def check_host(_type: type, value: str | None) -> None:
    """Refuse what is no host (a validator of cyclopts)."""
    if value is None:
        return
    problem = host_problem(value.removeprefix("*."))
    if not value or problem is not None:
        why = f" {value!r} {problem}." if problem else ""
        raise ValueError(f"A host is a name or an IP address, without a port and without brackets.{why}")


def check_gossip_key(_type: type, value: str | None) -> None:
    """Refuse what is no gossip key, without a word of what it is (a validator of cyclopts)."""
    if value is None:
        return
    try:
        length = len(base64.b64decode(value.strip(), validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("A gossip key is 16, 24 or 32 bytes in base64; this is no base64 text.") from None
    if length not in _GOSSIP_KEY_BYTES:
        raise ValueError(f"A gossip key is 16, 24 or 32 bytes in base64; this is {length} bytes.")


def check_secret(_type: type, value: str | None) -> None:
    """Refuse what is no secret, without a word of what it is (a validator of cyclopts)."""
    if value is not None and not 0 < len(value.encode("utf-8", "surrogateescape")) <= _MAX_SECRET_BYTES:
        raise ValueError(f"A key is 1 to {_MAX_SECRET_BYTES} bytes.")


def nearest(key: str, names: Sequence[str]) -> str:
    """Return a question that offers the name that is most like a key, to stand behind an error; else nothing."""
    import difflib

    found = difflib.get_close_matches(key.replace("-", "_"), names, n=1)
    return f" Did you mean {found[0].replace('_', '-')!r}?" if found else ""


# -- addresses and lists -----------------------------------------------------------------------------------------------


def _advertised(text: str) -> Address:
    """Read ``HOST[:PORT]``; without a port it has port 0, which stands for the one that the node listens on."""
    address = Address.parse(text, default_port=0)
    if address.port == 0 and text.strip() not in (address.host, f"[{address.host}]"):
        raise ValueError(
            f"{text!r} has port 0, which nobody can dial: leave it out for the one that the node listens on"
        )
    if address.is_wildcard:
        raise ValueError(f"{text!r} is no address that others can dial: it stands for all of a machine's")
    return address


def _gossip_setting(text: str) -> tuple[str, float]:
    from proglog_trio.membership import GossipProfile

    figures = attrs.fields_dict(GossipProfile)
    name, separator, value = text.partition("=")
    known = figures.get(name.strip().replace("-", "_"))
    if not separator or known is None:
        raise ValueError(f"{text!r} is no figure of the gossip profile.{nearest(name, [*figures])}")
    number = parse_seconds(value)
    if known.type in (int, "int"):
        if number != int(number):
            raise ValueError(f"{text!r}: {name} is a whole number.")
        number = int(number)
    return known.name, number


def _tag(text: str) -> tuple[str, str]:
    name, separator, content = text.partition("=")
    if not separator or not name or not name.isprintable():
        raise ValueError(f"{text!r} is no tag: a tag is NAME=VALUE.")
    return name, content


def _converter(parse: Callable[[str], Any]) -> Callable[[type, Sequence[Token]], Any]:
    def convert(_type: type, tokens: Sequence[Token]) -> Any:  # noqa: ANN401 (cyclopts hands on whatever it is)
        return parse(tokens[0].value)

    return convert


def _one(parse: Callable[[str], Any], metavar: str) -> Parameter:
    """Return what reads a value from one text, where cyclopts would take the parts of an attrs class for options."""
    return Parameter(converter=_converter(parse), accepts_keys=False, n_tokens=1, metavar=metavar)


def several(parse: Callable[[str], Any], metavar: str, separator: str = ",") -> Parameter:
    """Return what reads a tuple of different values: an option that is repeatable, or texts separated by commas.

    Args:
        parse: reads one.
        metavar: what one is called.
        separator: what stands between two, as a regular expression.
    """

    def convert(_type: type, tokens: Sequence[Token]) -> tuple[Any, ...]:
        texts = [text.strip() for token in tokens for text in re.split(separator, token.value)]
        return tuple(dict.fromkeys(parse(text) for text in texts if text))

    return Parameter(
        converter=convert,
        accepts_keys=False,
        n_tokens=1,
        json_list=False,
        negative="",
        metavar=metavar,
        show_default=False,
    )


def _lines(parse: Callable[[str], Any], metavar: str) -> Parameter:
    """Return what reads a tuple of what may have commas: from a repeatable option, an array, or a variable's lines."""

    def convert(_type: type, tokens: Sequence[Token]) -> tuple[Any, ...]:
        # An argument, and an element of an array, may be a script of several lines.
        separators = ("\n" if token.source == ENVIRONMENT_SOURCE else ARRAY_SEPARATOR for token in tokens)
        texts = [
            text.strip() for token, each in zip(tokens, separators, strict=True) for text in token.value.split(each)
        ]
        return tuple(parse(text) for text in texts if text)

    # A variable is one text: its words are nobody's to take apart.
    return Parameter.combine(several(parse, metavar), Parameter(converter=convert, env_var_split=_whole))


def _whole(_type: object, text: str, *, delimiter: str | None = None) -> list[str]:
    del delimiter
    return [text]


def _agent_rpc_address(text: str) -> Address | Path:
    """Read ``HOST:PORT`` or ``unix:PATH``."""
    scheme, separator, path = text.strip().partition(":")
    if not separator or scheme != "unix":
        return Address.parse(text, default_port=DEFAULT_AGENT_RPC_PORT)
    if not path:
        raise ValueError(f"{text!r} has no path, write unix:/run/serf.sock")
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"{text!r} is too long: the path of a socket has {_MAX_SOCKET_PATH_BYTES} bytes at most")
    return Path(path)


def agent_rpc_text(address: Address | Path) -> str:
    """Return an address of the agent's RPC as it is written."""
    return f"unix:{address}" if isinstance(address, Path) else str(address)


def _event_handler(text: str) -> str:
    from proglog_trio.membership import EventHandler  # late: few nodes have one

    EventHandler.parse(text)
    return text


def _gossip_address(text: str) -> Address:
    return Address.parse(text, default_port=DEFAULT_GOSSIP_PORT)


def _start_address(text: str) -> StartAddress:
    return parse_start_address(text, default_port=DEFAULT_GOSSIP_PORT)


def _name_server(text: str) -> Address:
    address = Address.parse(text, default_port=DNS_PORT)
    if ip_literal(address.host) is None:
        raise ValueError(f"{text!r} is no IP address: a name server is not looked up itself")
    return address


def _network(text: str) -> IPv4Network | IPv6Network:
    from proglog_trio.membership import parse_network

    return parse_network(text)


def check_networks(_type: type, value: Sequence[object]) -> None:
    """Refuse more networks than are looked at (a validator of cyclopts)."""
    if len(value) > MAX_NETWORKS:
        raise ValueError(f"{len(value)} networks are more than {MAX_NETWORKS}.")


TIME = Parameter(converter=_converter(parse_seconds), metavar="TIME")
"""A length of time; the value is in seconds."""
WHOLE_SECONDS = Parameter(converter=_converter(parse_whole_seconds), metavar="TIME")
"""A length of time that has no fractions of a second; the value is in seconds."""
SIZE = Parameter(converter=_converter(parse_bytes), metavar="BYTES")
"""A size; the value is in bytes."""
FILE = Parameter(metavar="FILE")
NAME = Parameter(validator=check_name)
LABEL = Parameter(validator=check_label, metavar="TEXT", show_default=False)
HOST = Parameter(validator=check_host, metavar="HOST")
ADDRESS = _one(Address.parse, "HOST:PORT")
GOSSIP_ADDRESS = _one(_gossip_address, "HOST:PORT")
START_ADDRESSES = several(_start_address, "HOST:PORT|srv+NAME")
NAME_SERVERS = several(_name_server, "IP[:PORT]")
NETWORKS = Parameter.combine(several(_network, "CIDR"), Parameter(validator=check_networks))
"""Networks of IP addresses, such as 10.0.0.0/8."""
AGENT_RPC_ADDRESS = _one(_agent_rpc_address, "HOST:PORT|unix:PATH")
EVENT_HANDLERS = _lines(_event_handler, "EVENTS=SCRIPT")
"""What is run for events, as Serf's agents write it."""
ADVERTISED_ADDRESS = _one(_advertised, "HOST[:PORT]")
"""What others dial; port 0 in the value stands for the one that the node listens on."""
GOSSIP_SETTINGS = several(_gossip_setting, "NAME=VALUE")
"""Figures of the gossip profile, by the names of its fields."""
TAGS = several(_tag, "NAME=VALUE", r",(?=[^,=]+=)")
"""Tags of a member; a comma stands between two only where a name and = follow, so that a value may have one."""
# what secrets are kept in ends with a newline more often than not
GOSSIP_KEY = Parameter.combine(_one(str.strip, "KEY"), Parameter(validator=check_gossip_key, show_default=False))
SECRET = Parameter.combine(_one(str.strip, "KEY"), Parameter(validator=check_secret, show_default=False))
FLAG = Parameter(negative="", show_default=False)
"""A bool that is given or not: no ``--no-…``, no value, no default to show."""
SWITCH = Parameter(show_default=lambda value: "on" if value else "off")
"""A bool that has a ``--no-…``, for what is on unless it is switched off."""
NO_DEFAULT = Parameter(show_default=False)
"""Nothing is shown as the default, where "None" would say nothing."""


def flag(meaning: str) -> Parameter:
    """Return FLAG with its help, for an argument: only fields have docstrings, where cyclopts finds theirs."""
    return Parameter.combine(FLAG, Parameter(help=meaning))


def shown_as(default: str) -> Parameter:
    """Return what shows a default in other words than its value's."""
    return Parameter(show_default=lambda _value: default)
