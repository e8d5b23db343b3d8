"""What the name of a machine type tells, where an endpoint has no list of types. Pure.

Names: cloud.google.com/compute/docs/machine-resource#naming. How much memory `standard` is differs
among series: it is not known here (0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from clusterkit.cluster.cloud.api import MachineType

#: Types that share a core, and have no number.
_SHARED: Mapping[str, int] = {
    "f1-micro": 1,
    "g1-small": 1,
    "e2-micro": 2,
    "e2-small": 2,
    "e2-medium": 2,
}
#: Series of Arm processors.
_ARM = ("t2a", "c4a", "n4a", "a4x")
#: Of the types whose number counts GPUs: cloud.google.com/compute/docs/gpus.
_WITH_GPUS = re.compile(r"a\d+x?-(?:[a-z]+)gpu-(\d+)g(-.+)?")
_A2_CPUS = 12
#: Of G2, the GPUs by the number of processors; the others have one.
_G2: Mapping[int, int] = {24: 2, 48: 4, 96: 8}


def described(name: str) -> MachineType:
    """What a type's name tells; numbers that it does not tell are 0."""
    series = name.partition("-")[0]
    arch = "arm64" if series in _ARM else "x86_64"
    custom = re.search(r"(?:^|-)custom-(\d+)-(\d+)(?:-ext)?$", name)
    if custom is not None:
        return MachineType(name, int(custom[1]), int(custom[2]), arch)
    own = _WITH_GPUS.fullmatch(name)
    if own is not None:
        cpus = _A2_CPUS * int(own[1]) if re.match(r"a2-(high|ultra)gpu-\d+g$", name) else 0
        return MachineType(name, cpus, 0, arch, gpus=int(own[1]))
    last = re.search(r"-(\d+)(?:-lssd|-metal)*$", name)
    cpus = int(last[1]) if last else _SHARED.get(name, 0)
    gpus = _G2.get(cpus, 1) if series == "g2" else 0
    return MachineType(name, cpus, 0, arch, gpus)
