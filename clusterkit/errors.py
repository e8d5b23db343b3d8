"""The one exception tree.

    ClusterkitError              exit code 1: expected, explained, no traceback
    ├── UsageError               exit code 2: the command line or a file given to it is wrong
    │   └── FileProblems         every problem of one file, with line and key
    ├── ClusterError             a cluster could not be made, reached or ended
    │   ├── UnknownCluster
    │   ├── ClusterNotStarted
    │   └── SetupFailed          a playbook failed; names the task, the host and the log
    ├── SubmitError              the experiment was not submitted; says what to do next
    ├── UnknownExperiment        no such experiment; names the nearest ones
    ├── TransportError           a command could not be run or a file not moved
    │   ├── Unreachable          a machine does not answer, or does not let us in
    │   └── CommandFailed        a command ended with a non-zero exit code
    ├── StoreError               the database cannot be opened, written or understood
    └── Busy                     another clusterkit works on the same thing

A message says what failed, on what, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class ClusterkitError(Exception):
    """Base of all expected errors. `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(ClusterkitError):
    """The user's input is wrong; nothing was changed."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of one file. `line` counts from 1; None when the file as a whole is meant."""

    message: str
    line: int | None = None
    key: str = ""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        key = f"{self.key}: " if self.key else ""
        return f"{where}{key}{self.message}"


class FileProblems(UsageError):
    """All problems of one file at once."""

    def __init__(self, file: Path | str, problems: Sequence[Problem]) -> None:
        self.file = Path(file)
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{file}: {count}, nothing was changed:\n{lines}")


class ClusterError(ClusterkitError):
    """A cluster could not be made, reached or ended."""


class UnknownCluster(ClusterError):
    """No cluster of that name."""


class ClusterNotStarted(ClusterError):
    """The cluster is known but does not run."""


class SetupFailed(ClusterError):
    """A playbook failed."""


class SubmitError(ClusterkitError):
    """An experiment was not submitted."""


class UnknownExperiment(ClusterkitError):
    """No experiment of that id or name."""


class TransportError(ClusterkitError):
    """A command could not be run or a file not moved."""


class Unreachable(TransportError):
    """A machine could not be reached, or the connection to it broke.

    `why`: "silent" (no answer, refused, closed), "denied" (wrong account or key), "key" (its host
    key has changed or is not known), or "" (none of these).
    """

    def __init__(self, message: str, why: str = "") -> None:
        self.why = why
        super().__init__(message)


class CommandFailed(TransportError):
    """A command ended with a non-zero exit code, or took too long (`returncode` is None)."""

    def __init__(
        self, argv: Sequence[str], returncode: int | None, stdout: str, stderr: str, after: str = ""
    ) -> None:
        self.argv = tuple(argv)
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr
        how = after or f"exit code {returncode}"
        words = (stderr.strip() or stdout.strip())[-2000:]
        super().__init__(f"{argv[0]}: {how}" + (f": {words}" if words else ""))


class StoreError(ClusterkitError):
    """The database cannot be opened, written or understood."""


class Busy(ClusterkitError):
    """Another clusterkit works on the same thing."""
