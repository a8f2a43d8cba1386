"""attrs' ``define`` and ``frozen``, for the classes of this package that hold data.

They do what those of attrs do. Only ``repr`` is here once for all of them, where attrs writes and compiles one for
each: with 300 classes that is a tenth of the time that a node takes to start, for texts that hardly anybody reads.
"""

from __future__ import annotations

from collections.abc import Callable
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    # what type checkers know without being told how
    from attrs import define as define
    from attrs import frozen as frozen
else:

    def define(cls: type | None = None, **options: Any) -> Any:  # noqa: ANN401 (as attrs has it)
        """Make an attrs class; see attrs.define."""
        return _made(attrs.define, cls, options)

    def frozen(cls: type | None = None, **options: Any) -> Any:  # noqa: ANN401 (as attrs has it)
        """Make an attrs class whose instances do not change; see attrs.frozen."""
        return _made(attrs.frozen, cls, options)


def _made(make: Callable[..., Any], cls: type | None, options: dict[str, Any]) -> Any:  # noqa: ANN401 (as attrs has it)
    if cls is None:
        return lambda decorated: _made(make, decorated, options)
    if options.get("repr", True) and "__repr__" not in cls.__dict__:
        cls.__repr__ = _repr  # type: ignore[assignment]  # of every attrs class
    return make(cls, **{**options, "repr": False})


@recursive_repr("...")
def _repr(instance: attrs.AttrsInstance) -> str:
    """Return what attrs would have the class's ``repr`` return."""
    kind = type(instance)
    parts = []
    for attribute in attrs.fields(kind):
        if attribute.repr is not False:
            show = attribute.repr if callable(attribute.repr) else repr
            parts.append(f"{attribute.name}={show(getattr(instance, attribute.name, attrs.NOTHING))}")
    return f"{kind.__qualname__.rsplit('>.', 1)[-1]}({', '.join(parts)})"
