"""parrun and harvest on a cluster that is reached over ssh: this machine's SLURM, behind an sshd.

The cluster `lab` has a folder, an interpreter and a home of its own, and nothing of the caller's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPOSITORY, Clusterkit
from slot_experiment import wait_for

from clusterkit import cluster, paths
from clusterkit.cli import ending
from clusterkit.cluster import facts
from clusterkit.errors import ClusterError, ClusterkitError
from clusterkit.harvest import keep
from clusterkit.records import TaskState
from clusterkit.store import Store
from clusterkit.transport import Ssh

sys.path.append(str(REPOSITORY / "tests" / "contract"))
import sshd

pytestmark = pytest.mark.skipif(sshd.SSHD is None, reason="there is no sshd on this machine")

SCRIPT = """
import os, sys, time, tiny, clusterkit
print("task", sys.argv[-1], "über", flush=True)
out, kept = os.environ["CLUSTERKIT_OUT"], os.environ["CLUSTERKIT_CHECKPOINT"]
open(out + "/a file.txt", "w").write("x" * 100_000 + sys.argv[-1])
open(out + "/noise.npz", "wb").write(os.urandom(100_000))
open(kept + "/last", "w").write("1")
for name, target in (("newest", "a file.txt"), ("outside", "/etc/passwd")):
    if not os.path.lexists(out + "/" + name):
        os.symlink(target, out + "/" + name)
clusterkit.log(answer=tiny.ANSWER, where=sys.prefix)
if os.path.exists("hang"):
    time.sleep(600)
"""


@dataclass
class Lab:
    home: paths.Home
    project: Path
    far: Path  # clusterkit's folder on the cluster
    server: sshd.Server
    clusterkit: Clusterkit

    def __call__(self, *words: str, check: bool = True) -> str:
        done = self.run(*words, check=check)
        return done.stdout

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.clusterkit(
            *words,
            home=self.home.root,
            cwd=self.project,
            env={"CLUSTERKIT_CONFIG": str(self.home.config)},
            check=check,
        )

    def parrun(self, *words: str) -> str:
        made = self("parrun", "task.py", "lab", "--grid", "grid.yaml", "--json", *words)
        return str(json.loads(made.splitlines()[-1])["id"])

    def environments(self) -> list[Path]:
        return sorted(p for p in (self.far / "envs").iterdir() if p.is_dir())


def wheel(folder: Path) -> None:
    """`tiny` 1.0, so that an environment can be made without a network."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as file:
        info = "tiny-1.0.dist-info"
        file.writestr("tiny.py", "ANSWER = 42\n")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        file.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def lab(slurm_home: Path, tmp_path: Path, clusterkit: Clusterkit) -> Iterator[Lab]:
    local = facts.read(slurm_home / "clusters" / "local")
    assert local is not None
    (tmp_path / "data" / "clusters" / "lab").mkdir(parents=True)
    config = tmp_path / "clusterkit.yaml"
    config.write_text("clusters:\n  lab: {provider: attach, host: nowhere}\n")
    home = paths.Home(tmp_path / "data", config)
    project = tmp_path / "project"
    project.mkdir()
    wheel(tmp_path / "wheels")
    (project / "requirements.txt").write_text(
        f"--no-index\n--find-links {tmp_path / 'wheels'}\ntiny\n"
    )
    (project / "task.py").write_text(SCRIPT)
    (project / "grid.yaml").write_text("params: {i: [1, 2, 3]}\n")
    with sshd.server(tmp_path / "sshd") as server:
        facts.Facts(
            cluster="lab",
            provider="attach",
            started="",
            slurm_conf=local.slurm_conf,
            slurm_bin="",
            slurm_version=local.slurm_version,
            python=shutil.which("python3", path="/usr/bin") or sys.executable,
            root=str(tmp_path / "far" / "clusterkit"),
            max_array_size=local.max_array_size,
            default_time=None,
            cpus=local.cpus,
            memory=local.memory,
            gpus=(),
            head="head",
            hosts={"head": server.address},
            sbatch={"comment": "of the cluster"},
        ).write(home.cluster("lab"))
        try:
            yield Lab(home, project, tmp_path / "far" / "clusterkit", server, clusterkit)
        finally:
            Ssh(server.address).close()
            subprocess.run(
                ["scancel", f"--user={os.getuid()}"],
                env={**os.environ, "SLURM_CONF": local.slurm_conf},
                check=True,
            )


def test_from_parrun_to_files(lab: Lab) -> None:
    done = lab.run("parrun", "task.py", "lab", "--grid", "grid.yaml", "--wait", "--name", "far")
    assert "building environment" in done.stderr
    rows = json.loads(lab("harvest", "far", "--json"))
    assert [(row["state"], row["answer"]) for row in rows] == [("COMPLETED", 42)] * 3
    (environment,) = lab.environments()
    assert {row["where"] for row in rows} == {str(environment)}
    assert lab("logs", "far", "1") == "task 2 über\n"
    into = lab.project / "back"
    assert "3 new files, 3 in all" in lab("harvest", "far", "--files", "*.txt", "--into", str(into))
    assert (into / "2/a file.txt").read_text().endswith("x3")
    assert "0 new files, 3 in all" in lab("harvest", "far", "--files", "*.txt", "--into", str(into))
    script = (lab.far / "experiments").glob("*/rounds/0/script")
    assert '#SBATCH --comment="of the cluster"' in next(script).read_text()
    # One connection for all of it.
    assert lab.server.logins() == 1


def test_an_environment_is_made_once_and_a_broken_one_anew(lab: Lab) -> None:
    lab.parrun("--wait")
    (environment,) = lab.environments()
    before = (environment / ".complete").stat().st_mtime_ns
    again = lab.run("parrun", "task.py", "lab", "--grid", "grid.yaml", "--wait")
    assert "building" not in again.stderr
    assert (environment / ".complete").stat().st_mtime_ns == before
    # As a kill leaves it: no mark, half of the files.
    (environment / ".complete").unlink()
    shutil.rmtree(environment / "lib")
    lab.parrun("--wait")
    assert lab.environments() == [environment]
    assert (environment / ".complete").is_file()


def test_an_environment_that_cannot_be_made_says_why(lab: Lab) -> None:
    (lab.project / "requirements.txt").write_text("--no-index\nno-such-package==1\n")
    done = lab.run("parrun", "task.py", "lab", "--grid", "grid.yaml", check=False)
    assert done.returncode == 1
    assert "no-such-package" in done.stderr
    assert "nothing was submitted" in done.stderr
    assert not (lab.far / "experiments").exists()
    (lab.project / "requirements.txt").write_text("-e .\n")
    done = lab.run("parrun", "task.py", "lab", "--grid", "grid.yaml", check=False)
    assert done.returncode == 2
    assert "requirements.txt, line 1: -e ." in done.stderr


def test_without_such_files_tasks_get_the_clusters_own_python(lab: Lab) -> None:
    (lab.project / "requirements.txt").unlink()
    (lab.project / "task.py").write_text("import sys, clusterkit\nclusterkit.log(p=sys.prefix)\n")
    done = lab.run("parrun", "task.py", "lab", "--grid", "grid.yaml", "--wait")
    assert "the tasks get lab's own" in done.stderr
    assert not (lab.far / "envs").exists()


def test_a_large_project_is_sent_once(lab: Lab) -> None:
    (lab.project / "table.bin").write_bytes(b"0123456789abcdef" * (5 << 16))
    first, second = lab.parrun("--wait"), lab.parrun("--wait")
    copies = [lab.far / "experiments" / e / "code" / "table.bin" for e in (first, second)]
    assert copies[0].read_bytes() == copies[1].read_bytes()
    # Changed by a task, it is no source any more.
    copies[1].write_bytes(b"x" * (5 << 20))
    copies[0].unlink()
    third = lab.far / "experiments" / lab.parrun("--wait") / "code" / "table.bin"
    assert third.read_bytes() == (lab.project / "table.bin").read_bytes()


def test_before_the_machines_go_all_is_brought_and_proved(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "_goes_away", lambda *_: True)
    experiment = lab.parrun("--wait")
    with pytest.raises(ClusterError, match=rf"{experiment}.*1[01] files.*only there") as refused:
        ending.settle_before_end(lab.home, "lab", harvest=False, discard=False, yes=True)
    assert "stop lab --harvest" in str(refused.value)
    assert ending.unharvested(lab.home, "lab") == [experiment]
    ending.settle_before_end(lab.home, "lab", harvest=True, discard=False, yes=True)
    kept = lab.home.experiment(experiment) / "files"
    there = lab.far / "experiments" / experiment
    for name in ("out/0/a file.txt", "out/2/noise.npz", "checkpoints/1/last", "tasks"):
        assert (kept / name).read_bytes() == (there / name).read_bytes()
    assert (kept / "out/0/newest").readlink() == Path("a file.txt")
    assert not (kept / "out/0/outside").is_symlink()
    assert ending.unharvested(lab.home, "lab") == []
    # One file damaged here, without another size or time: the proof sees it.
    file = kept / "out/0/a file.txt"
    status = file.stat()
    file.write_bytes(b"y" * status.st_size)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    store = Store(lab.home.database)
    with pytest.raises(ClusterkitError, match=r"1 of .* not here as they are"):
        keep.bring(cluster.connect("lab", lab.home), store.experiment(experiment), lab.home)
    # The cluster goes; what was kept is read on.
    facts.forget(lab.home.cluster("lab"))
    lab.home.config.write_text("clusters: {}\n")  # type: ignore[union-attr]
    lab.server.stop()
    assert lab("logs", experiment, "1") == "task 2 über\n"
    lab("harvest", experiment, "--files", "*.npz", "--into", "back")
    assert (lab.project / "back/1/noise.npz").stat().st_size == 100_000


def test_what_never_ran_is_settled_when_it_is_discarded(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "_goes_away", lambda *_: True)
    (lab.project / "hang").touch()
    experiment = lab.parrun()
    wait_for(lambda: "running" in lab("status", experiment))
    with pytest.raises(ClusterError, match="unfinished tasks"):
        ending.settle_before_end(lab.home, "lab", harvest=False, discard=False, yes=True)
    ending.settle_before_end(lab.home, "lab", harvest=False, discard=True, yes=True)
    tasks = Store(lab.home.database).tasks(experiment)
    assert {task.state for task in tasks} <= {TaskState.LOST, TaskState.CANCELLED}
    assert {task.reason for task in tasks} == {"its cluster was ended (stop --discard)"}
    lab.server.stop()
    with pytest.raises(ClusterError, match="cannot be reached"):
        ending.settle_before_end(lab.home, "lab", harvest=True, discard=False, yes=True)
    assert "as last known" in lab("status", experiment)


def test_cp_and_sync(lab: Lab) -> None:
    data = lab.project / "data"
    (data / "inner").mkdir(parents=True)
    (data / "inner" / "a b").write_text("one")
    far = lab.far.parent / "there"
    assert "1 file" in lab("sync", "data", f"lab:{far}")
    (far / "theirs").write_text("stays")
    (data / "inner" / "c").write_text("two")
    assert "2 files" in lab("sync", "data", f"lab:{far}")
    assert sorted(p.name for p in far.rglob("*") if p.is_file()) == ["a b", "c", "theirs"]
    lab("cp", "task.py", "grid.yaml", f"lab:{far}")
    assert (far / "task.py").read_text() == SCRIPT
    lab("cp", f"lab:{far}/inner", "back")
    assert (lab.project / "back" / "a b").read_text() == "one"
    assert lab.run("cp", "task.py", "back", check=False).returncode == 2
    assert "no such file" in lab.run("cp", "nothing", "lab:x", check=False).stderr
    assert lab.run("cp", "task.py", "lob:x", check=False).returncode == 1
