"""What arrives for Serf and is not worked on, by reason."""

from __future__ import annotations

from attrs import define


@define
class Refused:
    """What arrived and was dropped, by reason."""

    malformed: int = 0
    too_large: int = 0
