from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.self_description.own_tags import OwnTags, TagFixed
from proglog_trio.membership.wire.tags import TagsTooLarge

NAMES = st.sampled_from(["role", "zone", "rack", "cluster_name"])
TAGS = st.dictionaries(NAMES, st.sampled_from(["", "1", "2"]))
FIXED = frozenset({"cluster_name"})
OF_USERS = st.dictionaries(NAMES.filter(lambda name: name not in FIXED), st.sampled_from(["", "1", "2"]))


@given(
    given_first=TAGS,
    changes=st.lists(st.tuples(OF_USERS, st.lists(NAMES.filter(lambda name: name not in FIXED)))),
    given_later=TAGS,
)
def test_changes_do_what_they_say_and_outlive_a_restart(
    given_first: dict[str, str], changes: list[tuple[dict[str, str], list[str]]], given_later: dict[str, str]
) -> None:
    tags = OwnTags(given=given_first, changes={}, fixed=FIXED)
    expected = dict(given_first)
    for set_, delete in changes:
        tags = tags.changed(set_, delete)
        for name in delete:
            expected.pop(name, None)
        expected.update(set_)
        assert tags.all() == expected
    restarted = OwnTags.kept(given_first, tags.changes, FIXED)
    assert restarted.all() == expected
    # What nobody touched is what the program gives; what was changed stays as it was changed.
    touched = {name for set_, delete in changes for name in [*set_, *delete]}
    other = restarted.with_given(given_later).all()
    assert {name: other[name] for name in other if name not in touched} == {
        name: content for name, content in given_later.items() if name not in touched
    }
    for name in {name for set_, _ in changes for name in set_} & expected.keys():
        assert other[name] == expected[name]
    # No trace is kept of what nobody gives and nobody set.
    assert tags.changes.keys() <= expected.keys() | given_first.keys()


def test_a_tag_that_is_deleted_stays_away() -> None:
    tags = OwnTags(given={"role": "web"}, changes={}).changed({}, ["role", "not there"])
    assert tags.changes == {"role": None}
    assert OwnTags.kept({"role": "db"}, tags.changes, ()).all() == {}
    assert tags.changed({"role": "db"}, []).all() == {"role": "db"}


def test_that_a_tag_was_deleted_is_forgotten_once_nobody_gives_it() -> None:
    tags = OwnTags.kept({"zone": "1"}, {"role": None, "zone": None}, ())
    assert tags.changed({"rack": "7"}, []).changes == {"zone": None, "rack": "7"}


def test_what_is_set_and_deleted_at_once_is_set() -> None:
    assert OwnTags(given={"role": "web"}, changes={}).changed({"role": "db"}, ["role"]).all() == {"role": "db"}


def test_fixed_tags_are_not_changed(caplog: pytest.LogCaptureFixture) -> None:
    tags = OwnTags(given={"cluster_name": "orders"}, changes={}, fixed=FIXED)
    with pytest.raises(TagFixed, match="the tag 'cluster_name' is what the node itself tells the others"):
        tags.changed({"cluster_name": "others"}, [])
    with pytest.raises(TagFixed):
        tags.changed({}, ["cluster_name"])
    # Nor by what stands in a file.
    assert OwnTags.kept({"cluster_name": "orders"}, {"cluster_name": None, "a": "b"}, FIXED).all() == {
        "cluster_name": "orders",
        "a": "b",
    }
    assert "cluster_name" in caplog.text


def test_a_tag_needs_a_name() -> None:
    with pytest.raises(ValueError, match="a tag needs a name"):
        OwnTags(given={}, changes={}).changed({"": "x"}, [])


@pytest.mark.parametrize(
    ("set_", "delete", "problem"),
    [
        ({str(number): "" for number in range(300)}, [str(number) for number in range(213)], "513 tags in one change"),
        ({"a": "x" * 1_000_000}, [], "take 1000001 bytes, more than 512 by themselves"),
        ({}, ["x" * 1_000_000], "the name of a tag has at most 512 bytes"),
    ],
)
def test_a_change_that_is_too_large_to_look_at_is_refused(
    set_: dict[str, str], delete: list[str], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem) as error:
        OwnTags(given={}, changes={}).changed(set_, delete)
    assert len(str(error.value)) < 200


def test_what_does_not_fit_is_refused_with_what_is_used() -> None:
    tags = OwnTags(given={"a": "x" * 300}, changes={})
    with pytest.raises(
        TagsTooLarge, match=r"the tags take 612 bytes, more than 512: .*; 307 of the 512 bytes are used"
    ):
        tags.changed({"b": "x" * 300}, [])
    with pytest.raises(TagsTooLarge):
        tags.with_given({"b": "x" * 600})
    # What goes at the same time makes room.
    assert tags.changed({"b": "x" * 300}, ["a"]).all() == {"b": "x" * 300}
