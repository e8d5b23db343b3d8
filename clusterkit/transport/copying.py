"""Copying files and folders within this machine, as `push` and `pull` mean it."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clusterkit.errors import TransportError


def copy(source: Path, target: Path, *, update: bool) -> None:
    """See `Transport.push`. Raises TransportError."""
    try:
        _merge(source.resolve(strict=True), goal(source, target, update=update), update)
    except OSError as error:
        what = error.filename or target
        raise TransportError(f"{what}: cannot be copied: {error.strerror}") from error


def goal(source: Path, target: Path, *, update: bool) -> Path:
    """What `source` becomes: within `target` where that is a folder, else `target` itself."""
    if target.is_dir() and not (update and source.is_dir()):
        return target / source.name
    return target


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A fresh folder next to `target`, removed if it is still there at the end."""
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    staging.chmod(0o755)
    try:
        yield staging
    finally:
        if staging.is_dir():
            shutil.rmtree(staging)


def _merge(source: Path, target: Path, update: bool) -> None:
    if source.is_dir() and not source.is_symlink():
        target.mkdir(parents=True, exist_ok=True)
        for one in sorted(source.iterdir()):
            _merge(one, target / one.name, update)
        shutil.copystat(source, target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if update and _same(source, target):
        return
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        shutil.copy2(source, part, follow_symlinks=False)
        part.replace(target)  # whole or not at all
    finally:
        part.unlink(missing_ok=True)


def _same(source: Path, target: Path) -> bool:
    if source.is_symlink():
        return target.is_symlink() and os.readlink(source) == os.readlink(target)  # noqa: PTH115
    if target.is_symlink() or not target.is_file():
        return False
    here, there = source.stat(), target.stat()
    return (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)
