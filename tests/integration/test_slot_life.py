"""A slot's own life: killed at any moment, replaced, handing over, ending in time."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from slot_experiment import SlotExperiment, wait_for


def sleeping(root: Path, seconds: list[float], **settings: object) -> SlotExperiment:
    return SlotExperiment(root, [["sleep", str(s)] for s in seconds], settings=dict(settings))


def worker_of(supervisor: subprocess.Popen[bytes]) -> int:
    path = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children")
    return int(wait_for(lambda: path.read_text().split())[0])


def children_of(pid: int) -> list[int]:
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def started(made: SlotExperiment, count: int) -> bool:
    return len(made.records("start")) >= count


def test_a_killed_worker_is_replaced_and_its_task_run_again(tmp_path: Path) -> None:
    made = sleeping(tmp_path / "e", [0, 0.4, 0])
    process = made.start()
    wait_for(lambda: started(made, 2))
    worker = worker_of(process)
    (task,) = wait_for(lambda: children_of(worker))
    os.kill(worker, signal.SIGKILL)
    words, _ = process.communicate(timeout=180)
    assert process.returncode == 0
    assert b"killed by signal 9; starting another one" in words
    assert gone(task)
    ends = made.ends()
    assert [ends[n]["state"] for n in range(3)] == ["COMPLETED"] * 3
    assert [ends[n]["attempt"] for n in range(3)] == [1, 2, 1]


def test_a_task_that_kills_its_slot_is_given_up_and_the_rest_goes_on(tmp_path: Path) -> None:
    deadly = ["sh", "-c", "kill -9 $PPID"]
    made = SlotExperiment(tmp_path / "e", [["true"], deadly, ["true"]])
    process = made.start(0)
    process.communicate(timeout=180)
    assert process.returncode == 137
    assert [r["attempt"] for r in made.records("start") if r["task"] == 1] == [1, 2, 3]
    made.run(1)  # the next element of the array
    assert {n: end["state"] for n, end in made.ends().items() if n != 1} == {
        0: "COMPLETED", 2: "COMPLETED",
    }  # fmt: skip
    # SLURM runs the first element once more: the task is not tried a fourth time.
    made.run(0)
    assert made.ends()[1]["state"] == "LOST"
    assert made.ends()[1]["reason"] == "its slot died 3 times while it ran"


def test_a_killed_supervisor_takes_worker_and_task_with_it(tmp_path: Path) -> None:
    made = sleeping(tmp_path / "e", [60, 0])
    process = made.start()
    wait_for(lambda: started(made, 1))
    worker = worker_of(process)
    (task,) = wait_for(lambda: children_of(worker))
    process.kill()
    process.communicate(timeout=180)
    wait_for(lambda: gone(worker) and gone(task))
    assert [record["state"] for record in made.records("end")] == ["PREEMPTED"]


@pytest.mark.parametrize("how", ["same element", "next round"])
def test_both_killed_and_what_they_left_is_ended_before_it_runs_again(
    tmp_path: Path, how: str
) -> None:
    made = sleeping(tmp_path / "e", [0.0, 60.0, 0.0])
    process = made.start()
    wait_for(lambda: started(made, 2))
    worker = worker_of(process)
    (stray,) = wait_for(lambda: children_of(worker))
    os.kill(process.pid, signal.SIGSTOP)  # so that it does not replace its worker
    os.kill(worker, signal.SIGKILL)
    process.kill()
    process.communicate(timeout=180)
    assert not gone(stray)
    if how == "next round":
        made.add_round(1, [(1, 1), (2, 0)])
    second = made.start()
    wait_for(lambda: gone(stray))
    wait_for(lambda: [r for r in made.records("start") if r["task"] == 1 and r["attempt"] == 2])
    second.terminate()
    second.communicate(timeout=180)


def test_strays_of_a_living_slot_and_of_others_are_left_alone(tmp_path: Path) -> None:
    made = sleeping(tmp_path / "e", [60, 60])
    process = made.start(0)
    wait_for(lambda: started(made, 1))
    (task,) = wait_for(lambda: children_of(worker_of(process)))
    other = sleeping(tmp_path / "f", [0])
    other.add_round(1, [(0, 1)])
    other.run()
    made.add_round(1, [(1, 1)])
    second = made.start()
    wait_for(lambda: started(made, 2))
    assert not gone(task)
    for one in (process, second):
        one.terminate()
        one.communicate(timeout=180)
    reasons = {record["reason"] for record in made.records("end")}
    assert reasons == {"the job was ended from outside (killed by signal 15 (SIGTERM))"}


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments_every_task_ends_once(tmp_path: Path, seed: int) -> None:
    """Worker, supervisor or both, again and again; SLURM starts the element anew each time."""
    chance = random.Random(seed)
    count = 40
    made = SlotExperiment(tmp_path / "e", [["true"]] * count, settings={"max_attempts": 1000})
    for _ in range(200):
        process = made.start()
        try:
            process.wait(timeout=chance.uniform(0.03, 0.12))
            break
        except subprocess.TimeoutExpired:
            pass
        victims = chance.choice([(0,), (1,), (0, 1), (1, 0)])
        pids = [process.pid, *children_of(process.pid)]
        for victim in victims:
            if victim < len(pids):
                os.kill(pids[victim], signal.SIGKILL)
        if 0 not in victims:
            process.wait(timeout=180)
        process.communicate(timeout=180)
        for pid in pids[1:]:
            wait_for(lambda pid=pid: gone(pid))
    made.run()
    assert sorted(made.ends()) == list(range(count))
    assert {end["state"] for end in made.ends().values()} <= {"COMPLETED", "CANCELLED"}
    again = [r["task"] for r in made.records("start") if made.ends()[r["task"]]["t"] < r["t"]]
    assert again == []  # nothing was started after its end


def test_elements_hand_over_after_their_time_and_surplus_is_cancelled(tmp_path: Path) -> None:
    made = sleeping(tmp_path / "e", [0.15] * 8, min_slot_time=0.2)
    for index in itertools.count():
        made.run(index)
        if made.asked():
            break
    assert sorted(made.ends()) == list(range(8))
    assert 2 <= index <= 5
    whys = [record["why"] for record in made.records("stop")]
    assert whys == ["the next element's turn"] * index + ["nothing is unclaimed"]
    assert made.asked() == [f"scancel --state=PENDING 77_[{index + 1}-7]"]


def test_the_last_elements_do_not_hand_over(tmp_path: Path) -> None:
    made = sleeping(tmp_path / "e", [0.05] * 4, min_slot_time=0)
    made.run(2, workers=2)  # elements 2 and 3 are the last two
    assert len(made.ends()) == 4


def test_a_slot_does_not_hand_over_to_elements_that_were_cancelled(tmp_path: Path) -> None:
    """One slot sits on a long task with others claimed behind it; the rest has gone meanwhile."""
    fast = ["true"]
    slow = ["sh", "-c", f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"]
    made = SlotExperiment(
        tmp_path / "e", [*[fast] * 20, slow, *[fast] * 39], settings={"min_slot_time": 0.3}
    )
    first = made.start(0, workers=2)
    wait_for(lambda: [r for r in made.records("start") if r["task"] == 20])
    claims = [r for r in made.records("claim") if r["first"] <= 20 < r["first"] + r["count"]]
    assert claims[0]["first"] + claims[0]["count"] > 21  # something waits behind the slow task
    made.run(1, workers=2)
    cancelled = made.asked()
    assert len(cancelled) == 1
    # Only now is what waits behind it given back.
    wait_for(lambda: made.records("return"))
    (tmp_path / "go").touch()
    first.communicate(timeout=180)
    assert sorted(made.ends()) == list(range(60))
    assert made.asked() == cancelled


def test_the_time_limit_signals_the_task_and_a_checkpoint_brings_it_back(tmp_path: Path) -> None:
    program = (
        "import clusterkit, os, signal, sys, time\n"
        "file = os.path.join(clusterkit.checkpoint_dir(), 'step')\n"
        "if os.path.exists(file): clusterkit.log(resumed=open(file).read()); sys.exit(0)\n"
        "def save(*_): open(file, 'w').write('7'); sys.exit(1)\n"
        "signal.signal(signal.SIGUSR1, save)\n"
        "print('ready')\n"
        "time.sleep(60)"
    )
    made = SlotExperiment(tmp_path / "e", [["python", "t.py"], ["true"]], scripts={"t.py": program})
    process = made.start(0, time_limit=3600, grace=60)
    wait_for(lambda: started(made, 1) and "ready" in made.log())
    process.send_signal(signal.SIGUSR1)
    words, _ = process.communicate(timeout=180)
    assert (process.returncode, words) == (0, b"")
    (first,) = made.records("end")
    assert (first["state"], first["again"]) == ("TIMEOUT", True)
    assert made.asked() == ["scontrol requeue 77_0"]
    made.run(1)
    ends = made.ends()
    assert (ends[0]["state"], ends[0]["attempt"]) == ("COMPLETED", 2)
    assert [r["values"] for r in made.records("log")] == [{"resumed": "7"}]
    assert ends[1]["state"] == "COMPLETED"


def test_ended_at_the_time_limit(tmp_path: Path) -> None:
    """The task takes no notice of the warning; SLURM ends the job at the limit."""
    made = sleeping(tmp_path / "e", [60])
    process = made.start(0, time_limit=1.2, grace=0.3)
    wait_for(lambda: started(made, 1))
    time.sleep(1.0)
    process.terminate()
    process.communicate(timeout=180)
    end = made.ends()[0]
    assert end["state"] == "TIMEOUT"
    assert end["reason"].startswith("the job's time limit was reached")


def test_without_a_checkpoint_a_timeout_is_the_end(tmp_path: Path) -> None:
    made = sleeping(tmp_path / "e", [60, 0])
    process = made.start(1, time_limit=3600, grace=60)  # the last element: nobody comes after it
    wait_for(lambda: started(made, 1))
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=180)
    end = made.ends()[0]
    assert (end["state"], end["signal"]) == ("TIMEOUT", signal.SIGUSR1)
    assert "time limit was reached" in end["reason"]
    assert made.asked() == ["scontrol requeue 77_1"]  # for the task that is left


def test_no_task_is_started_that_the_time_limit_cannot_hold(tmp_path: Path) -> None:
    made = sleeping(tmp_path / "e", [0.4] * 5)
    made.run(0, time_limit=1.0, grace=0.1)
    assert len(made.ends()) == 2
    assert made.records("stop")[0]["why"] == "the time limit leaves no room for another task"
    assert made.asked() == []  # later elements of the array take the rest
    made.run(1)
    assert len(made.ends()) == 5


def test_cancelled_and_preempted_are_kept_apart(tmp_path: Path) -> None:
    made = sleeping(tmp_path / "e", [60, 60])
    process = made.start(0)
    wait_for(lambda: started(made, 1))
    process.terminate()
    process.communicate(timeout=180)
    assert made.records("end")[0]["state"] == "PREEMPTED"
    assert made.records("end")[0]["again"]
    (made.root / "cancelled").touch()
    process = made.start(1)
    wait_for(lambda: started(made, 2))
    process.terminate()
    process.communicate(timeout=180)
    assert made.ends()[0]["state"] == "CANCELLED"


def test_one_task_an_element(tmp_path: Path) -> None:
    made = sleeping(tmp_path / "e", [0, 0, 0])
    made.run(1, pack=False)
    assert list(made.ends()) == [1]
    made.run(1, pack=False)  # requeued although it was done: nothing runs twice
    for index in (0, 2):
        made.run(index, pack=False)
    assert sorted(made.ends()) == [0, 1, 2]
    assert made.asked() == []


def test_a_full_disk_ends_the_task_with_the_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot that cannot write its journal must not leave its task running unseen."""
    made = sleeping(tmp_path / "e", [60])
    real = (
        "import os, runpy, sys\n"
        "real = os.fsync\n"
        "def full(fd): raise OSError(28, 'No space left on device')\n"
        "os.fsync = full\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    wrapper = tmp_path / "full.py"
    wrapper.write_text(real)
    program = subprocess.Popen
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda argv, **more: program([argv[0], wrapper, *argv[3:]], **more),
    )
    process = made.start()
    wait_for(lambda: started(made, 1))
    words, _ = process.communicate(timeout=180)
    assert process.returncode == 1
    assert b"No space left on device" in words
    mark = f"CLUSTERKIT_JOURNAL={made.root}".encode()
    until = time.monotonic() + 120
    while any(
        mark in path.read_bytes() for path in Path("/proc").glob("[0-9]*/environ") if readable(path)
    ):
        assert time.monotonic() < until, "the task is still there"
        time.sleep(0.05)


def readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True
