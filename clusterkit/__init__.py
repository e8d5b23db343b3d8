"""clusterkit: a personal SLURM cluster, a parameter grid on it, one table of results.

The public names. `log`, `params` and `checkpoint_dir` are for scripts (they also work outside a
task); `load` is for notebooks. Nothing heavy is imported until `load` is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterkit.node.task import checkpoint_dir, log, params

if TYPE_CHECKING:
    from clusterkit.harvest import load

__all__ = ["checkpoint_dir", "load", "log", "params"]


def __getattr__(name: str) -> object:
    if name == "load":
        try:
            from clusterkit.harvest import load
        except ModuleNotFoundError as error:
            # On a cluster only clusterkit.node is shipped.
            raise AttributeError(
                f"clusterkit.load works where results were harvested, not inside a task ({error})"
            ) from error
        return load
    raise AttributeError(f"module 'clusterkit' has no attribute {name!r}")
