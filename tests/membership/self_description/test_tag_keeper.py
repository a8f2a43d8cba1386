"""Tags that are changed while a member runs, and what is there after a restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve

from proglog_trio.membership import (
    GossipConfig,
    MemberEvent,
    MemberEventKind,
    Membership,
    NotAMember,
    TagFixed,
    TagsFileError,
    TagsTooLarge,
    bind_membership,
    open_membership,
)
from proglog_trio.membership.self_description import tag_keeper
from tests.membership.running import LOCAL


def config(tmp_path: Path, **changes: Any) -> GossipConfig:
    return evolve(GossipConfig(name="a", profile=LOCAL, tags_file=tmp_path / "tags"), **changes)


async def restarted(given: GossipConfig, tags: dict[str, str]) -> dict[str, str]:
    membership = await bind_membership(given, tags)
    await membership.close()
    return membership.tags


async def test_others_see_a_change_and_it_is_there_after_a_restart(tmp_path: Path) -> None:
    given = {"role": "web", "zone": "1"}
    async with open_membership(config(tmp_path), given) as a, a.events() as _:
        other = GossipConfig(name="b", profile=LOCAL)
        async with open_membership(other, start_addresses=[a.address]) as b, b.events() as events:
            await a.change_tags({"role": "db", "rack": "7"}, ["zone"])
            with trio.fail_after(60):
                async for event in events:
                    if isinstance(event, MemberEvent) and event.kind is MemberEventKind.UPDATE:
                        break
            seen = b.member("a")
            assert seen is not None
            assert seen.tags == a.tags == {"role": "db", "rack": "7"}
    assert json.loads((tmp_path / "tags").read_text()) == {"rack": "7", "role": "db", "zone": None}
    assert await restarted(config(tmp_path), given) == {"role": "db", "rack": "7"}
    # What nobody changed is what it is given.
    assert await restarted(config(tmp_path), {**given, "new": "1"}) == {"role": "db", "rack": "7", "new": "1"}


async def test_what_is_given_later_does_not_undo_a_change() -> None:
    membership = await bind_membership(GossipConfig(name="a", profile=LOCAL), {"role": "web", "opening": "1"})
    await membership.change_tags({"role": "db"})
    membership.set_tags({"role": "web", "opening": "2"})
    assert membership.tags == {"role": "db", "opening": "2"}
    await membership.close()


async def test_what_may_not_be_changed_is_not_and_nothing_is_written(tmp_path: Path) -> None:
    options = config(tmp_path, cluster_tag="cluster", fixed_tags=frozenset({"opening"}))
    membership = await bind_membership(options, {"cluster": "x", "opening": "1", "a": "x" * 300})
    before = membership.tags
    with pytest.raises(TagFixed):
        await membership.change_tags({"b": "1"}, ["cluster"])
    with pytest.raises(TagFixed):
        await membership.change_tags({"opening": "2"})
    with pytest.raises(TagsTooLarge, match="of the 512 bytes are used now"):
        await membership.change_tags({"b": "x" * 300})
    assert membership.tags == before
    assert not (tmp_path / "tags").exists()
    # What changes nothing is not written either.
    await membership.change_tags(delete=["not there"])
    assert not (tmp_path / "tags").exists()
    await membership.close()


async def test_what_cannot_be_written_is_not_changed(tmp_path: Path) -> None:
    membership = await bind_membership(config(tmp_path, tags_file=tmp_path / "missing" / "tags"), {"a": "1"})
    with pytest.raises(TagsFileError, match="cannot be written"):
        await membership.change_tags({"a": "2"})
    assert membership.tags == {"a": "1"}
    (tmp_path / "missing").mkdir()
    await membership.change_tags({"a": "2"})
    assert membership.tags == {"a": "2"}
    await membership.close()


async def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    async with open_membership(config(tmp_path), {}) as membership, trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(membership.change_tags, {str(number): "x"})
    assert len(json.loads((tmp_path / "tags").read_text())) == 10


async def test_what_is_given_while_a_change_fails_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    membership = await bind_membership(config(tmp_path), {"opening": "1"})

    def fail(*_arguments: object) -> None:
        trio.from_thread.run_sync(membership.set_tags, {"opening": "2"})
        raise TagsFileError("no room")

    monkeypatch.setattr(tag_keeper, "save_tags_file", fail)
    with pytest.raises(TagsFileError):
        await membership.change_tags({"role": "db"})
    assert membership.tags == {"opening": "2"}
    await membership.close()


async def test_a_member_does_not_start_with_tags_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "tags").write_text(json.dumps({"a": "x" * 300}))
    with pytest.raises(TagsTooLarge, match=f"with those in {tmp_path / 'tags'}"):
        await bind_membership(config(tmp_path), {"b": "x" * 300})
    with pytest.raises(TagsTooLarge):
        await bind_membership(config(tmp_path, tags_file=None), {"b": "x" * 600})
    (tmp_path / "tags").write_text("nonsense")
    with pytest.raises(TagsFileError):
        await bind_membership(config(tmp_path), {})


async def test_a_member_that_has_ended_has_no_tags_to_change() -> None:
    ended: Membership
    async with open_membership(GossipConfig(name="a", profile=LOCAL)) as ended:
        pass
    with pytest.raises(NotAMember):
        await ended.change_tags({"a": "1"})
