"""Speeds beside the peers', on one SLURM, in one run, as ratios: `make bench`.

This machine may be shared and noisy, so the contenders take turns and the median counts; nothing
here is a test. Slow contenders run fewer tasks and are scaled, and the table says so.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from clusterkit import cluster, paths
from clusterkit.cluster import ending, lifecycle

TASKS = 1000
PLAIN = 150
REPEATS = 5

Timed = Callable[[], float]


def run(*argv: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> float:
    """Seconds that a command takes; its failure ends the benchmark."""
    begun = time.perf_counter()
    done = subprocess.run(
        argv,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return time.perf_counter() - begun


class Bench:
    """One local cluster, and the contenders on it."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.env = {"CLUSTERKIT_HOME": str(home)}
        connection = cluster.connect("local", paths.home(str(home)))
        self.slurm = dict(connection.env)
        self.workers = connection.limits.cpus
        (folder / "task.sh").write_text("#!/bin/sh\ntrue\n")
        (folder / "task.sh").chmod(0o755)
        self._grid("thousand.yaml", TASKS)
        self._grid("many.yaml", 10_000)
        (folder / "plain.sh").write_text("#!/bin/sh\n#SBATCH --output=/dev/null\ntrue\n")

    def _grid(self, name: str, points: int) -> None:
        text = f'params:\n  i: {{range: [{points}]}}\nrun: "true"\n'
        (self.folder / name).write_text(text)

    def clusterkit(self, *words: str) -> float:
        argv = (str(Path(sys.executable).with_name("clusterkit")), *words)
        return run(*argv, env=self.env, cwd=self.folder)

    def packed(self) -> float:
        return self.clusterkit("parrun", "task.sh", "--grid", "thousand.yaml", "--wait")

    def packed_and_exported(self) -> float:
        return self.packed() + self.clusterkit("harvest", "--to", "results.csv")

    def plain(self) -> float:
        """`sbatch --wait` looks every few seconds; an empty queue is seen ten times a second."""
        begun = time.perf_counter()
        run("sbatch", f"--array=0-{PLAIN - 1}", "plain.sh", env=self.slurm, cwd=self.folder)
        while self._queue():
            time.sleep(0.1)
        return (time.perf_counter() - begun) * TASKS / PLAIN

    def _queue(self) -> str:
        argv = ("squeue", "--noheader", "--format=%i")
        env = {**os.environ, **self.slurm}
        return subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout

    def parallel(self) -> float:
        words = ("parallel", f"-j{self.workers}", "true", ":::", *map(str, range(TASKS)))
        return run(*words)

    def submitit(self) -> float:
        folder = tempfile.mkdtemp(dir=self.folder.parent)  # not beside the code: it has links
        code = (
            "import submitit\n"
            f"e = submitit.AutoExecutor(folder={folder!r}, cluster='slurm')\n"
            "e.update_parameters(timeout_min=10, slurm_array_parallelism=1000)\n"
            f"jobs = e.map_array(abs, range({PLAIN}))\n"
            "assert [j.result() for j in jobs] == list(range(len(jobs)))\n"
        )
        return run(sys.executable, "-c", code, env=self.slurm, cwd=self.folder) * TASKS / PLAIN


def median(contender: Timed, repeats: int = REPEATS) -> float:
    return statistics.median(contender() for _ in range(repeats))


def arrays(bench: Bench, eager: Bench) -> None:
    """1,000 tasks of `true`."""
    scaled = f"{PLAIN} tasks, scaled"
    rows: list[tuple[str, Timed, int]] = [
        ("clusterkit: parrun --wait, all rows harvested", bench.packed, REPEATS),
        (
            "clusterkit: the same, then `harvest --to results.csv`",
            bench.packed_and_exported,
            REPEATS,
        ),
        (f"plain array, one task an element ({scaled})", bench.plain, 1),
        (f"plain array, the fastest slurm.conf for it ({scaled})", eager.plain, 1),
        (f"submitit map_array ({scaled})", bench.submitit, 1),
    ]
    if shutil.which("parallel"):
        rows.append((f"GNU parallel -j{bench.workers}", bench.parallel, REPEATS))
    bench.packed()  # warms the disk's cache
    times = [median(contender, repeats) for _, contender, repeats in rows]
    print(f"\n{TASKS} tasks of `true`, {bench.workers} workers\n")
    print("| what | seconds | per task | times the first row |\n|---|---|---|---|")
    for (name, _, _), seconds in zip(rows, times, strict=True):
        per_task = f"{1000 * seconds / TASKS:.2f} ms"
        print(f"| {name} | {seconds:.2f} | {per_task} | {seconds / times[0]:.1f} |")


def commands(bench: Bench) -> None:
    """How long a user waits."""
    python = sys.executable
    bare = median(lambda: run(python, "-c", "pass"), 9)
    imported = median(lambda: run(python, "-c", "import clusterkit"), 9)
    many = ("parrun", "task.sh", "--grid", "many.yaml")
    rows = [
        ("`clusterkit --help`", median(lambda: bench.clusterkit("--help"), 9), "0.150"),
        ("`import clusterkit` (less an empty Python)", imported - bare, "0.020"),
        ("`clusterkit status`", median(lambda: bench.clusterkit("status"), 5), "0.500"),
    ]
    submitted = []
    for _ in range(REPEATS):
        submitted.append(bench.clusterkit(*many))
        bench.clusterkit("cancel", "--yes")
    rows.append(("10,000 points: parrun to sbatch's answer", statistics.median(submitted), "3.0"))
    print("\n| what | seconds | bar |\n|---|---|---|")
    for name, seconds, bar in rows:
        print(f"| {name} | {seconds:.3f} | {bar} |")


def start(folder: Path) -> None:
    """`clusterkit start local` with SLURM's packages there."""
    script = str(Path(sys.executable).with_name("clusterkit"))
    first, again = [], []
    for number in range(REPEATS):
        env = {"CLUSTERKIT_HOME": str(folder / f"start-{number}")}
        first.append(run(script, "start", "local", env=env))
        again.append(run(script, "start", "local", env=env))
        run(script, "stop", "local", "--yes", env=env)
    print("\n| what | seconds | bar |\n|---|---|---|")
    print(f"| `clusterkit start local`, first | {statistics.median(first):.2f} | 6.0 |")
    print(f"| `clusterkit start local`, nothing to do | {statistics.median(again):.2f} | |")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="clusterkit-bench-") as name:
        folder = Path(name)
        home, tuned = folder / "home", folder / "home-eager"
        # The fastest for plain arrays that we know of: the controller looks after every single end.
        eager = "batch_sched_delay=0,sched_interval=1,sched_min_interval=2000,bf_interval=1"
        settings = folder / "eager.yaml"
        settings.write_text(
            "clusters:\n  local:\n    provider: local\n    slurm:\n"
            f'      SchedulerParameters: "{eager},default_queue_depth=1000"\n'
        )
        try:
            lifecycle.start(paths.home(str(home)).prepared(), "local")
            lifecycle.start(paths.home(str(tuned), str(settings)).prepared(), "local")
            (folder / "a").mkdir()
            (folder / "b").mkdir()
            bench = Bench(folder / "a", home)
            arrays(bench, Bench(folder / "b", tuned))
            commands(bench)
        finally:
            ending.stop(paths.home(str(home)), "local")
            ending.stop(paths.home(str(tuned), str(settings)), "local")
        start(folder)


if __name__ == "__main__":
    main()
