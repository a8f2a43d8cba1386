"""What a subject may be permitted to do, and who is asked for it: what access policies and their users share."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

OBJECT = "*"
"""What everything is done to."""


class Action(StrEnum):
    """What a subject may be permitted to do."""

    PRODUCE = "produce"
    CONSUME = "consume"
    REPLICATE = "replicate"
    ADMIN = "admin"


class Policy(Protocol):
    """Says who may do what."""

    def allows(self, subject: str, action: Action) -> bool:
        """Tell whether a subject may do this."""


class PermitAll:
    """The policy where none is given: every client with a certificate may do everything."""

    def allows(self, subject: str, action: Action) -> bool:
        """Tell whether a subject may do this."""
        del subject, action
        return True
