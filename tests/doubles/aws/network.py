"""Networks, doors, keys, placement groups, tags: the part of EC2 that no machine is in."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from doubles.aws.wire import AwsError
from doubles.aws.world import (
    KINDS,
    Params,
    Thing,
    World,
    action,
    checked_tags,
    now,
    page,
    tags_of,
    unknown,
)
from doubles.hosts import Doors


@action("DescribeVpcs")
def vpcs(world: World, params: Params) -> Thing:
    return {"Vpcs": world.describe("vpc", params, "VpcIds")}


@action("DescribeSubnets")
def subnets(world: World, params: Params) -> Thing:
    found, more = page(params, world.describe("subnet", params, "SubnetIds"), 1000)
    return {"Subnets": found, "NextToken": more}


# -- key pairs -------------------------------------------------------------------------------------


@action("ImportKeyPair")
def import_key_pair(world: World, params: Params) -> Thing:
    tags = tags_of(params, "key-pair")
    if any(one["KeyName"] == params["KeyName"] for one in world.all("key-pair")):
        raise AwsError("InvalidKeyPair.Duplicate", "The keypair already exists")
    public = params["PublicKeyMaterial"].decode("utf-8", "replace").strip()
    kind, _, rest = public.partition(" ")
    try:
        blob = base64.b64decode(rest.partition(" ")[0], validate=True)
        if blob[4 : 4 + len(kind)] != kind.encode() or kind not in ("ssh-rsa", "ssh-ed25519"):
            raise ValueError(kind)
    except ValueError:
        words = "Key is not in valid OpenSSH public key format"
        raise AwsError("InvalidKey.Format", words) from None
    if kind == "ssh-ed25519":
        printed = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    else:
        digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
        printed = ":".join(digest[at : at + 2] for at in range(0, 32, 2))
    made = {
        "KeyName": params["KeyName"], "KeyFingerprint": printed, "PublicKey": public,
        "KeyType": "ed25519" if kind == "ssh-ed25519" else "rsa", "CreateTime": now(),
    }  # fmt: skip
    return world.add("key-pair", made, tags)


@action("DescribeKeyPairs")
def key_pairs(world: World, params: Params) -> Thing:
    found = world.describe("key-pair", params, "KeyPairIds", named={"KeyNames": "KeyName"})
    if not params.get("IncludePublicKey"):
        found = [{key: value for key, value in one.items() if key != "PublicKey"} for one in found]
    return {"KeyPairs": found}


@action("DeleteKeyPair")
def delete_key_pair(world: World, params: Params) -> Thing:
    """A name that is not there is no error; an id that is not there is one."""
    if params.get("KeyPairId"):
        found = [world.get("key-pair", params["KeyPairId"])]
    elif params.get("KeyName"):
        found = [one for one in world.all("key-pair") if one["KeyName"] == params["KeyName"]]
    else:
        words = "The request must contain the parameter KeyName or KeyPairId"
        raise AwsError("MissingParameter", words)
    for one in found:
        del world.things["key-pair"][one["KeyPairId"]]
    return {"Return": True, "KeyPairId": found[0]["KeyPairId"] if found else None}


# -- security groups -------------------------------------------------------------------------------


@action("CreateSecurityGroup")
def create_security_group(world: World, params: Params) -> Thing:
    tags = tags_of(params, "security-group")
    vpc = params.get("VpcId") or world.vpc["VpcId"]
    world.get("vpc", vpc)
    name = params["GroupName"]
    if name.startswith("sg-") or len(name) > 255:
        raise AwsError("InvalidParameterValue", f"Invalid value '{name}' for groupName.")
    if any(one["GroupName"] == name and one["VpcId"] == vpc for one in world.all("security-group")):
        raise AwsError(
            "InvalidGroup.Duplicate", f"The security group '{name}' already exists for VPC '{vpc}'"
        )
    made = {
        "GroupName": name, "Description": params["Description"], "VpcId": vpc,
        "OwnerId": world.account,
    }  # fmt: skip
    group = world.add("security-group", made, tags)
    arn = f"arn:aws:ec2:{world.region}:{world.account}:security-group/{group['GroupId']}"
    group["SecurityGroupArn"] = arn
    out = _rule(world, group, True, {"IpProtocol": "-1"}, {"CidrIpv4": "0.0.0.0/0"})
    world.add("security-group-rule", out)
    return {"GroupId": group["GroupId"], "Tags": group["Tags"], "SecurityGroupArn": arn}


@action("DescribeSecurityGroups")
def security_groups(world: World, params: Params) -> Thing:
    for one in world.all("security-group"):
        one["IpPermissions"] = _permissions(world, one, egress=False)
        one["IpPermissionsEgress"] = _permissions(world, one, egress=True)
    named = {"GroupNames": "GroupName"}
    found = world.describe("security-group", params, "GroupIds", named=named)
    found, more = page(params, found, 1000)
    return {"SecurityGroups": found, "NextToken": more}


@action("DescribeSecurityGroupRules")
def security_group_rules(world: World, params: Params) -> Thing:
    found = world.describe("security-group-rule", params, "SecurityGroupRuleIds")
    found, more = page(params, found, 1000)
    return {"SecurityGroupRules": found, "NextToken": more}


@action("AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress")
def authorize(world: World, params: Params) -> Thing:
    tags = tags_of(params, "security-group-rule")
    group, egress = _group(world, params), "Egress" in params["_action"]
    made = []
    for one in _asked(world, group, params, egress):
        if any(_same(one, other) for other in _rules(world, group, egress)):
            words = f'the specified rule "peer: {_peer(one)}, {_ports(one)}, ALLOW" already exists'
            raise AwsError("InvalidPermission.Duplicate", words)
        made.append(one)
    if not made:
        raise AwsError("MissingParameter", "Either 'cidrIp' or 'ipPermissions' is required.")
    if len(_rules(world, group, egress)) + len(made) > 60:
        words = "The maximum number of rules per security group has been reached."
        raise AwsError("RulesPerSecurityGroupLimitExceeded", words)
    kept = [world.add("security-group-rule", one, tags) for one in made]
    return {"Return": True, "SecurityGroupRules": kept}


@action("RevokeSecurityGroupIngress", "RevokeSecurityGroupEgress")
def revoke(world: World, params: Params) -> Thing:
    group, egress = _group(world, params), "Egress" in params["_action"]
    gone: list[Thing] = []
    for id_ in params.get("SecurityGroupRuleIds") or ():
        one = world.get("security-group-rule", id_)
        if one["GroupId"] != group["GroupId"] or one["IsEgress"] != egress:
            raise unknown("security-group-rule", [id_])
        gone.append(one)
    for asked in _asked(world, group, params, egress):
        found = [one for one in _rules(world, group, egress) if _same(asked, one)]
        if not found:
            words = "The specified rule does not exist in this security group."
            raise AwsError("InvalidPermission.NotFound", words)
        gone += found
    for one in gone:
        world.things["security-group-rule"].pop(one["SecurityGroupRuleId"], None)
    return {"Return": True, "RevokedSecurityGroupRules": gone}


@action("UpdateSecurityGroupRuleDescriptionsIngress")
def update_descriptions(world: World, params: Params) -> Thing:
    group = _group(world, params)
    for asked in _asked(world, group, params, egress=False):
        for one in _rules(world, group, egress=False):
            if _same(asked, one):
                one["Description"] = asked.get("Description", "")
    return {"Return": True}


@action("DeleteSecurityGroup")
def delete_security_group(world: World, params: Params) -> Thing:
    group = _group(world, params)
    id_ = group["GroupId"]
    if group["GroupName"] == "default":
        words = f'the specified group: "{id_}" name: "default" cannot be deleted by a user'
        raise AwsError("CannotDelete", words)
    users = [
        one
        for one in world.all("network-interface")
        if id_ in {used["GroupId"] for used in one["Groups"]}
    ]
    others = [
        one
        for one in world.all("security-group-rule")
        if one.get("ReferencedGroupInfo", {}).get("GroupId") == id_ and one["GroupId"] != id_
    ]
    if users or others:
        raise AwsError("DependencyViolation", f"resource {id_} has a dependent object")
    for one in world.all("security-group-rule"):
        if one["GroupId"] == id_:
            del world.things["security-group-rule"][one["SecurityGroupRuleId"]]
    del world.things["security-group"][id_]
    return {"Return": True, "GroupId": id_}


def _group(world: World, params: Params) -> Thing:
    world.settle()
    if params.get("GroupId"):
        return world.get("security-group", params["GroupId"])
    for one in world.all("security-group"):
        if one["GroupName"] == params.get("GroupName"):
            return one
    raise unknown("security-group", [str(params.get("GroupName"))], by_name=True)


def _rules(world: World, group: Thing, egress: bool) -> list[Thing]:
    return [
        one
        for one in world.all("security-group-rule")
        if one["GroupId"] == group["GroupId"] and one["IsEgress"] == egress
    ]


def _asked(world: World, group: Thing, params: Params, egress: bool) -> Iterator[Thing]:
    """One rule for each source that a request names."""
    permissions = list(params.get("IpPermissions") or ())
    if params.get("CidrIp"):
        flat = {key: params[key] for key in ("IpProtocol", "FromPort", "ToPort") if key in params}
        permissions.append({**flat, "IpRanges": [{"CidrIp": params["CidrIp"]}]})
    for one in permissions:
        protocol = str(one.get("IpProtocol", ""))
        if protocol in ("tcp", "udp", "6", "17"):
            low, high = one.get("FromPort"), one.get("ToPort")
            if low is None or high is None:
                raise AwsError("MissingParameter", "fromPort and toPort must be specified")
            if not 0 <= low <= high <= 65535:
                words = f"Invalid port range: {low}-{high}"
                raise AwsError("InvalidPermission.Malformed", words)
        elif protocol not in ("-1", "icmp", "1", "icmpv6"):
            words = f"Invalid value '{protocol}' for IP protocol. Unknown protocol."
            raise AwsError("InvalidParameterValue", words)
        for said in one.get("IpRanges") or ():
            cidr = {"CidrIpv4": _cidr(said.get("CidrIp", ""), 4)}
            yield _rule(world, group, egress, one, cidr, said.get("Description"))
        for said in one.get("Ipv6Ranges") or ():
            cidr = {"CidrIpv6": _cidr(said.get("CidrIpv6", ""), 6)}
            yield _rule(world, group, egress, one, cidr, said.get("Description"))
        for said in one.get("UserIdGroupPairs") or ():
            other = world.get("security-group", said.get("GroupId", ""))
            info = {"GroupId": other["GroupId"], "UserId": world.account}
            peer = {"ReferencedGroupInfo": info}
            yield _rule(world, group, egress, one, peer, said.get("Description"))


def _cidr(text: str, version: int) -> str:
    try:
        net = ipaddress.ip_network(text, strict="/" not in text)
        if net.version != version or "/" not in text:
            raise ValueError(text)
    except ValueError:
        raise AwsError("InvalidParameterValue", f"CIDR block {text} is malformed") from None
    return str(net)


def _rule(
    world: World,
    group: Thing,
    egress: bool,
    permission: Mapping[str, Any],
    peer: Mapping[str, Any],
    description: str | None = None,
) -> Thing:
    protocol = {"6": "tcp", "17": "udp"}.get(permission["IpProtocol"], permission["IpProtocol"])
    low, high = permission.get("FromPort", -1), permission.get("ToPort", -1)
    if protocol == "-1":
        low = high = -1
    made = {
        "GroupId": group["GroupId"], "GroupOwnerId": world.account, "IsEgress": egress,
        "IpProtocol": protocol, "FromPort": low, "ToPort": high, **peer,
    }  # fmt: skip
    if description:
        made["Description"] = description
    return made


def _same(one: Thing, other: Thing) -> bool:
    keys = ("IpProtocol", "FromPort", "ToPort", "CidrIpv4", "CidrIpv6", "ReferencedGroupInfo")
    return all(one.get(key) == other.get(key) for key in keys)


def _peer(one: Thing) -> str:
    group = one.get("ReferencedGroupInfo", {}).get("GroupId")
    return str(one.get("CidrIpv4") or one.get("CidrIpv6") or group)


def _ports(one: Thing) -> str:
    if one["IpProtocol"] == "-1":
        return "ALL"
    return f"{one['IpProtocol'].upper()}, from port: {one['FromPort']}, to port: {one['ToPort']}"


def _permissions(world: World, group: Thing, egress: bool) -> list[Thing]:
    """The rules as DescribeSecurityGroups groups them: by protocol and ports."""
    grouped: dict[tuple[Any, ...], Thing] = {}
    for one in _rules(world, group, egress):
        ports = (one["IpProtocol"], one["FromPort"], one["ToPort"])
        made: Thing = {
            "IpProtocol": one["IpProtocol"], "IpRanges": [], "Ipv6Ranges": [], "PrefixListIds": [],
            "UserIdGroupPairs": [],
        }  # fmt: skip
        if one["IpProtocol"] != "-1":
            made |= {"FromPort": one["FromPort"], "ToPort": one["ToPort"]}
        entry = grouped.setdefault(ports, made)
        said = {"Description": one["Description"]} if "Description" in one else {}
        if "CidrIpv4" in one:
            entry["IpRanges"].append({"CidrIp": one["CidrIpv4"], **said})
        elif "CidrIpv6" in one:
            entry["Ipv6Ranges"].append({"CidrIpv6": one["CidrIpv6"], **said})
        else:
            entry["UserIdGroupPairs"].append({**one["ReferencedGroupInfo"], **said})
    return list(grouped.values())


def doors(worlds: Iterable[World]) -> Doors:
    """What the ingress rules of all groups come to, for the machines that are in them."""
    inward: dict[str, tuple[tuple[str, str, int, int], ...]] = {}
    among = []
    for world in worlds:
        members: dict[str, list[str]] = {}
        for nic in world.all("network-interface"):
            for group in nic["Groups"]:
                members.setdefault(group["GroupId"], []).append(nic["PrivateIpAddress"])
        for rule in world.all("security-group-rule"):
            here = tuple(members.get(rule["GroupId"], ()))
            if rule["IsEgress"] or not here:
                continue
            if "CidrIpv4" in rule:
                low, high = max(rule["FromPort"], 0), rule["ToPort"]
                protocol = "all" if rule["IpProtocol"] == "-1" else rule["IpProtocol"]
                said = (rule["CidrIpv4"], protocol, low, high)
                for address in here:
                    inward[address] = (*inward.get(address, ()), said)
            elif "ReferencedGroupInfo" in rule:
                others = members.get(rule["ReferencedGroupInfo"]["GroupId"], ())
                among.append((tuple(others), here))
    return Doors(inward, tuple(among))


# -- placement groups ------------------------------------------------------------------------------


@action("CreatePlacementGroup")
def create_placement_group(world: World, params: Params) -> Thing:
    tags = tags_of(params, "placement-group")
    name = params.get("GroupName")
    if not name:
        raise AwsError("MissingParameter", "The request must contain the parameter groupName")
    if any(one["GroupName"] == name for one in world.all("placement-group")):
        words = f"The placement group '{name}' already exists."
        raise AwsError("InvalidPlacementGroup.Duplicate", words)
    made = {"GroupName": name, "Strategy": params.get("Strategy", "cluster"), "State": "available"}
    one = world.add("placement-group", made, tags)
    arn = f"arn:aws:ec2:{world.region}:{world.account}:placement-group/{name}"
    one["GroupArn"] = arn
    return {"PlacementGroup": one}


@action("DescribePlacementGroups")
def placement_groups(world: World, params: Params) -> Thing:
    named = {"GroupNames": "GroupName"}
    return {"PlacementGroups": world.describe("placement-group", params, "GroupIds", named=named)}


@action("DeletePlacementGroup")
def delete_placement_group(world: World, params: Params) -> Thing:
    world.settle()
    name = params["GroupName"]
    found = [one for one in world.all("placement-group") if one["GroupName"] == name]
    if not found:
        raise unknown("placement-group", [name])
    users = [
        one
        for one in world.all("instance")
        if one["Placement"].get("GroupName") == name and one["State"]["Name"] != "terminated"
    ]
    if users:
        words = f"The placement group '{name}' is in use and may not be deleted."
        raise AwsError("InvalidPlacementGroup.InUse", words)
    del world.things["placement-group"][found[0]["GroupId"]]
    return {}


# -- network interfaces ----------------------------------------------------------------------------


@action("CreateNetworkInterface")
def create_network_interface(world: World, params: Params) -> Thing:
    tags = tags_of(params, "network-interface")
    subnet = world.get("subnet", params["SubnetId"])
    groups = [world.get("security-group", one) for one in params.get("Groups") or ()]
    return {"NetworkInterface": interface(world, subnet, groups, tags)}


def interface(
    world: World, subnet: Thing, groups: list[Thing], tags: list[Mapping[str, str]]
) -> Thing:
    """A new network interface."""
    made = {
        "SubnetId": subnet["SubnetId"], "VpcId": subnet["VpcId"], "Description": "",
        "AvailabilityZone": subnet["AvailabilityZone"], "OwnerId": world.account,
        "Status": "available", "PrivateIpAddress": world.private_address(subnet),
        "InterfaceType": "interface", "SourceDestCheck": True, "RequesterManaged": False,
        "Groups": [{key: one[key] for key in ("GroupId", "GroupName")} for one in groups],
    }  # fmt: skip
    one = world.add("network-interface", made, tags)
    one["TagSet"] = one["Tags"]
    return one


@action("DescribeNetworkInterfaces")
def network_interfaces(world: World, params: Params) -> Thing:
    found = world.describe("network-interface", params, "NetworkInterfaceIds")
    found, more = page(params, found, 1000)
    return {"NetworkInterfaces": found, "NextToken": more}


@action("DeleteNetworkInterface")
def delete_network_interface(world: World, params: Params) -> Thing:
    one = world.get("network-interface", params["NetworkInterfaceId"])
    if one["Status"] == "in-use":
        id_ = one["NetworkInterfaceId"]
        words = f"Network interface '{id_}' is currently in use."
        raise AwsError("InvalidParameterValue", words)
    del world.things["network-interface"][one["NetworkInterfaceId"]]
    return {}


# -- tags ------------------------------------------------------------------------------------------


@action("CreateTags", "DeleteTags")
def change_tags(world: World, params: Params) -> Thing:
    world.settle()
    things = [_tagged(world, id_) for id_ in params.get("Resources") or ()]
    if not things:
        raise AwsError("MissingParameter", "The request must contain the parameter resourceIdSet")
    fresh = checked_tags(params.get("Tags") or ())
    gone = {tag["Key"] for tag in fresh}
    for thing in things:
        kept = [tag for tag in thing["Tags"] if tag["Key"] not in gone]
        if params["_action"] == "CreateTags":
            kept = checked_tags([*kept, *fresh])
        thing["Tags"][:] = kept  # in place: some things show the same list under a second name
    return {}


@action("DescribeTags")
def tags(world: World, params: Params) -> Thing:
    world.settle()
    found = []
    for kind, (key, *_) in KINDS.items():
        for thing in world.all(kind):
            for tag in thing["Tags"]:
                said = {"ResourceId": thing[key], "ResourceType": kind, **tag}
                if all(_tag_matches(said, one) for one in params.get("Filters") or ()):
                    found.append(said)
    found, more = page(params, found, 1000)
    return {"Tags": found, "NextToken": more}


def _tag_matches(said: Mapping[str, str], one: Mapping[str, Any]) -> bool:
    names = {
        "key": "Key", "value": "Value", "resource-id": "ResourceId",
        "resource-type": "ResourceType",
    }  # fmt: skip
    if one["Name"].startswith("tag:"):
        return said["Key"] == one["Name"][4:] and said["Value"] in one["Values"]
    if one["Name"] not in names:
        raise AwsError("InvalidParameterValue", f"The filter '{one['Name']}' is invalid")
    return said[names[one["Name"]]] in one["Values"]


def _tagged(world: World, id_: str) -> Thing:
    for kind, (_, prefix, code, _) in KINDS.items():
        if id_.startswith(prefix):
            found = world.things[kind].get(id_)
            if found is None:
                raise AwsError(code, f"The ID '{id_}' does not exist")
            return found
    raise AwsError("InvalidID", f"The ID '{id_}' is not valid")
