"""Keep an experiment's files on the user's machine, because the machines they lie on will go.

They are kept as they lie on the cluster: `<data folder>/experiments/<id>/files/out/<task>/...`, and
so on. So whatever reads an experiment's folder on a cluster reads the kept one as well (`kept`).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any

from clusterkit import paths
from clusterkit.errors import ClusterkitError, CommandFailed, TransportError
from clusterkit.harvest import files
from clusterkit.node import keep, wire
from clusterkit.paths import Home
from clusterkit.records import Experiment
from clusterkit.transport import Connection, Local


@dataclass(frozen=True, slots=True)
class Kept:
    """What is here and was found equal to what is there. `new` files and `bytes` were moved."""

    folder: Path
    files: int
    size: int  # bytes
    new: int


def folder(home: Home, experiment: Experiment) -> Path:
    """Where its files are kept."""
    return home.experiment(experiment.id) / "files"


def kept(home: Home, experiment: Experiment) -> tuple[Connection, Experiment] | None:
    """The kept files as if they were a cluster's, for those who only read; None: nothing is kept.

    No scheduler is behind it.
    """
    where = folder(home, experiment)
    if not (where / "slots").is_dir():
        return None
    connection = Connection(
        cluster=experiment.cluster, transport=Local(), root=str(home.root), python=sys.executable
    )
    return connection, replace(experiment, root=str(where), lib=str(paths.package().parent))


def missing(connection: Connection, experiment: Experiment, home: Home) -> tuple[int, int]:
    """How many files of tasks, and bytes, are on the cluster and not kept here as they are there.

    Journals are left out, since harvesting reads them, and so is what is empty.
    """
    argv = _argv(connection, experiment, {"list": True})
    try:
        found: dict[str, list[int]] = json.loads(connection.run(argv, timeout=600).text)
    except CommandFailed as error:
        raise _unreadable(experiment, error) from error
    have = _present(folder(home, experiment))
    lost = [
        size
        for name, (size, changed) in found.items()
        if size and _is_precious(name) and have.get(name) != [size, changed]
    ]
    return len(lost), sum(lost)


def _is_precious(name: str) -> bool:
    top = name.split("/", 1)[0]
    return top in ("out", "checkpoints") or (top == "slots" and not name.endswith(".jsonl"))


def bring(connection: Connection, experiment: Experiment, home: Home) -> Kept:
    """Bring what is new, and prove that all of it is here: names, sizes and contents.

    Cut off at any point, the next call goes on: what is here with the same size and time is not
    sent again. Nothing is ever removed here. Raises TransportError, and ClusterkitError when it
    cannot be written or is not what it is there.
    """
    target = folder(home, experiment)
    known = _present(target)
    # Journals may have grown in the same nanosecond as they were read: always sent whole.
    known = {name: fact for name, fact in known.items() if not name.endswith(".jsonl")}
    arguments = {"packed": not isinstance(connection.transport, Local)}
    argv = _argv(connection, experiment, arguments)
    manifest = None
    digests: dict[str, list[Any]] = {}
    try:
        with connection.transport.stream(
            argv, input=json.dumps(known).encode() + b"\n", env=connection.env
        ) as stream:
            source = wire.unpacked(stream)
            if source.peek(1):  # else the command failed, and will tell why
                manifest = _receive(source, target, digests)
            source.read()  # what stands behind the archive's end
    except CommandFailed as error:
        raise _unreadable(experiment, error) from error
    except (tarfile.TarError, EOFError) as error:
        raise TransportError(
            f"the connection to {experiment.cluster} broke while files of {experiment.id} came "
            f"({error}); the same command goes on"
        ) from error
    except OSError as error:
        raise ClusterkitError(f"{target}: cannot be written: {error.strerror}") from error
    if manifest is None:
        raise TransportError(f"the files of {experiment.id} came without their list; repeat it")
    _prove(experiment, target, manifest, digests)
    sizes = [entry[0] for entry in manifest.values() if len(entry) == 2]
    return Kept(target, len(sizes), sum(sizes), len(digests))


def _receive(
    source: BufferedReader, target: Path, digests: dict[str, list[Any]]
) -> dict[str, list[Any]] | None:
    """Write what comes to `target`, its sizes and hashes to `digests`; the manifest."""
    manifest: dict[str, list[Any]] | None = None
    with tarfile.open(fileobj=source, mode="r|") as archive:
        for member in archive:
            if member.name == keep.MANIFEST:
                content = archive.extractfile(member)
                assert content is not None
                manifest = json.loads(content.read())
            else:
                digest = hashlib.sha256()
                size = files.place(archive, member, target, digest.update)
                digests[member.name] = [size, digest.hexdigest()]
    return manifest


def _prove(
    experiment: Experiment,
    target: Path,
    manifest: Mapping[str, list[Any]],
    received: Mapping[str, list[Any]],
) -> None:
    """Every file of the manifest is here with the same content; links are made."""
    wrong = []
    for name, fact in manifest.items():
        if len(fact) == 1:
            _link(target / _inside(name), fact[0], name)
        elif (received.get(name) or _read(target / _inside(name))) != fact:
            wrong.append(name)
    if wrong:
        raise ClusterkitError(
            f"experiment {experiment.id}: {len(wrong)} of {len(manifest)} files are not here as "
            f"they are on {experiment.cluster}, such as {wrong[0]}. Does a task still write to "
            "them? Nothing was deleted; repeat it."
        )


def _read(file: Path) -> list[Any] | None:
    digest = hashlib.sha256()
    size = 0
    try:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
    except FileNotFoundError:
        return None
    return [size, digest.hexdigest()]


def _link(file: Path, target: str, name: str) -> None:
    if not keep.stays_inside(name, target):
        raise TransportError(f"the cluster sent a link that leads out: {name} -> {target}")
    if file.is_symlink() and os.readlink(file) == target:  # noqa: PTH115 - as it is
        return
    file.unlink(missing_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.symlink_to(target)


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise TransportError(f"the cluster sent something that is no file of a task: {name}")
    return path


def _present(target: Path) -> dict[str, list[int]]:
    """Name -> [size, time of change (ns)] of what is here."""
    return keep.inventory(str(target)) if target.is_dir() else {}


def _argv(
    connection: Connection, experiment: Experiment, arguments: Mapping[str, Any]
) -> list[str]:
    program = f"{experiment.lib}/clusterkit/node/__main__.py"
    return [
        connection.python, "-I", "-S", program, "keep", experiment.root, json.dumps(arguments)
    ]  # fmt: skip


def _unreadable(experiment: Experiment, error: CommandFailed) -> TransportError:
    return TransportError(
        f"the files of experiment {experiment.id} cannot be read on {experiment.cluster}: "
        f"{error.stderr.strip() or error}"
    )
