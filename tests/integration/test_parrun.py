"""From `parrun` to rows, on a real SLURM."""

from __future__ import annotations

import itertools
import json
import os

import pytest
from lab import Lab, everywhere, here_and_by_ssh, near_and_far, node_processes, on
from slot_experiment import wait_for

pytestmark = pytest.mark.slurm

THREE_WAYS = """
import json, os, sys
import clusterkit
p = clusterkit.params()
for step in range(3):
    clusterkit.log(loss=p["lr"] / (step + 1), step=step)
out = os.environ["CLUSTERKIT_OUT"]
with open(os.path.join(out, "result.json"), "w") as file:
    json.dump({"argv": sys.argv[1:], "accuracy": 1 - p["lr"], "lr": "other"}, file)
with open(os.path.join(out, "model.bin"), "wb") as file:
    file.write(b"x" * 10)
"""


@everywhere
def test_three_ways_of_giving_results(lab: Lab) -> None:
    lab.project(THREE_WAYS, "params:\n  lr: [0.5, 0.25]\nseeds: 2\n")
    done = lab.parrun("--wait", "-m", "why?")
    assert done["states"] == {"COMPLETED": 4}
    rows = lab.rows(done["id"])
    assert [(row["lr"], row["seed"]) for row in rows] == [(0.5, 0), (0.5, 1), (0.25, 0), (0.25, 1)]
    for row in rows:
        assert row["loss"] == row["lr"] / 3
        assert row["accuracy"] == 1 - row["lr"]
        assert row["result.lr"] == "other"
        assert row["argv"] == ["--lr", str(row["lr"]), "--seed", str(row["seed"])]
        assert (row["state"], row["exit_code"], row["attempt"]) == ("COMPLETED", 0, 1)
        assert row["peak_memory"] > 1 << 20
        assert row["seconds"] > 0
        assert (lab.root(done["id"]) / "out" / str(row["task"]) / "model.bin").stat().st_size == 10
    history = json.loads(lab.call("history", "--json").stdout)
    assert history[0]["message"] == "why?"


@everywhere
def test_hostile_values_arrive_as_they_are(lab: Lab) -> None:
    values = [
        "a b",
        "'q' \"d\"",
        "$(touch pwned)",
        "`id`",
        "l1\nl2",
        "é☃",
        "-x",
        "",
        "%j",
        "\\n",
        "*",
    ]
    name = "it's a $(touch pwned) tésk.py"
    script = (
        "import json, os, sys\n"
        "json.dump({'argv': sys.argv, 'env': os.environ['CLUSTERKIT_PARAMS']},"
        " open(os.environ['CLUSTERKIT_OUT'] + '/result.json', 'w'))"
    )
    lab.project(script, f"params:\n  text: {json.dumps(values)}\n", name)
    done = lab.parrun("--wait", "--name", "na'me $(x) é\t%", name=name)
    rows = lab.rows(done["id"])
    assert [row["text"] for row in rows] == values
    flags = [[f"--text={v}"] if v.startswith("-") else ["--text", v] for v in values]
    assert [row["argv"] for row in rows] == [[name, *words] for words in flags]
    assert [json.loads(row["env"]) for row in rows] == [{"text": value} for value in values]
    assert not list(lab.root(done["id"]).rglob("pwned"))


@on("local", "nspawn")
def test_one_task_an_element(lab: Lab) -> None:
    lab.project("import os, clusterkit; clusterkit.log(e=os.environ['SLURM_ARRAY_TASK_ID'])",
                "params: {i: {range: [0, 4]}}\n")  # fmt: skip
    done = lab.parrun("--wait", "--pack", "off")
    assert [row["e"] for row in lab.rows(done["id"])] == ["0", "1", "2", "3"]


def test_elements_hand_over_and_none_stays_in_the_queue(lab: Lab) -> None:
    lab.project("import time; time.sleep(0.2)", "params: {i: {range: [0, 12]}}\n")
    done = lab.parrun("--wait", "--min-slot-time", "0.5")
    assert done["states"] == {"COMPLETED": 12}
    root = lab.root(done["id"])
    slots = lab.records(root, "slot")
    assert len(slots) >= 3
    assert lab.completions(root) == list(range(12))
    wait_for(lambda: not lab.queued())


def test_a_long_min_slot_time_takes_no_more_elements_than_processors(lab: Lab) -> None:
    lab.project("", "params: {i: {range: [0, 60]}}\n")
    done = lab.parrun("--wait")
    most = len(os.sched_getaffinity(0)) + 3  # some may start just at the end
    assert len(lab.records(lab.root(done["id"]), "slot")) <= most
    wait_for(lambda: not lab.queued())


def test_throttle(lab: Lab) -> None:
    lab.project(
        "import time, clusterkit\na = time.time(); time.sleep(0.3)\n"
        "clusterkit.log(a=a, b=time.time())",
        "params: {i: {range: [0, 4]}}\nslurm: {throttle: 1}\n",
    )
    done = lab.parrun("--wait", "--pack", "off")
    times = sorted((row["a"], row["b"]) for row in lab.rows(done["id"]))
    assert all(
        end <= begin for (_, end), (begin, _) in itertools.pairwise(times)
    )  # one after the other


@near_and_far
def test_cancel_and_rerun(lab: Lab) -> None:
    lab.project(
        "import os, sys, time\ngo = lambda: os.path.exists('go')\n"
        "if '3' in sys.argv and not go(): sys.exit(5)\n"
        "while not go() and '0' not in sys.argv: time.sleep(0.05)",
        "params: {i: [3, 0, 1, 2, 4]}\n",
    )
    experiment = lab.parrun()["id"]
    root = lab.root(experiment)
    wait_for(lambda: len(lab.records(root, "start")) >= 4)
    there = lab.there(experiment)
    lab.call("cancel", experiment, "--yes")
    states = lab.states(experiment)
    assert states[0] == "FAILED"
    assert states[1] == "COMPLETED"
    assert set(states[2:]) == {"CANCELLED"}
    wait_for(lambda: not lab.queued() and not node_processes(there))
    (root / "code" / "go").touch()
    missing = json.loads(lab.call("rerun", experiment, "--missing", "--json").stdout)
    assert missing["tasks"] == [2, 3, 4]
    rows = lab.finished(experiment)
    assert [row["state"] for row in rows] == ["FAILED"] + ["COMPLETED"] * 4
    lab.call("rerun", experiment, "--failed", "--wait")
    assert lab.states(experiment) == ["COMPLETED"] * 5
    assert lab.rows(experiment)[0]["attempt"] == 2
    assert lab.completions(root) == [0, 1, 2, 3, 4]
    assert "Nothing to run again" in lab.call("rerun", experiment, "--missing", "--failed").stdout


@near_and_far
def test_logs(lab: Lab) -> None:
    lab.project(
        "import sys, time\nprint('out', sys.argv[2])\nprint('err', sys.argv[2], file=sys.stderr)\n"
        "time.sleep(0.2); print('later')",
        "params: {i: [10, 11]}\n",
    )
    experiment = lab.parrun()["id"]
    followed = lab.call("logs", experiment, "1", "--follow").stdout
    assert followed == "out 11\nerr 11\nlater\n"
    lab.finished(experiment)
    assert lab.call("logs", experiment, "0").stdout == "out 10\nerr 10\nlater\n"


def test_the_time_limit_and_a_checkpoint(lab: Lab) -> None:
    """SLURM's limits are minutes. The task is warned, saves, and its next attempt resumes."""
    lab.project(
        "import clusterkit, os, signal, sys, time\n"
        "file = os.path.join(clusterkit.checkpoint_dir(), 'step')\n"
        "if os.path.exists(file): clusterkit.log(resumed=open(file).read()); sys.exit(0)\n"
        "def save(*_):\n"
        "    open(file + '.new', 'w').write('7'); os.rename(file + '.new', file); sys.exit(1)\n"
        "signal.signal(signal.SIGUSR1, save)\n"
        "time.sleep(600)",
        "params: {i: [1]}\n",
    )
    experiment = lab.parrun("--alloc", "--time=1")["id"]
    root = lab.root(experiment)
    wait_for(lambda: len(lab.records(root, "start")) == 2, 400)
    (row,) = lab.finished(experiment)
    assert (row["state"], row["attempt"], row["resumed"]) == ("COMPLETED", 2, "7")
    first, second = lab.records(root, "end")
    assert (first["state"], first["again"], second["state"]) == ("TIMEOUT", True, "COMPLETED")
    assert first["s"] > 30


@here_and_by_ssh
def test_two_at_once(lab: Lab) -> None:
    lab.project("import clusterkit; clusterkit.log(v=1)", "params: {i: {range: [0, 20]}}\n")
    both = [lab.popen(*lab.parrun_words("--wait")) for _ in range(2)]
    before = set(lab.experiments())
    assert [process.wait(timeout=180) for process in both] == [0, 0]
    made = lab.experiments()[:2]
    assert len(set(made)) == 2
    assert before <= set(lab.experiments())
    for experiment in made:
        assert lab.states(experiment) == ["COMPLETED"] * 20
        assert lab.completions(lab.root(experiment)) == list(range(20))


@here_and_by_ssh
def test_a_refused_option_leaves_nothing_behind(lab: Lab) -> None:
    lab.project("", "params: {i: [1]}\n")
    work = lab.root(lab.parrun("--wait")["id"]).parent
    before = lab.experiments()
    folders = set(work.iterdir())
    done = lab.call(*lab.parrun_words("--alloc", "--gres=unicorn:1"), check=False)
    assert done.returncode == 1
    assert "Invalid generic resource" in done.stderr
    assert "Traceback" not in done.stderr
    assert lab.experiments() == before
    assert set(work.iterdir()) == folders
