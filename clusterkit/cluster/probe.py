"""What a machine is and how it is set up, asked in one command. Pure: the script and its reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clusterkit.cluster import hardware
from clusterkit.cluster.hardware import Gpu

#: The daemons whose state is asked for.
UNITS = ("munge", "slurmctld", "slurmd", "slurmdbd", "mariadb")

#: POSIX sh, run as whoever logs in. Each line it prints is a word and what it is about.
SCRIPT = f"""\
say() {{ printf '%s %s\\n' "$1" "$2"; }}
first() {{ head -n 1 "$1" 2>/dev/null || :; }}
. /etc/os-release
say os "$ID $VERSION_ID"
say processor "$(uname -m)"
say user "$(id -un)"
say root "$(if [ "$(id -u)" = 0 ]; then echo yes; else sudo -n echo yes 2>&1 | tail -n 1; fi)"
say hostname "$(first /proc/sys/kernel/hostname)"
say cpus "$(nproc)"
say memory "$(grep ^MemTotal: /proc/meminfo)"
say free "$(df -Pm / | tail -n 1)"
say python "$(command -v python3 || :)"
say claim "$(first /var/lib/clusterkit/cluster)"
say done "$(first /var/lib/clusterkit/done)"
say rotated "$(first /var/lib/clusterkit/rotated)"
say exports "$(first /etc/exports.d/clusterkit.exports)"
say cgroup "$(first /sys/fs/cgroup/cgroup.controllers)"
say slurm "$(dpkg-query -W -f '${{Version}}' slurm-client 2>/dev/null || :)"
for key in /etc/ssh/ssh_host_*_key.pub; do say key "$(first "$key")"; done
i=0
for state in $(systemctl is-active {" ".join(UNITS)} 2>/dev/null); do
  i=$((i + 1)); say "unit$i" "$state"
done
for device in /dev/nvidia[0-9]*; do [ -e "$device" ] && say device "${{device#/dev/nvidia}}"; done
if command -v nvidia-smi >/dev/null; then
  {" ".join(hardware.NVIDIA_SMI)} 2>&1 | sed 's/^/smi /'
fi
:
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A machine as it showed itself. Memory in MiB as jobs may have it, free disk in MiB.

    `claim` is the cluster it belongs to ("<id> <name>"), `done` the digest of what it was set up
    with, `units` the states of SLURM's daemons in systemd's words; all "" where there is none.
    """

    system: str  # "debian 12"
    user: str  # who logged in
    root: str  # "yes", or why that account may not become root without a password
    hostname: str  # without a domain
    cpus: int
    memory: int
    free: int = 0
    processor: str = ""  # "x86_64"
    python: str = ""
    claim: str = ""
    done: str = ""
    rotated: bool = False
    exports: bool = False  # clusterkit has made it share its /home by NFS
    cgroups: bool = False  # version 2, by which SLURM can fence jobs
    slurm: str = ""  # version of the package
    host_keys: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[Gpu, ...] = ()
    notes: tuple[str, ...] = ()


def read(text: str) -> Seen:
    """What SCRIPT printed. Raises ValueError when it is cut off or something else."""
    lines: dict[str, list[str]] = {}
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        lines.setdefault(word, []).append(rest.strip())

    def one(word: str) -> str:
        return lines.get(word, [""])[0]

    if not one("cpus").isdigit():
        raise ValueError(f"not a machine's answer: {text[:300]!r}")
    # `systemctl is-active` prints one line a unit, in order.
    units = {name: one(f"unit{number}") for number, name in enumerate(UNITS, 1)}
    listed = hardware.parse_nvidia_smi("\n".join(lines.get("smi", ())))
    gpus, notes = hardware.gpus(listed, [int(n) for n in lines.get("device", ()) if n.isdigit()])
    if lines.get("smi") and not listed:
        notes = (f"no GPUs: {lines['smi'][0]}",)
    free = one("free").split()
    return Seen(
        system=one("os"),
        user=one("user"),
        root=one("root"),
        hostname=one("hostname").partition(".")[0],
        cpus=int(one("cpus")),
        memory=hardware.usable_memory(one("memory")),
        free=int(free[3]) if len(free) > 3 and free[3].isdigit() else 0,
        processor=one("processor"),
        python=one("python"),
        claim=one("claim"),
        done=one("done"),
        rotated=bool(one("rotated")),
        exports=bool(one("exports")),
        cgroups={"cpuset", "memory"} <= set(one("cgroup").split()),
        slurm=one("slurm"),
        host_keys=tuple(" ".join(key.split()[:2]) for key in lines.get("key", ()) if key),
        units=units,
        gpus=gpus,
        notes=notes,
    )
