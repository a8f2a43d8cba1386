import subprocess
import sys
from pathlib import Path

import pytest

from proglog_trio import __version__
from proglog_trio.cli.app import main
from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.log.inspect.verify import Verifier


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture(autouse=True)
def no_options_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROGLOG_ADDR", "PROGLOG_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nod"], 'Unknown command "nod". Did you mean "node"?'),
        (["node", "--rpc-prot", "1"], "Unknown option: --rpc-prot. Did you mean --rpc-port?"),
        (["node", "extra"], "Unexpected argument: extra."),
        (["node", "--bind-addr", "10.0.0.1:8401"], "say --insecure"),
        (["node", "--config-file", "/missing.toml"], "Configuration file /missing.toml: No such file or directory."),
        (["log", "verify"], "DIRECTORY requires an argument"),
        (["produce", "/missing"], "/missing: No such file or directory"),
        (["produce", "/"], "/: it is a directory"),
        (["produce", "--key-separator", ""], "--key-separator must not be empty"),
        (["produce", "--addr", "::1"], "without brackets"),
        (["produce", "--addr", "localhost:0"], "port 0"),
        (["produce", "--timeout", "never"], "not a length of time"),
        (["produce", "--timeout", "301"], "Must be from"),
        (["consume", "--from-offset", "-1"], "--from-offset"),
        (["consume", "--from-offset", "1", "--position", "x"], "--position"),
        (["consume", "--position", "!"], "--position"),
        (["consume", "--count", "0"], "--count"),
    ],
)
def test_asked_for_wrongly(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == ExitCode.USAGE
    output, errors = capfd.readouterr()
    assert output == ""
    assert message in errors
    assert errors.startswith("proglog-trio: ")
    assert len(errors.splitlines()) == 1


def test_key_of_the_file_that_does_not_exist(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "node.toml"
    file.write_text("rpc-prot = 1\n")
    assert run("node", "--config-file", str(file)) == ExitCode.USAGE
    expected = f"proglog-trio: Configuration file {file}: the key 'rpc-prot' is no option. Did you mean 'rpc-port'?\n"
    assert capfd.readouterr().err == expected


def test_bad_size_in_the_file_is_named_with_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "node.toml"
    file.write_text('segment-bytes = "much"\n')
    assert run("node", "--config-file", str(file)) == ExitCode.USAGE
    errors = capfd.readouterr().err
    assert "[segment-bytes]" in errors
    assert str(file) in errors


KEY = "AAECAwQFBgcICQoLDA0ODw=="


@pytest.mark.parametrize(
    "arguments",
    [
        ["node", "--encrypt", KEY.rstrip("=")],
        ["node", "--encrypt", KEY + KEY],
        ["node", f"--encript={KEY}"],
        ["node", KEY],
        ["node", f" {KEY}\n"],
        ["node", "--encrypt", KEY, KEY],
        ["node", "--encrypt", KEY, "--encrypt", KEY],
        ["keys", KEY],
        ["keys", "install", KEY, KEY],
        ["keys", "install", KEY, "-" + KEY],
        [KEY],
    ],
)
def test_keys_are_not_shown(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == ExitCode.USAGE
    errors = capfd.readouterr().err
    assert errors.startswith("proglog-trio: ")
    assert KEY.rstrip("=") not in errors


def test_a_key_that_is_none_is_named_by_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f"encrypt = '{KEY[:-1]}'\n")
    monkeypatch.setenv("PROGLOG_ENCRYPT", "c2hvcnQ=")
    what = "proglog-trio: Invalid value for --encrypt: A gossip key is 16, 24 or 32 bytes in base64; this is"
    assert run("node") == ExitCode.USAGE
    assert capfd.readouterr().err == f"{what} 5 bytes (from PROGLOG_ENCRYPT).\n"
    monkeypatch.delenv("PROGLOG_ENCRYPT")
    assert run("node", "--config-file", str(file)) == ExitCode.USAGE
    assert capfd.readouterr().err == f"{what} no base64 text (from {file}).\n"


@pytest.mark.parametrize(
    "command", [[], ["node"], ["produce"], ["consume"], ["log"], ["log", "verify"], ["log", "dump"]]
)
def test_help(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--help") == ExitCode.DONE
    output, errors = capfd.readouterr()
    assert output.startswith("Usage: proglog-trio")
    assert errors == ""


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == ExitCode.DONE
    assert capfd.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("command", "unwanted"),
    [
        (["consume", "--help"], ["proglog_trio.rpc", "proglog_trio.log", "trio", "structlog"]),
        (["produce", "--help"], ["proglog_trio.rpc", "proglog_trio.log", "trio", "structlog"]),
        (["node", "--help"], ["proglog_trio.rpc", "proglog_trio.log", "trio", "structlog"]),
        (["--version"], ["trio", "structlog", "grpclib"]),
    ],
)
def test_imports_what_it_needs(command: list[str], unwanted: list[str]) -> None:
    script = f"""
import sys
from proglog_trio.cli.app import main
try:
    main({command!r})
except SystemExit:
    print(*[name for name in {unwanted!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


def test_interrupted_while_it_reads_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_verifier: Verifier) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Verifier, "run", interrupted)
    assert run("log", "verify", str(tmp_path)) == ExitCode.INTERRUPTED
    assert capfd.readouterr() == ("", "")
