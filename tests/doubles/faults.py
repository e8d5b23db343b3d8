"""Bad days, by plan, of any double: which calls are struck, and calls that are held."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

Effect = Literal["before", "after"]
#: Whether a call is counted, by its action; asked once for each.
Counts = Callable[[str], bool]


def every(action: str) -> bool:
    """All calls are."""
    del action
    return True


@dataclass
class Fault:
    """What happens to calls of `action` (a pattern) after `after` of them, to `times` of them
    (None: to all). What `what` may be, each double says.
    """

    action: str
    what: str
    times: int | None = 1
    after: int = 0
    words: str = ""
    seconds: float = 1.0
    #: How many calls it happened to.
    hits: int = 0

    def strikes(self, action: str) -> bool:
        """Whether it happens to this call, which is counted."""
        if not fnmatch.fnmatchcase(action, self._pattern()):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        self.hits += 1
        return True

    def _pattern(self) -> str:
        return self.action


@dataclass
class Hold:
    """A call that waits: the n-th from when it was planned, before or after it took effect.

    Of calls that do not count it is none. `reached` is set when it waits there; `action` says what
    it is.
    """

    at: int
    effect: Effect = "before"
    counts: Counts = every
    action: str = ""
    reached: threading.Event = field(default_factory=threading.Event)
    dropped: bool = False
    _go: threading.Event = field(default_factory=threading.Event)

    def release(self, *, drop: bool = False) -> None:
        """Let it go on. `drop`: the caller has died meanwhile, and the call never arrived."""
        self.dropped = drop
        self._go.set()

    def wait(self, action: str) -> None:
        self.action = action
        self.reached.set()
        self._go.wait()


def holding(holds: Iterable[Hold], action: str) -> list[Hold]:
    """Those that hold this call, which is counted."""
    found = []
    for hold in list(holds):
        counted = hold.counts(action)
        hold.at -= counted
        if counted and hold.at == 0:
            found.append(hold)
    return found
