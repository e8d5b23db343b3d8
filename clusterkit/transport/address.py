"""How ssh is told to reach a machine: an address, and the options made from it.

All that reach one address (commands, rsync, Ansible) share one connection: OpenSSH's ControlMaster.
Options: man.openbsd.org/ssh_config.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from clusterkit.errors import TransportError


@dataclass(frozen=True, slots=True)
class Address:
    """A machine that ssh can reach, and what is believed about it."""

    host: str  # what ssh is told: an address or a name
    user: str = ""  # "": ssh's own choice
    port: int = 0  # 0: ssh's own choice
    key: str = ""  # a private key file: this one alone, and no agent; "": ssh's own choice
    known_hosts: str = ""  # a file of ours, the only one believed; "": the user's
    host_key_alias: str = ""  # the name that the host's key has in known_hosts
    own_settings: bool = False  # read the user's ~/.ssh/config
    jump: str = ""  # [user@]host[:port] on the way, several with commas

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        port = f" port {self.port}" if self.port not in (0, 22) else ""
        return f"{user}{self.host}{port}"


def options(address: Address, control: Path | None) -> list[str]:
    """The options of every ssh to `address`, but for its host and command.

    `control` is the folder of the connections' sockets (`control_folder`); None leaves the place
    to the user's own ssh settings. Never asks anything.
    """
    said = ["BatchMode=yes", "LogLevel=INFO"]
    said += ["ConnectTimeout=10", "ServerAliveInterval=15", "ServerAliveCountMax=3"]
    said += ["ControlMaster=auto", "ControlPersist=60"]
    if control is not None:
        said.append(f"ControlPath={_file(str(socket_of(address, control)))}")
    if address.key:
        said += ["IdentitiesOnly=yes", "IdentityAgent=none", f"IdentityFile={_file(address.key)}"]
        said.append("PreferredAuthentications=publickey")
    if address.known_hosts:
        said += ["StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null", "UpdateHostKeys=no"]
        said.append(f"UserKnownHostsFile={_file(address.known_hosts)}")
    elif not address.own_settings:
        said += ["StrictHostKeyChecking=yes", "UpdateHostKeys=no"]
    if address.host_key_alias:
        said.append(f"HostKeyAlias={address.host_key_alias}")
    if address.own_settings:
        # What a user may have set for his own sessions, and a command cannot bear.
        said += ["RemoteCommand=none", "ClearAllForwardings=yes"]
    if address.jump:
        said.append(_jump(address))
    words = [] if address.own_settings else ["-F", "none"]
    words += ["-p", str(address.port)] if address.port else []
    words += ["-l", address.user] if address.user else []
    return words + [word for option in said for word in ("-o", option)]


def socket_of(address: Address, control: Path) -> Path:
    """Where the shared connection to `address` listens.

    A hash, because a socket's path has at most 107 bytes, and ssh adds 17 while it makes one.
    """
    digest = hashlib.sha256(repr(astuple(address)).encode()).hexdigest()
    return control / digest[:16]


def control_folder(parent: Path = Path("/tmp")) -> Path:  # noqa: S108 - short, and checked
    """The private folder of this user's connections, made when it is missing.

    Raises TransportError when somebody else has put something there.
    """
    folder = parent / f"clusterkit-ssh-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise TransportError(f"{folder}: cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise TransportError(
            f"{folder} is not a folder of yours, so no connection is made through it: remove it "
            "(or ask its owner to)"
        )
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def _jump(address: Address) -> str:
    """The option that goes through `address.jump`.

    A jump's ssh inherits none of our options, so where key and host keys are ours it is spelled
    out; else the user's own settings say how.
    """
    if address.own_settings or not (address.key or address.known_hosts):
        return f"ProxyJump={address.jump}"
    *before, last = (
        hop if "@" in hop or not address.user else f"{address.user}@{hop}"
        for hop in address.jump.split(",")
    )
    user, _, place = last.rpartition("@")
    host, port = _host_port(place)
    hop = replace(
        address, host=host, user=user, port=port, jump=",".join(before), host_key_alias=""
    )
    command = ["ssh", *options(hop, None), "-o", "ControlMaster=no", "-o", "ControlPath=none"]
    words = [word.replace("%", "%%") for word in command]
    return f"ProxyCommand={shlex.join(words)} -W '[%h]:%p' -- {shlex.quote(host)}"


def _host_port(place: str) -> tuple[str, int]:
    """host, host:port or [address]:port."""
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        return host, int(rest.removeprefix(":") or 0)
    host, colon, port = place.rpartition(":")
    if colon and ":" not in host and port.isdigit():
        return host, int(port)
    return place, 0


def _file(name: str) -> str:
    """A file name as an option's value: spaces do not split it, and %-words are not expanded."""
    return '"' + name.replace("%", "%%") + '"'


def with_options(first: Sequence[str], rest: Sequence[str]) -> list[str]:
    """`rest` with `first` before it: of two options of a name, ssh takes the first."""
    return [word for option in first for word in ("-o", option)] + list(rest)
