"""Real machines behind a double: for everything that an API says runs, a systemd-nspawn host.

Each has its private address, and reads at its first boot the very user-data that it was launched
with (cloud-init, NoCloud). Clouds' doubles say what is to happen, in their own threads; nothing
here knows a cloud. Needs root, and what clusterkit's provider `nspawn` needs.

<images>/machines/<id>/            removed at the end, and when a later one finds it orphaned
  network.json, double.json        which range it uses; which process it belongs to
  hosts/<name>/                    disks and consoles (clusterkit/cluster/nspawn/host.py)
  homes/<share>/                   /home of those who share one
  images/<image>/                  disks that were saved
  pretend/<number>-<name>/         what makes a machine believe that it has GPUs
"""

from __future__ import annotations

import atexit
import fcntl
import gzip
import json
import os
import re
import secrets
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Protocol

from clusterkit.cluster import processes
from clusterkit.cluster.nspawn import base, cgroup, host, network, surroundings
from clusterkit.cluster.nspawn.host import Bind, Host
from clusterkit.cluster.nspawn.network import Network
from clusterkit.cluster.nspawn.surroundings import File, Surroundings
from clusterkit.errors import ClusterkitError
from clusterkit.transport import Local

IMAGES = Path("/var/tmp/clusterkit-e2e")
RECIPE = base.Recipe("debian-12", prepared=True)
_PAUSE = 0.5  # seconds between two looks for hosts that have ended by themselves
_ANYWHERE = IPv4Network("0.0.0.0/0")
#: What nvidia-smi prints on a machine with GPUs to the questions that clusterkit asks.
_NVIDIA_SMI = """\
#!/bin/sh
number=0
while [ $number -lt {count} ]; do
  case "$*" in
    *index,name,memory.total*) echo "$number, {name}, {memory}" ;;
    *) echo $number ;;
  esac
  number=$((number + 1))
done
"""


@dataclass(frozen=True, slots=True)
class Gpus:
    """GPUs that a machine pretends to have: how many, `name` as nvidia-smi says it, MiB of each."""

    count: int
    name: str
    memory: int


@dataclass(frozen=True, slots=True)
class Order:
    """A machine that is to run. `id` is the cloud's; `login` its image's default account.

    `image`: one that was saved here, or any other text for the recipe's. Those with the same
    `share` have one /home; "" has its own.
    """

    id: str
    name: str
    address: str
    user_data: bytes
    login: str = "debian"
    image: str = ""
    share: str = ""
    gpus: Gpus | None = None


@dataclass(frozen=True, slots=True)
class Doors:
    """Who may connect to whom; everything else is silently dropped, as clouds do.

    `inward`: address -> (network, protocol or "all", lowest and highest port) that may come in from
    this machine and beyond. `among`: machines of the first set reach those of the second.
    """

    inward: Mapping[str, tuple[tuple[str, str, int, int], ...]] = field(default_factory=dict)
    among: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()

    def script(self, table: str, net: Network) -> str:
        """For nft. Among machines packets cross the bridge alone, where no connections are known:
        answers are let through by a rule of their own."""
        lines = [f"table {family} {table}" for family in ("ip", "bridge")]
        lines += [f"delete {line}" for line in lines]
        lines += [f"table ip {table} {{"]
        for name in ("output", "forward"):
            lines += [f"chain {name} {{ type filter hook {name} priority 0; policy accept;"]
            to = f'oifname "{net.bridge}"'
            lines += [f"{to} ct state established,related accept"]
            if name == "forward":  # where the kernel shows bridged packets here too (br_netfilter)
                lines += [f'iifname "{net.bridge}" {to} accept']
            for address, rules in sorted(self.inward.items()):
                for source, protocol, low, high in rules:
                    ports = "" if protocol == "all" else f"{protocol} dport {low}-{high}"
                    lines += [f"{to} ip saddr {source} ip daddr {address} {ports} accept"]
            lines += [f"{to} drop", "}"]
        lines += ["}", f"table bridge {table} {{"]
        lines += ["chain among { type filter hook forward priority 0; policy accept;"]
        for some, others in self.among:
            if some and others:
                for one, two in ((some, others), (others, some)):
                    sets = f"ip saddr {{ {', '.join(one)} }} ip daddr {{ {', '.join(two)} }}"
                    lines += [f"{sets} accept"]
        lines += [f"ip saddr {net.range} ip daddr {net.range} drop", "}", "}"]
        return "\n".join(lines) + "\n"


class Machines(Protocol):
    """What a double asks of its hosts; `Hosts` is one. Each call may take as long as it needs."""

    net: Network

    def begin(self, gone: Callable[[str], None]) -> None: ...
    def boot(self, order: Order) -> None: ...
    def guard(self, doors: Doors) -> None: ...
    def power_off(self, id_: str) -> None: ...
    def kill(self, id_: str) -> None: ...
    def end(self, id_: str) -> None: ...
    def snapshot(self, id_: str, image: str) -> None: ...
    def console(self, id_: str) -> str: ...
    def close(self) -> None: ...


@dataclass
class _Known:
    """A machine that exists here."""

    host: Host
    disk: tuple[Path, ...]  # the layers below its own, without what it pretends
    runs: bool = True  # as far as the cloud knows
    busy: threading.Lock = field(default_factory=threading.Lock)


class Hosts:
    """The machines of one double, in the network `range`. Every method may take seconds.

    `begin` makes it ready, `close` ends everything, also at the end of the process.
    """

    def __init__(
        self,
        images: Path = IMAGES,
        recipe: base.Recipe = RECIPE,
        range: str = "172.31.0.0/16",  # noqa: A002
    ) -> None:
        self.images, self.recipe = images, recipe
        self.id = secrets.token_hex(8)
        self.net = Network(self.id, IPv4Network(range))
        self.place = images / "machines" / self.id
        self._known: dict[str, _Known] = {}
        self._ended: set[str] = set()
        self._lock = threading.Lock()
        self._layers: tuple[Path, ...] = ()
        self._saved: dict[str, tuple[Path, ...]] = {}
        self._around = Surroundings()
        self._gone: Callable[[str], None] = lambda _: None
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    # -- life of all ----------------------------------------------------------------------------

    def begin(self, gone: Callable[[str], None]) -> None:
        """Get ready. `gone` is called with the id of a host that ended by itself.

        Raises ClusterError where no machines can run, or where the range is in use.
        """
        self._layers = base.prepare(self.recipe, self.images, print)
        with _alone(self.images):
            _sweep(self.images)
            network.choose(self.id, str(self.net.range))
            for name in ("hosts", "homes", "images", "pretend"):
                (self.place / name).mkdir(parents=True, mode=0o755)
            atexit.register(self.close)
            me = processes.look(os.getpid())
            assert me is not None
            owner = {"pid": me.pid, "start": me.start}
            (self.place / "double.json").write_text(json.dumps(owner))
            (self.place / "network.json").write_text(json.dumps({"range": str(self.net.range)}))
            self.net.up()
        self.guard(Doors())
        self._around = surroundings.read()
        self._gone = gone
        self._watcher.start()

    def close(self) -> None:
        """End them all and remove what they were made of; may be repeated."""
        self._over.set()
        if self._watcher.ident is not None and self._watcher is not threading.current_thread():
            self._watcher.join()
        _remove(self.images, self.id)
        self._known.clear()
        atexit.unregister(self.close)

    # -- life of one ----------------------------------------------------------------------------

    def boot(self, order: Order) -> None:
        """Make it and switch it on, or switch it on again, with its new user-data if it has one."""
        known = self._known.get(order.id)
        if known is None:
            known = self._made(order)
            with known.busy:
                with self._lock:
                    if order.id in self._ended:  # before it could begin
                        return
                    self._known[order.id] = known
                known.host.seed(_text(order.user_data), self._around)
                self._configure(known.host, order.login)
                known.host.boot()
            return
        with known.busy:
            seed = known.host.folder / "upper/var/lib/cloud"
            (seed / "seed/nocloud/user-data").write_bytes(_text(order.user_data).encode())
            # A cloud's own data source reads user-data at every boot; NoCloud would believe what it
            # remembers of this instance. That it is the same instance it still knows.
            for remembered in seed.glob("instances/*/obj.pkl"):
                remembered.unlink()
            known.runs = True
            known.host.boot()

    def power_off(self, id_: str) -> None:
        """In order; the disk stays."""
        known = self._known[id_]
        known.runs = False
        with known.busy:
            known.host.power_off()

    def kill(self, id_: str) -> None:
        """Without warning, as when the power fails; the disk stays."""
        known = self._known.get(id_)
        if known is not None:
            known.runs = False
            # The keeper first: it would start the host again.
            processes.kill(sorted(known.host.processes(), key=lambda one: one.start))

    def end(self, id_: str) -> None:
        """End it and remove its disk; nothing to do when it was never made."""
        with self._lock:
            self._ended.add(id_)
            known = self._known.get(id_)
        if known is not None:
            known.runs = False
            with known.busy:
                known.host.end()
                self._known.pop(id_, None)

    def snapshot(self, id_: str, image: str) -> None:
        """Keep the disk of a machine that is off as `image`, for later machines."""
        known = self._known[id_]
        with known.busy:
            if known.host.alive():
                raise ClusterkitError(f"{id_} runs; only the disk of a machine that is off is kept")
            target = self.place / "images" / image
            # With the marks that overlayfs keeps in extended attributes, or what was removed would
            # be there again.
            argv = ["cp", "--archive", str(known.host.folder / "upper"), str(target)]
            subprocess.run(argv, check=True)
            self._saved[image] = (target, *known.disk)

    def guard(self, doors: Doors) -> None:
        """Let these in, and nobody else, from now on."""
        script = doors.script(_table(self.id), self.net)
        Local().run(["nft", "-f", "-"], input=script.encode())

    # -- looking --------------------------------------------------------------------------------

    def console(self, id_: str) -> str:
        known = self._known.get(id_)
        return known.host.words(200) if known else ""

    def host(self, id_: str) -> Host:
        return self._known[id_].host

    def running(self) -> list[str]:
        """The ids of those with a process, sorted."""
        names = host.running(self.id)
        return sorted(id_ for id_, known in list(self._known.items()) if known.host.name in names)

    # -- inside ---------------------------------------------------------------------------------

    def _made(self, order: Order) -> _Known:
        disk = self._saved.get(order.image, self._layers)
        layers, binds = disk, []
        if order.share:
            home = self.place / "homes" / re.sub(r"[^A-Za-z0-9_-]", "_", order.share)
            home.mkdir(exist_ok=True, mode=0o755)
            binds.append(Bind(str(home), "/home", read_only=False))
        if order.gpus is not None:
            pretended = self._pretend(order.gpus)
            layers = (pretended, *disk)
            for file in sorted((pretended / "dev").iterdir()):
                binds.append(Bind(str(file), f"/dev/{file.name}", read_only=False))
        made = Host(
            name=order.name,
            address=IPv4Address(order.address),
            folder=self.place / "hosts" / order.name,
            net=self.net,
            layers=layers,
            binds=tuple(binds),
        )
        return _Known(made, disk)

    @staticmethod
    def _configure(one: Host, login: str) -> None:
        """Its default account is named as the cloud's image names it."""
        said = {"system_info": {"default_user": {"name": login}}}
        file = File("/etc/cloud/cloud.cfg.d/98-login.cfg", (json.dumps(said) + "\n").encode())
        base.put_file(one.folder / "upper", file)

    def _pretend(self, gpus: Gpus) -> Path:
        """A layer with an nvidia-smi, and device files that a control group can fence."""
        name = re.sub(r"[^A-Za-z0-9]+", "-", gpus.name)
        folder = self.place / "pretend" / f"{gpus.count}-{name}"
        if folder.is_dir():
            return folder
        part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        (part / "dev").mkdir(parents=True)
        for number in range(gpus.count):
            device = os.makedev(1, 3)  # /dev/null's
            os.mknod(part / "dev" / f"nvidia{number}", stat.S_IFCHR | 0o666, device)
        script = _NVIDIA_SMI.format(count=gpus.count, name=gpus.name, memory=gpus.memory)
        base.put_file(part, File("/usr/bin/nvidia-smi", script.encode(), 0o755))
        part.chmod(0o755)
        with suppress(OSError):  # another thread was quicker
            part.rename(folder)
        return folder

    def _watch(self) -> None:
        """Tell of hosts that ended though nobody asked for it, as after `poweroff` inside."""
        while not self._over.wait(_PAUSE):
            running = host.running(self.id)
            for id_, known in list(self._known.items()):
                if not known.runs or known.host.name in running:
                    continue
                if not known.busy.acquire(blocking=False):
                    continue  # something is being done to it
                try:
                    ended = known.runs and not known.host.alive()
                    known.runs = known.runs and not ended
                finally:
                    known.busy.release()
                if ended:
                    self._gone(id_)


def sweep(images: Path = IMAGES) -> None:
    """Remove what doubles left whose process was killed."""
    with _alone(images):
        _sweep(images)


@contextmanager
def _alone(images: Path) -> Iterator[None]:
    """One double at a time looks for a free range and clears away."""
    (images / "machines").mkdir(parents=True, exist_ok=True)
    with (images / "machines" / ".doubles.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep(images: Path) -> None:
    for file in (images / "machines").glob("*/double.json"):
        try:
            said = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
        owner = processes.look(said["pid"])
        if owner is None or owner.start != said["start"]:
            _remove(images, file.parent.name)


def _remove(images: Path, id_: str) -> None:
    place = images / "machines" / id_
    folders = place / "hosts"
    names = set(host.running(id_)) | set(_names(folders))
    for name in sorted(names):
        host.end(id_, name, folders / name)
    Network(id_, _ANYWHERE).down()
    for family in ("ip", "bridge"):
        Local().run(["nft", "delete", "table", family, _table(id_)], check=False)
    cgroup.remove(cgroup.group(id_))
    shutil.rmtree(place, ignore_errors=True)


def _table(id_: str) -> str:
    return f"doubles_{id_}"


def _names(folder: Path) -> Iterable[str]:
    return [one.name for one in folder.iterdir()] if folder.is_dir() else []


def _text(user_data: bytes) -> str:
    """User-data may come compressed (cloudinit.readthedocs.io, "User data formats")."""
    if user_data[:2] == b"\x1f\x8b":
        user_data = gzip.decompress(user_data)
    return user_data.decode()
