"""What the pages for developers say of the code: the files that they name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "proglog_trio"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/explanation/walk.md"])
def test_files_are_where_the_page_says(page: str) -> None:
    text = (REPOSITORY / page).read_text("utf-8")
    named = set(re.findall(r"`([\w/]+(?:\.py|\.proto|/))`", text))
    assert len(named) > 20
    # a name alone is in the folder of the one before it
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    missing = {
        name
        for name in named
        if not any(
            (root / name).exists() for root in ({PACKAGE, REPOSITORY} if "/" in name else {REPOSITORY, *folders})
        )
    }
    assert not missing
