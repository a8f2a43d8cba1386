"""What a snapshot may have to hold: names and tags of any bytes, addresses in both widths, clocks up to the end."""

from __future__ import annotations

from hypothesis import strategies as st

from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.snapshot.lines import (
    MAX_LIVED_SECONDS,
    Clocks,
    Forgotten,
    HasLeft,
    Header,
    Lived,
    RememberedMember,
)

# As names come from the wire: any bytes, of which those that are no UTF-8 stand in for themselves.
NAMES = st.one_of(
    st.binary(min_size=1, max_size=512).map(lambda name: name.decode("utf-8", "surrogateescape")),
    st.sampled_from(["a", "b", "node 3", "two\nlines", 'quo"te', "\x00", "\u2028", "ünï", "\U0001f600", "\udc80"]),
)
TEXTS = st.binary(max_size=40).map(lambda text: text.decode("utf-8", "surrogateescape"))
LAMPORT_TIMES = st.one_of(st.integers(0, 20), st.integers(0, 2**64 - 1))
ADDRESSES = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
MEMBERS = st.builds(
    RememberedMember,
    name=NAMES,
    address=ADDRESSES,
    port=st.integers(0, 65_535),
    tags=st.dictionaries(TEXTS, TEXTS, max_size=4),
    status=st.sampled_from([MemberStatus.ALIVE, MemberStatus.FAILED, MemberStatus.LEFT]),
    version=st.binary(min_size=6, max_size=6),
    status_time=LAMPORT_TIMES,
    gone_at=st.integers(0, MAX_LIVED_SECONDS),
    has_answered=st.booleans(),
)
HEADERS = st.builds(Header, TEXTS, st.one_of(st.none(), TEXTS), st.integers(0, 2**31))
LINES = st.one_of(
    MEMBERS,
    st.builds(Forgotten, NAMES),
    st.builds(Clocks, LAMPORT_TIMES, LAMPORT_TIMES, LAMPORT_TIMES),
    st.builds(Lived, st.integers(0, MAX_LIVED_SECONDS)),
    st.just(HasLeft()),
)
