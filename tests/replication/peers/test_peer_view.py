"""What a peer says that it does not have: from where to where, and until when."""

from __future__ import annotations

import pytest

from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.messages import Ended, EndReason, OriginRange, Positions
from proglog_trio.replication.peers.peer_view import PeerView

X = Origin(bytes(15) + b"x")


def peer(following: int = 10, low: int = 0, missing: tuple[tuple[int, int], ...] = ()) -> PeerView:
    view = PeerView("a", 0.0)
    view.connect(b"a-------")
    view.heard(Positions({X: OriginRange(low, following, missing=missing)}))
    return view


@pytest.mark.parametrize("resumes_at", [None, 10])
@pytest.mark.parametrize(("reason", "retry_at"), [(EndReason.MISSING, None), (EndReason.DAMAGED, 100.0)])
def test_an_absence_ends_where_the_log_did(resumes_at: int | None, reason: EndReason, retry_at: float | None) -> None:
    view = peer()
    view.cannot_send(Ended(X, 5, resumes_at, reason), retry_at)
    assert view.available_from(X, 4, 1.0) == 4
    assert view.available_from(X, 5, 1.0) is None
    view.ranges[X] = OriginRange(0, 20)
    assert view.available_from(X, 5, 1.0) == 10
    assert view.has(X, 10, 1.0)


def test_what_a_source_says_later_of_its_log_counts_more_than_what_it_did_not_have_before() -> None:
    view = peer()
    view.cannot_send(Ended(X, 5, 8, EndReason.MISSING), None)
    assert not view.has(X, 6, 1.0)
    view.heard(Positions({X: OriginRange(0, 12)}))
    assert view.has(X, 6, 1.0), "it has been filled"
    view.cannot_send(Ended(X, 5, 8, EndReason.DAMAGED), 100.0)
    view.heard(Positions({X: OriginRange(0, 13)}))
    assert not view.has(X, 6, 99.0), "that it is damaged does not show in a position"
    assert view.has(X, 6, 100.0)


def test_what_it_does_not_have_is_not_said_to_be_held() -> None:
    view = peer(low=2, missing=((4, 6),))
    assert [view.offers(X, sequence, sequence + 1) for sequence in range(11)] == [
        *(False, False, True, True, False, False),
        *(True, True, True, True, False),
    ]
    assert [view.available_from(X, sequence, 1.0) for sequence in (0, 3, 4, 9, 10)] == [2, 3, 6, 9, None]
    view.disconnect(1.0)
    assert not view.offers(X, 3, 4)


def test_attempts_that_fail_do_not_make_an_absence_shorter() -> None:
    view = PeerView("a", disconnected_since=0.0)
    for second in (1.0, 5.0, 9.0):
        view.disconnect(second)
    assert view.disconnected_since == 0.0
    view.connect(b"a-------")
    view.disconnect(20.0)
    view.disconnect(25.0)
    assert view.disconnected_since == 20.0
