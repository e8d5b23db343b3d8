"""That this file is here puts tests/ on the path of imports: tests import `doubles`."""

from __future__ import annotations

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Why tests failed that passed when they were run once more: nothing else would tell."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"run once more: {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)
