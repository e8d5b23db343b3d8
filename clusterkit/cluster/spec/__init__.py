"""The settings of one cluster, as typed values: the models of clusterkit.yaml.

A description of a field is what an editor shows for it (`clusterkit schema`). What is wrong with a
file, with line and key, is told by `config`; checks that need the disk are there too.

built    what every cluster has, and what clusters have that clusterkit sets up
own      machines of one's own, and somebody else's SLURM
clouds   machines that a cloud lets
"""

from __future__ import annotations

from collections.abc import Mapping

from clusterkit.cluster.spec.built import (
    Built,
    EnvironmentSpec,
    Group,
    Head,
    Model,
    Spec,
    SshGroup,
    Timeouts,
)
from clusterkit.cluster.spec.clouds import (
    CloudGroup,
    CloudHead,
    CloudSpec,
    CloudTimeouts,
    Ec2Group,
    Ec2Head,
    Ec2Spec,
    GceGroup,
    GceHead,
    GceSpec,
)
from clusterkit.cluster.spec.own import (
    AttachSpec,
    LocalSpec,
    NspawnSpec,
    SshHead,
    SshSpec,
)

__all__ = [
    "SPECS",
    "AttachSpec",
    "Built",
    "CloudGroup",
    "CloudHead",
    "CloudSpec",
    "CloudTimeouts",
    "Ec2Group",
    "Ec2Head",
    "Ec2Spec",
    "EnvironmentSpec",
    "GceGroup",
    "GceHead",
    "GceSpec",
    "Group",
    "Head",
    "LocalSpec",
    "Model",
    "NspawnSpec",
    "Spec",
    "SshGroup",
    "SshHead",
    "SshSpec",
    "Timeouts",
]

#: provider -> model
SPECS: Mapping[str, type[Spec]] = {
    "nspawn": NspawnSpec,
    "ssh": SshSpec,
    "ec2": Ec2Spec,
    "gce": GceSpec,
    "attach": AttachSpec,
    "local": LocalSpec,
}
