"""What a machine type's name tells."""

from __future__ import annotations

import pytest

from clusterkit.cluster.providers.gce.series import described


@pytest.mark.parametrize(
    ("name", "cpus", "memory", "arch", "gpus"),
    [
        ("e2-medium", 2, 0, "x86_64", 0),
        ("f1-micro", 1, 0, "x86_64", 0),
        ("n1-standard-8", 8, 0, "x86_64", 0),
        ("c3-standard-22-lssd", 22, 0, "x86_64", 0),
        ("c4a-highmem-16", 16, 0, "arm64", 0),
        ("t2a-standard-4", 4, 0, "arm64", 0),
        ("n2-custom-6-20480", 6, 20480, "x86_64", 0),
        ("custom-4-8192-ext", 4, 8192, "x86_64", 0),
        ("g2-standard-16", 16, 0, "x86_64", 1),
        ("g2-standard-48", 48, 0, "x86_64", 4),
        ("a2-highgpu-2g", 24, 0, "x86_64", 2),
        ("a2-megagpu-16g", 0, 0, "x86_64", 16),
        ("a3-highgpu-8g", 0, 0, "x86_64", 8),
        ("a3-megagpu-8g", 0, 0, "x86_64", 8),
        ("never-heard-of", 0, 0, "x86_64", 0),
    ],
)
def test_names(name: str, cpus: int, memory: int, arch: str, gpus: int) -> None:
    told = described(name)
    assert (told.name, told.cpus, told.memory, told.arch, told.gpus) == (
        name, cpus, memory, arch, gpus,
    )  # fmt: skip
