"""Network addresses as they are written in flags, files and the environment: ``host:port``, or a name of a service."""

import ipaddress
import re

from attrs import frozen

from proglog_trio.host_names import described, host_problem, ip_literal

SERVICE_PREFIX = "srv+"
_SERVICE = re.compile(r"_[^.:]+\._(?:tcp|udp)\.", re.ASCII | re.IGNORECASE)


@frozen
class Address:
    """A host and a TCP or UDP port.

    ``host`` is a name, an IPv4 literal, or an IPv6 literal without its brackets; ``port`` is 0 to 65535, where 0
    stands for "any free port" in an address to listen on.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, default_port: int | None = None) -> "Address":
        """Read ``host:port`` or ``[ipv6]:port``.

        Without a port, ``default_port`` is taken where there is one. Raises ValueError saying what is wrong: a name
        that cannot be encoded for a lookup, or an IPv6 address with a zone, is no address either.
        """
        text = text.strip()
        _check_form(text)
        host, separator, port_text = text.rpartition(":")
        if not separator or text.endswith("]"):
            host, port_text = text, ""
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            _check_ipv6(host, text)
        elif ":" in host:
            without_port = f"[{text}]" if default_port is None else f"[{text}] or [{text}]"
            raise ValueError(f"{text!r} has an IPv6 address without brackets, write {without_port}:port")
        if not host:
            raise ValueError(f"{text!r} has no host, write host:port")
        problem = host_problem(host)
        if problem is not None:
            raise ValueError(f"{text!r} cannot be looked up: its host {problem}")
        if not separator or text.endswith("]"):
            if default_port is None:
                raise ValueError(f"{text!r} has no port, write {text}:port")
            return cls(host, default_port)
        if not (port_text.isascii() and port_text.isdigit()) or len(port_text) > 5 or int(port_text) > 65535:
            raise ValueError(f"{text!r} has no valid port: {port_text!r} is not a number from 0 to 65535")
        return cls(host, int(port_text))

    @property
    def is_wildcard(self) -> bool:
        """Whether the host stands for every address of the machine, which is nothing that others can dial."""
        literal = ip_literal(self.host)
        return literal is not None and literal.is_unspecified

    @property
    def is_loopback(self) -> bool:
        """Whether the host is, by how it is written, reachable from this machine alone.

        Names other than ``localhost`` (and those under it, RFC 6761 section 6.3) are not looked up: they are taken for
        reachable.
        """
        literal = ip_literal(self.host)
        if literal is not None:
            return literal.is_loopback
        name = self.host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class ServiceName:
    """A name whose SRV records (RFC 2782) say where a service is: hosts and ports.

    It is written ``srv+name``, or as it is where it begins like one (``_gossip._tcp.example.org``), without a port.
    """

    name: str

    @classmethod
    def parse(cls, text: str) -> "ServiceName":
        """Read ``srv+_gossip._tcp.example.org``, with or without ``srv+``. Raises ValueError saying what is wrong."""
        name = text.strip().removeprefix(SERVICE_PREFIX)
        host, separator, port = name.rpartition(":")
        if separator and (port.isdigit() or not port):
            raise ValueError(f"{text!r} has a port, which the SRV records of a name say: write {SERVICE_PREFIX}{host}")
        _check_form(name)
        problem = "has an IP address, and no name" if ip_literal(name) is not None else host_problem(name)
        if not name or problem is not None:
            raise ValueError(f"{text!r} is no name with SRV records: it {problem or 'is empty'}")
        return cls(name)

    def __str__(self) -> str:
        return f"{SERVICE_PREFIX}{self.name}"


StartAddress = Address | ServiceName
"""Where to look for members: at an address, or at all that the SRV records of a name say."""


def parse_start_address(text: str, *, default_port: int | None = None) -> StartAddress:
    """Read a name of a service, if the text looks like one, or an address; raises ValueError as they do."""
    is_service = text.strip().startswith(SERVICE_PREFIX) or _SERVICE.match(text.strip()) is not None
    return ServiceName.parse(text) if is_service else Address.parse(text, default_port=default_port)


def _check_form(text: str) -> None:
    """Refuse what people write who think of a URL, a list or a shell; each named as what it is."""
    if "://" in text:
        scheme = text.partition("://")[0]
        raise ValueError(f"{text!r} is a URL: leave out '{scheme}://' and what follows the port, write host:port")
    if any(character in "\"'\u201c\u201d\u2018\u2019" for character in text):
        raise ValueError(f"{text!r} has quotation marks in it: write host:port, and several separated by commas")
    for separator, name in ((";", "a semicolon"), (",", "a comma")):
        if separator in text:
            raise ValueError(f"{text!r} has {name} in it: it is not one address; several are separated by commas")
    if any(character.isspace() for character in text):
        space = next(character for character in text if character.isspace())
        named = "a space" if space == " " else described(space)
        raise ValueError(f"{text!r} has {named} in it: it is not one address; several are separated by commas")
    if "@" in text:
        raise ValueError(f"{text!r} has a user's name before '@', which is not asked for: write host:port")
    if "/" in text:
        raise ValueError(f"{text!r} has '/' in it: it is no URL and no network, write host:port")


def _check_ipv6(host: str, text: str) -> None:
    if not isinstance(ip_literal(host), ipaddress.IPv6Address):
        raise ValueError(f"{text!r} has no IPv6 address between its brackets")
