"""What a task sees, what it may do to itself, and what is written down of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from slot_experiment import SlotExperiment

from clusterkit.node import attempt
from clusterkit.node.attempt import CannotStart, Log
from clusterkit.node.worker import Element, Worker


def python(root: Path, *programs: str, **settings: object) -> SlotExperiment:
    """An experiment with one small Python program a task."""
    scripts = {f"t{number}.py": text for number, text in enumerate(programs)}
    argvs = [["python", name] for name in scripts]
    return SlotExperiment(root, argvs, settings=dict(settings), scripts=scripts)


OUT = (
    "import os; out = os.environ['CLUSTERKIT_OUT']\n"
    "w = lambda text: open(out + '/result.json', 'w').write(text)\n"
)


def test_the_contract(tmp_path: Path) -> None:
    program = (
        "import json, os, sys\njson.dump({'argv': sys.argv[1:], 'cwd': os.getcwd(), "
        "'in': sys.stdin.read(), 'env': "
        "{k: v for k, v in os.environ.items() if k.startswith('CLUSTERKIT_')}}, "
        "open(os.environ['CLUSTERKIT_OUT'] + '/result.json', 'w'))"
    )
    hostile = ["--text", "a b", "--q='\"", "$(touch pwned)", "`id`", "l1\nl2", "é☃", "-x", "--", ""]
    params = [{"text": "a b", "lr": 1e-5, "on": True, "é": None}]
    made = SlotExperiment(
        tmp_path / "e x", [["python", "t.py", *hostile]], params, scripts={"t.py": program}
    )
    assert made.run() == ""
    result = made.ends()[0]["result"]
    assert result["argv"] == hostile
    assert result["cwd"] == str(made.root / "code")
    assert result["in"] == ""
    env = result["env"]
    assert json.loads(env["CLUSTERKIT_PARAMS"]) == params[0]
    assert env["CLUSTERKIT_TASK"] == "0"
    assert env["CLUSTERKIT_ATTEMPT"] == "1"
    assert env["CLUSTERKIT_POINT"] == "0" * 64
    assert env["CLUSTERKIT_OUT"] == str(made.root / "out" / "0")
    assert env["CLUSTERKIT_CHECKPOINT"] == str(made.root / "checkpoints" / "0")
    assert 0 <= int(env["CLUSTERKIT_SEED"]) < 2**63
    assert not (made.root / "code" / "pwned").exists()


@pytest.mark.parametrize(
    ("program", "exit_code", "number", "reason"),
    [
        ("raise RuntimeError('boom')", 1, None, "exit code 1: RuntimeError: boom"),
        ("print('a\\x1bb\\n \\n'); raise SystemExit(4)", 4, None, "exit code 4: a b"),
        ("import sys; sys.exit(3)", 3, None, "exit code 3"),
        ("import os; os.kill(os.getpid(), 11)", None, 11, "killed by signal 11 (SIGSEGV)"),
        (
            "import os; os.kill(os.getpid(), 9)",
            None,
            9,
            "killed by signal 9 (SIGKILL); often the machine ran out of memory",
        ),
        ("import os; os.kill(os.getpid(), 40)", None, 40, "killed by signal 40"),
    ],
)
def test_failures_have_their_reason(
    tmp_path: Path, program: str, exit_code: int | None, number: int | None, reason: str
) -> None:
    made = python(tmp_path / "e", program, "print('next')")
    assert made.run() == ""
    end = made.ends()[0]
    assert (end["state"], end["exit"], end["signal"], end["reason"]) == (
        "FAILED", exit_code, number, reason,
    )  # fmt: skip
    assert made.ends()[1]["state"] == "COMPLETED"
    assert "next" in made.log()


@pytest.mark.parametrize(
    ("script", "argv", "exit_code", "reason"),
    [
        ("#!/nowhere/python\n", ["./s"], 127, "interpreter (#! line)"),
        ("echo no line above me\n", ["./s"], 126, "no #! line?"),
        (None, ["./s"], 127, "it was not found"),
        (None, ["nowhere-to-be-found"], 127, "not found in PATH="),
        (None, ["/"], 126, "not executable"),
        ("#!/bin/sh\n", ["./s", "nul\0byte"], 126, "null"),
    ],
)
def test_what_cannot_be_started(
    tmp_path: Path, script: str | None, argv: list[str], exit_code: int, reason: str
) -> None:
    scripts = {"s": script} if script is not None else {}
    made = SlotExperiment(tmp_path / "e", [argv, ["true"]], scripts=scripts)
    made.run()
    end = made.ends()[0]
    assert end["state"] == "FAILED"
    assert end["exit"] == exit_code
    assert reason in end["reason"]
    assert made.ends()[1]["state"] == "COMPLETED"


def test_a_script_that_may_not_be_run(tmp_path: Path) -> None:
    made = SlotExperiment(tmp_path / "e", [["./s"]], scripts={"s": "#!/bin/sh\n"})
    (made.root / "code" / "s").chmod(0o644)
    made.run()
    assert "chmod +x" in made.ends()[0]["reason"]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("w('{v: 1')", "is not JSON"),
        ("w('[1]')", "no mapping"),
        ("w('null')", "no mapping"),
        ("w('')", "is not JSON"),
        ("w('{\"a\":' + '[' * 99999 + ']' * 99999 + '}')", "nested deeper"),
        ("w('{\"a\":' + '[' * 70 + ']' * 70 + '}')", "nested deeper"),
        ("w('{\"a\": \"' + 'x' * (1 << 20) + '\"}')", "larger than"),
        ("open(out + '/result.json', 'wb').write(b'{\"a\": \"\\xff\"}')", "is not JSON"),
        ("os.mkdir(out + '/result.json')", "Is a directory"),
    ],
)
def test_a_wrong_result_is_told_and_the_task_is_done(
    tmp_path: Path, program: str, reason: str
) -> None:
    made = python(tmp_path / "e", OUT + program, "print(1)")
    made.run()
    end = made.ends()[0]
    assert end["state"] == "COMPLETED"
    assert reason in end["reason"]
    assert "result" not in end
    assert made.ends()[1]["state"] == "COMPLETED"


@pytest.mark.parametrize(
    "program",
    [
        "os.rmdir(out)",
        "os.rmdir(os.environ['CLUSTERKIT_CHECKPOINT'])",
        "os.rmdir(out); open(out, 'w')",
        "os.chmod(out, 0)",
        "os.rename(out, out + '.moved')",
    ],
)
def test_a_task_may_spoil_its_own_folders(tmp_path: Path, program: str) -> None:
    made = python(tmp_path / "e", OUT + program, OUT + "w('{\"v\": 1}')", OUT)
    assert made.run() == ""
    assert [end["state"] for end in made.ends().values()] == ["COMPLETED"] * 3
    assert made.ends()[1]["result"] == {"v": 1}


def test_folders_are_kept_when_they_hold_something(tmp_path: Path) -> None:
    made = python(tmp_path / "e", OUT + "w('{}')", "print()", OUT + "open(out + '/f', 'w')")
    made.run()
    assert sorted(path.name for path in (made.root / "out").iterdir()) == ["0", "2"]
    assert list((made.root / "checkpoints").iterdir()) == []


def test_an_empty_folder_kept_for_later_bears_no_tasks_name(tmp_path: Path) -> None:
    """Another slot may run the same task again meanwhile, and it owns the name."""
    made = python(tmp_path / "e")
    slot = Worker.__new__(Worker)
    slot._element = Element(str(made.root), 0, 2, 0, 1, 0, 1, True, 0, 0)
    slot._name, slot._spare = "0.0.0", {}
    for kind in ("out", "checkpoints"):
        (made.root / kind).mkdir()
    slot._tidy(*slot._folders(0))
    assert [path.name for path in (made.root / "out").iterdir()] == [".0.0.0"]
    slot._folders(1)
    assert [path.name for path in (made.root / "out").iterdir()] == ["1"]


def test_what_a_task_leaves_running_is_ended(tmp_path: Path) -> None:
    program = (
        "import subprocess; p = subprocess.Popen(['sleep', '600']); print('child', p.pid, '.')"
    )
    made = python(tmp_path / "e", program, "import os; os.fork()")
    made.run()
    child = int(made.log().split("child ")[1].split()[0])
    stat = Path(f"/proc/{child}/stat")
    assert not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_endless_output_is_cut_in_the_middle(tmp_path: Path) -> None:
    program = (
        "import sys\nprint('the beginning')\nfor _ in range(300): sys.stdout.write('x' * 99999)\n"
        "print('the end')"
    )
    made = python(tmp_path / "e", "print('before')", program, "print('after')", log_limit=100_000)
    made.run()
    text = made.log()
    assert len(text) < 250_000
    for words in ("before\n", "the beginning\n", "bytes dropped here", "the end\n", "after\n"):
        assert words in text
    assert int(text.split("[clusterkit: ")[1].split()[0]) > 29_000_000
    starts = {record["task"]: record["log"] for record in made.records("start")}
    ends = made.ends()
    assert text[starts[2] : ends[2]["log"]] == "after\n"
    assert starts[1] == len("before\n")


def test_log_bounds_count_what_is_dropped(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "l"), 1000)
    os.write(log.descriptor, b"first\n")
    log.begin()
    for _ in range(5):
        os.write(log.descriptor, b"z" * 600)
        log.bound()
    text = (tmp_path / "l").read_bytes()
    kept = text.count(b"z")
    dropped = int(text.split(b"clusterkit: ")[1].split()[0])
    assert text.startswith(b"first\n")
    assert kept + dropped == 3000
    assert log.size() <= 6 + 1000


def test_task_log_of_children_and_steps(tmp_path: Path) -> None:
    program = (
        "import clusterkit, os\n"
        "for s in range(3): clusterkit.log(loss=1 / (s + 1), step=s)\n"
        "if os.fork() == 0:\n    clusterkit.log(child=True); os._exit(0)\n"
        "os.wait()\n"
        "clusterkit.log(point=clusterkit.params()['i'], folder=clusterkit.checkpoint_dir())"
    )
    made = python(tmp_path / "e", program)
    made.run()
    logs = made.records("log")
    assert [(r.get("step"), r["values"]) for r in logs][:4] == [
        (0, {"loss": 1.0}),
        (1, {"loss": 0.5}),
        (2, {"loss": 1 / 3}),
        (None, {"child": True}),
    ]
    assert logs[4]["values"] == {"point": 0, "folder": str(made.root / "checkpoints" / "0")}


def test_find(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    program = tmp_path / "there" / "p"
    program.write_text("")
    search = f"{tmp_path}/nowhere{os.pathsep}{tmp_path}/there"
    with pytest.raises(CannotStart, match="not found in PATH"):
        attempt.find("p", search)
    program.chmod(0o755)
    assert attempt.find("p", search) == str(program)
    assert attempt.find("./p", "") == "./p"
    with pytest.raises(CannotStart):
        attempt.find("there", str(tmp_path))


def test_signals_of_the_slot_are_not_the_tasks(tmp_path: Path) -> None:
    """The slot blocks signals and ignores SIGPIPE; a task starts with neither."""
    program = (
        "import json, os, signal\n"
        "blocked = [int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])]\n"
        "line = [l for l in open('/proc/self/status') if l.startswith('SigBlk')][0]\n"
        "print('blocked', blocked, line)"
    )
    made = python(tmp_path / "e", program)
    made.run()
    assert "blocked []" in made.log()
    made = SlotExperiment(tmp_path / "f", [["sh", "-c", "yes | head -1; echo ${PIPESTATUS}"]])
    made.run()
    assert "Broken pipe" not in made.log()
