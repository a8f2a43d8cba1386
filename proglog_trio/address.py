"""Network addresses as they are written in flags, files and the environment: ``host:port``."""

import ipaddress

from attrs import frozen


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

        Without a port, ``default_port`` is taken where there is one. Raises ValueError saying what is wrong.
        """
        host, separator, port_text = text.rpartition(":")
        if not separator or text.endswith("]"):
            host, port_text = text, ""
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            _check_ipv6(host, text)
        elif ":" in host:
            raise ValueError(f"{text!r} has an IPv6 address without brackets, write [{text}]:port")
        if not host:
            raise ValueError(f"{text!r} has no host, write host:port")
        if any(character.isspace() or character in "/@" for character in host):
            raise ValueError(f"{text!r} has no host name before its port, write host:port")
        if not separator or text.endswith("]"):
            if default_port is None:
                raise ValueError(f"{text!r} has no port, write {text}:port")
            return cls(host, default_port)
        if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > 65535:
            raise ValueError(f"{text!r} has no valid port: {port_text!r} is not a number from 0 to 65535")
        return cls(host, int(port_text))

    @property
    def is_wildcard(self) -> bool:
        """Whether the host stands for every address of the machine, which is nothing that others can dial."""
        literal = _literal(self.host)
        return literal is not None and literal.is_unspecified

    @property
    def is_loopback(self) -> bool:
        """Whether the host is, by how it is written, reachable from this machine alone.

        Names other than ``localhost`` (and those under it, RFC 6761 section 6.3) are not looked up: they are taken for
        reachable.
        """
        literal = _literal(self.host)
        if literal is not None:
            return literal.is_loopback
        name = self.host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _check_ipv6(host: str, text: str) -> None:
    if not isinstance(_literal(host), ipaddress.IPv6Address):
        raise ValueError(f"{text!r} has no IPv6 address between its brackets")
