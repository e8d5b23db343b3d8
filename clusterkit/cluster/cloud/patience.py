"""How long a cloud is asked again: pauses that grow, and end."""

from __future__ import annotations

import random
import time

#: The first pause and the longest, in seconds.
_PAUSE, _PAUSE_AT_MOST = 1.0, 20.0


class Pauses:
    """Pauses that grow, with some chance in them, until their sum is `bound` seconds.

    Where the cloud is slow to answer as well, they end after four times as long.
    """

    def __init__(self, bound: float) -> None:
        self._left = bound
        self._until = time.monotonic() + 4 * bound
        self._most = _PAUSE

    def next(self) -> float | None:
        """Seconds to wait; None when it has been enough."""
        if self._left <= 0 or time.monotonic() > self._until:
            return None
        seconds = min(self._left, random.uniform(self._most / 2, self._most))  # noqa: S311
        self._left -= seconds
        self._most = min(2 * self._most, _PAUSE_AT_MOST)
        return seconds
