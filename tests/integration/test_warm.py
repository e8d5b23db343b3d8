"""Warm starts: one import, a fork a task, and everything else as if it were started cold."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from slot_experiment import SlotExperiment, wait_for
from test_slot_life import children_of, gone, started, worker_of

HEAVY = "import os; print('imported by', os.getpid(), flush=True); loaded = os.getpid()\n"


def warm(root: Path, *programs: str, modules: tuple[str, ...] = ("heavy",)) -> SlotExperiment:
    scripts = {f"t{number}.py": text for number, text in enumerate(programs)}
    argvs = [["python", name, f"--n={number}"] for number, name in enumerate(scripts)]
    return SlotExperiment(
        root, argvs, settings={"warm": list(modules)}, scripts={"heavy.py": HEAVY, **scripts}
    )


def test_modules_are_imported_once_and_found_beside_the_script(tmp_path: Path) -> None:
    program = (
        "import heavy, os, sys, clusterkit\n"
        "assert __name__ == '__main__'\n"
        "clusterkit.log(argv=sys.argv, loaded=heavy.loaded, pid=os.getpid(), file=__file__,\n"
        "    out=os.environ['CLUSTERKIT_OUT'], here=sys.path[0], group=os.getpgrp())"
    )
    made = warm(tmp_path / "e", *[program] * 5)
    assert made.run() == ""
    logs = [record["values"] for record in made.records("log")]
    assert made.log().count("imported by") == 1
    assert len({values["loaded"] for values in logs}) == 1
    assert len({values["pid"] for values in logs}) == 5
    assert [values["argv"] for values in logs] == [[f"t{n}.py", f"--n={n}"] for n in range(5)]
    assert [Path(values["out"]).name for values in logs] == list("01234")
    assert all(values["here"] == str(made.root / "code") for values in logs)
    assert all(values["group"] == values["pid"] for values in logs)


def test_a_module_of_the_users_is_not_mistaken_for_one_of_the_slots(tmp_path: Path) -> None:
    made = warm(tmp_path / "e", "import task; print('mine:', task.MINE)", modules=("task",))
    (made.root / "code" / "task.py").write_text("MINE = 'yes'")
    assert made.run() == ""
    assert "mine: yes" in made.log()


def test_ends_are_told_apart(tmp_path: Path) -> None:
    made = warm(
        tmp_path / "e",
        "import sys; sys.exit(3)",
        "import sys; sys.exit('in words')",
        "raise RuntimeError('boom')",
        "import os; os.kill(os.getpid(), 9)",
        "import os; os._exit(5)",
        "import sys; print('unflushed', end=''); sys.stdout = open(1, 'w', closefd=False)",
        "import atexit; atexit.register(print, 'at exit')",
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()",
        "import sys; sys.exit()",
        "def f(:",
    )
    assert made.run() == ""
    ends = made.ends()
    assert [(ends[n]["exit"], ends[n]["signal"]) for n in range(10)] == [
        (3, None), (1, None), (1, None), (None, 9), (5, None), (0, None), (0, None), (0, None),
        (0, None), (1, None),
    ]  # fmt: skip
    text = made.log()
    for words in ("in words", "RuntimeError: boom", "unflushed", "at exit", "thread", "SyntaxErr"):
        assert words in text
    assert ends[0]["mem"] > 1 << 20
    # Each task's output lies within its own part of the log.
    starts = {record["task"]: record["log"] for record in made.records("start")}
    assert text.encode()[starts[6] : ends[6]["log"]] == b"at exit\n"


def test_forks_do_not_share_their_random_numbers(tmp_path: Path) -> None:
    program = (
        "import random, numpy, clusterkit\n"
        "clusterkit.log(a=random.random(), b=float(numpy.random.random()))"
    )
    made = warm(tmp_path / "e", *[program] * 4, modules=("random", "numpy.random"))
    made.run()
    logs = [record["values"] for record in made.records("log")]
    assert len({values["a"] for values in logs}) == 4
    assert len({values["b"] for values in logs}) == 4


def test_an_import_that_fails_falls_back_to_cold_starts(tmp_path: Path) -> None:
    made = warm(tmp_path / "e", "print('cold', 1)", "print('cold', 2)", modules=("nowhere",))
    words = made.run()
    assert "no warm start" in words
    assert "No module named 'nowhere'" in words
    assert [end["state"] for end in made.ends().values()] == ["COMPLETED"] * 2
    assert "cold 2" in made.log()


def test_an_import_that_kills_its_process_falls_back_too(tmp_path: Path) -> None:
    made = warm(tmp_path / "e", "print('cold')", modules=("deadly",))
    (made.root / "code" / "deadly.py").write_text("import os; os._exit(1)")
    assert "no warm start" in made.run()
    assert made.ends()[0]["state"] == "COMPLETED"


def test_a_killed_warm_process_costs_one_task_and_no_more(tmp_path: Path) -> None:
    made = warm(tmp_path / "e", "import time; time.sleep(60)", "print('cold')", "print(3)")
    process = made.start()
    wait_for(lambda: started(made, 1))
    (server,) = wait_for(lambda: children_of(worker_of(process)))
    (task,) = wait_for(lambda: children_of(server))
    os.kill(server, signal.SIGKILL)
    words, _ = process.communicate(timeout=180)
    assert process.returncode == 0, words
    assert [made.ends()[n]["state"] for n in range(3)] == ["FAILED", "COMPLETED", "COMPLETED"]
    wait_for(lambda: gone(task))
    assert "cold" in made.log()


def test_a_killed_worker_leaves_no_warm_process(tmp_path: Path) -> None:
    made = warm(tmp_path / "e", "print(1)", "import time; time.sleep(1.5)", "print(3)")
    process = made.start()
    wait_for(lambda: started(made, 2))
    worker = worker_of(process)
    (server,) = wait_for(lambda: children_of(worker))
    os.kill(worker, signal.SIGKILL)
    process.communicate(timeout=180)
    assert [made.ends()[n]["state"] for n in range(3)] == ["COMPLETED"] * 3
    assert made.ends()[1]["attempt"] == 2
    assert gone(server)


def test_signals_reach_a_warm_task(tmp_path: Path) -> None:
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    made = warm(tmp_path / "e", program)
    process = made.start(0, time_limit=3600, grace=60)
    wait_for(lambda: "ready" in made.log())
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=180)
    assert made.ends()[0]["state"] == "COMPLETED"


def test_other_commands_start_cold(tmp_path: Path) -> None:
    made = SlotExperiment(
        tmp_path / "e",
        [["sh", "-c", "echo shell"], ["python", "-c", "print('dash c')"]],
        settings={"warm": ["json"]},
    )
    made.run()
    assert made.log() == "shell\ndash c\n"
