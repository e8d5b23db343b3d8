"""What happens to clusters: kills at any moment, deaths, mistakes in settings, no network.

The tests share one cluster; each starts it where it is missing, and leaves it well.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import project as here
import pytest
from project import Done, Project, inside, until

from clusterkit.cluster import access
from clusterkit.cluster import facts as facts_file
from clusterkit.transport import Local, Ssh

pytestmark = pytest.mark.skipif(bool(here.WHY_NOT), reason=f"no machines here: {here.WHY_NOT}")

SETTINGS = f"""\
clusters:
  lab:
    provider: nspawn
    images: {here.IMAGES}
    accounting: false
    # more
    workers:
      cpu: {{count: 2, cpus: 2, memory: 2G}}
"""
SECONDS = """
import time, clusterkit
time.sleep(1)
clusterkit.log(i=clusterkit.params()["i"])
"""
WORKER = "lab-cpu-1"


@dataclass
class Lab:
    project: Project

    @property
    def folder(self) -> Path:
        return self.project.cluster("lab")

    @property
    def id(self) -> str:
        return access.read_id(self.folder)

    def inside(self, machine: str, script: str) -> str:
        return inside(self.id, machine, script)

    def hang_up(self) -> None:
        """End the shared connections: the next command has to log in anew."""
        known = facts_file.read(self.folder)
        for address in known.hosts.values() if known else ():
            Ssh(address).close()

    def refused(self, *words: str) -> Done:
        return self.project.run("start", "lab", *words, code=1)


@pytest.fixture(scope="module")
def shared(spot: Path) -> Iterator[Lab]:
    project = Project(spot)
    project.settings(SETTINGS)
    with project.ended("lab"):
        yield Lab(project)


@pytest.fixture
def lab(shared: Lab) -> Lab:
    shared.project.settings(SETTINGS)
    if not (shared.folder / "facts.json").exists():
        shared.project.start("lab")
    return shared


def test_killed_at_many_moments_and_started_again(shared: Lab) -> None:
    """A phase is killed when the one before it has told its end."""
    project = shared.project
    again = ("--again",) if (shared.folder / "facts.json").exists() else ()
    for phase in ("plan", "create", "reach", "Install packages", "Start the controller"):
        with project.popen("start", "lab", *again) as starting:
            starting.said(phase)
            starting.send(signal.SIGKILL)
            assert starting.done().code in (-signal.SIGKILL, 0)  # 0: it was faster
    begun = project.start("lab")
    assert sorted(begun["nodes"]) == ["lab-cpu-1", "lab-cpu-2", "lab-head"]
    assert project.start("lab")["changed"] == 0
    assert project.slurm("lab", "srun", "--nodes=2", "--mem=50", "hostname").count("lab-cpu-") == 2


def test_interrupted_by_the_user(lab: Lab) -> None:
    for _ in range(3):
        with lab.project.popen("start", "lab", "--again") as starting:
            starting.said("reach")
            os.killpg(starting.process.pid, signal.SIGINT)
            done = starting.done()
        if done.code != 0:  # else it was faster
            break
    assert done.code == 130, str(done)
    assert "Traceback" not in done.all
    lab.project.start("lab")


def test_two_at_once(lab: Lab) -> None:
    with lab.project.popen("start", "lab", "--again") as starting:
        starting.said("plan")
        starting.send(signal.SIGSTOP)
        second = lab.refused()
        starting.send(signal.SIGCONT)
        done = starting.done()
    assert f"pid {starting.process.pid}" in second.err
    assert done.code == 0, str(done)


def test_a_worker_dies_in_the_middle_of_an_experiment(lab: Lab) -> None:
    project = lab.project
    project.task(SECONDS, f"params: {{i: {list(range(60))}}}\n")
    experiment = project.parrun("lab")

    def some() -> bool:
        states = project.run("status", experiment, "--json").json["states"]
        return int(states.get("COMPLETED", 0)) >= 4

    until(some, "the first tasks' end")
    os.kill(here.first(lab.id, WORKER), signal.SIGKILL)
    until(lambda: WORKER not in here.host.running(lab.id), f"the end of {WORKER}")
    project.start("lab", "--yes")
    rows = project.finished(experiment)
    assert sorted(row["i"] for row in rows) == list(range(60))
    assert {row["state"] for row in rows} == {"COMPLETED"}


def test_a_machine_that_never_answers(lab: Lab) -> None:
    lab.inside(WORKER, "systemctl mask --quiet --now ssh.service")
    lab.inside(WORKER, "systemctl --quiet disable --now ssh.socket 2>/dev/null || :")
    lab.hang_up()
    lab.project.replace("# more", "timeouts: {boot: 5}")
    done = lab.refused()
    assert "1 of 3 machines of 'lab' cannot be used" in done.err
    assert f"{WORKER}: " in done.err
    assert "`clusterkit start lab` goes on from here" in done.err
    assert "Traceback" not in done.all
    lab.inside(WORKER, "systemctl --quiet unmask ssh.service && systemctl start ssh.service")
    lab.project.settings(SETTINGS)
    assert len(lab.project.start("lab")["nodes"]) == 3


def test_no_network_for_packages_then_a_full_disk(lab: Lab) -> None:
    archives = "/var/cache/apt/archives"
    fetch = "apt-get -qq -o Acquire::Retries=3"
    fetched = lab.inside(
        WORKER,
        f"{{ {fetch} update && {fetch} install --reinstall --download-only slurmd; }} >&2; "
        f"mkdir -p /old && mv {archives}/slurmd_*.deb /old && echo yes; :",
    )
    if fetched != "yes":
        pytest.skip("the machines reach no package server from here")
    lab.inside(WORKER, "systemctl stop slurmd && dpkg --remove --force-all slurmd >/dev/null 2>&1")
    # Nobody listens there: what a mirror out of reach looks like, without the minutes of waiting.
    nowhere = "/etc/apt/apt.conf.d/zz-nowhere"
    proxies = "".join(f'Acquire::{kind}::Proxy "http://127.0.0.1:9";' for kind in ("http", "https"))
    lab.inside(WORKER, f"echo '{proxies}' > {nowhere}")
    try:
        done = lab.refused()
    finally:
        lab.inside(WORKER, f"rm {nowhere}")
    assert f"{WORKER}: no package server answers" in done.err
    assert "`clusterkit start lab` goes on from here" in done.err

    lab.inside(WORKER, "mount -t tmpfs -o size=64k tmpfs /var/cache/apt")
    try:
        done = lab.refused()
    finally:
        lab.inside(WORKER, "umount /var/cache/apt")
    assert f"{WORKER}: the disk is full" in done.err
    assert "make room there" in done.err

    lab.inside(WORKER, f"mv /old/slurmd_*.deb {archives}")  # from here on no network is needed
    assert lab.project.start("lab")["changed"] > 0
    lab.inside(WORKER, "systemctl is-active slurmd")


def test_a_wrong_account(lab: Lab) -> None:
    lab.project.replace("# more", "login: nobody-here")
    lab.hang_up()
    done = lab.project.run("start", "lab")
    assert f"{WORKER}: nobody-here was refused, 'debian' worked" in done.out


def test_a_machine_of_another_cluster(lab: Lab) -> None:
    claim = "/var/lib/clusterkit/cluster"
    lab.inside(WORKER, f"cp {claim} {claim}.kept; echo 0123456789abcdef theirs > {claim}")
    try:
        done = lab.refused("--again")
    finally:
        lab.inside(WORKER, f"mv {claim}.kept {claim}")
    assert f"{WORKER} belongs to another cluster, 'theirs'" in done.err
    assert "nothing was changed" in done.err
    assert lab.project.start("lab")["changed"] == 0


def test_more_processors_than_there_are(lab: Lab) -> None:
    lab.project.replace("cpus: 2", "cpus: 9999")
    done = lab.refused()
    for worker in ("lab-cpu-1", "lab-cpu-2"):
        assert re.search(rf"{worker} has \d+, the settings ask for cpus: 9999", done.err)
    assert "nothing was changed" in done.err
    lab.project.settings(SETTINGS)
    assert lab.project.start("lab")["changed"] == 0


def test_a_key_that_others_can_read(tmp_path: Path) -> None:
    project = Project(tmp_path)
    key = project.folder / "my key"
    Local().run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
    key.chmod(0o644)
    project.settings(SETTINGS.replace("# more", f'key: "{key}"'))
    with project.ended("lab"):
        done = project.run("start", "lab", code=2)
        assert "can be read by others" in done.err
        assert "chmod 600" in done.err
        known = access.read_id(project.cluster("lab"))
        assert not known or here.remains(known) == []
