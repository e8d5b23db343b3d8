"""The provider `ssh`: machines that somebody else runs become a cluster, and are given back.

Three machines with one /home, booted by hand. The user's ssh settings and known_hosts are made up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import project as here
import pytest
from project import Project, inside

from clusterkit.cluster import access
from clusterkit.cluster.nspawn import base, host, network, surroundings
from clusterkit.cluster.nspawn.host import Bind, Host
from clusterkit.cluster.nspawn.network import Network

pytestmark = pytest.mark.skipif(bool(here.WHY_NOT), reason=f"no machines here: {here.WHY_NOT}")

SETTINGS = """\
clusters:
  lab:
    provider: ssh
    shared: there
    accounting: false
    head: {host: boss}
    workers:
      desks: {hosts: [desk1, desk2], cpus: 2, memory: 2G}
"""
#: ssh finds a user's settings by /etc/passwd, not by HOME: it sees another one, in a mount
#: namespace of its own. The real one and the real home are not touched.
OTHER_HOME = 'mount --bind "$1" /etc/passwd && shift && exec "$@"'
SCRIPT = """
import clusterkit, os
clusterkit.log(node=os.environ["SLURMD_NODENAME"], home=os.path.expanduser("~"))
"""
NAMES = ("boss", "desk1", "desk2")


@dataclass
class Desks:
    """The machines: their cluster's id, and the project that uses them."""

    id: str
    project: Project
    hosts: dict[str, Host]
    keys: dict[str, str]  # their host keys

    def believe(self, *names: str) -> None:
        lines = [f"{self.hosts[name].address} {self.keys[name]}\n" for name in names]
        (self.project.home / ".ssh" / "known_hosts").write_text("".join(lines))

    def inside(self, name: str, script: str) -> str:
        return inside(self.id, name, script)


@pytest.fixture(scope="module")
def desks(spot: Path) -> Iterator[Desks]:
    identity = access.identity(spot / "theirs", "desks", make=True)
    try:
        yield boot(spot, identity)
    finally:
        here.swept(identity.id)


def boot(spot: Path, identity: access.Identity) -> Desks:
    layers = base.prepare(base.Recipe("debian-12", prepared=True), here.IMAGES, print)
    place = here.place(identity.id)
    (place / "hosts").mkdir(parents=True, mode=0o700)
    (place / "home").mkdir(mode=0o755)
    net = Network(identity.id, network.choose(identity.id, None, taken()))
    (place / "network.json").write_text(f'{{"range": "{net.range}"}}')  # others keep away from it
    net.up()
    around = surroundings.read()
    hosts: dict[str, Host] = {}
    for name in NAMES:
        address = host.free_address(net.range, [one.address for one in hosts.values()])
        binds = (Bind(str(place / "home"), "/home", read_only=False),)
        hosts[name] = Host(name, address, place / "hosts" / name, net, layers, binds)
        hosts[name].seed(identity.user_data(name), around)
        hosts[name].boot()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda one: one.wait(here.PATIENCE), hosts.values()))

    passwd = spot / "passwd"
    lines = Path("/etc/passwd").read_text().splitlines()
    fields = [line.split(":") for line in lines]
    for one in fields:
        if one[2] == str(os.getuid()):
            one[5] = str(spot / "home")
    passwd.write_text("".join(":".join(one) + "\n" for one in fields))
    before = ("unshare", "--mount", "sh", "-c", OTHER_HOME, "sh", str(passwd))
    project = Project(spot, before)
    (project.home / ".ssh").mkdir(mode=0o700)
    (project.home / ".ssh" / "config").write_text(
        "".join(
            f"Host {name}\n  HostName {one.address}\n  User debian\n  IdentityFile {identity.key}\n"
            for name, one in hosts.items()
        )
    )
    project.settings(SETTINGS)
    keys = {name: identity.host_key(name)[1] for name in NAMES}
    made = Desks(identity.id, project, hosts, keys)
    made.believe(*NAMES)
    return made


def taken() -> list[IPv4Network]:
    files = (here.IMAGES / "machines").glob("*/network.json")
    return [IPv4Network(json.loads(file.read_text())["range"]) for file in files]


def test_a_life_on_somebody_elses_machines(desks: Desks) -> None:
    project = desks.project
    project.settings(SETTINGS)
    with project.ended("lab"):
        # A host whose key nobody has vouched for: nothing is done, on no machine.
        desks.believe("boss", "desk1")
        refused = project.run("start", "lab", code=1)
        assert "desk2: " in refused.err
        assert "host key" in refused.err.lower()
        assert desks.inside("desk1", "ls /var/lib/clusterkit 2>/dev/null || :") == ""

        desks.believe(*NAMES)
        begun = project.start("lab")
        assert begun["nodes"] == list(NAMES)
        assert begun["changed"] > 0
        assert project.start("lab")["changed"] == 0
        project.task(SCRIPT, "params: {i: [1, 2, 3]}\n")
        rows = project.finished(project.parrun("lab"))
        assert [row["state"] for row in rows] == ["COMPLETED"] * 3
        assert {row["home"] for row in rows} == {"/home/clusterkit"}
        both = project.slurm("lab", "srun", "--nodes=2", "--mem=50", "hostname")
        assert sorted(both.split()) == ["desk1", "desk2"]

        # A host leaves the settings: that is asked about, and it is given back.
        project.replace("[desk1, desk2]", "[desk1]")
        asked = project.run("start", "lab", code=2)
        assert "desk2 is no longer in the settings" in asked.err
        assert desks.inside("desk2", "systemctl is-active slurmd") == "active"
        assert project.start("lab", "--yes")["nodes"] == ["boss", "desk1"]
        without_slurm(desks, "desk2")
        assert project.slurm("lab", "sinfo", "--noheader", "--format=%N") == "desk1"

        project.run("stop", "lab", "--yes")
        for name in NAMES:
            without_slurm(desks, name)
        assert desks.inside("boss", "ls -d /home/clusterkit") == "/home/clusterkit"
        assert not (project.cluster("lab") / "identity.json").exists()


def without_slurm(desks: Desks, name: str) -> None:
    """The machine runs as before, and nothing of a cluster's is left on it."""
    script = (
        "for unit in slurmctld slurmd munge; do systemctl is-active $unit; done | grep -x active; "
        "ls -d /etc/slurm/slurm.conf /var/lib/clusterkit /etc/munge/munge.key 2>/dev/null; "
        "grep -s clusterkit /etc/hosts /etc/exports; :"
    )
    assert desks.inside(name, script) == ""
    assert desks.hosts[name].alive()
