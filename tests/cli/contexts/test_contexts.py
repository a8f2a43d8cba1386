import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.cli.contexts.contexts import MAX_CONTEXTS, Context, Contexts, ContextsError, parse, render

NAMES = st.text(min_size=1, max_size=12).filter(
    lambda name: name.isprintable() and name == name.strip() and len(name.encode()) <= 128
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CONTEXTS = st.builds(
    Context,
    addresses=st.lists(st.sampled_from(["a.test:1", "[::1]:8400", "10.0.0.1:65535"]), min_size=1).map(tuple),
    cluster_name=st.none() | NAMES,
    tls_ca_file=st.none() | TEXTS,
    tls_server_name=st.none() | st.just("node.test"),
)


@given(st.dictionaries(NAMES, CONTEXTS, max_size=4), st.data())
def test_what_is_written_is_read(by_name: dict[str, Context], data: st.DataObject) -> None:
    current = data.draw(st.none() | st.sampled_from(sorted(by_name))) if by_name else None
    contexts = Contexts(by_name, current)
    assert parse(render(contexts)) == contexts


GOOD = '[contexts.prod]\naddresses = ["a:1"]\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = ", "it is not TOML: Invalid value (at end of document)"),
        ("x = 1\n\n= 5", "(at line 3, column 1)"),
        ("a = " + "[" * 100_000, "it is not TOML"),
        (f"# one\ncurent = 'prod'\n{GOOD}", "line 2: the key 'curent' is unknown. Did you mean 'current'?"),
        (f"current = 'other'\n{GOOD}", "line 1: the context in use, 'other', is none that is in the file"),
        ("contexts = 5", "line 1: contexts must be a table"),
        ("[contexts]\nprod = 5", "line 2: the context 'prod' must be a table"),
        (f"{GOOD}tls-ca = 'x'", "line 3: the key 'tls-ca' is unknown. Did you mean 'tls-ca-file'?"),
        (f'{GOOD}\n[contexts."b c"]\naddress = 1', "line 5: the key 'address' is unknown."),
        ('contexts.prod.addresses = ["a:1"]\ncontexts.prod.x = 1', "line 2: the key 'x' is unknown."),
        ("contexts = { prod = { x = 1 } }", "the key 'x' is unknown."),
        ("[contexts.prod]", "line 1: the context 'prod' has no addresses"),
        ("\n[contexts.prod]\naddresses = 'a:1'", "line 3: addresses must be an array of strings"),
        ("[contexts.prod]\naddresses = []", "line 2: addresses must be an array of strings"),
        ("[contexts.prod]\naddresses = ['a:b']", "line 2: addresses is wrong: 'a:b' has no valid port"),
        ("[contexts.prod]\naddresses = ['a:0']", "line 2: addresses has 'a:0': nothing can be reached at port 0"),
        ("[contexts.prod]\naddresses = [" + "'a:1'," * 65 + "]", "line 2: addresses has 65 addresses, more than 64"),
        (f"{GOOD}cluster-name = 5", "line 3: cluster-name must be a string"),
        (f"{GOOD}cluster-name = ' x'", "line 3: cluster-name is wrong: A name is"),
        (f"{GOOD}tls-server-name = 'a:1'", "line 3: tls-server-name is wrong: A host is"),
        (f"{GOOD}tls-key-file = '/k'", "line 1: of 'prod', tls-cert-file and tls-key-file go together"),
        ("[contexts.' x']\naddresses = ['a:1']", "line 1: ' x' is no name: A name is"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(ContextsError, match=re.escape(problem)):
        parse(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except ContextsError:
        return


def test_a_path_that_is_no_text_cannot_be_kept() -> None:
    with pytest.raises(ContextsError, match="no UTF-8 text"):
        render(Contexts({"a": Context(addresses=("a:1",), tls_ca_file="\udcff")}))


def test_changes() -> None:
    one = Context(addresses=("a:1",))
    contexts = Contexts().added("one", one, replace=False).added("two", one, replace=False)
    with pytest.raises(ContextsError, match="--replace"):
        contexts.added("one", one, replace=False)
    other = Context(addresses=("b:1",))
    assert contexts.added("one", other, replace=True).named("one") == other
    assert contexts.used("two").current == "two"
    assert contexts.used("two").removed("one") == Contexts({"two": one}, "two")
    assert contexts.used("two").removed("two") == Contexts({"one": one})
    for change in (contexts.used, contexts.removed, contexts.named):
        with pytest.raises(ContextsError, match=r"there is no context 'three'; there are: one, two"):
            change("three")
    full = Contexts({str(number): one for number in range(MAX_CONTEXTS)})
    with pytest.raises(ContextsError, match="remove one before"):
        full.added("more", one, replace=False)
    assert full.added("0", other, replace=True).named("0") == other
