"""facts.json: what a started cluster is, as `connect` needs it. A cache, written atomically.

It is read by every command, so this module imports nothing heavy.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from clusterkit.errors import ClusterError

FILE = "facts.json"


@dataclass(frozen=True, slots=True)
class Daemon:
    """A process of the cluster on this machine; `start` in ticks since boot (see processes)."""

    pid: int
    start: int


@dataclass(frozen=True, slots=True)
class Facts:
    """A cluster after a successful `start`. Memory in MiB."""

    cluster: str
    provider: str
    started: str  # ISO 8601, with time zone
    slurm_conf: str
    slurm_bin: str  # the folder of sbatch and its kin
    slurm_version: str
    python: str
    root: str
    max_array_size: int
    default_time: int | None
    cpus: int
    memory: int
    gpus: tuple[str, ...]
    ports: dict[str, int]
    daemons: dict[str, Daemon]

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
        data["gpus"] = tuple(data["gpus"])
        return Facts(**data)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClusterError(f"{folder / FILE} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError):
        return None  # `start` writes it anew; nothing but the cache is lost


def forget(folder: Path) -> None:
    (folder / FILE).unlink(missing_ok=True)
