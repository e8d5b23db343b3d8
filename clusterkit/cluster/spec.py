"""The settings of one cluster, as typed values: the models of clusterkit.yaml.

A description of a field is what an editor shows for it (`clusterkit schema`). What is wrong with a
file, with line and key, is told by `config`; checks that need the disk are there too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from clusterkit.cluster import cloud_values, slurm_keys, values
from clusterkit.cluster.fields import (
    TEXT,
    Cidrs,
    Cpus,
    Decided,
    Disk,
    Ec2Image,
    Ec2Region,
    Ec2Subnet,
    Ec2Types,
    Ec2Zones,
    FilePath,
    GceEndpoint,
    GceImage,
    GceNetwork,
    GceProject,
    GceRegion,
    GceRun,
    GceSubnetwork,
    GceTypes,
    GceZones,
    GroupName,
    HostText,
    Login,
    LoginNode,
    Memory,
    Mirror,
    OwnAddress,
    PartitionConf,
    PrivateNetwork,
    Profile,
    PythonVersion,
    Seconds,
    SlurmConf,
    Types,
    User,
    Zones,
    optional,
    text_schema,
)
from clusterkit.cluster.slurm_keys import Scalar
from clusterkit.cluster.values import Host, default_user


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
        dict[str, Annotated[str, BeforeValidator(values.host_key), WithJsonSchema(TEXT)]],
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


_TYPES = "Machine types in order: the first that can be had is taken, such as [g5.xlarge]."
_ZONES = "Zones in order, or any."
_DECIDED = "Not to be set: the machine type decides."
_DISK = "Its disk, such as 30G or a number of GiB; unless told, what the image needs."


class CloudTimeouts(Timeouts):
    """Bounds of waiting; a number is seconds."""

    boot: Seconds = Field(
        default=300, description="Until a machine that was launched answers by ssh, such as 5m."
    )


class CloudHead(Head):
    """A head that a cloud lets."""

    cpus: Decided = Field(default=None, description=_DECIDED)
    memory: Decided = Field(default=None, description=_DECIDED)
    types: Types = Field(description=_TYPES)
    zones: Zones = Field(default=(), description=_ZONES)
    market: Literal["spot", "on-demand"] = Field(
        default="on-demand",
        description="spot: cheaper, and the cloud may take it away, with all that is on it.",
    )
    disk: Disk = Field(default=None, description=_DISK)


class CloudGroup(Group):
    """Machines of one kind that a cloud lets; a SLURM partition. Disk in GiB."""

    cpus: Decided = Field(default=None, description=_DECIDED)
    memory: Decided = Field(default=None, description=_DECIDED)
    gpus: int = Field(
        default=0,
        ge=0,
        le=64,
        description="GPUs that each has to have; unless told, those of the type that was had.",
    )
    types: Types = Field(description=_TYPES)
    zones: Zones = Field(default=(), description=_ZONES)
    market: Literal["spot", "on-demand", "spot-then-on-demand"] = Field(
        default="on-demand",
        description="spot: cheaper, and the cloud may take them away; their jobs run again.",
    )
    disk: Disk = Field(default=None, description=_DISK)
    min: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="So many are enough where `count` cannot be had; unless told, all or none.",
    )
    placement: bool = Field(
        default=False,
        description="Put them close together in one zone, for training on several nodes.",
    )


class CloudSpec(Built):
    """Machines that a cloud lets. Everything that all clouds have in common."""

    region: str | None = Field(
        default=None, description="The region; unless told, that of your settings for the cloud."
    )
    connect: Literal["public", "private"] = Field(
        default="public",
        description="Which of the machines' addresses to use; private: from inside, or by VPN.",
    )
    allow: Cidrs = Field(
        default=(), description="Others who may come in by ssh, such as [203.0.113.0/24]."
    )
    own_address: OwnAddress = Field(
        default="auto",
        description="Your own IPv4 address, which may come in, or a page that answers with it.",
    )
    image: str = Field(description="What the machines run.")
    saved_image: Literal["auto", "off"] = Field(
        default="auto", description="auto: start from an image that `image save` made, if it fits."
    )
    head: CloudHead = Field(description="The machine that SLURM is steered from.")
    workers: Mapping[str, CloudGroup]
    timeouts: Annotated[CloudTimeouts, BeforeValidator(_section)] = Field(
        default_factory=CloudTimeouts, description="How long a start waits."
    )

    #: A region that every account has, which tells of the others.
    some_region: ClassVar[str]

    @staticmethod
    def zone_region(zone: str) -> str:
        """The region that a zone belongs to, "" for what is no zone."""
        raise NotImplementedError

    @property
    def access(self) -> tuple[object, ...]:
        """What the settings say of whose credentials are used, and where."""
        return ()

    def at(self, region: str | None, account: str | None = None) -> Self:
        """The same in this region, of the account that a cluster was made in."""
        del account
        return self.model_copy(update={"region": region})


class Ec2Head(CloudHead):
    """A head on EC2."""

    types: Ec2Types = Field(description=_TYPES)
    zones: Ec2Zones = Field(default=(), description=_ZONES)


class Ec2Group(CloudGroup):
    """EC2 instances of one kind; a SLURM partition. Disk in GiB."""

    types: Ec2Types = Field(description=_TYPES)
    zones: Ec2Zones = Field(default=(), description=_ZONES)


class Ec2Spec(CloudSpec):
    """Instances of Amazon EC2."""

    provider: Literal["ec2"] = "ec2"
    some_region: ClassVar[str] = "us-east-1"
    zone_region = staticmethod(cloud_values.ec2_zone_region)
    region: Ec2Region = Field(
        default=None,
        description="Such as us-east-1; unless told, AWS_REGION's or your profile's.",
    )
    profile: Profile = Field(
        default=None,
        description="A profile of ~/.aws/config; unless told, AWS_PROFILE's or the default one.",
    )
    subnet: Ec2Subnet = Field(
        default=None,
        description="A subnet's id; unless told, the default VPC's subnets.",
    )
    image: Ec2Image = Field(
        default="ubuntu-24.04", description="What the machines run; or an id, ami-..."
    )
    head: Ec2Head = Field(description="The machine that SLURM is steered from.")
    workers: Annotated[dict[GroupName, Ec2Group], BeforeValidator(_section)] = Field(
        default_factory=dict, description="Groups of machines that run jobs; each is a partition."
    )

    @property
    def access(self) -> tuple[object, ...]:
        return (self.profile,)


_GCE_TYPES = (
    "Machine types in order: the first that can be had is taken. GPUs are attached to one of N1 "
    "with a +: n1-standard-8+nvidia-tesla-t4:1."
)


class GceHead(CloudHead):
    """A head on Google Compute Engine."""

    types: GceTypes = Field(description=_GCE_TYPES)
    zones: GceZones = Field(default=(), description=_ZONES)


class GceGroup(CloudGroup):
    """Google's machines of one kind; a SLURM partition. Disk in GiB."""

    types: GceTypes = Field(description=_GCE_TYPES)
    zones: GceZones = Field(default=(), description=_ZONES)


class GceSpec(CloudSpec):
    """Machines of Google Compute Engine."""

    provider: Literal["gce"] = "gce"
    some_region: ClassVar[str] = "us-central1"
    zone_region = staticmethod(cloud_values.gce_zone_region)
    region: GceRegion = Field(
        default=None,
        description="Such as us-central1; unless told, CLOUDSDK_COMPUTE_REGION's or gcloud's.",
    )
    project: GceProject = Field(
        default=None,
        description="A project's id; unless told, GOOGLE_CLOUD_PROJECT's or gcloud's.",
    )
    credentials: FilePath = Field(
        default=None,
        description="A key file of a service account; unless told, the application's default.",
    )
    endpoint: GceEndpoint = Field(
        default=None,
        description="Another Compute Engine than Google's, http://...; it is asked without login.",
    )
    network: GceNetwork = Field(
        default=None,
        description="A VPC network; unless told, that of `subnetwork`, or the one named default.",
    )
    subnetwork: GceSubnetwork = Field(
        default=None, description="A subnetwork of it; unless told, the region's own."
    )
    image: GceImage = Field(
        default="ubuntu-24.04", description="What the machines run; or family/NAME, or a name."
    )
    disk_type: Literal["auto", "pd-balanced", "pd-ssd", "pd-standard", "hyperdisk-balanced"] = (
        Field(
            default="auto",
            description="Kind of disks; auto: pd-balanced, or hyperdisk-balanced of newer types.",
        )
    )
    max_run: GceRun = Field(
        default=None,
        description="Google deletes each machine after so long, whatever happens, such as 2d.",
    )
    head: GceHead = Field(description="The machine that SLURM is steered from.")
    workers: Annotated[dict[GroupName, GceGroup], BeforeValidator(_section)] = Field(
        default_factory=dict, description="Groups of machines that run jobs; each is a partition."
    )

    @property
    def access(self) -> tuple[object, ...]:
        return (self.project, self.credentials, self.endpoint)

    def at(self, region: str | None, account: str | None = None) -> Self:
        return self.model_copy(update={"region": region, "project": self.project or account})


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


#: provider -> model
SPECS: Mapping[str, type[Spec]] = {
    "nspawn": NspawnSpec,
    "ssh": SshSpec,
    "ec2": Ec2Spec,
    "gce": GceSpec,
    "attach": AttachSpec,
    "local": LocalSpec,
}
