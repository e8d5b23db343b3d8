"""The batch script of a round, through templates/slot.sbatch.j2. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2

from clusterkit import paths
from clusterkit.records import SlurmRequest


@dataclass(frozen=True, slots=True)
class Round:
    """What one batch script says. Times in seconds; `time_limit` 0: unlimited."""

    experiment: str
    root: str  # the experiment's folder on the cluster
    number: int
    total: int  # tasks
    workers: int
    pack: bool
    time_limit: int
    grace: int
    job_name: str
    python: str
    program: str  # path of clusterkit/node/__main__.py on the cluster


def render(round_: Round, slurm: SlurmRequest) -> str:
    """The script's text. Values may hold spaces, quotes and `$(...)`; line breaks are refused.

    Raises ValueError for a value that no batch script can hold.
    """
    arguments = {
        "round": round_.number,
        "total": round_.total,
        "workers": round_.workers,
        "pack": round_.pack,
        "time_limit": round_.time_limit,
        "grace": round_.grace,
    }
    environment = jinja2.Environment(  # noqa: S701 - not HTML
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["shell"] = shlex.quote
    environment.filters["sbatch"] = _sbatch_quote
    text = (paths.templates() / "slot.sbatch.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(
        experiment=round_.experiment,
        round=round_.number,
        total=round_.total,
        options=_options(round_, slurm),
        python=round_.python,
        program=round_.program,
        root=round_.root,
        arguments=json.dumps(arguments),
    )


def _options(round_: Round, slurm: SlurmRequest) -> Sequence[tuple[str, str | bool]]:
    ours: Mapping[str, str | bool] = {
        "job-name": round_.job_name,
        "output": round_.root.replace("%", "%%") + "/slots/%A_%a.out",
        "open-mode": "append",
        "requeue": True,
    }
    return [*ours.items(), *slurm.options.items()]


def _sbatch_quote(value: str) -> str:
    """As sbatch's own reader of `#SBATCH` lines undoes it: double quotes, backslash escapes."""
    text = str(value)
    if any(character in text for character in "\n\r\0"):
        raise ValueError(f"a batch script cannot hold a line break: {text!r}")
    if text and all(c.isalnum() or c in "-_./:,@%+=~*[]" for c in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
