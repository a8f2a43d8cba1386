"""Who may do what: a casbin model and policy, as those of the book *Distributed Services with Go*.

The subject is a certificate's common name, the object always `*`, the action one of ours. Policies written for the book
name only produce and consume. Those give `replicate` to a subject that may do both, which is what a node of the book
needs to copy another's records, and `admin` to none.

A node that is given a policy imports this when it starts: casbin is as much to load as a tenth of a node.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import casbin
import structlog
from attrs import define, field
from casbin.persist.adapter import Adapter, load_policy_line

from proglog_trio.errors import SecurityFileError
from proglog_trio.security.permissions import OBJECT, Action, Policy
from proglog_trio.security.reloading import FromFiles

_PLAIN_MODEL = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.act == p.act && r.obj == p.obj && r.sub == p.sub
"""
"""Where no model is given: a subject may do what a rule says word for word."""
_logger = structlog.get_logger(__name__)

_ACTIONS = frozenset(action.value for action in Action)
_QUOTES = frozenset("\"'\u201c\u201d\u2018\u2019")

MAX_DECISIONS = 4096
"""Decisions that are remembered. Subjects are as many as the authorities have signed."""


class AccessPolicyError(SecurityFileError):
    """A model or policy that cannot be used; the message says where, and what is wrong."""


class _PolicyLines(Adapter):  # type: ignore[misc]  # casbin has no types
    """Reads a policy file, and says which line is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names_our_actions = False

    def load_policy(self, model: Any) -> None:  # noqa: ANN401 - casbin has no types
        """Read all lines into the model; casbin's name for it."""
        text = _read(self.path)
        for number, line in enumerate(text.splitlines(), 1):
            stripped = line.strip()
            if not stripped or stripped.startswith("#"):
                continue
            try:
                self._load_line(stripped, model)
            except (AccessPolicyError, IndexError) as error:
                reason = str(error) if isinstance(error, AccessPolicyError) else "it is no rule"
                raise AccessPolicyError(f"{self.path}, line {number}: {reason}") from None

    def _load_line(self, line: str, model: Any) -> None:  # noqa: ANN401 - casbin has no types
        kind = line.partition(",")[0].strip()
        definition = model.model.get(kind[:1], {}).get(kind)
        if definition is None:
            raise AccessPolicyError(f"the model has no {kind!r}")
        quoted = next((field for field in map(str.strip, line.split(",")) if _QUOTES & {*field[:1], *field[-1:]}), None)
        if quoted is not None:
            raise AccessPolicyError(f"{quoted} has quotation marks, which would be a part of it: leave them out")
        before = len(definition.policy)
        load_policy_line(line, model)
        (rule,) = definition.policy[before:]
        wanted = len(definition.tokens) or definition.value.count("_")  # roles have no names, only places
        if len(rule) != wanted:
            raise AccessPolicyError(f"{len(rule)} fields follow {kind!r}, the model has {wanted}")
        if kind.startswith("p"):
            # Not in the first field: a subject may well be called admin.
            place = definition.tokens.index(f"{kind}_act") if f"{kind}_act" in definition.tokens else slice(1, None)
            named = rule[place] if isinstance(place, slice) else [rule[place]]
            if not isinstance(place, slice) and _compares_actions(model, kind) and rule[place] not in _ACTIONS:
                raise AccessPolicyError(f"{rule[place]!r} is no action: there are {', '.join(sorted(_ACTIONS))}")
            self.names_our_actions |= not {Action.REPLICATE.value, Action.ADMIN.value}.isdisjoint(named)


@define(eq=False)
class AccessPolicy:
    """A casbin policy; see the module for what one without our own actions means."""

    _enforcer: Any
    _names_our_actions: bool
    _decided: dict[tuple[str, Action], bool] = field(factory=dict)

    @classmethod
    def read(cls, model: Path | None, policy: Path) -> FromFiles[Policy]:
        """Read both files; the result can read them again. Raises AccessPolicyError; model: see load."""
        paths = [path for path in (model, policy) if path is not None]
        return FromFiles.read("the access policy", paths, lambda: cls.load(model, policy))

    @classmethod
    def load(cls, model: Path | None, policy: Path) -> AccessPolicy:
        """Return what the files say; model: None if the policy has subjects, objects and actions, and nothing else.

        Raises:
            AccessPolicyError: they cannot be used.
        """
        lines = _PolicyLines(policy)
        try:
            casbin_model = casbin.Enforcer.new_model(text=_PLAIN_MODEL if model is None else _read(model))
        except AccessPolicyError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever casbin's parser runs into, the file is what is wrong
            raise AccessPolicyError(f"{model} is no casbin model: {_reason(error)}") from None
        try:
            enforcer = casbin.Enforcer(casbin_model, lines)
            # Each rule's own subject: an expression is evaluated only as far as it has to be.
            for subject in {"nobody", *(rule[0] for rule in enforcer.get_policy())}:
                enforcer.enforce(subject, OBJECT, Action.PRODUCE.value)
        except AccessPolicyError:
            raise
        except Exception as error:  # noqa: BLE001 - see above
            named = "the model for plain rules" if model is None else model
            raise AccessPolicyError(
                f"{policy} and {named} do not answer whether a subject may do an action: {_reason(error)}"
            ) from None
        return cls(enforcer, lines.names_our_actions)

    def allows(self, subject: str, action: Action) -> bool:
        """Tell whether a subject may do this."""
        asked = (subject, action)
        known = self._decided.get(asked)
        if known is None:
            # All at once: a policy is asked for the same few subjects again and again, and these are back at once.
            if len(self._decided) >= MAX_DECISIONS:
                self._decided.clear()
            known = self._decided[asked] = self._decide(subject, action)
        return known

    def _decide(self, subject: str, action: Action) -> bool:
        if not self._names_our_actions:
            if action is Action.ADMIN:
                return False
            if action is Action.REPLICATE:
                return self.allows(subject, Action.PRODUCE) and self.allows(subject, Action.CONSUME)
        try:
            return bool(self._enforcer.enforce(subject, OBJECT, action.value))
        except Exception:
            # A matcher that fails for some subjects alone; a subject that it cannot judge is denied.
            _logger.exception("the access policy cannot be asked", subject=subject, action=action.value)
            return False


def _compares_actions(model: Any, kind: str) -> bool:  # noqa: ANN401 - casbin has no types
    """Tell whether a rule's action is compared as it stands, so that one that is never asked for permits nothing."""
    matchers = [each.value.replace(" ", "") for each in model.model.get("m", {}).values()]
    plain = (f"r_act=={kind}_act", f"{kind}_act==r_act")
    return bool(matchers) and all(
        matcher.count(f"{kind}_act") == 1 and any(each in matcher for each in plain) for matcher in matchers
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _read(path: Path) -> str:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise AccessPolicyError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise AccessPolicyError(f"{path} is not UTF-8 text") from None
    if text.startswith("\ufeff"):
        raise AccessPolicyError(
            f"{path}, line 1: it begins with a byte order mark, which would be a part of the first rule: save the file "
            "as UTF-8 without one"
        )
    return text
