"""Which data directories there are, or were: one that is away may hold what no other has.

What no connected peer has is missing *at present*, and not for ever, while a directory that may hold it is away. So a
node keeps, over restarts, which directories it has met or heard of, and which of them are not waited for any more:
their nodes were told to leave by another member, or have been away for so long that the membership forgot them. What
several nodes say of one directory is ordered by a number that each change raises; where it is equal, the directory
counts as there, the safe side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgpack
from attrs import Factory, define, evolve

from proglog_trio.errors import FormatError
from proglog_trio.log.format.checksum import CHECKSUM_BYTES, crc32c
from proglog_trio.replication.messages import HIGHEST_CHANGE, KnownDirectory, directory_of

MAX_DIRECTORIES = 4096


@define(repr=False)
class Directories:
    """The directories that a node knows, but for its own.

    Attributes:
        own: the node's own directory id.
        on_change: called with the ids whose entries have changed: they are to be kept, and told to others.
    """

    own: bytes
    on_change: Callable[[list[bytes]], None] = lambda _ids: None
    # By id; never this node's own. Entries are replaced by those of a greater order only. Those that are waited for are
    # never dropped: what they may hold would become a gap.
    _known: dict[bytes, KnownDirectory] = Factory(dict)
    # Those of them that are not waited for, which make room: looked for among all, each of thousands of news would cost
    # as much as all that is known.
    _not_awaited: dict[bytes, None] = Factory(
        lambda self: {each.directory_id: None for each in self._known.values() if each.is_gone}, takes_self=True
    )

    def __iter__(self) -> Iterator[KnownDirectory]:
        return iter(self._known.values())

    def get(self, directory_id: bytes) -> KnownDirectory | None:
        """Return what is known of a directory."""
        return self._known.get(directory_id)

    def awaited(self) -> list[KnownDirectory]:
        """Return those that may turn up, or are there."""
        return [each for each in self._known.values() if not each.is_gone]

    def met(self, directory_id: bytes, node_name: str) -> None:
        """Wait for a directory, whose node has said itself that it uses it."""
        known = self._known.get(directory_id)
        if known is None:
            self._put([KnownDirectory(directory_id, node_name)])
        elif known.is_gone or known.node_name != node_name:
            self._put([evolve(known, node_name=node_name, change=known.change + 1, is_gone=False)])

    def gone(self, node_name: str) -> None:
        """Wait for the directories of a node no more."""
        self._put(
            [
                evolve(known, change=known.change + 1, is_gone=True)
                for known in self._known.values()
                if known.node_name == node_name and not known.is_gone
            ]
        )

    def heard(self, said: Iterable[KnownDirectory]) -> None:
        """Replace what is known by what another node says, where that is of a greater order."""
        news = []
        for each in said:
            known = self._known.get(each.directory_id)
            if each.directory_id != self.own and (known is None or each.order > known.order):
                news.append(each)
        self._put(news)

    def _put(self, entries: list[KnownDirectory]) -> None:
        changed = []
        for entry in entries:
            if entry.directory_id == self.own or entry.change > HIGHEST_CHANGE:
                continue
            if entry.directory_id not in self._known and len(self._known) >= MAX_DIRECTORIES:
                # Those that are not waited for make room; of the others none may be forgotten.
                if not self._not_awaited:
                    continue
                dropped = next(iter(self._not_awaited))
                del self._known[dropped], self._not_awaited[dropped]
            self._known[entry.directory_id] = entry
            if entry.is_gone:
                self._not_awaited[entry.directory_id] = None
            else:
                self._not_awaited.pop(entry.directory_id, None)
            changed.append(entry.directory_id)
        if changed:
            self.on_change(changed)

    # -- as bytes ------------------------------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """Return what is kept on disk."""
        rows = [[each.directory_id, each.node_name, each.change, each.is_gone] for each in self._known.values()]
        data: bytes = msgpack.packb({"version": 1, "directories": rows}, use_bin_type=True)
        return data + crc32c(data).to_bytes(CHECKSUM_BYTES, "big")


def decode_directories(data: bytes) -> list[KnownDirectory]:
    """Return what Directories.encode gave; raises FormatError where it is damaged."""
    body, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if len(data) <= CHECKSUM_BYTES or crc32c(body) != int.from_bytes(checksum, "big"):
        raise FormatError("the list of known directories does not match its CRC")
    try:
        rows = msgpack.unpackb(body, raw=False)["directories"]
        return [directory_of(*row[:4]) for row in rows[:MAX_DIRECTORIES]]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise FormatError(f"the list of known directories is not what its CRC promises: {error!r}") from None
