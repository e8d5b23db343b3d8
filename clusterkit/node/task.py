"""What a script may call: `log`, `params`, `checkpoint_dir`. All work outside a task too."""

from __future__ import annotations

import json
import os
from typing import Any, Optional

#: Every reader of JSON has a limit.
MAX_DEPTH = 64

_journal: Optional[int] = None
_journal_path: Optional[str] = None


def log(step: Optional[float] = None, **values: Any) -> None:
    """Record results of this task, as often as you like: `log(loss=0.3, step=7)`.

    Values are numbers, strings, booleans, None, or lists and dicts of them; scalars of NumPy and
    PyTorch are taken as numbers, arrays as lists. The last value of each name becomes a column of
    the results' table; all of them together are the task's series. Outside a task the values are
    printed. Raises TypeError for a value that is none of these, or nested too deep, naming it.
    """
    plain = {name: _plain(name, value) for name, value in values.items()}
    path = os.environ.get("CLUSTERKIT_JOURNAL")
    if path is None:
        at = "" if step is None else f"step={step} "
        print(at + " ".join(f"{name}={value}" for name, value in plain.items()), flush=True)
        return
    from clusterkit.node import journal

    record: dict[str, Any] = {
        "task": int(os.environ["CLUSTERKIT_TASK"]),
        "attempt": int(os.environ["CLUSTERKIT_ATTEMPT"]),
        "values": plain,
    }
    if step is not None:
        record["step"] = _plain("step", step)
    journal.append(_descriptor(path), journal.line("log", record))


def params() -> dict[str, Any]:
    """This task's point, as a dict; empty outside a task."""
    found = json.loads(os.environ.get("CLUSTERKIT_PARAMS", "{}"))
    assert isinstance(found, dict)
    return found


def checkpoint_dir() -> str:
    """A folder that is the same in every attempt at this task; outside a task `./checkpoint`.

    Write to a temporary name and rename, so that an attempt that is cut off leaves a whole file.
    """
    folder = os.environ.get("CLUSTERKIT_CHECKPOINT", os.path.join(os.getcwd(), "checkpoint"))
    os.makedirs(folder, exist_ok=True)
    return folder


def _descriptor(path: str) -> int:
    global _journal, _journal_path  # noqa: PLW0603 - one open file a process
    if _journal is None or _journal_path != path:
        _journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        _journal_path = path
    return _journal


def _plain(name: str, value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        # Subclasses (numpy.float64 is a float, an IntEnum is an int) become what they stand for.
        if isinstance(value, float):
            return float(value)
        return value
    if depth > MAX_DEPTH:
        raise TypeError(f"clusterkit.log: {name} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {str(key): _plain(f"{name}.{key}", item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(name, item, depth + 1) for item in value]
    tolist = getattr(value, "tolist", None)  # NumPy, PyTorch, JAX: scalars and arrays
    if callable(tolist):
        return _plain(name, tolist(), depth + 1)
    raise TypeError(
        f"clusterkit.log: {name} is a {type(value).__module__}.{type(value).__qualname__}; "
        "give a number, a string, or lists and dicts of them"
    )


if hasattr(os, "register_at_fork"):  # a forked child of a task opens the journal for itself

    def _forget() -> None:
        global _journal  # noqa: PLW0603
        _journal = None

    os.register_at_fork(after_in_child=_forget)
