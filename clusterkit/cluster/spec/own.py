"""Settings of clusters on machines of one's own, or of somebody else's SLURM."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from clusterkit.cluster import slurm_keys, values
from clusterkit.cluster.fields import (
    TEXT,
    FilePath,
    GroupName,
    HostText,
    LoginNode,
    Mirror,
    PrivateNetwork,
    optional,
    text_schema,
)
from clusterkit.cluster.slurm_keys import Scalar
from clusterkit.cluster.spec.built import Built, Group, Head, Spec, SshGroup, section
from clusterkit.cluster.values import Host


class LocalSpec(Spec):
    """SLURM on this machine, as the calling user."""

    provider: Literal["local"] = "local"


class SshHead(Head):
    """A head that is there already."""

    host: HostText = Field(description="Its name or address, as host, user@host or host:22.")


class NspawnSpec(Built):
    """Machines that this Linux host boots itself, with systemd-nspawn."""

    provider: Literal["nspawn"] = "nspawn"
    image: Literal["debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04"] = Field(
        default="debian-12", description="What the machines run."
    )
    mirror: Mirror = Field(
        default=None,
        description="Where packages come from; unless told, the distribution's mirror.",
    )
    prepared: bool = Field(
        default=True,
        description="Keep an image with SLURM's packages in it, so that later starts are fast.",
    )
    images: FilePath = Field(
        default=None, description="The folder of images; unless told, /var/lib/clusterkit/images."
    )
    network: PrivateNetwork = Field(
        default=None,
        description="A private IPv4 network such as 10.111.5.0/24; unless told, a free one.",
    )
    workers: Annotated[dict[GroupName, Group], BeforeValidator(section)] = Field(
        default_factory=dict, description="Groups of machines that run jobs; each is a partition."
    )


class SshSpec(Built):
    """Machines that are there already and are reached by ssh."""

    provider: Literal["ssh"] = "ssh"
    head: SshHead = Field(description="The machine that SLURM is steered from.")
    workers: Annotated[dict[GroupName, SshGroup], BeforeValidator(section)] = Field(
        default_factory=dict, description="Groups of machines that run jobs; each is a partition."
    )
    host_keys: Annotated[
        dict[str, Annotated[str, BeforeValidator(values.host_key), WithJsonSchema(TEXT)]],
        BeforeValidator(section),
    ] = Field(
        default_factory=dict,
        description="Public host keys, host: ssh-ed25519 AAAA...; unless told, your known_hosts'.",
    )

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The head's, then those of the groups in order."""
        names = [self.head.host, *(name for group in self.workers.values() for name in group.hosts)]
        return tuple(map(values.host, names))


class AttachSpec(Spec):
    """A SLURM that somebody else runs; nothing is installed on it."""

    provider: Literal["attach"] = "attach"
    slurm: Annotated[
        dict[str, Scalar],
        BeforeValidator(slurm_keys.nothing),
        WithJsonSchema({"type": ["object", "null"], "maxProperties": 0}),
    ] = Field(default_factory=dict, description="Empty: its slurm.conf is somebody else's.")
    host: LoginNode = Field(
        default=None,
        description="Its login node, as your ~/.ssh/config knows it; unless told, this machine.",
    )
    root: Annotated[str, BeforeValidator(values.remote_path), WithJsonSchema(TEXT)] = Field(
        default="~/clusterkit",
        description="Folder there for experiments; all its nodes have to see it.",
    )
    python: Annotated[
        str,
        BeforeValidator(lambda value: values.text(value, "a command or path of Python")),
        WithJsonSchema(TEXT),
    ] = Field(
        default="python3", description="A Python 3.9 or newer there, for clusterkit's own part."
    )
    slurm_conf: Annotated[
        str | None, BeforeValidator(optional(values.absolute_path)), text_schema(TEXT)
    ] = Field(
        default=None,
        description="Its slurm.conf, where SLURM's commands do not find it themselves.",
    )
    sbatch: Annotated[
        dict[str, str],
        BeforeValidator(slurm_keys.sbatch),
        WithJsonSchema(
            {"type": ["object", "null"], "additionalProperties": {"type": ["string", "integer"]}}
        ),
    ] = Field(
        default_factory=dict,
        description="Options that every job is submitted with, such as account and partition.",
    )
