"""How regular expressions from outside are compiled: in the agents' own dialect, with a bound, in silence."""

from __future__ import annotations

import re2

EXPRESSION_BYTES = 64 * 1024
"""The memory that matching one expression may take; RE2 keeps the last 128 of them."""


def _bounded() -> re2.Options:
    options = re2.Options()
    options.max_mem = EXPRESSION_BYTES
    options.log_errors = False
    return options


BOUNDED = _bounded()
