"""A user's project with clusters of nspawn machines: `clusterkit` in processes of its own.

HOME and the data folder are made up; images are shared in /var/tmp/clusterkit-e2e. Everything that
waits here has a deadline that a machine ten times busier than usual meets.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Self

import pytest

from clusterkit.cluster import access
from clusterkit.cluster.nspawn import base, cgroup, host, needs
from clusterkit.cluster.nspawn.network import Network, tables
from clusterkit.errors import ClusterkitError
from clusterkit.transport import Local

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGES = Path("/var/tmp/clusterkit-e2e")
#: Seconds for one command, a start with the making of an image among them.
LONG = 1200.0
#: Seconds for anything else that is waited for.
PATIENCE = 300.0


def _why_not() -> str:
    """Why no machines can run here; "" where they can."""
    lacks = "; ".join(needs.missing())
    if lacks:
        return lacks
    # Root of a container may be forbidden what root is allowed elsewhere.
    mounts = "mount -t tmpfs tmpfs /mnt && mkdir /mnt/a /mnt/b /mnt/c /mnt/d && "
    mounts += "mount -t overlay overlay -o lowerdir=/mnt/a,upperdir=/mnt/b,workdir=/mnt/c /mnt/d"
    for argv in (["unshare", "--mount", "sh", "-c", mounts], ["nft", "list", "tables"]):
        done = Local().run(argv, check=False)
        if done.returncode != 0:
            return f"{argv[0]}: {done.stderr.decode().strip()}"
    return ""


WHY_NOT = _why_not()


def image_or_skip() -> None:
    """Make the image where it is missing; skip where no mirror can be reached."""
    try:
        base.prepare(base.Recipe("debian-12", prepared=True), IMAGES, print)
    except ClusterkitError as error:
        if re.search(r"resolve|connect|fetch|timed out|download|Release file", str(error)):
            pytest.skip(f"no image can be made here: {error}")
        raise


def until(
    holds: Callable[[], object], what: str, seconds: float = PATIENCE, at_most: float = 2.0
) -> None:
    """Look again and again, ever more rarely, at what has no event to be waited for."""
    deadline, pause = time.monotonic() + seconds, 0.05
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(pause)
        pause = min(1.5 * pause, at_most)


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __str__(self) -> str:
        return f"clusterkit {' '.join(self.words)}: exit code {self.code}\n{self.out}{self.err}"


class Running:
    """A `clusterkit` that runs, in a process group of its own; what it says goes to files."""

    def __init__(self, argv: Sequence[str], words: Sequence[str], **more: Any) -> None:
        self.words = tuple(words)
        folder = Path(more.pop("logs"))
        folder.mkdir(exist_ok=True)
        stem = f"{time.monotonic_ns()}-{words[0]}"
        self._out, self._err = folder / f"{stem}.out", folder / f"{stem}.err"
        # Files, not pipes: what is left running in the background would hold a pipe open.
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                **more,
            )

    @property
    def text(self) -> str:
        return self._out.read_text(errors="replace") + self._err.read_text(errors="replace")

    def said(self, phase: str, seconds: float = LONG) -> None:
        """Wait until it has told the end of a phase; the next one has begun then."""

        def has() -> bool:
            if re.search(rf"^  {re.escape(phase)} +\d+\.\d s$", self.text, re.MULTILINE):
                return True
            assert self.process.poll() is None, f"it ended before {phase!r}:\n{self.text}"
            return False

        until(has, f"the end of {phase!r} of {self.words}", seconds, at_most=0.05)

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def done(self, seconds: float = LONG) -> Done:
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"no end within {seconds:g} s: {self.words}\n{self.text}"
            ) from None
        out, err = (one.read_text(errors="replace") for one in (self._out, self._err))
        return Done(self.words, code, out, err)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGKILL)
            self.process.wait(PATIENCE)


class Project:
    """Below `folder`: the project, a HOME and a data folder.

    `before` goes before every command, `more` into its environment.
    """

    def __init__(
        self, folder: Path, before: Sequence[str] = (), more: Mapping[str, str] | None = None
    ) -> None:
        self._more = dict(more or {})
        self.folder, self.home, self.data = folder / "project", folder / "home", folder / "data"
        self._logs = folder / "logs"
        self._before = tuple(before)
        for one in (self.folder, self.home):
            one.mkdir(parents=True, exist_ok=True)

    def settings(self, text: str) -> None:
        (self.folder / "clusterkit.yaml").write_text(text)

    def replace(self, old: str, new: str) -> None:
        """Another word in the settings."""
        file = self.folder / "clusterkit.yaml"
        text = file.read_text()
        assert old in text, text
        file.write_text(text.replace(old, new))

    def cluster(self, name: str) -> Path:
        return self.data / "clusters" / name

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("SLURM_", "CLUSTERKIT_", "XDG_", "ANSIBLE_"))
            and key not in ("VIRTUAL_ENV", "CONDA_PREFIX", "SSH_AUTH_SOCK")
        }
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        return {
            **kept,
            "PYTHONPATH": path,
            "HOME": str(self.home),
            "CLUSTERKIT_HOME": str(self.data),
            **self._more,
        }

    def popen(self, *words: str, cwd: Path | None = None) -> Running:
        argv = [*self._before, sys.executable, "-m", "clusterkit", *words]
        return Running(argv, words, logs=self._logs, cwd=cwd or self.folder, env=self.environment)

    def run(
        self, *words: str, cwd: Path | None = None, code: int | None = 0, seconds: float = LONG
    ) -> Done:
        """`clusterkit WORDS...`, which has to end with `code` (None: with any)."""
        self._logs.mkdir(exist_ok=True)
        with self.popen(*words, cwd=cwd) as running:
            done = running.done(seconds)
        assert code is None or done.code == code, str(done)
        return done

    def start(self, name: str, *words: str) -> Any:
        return self.run("start", name, "--json", *words).json

    def slurm(self, name: str, *words: str) -> str:
        """What a command says on the head, as the account that jobs run as."""
        return self.run("ssh", name, "--", *words).out.strip()

    def task(self, script: str, grid: str) -> None:
        (self.folder / "task.py").write_text(script)
        (self.folder / "grid.yaml").write_text(grid)

    def parrun(self, name: str, *words: str) -> str:
        made = self.run("parrun", "task.py", name, "--grid", "grid.yaml", "--json", *words)
        return str(made.json["id"])

    def finished(self, experiment: str) -> list[dict[str, Any]]:
        """The rows, once nothing waits or runs any more."""
        until(
            lambda: self.run("status", experiment, "--json").json["finished"],
            f"the end of {experiment}",
            LONG,
        )
        return self.rows(experiment)

    def rows(self, experiment: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.run("harvest", experiment, "--json").json
        return found

    @contextmanager
    def ended(self, name: str) -> Iterator[None]:
        """Afterwards the cluster is ended, whatever happened; by hand where `stop` cannot."""
        try:
            yield
        finally:
            known = access.read_id(self.cluster(name))
            try:
                if known:
                    done = self.run("stop", name, "--discard", "--yes", code=None)
                    if done.code != 0:
                        print(done)
            finally:
                if known:
                    swept(known)


# -- machines, from outside -----------------------------------------------------------------------


def place(cluster_id: str) -> Path:
    return IMAGES / "machines" / cluster_id


def first(cluster_id: str, machine: str) -> int:
    """The pid of a machine's process 1, as this machine counts."""
    for process in host.running(cluster_id).get(machine, []):
        status = Path(f"/proc/{process.pid}/status").read_text()
        if re.search(r"^NSpid:\s+\d+.*\s1$", status, re.MULTILINE):
            return process.pid
    raise AssertionError(f"{machine} does not run")


def inside(cluster_id: str, machine: str, script: str, text: str = "", code: int | None = 0) -> str:
    """A shell script in a machine as root, not through ssh."""
    pid = first(cluster_id, machine)
    done = subprocess.run(
        ["nsenter", "--target", str(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
         "env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
         "sh", "-c", script],
        input=text, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert code is None or done.returncode == code, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def remains(cluster_id: str) -> list[str]:
    """Everything of a cluster that is on this machine, looked for by other means than its own."""
    found = [f"process {pid}" for pid in _marked(cluster_id)]
    links = json.loads(Local().run(["ip", "-json", "link", "show"]).stdout)
    found += [
        f"link {link['ifname']}" for link in links if link["ifname"] == f"ck{cluster_id[:10]}"
    ]
    addresses = Local().run(["ip", "-json", "address", "show"]).text
    found += ["an address"] if cluster_id[:10] in addresses else []
    rules = Local().run(["nft", "--json", "list", "tables"]).stdout
    found += [f"nft table {name}" for name in tables(rules) if cluster_id in name]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if cluster_id in line]
    found += [str(place(cluster_id))] if place(cluster_id).exists() else []
    if cgroup.there(cgroup.group(cluster_id)):
        found.append(f"control group {cgroup.group(cluster_id)}")
    spread = Path("/run/systemd/nspawn").glob(f"*/ck-{cluster_id[:10]}-*")
    return found + [str(one) for one in spread]


def _marked(cluster_id: str) -> list[int]:
    mark = f"{host.MARK}={cluster_id}:".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def swept(cluster_id: str) -> None:
    """End what is there of a cluster still, without its own commands."""
    if not remains(cluster_id):
        return
    folders = place(cluster_id) / "hosts"
    names = set(host.running(cluster_id))
    names |= {one.name for one in folders.iterdir()} if folders.is_dir() else set()
    for name in sorted(names):
        with suppress(ClusterkitError):
            host.end(cluster_id, name, folders / name)
    Network(cluster_id, IPv4Network("0.0.0.0/0")).down()
    cgroup.remove(cgroup.group(cluster_id))
    base.remove_tree(place(cluster_id))
    assert remains(cluster_id) == []


class Seen:
    """Looks at every process of this machine again and again while something runs.

    Keeps all that any command line said, and the first host keys that were ever in a folder.
    """

    def __init__(self, folder: Path) -> None:
        self.lines: set[bytes] = set()
        self.keys: dict[str, set[str]] = {}
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.1):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    self.lines.add(file.read_bytes())
            for file in self._folder.glob("hosts/*.pub"):
                with suppress(OSError):
                    words = file.read_text().split()[:2]
                    self.keys.setdefault(file.stem, set()).add(" ".join(words))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
