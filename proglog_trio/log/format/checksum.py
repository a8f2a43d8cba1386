"""CRC-32C (Castagnoli), the checksum of every byte that is stored or sent."""

from __future__ import annotations

import google_crc32c

CHECKSUM_BYTES = 4


def crc32c(data: bytes, seed: int = 0) -> int:
    """Return the CRC-32C of data, continued from a seed: a CRC, or a secret that makes this one private."""
    checksum: int = google_crc32c.extend(seed, data)
    return checksum
