"""What one account has in one region: things as EC2 describes them, in dictionaries.

Keys that begin with "_" are the double's own; the serializer, which only knows AWS's, leaves them
out. One lock of `Aws` is held by whoever reads or changes a world.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import ipaddress
import itertools
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from moto.ec2.models import ec2_backends

from doubles.aws.wire import AwsError

if TYPE_CHECKING:
    from doubles.aws import Aws

Thing = dict[str, Any]
Params = Mapping[str, Any]
Handler = Callable[["World", Params], Thing]

#: "service:Action" -> what does it. What is not here, moto does.
ACTIONS: dict[str, Handler] = {}

#: kind -> (the key of its id, how ids begin, the code for an unknown one, the words for it)
KINDS = {
    "instance": ("InstanceId", "i-", "InvalidInstanceID.NotFound", "The instance ID"),
    "volume": ("VolumeId", "vol-", "InvalidVolume.NotFound", "The volume"),
    "network-interface": (
        "NetworkInterfaceId", "eni-", "InvalidNetworkInterfaceID.NotFound",
        "The networkInterface ID",
    ),
    "security-group": ("GroupId", "sg-", "InvalidGroup.NotFound", "The security group"),
    "security-group-rule": (
        "SecurityGroupRuleId", "sgr-", "InvalidSecurityGroupRuleId.NotFound",
        "The security group rule ID",
    ),
    "key-pair": ("KeyPairId", "key-", "InvalidKeyPair.NotFound", "The key pair ID"),
    "placement-group": (
        "GroupId", "pg-", "InvalidPlacementGroup.Unknown", "The Placement Group",
    ),
    "image": ("ImageId", "ami-", "InvalidAMIID.NotFound", "The image id"),
    "snapshot": ("SnapshotId", "snap-", "InvalidSnapshot.NotFound", "The snapshot"),
    "spot-instances-request": (
        "SpotInstanceRequestId", "sir-", "InvalidSpotInstanceRequestID.NotFound",
        "The spot instance request ID",
    ),
    "subnet": ("SubnetId", "subnet-", "InvalidSubnetID.NotFound", "The subnet ID"),
    "vpc": ("VpcId", "vpc-", "InvalidVpcID.NotFound", "The vpc ID"),
}  # fmt: skip
#: Filters whose values are not at the place that their name says.
_FILTERS: dict[str, dict[str, str]] = {
    "instance": {
        "instance-state-name": "State.Name",
        "instance-state-code": "State.Code",
        "availability-zone": "Placement.AvailabilityZone",
        "placement-group-name": "Placement.GroupName",
        "instance.group-id": "SecurityGroups.GroupId",
        "instance.group-name": "SecurityGroups.GroupName",
        "ip-address": "PublicIpAddress",
        "network-interface.network-interface-id": "NetworkInterfaces.NetworkInterfaceId",
        "block-device-mapping.volume-id": "BlockDeviceMappings.Ebs.VolumeId",
        "reservation-id": "_reservation",
        "owner-id": "_owner",
        "dns-name": "PublicDnsName",
    },
    "volume": {
        "status": "State",
        "attachment.instance-id": "Attachments.InstanceId",
        "attachment.status": "Attachments.State",
        "attachment.delete-on-termination": "Attachments.DeleteOnTermination",
    },
    "network-interface": {
        "attachment.instance-id": "Attachment.InstanceId",
        "attachment.status": "Attachment.Status",
        "group-id": "Groups.GroupId",
        "group-name": "Groups.GroupName",
    },
    "security-group": {
        "ip-permission.cidr": "IpPermissions.IpRanges.CidrIp",
        "ip-permission.from-port": "IpPermissions.FromPort",
    },
    "key-pair": {"fingerprint": "KeyFingerprint"},
    "image": {
        "owner-alias": "ImageOwnerAlias",
        "is-public": "Public",
        "block-device-mapping.snapshot-id": "BlockDeviceMappings.Ebs.SnapshotId",
    },
    "snapshot": {"status": "State"},
    "spot-instances-request": {
        "status-code": "Status.Code",
        "launch.instance-type": "LaunchSpecification.InstanceType",
        "launched-availability-zone": "LaunchedAvailabilityZone",
    },
    "subnet": {"default-for-az": "DefaultForAz", "cidr-block": "CidrBlock"},
    "vpc": {"is-default": "IsDefault", "isDefault": "IsDefault", "cidr": "CidrBlock"},
}
#: Documentation's own ranges (RFC 5737): an address of the double leads nowhere.
_PUBLIC = [*ipaddress.ip_network("203.0.113.0/24").hosts()]
_PUBLIC += [*ipaddress.ip_network("198.51.100.0/24").hosts()]


def action(*names: str) -> Callable[[Handler], Handler]:
    def keep(handler: Handler) -> Handler:
        for name in names:
            ACTIONS[name if ":" in name else f"ec2:{name}"] = handler
        return handler

    return keep


class World:
    """One account's things in one region."""

    def __init__(self, aws: Aws, account: str, region: str) -> None:
        self.aws = aws
        self.account = account
        self.region = region
        self.things: dict[str, dict[str, Thing]] = {kind: {} for kind in KINDS}
        self.tokens: dict[str, tuple[Params, str]] = {}  # ClientToken -> request, reservation
        self.freed: dict[str, float] = {}  # private address -> since when it is free
        self._public = itertools.cycle(_PUBLIC)
        # moto's own catalogue of the region; never changed.
        self.moto: Any = ec2_backends["123456789012"][region]
        self._network()

    # -- things ---------------------------------------------------------------------------------

    def new_id(self, kind: str) -> str:
        return KINDS[kind][1] + secrets.token_hex(9)[:17]

    def add(self, kind: str, thing: Thing, tags: Iterable[Mapping[str, str]] = ()) -> Thing:
        key = KINDS[kind][0]
        thing.setdefault(key, self.new_id(kind))
        thing["Tags"] = checked_tags(tags)
        thing["_hidden"] = self.aws.lag
        thing["_made"] = time.monotonic()
        self.things[kind][thing[key]] = thing
        return thing

    def get(self, kind: str, id_: str) -> Thing:
        """Raises AwsError as AWS does for an unknown one."""
        self.settle()
        found = self.things[kind].get(id_)
        if found is None:
            raise unknown(kind, [id_])
        return found

    def all(self, kind: str) -> list[Thing]:
        return list(self.things[kind].values())

    def describe(
        self,
        kind: str,
        params: Params,
        ids: str = "",
        among: Sequence[Thing] | None = None,
        named: Mapping[str, str] | None = None,
    ) -> list[Thing]:
        """The visible things that the parameters select.

        `ids`: the parameter that names ids; `named`: of others, the key that they name.
        """
        self.settle()
        for said in params.get("Filters") or ():
            _path(kind, said["Name"])  # a wrong one is refused also where there is nothing
        seen = []
        for thing in self.all(kind) if among is None else among:
            if thing.get("_hidden", 0) > 0:
                thing["_hidden"] -= 1
            else:
                seen.append(thing)
        for param, key in ((ids, KINDS[kind][0]), *(named or {}).items()):
            wanted = list(params.get(param) or ())
            if not wanted:
                continue
            if key == KINDS[kind][0]:
                for one in wanted:
                    _well_formed(kind, one)
            there = {thing.get(key) for thing in seen}
            missing = [one for one in wanted if one not in there]
            if missing:
                raise unknown(kind, missing, by_name=key != KINDS[kind][0])
            seen = [thing for thing in seen if thing.get(key) in wanted]
        return [one for one in seen if matches(kind, one, params.get("Filters") or ())]

    def settle(self) -> None:
        """What was to happen by now has happened."""
        now = time.monotonic()
        for thing in [one for kind in KINDS for one in self.all(kind) if "_due" in one]:
            due, act = thing["_due"]
            if now >= due:
                del thing["_due"]
                act()

    # -- the network ----------------------------------------------------------------------------

    @property
    def vpc(self) -> Thing:
        return next(iter(self.things["vpc"].values()))

    def zones(self) -> list[str]:
        return sorted(str(zone.name) for zone in self.moto.describe_availability_zones())

    def private_address(self, subnet: Thing) -> str:
        """A free address; one that was used comes again last. AWS keeps the first four and the last
        of a subnet (docs.aws.amazon.com/vpc, "Subnet CIDR blocks")."""
        net = ipaddress.ip_network(subnet["CidrBlock"])
        used = {one["PrivateIpAddress"] for one in self.all("network-interface")}
        rested: list[tuple[float, str]] = []
        for number in range(4, min(net.num_addresses - 1, 1024)):
            address = str(net[number])
            if address in used:
                continue
            if address not in self.freed:
                return address
            rested.append((self.freed[address], address))
        if not rested:
            raise AwsError(
                "InsufficientFreeAddressesInSubnet",
                f"There are not enough free addresses in subnet '{subnet['SubnetId']}' to satisfy "
                "the requested number of instances.",
            )
        return min(rested)[1]

    def public_address(self) -> str:
        used = {one.get("PublicIpAddress") for one in self.all("instance")}
        for _ in _PUBLIC:
            address = str(next(self._public))
            if address not in used:
                return address
        raise AwsError("InsufficientAddressCapacity", "no public addresses are left", 500)

    def _network(self) -> None:
        """The default VPC, its subnets (one a zone) and its default group, as every account has."""
        net = ipaddress.IPv4Network(self.aws.range)
        digest = hashlib.sha256(f"{self.account} {self.region}".encode()).hexdigest()
        vpc: Thing = {
            "VpcId": f"vpc-{digest[:17]}", "CidrBlock": str(net), "IsDefault": True,
            "State": "available", "OwnerId": self.account, "InstanceTenancy": "default",
        }  # fmt: skip
        self.things["vpc"][vpc["VpcId"]] = {**vpc, "Tags": []}
        pieces = net.subnets(new_prefix=max(20, net.prefixlen + 4))
        for zone, piece in zip(self.zones(), pieces, strict=False):
            one: Thing = {
                "SubnetId": f"subnet-{hashlib.sha256((digest + zone).encode()).hexdigest()[:17]}",
                "VpcId": vpc["VpcId"], "CidrBlock": str(piece), "AvailabilityZone": zone,
                "DefaultForAz": True, "MapPublicIpOnLaunch": True, "State": "available",
                "OwnerId": self.account, "AvailableIpAddressCount": piece.num_addresses - 5,
                "AssignIpv6AddressOnCreation": False, "Tags": [],
            }  # fmt: skip
            self.things["subnet"][str(one["SubnetId"])] = one
        group = {
            "GroupId": f"sg-{digest[-17:]}", "GroupName": "default", "VpcId": vpc["VpcId"],
            "Description": "default VPC security group", "OwnerId": self.account, "Tags": [],
        }  # fmt: skip
        self.things["security-group"][str(group["GroupId"])] = group


# -- parameters ------------------------------------------------------------------------------------


def tags_of(params: Params, kind: str, *allowed: str) -> list[Mapping[str, str]]:
    """The tags that a creating call gives to things of `kind`; kinds not `allowed` are refused."""
    found: list[Mapping[str, str]] = []
    for said in params.get("TagSpecifications") or ():
        if said.get("ResourceType") not in (kind, *allowed):
            raise AwsError(
                "InvalidParameterValue",
                f"'{said.get('ResourceType')}' is not a valid taggable resource type for this "
                "operation.",
            )
        if said["ResourceType"] == kind:
            found += said.get("Tags") or ()
    return found


def checked_tags(tags: Iterable[Mapping[str, str]]) -> list[Thing]:
    """Raises AwsError for what AWS refuses (docs.aws.amazon.com, "Tag restrictions")."""
    checked: dict[str, str] = {}
    for tag in tags:
        key, value = tag.get("Key", ""), tag.get("Value", "")
        if not key or len(key) > 127:
            words = f"Tag key exceeds the maximum length of 127 characters: '{key}'"
            raise AwsError("InvalidParameterValue", words)
        if len(value) > 255:
            words = f"Tag value exceeds the maximum length of 255 characters: '{value}'"
            raise AwsError("InvalidParameterValue", words)
        if key.lower().startswith("aws:"):
            words = "Tag keys starting with 'aws:' are reserved for internal use"
            raise AwsError("InvalidParameterValue", words)
        if key in checked:
            raise AwsError("InvalidParameterValue", f"Duplicate tag key '{key}' specified.")
        checked[key] = value
    if len(checked) > 50:
        raise AwsError("TagLimitExceeded", "The maximum number of tags (50) is exceeded.")
    return [{"Key": key, "Value": value} for key, value in checked.items()]


def unknown(kind: str, ids: Sequence[str], by_name: bool = False) -> AwsError:
    """What AWS says to ids that it does not know."""
    _, _, code, words = KINDS[kind]
    if kind == "image":
        return AwsError(code, f"The image id '[{', '.join(ids)}]' does not exist")
    if kind == "placement-group":
        return AwsError(code, f"The Placement Group '{ids[0]}' is unknown.")
    if kind == "key-pair" and by_name:
        return AwsError(code, f"The key pair '{ids[0]}' does not exist")
    if kind == "security-group" and by_name:
        return AwsError(code, f"The security group '{ids[0]}' does not exist in default VPC")
    if len(ids) > 1 and kind in ("instance", "spot-instances-request"):
        return AwsError(code, f"{words}s '{', '.join(ids)}' do not exist")
    return AwsError(code, f"{words} '{ids[0]}' does not exist")


def matches(kind: str, thing: Thing, filters: Iterable[Mapping[str, Any]]) -> bool:
    return all(_matches(kind, thing, one["Name"], one.get("Values") or ()) for one in filters)


def page(params: Params, things: list[Any], default: int) -> tuple[list[Any], str | None]:
    """One page of a listing, and the token of the next."""
    token = params.get("NextToken")
    try:
        begin = int(base64.b64decode(token)) if token else 0
    except ValueError:
        raise AwsError("InvalidNextToken", f"The token '{token}' is invalid") from None
    size = int(params.get("MaxResults") or default)
    end = begin + size
    more = base64.b64encode(str(end).encode()).decode() if end < len(things) else None
    return things[begin:end], more


def now() -> datetime:
    return datetime.now(UTC)


def stamp() -> str:
    return f"{now():%Y-%m-%d %H:%M:%S} GMT"


def _well_formed(kind: str, id_: str) -> None:
    if re.fullmatch(re.escape(KINDS[kind][1]) + r"[0-9a-z]{8,17}", id_):
        return
    code = KINDS[kind][2].partition(".")[0]
    if kind == "security-group":
        code = "InvalidGroupId"
    if kind == "image":
        words = f'Invalid id: "{id_}" (expecting "ami-...")'
    else:
        words = f'Invalid id: "{id_}"'
    raise AwsError(f"{code}.Malformed", words)


def _matches(kind: str, thing: Thing, name: str, values: Sequence[str]) -> bool:
    if name == "tag-key":
        found = [tag["Key"] for tag in thing["Tags"]]
    elif name.startswith("tag:"):
        found = [tag["Value"] for tag in thing["Tags"] if tag["Key"] == name[4:]]
    else:
        found = list(_values(thing, _path(kind, name).split(".")))
    return any(fnmatch.fnmatchcase(one, _pattern(value)) for one in found for value in values)


def _path(kind: str, name: str) -> str:
    """Where the values of a filter are. Raises AwsError for one that there is not."""
    if name == "tag-key" or name.startswith("tag:"):
        return ""
    path = _FILTERS.get(kind, {}).get(name)
    if path is None:
        path = "".join(part.capitalize() for part in name.split("-"))
        if path not in _KNOWN.get(kind, ()):
            raise AwsError("InvalidParameterValue", f"The filter '{name}' is invalid")
    return path


def _pattern(value: str) -> str:
    """EC2's wildcards are * and ?, and a backslash before them; brackets are themselves."""
    return value.replace("[", "[[]")


def _values(thing: Any, path: Sequence[str]) -> Iterator[str]:
    if isinstance(thing, list):
        for one in thing:
            yield from _values(one, path)
    elif path:
        if isinstance(thing, dict) and path[0] in thing:
            yield from _values(thing[path[0]], path[1:])
    elif isinstance(thing, bool):
        yield str(thing).lower()
    elif thing is not None:
        yield str(thing)


#: Filters whose name says where their value is, by kind.
_KNOWN = {
    "instance": {
        "InstanceId", "InstanceType", "InstanceLifecycle", "ImageId", "KeyName", "SubnetId",
        "VpcId", "PrivateIpAddress", "ClientToken", "SpotInstanceRequestId", "LaunchTime",
        "Architecture", "RootDeviceName",
    },
    "volume": {"VolumeId", "AvailabilityZone", "Size", "SnapshotId", "VolumeType", "Encrypted"},
    "network-interface": {
        "NetworkInterfaceId", "Status", "SubnetId", "VpcId", "AvailabilityZone", "Description",
        "PrivateIpAddress", "OwnerId",
    },
    "security-group": {"GroupId", "GroupName", "VpcId", "Description", "OwnerId"},
    "security-group-rule": {"GroupId", "SecurityGroupRuleId"},
    "key-pair": {"KeyName", "KeyPairId"},
    "placement-group": {"GroupName", "State", "Strategy", "GroupId"},
    "image": {
        "ImageId", "Name", "Architecture", "State", "OwnerId", "Description", "RootDeviceType",
        "VirtualizationType", "ImageType", "CreationDate", "EnaSupport", "RootDeviceName",
    },
    "snapshot": {"SnapshotId", "VolumeId", "OwnerId", "Description", "VolumeSize"},
    "spot-instances-request": {
        "SpotInstanceRequestId", "State", "InstanceId", "Type", "LaunchedAvailabilityZone",
    },
    "subnet": {"SubnetId", "VpcId", "AvailabilityZone", "State", "MapPublicIpOnLaunch"},
    "vpc": {"VpcId", "State", "CidrBlock"},
}  # fmt: skip
