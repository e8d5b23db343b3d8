"""The files of a snapshot that an earlier experiment on this cluster has already.

Tasks may write into their experiment's code/, so a file counts by its content and is copied, not
linked; the content is looked at once more while it is copied.
"""

from __future__ import annotations

import hashlib
import os
from typing import Optional


def have(folders: "list[str]", wanted: "dict[str, list[object]]") -> "dict[str, str]":
    """Name -> the first of the folders that has this file. `wanted`: name -> [size, SHA-256]."""
    found = {}
    for name, (size, digest) in wanted.items():
        for folder in folders:
            path = os.path.join(folder, name)
            try:
                if os.path.getsize(path) != size or os.path.islink(path):
                    continue
            except OSError:
                continue
            if _copied(path, None) == digest:
                found[name] = folder
                break
    return found


def fill(target: str, source: "dict[str, str]", wanted: "dict[str, list[object]]") -> "list[str]":
    """Copy what `have` found to `target`; the names of what is not as it was any more.

    `wanted`: name -> [size, SHA-256, whether it is executable].
    """
    lost = []
    for name, folder in source.items():
        path = os.path.join(target, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if _copied(os.path.join(folder, name), path) != wanted[name][1]:
            lost.append(name)
        elif wanted[name][2]:
            os.chmod(path, 0o755)  # noqa: S103 - as the transport puts it
    return lost


def _copied(source: str, target: Optional[str]) -> Optional[str]:
    """The content's SHA-256 (hex), copied to `target` if there is one; None: it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(source, "rb") as file, open(target or os.devnull, "wb") as copy:
            while block := file.read(1 << 20):
                digest.update(block)
                copy.write(block)
    except FileNotFoundError:
        return None
    return digest.hexdigest()
