from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.security.access_policy import AccessPolicy, AccessPolicyError
from proglog_trio.security.permissions import Action
from tests.pki import MODEL, POLICY

ALL = list(Action)


def load(directory: Path, policy: str, model: str = MODEL) -> AccessPolicy:
    (directory / "model.conf").write_text(model)
    (directory / "policy.csv").write_text(policy)
    return AccessPolicy.load(directory / "model.conf", directory / "policy.csv")


def rights(policy: AccessPolicy, subject: str) -> set[str]:
    return {action.value for action in ALL if policy.allows(subject, action)}


def test_the_books_policy(tmp_path: Path) -> None:
    policy = load(tmp_path, POLICY)
    assert rights(policy, "root") == {"produce", "consume", "replicate"}
    assert rights(policy, "nobody") == set()


def test_a_policy_needs_no_model(tmp_path: Path) -> None:
    (tmp_path / "policy.csv").write_text(POLICY)
    policy = AccessPolicy.load(None, tmp_path / "policy.csv")
    assert rights(policy, "root") == {"produce", "consume", "replicate"}
    assert rights(policy, "nobody") == set()


def test_who_may_do_only_one_of_both_may_not_copy(tmp_path: Path) -> None:
    policy = load(tmp_path, "p, writer, *, produce\np, reader, *, consume\n")
    assert rights(policy, "writer") == {"produce"}
    assert rights(policy, "reader") == {"consume"}


@pytest.mark.parametrize("named", ["admin", "replicate"])
def test_a_policy_that_names_an_action_of_ours_says_all_there_is(tmp_path: Path, named: str) -> None:
    policy = load(tmp_path, POLICY + f"p, operator, *, {named}\n")
    assert rights(policy, "root") == {"produce", "consume"}
    assert rights(policy, "operator") == {named}


def test_a_subject_called_admin_names_no_action(tmp_path: Path) -> None:
    policy = load(tmp_path, "p, admin, *, produce\np, admin, *, consume\n")
    assert rights(policy, "admin") == {"produce", "consume", "replicate"}


def test_another_object_permits_nothing(tmp_path: Path) -> None:
    assert rights(load(tmp_path, "p, root, orders, produce\n"), "root") == set()


def test_roles_and_other_models(tmp_path: Path) -> None:
    model = MODEL.replace("[policy_effect]", "[role_definition]\ng = _, _\n\n[policy_effect]").replace(
        "r.sub == p.sub", "g(r.sub, p.sub)"
    )
    policy = load(tmp_path, "p, writers, *, produce\ng, anna, writers\n", model)
    assert rights(policy, "anna") == {"produce"}
    assert rights(policy, "bob") == set()


@given(st.text())
def test_a_name_is_never_part_of_an_expression(name: str) -> None:
    policy = _policy()
    assert rights(policy, name) == ({"produce", "consume", "replicate"} if name == "root" else set())


def _policy() -> AccessPolicy:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        return load(Path(directory), POLICY)


def test_expressions_as_names(tmp_path: Path) -> None:
    policy = load(tmp_path, POLICY)
    for name in ('root" || "a" == "a', "r.sub", "p.sub", "__import__('os')", "root\0", "root ", "Root", "*"):
        assert rights(policy, name) == set(), name


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ("p, root, *\n", "line 1: 2 fields follow 'p', the model has 3"),
        ("# a comment\n\nq, root, *, produce\n", "line 3: the model has no 'q'"),
        ("p, root, *, produce, allow\n", "line 1: 4 fields follow 'p', the model has 3"),
        ("p, root, *, produce)\n", "line 1: it is no rule"),
        (",\n", "line 1: the model has no ''"),
        (
            "p, root, *, produce\np, root, *, produse\n",
            "line 2: 'produse' is no action: there are admin, consume, prod",
        ),
        ("p, root, *, *\n", "line 1: '*' is no action"),
        ("p, root, *, PRODUCE\n", "line 1: 'PRODUCE' is no action"),
        ('p, "root", *, produce\n', 'line 1: "root" has quotation marks'),
        ("p, root, *, 'produce'\n", "line 1: 'produce' has quotation marks"),
        ("p, \u201croot\u201d, *, produce\n", "line 1: \u201croot\u201d has quotation marks"),
        ("\ufeffp, root, *, produce\n", "line 1: it begins with a byte order mark"),
    ],
)
def test_a_wrong_policy_says_where(tmp_path: Path, policy: str, problem: str) -> None:
    with pytest.raises(AccessPolicyError, match=r"policy\.csv, " + re.escape(problem)):
        load(tmp_path, policy)


def test_actions_are_patterns_where_the_model_says_so(tmp_path: Path) -> None:
    model = MODEL.replace("r.act == p.act", "regexMatch(r.act, p.act)")
    assert rights(load(tmp_path, "p, O'Brien, *, produce|consume\n", model), "O'Brien") == {
        "produce",
        "consume",
        "replicate",
    }


def test_a_byte_order_mark_before_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(AccessPolicyError, match=r"model\.conf, line 1: it begins with a byte order mark"):
        load(tmp_path, POLICY, "\ufeff" + MODEL)


@pytest.mark.parametrize("model", ["", "nonsense", MODEL.replace("r.act == p.act", "r.what == p.act"), MODEL[:200]])
def test_a_wrong_model_is_named(tmp_path: Path, model: str) -> None:
    with pytest.raises(AccessPolicyError, match=r"model\.conf"):
        load(tmp_path, POLICY, model)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(AccessPolicyError, match="missing cannot be read: No such file"):
        AccessPolicy.load(tmp_path / "missing", tmp_path / "missing")
    (tmp_path / "model").write_text(MODEL)
    (tmp_path / "policy").write_bytes(b"\xff")
    with pytest.raises(AccessPolicyError, match="policy is not UTF-8 text"):
        AccessPolicy.load(tmp_path / "model", tmp_path / "policy")
