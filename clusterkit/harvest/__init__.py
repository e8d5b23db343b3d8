"""From the cluster's journals to a table, a plot, a report.

collect   bring in what is new
files     gather the files that tasks left
keep      bring all files, and prove it, before their machines go
table     one row a task: as records, a file, a summary
report    a plot of the results
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from clusterkit import paths

if TYPE_CHECKING:
    import pandas as pd


def load(experiment: str | None = None, *, series: bool = False) -> pd.DataFrame:
    """The results of an experiment, as far as they were harvested, as a pandas DataFrame.

    One row a task (its columns: see docs/harvest.md); with `series`, one row for each call of
    `clusterkit.log`: task, attempt, time (seconds since 1970), step, and the values given to it.
    `experiment` is an id, the beginning of one, or a name; None means the latest.
    Raises UnknownExperiment.
    """
    import pandas as pd

    from clusterkit.harvest import table
    from clusterkit.store import Store

    # A notebook has no command line above it: the environment is read here.
    store = Store(paths.home(os.environ.get("CLUSTERKIT_HOME")).prepared().database)
    found = store.experiment(experiment)
    if series:
        return pd.DataFrame.from_records(
            [
                {"task": task, "attempt": attempt, "time": time, "step": step, **values}
                for task, attempt, time, step, values in store.series(found.id)
            ]
        )
    made = table.build(found, store.tasks(found.id))
    return pd.DataFrame.from_records(made.rows, columns=list(made.columns))
