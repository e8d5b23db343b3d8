"""How time passes while a cloud is waited for. Tests give a clock of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

#: Seconds between two looks: the first pause, and the longest.
_LOOK, _LOOK_AT_MOST = 0.3, 5.0


class Clock:
    """The true one."""

    def seconds(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def now(self) -> datetime:
        """The moment, in UTC."""
        return datetime.now(UTC)

    def pause(self, seconds: float, over: threading.Event) -> None:
        """Wait so long, or until the event is set."""
        over.wait(seconds)

    def until(
        self, done: Callable[[], bool], seconds: float, over: threading.Event | None = None
    ) -> bool:
        """Ask, ever more rarely, until it is done; False when `seconds` have passed without that,
        or `over` was set.
        """
        over = over or threading.Event()
        deadline, pause = self.seconds() + seconds, _LOOK
        while not done():
            if over.is_set() or self.seconds() >= deadline:
                return False
            self.pause(pause, over)
            pause = min(1.5 * pause, _LOOK_AT_MOST)
        return True
