"""Whether SLURM's and munge's programs are on this machine, and whether they can be installed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from clusterkit.errors import CommandFailed, SetupFailed
from clusterkit.transport import Local

#: program -> Debian package that brings it
BINARIES = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    **dict.fromkeys(
        ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun", "sacct"), "slurm-client"
    ),
}
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
INSTALL = f"apt-get install --no-install-recommends {' '.join(PACKAGES)}"

#: Daemons live in sbin, which is not on an ordinary user's PATH.
PLACES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def find(program: str) -> str | None:
    """The program's path: on PATH, or in one of the system's own places."""
    return shutil.which(program, path=os.pathsep.join([*os.get_exec_path(), *PLACES]))


def daemon(program: str) -> str:
    """The same, or where its package will put it."""
    return find(program) or f"/usr/sbin/{program}"


def commands() -> str:
    """The folder of sbatch and its kin."""
    return str(Path(find("sbatch") or "/usr/bin/sbatch").parent)


def missing() -> tuple[str, ...]:
    """The packages to install; all of them when any program is not there."""
    return PACKAGES if any(find(program) is None for program in BINARIES) else ()


def require_installable(cluster: str) -> None:
    """Raise SetupFailed unless packages can be installed here without asking anybody."""
    again = f"then run `clusterkit start {cluster}` again."
    if find("apt-get") is None:
        raise SetupFailed(
            "SLURM is not installed, and this is not Debian or Ubuntu, where clusterkit could "
            "install it. Install slurmctld, slurmd, SLURM's commands (srun, sbatch, ...) and "
            f"munge, {again}"
        )
    by_hand = f"Install them with\n  sudo {INSTALL}\n{again}"
    if os.getuid() != 0 and not _sudo():
        raise SetupFailed(
            "SLURM's packages are not installed, and installing them needs root "
            f"(sudo asks for a password or is not there). {by_hand}"
        )
    if not Path("/usr/bin/python3").exists():  # apt's bindings belong to the system's Python
        raise SetupFailed(
            f"SLURM's packages are not installed, and Ansible needs /usr/bin/python3 for that. "
            f"{by_hand}"
        )


def _sudo() -> bool:
    try:
        return Local().run(["sudo", "-n", "true"], check=False, timeout=10).returncode == 0
    except CommandFailed:  # no sudo
        return False
