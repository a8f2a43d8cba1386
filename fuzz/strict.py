"""Error boundaries that catch nothing: while inputs are tried out, every mistake is to be seen."""

from __future__ import annotations

from attrs import define

from proglog_trio.internal_errors import InternalErrors, Where


@define(eq=False)
class Strict(InternalErrors):
    """Raises again what a boundary catches."""

    def note(self, where: Where, error: Exception, **context: object) -> None:
        """Raise the error."""
        error.add_note(f"caught by the boundary {where.value} {context or ''}")
        raise error
