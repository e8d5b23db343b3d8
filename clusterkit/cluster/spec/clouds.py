"""Settings of clusters whose machines a cloud lets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field

from clusterkit.cluster import cloud_values
from clusterkit.cluster.fields import (
    Cidrs,
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
    OwnAddress,
    Profile,
    Seconds,
    Types,
    Zones,
)
from clusterkit.cluster.spec.built import Built, Group, Head, Timeouts, section

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
    timeouts: Annotated[CloudTimeouts, BeforeValidator(section)] = Field(
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
    workers: Annotated[dict[GroupName, Ec2Group], BeforeValidator(section)] = Field(
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

    count: int = Field(
        ge=0, le=1000, description="How many machines; Google makes 1000 of a kind at once."
    )
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
    workers: Annotated[dict[GroupName, GceGroup], BeforeValidator(section)] = Field(
        default_factory=dict, description="Groups of machines that run jobs; each is a partition."
    )

    @property
    def access(self) -> tuple[object, ...]:
        return (self.project, self.credentials, self.endpoint)

    def at(self, region: str | None, account: str | None = None) -> Self:
        return self.model_copy(update={"region": region, "project": self.project or account})
