"""What every cluster's settings have, and those of clusters that clusterkit sets up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from clusterkit.cluster.fields import (
    Cpus,
    FilePath,
    HostText,
    Login,
    Memory,
    PartitionConf,
    PythonVersion,
    Seconds,
    SlurmConf,
    User,
)
from clusterkit.cluster.values import default_user


def section(value: object) -> object:
    """A section whose lines are all commented out is an empty one."""
    return {} if value is None else value


def _listed(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class Model(BaseModel):
    """Strict: a text is no number, and a key that nobody knows is a problem."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class EnvironmentSpec(Model):
    """The Python that tasks use, where clusterkit makes it on the cluster."""

    python: PythonVersion = Field(
        default=None, description='Version of Python, in quotes, such as "3.12".'
    )
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
    environment: Annotated[EnvironmentSpec, BeforeValidator(section)] = Field(
        default_factory=EnvironmentSpec, description="The Python that tasks use."
    )
    slurm: SlurmConf = Field(
        default_factory=dict,
        description="Settings merged into slurm.conf; null takes one of clusterkit's out.",
    )


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
    head: Annotated[Head, BeforeValidator(section)] = Field(
        default_factory=Head, description="The machine that SLURM is steered from."
    )
    workers: Mapping[str, Group | SshGroup]
    timeouts: Annotated[Timeouts, BeforeValidator(section)] = Field(
        default_factory=Timeouts, description="How long a start waits."
    )
