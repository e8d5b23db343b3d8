"""What Google offers, made up after the real thing: regions, machine types, GPUs, images, quotas.

cloud.google.com/compute/docs: regions-zones, general-purpose-machines, gpus, images/os-details.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

REGIONS: Mapping[str, str] = {
    "us-central1": "abcf", "us-east1": "bcd", "us-west1": "abc", "europe-west1": "bcd",
    "europe-west4": "abc", "asia-east1": "abc",
}  # fmt: skip
ZONES = tuple(f"{region}-{letter}" for region, letters in REGIONS.items() for letter in letters)


@dataclass(frozen=True, slots=True)
class Gpu:
    """An accelerator type. `name` and `memory` (MiB) as nvidia-smi says them; `quota` its metric.

    `counts`: how many may be attached to an N1 machine; none where it comes with its own types.
    """

    type: str
    name: str
    memory: int
    quota: str
    counts: tuple[int, ...]
    most: int
    zones: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Type:
    """A machine type; `memory` in MiB. `gpu` is what it comes with."""

    name: str
    cpus: int
    memory: int
    arch: str = "X86_64"
    shared: bool = False
    gpu: str = ""
    gpus: int = 0
    zones: tuple[str, ...] = ZONES

    @property
    def family(self) -> str:
        return self.name.partition("-")[0]


@dataclass(frozen=True, slots=True)
class Image:
    """A public image. `login`: its default account; `cloud_init`: whether it reads user-data."""

    project: str
    family: str
    name: str
    disk: int = 10
    arch: str = "X86_64"
    cloud_init: bool = True
    login: str = "ubuntu"

    @property
    def driver(self) -> bool:
        """Whether NVIDIA's is in it."""
        return "-nvidia-" in self.family


def _zones(*patterns: str) -> tuple[str, ...]:
    return tuple(z for z in ZONES if any(fnmatch.fnmatchcase(z, one) for one in patterns))


_T4 = _zones("us-central1-?", "us-east1-[cd]", "us-west1-[ab]", "europe-*", "asia-east1-[ac]")
_V100 = _zones("us-central1-?", "us-west1-[ab]", "europe-west4-?", "asia-east1-c")
_P100 = _zones("us-central1-[cf]", "us-east1-[bc]", "us-west1-[ab]", "europe-west1-[bd]")
_P4 = _zones("us-central1-[ac]", "europe-west4-[bc]")
_L4 = _zones("us-central1-[abc]", "us-east1-?", "us-west1-?", "europe-*-[abc]", "asia-east1-?")
_A100 = _zones("us-central1-?", "us-east1-b", "us-west1-b", "europe-west4-[ab]")
_A100_80 = _zones("us-central1-[ac]", "europe-west4-a")
_H100 = _zones("us-central1-[ac]", "us-west1-[ab]", "europe-west4-b")

GPUS: Mapping[str, Gpu] = {
    one.type: one
    for one in (
        Gpu("nvidia-tesla-t4", "Tesla T4", 15360, "NVIDIA_T4_GPUS", (1, 2, 4), 4, _T4),
        Gpu("nvidia-tesla-v100", "Tesla V100-SXM2-16GB", 16384, "NVIDIA_V100_GPUS",
            (1, 2, 4, 8), 8, _V100),
        Gpu("nvidia-tesla-p100", "Tesla P100-PCIE-16GB", 16384, "NVIDIA_P100_GPUS",
            (1, 2, 4), 4, _P100),
        Gpu("nvidia-tesla-p4", "Tesla P4", 7680, "NVIDIA_P4_GPUS", (1, 2, 4), 4, _P4),
        Gpu("nvidia-l4", "NVIDIA L4", 23034, "NVIDIA_L4_GPUS", (), 8, _L4),
        Gpu("nvidia-tesla-a100", "NVIDIA A100-SXM4-40GB", 40960, "NVIDIA_A100_GPUS",
            (), 16, _A100),
        Gpu("nvidia-a100-80gb", "NVIDIA A100-SXM4-80GB", 81920, "NVIDIA_A100_80GB_GPUS",
            (), 8, _A100_80),
        Gpu("nvidia-h100-80gb", "NVIDIA H100 80GB HBM3", 81559, "NVIDIA_H100_GPUS", (), 8, _H100),
    )
}  # fmt: skip


def _types() -> Iterator[Type]:
    yield Type("f1-micro", 1, 614, shared=True)
    yield Type("g1-small", 1, 1740, shared=True)
    for name, memory in (("micro", 1), ("small", 2), ("medium", 4)):
        yield Type(f"e2-{name}", 2, memory * 1024, shared=True)
    sizes = {
        "e2": (2, 4, 8, 16, 32), "n2": (2, 4, 8, 16, 32, 48, 64, 80, 96, 128),
        "n2d": (2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 224), "c3": (4, 8, 22, 44, 88, 176),
    }  # fmt: skip
    for family, counts in sizes.items():
        for cpus in counts:
            yield Type(f"{family}-standard-{cpus}", cpus, cpus * 4096)
            if family != "e2" or cpus <= 16:
                yield Type(f"{family}-highmem-{cpus}", cpus, cpus * 8192)
            if cpus > 2 or family == "e2":
                yield Type(f"{family}-highcpu-{cpus}", cpus, cpus * 1024)
    for cpus in (1, 2, 4, 8, 16, 32, 64, 96):
        yield Type(f"n1-standard-{cpus}", cpus, cpus * 3840)
        if cpus > 1:
            yield Type(f"n1-highmem-{cpus}", cpus, cpus * 6656)
            yield Type(f"n1-highcpu-{cpus}", cpus, int(cpus * 921.6))
    for cpus in (4, 8, 16, 30, 60):
        yield Type(f"c2-standard-{cpus}", cpus, cpus * 4096)
    for cpus in (1, 2, 4, 8, 16, 32, 48, 60):
        yield Type(f"t2d-standard-{cpus}", cpus, cpus * 4096)
    arm = _zones("us-central1-[abf]", "europe-west4-?", "asia-east1-?")
    for cpus in (1, 2, 4, 8, 16, 32, 48):
        yield Type(f"t2a-standard-{cpus}", cpus, cpus * 4096, "ARM64", zones=arm)
    for cpus, gpus in ((4, 1), (8, 1), (12, 1), (16, 1), (24, 2), (32, 1), (48, 4), (96, 8)):
        name = f"g2-standard-{cpus}"
        yield Type(name, cpus, cpus * 4096, gpu="nvidia-l4", gpus=gpus, zones=_L4)
    for gpus in (1, 2, 4, 8):
        cpus, gpu = 12 * gpus, "nvidia-tesla-a100"
        yield Type(f"a2-highgpu-{gpus}g", cpus, 85 * gpus * 1024, gpu=gpu, gpus=gpus, zones=_A100)
        name, gpu = f"a2-ultragpu-{gpus}g", "nvidia-a100-80gb"
        yield Type(name, cpus, 170 * gpus * 1024, gpu=gpu, gpus=gpus, zones=_A100_80)
    name, gpu = "a3-highgpu-8g", "nvidia-h100-80gb"
    yield Type(name, 208, 1872 * 1024, gpu=gpu, gpus=8, zones=_H100)


TYPES: Mapping[str, Type] = {one.name: one for one in _types()}

_UBUNTU, _DEBIAN, _DEEP = "ubuntu-os-cloud", "debian-cloud", "deeplearning-platform-release"
IMAGES = (
    Image(_UBUNTU, "ubuntu-2404-lts-amd64", "ubuntu-2404-noble-amd64-v20261022"),
    Image(_UBUNTU, "ubuntu-2404-lts-amd64", "ubuntu-2404-noble-amd64-v20260914"),
    Image(_UBUNTU, "ubuntu-2404-lts-arm64", "ubuntu-2404-noble-arm64-v20261022", arch="ARM64"),
    Image(_UBUNTU, "ubuntu-2204-lts", "ubuntu-2204-jammy-v20261020"),
    Image(_UBUNTU, "ubuntu-2204-lts-arm64", "ubuntu-2204-jammy-arm64-v20261020", arch="ARM64"),
    Image(_UBUNTU, "ubuntu-minimal-2404-lts-amd64", "ubuntu-minimal-2404-noble-amd64-v20261023"),
    Image(_DEBIAN, "debian-12", "debian-12-bookworm-v20261013", cloud_init=False, login="debian"),
    Image(_DEBIAN, "debian-12-arm64", "debian-12-bookworm-arm64-v20261013", arch="ARM64",
          cloud_init=False, login="debian"),
    Image(_DEEP, "common-cu128-ubuntu-2204-nvidia-570",
          "common-cu128-ubuntu-2204-nvidia-570-v20260925", 50),
    Image(_DEEP, "common-cu129-ubuntu-2404-nvidia-580",
          "common-cu129-ubuntu-2404-nvidia-580-v20260925", 50),
    Image(_DEEP, "pytorch-2-7-cu128-ubuntu-2204-nvidia-570",
          "pytorch-2-7-cu128-ubuntu-2204-nvidia-570-v20260925", 50),
)  # fmt: skip

DISK_TYPES = ("pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced")
#: Families that know no pd-standard.
NO_STANDARD_DISKS = ("c3", "g2", "a3")

#: What a project may use where `quotas` says nothing: in each region, and in all of them ("").
REGION_QUOTAS: dict[str, float] = {
    "CPUS": 256, "N2_CPUS": 256, "N2D_CPUS": 256, "C2_CPUS": 256, "C3_CPUS": 256,
    "T2D_CPUS": 256, "T2A_CPUS": 256, "A2_CPUS": 256, "PREEMPTIBLE_CPUS": 0, "INSTANCES": 2400,
    "DISKS_TOTAL_GB": 40960, "SSD_TOTAL_GB": 40960, "HDB_TOTAL_GB": 500, "IN_USE_ADDRESSES": 256,
    "STATIC_ADDRESSES": 8, "PREEMPTIBLE_NVIDIA_H100_GPUS": 16,
}  # fmt: skip
for _gpu in GPUS.values():
    if "H100" not in _gpu.quota:  # Google's enumeration of metrics has only the preemptible ones
        REGION_QUOTAS |= {_gpu.quota: 16, f"PREEMPTIBLE_{_gpu.quota}": 16}
GLOBAL_QUOTAS: dict[str, float] = {
    "GPUS_ALL_REGIONS": 32, "CPUS_ALL_REGIONS": 512, "FIREWALLS": 100, "NETWORKS": 5, "IMAGES": 100,
    "SNAPSHOTS": 1000,
}  # fmt: skip


def cpu_quota(family: str) -> str:
    """The metric that the processors of a family count against."""
    metric = f"{family.upper()}_CPUS"
    return metric if metric in REGION_QUOTAS else "CPUS"


def region_of(zone: str) -> str:
    return zone.rpartition("-")[0]
