from typing import cast

import pytest
from attrs import frozen

from proglog_trio.address import Address
from proglog_trio.log.log import Log
from proglog_trio.membership import RPC_ADDRESS_TAG, Coordinate, Membership
from proglog_trio.membership.lives import DIRECTORY_TAG, OPENING_TAG, opening_of
from proglog_trio.membership.wire.tags import encode_tags
from proglog_trio.node.tags import Members, own_tags


@frozen
class Tagged:
    tags: dict[str, str]
    round_trip_seconds: float | None = None
    coordinate: Coordinate | None = None


@frozen
class OneMember:
    """A membership with a member "b"."""

    tags: dict[str, str]

    def member(self, name: str) -> Tagged | None:
        return Tagged(self.tags) if name == "b" else None


def members(**tags: str) -> Members:
    return Members(lambda: cast("Membership", OneMember(tags)))


@frozen
class OpenLog:
    directory_id: bytes = bytes(8)


def test_tags_that_fit_do_so_after_any_number_of_restarts() -> None:
    sizes = set()
    # As next_opening makes them: a counter, and behind it 20 random bits.
    for opening in (1 << 20, 16 << 20, 4096 << 20, 2**40 - 1):
        tags = own_tags("orders", cast("Log", OpenLog()), opening, Address("127.0.0.1", 8400), [("role", "web")])
        assert opening_of(tags) == opening
        sizes.add(len(encode_tags(tags)))
    assert len(sizes) == 1


def test_what_a_member_says() -> None:
    found = members(**{DIRECTORY_TAG: "0001", OPENING_TAG: "1f", RPC_ADDRESS_TAG: "b:8400"})
    assert (found.directory_of("b"), found.opening_of("b"), found.rpc_address_of("b")) == (b"\x00\x01", 31, "b:8400")


@pytest.mark.parametrize("name", ["b", "not there"])
def test_a_member_that_says_nothing(name: str) -> None:
    found = members()
    assert (found.directory_of(name), found.opening_of(name), found.rpc_address_of(name)) == (None, None, None)


@pytest.mark.parametrize("directory", ["", "xyz", "0"])
def test_a_directory_that_is_none(directory: str) -> None:
    assert members(**{DIRECTORY_TAG: directory}).directory_of("b") is None


@frozen
class Placed:
    """A membership of "me" and "b", to which a probe took a time, and which is at a place."""

    probed: float | None
    error: float | None
    estimated: float = 0.010

    name = "me"

    def coordinate(self, _name: str) -> Coordinate | None:
        return None if self.error is None else Coordinate((0.0,) * 8, self.error, 0.0, 0.0)

    def member(self, name: str) -> Tagged | None:
        return Tagged({}, self.probed, self.coordinate(name)) if name == "b" else None

    def round_trip(self, *_names: str) -> float | None:
        return self.estimated


@pytest.mark.parametrize(
    ("probed", "error", "expected"),
    [
        (None, None, None),
        (0.020, None, 0.020),
        (0.020, 0.1, 0.010),
        (0.005, 0.1, 0.005),
        (0.020, 1.0, 0.020),
        (None, 0.1, 0.010),
        (None, 1.0, None),
    ],
)
def test_how_far_a_member_is(probed: float | None, error: float | None, expected: float | None) -> None:
    found = Members(lambda: cast("Membership", Placed(probed, error)))
    assert found.round_trip_to("b") == expected
    assert found.round_trip_to("not there") is None
