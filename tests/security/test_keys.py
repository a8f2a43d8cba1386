"""Gossip keys over real processes: rotated while members come and go, and kept."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from proglog_trio.cli.exit_codes import ExitCode
from tests.cli.test_cluster import gossip, members, statuses, wait_for
from tests.node_process import NodeProcess, node_process, run_command

OLD = "AAECAwQFBgcICQoLDA0ODw=="
NEW = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
LOCAL = ("--gossip-profile", "local")


async def keys(node: NodeProcess, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run one of the keys commands."""
    code, output, errors = await run_command("keys", *arguments, "--addr", node.address, stdin=stdin)
    return code, output.decode(), errors


async def listed(node: NodeProcess) -> dict[str, Any]:
    """The keys that members have, by key."""
    code, output, errors = await keys(node, "list", "--json")
    assert code == ExitCode.DONE, errors
    return {each["key"]: each for each in json.loads(output)}


async def test_a_key_is_rotated_and_kept(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.keys" for name in "ab"}
    first = ("--node-name", "a", "--encrypt", OLD, "--keyring-file", str(files["a"]), *LOCAL)
    async with node_process(tmp_path / "a", *first) as a:
        joining = ("--start-join-addrs", gossip(a), *LOCAL)
        second = ("--node-name", "b", "--encrypt", OLD, "--keyring-file", str(files["b"]), *joining)
        async with node_process(tmp_path / "b", *second) as b:
            await wait_for(a, statuses(a="alive", b="alive"))
            assert (await keys(b, "use", stdin=NEW.encode()))[0] == ExitCode.FAILED
            for node, arguments in ((a, ("install", "-")), (b, ("use",)), (a, ("remove", OLD))):
                code, _, errors = await keys(node, *arguments, stdin=NEW.encode() + b"\n")
                assert (code, errors) == (ExitCode.DONE, "done by 2: a, b\n")
                assert set(await members(a)) == {"a", "b"}
            assert await listed(b) == {NEW: {"key": NEW, "members": ["a", "b"], "primary_of": ["a", "b"]}}
            code, output, _ = await keys(a, "list")
            assert output == f"{NEW}  held by 2, encrypts for 2\n"
            for path in files.values():
                assert json.loads(path.read_text()) == [NEW]
                assert path.stat().st_mode & 0o777 == 0o600
            # Who still has the old key stays out, and who has the new one gets in.
            async with (
                node_process(tmp_path / "c", "--node-name", "c", *joining, PROGLOG_ENCRYPT=OLD) as c,
                node_process(tmp_path / "d", "--node-name", "d", *joining, PROGLOG_ENCRYPT=NEW) as d,
            ):
                await wait_for(a, statuses(a="alive", b="alive", d="alive"))
                assert set(await members(c)) == {"c"}
                # In order: of a message that is sent twice, both copies may go to a member whose end nobody has
                # noticed, and then b's goodbye does not arrive.
                assert await d.stop() == ExitCode.DONE
                await wait_for(b, statuses(a="alive", b="alive", d="left"))
            assert await b.stop() == ExitCode.DONE
        # It starts again with what its file says, whatever the option says.
        async with node_process(tmp_path / "b", *second) as b:
            await wait_for(a, lambda seen: seen["b"]["status"] == "alive")
            logged = a.logged() + b.logged()
    assert OLD not in logged
    assert NEW not in logged


async def test_who_does_not_do_it_is_named(tmp_path: Path) -> None:
    unwritable = tmp_path / "gone" / "keys"
    unwritable.parent.mkdir()
    options = ("--node-name", "b", "--encrypt", OLD, "--keyring-file", str(unwritable), *LOCAL)
    async with (
        node_process(tmp_path / "a", "--node-name", "a", "--encrypt", OLD, *LOCAL) as a,
        node_process(tmp_path / "b", *options, "--start-join-addrs", gossip(a)),
    ):
        await wait_for(a, statuses(a="alive", b="alive"))
        unwritable.unlink()
        unwritable.parent.rmdir()
        code, _, errors = await keys(a, "install", stdin=NEW.encode())
        assert code == ExitCode.FAILED
        assert "done by 1: a" in errors
        assert f"not done by b: {unwritable} cannot be written: No such file or directory" in errors
        # What could not be written down does not count either.
        assert (await listed(a))[NEW]["members"] == ["a"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "problem"),
    [
        (("install", "nonsense!"), b"", ExitCode.FAILED, "the key is no base64 text"),
        (("install", "AAAA"), b"", ExitCode.FAILED, "the key has 3 bytes, not 16, 24 or 32"),
        (("install",), b"", ExitCode.USAGE, "there is no key on standard input"),
        (("remove", OLD), b"", ExitCode.FAILED, "not done by a: the primary key cannot be removed"),
        (("use", NEW), b"", ExitCode.FAILED, "not done by a: the key is not in the keyring"),
    ],
)
async def test_what_cannot_be_done(
    tmp_path: Path, arguments: tuple[str, ...], stdin: bytes, code: ExitCode, problem: str
) -> None:
    async with node_process(tmp_path / "a", "--node-name", "a", "--encrypt", OLD, *LOCAL) as a:
        ended, _, errors = await keys(a, *arguments, stdin=stdin)
        assert ended == code
        assert problem in errors


async def test_without_encryption_there_are_no_keys(tmp_path: Path) -> None:
    async with node_process(tmp_path / "a", "--node-name", "a", *LOCAL) as a:
        code, _, errors = await keys(a, "list")
        assert code == ExitCode.FAILED
        assert "gossip is not encrypted" in errors


async def test_keys_do_not_travel_in_the_open(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; says which address of this machine would be used
        except OSError:
            pytest.skip("this machine has no address beyond loopback")
        host = probe.getsockname()[0]
    options = ("--node-name", "a", "--bind-addr", f"{host}:0", "--encrypt", OLD, "--insecure", *LOCAL)
    async with node_process(tmp_path / "a", *options) as a:
        code, output, errors = await keys(a, "list")
        assert (code, output) == (ExitCode.FAILED, "")
        assert "keys are not sent over a connection without TLS" in errors
        with trio.fail_after(60):
            assert await a.stop() == ExitCode.DONE
