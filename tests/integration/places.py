"""The clusters that the same tests run on.

local       SLURM's daemons in a data folder of the session's
attach      that SLURM, as one that somebody else has started
attach_ssh  the same from elsewhere: the user's ssh settings, a jump host, a server of our own
nspawn      machines that this host boots
"""

from __future__ import annotations

import getpass
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pytest
from conftest import REPOSITORY, Clusterkit
from lab import Lab

from clusterkit.cluster import facts
from clusterkit.cluster.nspawn import needs

sys.path.append(str(REPOSITORY / "tests" / "contract"))
import sshd

#: Where the machines' image is kept, for the e2e tests too.
IMAGES = Path("/var/tmp/clusterkit-e2e")


@dataclass(frozen=True)
class Place:
    """A cluster, the data folder that knows it, and what a command that uses it needs."""

    name: str
    home: Path
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = str(os.getuid())
    outside: Callable[[str], Path] = Path

    def lab(self, folder: Path, clusterkit: Clusterkit) -> Lab:
        folder.mkdir(parents=True, exist_ok=True)
        return Lab(self.home, folder, clusterkit, self.name, self.env, self.user, self.outside)


def settings(file: Path, name: str, **values: object) -> dict[str, str]:
    """Write a settings file with one cluster; the environment that makes it the one used."""
    file.write_text(json.dumps({"clusters": {name: values}}))  # JSON is YAML
    return {"CLUSTERKIT_CONFIG": str(file)}


def slurm_conf(slurm_home: Path) -> str:
    found = facts.read(slurm_home / "clusters" / "local")
    assert found is not None
    return found.slurm_conf


def attached(slurm_home: Path, folder: Path) -> Place:
    """Its folder has an awkward name: this has to reach SLURM and the slots unhurt."""
    env = settings(
        folder / "clusterkit.yaml",
        "uni",
        provider="attach",
        slurm_conf=slurm_conf(slurm_home),
        root=str(folder / "a root's \u00fc"),
    )
    return Place("uni", folder / "data", env)


@dataclass(frozen=True)
class Gate:
    """A user's ssh: a program of his own on the PATH, as OpenSSH takes no other home from HOME."""

    server: sshd.Server
    home: Path
    env: Mapping[str, str]

    def settings(self, more: str = "") -> None:
        """~/.ssh/config: `uni` is behind `gate`; `more` are further lines for `uni`."""
        common = (
            f"  HostName 127.0.0.1\n  Port {self.server.port}\n  User {getpass.getuser()}\n"
            f'  IdentityFile "{self.server.key}"\n  IdentitiesOnly yes\n  IdentityAgent none\n'
            f'  UserKnownHostsFile "{self.server.known_hosts}"\n  HostKeyAlias machine\n'
            "  StrictHostKeyChecking yes\n"
        )
        file = self.home / ".ssh" / "config"
        file.parent.mkdir(mode=0o700, exist_ok=True)
        file.write_text(f"Host gate\n{common}Host uni\n{common}  ProxyJump gate\n{more}")


@contextmanager
def gate(folder: Path) -> Iterator[Gate]:
    """A server, and a user who knows the way to it. Skips where there is no sshd."""
    if sshd.SSHD is None:
        pytest.skip("there is no sshd on this machine")
    ssh = shutil.which("ssh")
    assert ssh is not None
    home = folder / "user"
    programs = home / "bin"
    programs.mkdir(parents=True)
    config = shlex.quote(str(home / ".ssh" / "config"))
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {ssh} -F {config} "$@"\n')
    (programs / "ssh").chmod(0o755)
    env = {"HOME": str(home), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    with sshd.server(folder / "server") as server:
        made = Gate(server, home, env)
        made.settings()
        yield made


@contextmanager
def attached_by_ssh(slurm_home: Path, folder: Path) -> Iterator[Place]:
    with gate(folder) as way:
        env = settings(
            folder / "clusterkit.yaml",
            "uni",
            provider="attach",
            host="uni",
            slurm_conf=slurm_conf(slurm_home),
            root="~/my clusterkit",
        )
        yield Place("uni", folder / "data", {**way.env, **env})


@contextmanager
def nspawn(folder: Path, clusterkit: Clusterkit) -> Iterator[Place]:
    missing = needs.missing()
    if missing:
        pytest.skip(f"no nspawn machines here: {'; '.join(missing)}")
    env = settings(
        folder / "clusterkit.yaml",
        "lab",
        provider="nspawn",
        images=str(IMAGES),
        workers={"cpu": {"count": 2}},
        timeouts={"boot": 400},
    )
    data = folder / "data"
    try:
        # The first start of all makes the image.
        clusterkit("start", "lab", "--yes", home=data, env=env, timeout=1800)
        found = facts.read(data / "clusters" / "lab")
        assert found is not None
        machines = IMAGES / "machines" / found.id

        def outside(path: str) -> Path:
            """/home is the same on all machines, and lies here."""
            return machines / PurePosixPath(path).relative_to("/")

        yield Place("lab", data, env, found.user, outside)
    finally:
        clusterkit("stop", "lab", "--discard", "--yes", home=data, env=env)
