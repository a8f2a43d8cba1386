"""The file that keeps what was changed of a member's tags while it ran: a JSON object, by the tags' names.

Each value is the tag's, or null for a tag that was deleted although the member is given it when it starts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from proglog_trio.errors import ProglogError
from proglog_trio.membership.whole_file import write_whole_file

MAX_TAGS_FILE_BYTES = 64 * 1024
"""Tags take 512 bytes; in JSON and with the names of those that were deleted they are never so many times that."""


class TagsFileError(ProglogError):
    """A file of tags that cannot be read or written, or holds no tags. The message names it."""


def load_tags_file(path: Path) -> dict[str, str | None]:
    """Return what a file says was changed, by the tags' names, None for one that was deleted; nothing without a file.

    Blocks.

    Raises:
        TagsFileError: it cannot be read, or is not what save_tags_file writes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TAGS_FILE_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise TagsFileError(f"the tags in {path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_TAGS_FILE_BYTES:
        raise TagsFileError(f"{path} is larger than {MAX_TAGS_FILE_BYTES} bytes: it holds no tags")
    try:
        changes = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TagsFileError(f"{path} holds no tags: it is no JSON ({error})") from None
    if not isinstance(changes, dict):
        raise TagsFileError(f"{path} holds no tags: it is no JSON object")
    for name, content in changes.items():
        if not name or not (content is None or isinstance(content, str)):
            raise TagsFileError(f"{path} holds no tags: what it has for {name!r} is neither a text nor null")
        if not (_is_text(name) and _is_text(content or "")):
            raise TagsFileError(f"{path} holds no tags: {name!r}, or what it has for it, is half of a character")
    return changes


def _is_text(text: str) -> bool:
    """Tell whether a text can be told: JSON can name halves of characters, and bytes that are no text are allowed."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def save_tags_file(path: Path, changes: Mapping[str, str | None]) -> None:
    """Write down what was changed, whole or not at all; it is on disk when this returns. Blocks.

    Raises:
        TagsFileError: it cannot be written; the message says why.
    """
    try:
        write_whole_file(path, json.dumps(dict(sorted(changes.items())), indent=2) + "\n")
    except OSError as error:
        raise TagsFileError(f"the tags cannot be written to {path}: {error.strerror}") from None
