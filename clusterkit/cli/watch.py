"""What `start`, `stop` and `resize` show while they work.

On a terminal the phase in hand is redrawn: its seconds, how long it took last time, and what each
machine does now. Elsewhere a phase is one line when it has ended, with its seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from clusterkit.cli.questions import Declined

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

#: Machines whose doings are shown, at most.
_MOST = 12


class Display:
    """A `cluster.watch.Watch` for the user's eyes; silent for `--json`."""

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self._terminal = not silent and sys.stdout.isatty()
        self._lock = threading.Lock()
        self._phase = ""
        self._began = 0.0
        self._expected: float | None = None
        self._hosts: dict[str, str] = {}
        self._live: Live | None = None

    def phase(self, name: str, expected: float | None) -> None:
        with self._lock:
            self._close("")
            self._phase, self._expected, self._began = name, expected, time.monotonic()
            self._hosts = {}

    def host(self, name: str, doing: str) -> None:
        with self._lock:
            self._hosts[name] = doing

    def say(self, line: str) -> None:
        if self._silent:
            return
        with self._lock:
            if self._live is not None:
                self._live.console.print(f"  {line}", style="dim", highlight=False, markup=False)
            else:
                click.echo(f"    {line}")

    def __enter__(self) -> Self:
        if self._terminal:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=sys.stdout)
            self._live = Live(get_renderable=self._draw, console=console, transient=True)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._close(_how(kind))
        if self._live is not None:
            self._live.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Draw nothing meanwhile: the user is asked something."""
        if self._live is not None:
            self._live.stop()
        try:
            yield
        finally:
            if self._live is not None:
                self._live.start()

    def _close(self, how: str) -> None:
        if not self._phase:
            return
        words = how or f"{time.monotonic() - self._began:6.1f} s"
        line = f"  {self._phase:<32}{words}"
        if self._live is not None:
            self._live.console.print(line, highlight=False, markup=False)
        elif not self._silent:
            click.echo(line)
            sys.stdout.flush()
        self._phase = ""

    def _draw(self) -> RenderableType:
        from rich.text import Text

        # No lock: drawing happens on another thread, and a frame may be a moment old.
        if not self._phase:
            return Text("")
        elapsed = time.monotonic() - self._began
        last = f"  (last time {self._expected:.1f} s)" if self._expected else ""
        text = Text(f"  {self._phase:<32}{elapsed:6.1f} s{last}\n")
        hosts = sorted(self._hosts.items())
        for name, doing in hosts[:_MOST]:
            text.append(f"      {name:<24}{doing}\n", style="dim")
        if len(hosts) > _MOST:
            text.append(f"      ... and {len(hosts) - _MOST} more\n", style="dim")
        return text


def _how(kind: type[BaseException] | None) -> str:
    """How a phase ended early, by what was raised; "": it did not."""
    if kind is None:
        return ""
    if issubclass(kind, Declined):
        return "not agreed to"
    if issubclass(kind, KeyboardInterrupt | click.Abort):
        return "interrupted"
    return "failed"
