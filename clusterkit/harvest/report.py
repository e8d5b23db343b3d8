"""A plot of the results: one result over one parameter, a line for each value of a second one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterkit.errors import ClusterkitError, UsageError
from clusterkit.harvest import table
from clusterkit.harvest.table import Table


@dataclass(frozen=True, slots=True)
class Axes:
    """What is drawn: names of the table's columns."""

    x: str
    y: str
    by: str | None


def choose(made: Table, x: str | None, y: str | None, by: str | None) -> Axes:
    """Fill in what the user did not say: the first varying number over the first result.

    Raises UsageError, naming what there is, for a column that does not exist or when nothing fits.
    """
    summary = table.summarise(made)
    for name, allowed in ((x, made.params), (y, summary.results), (by, made.params)):
        if name is not None and name not in allowed:
            raise UsageError(
                f"there is no column {name!r} to draw; there are: {', '.join(allowed)}"
            )
    varying = [axis for axis in made.axes if axis not in ("seed", "param.seed")]
    if x is None:
        numeric = [a for a in varying if a != by and _numeric(made, a)]
        x = next(iter([*numeric, *(a for a in varying if a != by)]), None)
        if x is None:
            raise UsageError("nothing varies but the seed: name a column with --x")
    if by is None:
        by = next((axis for axis in varying if axis != x), None)
    return Axes(x, y or _preferred(summary.results), by)


def _preferred(results: Sequence[str]) -> str:
    """What people look at first, when the script has it."""
    for word in ("accuracy", "score", "loss"):
        for name in results:
            if name == word:
                return name
    return results[0]


def _numeric(made: Table, name: str) -> bool:
    return all(
        isinstance(row[name], (int, float)) and not isinstance(row[name], bool) for row in made.rows
    )


def plot(made: Table, axes: Axes, target: Path, title: str) -> None:
    """Draw mean and standard deviation over all that is not shown, into a .png, .svg or .pdf.

    Raises UsageError for another ending, ClusterkitError when matplotlib is missing, nothing is
    completed yet, or the file cannot be written.
    """
    if target.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageError(f"{target}: a plot's name must end with .png, .svg or .pdf")
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ClusterkitError("plots need matplotlib: pip install matplotlib") from error
    groups = _groups(made, axes)
    if not groups:
        raise ClusterkitError("no task is completed yet: there is nothing to draw")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained", dpi=150)
    drawing = figure.subplots()
    positions = _positions([x for line in groups.values() for x in line], _numeric(made, axes.x))
    for name, line in groups.items():
        xs = sorted(line, key=lambda value: positions[_key(value)])
        statistics = [table.mean(line[x]) for x in xs]
        points = [
            (positions[_key(x)], found[0], found[1] or 0.0)
            for x, found in zip(xs, statistics, strict=True)
            if found is not None
        ]
        drawing.errorbar(
            [p[0] for p in points],
            [p[1] for p in points],
            yerr=[p[2] for p in points],
            marker="o",
            markersize=4,
            capsize=3,
            linewidth=1.4,
            label=None if name is None else f"{axes.by} = {name}",
        )
    if _numeric(made, axes.x):
        values = sorted(positions.values())
        if values[0] > 0 and values[-1] / values[0] >= 16:
            drawing.set_xscale("log")
        if len(values) <= 10:
            drawing.set_xticks(values, [f"{value:g}" for value in values])
            drawing.minorticks_off()
    else:
        drawing.set_xticks(list(positions.values()), list(positions))
    drawing.set_xlabel(axes.x)
    most = max(len(values) for line in groups.values() for values in line.values())
    drawing.set_ylabel(axes.y + (f" (mean ± std, n = {most})" if most > 1 else ""))
    drawing.set_title(title, fontsize="medium")
    drawing.grid(alpha=0.3)
    if axes.by is not None:
        drawing.legend(fontsize="small")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target)
    except OSError as error:
        raise ClusterkitError(f"{target}: cannot be written: {error.strerror}") from error


def _groups(made: Table, axes: Axes) -> dict[str | None, dict[Any, list[float]]]:
    found: dict[str | None, dict[Any, list[float]]] = {}
    for row in made.rows:
        if row["state"] != "COMPLETED" or row[axes.y] is None:
            continue
        name = None if axes.by is None else str(row[axes.by])
        x = row[axes.x]
        line = found.setdefault(name, {})
        line.setdefault(x if isinstance(x, (int, float)) else str(x), []).append(float(row[axes.y]))
    return found


def _key(value: Any) -> str:
    return str(value)


def _positions(values: Sequence[Any], numeric: bool) -> dict[str, float]:
    distinct = {_key(value): value for value in values}
    if numeric:
        return {key: float(value) for key, value in distinct.items()}
    return {key: float(place) for place, key in enumerate(distinct)}
