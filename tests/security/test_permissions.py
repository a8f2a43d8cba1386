from proglog_trio.security.permissions import Action, PermitAll


def test_without_a_policy_everybody_may() -> None:
    assert all(PermitAll().allows("nobody", action) for action in Action)
