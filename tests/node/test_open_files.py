from __future__ import annotations

import resource

import pytest

from proglog_trio.node.open_files import MAX_OPEN_FILES, allow_many_open_files, connections_that_fit


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ((1024, 4096), (4096, 4096)),
        ((1024, 1 << 20), (MAX_OPEN_FILES, 1 << 20)),
        ((1024, resource.RLIM_INFINITY), (MAX_OPEN_FILES, resource.RLIM_INFINITY)),
        ((4096, 4096), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_the_limit_is_raised(
    limits: tuple[int, int], wanted: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: set_to.append(new))
    allow_many_open_files()
    assert set_to == ([] if wanted is None else [wanted])


@pytest.mark.parametrize(("soft", "fit"), [(1024, 512), (100_000, 4096), (resource.RLIM_INFINITY, 4096), (256, 16)])
def test_the_log_has_files_left(soft: int, fit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert connections_that_fit(4096) == fit
