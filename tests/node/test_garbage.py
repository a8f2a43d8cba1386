import gc
import weakref

import pytest

from proglog_trio.node.garbage import keep_what_is_there, put_off


def test_collections_are_put_off_for_a_block() -> None:
    assert gc.isenabled()
    with put_off():
        assert not gc.isenabled()
        with put_off():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_collections_come_again_after_an_error() -> None:
    with pytest.raises(ImportError), put_off():
        raise ImportError
    assert gc.isenabled()


@pytest.mark.parametrize("with_garbage", [True, False])
def test_what_nobody_can_reach_is_kept_if_that_is_wanted(*, with_garbage: bool) -> None:
    class Cycle:
        itself: object = None

    cycle = Cycle()
    cycle.itself = cycle
    reference = weakref.ref(cycle)
    try:
        with put_off():
            del cycle
            keep_what_is_there(with_garbage=with_garbage)
        gc.collect()
        assert (reference() is not None) == with_garbage
    finally:
        gc.unfreeze()
