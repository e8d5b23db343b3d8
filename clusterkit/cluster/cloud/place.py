"""place.json: the region and the account that a cluster is in, and who else may log in.

    {"id": ..., "region": ..., "account": ..., "allow": [CIDR, ...]}

The settings may leave the region to the cloud's own configuration, which changes; and other
credentials see nothing of the cluster, so that an end would be "proved" in the wrong account.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from clusterkit.cluster.access import write_private
from clusterkit.errors import ClusterError

FILE = "place.json"


@dataclass(frozen=True, slots=True)
class Place:
    """Of the cluster with this `id`; of another id it says nothing."""

    id: str
    region: str
    account: str
    allow: tuple[str, ...] = ()


def read(folder: Path, cluster_id: str) -> Place | None:
    """Raises ClusterError when it cannot be understood."""
    file = folder / FILE
    try:
        said = json.loads(file.read_text())
        found = Place(said["id"], said["region"], said["account"], tuple(said["allow"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"{file} cannot be read: {error}") from error
    return found if found.id == cluster_id else None


def write(folder: Path, place: Place) -> None:
    """Atomically."""
    write_private(folder / FILE, json.dumps(asdict(place), indent=1).encode())


def forget(folder: Path) -> None:
    (folder / FILE).unlink(missing_ok=True)
