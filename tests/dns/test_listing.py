from __future__ import annotations

from collections.abc import Mapping

import attrs
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.dns.listing import MAX_LABELS, MAX_TAG_NAMES, MAX_TAGS, Listing
from proglog_trio.dns.names import MAX_NAME_BYTES, SERVICE, wire_bytes
from proglog_trio.membership import Member, MemberStatus
from tests.dns.support import ZONE, listing_of, member


def tagged(name: str, tags: Mapping[str, str], address: str = "10.0.0.1:1") -> Member:
    plain = member(name, address)
    return attrs.evolve(plain, tags={**tags, **plain.tags})


def servers(listing: Listing, *name: bytes) -> list[str]:
    return [node.name for node in listing.names[name].servers]


def test_only_members_that_are_alive_and_of_the_cluster_and_take_rpcs_are_told_of() -> None:
    listing = listing_of(
        [
            member("a"),
            member("leaving", status=MemberStatus.LEAVING),
            member("left", status=MemberStatus.LEFT),
            member("failed", status=MemberStatus.FAILED),
            member("agent", None),
            member("foreign", cluster_name="red"),
        ]
    )
    assert servers(listing) == ["a"]
    assert (listing.nodes, listing.nodes_without_name, listing.nodes_without_address) == (1, 0, 0)
    assert listing.names.keys() == {(), (b"a", b"node")}
    assert (b"node",) in listing.between


def test_a_name_with_dots_has_names_between() -> None:
    listing = listing_of([member("web1.example.com")])
    assert servers(listing, b"web1", b"example", b"com", b"node") == ["web1.example.com"]
    assert listing.between == {(b"example", b"com", b"node"), (b"com", b"node"), (b"node",)}


def test_tags_are_names() -> None:
    listing = listing_of([member("a", role="Web", version="0.1.0", opening="1"), member("b", role="web")])
    assert servers(listing, b"role-web") == ["a", "b"]
    assert servers(listing, b"version-0", b"1", b"0") == ["a"]
    assert (b"0",) in listing.between
    # what tells nodes and clusters apart is none
    assert not [name for name in listing.names if name[:1] and name[0].startswith((b"opening", b"cluster", b"rpc"))]


def test_a_tag_never_stands_for_a_node_or_a_service() -> None:
    listing = listing_of([member("a-b", address="10.0.0.9:1"), member("c", a="b.node", x="y._tcp")])
    assert servers(listing, b"a-b", b"node") == ["a-b"]
    assert (b"x-y", b"_tcp") not in listing.names


def test_a_tag_that_is_two_but_for_its_case_is_one() -> None:
    assert servers(listing_of([member("a", role="x", ROLE="X")]), b"role-x") == ["a"]


def test_names_that_differ_in_case_alone_are_the_first_ones() -> None:
    listing = listing_of([member("A", "10.0.0.1:1"), member("a", "10.0.0.2:1")])
    assert servers(listing, b"a", b"node") == ["A"]
    # the other has an address all the same
    assert [node.name for node in listing.names[()].ipv4] == ["A", "a"]
    assert listing.nodes_without_name == 1


def test_a_name_that_is_none_is_left_out_and_counted() -> None:
    listing = listing_of([member("two words"), member("x" * 64), member("ok")])
    assert servers(listing) == ["ok"]
    assert len(listing.names[()].ipv4) == 3
    assert listing.nodes_without_name == 2


def test_a_name_of_many_labels_is_left_out() -> None:
    # one of them is `node`
    longest = ".".join("x" * (MAX_LABELS - 1))
    listing = listing_of([member(longest), member(f"x.{longest}")])
    assert servers(listing) == [longest]
    assert listing.nodes_without_name == 1


def test_an_address_that_is_none_is_left_out_and_counted() -> None:
    lies = ["no address", ":1", "a:99999", "[::1", "10.0.0.1:0", "ä\0:1"]
    listing = listing_of([member(f"n{number}", lie) for number, lie in enumerate(lies)])
    assert servers(listing) == []
    assert (listing.nodes, listing.nodes_without_address) == (6, 6)
    assert listing.hosts == set()
    assert (b"n0", b"node") in listing.names


def test_a_host_has_the_addresses_that_were_found() -> None:
    members = [member("a", "db.example:1"), member("b", "[2001:db8::1]:2")]
    listing = listing_of(members)
    assert listing.hosts == {"db.example"}
    assert servers(listing) == ["b"]
    listing = listing_of(members, {"db.example": ["10.0.0.5", "2001:db8::5"]})
    assert [node.name for node in listing.names[()].ipv4] == ["a"]
    assert [node.name for node in listing.names[()].ipv6] == ["a", "b"]


def test_names_of_all_tags_have_a_bound() -> None:
    members = [tagged(f"n{number:03}", {f"t{tag:02}": str(number) for tag in range(MAX_TAGS)}) for number in range(200)]
    names = listing_of([*members, tagged("z", {"t00": "0", "new": "1"})]).names
    assert len([name for name in names if name[:1] and name[0].startswith(b"t")]) == MAX_TAG_NAMES
    # those that are there stand for later nodes too, and no others come
    assert [node.name for node in names[(b"t00-0",)].servers] == ["n000", "z"]
    assert (b"new-1",) not in names


def test_tags_of_a_node_have_a_bound() -> None:
    listing = listing_of([tagged("a", {f"t{number:03}": "" for number in range(200)})])
    assert len(listing.names) == 2 + MAX_TAGS


names = st.text(st.sampled_from("abC._- \0é漢:%"), max_size=70)


@given(st.lists(st.tuples(names, names, st.dictionaries(names, names, max_size=4)), max_size=6))
def test_whatever_members_are_called_every_name_can_be_asked_for(
    members: list[tuple[str, str, dict[str, str]]],
) -> None:
    told = [tagged(name, tags, address) for name, address, tags in members]
    listing = listing_of(told)
    for name in listing.names:
        assert wire_bytes((*SERVICE, *name, *ZONE)) <= MAX_NAME_BYTES
        assert len(name) <= MAX_LABELS
        assert all(0 < len(label) <= 63 and label == label.lower() for label in name)
        for start in range(1, len(name)):
            assert name[start:] in listing.between
