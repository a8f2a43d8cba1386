from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from proglog_trio import data


def made(define: Any, **options: Any) -> tuple[object, ...]:
    """Make instances of classes of all kinds that this package has."""

    @define(**options)
    class Plain:
        first: int
        second: str = "text"

    @define(**options)
    class Deeper(Plain):
        _hidden: object = attrs.field(default=None, repr=False)
        _private: object = None
        short: bytes = attrs.field(default=b"long", repr=lambda value: f"{len(value)} bytes")
        missing: object = attrs.field(init=False)

    @define(**options)
    class Own:
        first: int = 1

        def __repr__(self) -> str:
            return "own"

    @define(**{**options, "repr": False})
    class Inherits(Plain):
        pass

    classes: tuple[Callable[..., object], ...] = (Plain, Deeper, Own, Inherits)
    plain, deeper, own, inherits = classes
    return plain(1), deeper(2, private=plain(3)), own(), inherits(4)


@pytest.mark.parametrize("options", [{}, {"kw_only": False}, {"slots": False}, {"eq": False}])
@pytest.mark.parametrize("name", ["define", "frozen"])
def test_repr_is_as_of_attrs(name: str, options: dict[str, Any]) -> None:
    ours = [repr(each) for each in made(getattr(data, name), **options)]
    assert ours == [repr(each) for each in made(getattr(attrs, name), **options)]
    assert ours[:2] == ["Plain(first=1, second='text')", ours[1]]


def test_without_options_and_without_repr() -> None:
    @data.define
    class Plain:
        inside: object = None

    @data.define(repr=False)
    class Silent:
        key: str = "key"

    plain = Plain()
    plain.inside = [plain]
    assert repr(plain) == "Plain(inside=[...])"
    assert "key=" not in repr(Silent())


def test_all_else_is_as_of_attrs() -> None:
    @data.frozen(order=True)
    class Place:
        offset: int = attrs.field(validator=attrs.validators.ge(0))

    assert Place(1) == Place(1) < Place(2)
    assert hash(Place(1)) == hash(Place(1))
    assert not hasattr(Place(1), "__dict__")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Place(1).offset = 2  # type: ignore[misc]  # that is what is tested
    with pytest.raises(ValueError, match="must be"):
        Place(-1)
