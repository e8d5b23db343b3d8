"""What `start`, `stop` and `resize` tell while they work, and how long it took last time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from clusterkit.paths import Home


class Watch(Protocol):
    """Somebody who looks on. Calls may come from several threads."""

    def phase(self, name: str, expected: float | None) -> None:
        """A phase begins; `expected` are the seconds it took last time."""

    def host(self, name: str, doing: str) -> None:
        """What a machine does now."""

    def say(self, line: str) -> None:
        """A note to keep."""


class Nobody:
    """Nobody looks on."""

    def phase(self, name: str, expected: float | None) -> None:
        """See Watch."""

    def host(self, name: str, doing: str) -> None:
        """See Watch."""

    def say(self, line: str) -> None:
        """See Watch."""


class Phases:
    """Tells a Watch the phases with their expected seconds, and keeps the true ones.

    They are kept in timings.json in the cluster's folder when the work ended well.
    """

    def __init__(self, watch: Watch, home: Home, cluster: str) -> None:
        self._watch = watch
        self._file = home.cluster(cluster) / "timings.json"
        self._known = _read(self._file)
        self._seconds: dict[str, float] = {}
        self._now: tuple[str, float] | None = None

    def __call__(self, name: str) -> None:
        self._close()
        self._now = (name, time.monotonic())
        self._watch.phase(name, self._known.get(name))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        if kind is None and self._file.parent.is_dir():
            staging = self._file.with_name(f".{self._file.name}.new")
            staging.write_text(json.dumps(self._known | self._seconds, indent=1))
            staging.rename(self._file)

    def _close(self) -> None:
        if self._now is not None:
            name, began = self._now
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - began
            self._now = None


def _read(file: Path) -> dict[str, float]:
    try:
        data = json.loads(file.read_text())
        return {str(name): float(seconds) for name, seconds in data.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # expected times are a comfort only
