from __future__ import annotations

from proglog_trio.repetition import Quota, Repetitions


def test_the_first_is_news_and_then_one_in_a_period() -> None:
    now = 5.0
    repetitions = Repetitions(lambda: now, period=10.0)
    assert repetitions.news("a") == 0
    assert repetitions.news("b") == 0
    assert [repetitions.news("a") for _ in range(3)] == [None] * 3
    now += 10
    assert repetitions.news("a") == 3
    assert repetitions.news("a") is None
    assert repetitions.news("b") == 0
    repetitions.clear()
    assert repetitions.news("a") == 0


def test_what_was_news_longest_ago_is_forgotten_first() -> None:
    now = 0.0
    repetitions = Repetitions(lambda: now, period=10.0, max_kinds=2)
    repetitions.news("a")
    repetitions.news("b")
    now += 10
    assert repetitions.news("a") == 0
    repetitions.news("c")
    assert repetitions.news("a") is None
    assert repetitions.news("b") == 0


def test_a_quota_lets_so_many_through_in_a_period_and_tells_how_many_were_not() -> None:
    now, excess = 100.0, list[int]()
    quota = Quota(2, 10.0, excess.append, lambda: now)
    assert [quota.admits() for _ in range(5)] == [True, True, False, False, False]
    assert excess == []
    now = 110.0
    assert quota.admits()
    assert excess == [3]
    now = 130.0
    assert quota.admits()
    assert excess == [3]
