"""A cluster's whole life on systemd machines: from nothing, used, resized, to nothing.

The tests share one cluster (a head, two groups of one worker); each starts it where it is missing.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import project as here
import pytest
from project import Project, inside, remains, until

from clusterkit.cluster import access

pytestmark = pytest.mark.skipif(bool(here.WHY_NOT), reason=f"no machines here: {here.WHY_NOT}")

SETTINGS = f"""\
clusters:
  lab:
    provider: nspawn
    images: {here.IMAGES}
    workers:
      a:
        count: 1   # stays
        cpus: 2
        memory: 2G
      b:
        count: 1
        cpus: 2
        memory: 2G
"""
SCRIPT = """
import os, clusterkit
p = clusterkit.params()
with open(os.path.join(os.environ["CLUSTERKIT_OUT"], "square.txt"), "w") as file:
    file.write(str(p["x"] ** 2))
clusterkit.log(square=p["x"] ** 2, node=os.environ["SLURMD_NODENAME"])
"""
NODES = ["lab-a-1", "lab-b-1", "lab-head"]


@dataclass
class Lab:
    project: Project
    seen: here.Seen  # while it was started for the first time
    changed: int  # by that start

    @property
    def id(self) -> str:
        return access.read_id(self.folder)

    @property
    def folder(self) -> Path:
        return self.project.cluster("lab")

    def partitions(self) -> dict[str, str]:
        """Partition -> its nodes, as SLURM lists them."""
        listed = self.project.slurm("lab", "sinfo", "--noheader", "--format=%R %N")
        return dict(line.split() for line in listed.splitlines())

    def state(self, job: str) -> str:
        listed = self.project.slurm("lab", "scontrol", "show", "job", job)
        return next(word for word in listed.split() if word.startswith("JobState=")).split("=")[1]

    def submit(self, node: str, flag: str) -> str:
        """A job on a node that runs until a file `flag` appears in its home."""
        # The file goes with it, so that the next job of its kind waits for its own.
        wrapped = f"until [ -e $HOME/{flag} ]; do sleep 0.3; done; rm $HOME/{flag}"
        words = ["sbatch", "--parsable", f"--partition={node.split('-')[1]}", f"--nodelist={node}"]
        job = self.project.slurm(
            "lab", *words, "--mem=100", "--output=/dev/null", "--wrap", wrapped
        )
        until(lambda: self.state(job) == "RUNNING", f"job {job} on {node}")
        return job


@pytest.fixture(scope="module")
def shared(spot: Path) -> Iterator[Lab]:
    project = Project(spot)
    project.settings(SETTINGS)
    with project.ended("lab"):
        with here.Seen(project.cluster("lab")) as seen:
            begun = project.start("lab")
        yield Lab(project, seen, begun["changed"])


@pytest.fixture
def lab(shared: Lab) -> Lab:
    if not (shared.folder / "facts.json").exists():
        shared.project.settings(SETTINGS)
        shared.project.start("lab")
    return shared


def test_what_is_there(lab: Lab) -> None:
    facts = json.loads((lab.folder / "facts.json").read_text())
    assert lab.changed > 0
    assert sorted(facts["hosts"]) == NODES
    assert (facts["head"], facts["cpus"], facts["memory"]) == ("lab-head", 4, 4096)
    assert lab.partitions() == {"a": "lab-a-1", "b": "lab-b-1"}
    assert lab.project.slurm("lab", "hostname") == "lab-head"
    assert lab.project.run("ssh", "lab", "lab-b-1", "--", "hostname").out.strip() == "lab-b-1"
    assert lab.project.run("ssh", "lab", "--", "sh", "-c", "exit 7", code=7)
    assert lab.project.slurm("lab", "sacct", "--allusers", "--noheader", "--format=state")
    (found,) = (one for one in lab.project.run("list", "--json").json if one["name"] == "lab")
    assert (found["state"], found["problem"]) == ("running", "")
    assert lab.project.run("status", "lab").out


def test_started_again_nothing_changes(lab: Lab) -> None:
    assert lab.project.start("lab")["changed"] == 0
    assert lab.project.start("lab", "--again")["changed"] == 0


def test_a_grid_and_its_table(lab: Lab) -> None:
    lab.project.task(SCRIPT, "params: {x: [1, 2, 3, 4]}\n")
    rows = lab.project.finished(lab.project.parrun("lab"))
    assert [(row["x"], row["square"], row["state"]) for row in rows] == [
        (x, x * x, "COMPLETED") for x in (1, 2, 3, 4)
    ]
    assert {row["node"] for row in rows} == {"lab-a-1"}  # the first group is the default


def test_files_there_and_back(lab: Lab) -> None:
    data = lab.project.folder / "my data"
    data.mkdir(exist_ok=True)
    (data / "a b.txt").write_text("one")
    lab.project.run("cp", "my data/a b.txt", "lab:kept.txt")
    lab.project.run("sync", "my data", "lab:synced")
    (data / "new.txt").write_text("two")
    lab.project.run("sync", "my data", "lab:synced")
    there = lab.project.slurm("lab", "find", ".", "-path", "./synced/*", "-name", "*.txt")
    assert sorted(Path(line).name for line in there.splitlines()) == ["a b.txt", "new.txt"]
    (lab.project.folder / "back").mkdir(exist_ok=True)
    lab.project.run("cp", "lab:kept.txt", "lab:synced", "back")
    assert (lab.project.folder / "back" / "kept.txt").read_text() == "one"
    assert list((lab.project.folder / "back" / "synced").rglob("new.txt"))
    lab.project.run("cp", "lab/lab-a-1:/etc/hostname", "name")
    assert (lab.project.folder / "name").read_text() == "lab-a-1\n"


def test_secrets_stay_secret(lab: Lab) -> None:
    munge = (lab.folder / "munge.key").read_bytes()
    conf = inside(lab.id, "lab-head", "cat /etc/slurm/slurmdbd.conf")
    (password,) = (line[12:] for line in conf.splitlines() if line.startswith("StoragePass="))
    assert len(password) >= 20
    key = (lab.folder / "key").read_bytes()
    body = key.splitlines()[-2]  # the end of the private half
    secrets = [munge[:32], munge[:16].hex().encode(), password.encode(), body]

    files = [file for file in lab.project.data.rglob("*") if file.is_file()]
    assert any("runs" in file.parts for file in files)
    own = {lab.folder / "munge.key", lab.folder / "key"}
    for file in set(files) - own:
        content = file.read_bytes()
        assert not any(secret in content for secret in secrets), file
    assert any(b"clusterkit" in line for line in lab.seen.lines)
    for line in lab.seen.lines:
        assert not any(secret in line for secret in secrets), line
    for machine in NODES:
        search = "grep -rlF -f - /var/log /run/log /tmp /var/tmp /var/lib/cloud || :"
        assert inside(lab.id, machine, search, f"{password}\n") == "", machine
    for file in (*own, lab.folder / "identity.json", lab.folder / "known_hosts"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(lab.folder.stat().st_mode) & 0o077 == 0
    for machine in NODES:
        modes = inside(lab.id, machine, "stat -c %a /etc/munge/munge.key /etc/clusterkit/munge.key")
        assert set(modes.split()) <= {"400", "600"}


def test_first_host_keys_are_believed_no_more(lab: Lab) -> None:
    known = dict(
        line.split(" ", 1) for line in (lab.folder / "known_hosts").read_text().splitlines()
    )
    assert sorted(known) == NODES
    for machine in NODES:
        injected = lab.seen.keys.get(machine, set())
        assert injected, machine
        offered = inside(lab.id, machine, "cat /etc/ssh/ssh_host_*_key.pub").splitlines()
        assert [" ".join(line.split()[:2]) for line in offered] == [known[machine]]
        assert known[machine] not in injected
        assert inside(lab.id, machine, "grep -rl 'OPENSSH PRIVATE' /var/lib/cloud || :") == ""
    assert not list((lab.folder / "hosts").iterdir())


def test_resized_while_jobs_run(lab: Lab) -> None:
    project = lab.project
    grown = project.run("resize", "lab", "b=2", "--yes", "--json").json
    assert sorted(grown["started"]["nodes"]) == ["lab-a-1", "lab-b-1", "lab-b-2", "lab-head"]
    assert "count: 2" in (project.folder / "clusterkit.yaml").read_text()
    assert "# stays" in (project.folder / "clusterkit.yaml").read_text()
    stays, goes = lab.submit("lab-a-1", "go-a"), lab.submit("lab-b-2", "go-b")
    with project.popen("resize", "lab", "b=1", "--yes") as shrinking:

        def draining() -> bool:
            assert shrinking.process.poll() is None, shrinking.text
            listed = project.slurm("lab", "sinfo", "--noheader", "--Node", "--format=%N %T")
            return "lab-b-2 drain" in listed

        until(draining, "lab-b-2 is drained")
        assert lab.state(goes) == "RUNNING"
        project.slurm("lab", "touch", "go-b")
        done = shrinking.done()
    assert done.code == 0, str(done)
    books = ("sacct", "-X", "--noheader", "--format=state", "--jobs", goes)
    until(
        lambda: project.slurm("lab", *books) == "COMPLETED", f"the end of job {goes} in the books"
    )
    assert lab.state(stays) == "RUNNING"
    assert lab.partitions() == {"a": "lab-a-1", "b": "lab-b-1"}
    project.slurm("lab", "touch", "go-a")
    until(lambda: lab.state(stays) == "COMPLETED", "the end of the job that stayed")
    assert project.start("lab")["changed"] == 0


def test_stopped_nothing_is_left(lab: Lab, tmp_path: Path) -> None:
    project, known = lab.project, lab.id
    project.task(SCRIPT, "params: {x: [5]}\n")
    experiment = project.parrun("lab")
    refused = project.run("stop", "lab", "--yes", code=1)
    assert experiment in refused.err
    assert "--harvest" in refused.err
    assert remains(known)

    # From another folder the settings it was started with are still known.
    assert "lab" in [one["name"] for one in project.run("list", "--json", cwd=tmp_path).json]
    project.run("stop", "lab", "--discard", "--yes", cwd=tmp_path)
    assert remains(known) == []
    left = {file.name for file in lab.folder.iterdir()}
    assert not left & {"key", "munge.key", "identity.json", "known_hosts", "facts.json"}
    assert project.run("stop", "lab", "--yes").code == 0  # nothing is left to do
