"""Text from outside, for people: no name that somebody chose moves a terminal's cursor, or begins a line of its own."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Return a text on one line, with what is no printable character as Python escapes it: ``\x1b``, ``\n``."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
