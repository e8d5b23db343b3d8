"""Harvests: incremental, while tasks run, and what they do when the cluster's files are odd."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from conftest import environment
from lab import Lab, here_and_by_ssh, near_and_far
from slot_experiment import wait_for

pytestmark = pytest.mark.slurm


@near_and_far
def test_while_tasks_run(lab: Lab) -> None:
    lab.project(
        "import clusterkit, os, time\nclusterkit.log(v=1, step=0)\n"
        "while clusterkit.params()['i'] and not os.path.exists('go'): time.sleep(0.02)\n"
        "clusterkit.log(v=2, step=1)",
        "params: {i: [0, 1]}\n",
    )
    experiment = lab.parrun()["id"]
    wait_for(lambda: [row.get("v") for row in lab.rows(experiment)] == [2, 1])
    assert lab.states(experiment) == ["COMPLETED", "RUNNING"]
    done = lab.call("harvest", experiment, "--to", "r.csv")
    assert (lab.folder / "r.csv").read_text().count("\n") == 3
    assert "1 running" in done.stdout + done.stderr
    (lab.root(experiment) / "code" / "go").touch()
    assert [row["v"] for row in lab.finished(experiment)] == [2, 2]
    code = (
        f"import clusterkit; f = clusterkit.load({experiment!r})\n"
        "s = clusterkit.load(series=True)\n"
        "print(f.v.tolist(), f.state.unique().tolist(), s.v.tolist(), s.step.tolist())"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(lab.home),
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "[2, 2] ['COMPLETED'] [1, 2, 1, 2] [0.0, 1.0, 0.0, 1.0]\n"


@here_and_by_ssh
def test_a_line_longer_than_a_chunk_holds_nothing_up(lab: Lab) -> None:
    lab.project(
        "import clusterkit; clusterkit.log(v='x' * ((9 << 20) if clusterkit.params()['i'] else 1))",
        "params: {i: [1, 0]}\n",
    )
    done = lab.parrun("--wait")
    assert done["states"] == {"COMPLETED": 2}
    assert [len(row["v"]) for row in lab.rows(done["id"])] == [9 << 20, 1]


def test_files_and_summary(lab: Lab) -> None:
    lab.project(
        "import clusterkit; p = clusterkit.params(); clusterkit.log(loss=p['lr'] + p['seed'])",
        "params: {lr: [1, 10]}\nseeds: 3\n",
    )
    experiment = lab.parrun("--wait")["id"]
    for ending in ("csv", "json", "parquet"):
        lab.call("harvest", "--to", f"deep/r.{ending}")
        assert (lab.folder / "deep" / f"r.{ending}").stat().st_size > 100
    assert len(json.loads((lab.folder / "deep" / "r.json").read_text())) == 6
    lab.call("harvest", "--plot", "p.png")
    assert (lab.folder / "p.png").read_bytes().startswith(b"\x89PNG")
    shown = lab.call("harvest", experiment[:4]).stdout
    assert "6 of 6 tasks completed" in shown
    assert "2.0 ± 1.0" in shown
    assert "11.0 ± 1.0" in shown


@here_and_by_ssh
def test_what_the_cluster_has_lost(lab: Lab) -> None:
    """The experiment's folder is gone: said, and what was harvested is still there."""
    lab.project("import clusterkit; clusterkit.log(v=1)", "params: {i: [0, 1]}\n")
    experiment = lab.parrun("--wait")["id"]
    shutil.rmtree(lab.root(experiment) / "slots")
    done = lab.call("harvest", experiment)
    assert "2 of 2 tasks completed" in done.stdout
    assert "slots: not found" in done.stderr
