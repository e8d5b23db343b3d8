"""settings.json: what a cluster was started with, in its own folder.

`stop`, `status` and `connect` need no clusterkit.yaml because of it. It may have been written by a
newer clusterkit: keys that this one does not know are left out when it is read.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from clusterkit.cluster.spec import Spec

FILE = "settings.json"


@dataclass(frozen=True, slots=True)
class Stored:
    """`file`: the settings file, resolved; None where the cluster needed none."""

    file: str | None
    spec: Spec


def write(folder: Path, spec: Spec, file: Path | str | None) -> None:
    """Atomically: after a crash at any moment the old file or the new one is there."""
    data = {
        "file": None if file is None else str(Path(file).resolve()),
        "spec": spec.model_dump(mode="json"),
    }
    staging = folder / f".{FILE}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with staging.open("w") as stream:
            json.dump(data, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        staging.rename(folder / FILE)
    except OSError as error:
        with contextlib.suppress(OSError):
            staging.unlink(missing_ok=True)
        raise ClusterError(f"{folder / FILE} cannot be written: {error.strerror}") from error


def read(folder: Path, *, lenient: bool = True) -> Stored | None:
    """What the cluster in `folder` was started with; None when it was not.

    Raises ClusterError when the file cannot be understood; without `lenient` also when it has keys
    that this version does not know.
    """
    try:
        data = json.loads((folder / FILE).read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClusterError(f"{folder / FILE} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _damaged(folder, "it is no JSON") from error
    try:
        file, spec = data["file"], data["spec"]
        provider = spec["provider"]
    except (KeyError, TypeError) as error:
        raise _damaged(folder, f"it has no {error}") from error
    return Stored(file if isinstance(file, str) else None, _spec(folder, provider, spec, lenient))


def provider(folder: Path) -> str | None:
    """The provider of the cluster in `folder`, without reading the rest; None: not started."""
    try:
        name = json.loads((folder / FILE).read_text())["spec"]["provider"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None


def file(folder: Path) -> Path | None:
    """The settings file that the cluster in `folder` was started from; None where it had none."""
    try:
        name = json.loads((folder / FILE).read_text())["file"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Path(name) if isinstance(name, str) else None


def names(clusters: Path) -> Iterator[str]:
    """The names of the clusters that were started, of the folder of all clusters."""
    for file in sorted(clusters.glob(f"*/{FILE}")):
        yield file.parent.name


def forget(folder: Path) -> None:
    (folder / FILE).unlink(missing_ok=True)


def _spec(folder: Path, provider: object, data: Any, lenient: bool) -> Spec:
    from pydantic import ValidationError

    from clusterkit.cluster.spec import SPECS

    model = SPECS.get(provider) if isinstance(provider, str) else None
    if model is None:
        raise _damaged(folder, f"this version knows no provider {provider!r}")
    while True:
        try:
            return model.model_validate(data)
        except ValidationError as error:
            surplus = [one["loc"] for one in error.errors() if one["type"] == "extra_forbidden"]
            if not surplus or not lenient:
                first = error.errors()[0]
                key = ".".join(map(str, first["loc"]))
                raise _damaged(folder, f"{key}: {first['msg']}") from error
            for where in surplus:
                _drop(data, where)


def _drop(data: Any, where: tuple[int | str, ...]) -> None:
    for key in where[:-1]:
        data = data[key]
    del data[where[-1]]


def _damaged(folder: Path, why: str) -> ClusterError:
    return ClusterError(
        f"{folder / FILE} cannot be understood: {why}. It says what the cluster "
        f"{folder.name!r} was started with. If a newer clusterkit wrote it, use that one."
    )
