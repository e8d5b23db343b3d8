"""What this machine lacks to run hosts; everything at once, with what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from clusterkit.errors import ClusterError
from clusterkit.transport import Local

#: program -> the package of Debian and Ubuntu that has it
PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "nft": "nftables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "ssh-keygen": "openssh-client",
}


def missing() -> tuple[str, ...]:
    """Everything that is missing, in words; empty when hosts can run here. Changes nothing."""
    if platform.system() != "Linux":
        return ("this is not Linux",)
    found = []
    if os.geteuid() != 0:
        found.append("root: mounts, bridges and machines need it; run clusterkit with sudo")
    packages = sorted({package for name, package in PROGRAMS.items() if shutil.which(name) is None})
    if packages:
        found.append(
            f"programs: `apt-get install --no-install-recommends {' '.join(packages)}` installs "
            "them (Debian, Ubuntu)"
        )
    filesystems = Path("/proc/filesystems").read_text().split()
    found += [
        f"{kind}: this kernel has no such file system"
        for kind in ("overlay", "cgroup2")
        if kind not in filesystems and not _load(kind)
    ]
    return tuple(found)


def check() -> None:
    """Raise ClusterError that names everything missing."""
    lacks = missing()
    if lacks:
        raise ClusterError(
            "this machine cannot run nspawn machines; missing:\n"
            + "\n".join(f"  {one}" for one in lacks)
        )


def _load(module: str) -> bool:
    """Whether a kernel module of that name could be loaded."""
    if os.geteuid() != 0 or shutil.which("modprobe") is None:
        return False
    return Local().run(["modprobe", "-q", module], check=False).returncode == 0


def systemd_runs() -> bool:
    """Whether process 1 of this machine is systemd (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()
