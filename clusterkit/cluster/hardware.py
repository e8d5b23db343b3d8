"""What this machine has: processors one may use, memory, NVIDIA GPUs."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterkit.errors import CommandFailed
from clusterkit.transport import Local

NVIDIA_SMI = (
    "nvidia-smi", "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: SLURM's type for it ("tesla_v100"), its device file, its memory in MiB."""

    type: str
    device: str
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine. Memory in MiB, as SLURM may give it. `notes` say what was left out, and why."""

    hostname: str
    cpus: int
    memory: int
    gpus: tuple[Gpu, ...] = ()
    notes: tuple[str, ...] = ()


def this_machine(devices: Path = Path("/dev")) -> Hardware:
    found, notes = _gpus(devices)
    return Hardware(
        hostname=socket.gethostname().partition(".")[0],
        cpus=len(os.sched_getaffinity(0)),
        memory=usable_memory(Path("/proc/meminfo").read_text()),
        gpus=found,
        notes=notes,
    )


def usable_memory(meminfo: str) -> int:
    """MiB that jobs may have: 3 % less than the total.

    The rest is the system's; and a node that registers with less than slurm.conf says would be
    drained, which a kernel update alone could cause.
    """
    match = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    if match is None:
        raise ValueError("/proc/meminfo has no MemTotal")
    return int(match[1]) * 97 // 100 // 1024


def gpu_type(model: str) -> str:
    """A model's name as a GRES type: "NVIDIA A100-SXM4-40GB" -> "a100_sxm4_40gb".

    No ":" "," "(" or "=" may stay: they separate in GRES expressions.
    """
    word = re.sub(r"[^a-z0-9]+", "_", model.lower()).strip("_")
    return re.sub(r"^nvidia_(?:geforce_)?", "", word) or "gpu"


def parse_nvidia_smi(text: str) -> list[tuple[int, str, int | None]]:
    """Lines of NVIDIA_SMI as (index, model, MiB); memory is None where it says "[N/A]"."""
    found = []
    for line in text.splitlines():
        index, _, rest = line.partition(",")
        model, _, memory = rest.rpartition(",")
        if index.strip().isdigit() and model:
            size = memory.strip()
            found.append((int(index), model.strip(), int(size) if size.isdigit() else None))
    return sorted(found)


def gpus(
    listed: Sequence[tuple[int, str, int | None]], numbers: Collection[int], devices: str = "/dev"
) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """The GPUs that nvidia-smi lists, with the device files nvidia<number> that are there.

    Pure. Without a device file for each there are none, and a note says why.
    """
    there = sorted(numbers)
    if {index for index, _, _ in listed} <= set(there):
        chosen = [index for index, _, _ in listed]
    elif len(there) == len(listed):  # a container that was given some GPUs of its host
        chosen = there
    else:
        note = (
            f"no GPUs: nvidia-smi lists {len(listed)}, but {devices} has {len(there)} "
            "device files nvidia0, nvidia1, ... for them"
        )
        return (), (note,)
    return tuple(
        Gpu(gpu_type(model), f"{devices}/nvidia{number}", memory)
        for number, (_, model, memory) in zip(chosen, listed, strict=True)
    ), ()


def _gpus(devices: Path) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    if shutil.which(NVIDIA_SMI[0]) is None:
        return (), ()
    try:
        listed = parse_nvidia_smi(Local().run(NVIDIA_SMI, timeout=30).text)
    except CommandFailed as error:  # installed, but no driver is loaded or no GPU is there
        return (), (f"no GPUs: {error}",)
    names = (entry.name[6:] for entry in devices.glob("nvidia*"))
    return gpus(listed, [int(name) for name in names if name.isdigit()], str(devices))
