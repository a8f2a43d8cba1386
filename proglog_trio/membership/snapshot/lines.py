"""The lines of a snapshot: text, one fact each, each with a checksum of its own.

```
5d41402a snapshot {"format":1,"owner":"9f8a…","cluster":"orders"}
0cc175b9 alive {"name":"node-2","address":"10.0.0.2","port":8401,"tags":{…},"version":"010502020504","time":7,…}
92eb5ffe failed {"name":"node-3",…}
4a8a08f0 forgotten "node-4"
8277e091 clocks {"member":9,"event":3,"query":1}
1679091c lived 86400
8fa14cdd leave null
```

The words and the order of things are those of Serf's snapshot (alive, not-alive, the clocks, leave). What stands behind
the word is JSON in ASCII, so that any name stands in one line, and comes back as it was.
"""

from __future__ import annotations

import ipaddress
import json
import zlib
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from proglog_trio.membership.serf.lamport import HIGHEST_LAMPORT_TIME
from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wire.memberlist import MAX_NAME_BYTES

FORMAT = 1
MAX_LINE_BYTES = 16 * 1024
"""A longer line is damage: names and tags are 512 bytes each, of which each may take six in JSON."""
MAX_LIVED_SECONDS = 2**53
"""What JSON numbers hold without loss; 285 million years."""

_STATUSES = {"alive": MemberStatus.ALIVE, "failed": MemberStatus.FAILED, "left": MemberStatus.LEFT}
_WORDS = {status: word for word, status in _STATUSES.items()}
_CHECKSUM_DIGITS = 8
_VERSION_BYTES = 6


class LineDamaged(ValueError):
    """A line that is cut, changed, or was never one of a snapshot. The message says what is wrong, in a few words."""


@frozen
class Header:
    """Whose snapshot it is; the first line of each.

    Attributes:
        owner: the data directory of the member, or its name where it has none.
        cluster: what tells its cluster from others; None: nothing does.
        format: of the lines that follow.
    """

    owner: str
    cluster: str | None
    format: int = FORMAT


@frozen
class RememberedMember:
    """A member, as it is remembered.

    Attributes:
        name: unique in the cluster.
        address, port: where it takes gossip; the address as it was told, 4 or 16 bytes.
        tags: what it says of itself.
        status: ALIVE, FAILED or LEFT; one that is leaving is alive still.
        version: protocol and delegate versions, six bytes.
        status_time: the Lamport time of the newest intent about it.
        gone_at: when it failed or left, in seconds that the node had lived through; 0 for one that is alive.
        has_answered: it answered a probe.
    """

    name: str
    address: bytes
    port: int
    tags: Mapping[str, str]
    status: MemberStatus
    version: bytes
    status_time: int
    gone_at: int = 0
    has_answered: bool = False

    @property
    def endpoint(self) -> Endpoint:
        """Where it is."""
        return Endpoint(self.address, self.port)


@frozen
class Forgotten:
    """A member is known no more."""

    name: str


@frozen
class Clocks:
    """The Lamport clocks: what was heard of lies below."""

    member: int = 1
    event: int = 1
    query: int = 1


@frozen
class Lived:
    """For how many seconds the node has run, over all its lives."""

    seconds: int


@frozen
class HasLeft:
    """The node has left the cluster in order; nothing follows but what it heard while it stopped."""


Line = Header | RememberedMember | Forgotten | Clocks | Lived | HasLeft


def encode_line(line: Line) -> bytes:
    """Return a line, with the line break at its end."""
    word, value = _parts(line)
    text = f"{word} {json.dumps(value, separators=(',', ':'))}".encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parts(line: Line) -> tuple[str, object]:
    match line:
        case Header():
            return "snapshot", {"format": line.format, "owner": line.owner, "cluster": line.cluster}
        case RememberedMember():
            return _WORDS[line.status], {
                "name": line.name,
                "address": str(ipaddress.ip_address(line.address)),
                "port": line.port,
                "tags": dict(line.tags),
                "version": line.version.hex(),
                "time": line.status_time,
                "gone_at": line.gone_at,
                "answered": line.has_answered,
            }
        case Forgotten():
            return "forgotten", line.name
        case Clocks():
            return "clocks", {"member": line.member, "event": line.event, "query": line.query}
        case Lived():
            return "lived", line.seconds
        case HasLeft():
            return "leave", None


def decode_line(data: bytes) -> Line:
    """Return what a line says; data: without the line break.

    Raises:
        LineDamaged: it is none, or not as it was written.
    """
    if len(data) > MAX_LINE_BYTES:
        raise LineDamaged(f"it has {len(data)} bytes")
    checksum, separator, text = data[:_CHECKSUM_DIGITS], data[_CHECKSUM_DIGITS : _CHECKSUM_DIGITS + 1], data[9:]
    if separator != b" " or checksum != b"%08x" % zlib.crc32(text):
        raise LineDamaged("its checksum is wrong")
    word, _, value = text.partition(b" ")
    try:
        return _line(word.decode("ascii"), json.loads(value))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        # Whole, and not what this program writes: by another program, or by hand.
        raise LineDamaged(f"it says nothing that is understood ({type(error).__name__})") from None


def _line(word: str, value: Any) -> Line:  # noqa: ANN401 - whatever JSON there was
    if word in _STATUSES:
        return _member(_STATUSES[word], value)
    match word:
        case "snapshot":
            cluster = value["cluster"]
            return Header(
                _text(value["owner"]), None if cluster is None else _text(cluster), _number(value["format"], 2**31)
            )
        case "forgotten":
            return Forgotten(_name(value))
        case "clocks":
            highest = HIGHEST_LAMPORT_TIME
            return Clocks(*(_number(value[name], highest) for name in ("member", "event", "query")))
        case "lived":
            return Lived(_number(value, MAX_LIVED_SECONDS))
        case "leave" if value is None:
            return HasLeft()
    raise ValueError(word)


def _member(status: MemberStatus, value: Any) -> RememberedMember:  # noqa: ANN401 - whatever JSON there was
    version, answered, tags = bytes.fromhex(value["version"]), value["answered"], value["tags"]
    if len(version) != _VERSION_BYTES or not isinstance(answered, bool) or not isinstance(tags, dict):
        raise ValueError("version, answered or tags")
    return RememberedMember(
        name=_name(value["name"]),
        address=ipaddress.ip_address(_text(value["address"])).packed,
        port=_number(value["port"], 65_535),
        tags={_text(tag): _text(text) for tag, text in tags.items()},
        status=status,
        version=version,
        status_time=_number(value["time"], HIGHEST_LAMPORT_TIME),
        gone_at=_number(value["gone_at"], MAX_LIVED_SECONDS),
        has_answered=answered,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _name(value: object) -> str:
    name = _text(value)
    # What stands for bytes that are no UTF-8 is one byte of the name.
    if not 0 < len(name.encode("utf-8", "surrogateescape")) <= MAX_NAME_BYTES:
        raise ValueError("name")
    return name


def _number(value: object, highest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= highest:
        raise ValueError("number")
    return value
