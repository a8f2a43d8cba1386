"""``proglog-trio keys``: the gossip keys of a whole cluster, rotated without an outage."""

import json as json_format
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import attrs
from cyclopts import App, Parameter

from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.node_commands import Timeout, report, run_interruptible
from proglog_trio.cli.node_options import NodeOptions
from proglog_trio.node.option_types import flag

if TYPE_CHECKING:
    from proglog_trio._proto.log.v1 import KeyAnswers

app = App(
    name="keys",
    help="Rotate the gossip keys of a cluster: install a new key, use it, remove the old one. Serf agents take part.",
)

_LONGEST_LINE = 200


@attrs.frozen(kw_only=True)
class KeyOptions(NodeOptions):
    """Which node asks the others."""

    # gossip takes some seconds to reach all members, and silence is noticed only when they are over
    timeout: Timeout = 60.0


AskingNode = Annotated[KeyOptions, Parameter(name="*")]
_NODE = KeyOptions()

Key = Annotated[
    str,
    Parameter(
        metavar="KEY",
        help="16, 24 or 32 bytes in base64. Without it, or with -, it is read from standard input: others can read "
        "command lines.",
        allow_leading_hyphen=True,
    ),
]


def _read_key(key: str) -> str:
    if key.strip() != "-":
        return key.strip()
    try:
        text = sys.stdin.readline(_LONGEST_LINE).strip()
    except (OSError, UnicodeDecodeError) as error:
        # without what was read, which may be a key
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CommandError(f"standard input: {reason}", ExitCode.USAGE) from None
    if not text:
        raise CommandError("there is no key on standard input", ExitCode.USAGE)
    return text


@app.command(name="install")
def install(key: Key = "-", /, *, node: AskingNode = _NODE) -> int:
    """Have all members take in a key, which decrypts from then on. The exit code is 1 if a member did not."""
    return _change("InstallKey", key, node)


@app.command(name="use")
def use(key: Key = "-", /, *, node: AskingNode = _NODE) -> int:
    """Have all members encrypt with a key that all have installed. The exit code is 1 if a member does not."""
    return _change("UseKey", key, node)


@app.command(name="remove")
def remove(key: Key = "-", /, *, node: AskingNode = _NODE) -> int:
    """Have all members forget a key that none of them encrypts with. The exit code is 1 if a member did not."""
    return _change("RemoveKey", key, node)


def _change(method: str, key: str, node: KeyOptions) -> int:
    return run_interruptible(partial(_changed, method, _read_key(key), node))


async def _changed(method: str, key: str, node: KeyOptions) -> int:
    from proglog_trio.rpc.calls.cluster import change_key

    return _reported(await node.ask(change_key, method, key))


def _reported(answers: "KeyAnswers") -> int:
    report(f"done by {len(answers.done)}: {', '.join(answers.done) or 'nobody'}")
    for name, problem in sorted(answers.problems.items()):
        report(f"not done by {name}: {problem}")
    for name in answers.silent:
        report(f"no answer from {name}")
    return ExitCode.FAILED if answers.problems or answers.silent else ExitCode.DONE


@app.command(name="list")
def list_(
    *,
    json: Annotated[bool, flag("Write a JSON array of objects with key, members and primary_of.")] = False,
    node: AskingNode = _NODE,
) -> int:
    """Show the keys that members have: how many have each, and for how many it is the one that encrypts."""
    return run_interruptible(partial(_list, node, json=json))


async def _list(node: KeyOptions, *, json: bool) -> int:
    from proglog_trio.rpc.calls.cluster import list_keys

    found = await node.ask(list_keys)
    if json:
        described = [
            {"key": each.key, "members": list(each.members), "primary_of": list(each.primary_of)} for each in found.keys
        ]
        print(json_format.dumps(described, indent=2))
    else:
        for each in found.keys:
            print(f"{each.key}  held by {len(each.members)}, encrypts for {len(each.primary_of)}")
    return _reported(found.answers) if found.answers is not None else ExitCode.FAILED
