"""Results as one flat table, one row a task; as a file; as a summary over seeds."""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from clusterkit.errors import ClusterkitError, UsageError
from clusterkit.records import Experiment, TaskRow, TaskState

#: What stands in every row, after parameters and results.
FACTS = (
    "state", "reason", "exit_code", "seconds", "peak_memory", "node", "attempt", "task", "point",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """`columns` in order; every row has all of them. `params` and `results` name theirs."""

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    params: tuple[str, ...]
    results: tuple[str, ...]
    axes: tuple[str, ...]  # the parameters that vary, as columns


def build(experiment: Experiment, tasks: Sequence[TaskRow]) -> Table:
    """A column for each parameter and each result, then the facts; nested mappings are flattened.

    Names that clash are prefixed, never dropped: a result that is called like a parameter or a fact
    becomes `result.<name>`, a parameter that is called like a fact `param.<name>`.
    """
    params = [_flat(task.params) for task in tasks]
    results = [_flat(task.result or {}) for task in tasks]
    param_names = _names(params)
    result_names = _names(results)
    taken = set(FACTS)
    param_columns = {name: _free(name, "param", taken) for name in param_names}
    taken.update(param_columns.values())
    result_columns = {name: _free(name, "result", taken) for name in result_names}
    columns = (*param_columns.values(), *result_columns.values(), *FACTS)
    rows = []
    for task, given, found in zip(tasks, params, results, strict=True):
        row: dict[str, Any] = dict.fromkeys(columns)
        row.update({param_columns[name]: value for name, value in given.items()})
        row.update({result_columns[name]: value for name, value in found.items()})
        row.update(
            state=str(task.state),
            reason=task.reason,
            exit_code=task.exit_code,
            seconds=task.seconds,
            peak_memory=task.peak_memory,
            node=task.node,
            attempt=task.attempt,
            task=task.index,
            point=task.point,
        )
        rows.append(row)
    axes = tuple(
        column
        for name, column in param_columns.items()
        if name in experiment.axes or name.split(".")[0] in experiment.axes
    )
    return Table(
        columns,
        tuple(rows),
        tuple(param_columns.values()),
        tuple(result_columns.values()),
        axes,
    )


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found.update({f"{name}.{key}": item for key, item in _flat(value).items()})
        else:
            found[name] = value
    return found


def _names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """All names in order of first appearance."""
    found: dict[str, None] = {}
    for row in rows:
        found.update(dict.fromkeys(row))
    return list(found)


def _free(name: str, prefix: str, taken: set[str]) -> str:
    while name in taken:
        name = f"{prefix}.{name}"
    taken.add(name)
    return name


# ---- files -----------------------------------------------------------------------------------


def write(table: Table, target: Path) -> None:
    """Write .csv, .json (a list of objects) or .parquet; the file appears whole or not at all.

    Raises UsageError for another ending, ClusterkitError when it cannot be written.
    """
    writer = _WRITERS.get(target.suffix.lower())
    if writer is None:
        known = ", ".join(_WRITERS)
        raise UsageError(f"{target}: the file's name must end with one of {known}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                writer(table, file)
                file.flush()
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            Path(name).chmod(0o666 & ~mask)
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ClusterkitError(f"{target}: cannot be written: {error.strerror}") from error


def check_target(target: Path) -> None:
    """Raise UsageError at once for a name that `write` would refuse at the end."""
    if target.suffix.lower() not in _WRITERS:
        raise UsageError(f"{target}: the file's name must end with one of {', '.join(_WRITERS)}")


def _write_csv(table: Table, file: IO[bytes]) -> None:
    import csv
    import io

    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    rows = csv.writer(text)
    rows.writerow([_writable(column) for column in table.columns])
    for row in table.rows:
        rows.writerow([_cell(row[column]) for column in table.columns])
    text.detach()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return _writable(value)
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _writable(text: str) -> str:
    """Half a surrogate pair (a file's name that is no UTF-8, say) becomes its escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _write_json(table: Table, file: IO[bytes]) -> None:
    file.write(as_json(table).encode() + b"\n")


def as_json(table: Table) -> str:
    """A list of objects. JSON knows no NaN and no infinity: they become null."""
    return json.dumps([_finite(dict(row)) for row in table.rows], indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


def _write_parquet(table: Table, file: IO[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {
        _writable(name): _column([row[name] for row in table.rows], pa) for name in table.columns
    }
    pq.write_table(pa.table(arrays), file)


def _column(values: list[Any], pa: Any) -> Any:
    """One type a column: numbers together are floats, other mixtures are their JSON texts."""
    values = [_writable(value) if isinstance(value, str) else value for value in values]
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and len(kinds) == 2:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    if len(kinds) == 1 and kinds <= {bool, int, float, str}:
        try:
            return pa.array(values)
        except (pa.ArrowInvalid, OverflowError):
            pass  # an integer beyond 64 bits stays a text
    if not kinds:
        return pa.nulls(len(values))
    return pa.array(
        [None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values],
        pa.string(),
    )


_WRITERS: Mapping[str, Callable[[Table, IO[bytes]], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
    ".parquet": _write_parquet,
}


# ---- the summary -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Summary:
    """Completed tasks, grouped by all axes but `seed`.

    A cell of `groups` is a parameter's value, the number of tasks, or (mean, standard deviation)
    of a result; the deviation is the sample's (n - 1), None for a single task.
    """

    columns: tuple[str, ...]
    groups: tuple[tuple[Any, ...], ...]
    results: tuple[str, ...]


def summarise(table: Table) -> Summary:
    """Mean ± standard deviation over seeds of every numeric result."""
    keys = [axis for axis in table.axes if axis not in ("seed", "param.seed")]
    done = [row for row in table.rows if row["state"] == TaskState.COMPLETED]
    numeric = [
        name
        for name in table.results
        if any(_is_number(row[name]) for row in done)
        and all(row[name] is None or _is_number(row[name]) for row in done)
    ]
    if not numeric:
        numeric = ["seconds"]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in done:
        groups.setdefault(json.dumps([row[key] for key in keys]), []).append(row)
    found = []
    for rows in groups.values():
        cells: list[Any] = [rows[0][key] for key in keys]
        cells.append(len(rows))
        for name in numeric:
            values = [float(row[name]) for row in rows if row[name] is not None]
            cells.append(mean(values))
        found.append(tuple(cells))
    return Summary((*keys, "n", *numeric), tuple(found), tuple(numeric))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def mean(values: list[float]) -> tuple[float, float | None] | None:
    """Mean and sample standard deviation; None for no values."""
    if not values:
        return None
    if not all(math.isfinite(value) for value in values):
        return math.nan, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
