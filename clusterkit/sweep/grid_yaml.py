"""A grid file as a tree that remembers its lines (see clusterkit.yaml12)."""

from __future__ import annotations

from pathlib import Path

from clusterkit import yaml12
from clusterkit.yaml12 import Document, Mapping, Node, Scalar, Sequence, dotted

__all__ = ["Document", "Mapping", "Node", "Scalar", "Sequence", "dotted", "read"]


def read(file: Path) -> Document:
    """The one YAML document of `file`.

    Raises UsageError when it cannot be read, FileProblems when it is no YAML.
    """
    return yaml12.read(
        file,
        what="grid file",
        empty="empty: write at least `params:` with one parameter, or `seeds:`",
    )
