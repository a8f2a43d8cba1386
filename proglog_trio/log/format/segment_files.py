"""The names of a segment's files."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

STORE_SUFFIX = ".store"
INDEX_SUFFIX = ".index"


@frozen
class SegmentFiles:
    """Where the files of one segment are."""

    directory: Path
    base_offset: int

    @property
    def store(self) -> Path:
        """The file with the frames."""
        return self.directory / f"{self.base_offset:020d}{STORE_SUFFIX}"

    @property
    def index(self) -> Path:
        """The file with the index."""
        return self.directory / f"{self.base_offset:020d}{INDEX_SUFFIX}"
