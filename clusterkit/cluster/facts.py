"""facts.json: what a started cluster is, as `connect` needs it. A cache, written atomically.

It is read by every command, so this module imports nothing heavy.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from clusterkit.errors import ClusterError
from clusterkit.transport import Address

FILE = "facts.json"


@dataclass(frozen=True, slots=True)
class Daemon:
    """A process of the cluster on this machine; `start` in ticks since boot (see processes)."""

    pid: int
    start: int


@dataclass(frozen=True, slots=True)
class Facts:
    """A cluster after a successful `start`. Memory in MiB; cpus, memory and gpus of all workers.

    `ports` and `daemons` are those of a private cluster. `hosts` are the machines that are reached
    by ssh, as the account that sets them up, the head under the name `head`; empty where SLURM's
    commands run on this machine. `user` is the account that jobs run as, `user_key` the private key
    that lets in as it; "": the same.
    """

    cluster: str
    provider: str
    started: str  # ISO 8601, with time zone
    slurm_conf: str  # "" where SLURM's commands find theirs
    slurm_bin: str  # the folder of sbatch and its kin; "" where they are on the PATH
    slurm_version: str
    python: str
    root: str
    max_array_size: int
    default_time: int | None
    cpus: int
    memory: int
    gpus: tuple[str, ...]
    ports: dict[str, int] = field(default_factory=dict)
    daemons: dict[str, Daemon] = field(default_factory=dict)
    id: str = ""
    head: str = ""
    hosts: dict[str, Address] = field(default_factory=dict)
    user: str = ""
    user_key: str = ""
    sbatch: dict[str, str] = field(default_factory=dict)  # default options of every submission
    disposable: bool = False  # the machines, and all that is on them, go with the cluster
    digest: str = ""  # of what the machines were set up with
    path: str = ""  # PATH there, where SLURM's commands are not on the usual one

    def write(self, folder: Path) -> None:
        """Atomically: after a crash at any moment the old file or the new one is there."""
        staging = folder / f".{FILE}.{os.getpid()}"
        try:
            with staging.open("w") as file:
                json.dump(asdict(self), file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            staging.rename(folder / FILE)
        except OSError as error:
            staging.unlink(missing_ok=True)
            raise ClusterError(f"{folder / FILE} cannot be written: {error.strerror}") from error


def read(folder: Path) -> Facts | None:
    """The facts of the cluster in `folder`; None when it was not started, or by another version."""
    try:
        data = json.loads((folder / FILE).read_text())
        data["daemons"] = {name: Daemon(**one) for name, one in data["daemons"].items()}
        data["hosts"] = {name: Address(**one) for name, one in data["hosts"].items()}
        data["gpus"] = tuple(data["gpus"])
        return Facts(**data)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClusterError(f"{folder / FILE} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError):
        return None  # `start` writes it anew; nothing but the cache is lost


def as_user(facts: Facts) -> Address:
    """The head, as the account that jobs run as."""
    head = facts.hosts[facts.head]
    if not facts.user:
        return head
    return replace(head, user=facts.user, key=facts.user_key or head.key)


def forget(folder: Path) -> None:
    (folder / FILE).unlink(missing_ok=True)
