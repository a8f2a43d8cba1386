"""``proglog-trio completion``: have a shell complete commands, options and the names of contexts."""

import sys
from typing import Annotated, Literal

from cyclopts import App, Parameter

from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.node_commands import report
from proglog_trio.node.option_types import flag

app = App(name="completion")


@app.default
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="For which shell.")],
    /,
    *,
    install: Annotated[
        bool, flag("Write it to the file of the user's where the shell looks for it, and say which that is.")
    ] = False,
) -> int:
    """Write a script that has a shell complete commands, options and the names of contexts.

    For the shell that runs, and for others from its startup file: source <(proglog-trio completion bash), for fish
    proglog-trio completion fish | source. After an upgrade the script is to be made anew.
    """
    # late: it imports this, as every command's module
    from proglog_trio.cli.app import command_line

    root = command_line()
    if not install:
        sys.stdout.write(root.generate_completion(shell=shell))
        return ExitCode.DONE
    try:
        path = root.install_completion(shell=shell, add_to_startup=False)
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}", ExitCode.FAILED) from error
    report(f"{path} is written")
    if shell == "bash":
        report(f"new shells that have bash-completion load it; others need `source {path}` in ~/.bashrc")
    elif shell == "zsh":
        report(f"~/.zshrc needs `fpath=({path.parent} $fpath)` before `autoload -U compinit && compinit`")
    return ExitCode.DONE
