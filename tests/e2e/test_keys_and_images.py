"""Machines as clouds make them, for real: arrival, new keys by user-data, images of their disks.

No cloud takes part: a host's NoCloud seed stands for its user-data, its upper layer for its disk.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import project as here
import pytest

from clusterkit.cluster import access, ansible, reach, remote
from clusterkit.cluster.access import Identity
from clusterkit.cluster.cloud import imaging
from clusterkit.cluster.nspawn import base, cgroup, network, surroundings
from clusterkit.cluster.nspawn.host import Host
from clusterkit.cluster.nspawn.network import Network
from clusterkit.cluster.providers import Ended, Machine, Plan, Provider, Say
from clusterkit.cluster.reach import Reached
from clusterkit.cluster.spec import NspawnSpec
from clusterkit.errors import ClusterError, TransportError, Unreachable
from clusterkit.transport import Ssh

pytestmark = pytest.mark.skipif(bool(here.WHY_NOT), reason=f"no machines here: {here.WHY_NOT}")

ID = "00000000e2e0ca11"
SPEC = {"workers": {}, "head": {"worker": True}, "accounting": True, "shared": "there"}
CLOUDS_KEY = f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'A' * 43} clouds"
SEED = "var/lib/cloud/seed/nocloud/user-data"


class Given(Provider):
    """A place whose machines were made by the test."""

    name = "given"

    def __init__(self, identity: Identity, machines: Collection[Machine]) -> None:
        super().__init__(NspawnSpec.model_validate(SPEC), identity, identity.folder)
        self.there = tuple(machines)

    def plan(self) -> Plan:
        raise AssertionError

    def create(self, plan: Plan, say: Say) -> None:
        raise AssertionError

    def machines(self) -> tuple[Machine, ...]:
        return self.there

    def destroy(self, say: Say, only: Collection[str] | None = None) -> Ended:
        raise AssertionError

    def left(self) -> tuple[str, ...]:
        raise AssertionError


class Room:
    """Hosts on a bridge of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layers = base.prepare(base.Recipe("debian-12"), here.IMAGES, print)
        self.net = Network(ID, network.choose(ID, None, []))
        self.net.up()
        self.hosts: list[Host] = []

    def host(self, name: str, user_data: str, layers: Collection[Path] = ()) -> Host:
        """A new machine, booted; it calls itself something else, as clouds' machines do."""
        address = IPv4Address(int(self.net.range.network_address) + 10 + len(self.hosts))
        known = f"ip-{str(address).replace('.', '-')}"
        made = Host(known, address, self.folder / name, self.net, (*layers, *self.layers))
        self.hosts.append(made)
        made.seed(user_data, surroundings.read())
        # Clouds name a key of their own for all machines, which may be an earlier owner's.
        meta = made.folder / "upper" / SEED.replace("user-data", "meta-data")
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "public-keys": [CLOUDS_KEY]}))
        hosts = made.folder / "upper/etc/hosts"
        hosts.write_text("127.0.0.1 localhost\n::1 localhost\n")
        made.boot()
        made.wait(here.PATIENCE)
        return made

    def again(self, host: Host, user_data: str) -> None:
        """Switched off, given other user-data, switched on. Clouds' user-data are read at each
        boot; a NoCloud seed only where cloud-init has no memory of one."""
        host.power_off()
        assert not host.alive()
        (host.folder / "upper" / SEED).write_text(user_data)
        for memory in (host.folder / "upper/var/lib/cloud").rglob("obj.pkl"):
            memory.unlink()
        host.boot()
        host.wait(here.PATIENCE)

    def end(self) -> None:
        for host in self.hosts:
            host.end()
        cgroup.remove(cgroup.group(ID))
        self.net.down()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    here.image_or_skip()
    folder = here.IMAGES / "machines" / ID
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = Room(folder)
    yield made
    made.end()
    shutil.rmtree(folder)


def owner(folder: Path) -> Identity:
    """Somebody who has the cluster, on a computer of his own."""
    access.write_identity(folder, ID, "20261121T134118Z")
    return access.identity(folder, "lab", make=False)


def arrive(identity: Identity, machine: Machine) -> Reached:
    provider = Given(identity, [machine])
    (reached,) = reach.reach(provider, identity, [machine], here.PATIENCE, print)
    return reached


def on(reached: Reached, script: str) -> str:
    """What a script says that root runs there."""
    return reached.transport.run(["sh", "-c", script], timeout=here.PATIENCE).text.strip()


def test_a_launch_arrives_and_another_computer_takes_it_over(room: Room, tmp_path: Path) -> None:
    alice, bob = owner(tmp_path / "alice"), owner(tmp_path / "bob")
    user_data = alice.launch_user_data("0123")
    alice.believe_first("0123", ["lab-head"])
    host = room.host("lab-head", user_data)
    machine = Machine("lab-head", str(host.address), ("head", "worker"), login="debian")

    first = alice.believed("lab-head")
    there = arrive(alice, machine)
    assert there.seen.hostname == "lab-head"
    assert alice.believed("lab-head") == set(there.seen.host_keys)
    assert not first & alice.believed("lab-head")
    assert on(there, "hostname; cat /etc/hostname; getent hosts lab-head").split() == [
        "lab-head", "lab-head", "127.0.1.1", "lab-head",
    ]  # fmt: skip
    assert arrive(alice, machine).seen.host_keys == there.seen.host_keys  # and again: nothing new
    assert on(there, "cat ~debian/.ssh/authorized_keys") == alice.public_key

    # What the set-up leaves: the account of the jobs, with a key of its own user's beside ours.
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", tmp_path / "me"]
    )
    own = (tmp_path / "me.pub").read_text()
    on(
        there,
        "useradd -m -u 5000 jobs && mkdir /home/jobs/.ssh && "
        f"echo '{alice.public_key}\n{own}' > /home/jobs/.ssh/authorized_keys && "
        "chown -R jobs /home/jobs/.ssh && chmod 700 /home/jobs/.ssh && echo kept > /etc/kept",
    )
    there.transport.close()

    # Bob has the cluster's id, from its labels; nothing lets him in, and he trusts nobody.
    with pytest.raises(ClusterError, match="its host key is not known on this computer"):
        arrive(bob, machine)
    nonce = "00ff"
    bob.believe_adopted("lab-head")
    room.again(host, bob.adoption_user_data("lab-head", nonce))
    taken = arrive(bob, machine)
    assert taken.seen.hostname == "lab-head"
    assert on(taken, "cat /etc/kept; ls /etc/ssh/ssh_host_*") == (
        "kept\n/etc/ssh/ssh_host_ed25519_key\n/etc/ssh/ssh_host_ed25519_key.pub"
    )
    keys = on(taken, "cat /home/jobs/.ssh/authorized_keys").splitlines()
    assert keys == [bob.public_key, own.strip()]
    assert on(taken, "stat -c %U:%a /home/jobs/.ssh/authorized_keys") == "jobs:644"
    blob = alice.public_key.split()[1]
    assert on(taken, f"grep -rlF '{blob}' /root /home /etc || echo none") == "none"

    # Alice knows the machine by another host key now; told the true one, she is still refused.
    for login in ("debian", "jobs", "root"):
        alice.believe("lab-head", bob.believed("lab-head"), instead=True)
        with pytest.raises(Unreachable) as caught:
            Ssh(alice.address("lab-head", str(host.address), login)).run(["true"])
        assert caught.value.why == "denied"
        with pytest.raises(Unreachable) if login == "root" else nullcontext():
            Ssh(bob.address("lab-head", str(host.address), login)).run(["true"])

    # Another boot with the same user-data does nothing more: the key made on the machine stays.
    taken.transport.close()
    room.again(host, bob.adoption_user_data("lab-head", nonce))
    assert arrive(bob, machine).seen.host_keys == taken.seen.host_keys


#: What stays on the disk of a machine that was somebody's, by the words in it.
TRACES = (
    "clusterkit lab", "Accepted publickey", "secret-of-a-shell", "lab-builder",
    "PRIVATE KEY",
)  # fmt: skip


def test_an_image_has_the_packages_and_no_trace(room: Room, tmp_path: Path) -> None:
    alice, bob = owner(tmp_path / "alice"), owner(tmp_path / "bob")
    user_data = alice.launch_user_data("b")
    alice.believe_first("b", ["lab-builder"])
    builder = room.host("lab-builder", user_data)
    machine = Machine("lab-builder", str(builder.address), ("head",), login="debian")
    there = arrive(alice, machine)
    on(
        there,
        "echo secret-of-a-shell > /root/.bash_history; echo secret-of-a-shell > /tmp/x; "
        "echo secret-of-a-shell > ~debian/.python_history; mkdir -p /etc/clusterkit; "
        "echo secret-of-a-shell > /etc/clusterkit/munge.key; logger secret-of-a-shell",
    )
    machine_id = on(there, "cat /etc/machine-id")
    imaging.set_up(there, folder=tmp_path / "alice", gpus=False)
    with pytest.raises(TransportError):
        Ssh(replace(there.address, host_key_alias="again")).run(["true"])
    builder.power_off()
    disk = room.folder / "image"
    (builder.folder / "upper").rename(disk)

    # The disk itself, as whoever gets the image could read it.
    for word in (*TRACES, builder.name, machine_id, alice.public_key.split()[1]):
        found = subprocess.run(["grep", "-rlsF", word, disk], capture_output=True, text=True)
        assert [one for one in found.stdout.splitlines() if "/usr/" not in one] == [], word
    for gone in (
        "etc/munge/munge.key", "etc/ssh/ssh_host_ed25519_key", "var/lib/clusterkit",
        "var/lib/cloud/instance", "root/.bash_history", "etc/clusterkit",
    ):  # fmt: skip
        path = disk / gone
        assert not path.is_dir(), gone
        assert not path.is_file(), gone  # a whiteout is a device

    # Somebody else's machine starts from it: his keys, nobody else's, and the packages are there.
    user_data = bob.launch_user_data("i")
    bob.believe_first("i", ["lab-image"])
    host = room.host("lab-image", user_data, [disk])
    fresh = Machine("lab-image", str(host.address), ("head", "worker"), login="debian")
    reached = arrive(bob, fresh)
    assert on(reached, "dpkg-query -W -f '${Status}' slurmctld slurmdbd nfs-common munge")
    assert on(reached, "systemctl is-active mariadb munge slurmd || :").split() == ["inactive"] * 3
    assert on(reached, "cat ~debian/.ssh/authorized_keys") == bob.public_key
    assert on(reached, "cat /etc/machine-id") != machine_id
    # This kernel may have no NFS.
    failed = "systemctl --failed --no-legend --plain | grep -v rpc_pipefs | cut -d' ' -f1"
    assert on(reached, failed) == ""
    assert on(reached, "ls -A /root /home").split() == [
        "/home:", "debian", "/root:", ".bashrc", ".profile", ".ssh",
    ]  # fmt: skip
    set_up(bob, reached)
    assert (
        on(reached, "systemctl is-enabled mariadb munge slurmctld slurmd slurmdbd").split()
        == ["enabled"] * 5
    )
    # Nothing had to be fetched: dpkg has told of no package since the machine is there.
    told = "cat /var/log/dpkg.log 2> /dev/null | grep -c ' install ' || :"
    assert on(reached, told) == "0"
    reached.transport.close()


def set_up(identity: Identity, reached: Reached) -> None:
    """A cluster of this one machine."""
    provider = Given(identity, [reached.machine])
    spec = NspawnSpec.model_validate(SPEC)
    site = remote.site(provider, identity, spec, [reached])
    remote.judge(provider, identity, site.reached)
    remote.place_munge_key(site, identity)
    ansible.run(
        "site.yml",
        site.inventory,
        folder=identity.folder / "runs" / reached.machine.name,
        home=str(identity.folder / "ansible"),
    )
