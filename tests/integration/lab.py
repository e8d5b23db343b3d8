"""A project of a user's, and what tests ask about its experiments."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import Clusterkit, command, environment
from slot_experiment import wait_for

from clusterkit.cluster import facts
from clusterkit.node import journal
from clusterkit.transport.address import control_folder, socket_of


def on(*kinds: str) -> pytest.MarkDecorator:
    """Run a test on these clusters: local, attach, attach_ssh, nspawn."""
    return pytest.mark.parametrize("lab", kinds, indirect=True)


everywhere = on("local", "attach", "attach_ssh", "nspawn")
near_and_far = on("local", "attach_ssh", "nspawn")
#: Where the way to the cluster is what matters, and not what it is made of.
here_and_by_ssh = on("local", "attach_ssh")


@dataclass
class Lab:
    """A project in `folder`, and the cluster `name` that it uses."""

    home: Path
    folder: Path
    clusterkit: Clusterkit
    name: str = "local"
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = str(os.getuid())  # that jobs run as
    outside: Callable[[str], Path] = Path  # a path on the cluster, as this machine has it

    def project(self, script: str, grid: str, name: str = "task.py") -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / name).write_text(script)
        (self.folder / "grid.yaml").write_text(grid)

    def call(self, *args: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
        env = {**self.env, **(more.pop("env", None) or {})}
        return self.clusterkit(*args, home=self.home, cwd=self.folder, env=env, **more)

    def parrun_words(self, *args: str, name: str = "task.py") -> list[str]:
        cluster = [] if self.name == "local" else [self.name]
        return ["parrun", name, *cluster, "--grid", "grid.yaml", *args]

    def parrun(self, *args: str, name: str = "task.py", check: bool = True) -> dict[str, Any]:
        done = self.call(*self.parrun_words("--json", *args, name=name), check=check)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def rows(self, experiment: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.call("harvest", experiment, "--json").stdout)
        return found

    def states(self, experiment: str) -> list[str]:
        return [row["state"] for row in self.rows(experiment)]

    def status(self, experiment: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.call("status", experiment, "--json").stdout)
        return found

    def finished(self, experiment: str, seconds: float = 300) -> list[dict[str, Any]]:
        """The rows, once nothing waits or runs any more."""

        def over() -> bool:
            # It waits by itself, and leaves the processors to those that it waits for.
            self.call("status", experiment, "--watch", check=False)
            return bool(self.status(experiment)["finished"])

        wait_for(over, seconds)
        return self.rows(experiment)

    def popen(self, *args: str, **more: Any) -> subprocess.Popen[bytes]:
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(
            command(*args),
            env=environment(self.home, self.env),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            **{**silent, **more},
        )

    @property
    def conf(self) -> Path:
        return self.home / "clusters" / "local" / "slurm" / "slurm.conf"

    def slurm(self, *argv: str) -> str:
        if self.name != "local":
            return self.call("ssh", self.name, "--", *argv).stdout
        done = subprocess.run(
            argv, env=environment(None, {"SLURM_CONF": str(self.conf)}), capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        return done.stdout

    def queued(self, job: str = "") -> list[str]:
        """Elements that wait or run, of one experiment's jobs or all."""
        name = [f"--name={job}"] if job else []
        return self.slurm(
            "squeue", "--noheader", "--array", "--states=PENDING,RUNNING", "--format=%i %T", *name
        ).splitlines()

    def root(self, experiment: str) -> Path:
        return self.outside(self.there(experiment))

    def there(self, experiment: str) -> str:
        """The experiment's folder, as the cluster has it."""
        return str(self.status(experiment)["root"])

    def records(self, root: Path, kind: str | None = None) -> list[journal.Record]:
        found: list[journal.Record] = []
        for path in sorted((root / "slots").glob("*.jsonl")):
            found += journal.read(str(path))
        return [record for record in found if kind is None or record["k"] == kind]

    def completions(self, root: Path) -> list[int]:
        """Tasks that ran to completion, each time that one did."""
        return sorted(r["task"] for r in self.records(root, "end") if r["state"] == "COMPLETED")

    def experiments(self) -> list[str]:
        return [e["id"] for e in json.loads(self.call("history", "--json").stdout)]

    def daemons(self) -> dict[str, int]:
        facts = json.loads((self.home / "clusters" / "local" / "facts.json").read_text())
        return {name: one["pid"] for name, one in facts["daemons"].items()}


def processes_with(*wanted: bytes) -> list[int]:
    """Processes with all these words in their command lines; those of machines here count."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if set(wanted) <= set(words):
            found.append(int(path.parent.name))
    return sorted(found)


def node_processes(root: Path | str) -> list[int]:
    """Supervisors and workers of an experiment's slots; `root` is the cluster's own name for it."""
    return processes_with(os.fsencode(root), b"slot")


def hang_up(lab: Lab) -> None:
    """Kill the process that holds the shared connection to the cluster's head."""
    found = facts.read(lab.home / "clusters" / lab.name)
    assert found is not None
    path = socket_of(facts.as_user(found), control_folder())
    said = subprocess.run(
        ["ssh", "-F", "none", "-S", path, "-O", "check", "any"],
        capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip
    kill([int(re.search(r"pid=(\d+)", said)[1])])  # type: ignore[index]


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def cancelled_after(lab: Lab) -> Iterator[None]:
    """Whatever a test leaves in the queue is taken out, so that the next one finds room."""
    try:
        yield
    finally:
        # A test that has broken SLURM itself says so.
        with suppress(subprocess.CalledProcessError, AssertionError):
            lab.slurm("scancel", "--user", lab.user)
            wait_for(lambda: not lab.queued())
