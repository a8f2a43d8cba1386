import json
import shutil
from pathlib import Path

import pytest

from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.log.batch import Batch
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.record import Record
from proglog_trio.log.opening import open_log
from tests.cli.test_app import run

RECORDS = [Record(b"one"), Record(b"two", b"key"), Record(b"\xff")]


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    """A data directory with three batches of three records."""
    data_dir = tmp_path / "data"
    async with open_log(LogConfig(data_dir)) as log:
        for _ in range(3):
            await log.append(Batch.of(RECORDS))
    return data_dir


def flip_a_byte_of_the_second_frame(directory: Path) -> None:
    (store,) = (directory / "log").glob("*.store")
    data = bytearray(store.read_bytes())
    place = data.index(b"two", data.index(b"two") + 1)
    data[place] ^= 1
    store.write_bytes(data)


async def test_verify_finds_nothing(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("log", "verify", str(directory)) == ExitCode.DONE
    output, errors = capfd.readouterr()
    assert output.startswith("9 records in 3 frames and 1 segments, offsets 0 to 8, ")
    assert output.endswith(" bytes: no damage, no warnings\n")
    assert errors == ""


async def test_verify_as_json(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("log", "verify", str(directory), "--json") == ExitCode.DONE
    summary = json.loads(capfd.readouterr().out)["summary"]
    assert (summary["records"], summary["damage"], summary["next_offset"]) == (9, 0, 9)
    assert list(summary["origins"].values()) == [{"low": 0, "next": 9, "gaps": [], "missing": []}]


async def test_verify_names_damage(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flip_a_byte_of_the_second_frame(directory)
    assert run("log", "verify", str(directory)) == ExitCode.FAILED
    *findings, summary = capfd.readouterr().out.splitlines()
    assert findings[0].startswith("damage: 00000000000000000000.store at byte ")
    assert "offset 3" in findings[0]
    assert summary.startswith("6 records in 2 frames")
    assert run("log", "verify", str(directory), "--json") == ExitCode.FAILED
    first = json.loads(capfd.readouterr().out.splitlines()[0])
    assert (first["severity"], first["offset"]) == ("damage", 3)


async def test_dump_lists_frames(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("log", "dump", str(directory)) == ExitCode.DONE
    segment, *frames = capfd.readouterr().out.splitlines()
    assert segment.startswith(f"segment {directory}/log/00000000000000000000.store: from offset 0")
    assert ["offsets 0 to 2" in frames[0], "offsets 3 to 5" in frames[1], "offsets 6 to 8" in frames[2]] == [True] * 3
    assert "closed at offset 9" in frames[3]


async def test_dump_as_json_with_records_of_a_range(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["--json", "--records", "--from-offset", "4", "--to-offset", "6"]
    assert run("log", "dump", str(directory), *arguments) == ExitCode.DONE
    segment, frame, *records = map(json.loads, capfd.readouterr().out.splitlines())
    assert (segment["kind"], segment["base_offset"]) == ("segment", 0)
    assert (frame["kind"], frame["base_offset"], frame["count"]) == ("records", 3, 3)
    assert [(record["kind"], record["offset"]) for record in records] == [("record", 4), ("record", 5)]
    assert (records[0]["key"], records[0]["value"], records[1]["value_base64"]) == ("key", "two", "/w==")


async def test_dump_shows_damage_in_its_place(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flip_a_byte_of_the_second_frame(directory)
    assert run("log", "dump", str(directory)) == ExitCode.FAILED
    lines = capfd.readouterr().out.splitlines()
    assert lines[2].startswith("  damage at offset 3: ")
    assert "offsets 6 to 8" in lines[3]


@pytest.mark.parametrize("command", ["verify", "dump"])
def test_directory_without_a_log(command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("log", command, str(tmp_path)) == ExitCode.USAGE
    output, errors = capfd.readouterr()
    assert output == ""
    assert str(tmp_path) in errors
    assert len(errors.splitlines()) == 1


def copy_of(directory: Path) -> Path:
    return Path(shutil.copytree(directory, directory.parent / "copy"))


async def test_verify_against_a_copy(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy = copy_of(directory)
    assert run("log", "verify", str(directory), "--against", str(copy)) == ExitCode.DONE
    comparison, summary = capfd.readouterr().out.splitlines()
    assert comparison == (
        f"{directory} and {copy}: 1 origins in both, 3 frames are the same, no frames differ, "
        "0 records only in the first, 0 only in the second, no holes"
    )
    assert summary.endswith("no damage, no warnings")


async def test_verify_against_one_that_has_more(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy = copy_of(directory)
    async with open_log(LogConfig(directory)) as log:
        appended = await log.append(Batch.of(RECORDS))
    assert run("log", "verify", str(copy), "--against", str(directory)) == ExitCode.DONE
    found, comparison, _ = capfd.readouterr().out.splitlines()
    assert found == (
        f"only one: origin {appended.origin}: sequences 0 to 2 are in {directory}, not in {copy}: it has not got so far"
    )
    assert "0 records only in the first, 3 only in the second" in comparison


async def test_verify_against_damage_and_several(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy = copy_of(directory)
    third = Path(shutil.copytree(directory, directory.parent / "third"))
    flip_a_byte_of_the_second_frame(copy)
    arguments = ["--against", str(copy), str(third), "--json"]
    assert run("log", "verify", str(directory), *arguments) == ExitCode.FAILED
    *found, summary = map(json.loads, capfd.readouterr().out.splitlines())
    assert summary["summary"]["damage"] == 0, "the directory itself is sound"
    only = [each["only_one"] for each in found if "only_one" in each]
    assert [(each["held_by"], each["lacked_by"]) for each in only] == [
        (str(directory), str(copy)),
        (str(third), str(copy)),
    ]
    assert {(each["from_sequence"], each["to_sequence"], each["reason"]) for each in only} == {(3, 6, "hole")}
    compared = [each["comparison"] for each in found if "comparison" in each]
    assert [(each["first"], each["second"]) for each in compared] == [
        (str(directory), str(copy)),
        (str(directory), str(third)),
        (str(copy), str(third)),
    ]
    assert [each["holes"] for each in compared] == [1, 0, 1]
    assert compared[0]["damaged_places"] == [0, 1]


async def test_verify_against_what_is_no_log_or_another_cluster(
    directory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("log", "verify", str(directory), "--against", str(tmp_path / "none")) == ExitCode.USAGE
    assert str(tmp_path / "none") in capfd.readouterr().err
    other = tmp_path / "other"
    async with open_log(LogConfig(other, cluster_name="another")) as log:
        await log.append(Batch.of(RECORDS))
    assert run("log", "verify", str(directory), "--against", str(other)) == ExitCode.USAGE
    assert "belongs to cluster 'proglog'" in capfd.readouterr().err
