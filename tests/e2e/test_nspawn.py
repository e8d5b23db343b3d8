"""nspawn machines for real: boots, reboots, kills at any time, and an end that leaves nothing.

Machines are made from the image in /var/tmp/clusterkit-e2e, which the first run ever makes.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clusterkit.cluster import access
from clusterkit.cluster.nspawn import host, needs
from clusterkit.cluster.nspawn.host import Host
from clusterkit.cluster.providers import Machine
from clusterkit.cluster.providers.nspawn import NspawnProvider
from clusterkit.cluster.spec import NspawnSpec
from clusterkit.errors import ClusterError, CommandFailed
from clusterkit.transport import Ssh

IMAGES = Path("/var/tmp/clusterkit-e2e")
#: A busy machine with two processors may take long; nothing here measures speed.
PATIENCE = 180.0

pytestmark = pytest.mark.skipif(
    bool(needs.missing()), reason="no nspawn machines here: " + "; ".join(needs.missing())
)


def make(folder: Path, count: int = 2) -> NspawnProvider:
    spec = NspawnSpec.model_validate(
        {"workers": {"cpu": {"count": count}}, "images": str(IMAGES), "prepared": False}
    )
    identity = access.identity(folder, "e2e", make=True)
    return NspawnProvider(spec, identity, folder)


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[NspawnProvider]:
    made = make(tmp_path / "cluster")
    yield made
    made.destroy(print)
    assert made.left() == ()


def up(provider: NspawnProvider) -> tuple[Machine, ...]:
    provider.create(provider.plan(), print)
    machines = provider.machines()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda one: of(provider, one).wait(PATIENCE), machines))
    return machines


def of(provider: NspawnProvider, machine: Machine) -> Host:
    found = host.read(provider.place / "hosts" / machine.name)
    assert found is not None
    return found


def until(holds: Callable[[], bool], what: str) -> None:
    """`holds` is looked at again and again: what it waits for has no event to be waited for."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.1)


def ssh(provider: NspawnProvider, machine: Machine) -> Ssh:
    return Ssh(provider.identity.address(machine.name, machine.address, machine.login))


def say(provider: NspawnProvider, machine: Machine, *argv: str) -> str:
    """What a command on a machine says; its host key is the one that was injected."""
    connection = ssh(provider, machine)
    try:
        return connection.run(argv, timeout=PATIENCE).text.strip()
    finally:
        connection.close()


def mounts(provider: NspawnProvider) -> list[str]:
    return [
        line
        for line in Path("/proc/mounts").read_text().splitlines()
        if str(provider.place) in line
    ]


def test_a_cluster_from_first_boot_to_nothing(provider: NspawnProvider) -> None:
    plan = provider.plan()
    assert not provider.place.exists()  # a plan changes nothing
    assert [one.name for one in plan.missing] == ["e2e-head", "e2e-cpu-1", "e2e-cpu-2"]
    started = time.monotonic()
    machines = up(provider)
    print(f"1 + 2 machines answered after {time.monotonic() - started:.1f} s")
    assert [(one.name, one.state, one.roles, one.group) for one in machines] == [
        ("e2e-head", "running", ("head",), ""),
        ("e2e-cpu-1", "running", ("worker",), "cpu"),
        ("e2e-cpu-2", "running", ("worker",), "cpu"),
    ]

    head, first, _ = machines
    # Strictly the injected host key, the image's own user with the cluster's key, and sudo.
    assert say(provider, head, "sudo", "-n", "hostname") == "e2e-head"
    assert head.address in say(provider, head, "ip", "-4", "-o", "address", "show", "host0")
    # Machines reach one another, and share /home, which is not where the login's own home is.
    reached = f"import socket; socket.create_connection(('{first.address}', 22), 60)"
    say(provider, head, "python3", "-c", reached)
    say(provider, head, "sudo", "-n", "mkdir", "/home/seen")
    assert say(provider, first, "ls", "/home") == "seen"
    # apt gets out, by the address that the bridge gives.
    say(provider, first, "sudo", "-n", "apt-get", "update", "-q")
    assert say(provider, first, "cat", "/sys/class/net/host0/operstate") == "up"

    # A second create finds all well and starts nothing anew.
    before = host.running(provider.identity.id)
    assert provider.plan().missing == ()
    provider.create(provider.plan(), print)
    assert host.running(provider.identity.id) == before

    # One of them goes, then all; and only what is said to.
    assert provider.destroy(print, only=["e2e-cpu-2"]).machines == ("e2e-cpu-2",)
    assert [one.name for one in provider.machines()] == ["e2e-head", "e2e-cpu-1"]
    assert [one.name for one in provider.plan().missing] == ["e2e-cpu-2"]
    smaller = make(provider.folder, count=0)
    assert [one.name for one in smaller.plan().surplus] == ["e2e-cpu-1"]

    bridge = of(provider, head).net.bridge
    assert any("bridge" in one for one in provider.left())
    ended = provider.destroy(print)
    assert ended.machines == ("e2e-cpu-1", "e2e-head")
    assert provider.left() == ()
    assert not Path("/sys/class/net", bridge).exists()
    assert mounts(provider) == []
    assert not provider.place.exists()
    assert provider.destroy(print).machines == ()  # nothing left to do


def test_reboots_pauses_and_deaths(provider: NspawnProvider) -> None:
    single = make(provider.folder, count=0)
    (head,) = up(single)
    say(single, head, "sudo", "-n", "touch", "/etc/kept")
    (first,) = (one for one in single_processes(single, head) if one.name == "systemd")

    # A reboot inside: another process 1, the same disk and keys. The connection may break first.
    try:
        say(single, head, "sudo", "-n", "systemctl", "reboot", "--no-block")
    except CommandFailed as error:
        print(error)

    def rebooted() -> bool:
        running = [one for one in single_processes(single, head) if one.name == "systemd"]
        return bool(running) and first not in running

    until(rebooted, "another process 1")
    of(single, head).wait(PATIENCE)
    assert say(single, head, "ls", "/etc/kept") == "/etc/kept"

    # Paused: nothing runs, the disk stays, and the next create switches it on again.
    single.pause(print)
    assert single_processes(single, head) == []
    (stopped,) = single.machines()
    assert stopped.state == "stopped"
    assert "e2e-head" in single.symptoms()
    plan = single.plan()
    assert plan.missing == ()
    assert any("switched on again" in note for note in plan.notes)
    (head,) = up(single)
    assert say(single, head, "ls", "/etc/kept") == "/etc/kept"

    # Every process of it is killed: it is found stopped, and comes back.
    for process in single_processes(single, head):
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: single.machines()[0].state == "stopped", "the end of its processes")
    with pytest.raises(ClusterError, match="died"):
        of(single, head).wait(PATIENCE)
    (head,) = up(single)
    assert say(single, head, "ls", "/etc/kept") == "/etc/kept"


def single_processes(provider: NspawnProvider, machine: Machine) -> list[host.Process]:
    return host.running(provider.identity.id).get(machine.name, [])


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_nspawn import make
provider = make(Path({folder!r}))
provider.create(provider.plan(), lambda words: print(words, flush=True))
print("created", flush=True)
"""


@pytest.mark.parametrize("lines", [1, 3])
def test_a_create_that_is_killed_is_finished_by_the_next(
    provider: NspawnProvider, lines: int
) -> None:
    provider.plan()  # the image is there, or will be made below: it is not what is killed here
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(provider.folder))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        seen = b""
        while seen.count(b": new,") < lines:  # the killing hits seeds and boots at any stage
            assert select.select([process.stdout], [], [], PATIENCE)[0], seen
            chunk = os.read(process.stdout.fileno(), 4096)
            assert chunk, seen
            seen += chunk
        process.kill()
    machines = up(provider)
    assert [one.state for one in machines] == ["running"] * 3
    assert say(provider, machines[1], "hostname") == "e2e-cpu-1"


def test_pretended_hardware(provider: NspawnProvider) -> None:
    tree = provider.folder / "pretend" / "head"
    (tree / "dev").mkdir(parents=True)
    (tree / "dev" / "nvidia0").touch()
    program = tree / "usr" / "bin" / "nvidia-smi"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho pretended\n")
    program.chmod(0o755)
    single = make(provider.folder, count=0)
    (head,) = up(single)
    assert say(single, head, "nvidia-smi") == "pretended"
    assert say(single, head, "ls", "/dev/nvidia0") == "/dev/nvidia0"
