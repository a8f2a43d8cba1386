from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.printable import printable


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    assert printable(text).isprintable()
    printable(text).encode()


def test_what_can_be_read_stays_as_it_is() -> None:
    assert printable("größer als 東京") == "größer als 東京"
    assert printable("a\x1b[2J\nb\udcff") == r"a\x1b[2J\nb\udcff"
