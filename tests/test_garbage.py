import gc

import pytest

from proglog_trio.garbage import put_off


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
