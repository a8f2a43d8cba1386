from __future__ import annotations

import stat
from pathlib import Path

import pytest

from proglog_trio.membership.keyring_file import MAX_BYTES, KeyringFileError, load_keyring_file, save_keyring_file
from proglog_trio.membership.wire.keyring import Keyring

KEYS = Keyring((bytes(16), b"k" * 32))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    for keyring in (KEYS, Keyring((b"x" * 24,))):
        save_keyring_file(path, keyring)
        assert load_keyring_file(path) == keyring
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]


def test_an_agents_file_is_loaded_and_who_can_read_it_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.json"
    path.write_text('["AAAAAAAAAAAAAAAAAAAAAA==",\n "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="]')
    path.chmod(0o644)
    assert load_keyring_file(path) == KEYS
    assert "chmod 600" in caplog.text
    assert "AAAA" not in caplog.text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nonsense", "the keyring is no JSON"),
        ("{}", "no JSON array of texts"),
        ("[]", "a keyring needs a key"),
        ('["AAAAAAAAAAAAAAAAAAAAAA==", "short"]', "key 2 of the keyring"),
        ("[" + " " * MAX_BYTES + "]", "is larger than"),
    ],
)
def test_what_is_no_keyring_is_said_without_its_keys(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(KeyringFileError, match=problem) as error:
        load_keyring_file(path)
    assert "AAAA" not in str(error.value)
    assert str(path) in str(error.value)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "keys.json"
    with pytest.raises(KeyringFileError, match="cannot be read: No such file"):
        load_keyring_file(missing)
    with pytest.raises(KeyringFileError, match="cannot be written: No such file"):
        save_keyring_file(missing, KEYS)
    (tmp_path / "directory").mkdir()
    with pytest.raises(KeyringFileError, match="cannot be written: Is a directory"):
        save_keyring_file(tmp_path / "directory", KEYS)
    assert [file.name for file in tmp_path.iterdir()] == ["directory"]
