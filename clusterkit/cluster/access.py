"""Who a cluster is, and how one gets in: its id, its keys, the host keys that are believed.

<data folder>/clusters/<name>/
  identity.json   the cluster's unguessable id, which every resource of it carries; since when it is
  key, key.pub    the key pair that logs in, made here (or the one that the settings name)
  hosts/<name>    the first host key of a machine (launch-<id>: of all machines of one launch),
                  injected by its user-data, replaced on arrival
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
from datetime import UTC, datetime
from pathlib import Path

from clusterkit.cluster import takeover
from clusterkit.errors import ClusterError, UsageError
from clusterkit.transport import Address, Local

_ID = re.compile(r"[0-9a-f]{16}")
_CREATED = re.compile(r"\d{8}T\d{6}Z")
_APT_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "apt-daily.service",
    "apt-daily-upgrade.service",
    "unattended-upgrades.service",
)
#: Google's agent, which starts later, makes new host keys in a machine that is new to it, in place
#: of cloud-init's, and nobody here would know them. Which of its files counts last has changed.
#: GoogleCloudPlatform/google-guest-agent, internal/cfg; cloudfoundry/bosh#1389, NixOS/nixops#859.
_KEEP_HOST_KEYS = """\
file=/etc/default/instance_configs.cfg
[ -e /usr/bin/google_guest_agent ] || [ -e $file ] || exit 0
for one in $file $file.distro $file.template; do
  [ ! -e $one ] || sed -i 's/^[[:space:]]*set_host_keys[[:space:]]*=.*/set_host_keys = false/' $one
done
grep -qs '^set_host_keys = false$' $file ||
  printf '\\n[InstanceSetup]\\nset_host_keys = false\\n' >> $file
"""
#: The first minutes belong to `start`: apt's own timers would hold its lock.
_BOOTCMD: tuple[list[str], ...] = (
    ["cloud-init-per", "once", "clusterkit", "systemctl", "mask", "--now", *_APT_UNITS],
    ["sh", "-c", _KEEP_HOST_KEYS],
)
#: `reach` gives a machine its name; cloud-init leaves that alone, at every boot.
_NAMED_LATER: Mapping[str, object] = {"preserve_hostname": True}
#: Keys and known_hosts are made and rewritten by one thread at a time; the cluster's lock keeps
#: other processes out.
_WRITING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Identity:
    """A cluster's name, its id (16 hex digits, random), its owner, and the folder of its keys.

    `own_key` is a private key that the user named in the settings; else one is made. `created` is
    when the cluster got its id, in UTC, as labels may have it: "20261121T134118Z".
    """

    cluster: str
    id: str
    folder: Path
    own_key: Path | None = None
    created: str = ""

    def labels(self, role: str) -> dict[str, str]:
        """What every resource of the cluster carries from the call that creates it."""
        return {
            "clusterkit-cluster": self.cluster,
            "clusterkit-id": self.id,
            "clusterkit-role": role,
            "clusterkit-owner": owner(),
            **({"clusterkit-created": self.created} if self.created else {}),
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
            write_private(file, secrets.token_bytes(128))
        return file

    def host_key(self, machine: str) -> tuple[str, str]:
        """The first host key of a machine: its private and its public text; made once."""
        private, public = self._first_key(machine)
        self.believe(machine, {public})
        return private, public

    def believe_first(self, key_id: str, machines: Collection[str]) -> None:
        """Believe the first host key of a launch for machines that it will make, and no other key.

        Before the launch is sent. Raises ClusterError for a launch that was not made here.
        """
        if not (self.folder / "hosts" / _launch(key_id)).exists():
            raise ClusterError(
                f"the first host key of the launch {key_id} of {self.cluster!r} is not on this "
                "computer: the launch was made on another one"
            )
        _, public = self._first_key(_launch(key_id))
        for machine in machines:
            self.believe(machine, {public}, instead=True)

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

    def forget_launch(self, key_id: str) -> None:
        """The first host key of a launch: its user-data are made, its machines are believed."""
        self.forget_first_key(_launch(key_id))

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
        name = {"hostname": machine, "preserve_hostname": False}
        return _cloud_config(name | self._access(*self.host_key(machine)))

    def launch_user_data(self, key_id: str) -> str:
        """As `user_data`, for all machines of one launch: they are told apart when they answer.

        Their first host key is one and the same; it is kept under `key_id`.
        """
        first = self._first_key(_launch(key_id))
        return _cloud_config({**_NAMED_LATER, **self._access(*first)})

    def adoption_user_data(self, machine: str, nonce: str) -> str:
        """For a machine that runs already and lets nobody in from here: new keys in place of all.

        Its cloud gives it that at its next boot, when most of cloud-init's modules do not run any
        more; bootcmd does, at each boot. Once for each `nonce` it takes the first host key of
        `machine` in place of all host keys, and this cluster's key in place of those of the image's
        default user; keys that it found there let in nowhere any more.
        """
        private, public = self._first_key(machine)
        config = {**_NAMED_LATER, **self._access(private, public)}
        words = [nonce, self.cluster, self.public_key, private.strip(), public]
        config["bootcmd"] = [*_BOOTCMD, ["sh", "-c", takeover.SCRIPT, "clusterkit-adopt", *words]]
        return _cloud_config(config)

    def believe_adopted(self, machine: str) -> None:
        """Believe the first host key of `adoption_user_data`, and no other one of the machine."""
        _, public = self._first_key(machine)
        self.believe(machine, {public}, instead=True)

    def _access(self, private: str, public: str) -> dict[str, object]:
        """Who may log in, and by which host key a machine is known at first."""
        return {
            "users": ["default"],
            "ssh_authorized_keys": [self.public_key],
            # Not the key that the cloud's own metadata name: after `adopt` that one is another's.
            "allow_public_ssh_keys": False,
            "disable_root": True,
            "ssh_pwauth": False,
            "ssh_deletekeys": True,
            "ssh_genkeytypes": [],
            "ssh_keys": {"ed25519_private": private, "ed25519_public": public},
            "package_update": False,
            "package_upgrade": False,
            "bootcmd": list(_BOOTCMD),
        }

    def _first_key(self, name: str) -> tuple[str, str]:
        """A host key made here, of that name in `hosts/`: its private and its public text."""
        file = self.folder / "hosts" / name
        with _WRITING:
            if not file.exists():
                _make_key(file, name)
        public = " ".join(file.with_name(f"{name}.pub").read_text().split()[:2])
        return file.read_text(), public

    def _rewrite(self, lines: Iterable[tuple[str, str]]) -> None:
        text = "".join(f"{name} {key}\n" for name, key in list(lines))
        write_private(self.known_hosts, text.encode())

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
        return Identity(cluster, known, folder, own_key, _created(folder / "identity.json"))
    fresh = Identity(cluster, secrets.token_hex(8), folder, own_key, _stamp(datetime.now(UTC)))
    if make:
        keep(fresh)
    return fresh


def keep(identity: Identity) -> None:
    """Keep the id of a cluster that is made now; one that is kept already stays as it is."""
    if not read_id(identity.folder):
        write_identity(identity.folder, identity.id, identity.created)


def write_identity(folder: Path, id_: str, created: str = "") -> None:
    """Make `folder` that of the cluster with this id, as one that was made on another computer."""
    if not _ID.fullmatch(id_):
        raise ClusterError(f"{id_!r} is no cluster's id")
    said = {"id": id_, "created": created} if created else {"id": id_}
    write_private(folder / "identity.json", json.dumps(said).encode())


def read_id(folder: Path) -> str:
    """The id of the cluster in `folder`, or ""."""
    file = folder / "identity.json"
    found = _said(file).get("id", "")
    if found == "" and not file.exists():
        return ""
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise ClusterError(f"{file} holds no cluster id; it was written by another program")
    return found


def _created(file: Path) -> str:
    """Since when the cluster has its id; of one by an older clusterkit, when the file was made."""
    found = _said(file).get("created")
    if isinstance(found, str) and _CREATED.fullmatch(found):
        return found
    try:
        return _stamp(datetime.fromtimestamp(file.stat().st_mtime, UTC))
    except OSError:
        return ""


def _said(file: Path) -> Mapping[str, object]:
    try:
        data = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ClusterError(f"{file} cannot be read: {error}") from error
    return data if isinstance(data, Mapping) else {}


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y%m%dT%H%M%SZ")


def forget(folder: Path) -> None:
    """After a proven end: the id, the keys and what was believed. Runs and settings stay."""
    more = ("newkey.json", "image.json")  # what was begun with machines that are gone
    for name in ("known_hosts", "munge.key", "key", "key.pub", *more, "identity.json"):
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


def _launch(key_id: str) -> str:
    """The name of a launch's first host key in `hosts/`."""
    return f"launch-{key_id}"


def _cloud_config(config: Mapping[str, object]) -> str:
    return "#cloud-config\n" + json.dumps(config, indent=1) + "\n"


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


def write_private(file: Path, content: bytes) -> None:
    """Write a file atomically, readable by the user alone. Raises ClusterError."""
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
