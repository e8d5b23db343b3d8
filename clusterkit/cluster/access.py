"""Who a cluster is, and how one gets in: its id, its keys, the host keys that are believed.

<data folder>/clusters/<name>/
  identity.json   the cluster's unguessable id, which every resource of it carries
  key, key.pub    the key pair that logs in, made here (or the one that the settings name)
  hosts/<name>    the first host key of a machine, injected by its user-data, replaced on arrival
  known_hosts     the host keys that are believed, strictly, under the machines' names
  munge.key       SLURM's shared secret
"""

from __future__ import annotations

import getpass
import json
import os
import re
import secrets
import socket
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clusterkit.errors import ClusterError, UsageError
from clusterkit.transport import Address, Local

_ID = re.compile(r"[0-9a-f]{16}")
_APT_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "apt-daily.service",
    "apt-daily-upgrade.service",
    "unattended-upgrades.service",
)
#: Keys and known_hosts are made and rewritten by one thread at a time; the cluster's lock keeps
#: other processes out.
_WRITING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Identity:
    """A cluster's name, its id (16 hex digits, random), its owner, and the folder of its keys.

    `own_key` is a private key that the user named in the settings; else one is made.
    """

    cluster: str
    id: str
    folder: Path
    own_key: Path | None = None

    def labels(self, role: str) -> dict[str, str]:
        """What every resource of the cluster carries from the call that creates it."""
        return {
            "clusterkit-cluster": self.cluster,
            "clusterkit-id": self.id,
            "clusterkit-role": role,
            "clusterkit-owner": owner(),
        }

    @property
    def key(self) -> Path:
        """The private key that logs in; made when it is missing.

        Raises UsageError for a key of the user's own that is missing or that others can read.
        """
        if self.own_key is not None:
            check_key(self.own_key)
            return self.own_key
        file = self.folder / "key"
        with _WRITING:
            if not file.exists():
                _make_key(file, f"clusterkit {self.cluster}")
        return file

    @property
    def public_key(self) -> str:
        """The public half of `key`, one line."""
        public = self.key.with_name(self.key.name + ".pub")
        if self.own_key is None and public.exists():
            return public.read_text().strip()
        return Local().run(["ssh-keygen", "-y", "-P", "", "-f", str(self.key)]).text.strip()

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def munge_key(self) -> Path:
        """SLURM's secret on this side, 0600; made when it is missing."""
        file = self.folder / "munge.key"
        if not file.exists():
            _write(file, secrets.token_bytes(128))
        return file

    def host_key(self, machine: str) -> tuple[str, str]:
        """The first host key of a machine: its private and its public text; made once."""
        file = self.folder / "hosts" / machine
        with _WRITING:
            if not file.exists():
                _make_key(file, machine)
        public = " ".join(file.with_name(f"{machine}.pub").read_text().split()[:2])
        self.believe(machine, {public})
        return file.read_text(), public

    def believed(self, machine: str) -> set[str]:
        """The host keys of a machine that are believed, as "ssh-ed25519 AAAA..."."""
        return {key for name, key in self._lines() if name == machine}

    def believe(self, machine: str, keys: Collection[str], instead: bool = False) -> None:
        """Believe these host keys of a machine too, or `instead` of the others."""
        with _WRITING:
            before = list(self._lines())
            after = [
                (name, key)
                for name, key in before
                if name != machine or not (instead or key in keys)
            ]
            after += [(machine, key) for key in sorted(keys)]
            if sorted(after) != sorted(before):
                self._rewrite(after)

    def forget(self, machine: str) -> None:
        """A machine that has ended: its keys are believed no more."""
        with _WRITING:
            self._rewrite((name, key) for name, key in self._lines() if name != machine)
        self.forget_first_key(machine)

    def forget_first_key(self, machine: str) -> None:
        for file in (machine, f"{machine}.pub"):
            (self.folder / "hosts" / file).unlink(missing_ok=True)

    def address(self, machine: str, host: str, user: str, port: int = 22) -> Address:
        """How ssh reaches a machine of this cluster: its key alone, its host key strictly."""
        return Address(
            host=host,
            user=user,
            port=port,
            key=str(self.key),
            known_hosts=str(self.known_hosts),
            host_key_alias=machine,
        )

    def user_data(self, machine: str) -> str:
        """The #cloud-config a machine is created with: its name, its host key, who may log in.

        The image's own default user gets the cluster's key. Nothing that stays secret is in it:
        every process on a cloud machine can read it, so the host key is replaced on arrival.
        Format: cloudinit.readthedocs.io, "cc_ssh", "cc_users_groups". JSON is YAML.
        """
        private, public = self.host_key(machine)
        config = {
            "hostname": machine,
            "preserve_hostname": False,
            "users": ["default"],
            "ssh_authorized_keys": [self.public_key],
            "disable_root": True,
            "ssh_pwauth": False,
            "ssh_deletekeys": True,
            "ssh_genkeytypes": [],
            "ssh_keys": {"ed25519_private": private, "ed25519_public": public},
            "package_update": False,
            "package_upgrade": False,
            # The first minutes belong to `start`: apt's own timers would hold its lock.
            "bootcmd": [
                ["cloud-init-per", "once", "clusterkit", "systemctl", "mask", "--now", *_APT_UNITS],
            ],
        }
        return "#cloud-config\n" + json.dumps(config, indent=1) + "\n"

    def _rewrite(self, lines: Iterable[tuple[str, str]]) -> None:
        text = "".join(f"{name} {key}\n" for name, key in list(lines))
        _write(self.known_hosts, text.encode())

    def _lines(self) -> Iterable[tuple[str, str]]:
        try:
            text = self.known_hosts.read_text()
        except FileNotFoundError:
            return
        for line in text.splitlines():
            name, _, key = line.partition(" ")
            if key:
                yield name, key


def identity(folder: Path, cluster: str, own_key: Path | None = None, *, make: bool) -> Identity:
    """The identity of the cluster in `folder`. Without `make`, a new id is not kept anywhere."""
    known = read_id(folder)
    if known:
        return Identity(cluster, known, folder, own_key)
    fresh = secrets.token_hex(8)
    if make:
        _write(folder / "identity.json", json.dumps({"id": fresh}).encode())
    return Identity(cluster, fresh, folder, own_key)


def read_id(folder: Path) -> str:
    """The id of the cluster in `folder`, or ""."""
    file = folder / "identity.json"
    try:
        data = json.loads(file.read_text())
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise ClusterError(f"{file} cannot be read: {error}") from error
    found = data.get("id") if isinstance(data, Mapping) else None
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise ClusterError(f"{file} holds no cluster id; it was written by another program")
    return found


def forget(folder: Path) -> None:
    """After a proven end: the id, the keys and what was believed. Runs and settings stay."""
    for name in ("known_hosts", "munge.key", "key", "key.pub", "identity.json"):
        (folder / name).unlink(missing_ok=True)
    hosts = folder / "hosts"
    if hosts.is_dir():
        for file in hosts.iterdir():
            file.unlink()
        hosts.rmdir()


def owner() -> str:
    """Who makes resources, for their labels: "user@host", in letters that labels may have."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return re.sub(r"[^a-z0-9_-]+", "-", f"{user}_{socket.gethostname().partition('.')[0]}".lower())


def check_key(file: Path) -> None:
    """Raise UsageError unless `file` is a private key that nobody else can read."""
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise UsageError(f"the key {file} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise UsageError(
            f"the key {file} can be read by others (mode {mode & 0o777:04o}), and ssh refuses such "
            f"a key. `chmod 600 {file}` mends it."
        )


def _make_key(file: Path, comment: str) -> None:
    """A new ed25519 pair; the private half appears last, so that it never stands alone."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    staging = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    public = staging.with_name(staging.name + ".pub")
    try:
        Local().run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(staging)]
        )
        public.rename(file.with_name(file.name + ".pub"))
        staging.rename(file)
    finally:
        staging.unlink(missing_ok=True)
        public.unlink(missing_ok=True)


def _write(file: Path, content: bytes) -> None:
    """Atomically, readable by the user alone."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    staging = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        handle = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        staging.rename(file)
    except OSError as error:
        raise ClusterError(f"{file} cannot be written: {error.strerror}") from error
    finally:
        staging.unlink(missing_ok=True)
