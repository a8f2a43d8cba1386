from proglog_trio.security.permissions import Action, EverybodyMay


def test_without_a_policy_everybody_may() -> None:
    assert all(EverybodyMay().allows("nobody", action) for action in Action)
