"""What bad input gets: a clear error, the right exit code, and nothing half-made."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Clusterkit, command, environment
from lab import Lab

GRID = "params: {i: [1, 2]}\n"
root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text("")
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path


def parrun(folder: Path, *more: str) -> tuple[str, ...]:
    return ("parrun", "task.py", *more, "--grid", "grid.yaml")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["parun"], 2, "No such command 'parun'. Did you mean 'parrun'?"),
        (["xyzzy"], 2, "No such command 'xyzzy'."),
        (["parrun"], 2, "Missing argument 'SCRIPT'"),
        (["parrun", "task.py"], 2, "Missing option '--grid'"),
        (["parrun", "task.py", "--grid", "grid.yaml", "--frob"], 2, "No such option"),
        (["parrun", "task.py", "lokal", "--grid", "grid.yaml"], 1, "Did you mean 'local'?"),
        (["parrun", "task.py", "--grid", "grid.yaml"], 1, "`clusterkit start local`"),
        (["parrun", "nope.py", "--grid", "grid.yaml"], 2, "nope.py"),
        (["parrun", "task.py", "--grid", "nope.yaml"], 2, "nope.yaml"),
        (["parrun", "task.py", "--grid", "bad.yaml"], 2, "2 problems"),
        (["parrun", "task.py", "--grid", "huge.yaml"], 2, "--max-points"),
        (["parrun", "task.py", "--grid", "grid.yaml", "--alloc", "x"], 2, "hyphen"),
        (["parrun", "task.py", "--grid", "grid.yaml", "--alloc", "'"], 2, "quotation"),
        (["harvest"], 1, "there is no experiment yet"),
        (["harvest", "nope"], 1, "no experiment 'nope'"),
        (["harvest", "--to", "t.xlsx"], 2, ".csv, .json, .parquet"),
        (["harvest", "--x", "lr"], 2, "--plot"),
        (["status", "nope"], 1, "no experiment 'nope'"),
        (["rerun", "nope"], 2, "--missing, --failed"),
        (["rerun", "nope", "--missing"], 1, "no experiment"),
        (["cancel", "nope", "--yes"], 1, "no experiment"),
        (["logs", "nope", "0"], 1, "no experiment"),
        (["logs", "nope", "-1"], 2, "-1"),
    ],
)
def test_errors(
    folder: Path, clusterkit: Clusterkit, args: list[str], code: int, words: str
) -> None:
    (folder / "bad.yaml").write_text("params: {a: [], b: {linspase: [0, 1, 2]}}\n")
    (folder / "huge.yaml").write_text("params: {a: {range: [0, 1000]}, b: {range: [0, 1000]}}\n")
    done = clusterkit(*args, home=folder / "home", cwd=folder, check=False)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((folder / "home").glob("experiments/*"))


def test_every_command_has_help(clusterkit: Clusterkit) -> None:
    from clusterkit.cli.main import COMMANDS

    for name in COMMANDS:
        done = clusterkit(name, "--help")
        assert done.stdout.startswith(f"Usage: clusterkit {name}")
    for flag in ("--help", "-h", "--version"):
        assert clusterkit(flag).returncode == 0


def test_debug_shows_the_traceback(folder: Path, clusterkit: Clusterkit) -> None:
    done = clusterkit("--debug", "status", "nope", home=folder / "home", check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "Error: no experiment" in done.stderr


def test_a_reader_that_leaves(folder: Path) -> None:
    done = subprocess.run(
        f"{' '.join(command('--help'))} | true; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True,
        env=environment(folder / "home"),
    )  # fmt: skip
    assert done.stdout.strip() in ("0", "1", "141")
    assert done.stderr == ""


@root
def test_a_data_folder_that_may_not_be_written(tmp_path: Path) -> None:
    """Everything is imported first: another user may not be allowed to read this checkout."""
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    for path in (tmp_path, *list(tmp_path.parents)[:2]):
        if path != Path(tempfile.gettempdir()) and path.owner() == home.owner():
            path.chmod(path.stat().st_mode | 0o055)  # pytest's own folders are closed to others
    code = (
        "import os, sys\n"
        "from clusterkit.cli import main\n"
        f"os.environ['CLUSTERKIT_HOME'] = {str(tmp_path / 'good')!r}\n"
        "main.run(['history']); main.run(['status']); main.run(['harvest'])\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"os.environ['CLUSTERKIT_HOME'] = {str(home)!r}\n"
        "print('---', file=sys.stderr, flush=True)\n"
        "print([main.run([word]) for word in ('history', 'status', 'harvest')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(None), capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1:] == ["[1, 1, 1]"], done.stderr
    errors = done.stderr.partition("---\n")[2]
    assert errors.count(f"Error: the data folder {home} cannot be written to") == 3, errors
    assert errors.count("Set CLUSTERKIT_HOME to a folder you may write to") == 3
    assert "Traceback" not in errors
    assert list(home.iterdir()) == []


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A data folder on a disk of 3 MB."""
    home = tmp_path / "small"
    home.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", home], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield home
    finally:
        subprocess.run(["umount", "-l", home], check=True)


@root
@pytest.mark.slurm
def test_a_full_disk_and_afterwards(small: Path, lab: Lab) -> None:
    """The data folder's disk is full at every step of a parrun; with room again all goes on."""
    lab.project("import clusterkit; clusterkit.log(v=1)", "params: {i: {range: [0, 200]}}\n")
    (lab.folder / "weights.bin").write_bytes(b"w" * 400_000)
    cluster = small / "clusters"
    cluster.symlink_to(lab.home / "clusters")
    full = Lab(small, lab.folder, lab.clusterkit)
    full.call("history")
    ballast = small / "ballast"
    free = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
    failed = 0
    for left in (0, 20_000, 60_000, 120_000):
        ballast.write_bytes(b"\0" * max(0, free - left))
        done = full.call("parrun", "task.py", "--grid", "grid.yaml", check=False)
        ballast.unlink()
        if done.returncode == 0:
            continue
        failed += 1
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "full" in done.stderr or "No space left" in done.stderr
        assert full.experiments() == []
    assert failed >= 1
    experiment = full.parrun()["id"]
    wait_states = full.finished(experiment)
    assert [row["state"] for row in wait_states] == ["COMPLETED"] * 200
    # A harvest onto a full disk says so, and the next one has everything.
    ballast.write_bytes(b"\0" * (os.statvfs(small).f_bavail * os.statvfs(small).f_frsize))
    done = full.call("harvest", "--to", str(small / "t.csv"), check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    ballast.unlink()
    full.call("harvest", "--to", str(small / "t.csv"))
    assert (small / "t.csv").read_text().count("\n") == 201
