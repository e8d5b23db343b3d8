"""One host: a real system with systemd and sshd, over an overlay of the image.

<folder>/
  host.json      what it is; written last, so that a folder with it is whole
  upper/, work/  its disk
  root/          where its own processes mount that disk
  console.log    what it said while it booted

The processes of a host are found by a mark in their environment, never by a file: its keeper (a
shell that starts systemd-nspawn again when the host reboots), systemd-nspawn, and the host's own
process 1. When process 1 ends, the kernel ends everything inside; when all three are gone, the
mounts and the interface are gone too, whatever was killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import threading
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from clusterkit.cluster import processes
from clusterkit.cluster.nspawn import base, cgroup, needs, surroundings
from clusterkit.cluster.nspawn.network import Network
from clusterkit.cluster.nspawn.surroundings import File, Surroundings
from clusterkit.cluster.processes import Process
from clusterkit.errors import ClusterError
from clusterkit.transport import Local, detached

#: The mark: "<cluster id>:<host name>".
MARK = "CLUSTERKIT_NSPAWN"
#: systemd's signal for an orderly power-off (systemd(1), SIGRTMIN+4).
_POWER_OFF = signal.SIGRTMIN + 4
_GRACE = 30.0
_MOUNT = 'mount -t overlay clusterkit -o "$1" "$2" && shift 2 && '
# Of a host that was killed, processes may be ending still: its disk is not mounted beside theirs.
# 133: the host rebooted (systemd-nspawn(1), --keep-unit). "0" in cgroup.procs is who writes it.
_KEEPER = (
    f'mount -t cgroup2 cgroup2 {cgroup.ROOT} && group="{cgroup.ROOT}/$3" && mkdir -p "$group" && '
    'for _ in $(seq 200); do grep -q "populated 0" "$group/cgroup.events" && break; sleep 0.05; '
    "done && "
    + _MOUNT
    + 'shift && while :; do (echo 0 > "$group/cgroup.procs" && exec "$@"); '
    + "code=$?; [ $code = 133 ] || exit $code; done"
)
# A unit of this machine's systemd: it starts the host again itself.
_UNIT = _MOUNT + 'shift && exec "$@"'


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder of this machine that a host sees at `target`."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Host:
    """A host; `layers` are the overlay's lower ones, the topmost first."""

    name: str
    address: IPv4Address
    folder: Path
    net: Network
    layers: tuple[Path, ...]
    binds: tuple[Bind, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        return f"{self.net.id}:{self.name}"

    @property
    def machine(self) -> str:
        """systemd-nspawn's name for it, unique on this machine; at most 64 letters."""
        return f"ck-{self.net.id[:10]}-{self.name}"[:64].rstrip("-.")

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    def seed(self, user_data: str, around: Surroundings | None = None) -> None:
        """Make its disk: name, address, what it takes over from this machine, its user-data.

        `around`: what that is, where it was read already. cloud-init reads `user_data` at its
        first boot (NoCloud, cloudinit.readthedocs.io). What is there of an earlier host is removed:
        a host is seeded once.
        """
        base.remove_tree(self.folder)
        self.folder.mkdir(parents=True, mode=0o700)
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(mode=0o755)
        around = around or surroundings.read()
        for file in (*around.files, *self._files(user_data)):
            base.put_file(self.folder / "upper", file)
        binds = (*self.binds, *(Bind(str(one), str(one)) for one in around.folders))
        said = {
            "name": self.name,
            "address": str(self.address),
            "network": {"id": self.net.id, "range": str(self.net.range)},
            "layers": [str(layer) for layer in self.layers],
            "binds": [[one.source, one.target, one.read_only] for one in binds],
            "labels": dict(self.labels),
        }
        staging = self.folder / ".host.json"
        staging.write_text(json.dumps(said, indent=1))
        staging.rename(self.folder / "host.json")

    def boot(self) -> None:
        """Start it; it goes on when this process ends. Nothing to do when it runs."""
        if self.alive():
            return
        whole = read(self.folder)
        if whole is None:
            raise ClusterError(f"machine {self.name}: {self.folder} holds no whole machine")
        unit = needs.systemd_runs()
        # What an earlier boot said is kept, so that a boot that fails repeatedly can be read.
        with suppress(FileNotFoundError):
            self.console.replace(self.console.with_suffix(".log.1"))
        if unit:
            Local().run(["systemctl", "stop", f"{self.machine}.service"], check=False)
            Local().run(whole.argv(unit=True))
        else:
            _marked(detached.spawn(whole.argv(unit=False), log=self.console))

    def argv(self, *, unit: bool) -> list[str]:
        """The command that is this host; `unit`: as a unit of this machine's systemd."""
        for path in (*self.layers, self.folder):
            if re.search(r"[,:\\]", str(path)):
                raise ClusterError(
                    f"{path}: overlayfs cannot use a path with a comma, a colon or a backslash. "
                    "Name another folder as `images:`."
                )
        layers = ":".join(map(str, self.layers))
        disk = f"lowerdir={layers},upperdir={self.folder / 'upper'},workdir={self.folder / 'work'}"
        root = str(self.folder / "root")
        # /tmp is on its disk, as on any machine, not in a tenth of the memory.
        settings = ["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "SYSTEMD_NSPAWN_TMPFS_TMP=0"]
        marked = ["env", f"{MARK}={self.mark}", *settings]
        inner = ["unshare", "--mount", "sh", "-c", _UNIT if unit else _KEEPER, "clusterkit-host"]
        inner += [disk, root, cgroup.group(self.net.id, self.name), *self._nspawn(root)]
        if not unit:
            return [*marked, *inner]
        properties = [
            "Delegate=yes",
            "KillMode=mixed",
            "TasksMax=infinity",
            "SuccessExitStatus=133",
        ]
        properties += ["RestartForceExitStatus=133", f"StandardOutput=append:{self.console}"]
        properties += [f"StandardError=append:{self.console}"]
        run = ["systemd-run", "--quiet", "--collect", f"--unit={self.machine}", "--slice=machine"]
        return [*run, *(f"--property={one}" for one in properties), "--", *marked, *inner]

    def _nspawn(self, root: str) -> list[str]:
        argv = [
            "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--settings=no",
            f"--directory={root}", f"--machine={self.machine}", f"--hostname={self.name}",
            f"--network-bridge={self.net.bridge}", "--resolv-conf=off", "--timezone=off",
            "--link-journal=no", f"--setenv={MARK}={self.mark}", "--kill-signal=SIGRTMIN+3",
        ]  # fmt: skip
        for bind in self.binds:
            how = "--bind-ro" if bind.read_only else "--bind"
            argv.append(f"{how}={_colons(bind.source)}:{_colons(bind.target)}")
        return argv

    def wait(self, seconds: float, over: threading.Event | None = None) -> None:
        """Wait until its sshd answers. Raises ClusterError when it died, or after `seconds`.

        `over`: somebody else's end of the waiting, as after Ctrl-C; then it just returns.
        """
        deadline = time.monotonic() + seconds
        while over is None or not over.is_set():
            keepers = [one for one in self.processes() if not _is_first(one)]
            if not keepers:
                raise ClusterError(f"machine {self.name} has died:\n{self.words()}")
            if _answers(str(self.address)):
                return
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"machine {self.name} did not answer within {seconds:g} s:\n{self.words()}"
                )
            processes.wait(keepers, 0.1)  # its death, or time for another look

    def words(self, lines: int = 15) -> str:
        """The last lines of its console, without colours."""
        try:
            text = self.console.read_text(errors="replace")[-20000:]
        except OSError:
            return "(it has said nothing)"
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\r", "", text)
        said = [line.rstrip() for line in text.splitlines() if line.strip()]
        return "\n".join(said[-lines:]) or "(it has said nothing)"

    def processes(self) -> list[Process]:
        """Its keeper, systemd-nspawn, and its process 1, as far as they run."""
        return running(self.net.id).get(self.name, [])

    def alive(self) -> bool:
        return bool(self.processes())

    def power_off(self) -> None:
        """Let it shut down in order; after 30 s it is ended. Its disk stays."""
        found = self.processes()
        for one in found:
            if _is_first(one):
                with suppress(ProcessLookupError):
                    os.kill(one.pid, _POWER_OFF)
        processes.kill(processes.wait(found, _GRACE))
        self._tidy()

    def end(self) -> int:
        """End it and remove its disk; how many processes of it were ended."""
        return end(self.net.id, self.name, self.folder)

    def _tidy(self) -> None:
        _tidy(self.net.id, self.name, self.machine)

    def _files(self, user_data: str) -> list[File]:
        """What its disk holds that no other host's does."""
        instance = hashlib.sha256(f"{self.mark}\n{user_data}".encode()).hexdigest()[:16]
        network = (
            "[Match]\nName=host0\n\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
            f"Address={self.address}/{self.net.range.prefixlen}\nGateway={self.net.gateway}\n"
        )
        hosts = f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n{self.address} {self.name}\n"
        seed = "/var/lib/cloud/seed/nocloud"
        texts = {
            "/etc/systemd/network/10-host0.network": network,
            "/etc/hostname": f"{self.name}\n",
            "/etc/hosts": hosts,
            "/etc/machine-id": f"{uuid.uuid4().hex}\n",
            f"{seed}/meta-data": json.dumps(
                {"instance-id": f"i-{instance}", "local-hostname": self.name}
            ),
        }
        if any(bind.target == "/home" for bind in self.binds):
            # Who sets the host up must be able to log in whatever is done to the shared /home.
            own_home = {"system_info": {"default_user": {"homedir": "/var/lib/login"}}}
            texts["/etc/cloud/cloud.cfg.d/99-home.cfg"] = json.dumps(own_home) + "\n"
        files = [File(path, text.encode()) for path, text in texts.items()]
        files.append(File(f"{seed}/user-data", user_data.encode(), 0o600))
        return files


def read(folder: Path) -> Host | None:
    """The host whose folder this is; None when there is none, or it is not whole."""
    file = folder / "host.json"
    try:
        said = json.loads(file.read_text())
        return Host(
            name=said["name"],
            address=IPv4Address(said["address"]),
            folder=folder,
            net=Network(said["network"]["id"], IPv4Network(said["network"]["range"])),
            layers=tuple(Path(layer) for layer in said["layers"]),
            binds=tuple(Bind(*one) for one in said["binds"]),
            labels=said["labels"],
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"{file} cannot be read: {error}") from error


def running(cluster_id: str) -> dict[str, list[Process]]:
    """The processes of all hosts of a cluster, by host: what runs, not what a file says."""
    found: dict[str, list[Process]] = {}
    for process in processes.mine():
        whose, _, name = processes.environment(process).get(MARK, "").partition(":")
        if whose == cluster_id and name:
            found.setdefault(name, []).append(process)
    return found


def end(cluster_id: str, name: str, folder: Path) -> int:
    """End the processes of this host, whatever its folder says, and remove the folder."""
    found = running(cluster_id).get(name, [])
    # The keeper first: it would start the host again.
    found.sort(key=lambda one: one.start)
    left = processes.kill(found)
    # What was between fork and mark a moment ago, as a host that had just been started.
    left += processes.kill(running(cluster_id).get(name, []))
    if left:
        raise ClusterError(
            f"machine {name}: process {left[0].pid} ({left[0].name}) does not end. Look at it with "
            f"`cat /proc/{left[0].pid}/stack`, then repeat."
        )
    machine = Host(name, IPv4Address(0), folder, Network(cluster_id, IPv4Network("0.0.0.0/0")), ())
    _tidy(cluster_id, name, machine.machine)
    # First what says that the disk is whole: a removal that is killed leaves no half of one.
    (folder / "host.json").unlink(missing_ok=True)
    base.remove_tree(folder)
    return len(found)


def _tidy(cluster_id: str, name: str, machine: str) -> None:
    """What systemd-nspawn leaves behind when it is killed."""
    cgroup.remove(cgroup.group(cluster_id, name))
    for place in ("propagate", "unix-export"):
        shutil.rmtree(Path("/run/systemd/nspawn") / place / machine, ignore_errors=True)
    if needs.systemd_runs():
        Local().run(["systemctl", "reset-failed", f"{machine}.service"], check=False)


def _marked(pid: int) -> None:
    """Return when the new process has its mark, or has ended: it is found by that from now on."""
    process = processes.look(pid)
    while process is not None and process.alive:
        if MARK in processes.environment(process):
            return
        processes.wait([process], 0.005)


def _is_first(process: Process) -> bool:
    """Whether it is process 1 of a pid namespace below ours (proc(5), NSpid)."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return False
    match = re.search(r"^NSpid:\s+\d+.*\s1$", status, re.MULTILINE)
    return match is not None


def _answers(address: str) -> bool:
    """Whether an ssh server says who it is (RFC 4253, 4.2)."""
    try:
        with socket.create_connection((address, 22), timeout=2.0) as probe:
            probe.settimeout(5.0)
            return probe.recv(4) == b"SSH-"
    except OSError:
        return False


def _colons(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:")


def free_address(net: IPv4Network, taken: Collection[IPv4Address]) -> IPv4Address:
    """The lowest address of a network that nobody has; .1 is this machine's."""
    for address in list(net.hosts())[1:]:
        if address not in taken:
            return address
    raise ClusterError(f"the network {net} has no free address for another machine")
