"""paused.json: since when a cluster is paused, and what its disks cost meanwhile.

A note for people. Whether the machines are off is asked of the cloud; without facts, which a pause
forgets, nothing connects to them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from clusterkit.cluster.access import write_private

FILE = "paused.json"


@dataclass(frozen=True, slots=True)
class Paused:
    """`since` in ISO 8601 with time zone; `disks` in GiB, 0: not known; `price` of an hour."""

    since: str
    disks: int = 0
    price: float | None = None
    currency: str = ""

    @property
    def cost(self) -> str:
        """What it costs, in words."""
        size = f" ({self.disks} GiB)" if self.disks else ""
        if self.price is None:
            return f"only its disks cost{size}; how much is not known"
        return f"only its disks cost{size}: {self.price:.4f} {self.currency} an hour"


def write(folder: Path, paused: Paused) -> None:
    """Atomically."""
    write_private(folder / FILE, json.dumps(asdict(paused), indent=1).encode())


def read(folder: Path) -> Paused | None:
    """None when the cluster in `folder` is not paused; a damaged note counts as one."""
    try:
        return Paused(**json.loads((folder / FILE).read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        return Paused("")


def forget(folder: Path) -> None:
    (folder / FILE).unlink(missing_ok=True)
