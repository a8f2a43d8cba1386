import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proglog_trio.cli.exit_codes import ExitCode
from tests.node_process import clean_environment

# what a shell does when the tabulator key is pressed behind these words
COMPLETE = """
source "$1"; shift
type complete >/dev/null && complete -p proglog-trio >/dev/null || exit 1
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_proglog_trio
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """One in which proglog-trio is a command, with a home of its own."""
    program = tmp_path / "bin" / "proglog-trio"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m proglog_trio "$@"\n')
    program.chmod(0o755)
    return clean_environment(
        PATH=f"{program.parent}:{os.environ['PATH']}", HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path / "config")
    )


def run(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, capture_output=True, env=environment, check=True, text=True)
    return done.stdout


def test_bash_completes_commands_options_and_contexts(environment: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(run(environment, "proglog-trio", "completion", "bash"))
    for name in ("prod-a", "prod-b", "with space"):
        run(environment, "proglog-trio", "context", "add", name, "--addr", "a.test")

    def completed(*words: str) -> list[str]:
        return run(environment, "bash", "--norc", "-c", COMPLETE, "bash", str(script), "proglog-trio", *words).split(
            "\n"
        )

    assert completed("con") == ["consume", "context", ""]
    assert completed("consume", "--cont") == ["--context", ""]
    assert completed("consume", "--format", "") == ["raw", "json", "base64", ""]
    assert completed("consume", "--context", "prod-") == ["prod-a", "prod-b", ""]
    assert completed("context", "use", "") == ["prod-a", "prod-b", "with\\ space", ""]
    assert completed("context", "use", "x") == ["", ""]
    # a file that cannot be read has no names, and no words about it among the candidates
    (tmp_path / "config" / "proglog" / "contexts.toml").write_text("x = 1")
    assert completed("context", "use", "") == ["", ""]


@pytest.mark.parametrize(
    ("shell", "path"),
    [
        ("bash", ".local/share/bash-completion/completions/proglog-trio"),
        ("zsh", ".zsh/completions/_cyclopts_proglog-trio"),
        ("fish", ".config/fish/completions/proglog-trio.fish"),
    ],
)
def test_scripts_are_written_where_shells_look(
    environment: dict[str, str], tmp_path: Path, shell: str, path: str
) -> None:
    for variable in ("ZSH", "ZSH_CUSTOM"):
        environment.pop(variable, None)
    printed = run(environment, "proglog-trio", "completion", shell)
    done = subprocess.run(
        ["proglog-trio", "completion", shell, "--install"], capture_output=True, env=environment, check=True, text=True
    )
    assert (tmp_path / path).read_text() == printed
    assert done.stderr.startswith(f"{tmp_path / path} is written\n")
    if program := shutil.which(shell):
        # the shell itself reads it
        subprocess.run([program, "-n", tmp_path / path], check=True, env=environment)
    # no file of the user's own is touched
    assert not any((tmp_path / name).exists() for name in (".bashrc", ".zshrc"))


def test_a_place_that_cannot_be_written(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".local").write_text("no directory")
    done = subprocess.run(
        ["proglog-trio", "completion", "bash", "--install"],
        capture_output=True,
        env=environment,
        check=False,
        text=True,
    )
    assert done.returncode == ExitCode.FAILED
    assert done.stderr.startswith("proglog-trio: ")
    assert ".local" in done.stderr
