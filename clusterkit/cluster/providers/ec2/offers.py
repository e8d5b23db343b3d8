"""Machine types, and the subnets (and so the zones) that machines can be put in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from clusterkit.cluster.cloud.api import MachineType
from clusterkit.cluster.providers.ec2 import found, words
from clusterkit.cluster.providers.ec2.client import Client
from clusterkit.cluster.providers.ec2.words import ApiError
from clusterkit.errors import ClusterError, UsageError

#: How many types one DescribeInstanceTypes may name.
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Subnet:
    """`public`: machines in it get a public address unless told otherwise."""

    id: str
    zone: str
    vpc: str
    cidr: str
    public: bool


def machine_types(client: Client, names: Collection[str]) -> dict[str, MachineType]:
    """The types and the zones that have them.

    Raises UsageError that names all that the region does not have, with near names.
    """
    wanted = sorted(set(names))
    if not wanted:
        return {}
    zones: dict[str, set[str]] = {name: set() for name in wanted}
    for one in client.pages(
        "ec2",
        "DescribeInstanceTypeOfferings",
        "InstanceTypeOfferings",
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": wanted}],
    ):
        zones.setdefault(one["InstanceType"], set()).add(one["Location"])
    missing = [name for name in wanted if not zones[name]]
    if missing:
        raise UsageError(_unknown(client, missing))
    described: list[Mapping[str, object]] = []
    for start in range(0, len(wanted), _AT_ONCE):
        described += client.pages(
            "ec2",
            "DescribeInstanceTypes",
            "InstanceTypes",
            InstanceTypes=wanted[start : start + _AT_ONCE],
        )
    return {
        one.name: one
        for said in described
        for one in [found.machine_type(said, zones[str(said["InstanceType"])])]
    }


def _unknown(client: Client, missing: list[str]) -> str:
    known = {
        one["InstanceType"]
        for one in client.pages(
            "ec2", "DescribeInstanceTypeOfferings", "InstanceTypeOfferings", LocationType="region"
        )
    }
    told = "; ".join(f"{name}{_near(name, known)}" for name in missing)
    return f"{client.region} does not have these machine types: {told}"


def _near(name: str, known: Collection[str]) -> str:
    near = words.near(name, sorted(known)).removeprefix("; ")
    return f" ({near})" if near else ""


def subnets(client: Client, subnet: str | None) -> tuple[Subnet, ...]:
    """The one that the settings name, else those of the default VPC, one for each zone; by zone.

    Raises UsageError for an unknown one, ClusterError without a default VPC.
    """
    ask: dict[str, Any] = {"SubnetIds": [subnet]}
    if subnet is None:
        ask = {"Filters": [{"Name": "default-for-az", "Values": ["true"]}]}
    try:
        told = client.pages("ec2", "DescribeSubnets", "Subnets", **ask)
    except ApiError as error:
        if error.code.startswith("InvalidSubnetID"):
            raise UsageError(
                f"`subnet:` names {subnet}, which is not in {client.region} of this account "
                f"({error.said}) `aws ec2 describe-subnets` lists them."
            ) from error
        raise
    if not told:
        raise ClusterError(
            f"this account has no default VPC with subnets in {client.region}. "
            "`aws ec2 create-default-vpc` makes one (it costs nothing); or write a subnet of your "
            "own into the settings as `subnet:`."
        )
    made = {
        one["AvailabilityZone"]: Subnet(
            one["SubnetId"],
            one["AvailabilityZone"],
            one["VpcId"],
            one["CidrBlock"],
            bool(one.get("MapPublicIpOnLaunch")),
        )
        for one in sorted(told, key=lambda one: str(one["SubnetId"]), reverse=True)
    }
    return tuple(made[zone] for zone in sorted(made))
