"""What can stand for a host in an address, and what is wrong with what cannot."""

import ipaddress
import unicodedata

_MAX_NAME_BYTES = 253
_MAX_LABEL_BYTES = 63


def host_problem(host: str) -> str | None:
    """Return why nothing can be looked up under a host, to stand behind "it"; None: something may be.

    Args:
        host: a name, an IPv4 literal or an IPv6 literal without brackets.
    """
    if "%" in host:
        return "has a zone behind '%': other machines know it by another, give an address that needs none"
    literal = ip_literal(host)
    if literal is not None:
        if literal.version == 6 and literal.is_link_local:
            return "is link-local, which says nothing without the interface: give a global or a unique local address"
        return None
    return _foreign_character(host) or _label_problem(host)


def ip_literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a host is written as, without its zone; None: it is a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def encoded_name(name: str) -> str:
    """Return a name as it is looked up, and as it stands in certificates. Raises UnicodeError: no name is that."""
    if name.isascii():
        return name
    import idna  # late: names are seldom in other letters, and its tables take a while to load

    # as Trio does before it looks the name up
    return idna.encode(name, uts46=True).decode("ascii")


def _foreign_character(host: str) -> str | None:
    for character in host:
        if character.isascii() and not (character.isalnum() or character in "-._"):
            return f"has {character!r}, which no host name has"
        if not character.isprintable():
            return f"has {described(character)}, which no host name has"
    return None


def described(character: str) -> str:
    """Name a character that may not be seen, or look like another."""
    return f"{unicodedata.name(character, 'a character')} (U+{ord(character):04X})"


def _label_problem(host: str) -> str | None:
    try:
        name = encoded_name(host).removesuffix(".")
    except UnicodeError:
        culprit = next((each for each in host if not _can_be_encoded(each)), None)
        return f"has {described(culprit)}, which no host name has" if culprit else "cannot be encoded for a lookup"
    if not all(name.split(".")):
        return "has a dot too many"
    if max(map(len, name.split("."))) > _MAX_LABEL_BYTES or len(name) > _MAX_NAME_BYTES:
        return f"is too long: a name has {_MAX_NAME_BYTES} bytes at most, and {_MAX_LABEL_BYTES} between two dots"
    return None


def _can_be_encoded(character: str) -> bool:
    try:
        encoded_name(character)
    except UnicodeError:
        return False
    return True
