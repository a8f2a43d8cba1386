from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.self_description.tags_file import (
    MAX_TAGS_FILE_BYTES,
    TagsFileError,
    load_tags_file,
    save_tags_file,
)


@given(changes=st.dictionaries(st.text(min_size=1), st.none() | st.text()))
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, str | None]) -> None:
    path = tmp_path_factory.mktemp("tags") / "tags"
    save_tags_file(path, changes)
    assert load_tags_file(path) == changes
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["tags"]


@given(data=st.binary(max_size=200) | st.text(alphabet='{}[]":,nul0 ').map(str.encode))
def test_bytes_are_tags_or_an_error_that_names_the_file(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("tags") / "tags"
    path.write_bytes(data)
    problem = ""
    try:
        changes = load_tags_file(path)
    except TagsFileError as error:
        changes, problem = {}, str(error)
    assert not problem or str(path) in problem
    assert all(name and (content is None or isinstance(content, str)) for name, content in changes.items())


def test_no_file_is_no_change(tmp_path: Path) -> None:
    assert load_tags_file(tmp_path / "tags") == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nonsense", "it is no JSON"),
        ("[" * 50_000, "it is no JSON"),
        ("[]", "it is no JSON object"),
        ('{"zone": 1}', "what it has for 'zone' is neither a text nor null"),
        ('{"": "a"}', "what it has for ''"),
        (r'{"a": "\ud800"}', "'a', or what it has for it, is half of a character"),
        (r'{"\udbff": null}', "is half of a character"),
        ('{"a": "' + " " * MAX_TAGS_FILE_BYTES + '"}', "is larger than"),
    ],
)
def test_what_holds_no_tags(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "tags"
    path.write_text(text)
    with pytest.raises(TagsFileError, match=problem) as error:
        load_tags_file(path)
    assert str(path) in str(error.value)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    directory = tmp_path / "tags"
    directory.mkdir()
    with pytest.raises(TagsFileError, match="cannot be read: Is a directory"):
        load_tags_file(directory)
    with pytest.raises(TagsFileError, match=r"cannot be written to .*tags: Is a directory"):
        save_tags_file(directory, {})
    with pytest.raises(TagsFileError, match="cannot be written to"):
        save_tags_file(tmp_path / "missing" / "tags", {})
    assert [file.name for file in tmp_path.iterdir()] == ["tags"]
