"""Send the files that tasks left in their folders, as a tar stream."""

from __future__ import annotations

import fnmatch
import os
import stat
import tarfile
from typing import BinaryIO, Iterator


def send(root: str, pattern: str, known: dict[str, list[int]], out: BinaryIO) -> None:
    """All files of `out/` whose path inside their task's folder fits `pattern`, as `<task>/<path>`.

    `pattern` is fnmatch's, so `*` crosses slashes. Files that the receiver has are left out.
    `known` maps a name to the size (bytes) and time of change (ns) that the receiver has. Links are
    not followed and not sent.
    """
    # Dereferencing: of two hard links tarfile would send the second as a word without content.
    with tarfile.open(
        fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, dereference=True
    ) as archive:
        for name, path in _matching(os.path.join(root, "out"), pattern):
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and known.get(name) != [
                status.st_size,
                status.st_mtime_ns,
            ]:
                member = archive.gettarinfo(path, name)
                seconds, fraction = divmod(status.st_mtime_ns, 10**9)
                member.pax_headers = {"mtime": f"{seconds}.{fraction:09d}"}  # to the nanosecond
                with open(path, "rb") as file:
                    archive.addfile(member, file)


def paths(root: str, pattern: str) -> "list[str]":
    """Where the files are that fit `pattern`."""
    return [path for _, path in _matching(os.path.join(root, "out"), pattern)]


def _matching(folder: str, pattern: str) -> Iterator[tuple[str, str]]:
    if not os.path.isdir(folder):
        return
    for task in sorted(os.listdir(folder)):
        base = os.path.join(folder, task)
        for at, folders, names in os.walk(base):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(at, name)
                if fnmatch.fnmatchcase(os.path.relpath(path, base), pattern):
                    yield os.path.relpath(path, folder), path
