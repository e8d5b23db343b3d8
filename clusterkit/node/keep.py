"""Send all that is worth keeping of an experiment before its machines go, as a tar stream.

The last member, `MANIFEST`, is JSON: name -> [size, SHA-256 (hex)] of every file, sent or known,
and name -> [target] of every link. So the receiver can prove that it has all of it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from typing import Any, BinaryIO, Iterator

MANIFEST = "MANIFEST"
#: What tasks wrote and printed, and what says which task that was. The code is not of them: it is
#: the user's own, and git knows it.
FOLDERS = ("out", "checkpoints", "slots", "rounds")
FILES = ("run.json", "grid.yaml", "tasks", "tasks.idx")


def inventory(root: str) -> "dict[str, list[int]]":
    """Name -> [size, time of change (ns)] of every file that `send` would send."""
    return {
        name: [status.st_size, status.st_mtime_ns]
        for name, _, status in _entries(root)
        if stat.S_ISREG(status.st_mode)
    }


def send(root: str, known: "dict[str, list[int]]", out: BinaryIO) -> None:
    """Every file but those whose size and time are as `known` says, then the manifest."""
    manifest: "dict[str, list[Any]]" = {}
    # Dereferencing: of two hard links tarfile would send the second as a word without content.
    with tarfile.open(
        fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, dereference=True
    ) as archive:
        for name, path, status in _entries(root):
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink(path)
                if stays_inside(name, target):
                    manifest[name] = [target]
                continue
            digest = hashlib.sha256()
            size = status.st_size
            with open(path, "rb") as file:
                if known.get(name) == [size, status.st_mtime_ns]:
                    while block := file.read(1 << 20):
                        digest.update(block)
                else:
                    member = archive.gettarinfo(arcname=name, fileobj=file)
                    size = member.size
                    seconds, fraction = divmod(status.st_mtime_ns, 10**9)
                    member.pax_headers = {"mtime": "%d.%09d" % (seconds, fraction)}
                    archive.addfile(member, _Hashing(file, digest))
            manifest[name] = [size, digest.hexdigest()]
        text = json.dumps(manifest).encode()
        last = tarfile.TarInfo(MANIFEST)
        last.size = len(text)
        archive.addfile(last, io.BytesIO(text))


class _Hashing:
    """A file whose reader need not read it twice."""

    def __init__(self, file: BinaryIO, digest: Any) -> None:
        self._file = file
        self._digest = digest

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        return data


def stays_inside(name: str, target: str) -> bool:
    """Whether a link called `name` with this target leads to something beside it, kept as well."""
    if os.path.isabs(target):
        return False
    there = os.path.normpath(os.path.join(os.path.dirname(name), target))
    return there.split(os.sep, 1)[0] == name.split(os.sep, 1)[0]


def paths(root: str) -> "list[str]":
    """Where those files are."""
    return [path for _, path, status in _entries(root) if stat.S_ISREG(status.st_mode)]


def _entries(root: str) -> "Iterator[tuple[str, str, os.stat_result]]":
    """Files and links: name, path, status; sorted within each folder."""
    for name in FILES:
        path = os.path.join(root, name)
        if os.path.isfile(path):
            yield name, path, os.lstat(path)
    for top in FOLDERS:
        for at, folders, names in os.walk(os.path.join(root, top)):
            folders.sort()
            links = [name for name in folders if os.path.islink(os.path.join(at, name))]
            for name in sorted(names + links):
                path = os.path.join(at, name)
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                    yield os.path.relpath(path, root), path, status
