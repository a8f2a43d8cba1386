from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proglog_trio.rpc.server.identity import Identity, identity_of

EXPIRY = "Jan  2 00:00:00 2030 GMT"
SECONDS = 1_893_542_400


def of(certificate: dict[str, Any] | None) -> Identity:
    return identity_of(asyncio.BaseTransport({} if certificate is None else {"peercert": certificate}))


def named(*names: str, **fields: Any) -> dict[str, Any]:
    subject = ((("organizationName", "proglog"),), *((("commonName", name),) for name in names))
    return {"subject": subject, "notAfter": EXPIRY, **fields}


def test_the_common_name_is_the_subject() -> None:
    identity = of(named("root"))
    assert (identity.subject, identity.expires) == ("root", SECONDS)
    assert not identity.is_expired(lambda: SECONDS - 1)
    assert identity.is_expired(lambda: SECONDS)


@pytest.mark.parametrize(
    ("certificate", "problem"),
    [
        (None, "none was sent"),
        ({}, "none was sent"),
        (named(), "0 common names"),
        (named("root", "nobody"), "2 common names"),
        (named(""), "1 common names"),
        ({"notAfter": EXPIRY}, "0 common names"),
        (named("root", notAfter="some day"), "until when it is valid"),
        ({"subject": ((("commonName", "root"),),)}, "until when it is valid"),
    ],
)
def test_whatever_does_not_name_one_subject_is_nobody(certificate: dict[str, Any] | None, problem: str) -> None:
    identity = of(certificate)
    assert identity.subject is None
    assert problem in identity.problem
    assert not identity.is_expired()
