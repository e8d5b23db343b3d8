"""The private folder of a cluster that runs as the user: a path that SLURM can use, and a key."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path

from clusterkit.errors import ClusterError


def alias(folder: Path, temporary: Path) -> Path | None:
    """A short folder for a link to `folder`, where SLURM could not use its path as it is.

    UNIX sockets have paths of at most 107 bytes, and slurm.conf and Ansible's templates give
    meaning to some characters. Not in XDG_RUNTIME_DIR: that goes when the user logs out, jobs do
    not.
    """
    if len(os.fsencode(folder)) <= 60 and re.fullmatch(r"[A-Za-z0-9/._+-]+", str(folder)):
        return None
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return temporary / f"clusterkit-{os.getuid()}-{digest}"


def make_alias(alias: Path, folder: Path) -> None:
    """Make the folder `alias`, the user's alone, with the link `c` to `folder` in it.

    Raises ClusterError when it is somebody else's.
    """
    try:
        alias.mkdir(mode=0o700)
    except FileExistsError:
        status = alias.lstat()
        if status.st_uid != os.getuid() or alias.is_symlink() or not alias.is_dir():
            raise ClusterError(
                f"{alias} is not a folder of yours (it is user {status.st_uid}'s). Remove it, or "
                "set CLUSTERKIT_HOME to a short path without spaces, so that it is not needed."
            ) from None
        alias.chmod(0o700)
    link = alias / "c"
    if not link.is_symlink() or link.readlink() != folder:
        link.unlink(missing_ok=True)
        link.symlink_to(folder)


def remove_alias(alias: Path) -> None:
    """Remove what `make_alias` made."""
    if alias.is_dir() and not alias.is_symlink() and alias.stat().st_uid == os.getuid():
        (alias / "c").unlink(missing_ok=True)
        alias.rmdir()


def make_key(key: Path) -> None:
    """Make a random munge key, readable by the user alone, unless there is one."""
    if key.exists():
        return
    staging = key.with_suffix(".new")
    staging.unlink(missing_ok=True)
    handle = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(128))
        file.flush()
        os.fsync(file.fileno())
    staging.rename(key)
