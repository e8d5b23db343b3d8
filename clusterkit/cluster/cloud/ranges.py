"""Numbers of machines as a label holds them: 1, 2, 3, 7 is "1-3_7". Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PART = re.compile(r"(\d+)(?:-(\d+))?")


def text(numbers: Iterable[int]) -> str:
    """The numbers in their order; only runs that rise by one are drawn together."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return "_".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def parse(said: str) -> tuple[int, ...]:
    """The numbers of a label; those of one that somebody else wrote are empty."""
    found: list[int] = []
    for part in said.split("_"):
        match = _PART.fullmatch(part)
        if match is None:
            return ()
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 <= last - first <= 100_000:
            return ()
        found += range(first, last + 1)
    return tuple(found)
