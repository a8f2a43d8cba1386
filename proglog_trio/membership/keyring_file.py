"""The file of a keyring, as serf agents keep it: a JSON array of keys in base64, the primary first."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import structlog

from proglog_trio.errors import SecurityFileError, SecurityFileNoRoom
from proglog_trio.membership.whole_file import write_whole_file
from proglog_trio.membership.wire.keyring import Keyring

MAX_BYTES = 64 * 1024

_logger = structlog.get_logger(__name__)


class KeyringFileError(SecurityFileError):
    """A keyring file that cannot be read or written, or holds no keyring. The message holds no key."""


class KeyringFileNoRoom(KeyringFileError, SecurityFileNoRoom):
    """A keyring file that cannot be written for want of room on its disk."""


def load_keyring_file(path: Path) -> Keyring:
    """Return the keyring in a file. Raises KeyringFileError."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise KeyringFileError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise KeyringFileError(f"{path} is larger than {MAX_BYTES} bytes: it is no keyring")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        _logger.warning("others than its owner can read the keyring file: chmod 600", keyring_file=str(path))
    try:
        return Keyring.load(data)
    except ValueError as error:
        raise KeyringFileError(f"{path}: {error}") from None


def save_keyring_file(path: Path, keyring: Keyring) -> None:
    """Write a keyring into a file, whole or not at all, readable for its owner alone. Raises KeyringFileError."""
    try:
        write_whole_file(path, keyring.dump())
    except OSError as error:
        kind = KeyringFileNoRoom if error.errno in (errno.ENOSPC, errno.EDQUOT) else KeyringFileError
        raise kind(f"{path} cannot be written: {error.strerror}") from None
