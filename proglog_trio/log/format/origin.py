"""Origins: who gave a record its sequence.

An origin is the directory id (64 random bits made with a data directory), an epoch (how many origins this directory
had before) and 32 random bits. A log makes a new one at the first append after every opening, so nothing that brings
old bytes back (a torn tail, a restored backup, a copied directory) can give a sequence out twice: no node writes under
an old origin again.
"""

from __future__ import annotations

import random
import struct
from typing import Self

from attrs import frozen

ORIGIN_BYTES = 16
DIRECTORY_ID_BYTES = 8
LAST_EPOCH = 2**32 - 1
_LAYOUT = struct.Struct(">8sII")


@frozen(order=True)
class Origin:
    """128 bits that name one run of one data directory as the writer of records.

    Attributes:
        data: the 16 bytes, as they stand in frames: directory id, epoch (u32, big endian), 32 random bits.
    """

    data: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the origin of these 16 bytes; raises ValueError for another length."""
        if len(data) != ORIGIN_BYTES:
            raise ValueError(f"an origin has {ORIGIN_BYTES} bytes, not {len(data)}")
        return cls(bytes(data))

    @classmethod
    def make(cls, directory_id: bytes, epoch: int, rng: random.Random) -> Self:
        """Return a new origin of a directory; rng decides its last 32 bits."""
        return cls(_LAYOUT.pack(directory_id, epoch, rng.getrandbits(32)))

    @property
    def directory_id(self) -> bytes:
        """The 8 bytes that name the data directory."""
        return self.data[:DIRECTORY_ID_BYTES]

    @property
    def epoch(self) -> int:
        """How many origins the directory had before this one."""
        epoch: int = _LAYOUT.unpack(self.data)[1]
        return epoch

    def __bytes__(self) -> bytes:
        return self.data

    def __str__(self) -> str:
        return self.data.hex()
