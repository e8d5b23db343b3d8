"""harvest, history."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click

from clusterkit.cli import progress as tracking
from clusterkit.errors import UsageError
from clusterkit.harvest import files, report, table
from clusterkit.paths import Home
from clusterkit.records import Experiment, TaskState
from clusterkit.store import Store
from clusterkit.sweep.track import Progress

#: How many groups the summary shows.
MOST_GROUPS = 40


@click.command("harvest")
@click.argument("experiment_name", metavar="[EXPERIMENT]", required=False)
@click.option(
    "--to", "target", type=click.Path(path_type=Path), help="Write a .csv, .json or .parquet."
)
@click.option("--files", "pattern", help="Gather files of the tasks' folders, such as '*.npz'.")
@click.option(
    "--into", type=click.Path(path_type=Path), help="Where to [default: <name>-<id>/<task>/...]."
)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw a .png, .svg or .pdf.")
@click.option("--x", help="Parameter on the plot's x axis [default: the first one that varies].")
@click.option("--y", help="Result on the plot's y axis [default: accuracy, loss, or the first].")
@click.option("--by", help="Parameter that gets a line for each value [default: the second one].")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@click.pass_obj
def harvest_command(
    home: Home,
    experiment_name: str | None,
    target: Path | None,
    pattern: str | None,
    into: Path | None,
    plot: Path | None,
    x: str | None,
    y: str | None,
    by: str | None,
    as_json: bool,
) -> None:
    """Bring in everything that is new, and show or export EXPERIMENT (default: the latest)."""
    if target is not None:
        table.check_target(target)
    if plot is None and (x or y or by):
        raise UsageError("--x, --y and --by are for --plot FILE")
    if into is not None and pattern is None:
        raise UsageError("--into is for --files PATTERN")
    store = Store(home.prepared().database)
    experiment = store.experiment(experiment_name)
    unreachable = _bring_in(store, home, experiment)
    if pattern is not None:
        connection, there = tracking.files_of(home, experiment)
        folder = into or Path(f"{experiment.name}-{experiment.id}".replace("/", "-"))
        new, all_ = files.gather(connection, there, pattern, folder)
        click.echo(f"{folder}: {new} new files, {all_} in all", err=as_json)
    made = table.build(experiment, store.tasks(experiment.id))
    if target is not None:
        table.write(made, target)
    if plot is not None:
        title = experiment.name + (f": {experiment.message}" if experiment.message else "")
        report.plot(made, report.choose(made, x, y, by), plot, title)
    if as_json:
        click.echo(table.as_json(made))
        return
    found = tracking.progress(store, experiment)
    if target is None:
        _show_summary(experiment, found, table.summarise(made))
    else:
        click.echo(f"{target}: {len(made.rows)} rows of {experiment.id} ({experiment.name})")
    if plot is not None:
        click.echo(f"{plot}: drawn")
    if not found.finished or found.done < experiment.tasks:
        click.echo(f"{experiment.id}: {tracking.counts(found)}.", err=target is not None)
    if unreachable:
        click.echo(f"As last known: {unreachable}", err=True)


def _bring_in(store: Store, home: Home, wanted: Experiment) -> str | None:
    """Harvest every experiment that may have news; why the wanted one's cluster is out of reach."""
    final = {TaskState.COMPLETED, TaskState.FAILED}
    counts = store.counts()
    unreachable = None
    for experiment in store.experiments():
        if experiment.id == wanted.id:
            unreachable = tracking.refresh_as_possible(store, home, experiment)
        elif set(counts.get(experiment.id, ())) - final:
            tracking.refresh_as_possible(store, home, experiment)
    return unreachable


def _show_summary(experiment: Experiment, found: Progress, summary: table.Summary) -> None:
    click.echo(
        f"{experiment.id}  {experiment.name}: {found.done} of {experiment.tasks} tasks completed"
        + (f'  "{experiment.message}"' if experiment.message else "")
    )
    if not summary.groups:
        return
    head = [*summary.columns]
    rows = [[_cell(value) for value in group] for group in summary.groups[:MOST_GROUPS]]
    widths = [max(len(line[place]) for line in [head, *rows]) for place in range(len(head))]
    for line in [head, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo("  " + "  ".join(cells))
    if len(summary.groups) > MOST_GROUPS:
        click.echo(f"  ... and {len(summary.groups) - MOST_GROUPS} more; --to FILE has all")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        mean, deviation = value
        if deviation is None:
            return _number(mean)
        digits = 4 if deviation == 0 else max(0, min(8, 1 - math.floor(math.log10(deviation))))
        if abs(mean) >= 1e6 or digits == 8:
            return f"{mean:.3g} ± {deviation:.2g}"
        return f"{mean:.{digits}f} ± {deviation:.{digits}f}"
    if isinstance(value, float):
        return _number(value)
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: float) -> str:
    return f"{value:.4g}"


@click.command("history")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_obj
def history_command(home: Home, as_json: bool) -> None:
    """List all experiments, the newest first, as far as they were harvested."""
    store = Store(home.prepared().database)
    counts = store.counts()
    found = store.experiments()
    if as_json:
        click.echo(
            json.dumps(
                [
                    {
                        "id": e.id,
                        "name": e.name,
                        "message": e.message,
                        "created": e.created.isoformat(),
                        "cluster": e.cluster,
                        "tasks": e.tasks,
                        "commit": e.commit,
                        "states": {str(s): n for s, n in counts.get(e.id, {}).items()},
                    }
                    for e in found
                ],
                indent=1,
            )
        )
        return
    if not found:
        click.echo("No experiment yet: `clusterkit parrun SCRIPT --grid grid.yaml` makes one.")
    for experiment in found:
        states = tracking.counts(Progress(counts.get(experiment.id, {}), None, None))
        when = experiment.created.astimezone().strftime("%Y-%m-%d %H:%M")
        message = f'  "{experiment.message}"' if experiment.message else ""
        click.echo(
            f"{experiment.id}  {when}  {experiment.cluster:<8} {experiment.name}: {states}{message}"
        )
