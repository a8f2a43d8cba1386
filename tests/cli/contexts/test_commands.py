import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from proglog_trio.address import Address
from proglog_trio.cli.app import main
from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.node.config import NodeConfig
from proglog_trio.node.run import RunningNode, run_node
from tests.node_process import run_command


@pytest.fixture(autouse=True)
def own_contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No contexts, in a directory of the test's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("PROGLOG_ADDR", "PROGLOG_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "proglog" / "contexts.toml"


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody listens, and nobody can begin to."""
    with closing(socket.socket()) as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


class Run:
    """Runs commands in this process."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        output, errors = self._capfd.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, output, errors


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    return Run(capfd)


def test_a_context_from_its_making_to_its_end(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("context", "list") == (
        ExitCode.DONE,
        "",
        "there is no context; commands talk to 127.0.0.1:8400; `proglog-trio context add` makes one\n",
    )
    assert run("context", "show")[0] == ExitCode.FAILED
    code, output, errors = run("context", "add", "prod", "--addr", "a.test,b.test:1", "--tls-ca-file", "ca.pem")
    assert (code, output) == (ExitCode.DONE, "")
    assert errors.startswith("prod is added\n`proglog-trio context use prod` ")
    assert run("context", "add", "local", "--addr", "127.0.0.1", "--use")[2] == "local is added\nlocal is in use\n"
    assert run("context", "list")[1] == "* local  127.0.0.1:8400\n  prod   a.test:8400, b.test:1\n"
    assert run("context", "use", "prod") == (ExitCode.DONE, "", "prod is in use\n")
    shown = {
        "name": "prod",
        "in_use": True,
        "addresses": ["a.test:8400", "b.test:1"],
        "tls_ca_file": str(tmp_path / "ca.pem"),
    }
    assert json.loads(run("context", "show", "--json")[1]) == shown
    assert json.loads(run("context", "list", "--json")[1])[1] == shown
    assert run("context", "show", "local")[1].splitlines()[1].split() == ["in-use", "no"]
    monkeypatch.setenv("PROGLOG_CONTEXT", "local")
    assert run("context", "show")[1].splitlines()[0].split() == ["name", "local"]
    assert run("context", "use", "prod")[2] == (
        "prod is in use\nPROGLOG_CONTEXT is set in this shell and comes before it\n"
    )
    assert run("context", "remove", "prod")[2] == (
        "prod is removed\nit was in use: commands talk to 127.0.0.1:8400 until another is used\n"
    )
    assert run("context", "remove", "local") == (ExitCode.DONE, "", "local is removed\n")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["add", "a"], "--addr requires an argument"),
        (["add", "a", "--addr", ""], "There is no address."),
        (["add", "a", "--addr", "x:0"], "Nothing can be reached at port 0."),
        (["add", "a", "--addr", "x", "--tls-key-file", "k"], "go together"),
        (["add", " a", "--addr", "x"], "A name is"),
        (["add", "there", "--addr", "x"], "--replace has it replaced"),
        (["use", "nothing"], "there is no context 'nothing'; there are: there"),
        (["remove", "nothing"], "there is no context 'nothing'; there are: there"),
        (["show", "nothing"], "there is no context 'nothing'; there are: there"),
    ],
)
def test_asked_for_wrongly(run: Run, own_contexts: Path, arguments: list[str], problem: str) -> None:
    run("context", "add", "there", "--addr", "x")
    before = own_contexts.read_bytes()
    code, output, errors = run("context", *arguments)
    assert (code, output) == (ExitCode.USAGE, "")
    assert problem in errors
    assert own_contexts.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "variables", "asked", "source"),
    [
        # each with all that comes after it
        (["--addr", "127.0.0.1:1"], {"ADDR": "127.0.0.1:3", "CONTEXT": "four"}, 1, "--addr"),
        (["--context", "two"], {"ADDR": "127.0.0.1:3", "CONTEXT": "four"}, 2, "the context 'two' (--context)"),
        ([], {"ADDR": "127.0.0.1:3,127.0.0.1:6", "CONTEXT": "four"}, 3, "PROGLOG_ADDR"),
        ([], {"CONTEXT": "four"}, 4, "the context 'four' (PROGLOG_CONTEXT)"),
        ([], {}, 5, "the context 'five' (which is in use)"),
        # --addr beats --context, whose other settings stay
        (["--context", "two", "--addr", "127.0.0.1:1"], {}, 1, "--addr"),
    ],
)
def test_what_says_where_a_node_is(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    variables: dict[str, str],
    asked: int,
    source: str,
) -> None:
    for number, name in enumerate(("two", "four", "five")):
        run("context", "add", name, "--addr", f"127.0.0.1:{(2, 4, 5)[number]},127.0.0.1:7")
    run("context", "use", "five")
    for name, value in variables.items():
        monkeypatch.setenv(f"PROGLOG_{name}", value)
    asked_at: list[tuple[str, ...]] = []

    def note(found: tuple[str, ...]) -> tuple[str, ...]:
        asked_at.append(found)
        return found[:1]

    monkeypatch.setattr("proglog_trio.cli.node_options.asked", note)
    monkeypatch.setattr("proglog_trio.node.log_output.configure_log_output", lambda *_: None)
    run("members", "--timeout", "0.1", *options)
    (found,) = asked_at
    assert found[0] == f"127.0.0.1:{asked}"
    assert getattr(found, "source", None) == source


def test_settings_give_way_to_options_for_them_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("context", "add", "prod", "--addr", "127.0.0.1:1", "--tls-ca-file", "/nowhere/of-prod.pem", "--use")
    assert "/nowhere/of-prod.pem cannot be read" in run("members")[2]
    assert "/nowhere/other.pem cannot be read" in run("members", "--tls-ca-file", "/nowhere/other.pem")[2]
    monkeypatch.setenv("PROGLOG_TLS_CA_FILE", "/nowhere/variable.pem")
    assert "/nowhere/variable.pem cannot be read" in run("members")[2]
    # what was typed comes before the whole environment
    assert "/nowhere/of-prod.pem cannot be read" in run("members", "--context", "prod")[2]
    monkeypatch.delenv("PROGLOG_TLS_CA_FILE")
    # the context in use is for its own addresses; --context was asked for
    assert "cannot connect" in run("members", "--addr", "127.0.0.1:1", "--timeout", "0.1")[2]
    assert "/nowhere/of-prod.pem" in run("members", "--addr", "127.0.0.1:1", "--context", "prod")[2]


def test_a_context_that_is_none(run: Run, own_contexts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("status", "--context", "x") == (
        ExitCode.USAGE,
        "",
        "proglog-trio: --context: there is no context 'x'; there is none; `proglog-trio context add` makes one.\n",
    )
    run("context", "add", "there", "--addr", "x", "--use")
    own_contexts.write_text(own_contexts.read_text() + "x = 1\n")
    code, _, errors = run("status")
    assert code == ExitCode.USAGE
    assert f"{own_contexts}: line 6: the key 'x' is unknown" in errors
    assert errors.endswith("With --addr none is needed.\n")
    monkeypatch.setenv("PROGLOG_CONTEXT", "there")
    assert run("status")[2].startswith("proglog-trio: PROGLOG_CONTEXT: ")


async def test_commands_talk_to_the_context_in_use(tmp_path: Path, nursery: trio.Nursery, nobody: str) -> None:
    config = NodeConfig(data_dir=tmp_path / "data", rpc_port=0, bind_addr=Address("127.0.0.1", 0))
    node: RunningNode = await nursery.start(run_node, config)
    address = str(node.rpc_address)

    async def run(*arguments: str, stdin: bytes = b"", **variables: str) -> tuple[int, bytes, str]:
        return await run_command(*arguments, stdin=stdin, XDG_CONFIG_HOME=str(tmp_path), **variables)

    assert (await run("context", "add", "there", "--addr", f"{nobody},{address}", "--use"))[0] == ExitCode.DONE
    assert await run("produce", stdin=b"a\n") == (ExitCode.DONE, b"", "1 record stored at offset 0\n")
    assert await run("consume") == (ExitCode.DONE, b"a\n", "")
    # what asks one node asks the first, and says which that was
    code, _, errors = await run("members", "--timeout", "0.5")
    assert code == ExitCode.UNREACHABLE
    assert nobody in errors
    assert errors.endswith("the address is from the context 'there' (which is in use)\n")
    assert (await run("members", "--addr", address))[0] == ExitCode.DONE
    other = ("context", "add", "other", "--addr", address, "--cluster-name", "other", "--use")
    assert (await run(*other))[0] == ExitCode.DONE
    code, _, errors = await run("consume", "--timeout", "0.5")
    assert code == ExitCode.UNREACHABLE
    assert "other" in errors
