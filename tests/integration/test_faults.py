"""Killed at any moment: no result lost, none twice, and the next command carries on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest
from conftest import Clusterkit, environment, start_or_skip
from lab import Lab, hang_up, here_and_by_ssh, kill, node_processes, on, processes_with
from slot_experiment import wait_for

pytestmark = pytest.mark.slurm

COUNT = 12
SCRIPT = "import time, clusterkit; time.sleep(0.1); clusterkit.log(v=2 * clusterkit.params()['i'])"
GRID = f"params: {{i: {{range: [0, {COUNT}]}}}}\n"


def complete(lab: Lab, experiment: str) -> None:
    """Every row is right, and no task was run to completion twice."""
    rows = lab.rows(experiment)
    assert [row["state"] for row in rows] == ["COMPLETED"] * len(rows)
    assert [row["v"] for row in rows] == [2 * row["i"] for row in rows]
    assert lab.completions(lab.root(experiment)) == list(range(len(rows)))


def carry_on(lab: Lab, experiment: str) -> None:
    """What a user would type."""
    lab.finished(experiment)
    lab.call("rerun", experiment, "--missing", "--wait", check=False)
    complete(lab, experiment)


@here_and_by_ssh
def test_parrun_killed(lab: Lab) -> None:
    """At random moments of a parrun, more of them around the call of sbatch."""
    lab.project(SCRIPT, GRID)
    chance = random.Random(0)
    seen = set(lab.experiments())
    for first, last in ((0.2, 0.45), (0.3, 0.6), (0.45, 0.9), (0.9, 2.0)):
        process = lab.popen(*lab.parrun_words())
        time.sleep(chance.uniform(first, last))
        process.kill()
        process.wait()
    made = [e for e in lab.experiments() if e not in seen]
    for experiment in made:
        carry_on(lab, experiment)


def sbatch_of(process: subprocess.Popen[bytes]) -> int | None:
    """The sbatch that a parrun waits for."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return next(
            (int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "sbatch\n"),
            None,
        )
    except OSError:
        return None


@pytest.mark.parametrize("victims", ["parrun", "parrun and sbatch"])
def test_parrun_killed_while_sbatch_waits_for_the_controller(lab: Lab, victims: str) -> None:
    """The controller has the request, and answers when nobody listens any more."""
    lab.project(SCRIPT, GRID)
    seen = set(lab.experiments())
    controller = lab.daemons()["slurmctld"]
    os.kill(controller, signal.SIGSTOP)
    try:
        process = lab.popen("parrun", "task.py", "--grid", "grid.yaml")
        sbatch = wait_for(lambda: sbatch_of(process))
        wait_for(lambda: "poll" in Path(f"/proc/{sbatch}/wchan").read_text())
        process.kill()
        process.wait()
        (experiment,) = [e for e in lab.experiments() if e not in seen]
        if victims == "parrun":
            again = lab.popen("rerun", experiment, "--missing")
            time.sleep(0.5)
        else:
            os.kill(sbatch, signal.SIGKILL)
    finally:
        os.kill(controller, signal.SIGCONT)
    if victims == "parrun":
        again.wait(timeout=180)
    carry_on(lab, experiment)


@on("local", "nspawn")
def test_slots_killed(lab: Lab) -> None:
    """Worker, supervisor, both, a task: one after the other, while the tasks run."""
    lab.project(SCRIPT.replace("0.1", "0.5"), GRID)
    experiment = lab.parrun()["id"]
    root = lab.root(experiment)
    there = lab.there(experiment)
    chance = random.Random(1)
    for moment in range(4):
        wait_for(lambda: len(lab.records(root, "start")) > moment)  # noqa: B023
        pids = node_processes(there)
        if not pids:
            break
        kill(chance.sample(pids, min(len(pids), 1 + moment % 2)))
        time.sleep(chance.uniform(0, 0.3))
    carry_on(lab, experiment)


def test_both_processes_of_a_slot_killed_its_task_goes_on_alone(lab: Lab, tmp_path: Path) -> None:
    """The stray is ended before its task is run again."""
    marks = tmp_path / "marks"
    marks.mkdir()
    lab.project(
        f"import os, time, clusterkit\nopen({str(marks)!r} + f'/{{os.getpid()}}', 'w')\n"
        f"time.sleep(60 if len(os.listdir({str(marks)!r})) == 1 else 0)\nclusterkit.log(v=0)",
        "params: {i: [0]}\n",
    )
    experiment = lab.parrun()["id"]
    root = lab.root(experiment)
    wait_for(lambda: list(marks.iterdir()))
    pids = node_processes(root)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    kill(pids)
    rows = lab.finished(experiment)
    assert rows[0]["state"] == "LOST"
    stray = int(next(marks.iterdir()).name)
    assert Path(f"/proc/{stray}").exists()
    lab.call("rerun", experiment, "--missing", "--wait")
    complete(lab, experiment)
    stat = Path(f"/proc/{stray}/stat")
    assert not stat.exists() or ") Z " in stat.read_text()


@here_and_by_ssh
def test_harvest_killed_at_random_moments(lab: Lab) -> None:
    count = 150
    lab.project(
        "import clusterkit; i = clusterkit.params()['i']\n"
        "for s in range(20): clusterkit.log(v=2 * i, s=s)",
        f"params: {{i: {{range: [0, {count}]}}}}\nrun: python {{script}} {{flags}}\n",
    )
    experiment = lab.parrun()["id"]
    chance = random.Random(2)
    for _ in range(8):
        process = lab.popen("harvest", experiment)
        time.sleep(chance.uniform(0.05, 0.5))
        process.kill()
        process.wait()
    two = [lab.popen("harvest", experiment) for _ in range(3)]
    assert [process.wait(timeout=180) for process in two] == [0, 0, 0]
    lab.finished(experiment)
    complete(lab, experiment)
    code = f"import clusterkit; print(len(clusterkit.load({experiment!r}, series=True)))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(lab.home), capture_output=True, text=True
    )
    assert done.stdout.strip() == str(20 * count), done.stderr


@on("attach_ssh", "nspawn")
def test_the_connection_breaks(lab: Lab) -> None:
    """Whoever listens is told; the tasks go on, and the next command connects again."""
    lab.project(
        "import clusterkit, os, time\nprint('begun', flush=True)\n"
        "while not os.path.exists('go'): time.sleep(0.05)\n"
        "clusterkit.log(v=2 * clusterkit.params()['i'])",
        "params: {i: [0, 1, 2]}\n",
    )
    seen = set(lab.experiments())
    waiter = lab.popen(*lab.parrun_words("--wait"), stderr=PIPE)
    (experiment,) = wait_for(lambda: [e for e in lab.experiments() if e not in seen])
    root = lab.root(experiment)
    wait_for(lambda: lab.records(root, "start"))
    follower = lab.popen("logs", experiment, "0", "--follow", stdout=PIPE, stderr=PIPE)
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"begun\n"
    collectors = [b"collect", os.fsencode(lab.there(experiment))]
    wait_for(lambda: processes_with(*collectors))
    hang_up(lab)
    for process in (follower, waiter):
        _, words = process.communicate(timeout=180)
        assert process.returncode == 1, words
        assert b"Traceback" not in words
        assert b"connection" in words
    wait_for(lambda: not processes_with(*collectors))  # nobody is left there who talks to no one
    (root / "code" / "go").touch()
    lab.finished(experiment)
    complete(lab, experiment)


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory, clusterkit: Clusterkit) -> Iterator[Lab]:
    """A cluster whose daemons may be killed."""
    home = tmp_path_factory.mktemp("own")
    try:
        start_or_skip(home)
        lab = Lab(home, tmp_path_factory.mktemp("project"), clusterkit)
        yield lab
    finally:
        clusterkit("stop", "local", "--yes", "--discard", home=home)


def test_daemons_killed(own: Lab) -> None:
    """slurmd, slurmctld, and both, while tasks run; `start` heals, and nothing is lost or twice."""
    own.project(SCRIPT.replace("0.1", "0.7"), GRID)
    for names in (("slurmd",), ("slurmctld",), ("slurmctld", "slurmd")):
        experiment = own.parrun()["id"]
        root = own.root(experiment)
        wait_for(lambda: own.records(root, "end"))  # noqa: B023
        daemons = own.daemons()
        kill([daemons[name] for name in names])
        told = own.call("parrun", "task.py", "--grid", "grid.yaml", check=False)
        assert told.returncode == 1
        assert "does not run any more" in told.stderr
        assert "clusterkit start local" in told.stderr
        own.call("start", "local")
        wait_for(lambda: own.status(experiment)["finished"])  # noqa: B023
        carry_on(own, experiment)
