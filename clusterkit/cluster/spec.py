"""The settings of one cluster, as typed values: the models of clusterkit.yaml.

A description of a field is what an editor shows for it (`clusterkit schema`). What is wrong with a
file, with line and key, is told by `config`; checks that need the disk are there too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
)

from clusterkit.cluster import slurm_keys, values
from clusterkit.cluster.slurm_keys import Scalar
from clusterkit.cluster.values import Host, default_user


def _path(value: object, info: ValidationInfo) -> Path | None:
    folder = (info.context or {}).get("folder")
    return None if value is None else values.path(value, folder)


def _optional(check: Callable[[object], object]) -> Callable[[object], object]:
    return lambda value: None if value is None else check(value)


def _text_schema(*alternatives: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [*alternatives, {"type": "null"}]})


_MEASURE = {"type": "string", "pattern": r"^[0-9]+\s*[MGTmgt]?$"}
_TIME = {"type": "string", "pattern": r"^[0-9]+\s*[smhdSMHD]?$"}
_SCALARS = {"type": ["string", "number", "boolean", "null"]}
_TEXT = {"type": "string", "minLength": 1}

Memory = Annotated[
    int | None,
    BeforeValidator(_optional(values.memory)),
    _text_schema({"type": "integer", "minimum": 1}, _MEASURE),
]
Seconds = Annotated[
    int,
    BeforeValidator(values.duration),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, _TIME]}),
]
FilePath = Annotated[Path | None, BeforeValidator(_path), _text_schema(_TEXT)]
User = Annotated[
    str,
    BeforeValidator(values.user),
    WithJsonSchema({"type": "string", "pattern": f"^{values.ACCOUNT}$"}),
]
Login = Annotated[
    str | None,
    BeforeValidator(_optional(values.account)),
    _text_schema({"type": "string", "pattern": f"^{values.ACCOUNT}$"}),
]
HostText = Annotated[str, BeforeValidator(values.host_text), WithJsonSchema(_TEXT)]
SlurmConf = Annotated[
    dict[str, Scalar],
    BeforeValidator(slurm_keys.settings),
    WithJsonSchema({"type": ["object", "null"], "additionalProperties": _SCALARS}),
]
PartitionConf = Annotated[
    dict[str, Scalar],
    BeforeValidator(slurm_keys.partition),
    WithJsonSchema({"type": ["object", "null"], "additionalProperties": _SCALARS}),
]
GroupName = Annotated[
    str,
    BeforeValidator(values.group_name),
    WithJsonSchema({"type": "string", "pattern": f"^{values.GROUP_NAME}$"}),
]
Cpus = Annotated[int | None, Field(ge=1, le=65_000)]


def _section(value: object) -> object:
    """A section whose lines are all commented out is an empty one."""
    return {} if value is None else value


def _listed(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class Model(BaseModel):
    """Strict: a text is no number, and a key that nobody knows is a problem."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class EnvironmentSpec(Model):
    """The Python that tasks use, where clusterkit makes it on the cluster."""

    python: Annotated[
        str | None, BeforeValidator(_optional(values.version)), _text_schema(_TEXT)
    ] = Field(default=None, description='Version of Python, in quotes, such as "3.12".')
    requirements: FilePath = Field(
        default=None,
        description="A requirements.txt, uv.lock or pyproject.toml with the tasks' packages.",
    )


class Timeouts(Model):
    """Bounds of waiting; a number is seconds."""

    boot: Seconds = Field(
        default=120, description="Until a machine that was switched on answers by ssh, such as 2m."
    )
    setup: Seconds = Field(
        default=1800, description="For the whole set-up of all machines, such as 30m."
    )


class Head(Model):
    """The machine that SLURM is steered from, and where one logs in."""

    cpus: Cpus = Field(default=None, description="Processors; unless told, all that it has.")
    memory: Memory = Field(
        default=None, description="Memory, such as 8G; unless told, all that it has."
    )
    worker: bool = Field(default=False, description="Whether the head runs jobs too.")


class Group(Model):
    """Machines of one kind; a SLURM partition. Memory in MiB."""

    count: int = Field(ge=0, le=10_000, description="How many machines.")
    cpus: Cpus = Field(
        default=None, description="Processors of each; unless told, all that it has."
    )
    memory: Memory = Field(
        default=None, description="Memory of each, such as 8G; unless told, all that it has."
    )
    gpus: int = Field(
        default=0,
        ge=0,
        le=64,
        description="GPUs that each has to have; with fewer the start fails.",
    )
    slurm: PartitionConf = Field(
        default_factory=dict, description="Settings of the partition, such as MaxTime: 60."
    )


class SshHead(Head):
    """A head that is there already."""

    host: HostText = Field(description="Its name or address, as host, user@host or host:22.")


class SshGroup(Model):
    """Machines that are there already; a SLURM partition. Memory in MiB."""

    hosts: Annotated[tuple[HostText, ...], BeforeValidator(_listed)] = Field(
        min_length=1, description="Their names or addresses, as host, user@host or host:22."
    )
    cpus: Cpus = Field(
        default=None, description="Processors of each; unless told, all that it has."
    )
    memory: Memory = Field(
        default=None, description="Memory of each, such as 8G; unless told, all that it has."
    )
    gpus: int = Field(
        default=0,
        ge=0,
        le=64,
        description="GPUs that each has to have; with fewer the start fails.",
    )
    slurm: PartitionConf = Field(
        default_factory=dict, description="Settings of the partition, such as MaxTime: 60."
    )

    @property
    def count(self) -> int:
        return len(self.hosts)


class Spec(Model):
    """What every cluster has, whoever gives its machines."""

    provider: str
    environment: Annotated[EnvironmentSpec, BeforeValidator(_section)] = Field(
        default_factory=EnvironmentSpec, description="The Python that tasks use."
    )
    slurm: SlurmConf = Field(
        default_factory=dict,
        description="Settings merged into slurm.conf; null takes one of clusterkit's out.",
    )


class LocalSpec(Spec):
    """SLURM on this machine, as the calling user."""

    provider: Literal["local"] = "local"


class Built(Spec):
    """A cluster whose machines clusterkit sets up."""

    user: User = Field(
        default_factory=default_user,
        description="The account that jobs run as; unless told, yours.",
    )
    uid: int = Field(default=5000, ge=1000, le=2**31 - 2, description="That account's number.")
    login: Login = Field(
        default=None,
        description="The account to set machines up with; unless told, the image's usual one.",
    )
    key: FilePath = Field(
        default=None,
        description="Your private key for ssh; unless told, one is made for the cluster.",
    )
    shared: Literal["auto", "nfs", "there"] = Field(
        default="auto",
        description="/home on all machines: nfs exports the head's, there: it is shared already.",
    )
    accounting: bool = Field(
        default=True, description="Whether SLURM keeps a database of jobs (sacct)."
    )
    head: Annotated[Head, BeforeValidator(_section)] = Field(
        default_factory=Head, description="The machine that SLURM is steered from."
    )
    workers: Mapping[str, Group | SshGroup]
    timeouts: Annotated[Timeouts, BeforeValidator(_section)] = Field(
        default_factory=Timeouts, description="How long a start waits."
    )


class NspawnSpec(Built):
    """Machines that this Linux host boots itself, with systemd-nspawn."""

    provider: Literal["nspawn"] = "nspawn"
    image: Literal["debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04"] = Field(
        default="debian-12", description="What the machines run."
    )
    mirror: Annotated[
        str | None, BeforeValidator(_optional(values.mirror)), _text_schema(_TEXT)
    ] = Field(
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
    network: Annotated[
        str | None, BeforeValidator(_optional(values.network)), _text_schema(_TEXT)
    ] = Field(
        default=None,
        description="A private IPv4 network such as 10.111.5.0/24; unless told, a free one.",
    )
    workers: Annotated[dict[GroupName, Group], BeforeValidator(_section)] = Field(
        default_factory=dict, description="Groups of machines that run jobs; each is a partition."
    )


class SshSpec(Built):
    """Machines that are there already and are reached by ssh."""

    provider: Literal["ssh"] = "ssh"
    head: SshHead = Field(description="The machine that SLURM is steered from.")
    workers: Annotated[dict[GroupName, SshGroup], BeforeValidator(_section)] = Field(
        default_factory=dict, description="Groups of machines that run jobs; each is a partition."
    )
    host_keys: Annotated[
        dict[str, Annotated[str, BeforeValidator(values.host_key), WithJsonSchema(_TEXT)]],
        BeforeValidator(_section),
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
    host: Annotated[
        str | None, BeforeValidator(_optional(values.host_text)), _text_schema(_TEXT)
    ] = Field(
        default=None,
        description="Its login node, as your ~/.ssh/config knows it; unless told, this machine.",
    )
    root: Annotated[str, BeforeValidator(values.remote_path), WithJsonSchema(_TEXT)] = Field(
        default="~/clusterkit",
        description="Folder there for experiments; all its nodes have to see it.",
    )
    python: Annotated[
        str,
        BeforeValidator(lambda value: values.text(value, "a command or path of Python")),
        WithJsonSchema(_TEXT),
    ] = Field(
        default="python3", description="A Python 3.9 or newer there, for clusterkit's own part."
    )
    slurm_conf: Annotated[
        str | None, BeforeValidator(_optional(values.absolute_path)), _text_schema(_TEXT)
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


#: provider -> model
SPECS: Mapping[str, type[Spec]] = {
    "nspawn": NspawnSpec,
    "ssh": SshSpec,
    "attach": AttachSpec,
    "local": LocalSpec,
}
