"""The part of clusterkit that is sent to a cluster: `clusterkit.node`, content-addressed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from clusterkit import paths
from clusterkit.transport import Connection, Content


def folder(connection: Connection) -> str:
    """Where it lies on the cluster."""
    digest = hashlib.sha256()
    for name, data in _files().items():
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return f"{connection.root}/lib/{digest.hexdigest()[:16]}"


def ship(connection: Connection) -> str:
    """Put it there unless it is there; where. Raises TransportError."""
    where = folder(connection)
    files: dict[str, Content] = dict(_files())
    connection.transport.put(files, where)
    return where


def program(lib: str) -> str:
    """The file that runs the programs of a node."""
    return f"{lib}/clusterkit/node/__main__.py"


def argv(connection: Connection, lib: str, *words: str) -> Sequence[str]:
    """One of those programs as a command."""
    return [connection.python, "-I", "-S", program(lib), *words]


def _files() -> dict[str, bytes]:
    package = paths.package()
    return {
        f"clusterkit/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in (package / "__init__.py", *sorted((package / "node").glob("*.py")))
    }
