"""Gossip keys: rotated while members come and go, kept, and refused, by the command and by what it calls."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.errors import CallFailed
from proglog_trio.rpc.calls.cluster import change_key, list_keys
from tests.members import WAIT_SECONDS, HasAddress, members, node_inside, statuses, wait_for
from tests.node_process import node_process, run_command

OLD = "AAECAwQFBgcICQoLDA0ODw=="
NEW = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
LOCAL = ("--gossip-profile", "local")


async def keys(node: HasAddress, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run one of the keys commands."""
    code, output, errors = await run_command("keys", *arguments, "--addr", node.address, stdin=stdin)
    return code, output.decode(), errors


@pytest.mark.system
async def test_a_key_is_rotated_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    files = {name: tmp_path / f"{name}.keys" for name in "ab"}
    async with node_inside(tmp_path / "a", "a", encrypt=OLD, keyring_file=files["a"]) as a:
        second = ("--node-name", "b", "--encrypt", OLD, "--keyring-file", str(files["b"]), *LOCAL)
        async with node_process(tmp_path / "b", *second, "--start-join-addrs", a.gossip) as b:
            await wait_for(a, statuses(a="alive", b="alive"))
            refused = await change_key(b.address, "UseKey", NEW, WAIT_SECONDS)
            assert (refused.done, set(refused.problems), refused.silent) == ([], {"a", "b"}, [])
            for node, arguments in ((a, ("install", "-")), (b, ("use",)), (a, ("remove", OLD))):
                code, _, errors = await keys(node, *arguments, stdin=NEW.encode() + b"\n")
                assert (code, errors) == (ExitCode.DONE, "done by 2: a, b\n")
                assert set(await members(a)) == {"a", "b"}
            code, output, errors = await keys(b, "list", "--json")
            assert code == ExitCode.DONE, errors
            assert json.loads(output) == [{"key": NEW, "members": ["a", "b"], "primary_of": ["a", "b"]}]
            code, output, _ = await keys(a, "list")
            assert output == f"{NEW}  held by 2, encrypts for 2\n"
            for path in files.values():
                assert json.loads(path.read_text()) == [NEW]
                assert path.stat().st_mode & 0o777 == 0o600
            # Who still has the old key stays out, and who has the new one gets in.
            async with node_inside(tmp_path / "c", "c", join=a.gossip, encrypt=OLD) as c:
                async with node_inside(tmp_path / "d", "d", join=a.gossip, encrypt=NEW):
                    await wait_for(a, statuses(a="alive", b="alive", d="alive"))
                    assert set(await members(c)) == {"c"}
                # In order: of a message that is sent twice, both copies may go to a member whose end nobody has
                # noticed, and then b's goodbye does not arrive.
                await wait_for(b, statuses(a="alive", b="alive", d="left"))
            assert await b.stop() == ExitCode.DONE
        await wait_for(a, statuses(a="alive", b="left", d="left"))
        # It starts again with what its file says, whatever the option says.
        async with node_inside(tmp_path / "b", "b", join=a.gossip, encrypt=OLD, keyring_file=files["b"]):
            await wait_for(a, lambda seen: seen["b"]["status"] == "alive")
    for key in (OLD, NEW):
        assert key not in b.logged()
        assert key not in caplog.text
    assert "node is ready" in caplog.text


async def test_who_does_not_do_it_is_named(tmp_path: Path) -> None:
    unwritable = tmp_path / "gone" / "keys"
    unwritable.parent.mkdir()
    async with (
        node_inside(tmp_path / "a", "a", encrypt=OLD) as a,
        node_inside(tmp_path / "b", "b", join=a.gossip, encrypt=OLD, keyring_file=unwritable),
    ):
        await wait_for(a, statuses(a="alive", b="alive"))
        unwritable.unlink()
        unwritable.parent.rmdir()
        code, _, errors = await keys(a, "install", stdin=NEW.encode())
        assert code == ExitCode.FAILED
        assert "done by 1: a" in errors
        assert f"not done by b: {unwritable} cannot be written: No such file or directory" in errors
        # What could not be written down does not count either.
        listed = {each.key: each.members for each in (await list_keys(a.address, WAIT_SECONDS)).keys}
        assert listed == {OLD: ["a", "b"], NEW: ["a"]}


async def test_what_cannot_be_done(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a", encrypt=OLD) as a:
        for arguments, code, problem in (
            (("install", "nonsense!"), ExitCode.FAILED, "the key is no base64 text"),
            (("install",), ExitCode.USAGE, "there is no key on standard input"),
            (("remove", OLD), ExitCode.FAILED, "not done by a: the primary key cannot be removed"),
        ):
            ended, _, errors = await keys(a, *arguments)
            assert ended == code, arguments
            assert problem in errors
        # What the command shows of such answers is the same as above.
        with pytest.raises(CallFailed, match="the key has 3 bytes, not 16, 24 or 32"):
            await change_key(a.address, "InstallKey", "AAAA", WAIT_SECONDS)
        answers = await change_key(a.address, "UseKey", NEW, WAIT_SECONDS)
        assert (answers.done, answers.problems) == ([], {"a": "the key is not in the keyring"})
        assert [each.key for each in (await list_keys(a.address, WAIT_SECONDS)).keys] == [OLD]


async def test_without_encryption_there_are_no_keys(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a") as a:
        with pytest.raises(CallFailed, match="gossip is not encrypted"):
            await list_keys(a.address, WAIT_SECONDS)


async def test_keys_do_not_travel_in_the_open(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; says which address of this machine would be used
        except OSError:
            pytest.skip("this machine has no address beyond loopback")
        host = probe.getsockname()[0]
    async with node_inside(tmp_path / "a", "a", host=host, encrypt=OLD, insecure=True) as a:
        with pytest.raises(CallFailed, match="keys are not sent over a connection without TLS"):
            await list_keys(a.address, WAIT_SECONDS)
