"""What a cluster needs before its first machine: the key pair, the door, a placement group.

All are named `clusterkit-<cluster>`. AWS lets a name exist once, so making the key pair first is
the atomic claim of the cluster's name in this region of this account: who finds the name taken
looks at its labels, and goes on only where they are his own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from clusterkit.cluster.cloud.api import Resource
from clusterkit.cluster.cloud.found import since
from clusterkit.cluster.providers.ec2 import found
from clusterkit.cluster.providers.ec2.client import Client
from clusterkit.cluster.providers.ec2.offers import Subnet
from clusterkit.cluster.providers.ec2.words import ApiError
from clusterkit.errors import ClusterError

#: What stands beside a rule that clusterkit wrote; others on port 22 are left alone. AWS takes no
#: apostrophe here.
SSH, INSIDE = "clusterkit: ssh", "clusterkit: among its machines"
#: Several may write rules at the same time; so often the rules are looked at anew.
_TRIES = 5


def name_of(cluster: str) -> str:
    """The name of a cluster's key pair, security group and placement group."""
    return f"clusterkit-{cluster}"


def prepare(
    client: Client,
    labels: Mapping[str, str],
    public_key: str,
    door: Sequence[str],
    subnets: Sequence[Subnet],
    *,
    placement: bool,
    public: bool,
    made: Callable[[Resource], None] = lambda _: None,
) -> dict[str, str]:
    """Make what is missing of them; what launches have to be told (`api.Launch.site`).

    `made` is told of each at once: AWS may not list it for a while. Raises ClusterError where
    another cluster has the name.
    """
    name, vpc = name_of(labels["clusterkit-cluster"]), subnets[0].vpc
    labels = {**labels, "Name": name}
    if _key_pair(client, name, labels, public_key):
        made(Resource("key pair", name, labels))
    group, new = _security_group(client, name, labels, vpc)
    if new:
        made(Resource("security group", group, labels))
    if placement and _placement_group(client, name, labels):
        made(Resource("placement group", name, labels))
    client.settled(lambda: _open(client, _group(client, [group]), door))
    site = {"key": name, "group": group, "placement": name if placement else ""}
    for subnet in subnets:
        site[f"subnet {subnet.zone}"] = subnet.id
        if public and not subnet.public:
            site[f"address {subnet.zone}"] = "public"
    return site


def open_door(client: Client, cluster_id: str, door: Sequence[str]) -> tuple[list[str], list[str]]:
    """Let ssh in from just these networks: those that were added, and those that were removed."""
    groups = client.pages(
        "ec2", "DescribeSecurityGroups", "SecurityGroups", Filters=found.carrying(cluster_id)
    )
    if not groups:
        raise ClusterError(
            f"the cluster has no security group in {client.region}; somebody has removed it. "
            "`clusterkit start` makes it again with the next machines."
        )
    return _open(client, groups[0], door)


# -- claims ---------------------------------------------------------------------------------------


def _claim(
    make: Callable[[], object], look: Callable[[], Mapping[str, Any]], labels: Mapping[str, str]
) -> Mapping[str, Any] | None:
    """Make something whose name must be free, or see that it is ours: None, or as AWS shows it."""
    try:
        make()
    except ApiError as error:
        if not error.code.endswith(".Duplicate"):
            raise
        taken = error
    else:
        return None
    there = look()
    tags = found.labels(there.get("Tags"))
    theirs = tags.get("clusterkit-id", "")
    if theirs == labels["clusterkit-id"]:
        return there
    cluster = labels["clusterkit-cluster"]
    if not theirs:
        raise ClusterError(
            f"{labels['Name']} is there already and clusterkit did not make it ({taken.words}) "
            f"Remove it, or give the cluster another name than {cluster!r}."
        )
    owner = tags.get("clusterkit-owner", "somebody")
    begun = since(tags)
    raise ClusterError(
        f"the name {cluster!r} is taken in this region and account by another cluster (id "
        f"{theirs}, of {owner}, since {begun}). Give yours another name, or, if that one is yours "
        f"too, `clusterkit adopt {cluster}` takes it over."
    )


def _key_pair(client: Client, name: str, labels: Mapping[str, str], public_key: str) -> bool:
    """Whether it was made."""

    def make() -> None:
        client.call(
            "ec2",
            "ImportKeyPair",
            KeyName=name,
            PublicKeyMaterial=public_key.encode(),
            TagSpecifications=[found.tagged("key-pair", labels)],
        )

    def look() -> Mapping[str, Any]:
        return _first(
            client, "DescribeKeyPairs", "KeyPairs", KeyNames=[name], IncludePublicKey=True
        )

    there = _claim(make, look, labels)
    if there is None:
        return True
    known = str(there.get("PublicKey") or "").split()[:2]
    if known and known != public_key.split()[:2]:
        # The cluster was adopted from elsewhere: new machines shall not know its old key. Should
        # somebody take the name in between, the claim below says so.
        client.call("ec2", "DeleteKeyPair", KeyName=name)
        return _claim(make, look, labels) is None
    return False


def _security_group(
    client: Client, name: str, labels: Mapping[str, str], vpc: str
) -> tuple[str, bool]:
    """Its id, and whether it was made."""
    made: list[str] = []

    def make() -> None:
        answer = client.call(
            "ec2",
            "CreateSecurityGroup",
            GroupName=name,
            Description=f"clusterkit cluster {labels['clusterkit-cluster']}",
            VpcId=vpc,
            TagSpecifications=[found.tagged("security-group", labels)],
        )
        made.append(str(answer["GroupId"]))

    def look() -> Mapping[str, Any]:
        return _first(
            client,
            "DescribeSecurityGroups",
            "SecurityGroups",
            Filters=[
                {"Name": "group-name", "Values": [name]},
                {"Name": "vpc-id", "Values": [vpc]},
            ],
        )

    there = _claim(make, look, labels)
    return (made[0], True) if there is None else (str(there["GroupId"]), False)


def _placement_group(client: Client, name: str, labels: Mapping[str, str]) -> bool:
    """Whether it was made."""
    there = _claim(
        lambda: client.call(
            "ec2",
            "CreatePlacementGroup",
            GroupName=name,
            Strategy="cluster",
            TagSpecifications=[found.tagged("placement-group", labels)],
        ),
        lambda: _first(client, "DescribePlacementGroups", "PlacementGroups", GroupNames=[name]),
        labels,
    )
    return there is None


def _first(client: Client, operation: str, key: str, **params: Any) -> Mapping[str, Any]:
    """The one thing that a listing has; it was just said to exist, so it is waited for."""

    def ask() -> Mapping[str, Any]:
        told = client.pages("ec2", operation, key, **params)
        if not told:
            raise ApiError("ec2", operation, client.region, code="Empty.NotFound", said="not shown")
        one: Mapping[str, Any] = told[0]
        return one

    return client.settled(ask)


# -- the door -------------------------------------------------------------------------------------


def _group(client: Client, ids: list[str]) -> Mapping[str, Any]:
    return _first(client, "DescribeSecurityGroups", "SecurityGroups", GroupIds=ids)


def _open(
    client: Client, group: Mapping[str, Any], door: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Make the rules what they should be; the networks that were let in, and those shut out."""
    id_, wanted = str(group["GroupId"]), {_network(one) for one in door}
    before, ours_before = _networks(group.get("IpPermissions") or ())
    for _ in range(_TRIES):
        rules = group.get("IpPermissions") or ()
        there, ours = _networks(rules)
        missing, surplus = wanted - there, ours - wanted
        new = [_ssh(missing)] if missing else []
        if not _inside(rules, id_):
            new.append(
                {
                    "IpProtocol": "-1",
                    "UserIdGroupPairs": [{"GroupId": id_, "Description": INSIDE}],
                }
            )
        # What is new first: whoever is connected from two networks keeps one.
        done = not new or _changed(client, "AuthorizeSecurityGroupIngress", id_, new)
        if done and surplus:
            done = _changed(client, "RevokeSecurityGroupIngress", id_, [_ssh(surplus)])
        if done:
            return sorted(wanted - before), sorted(ours_before - wanted)
        group = _group(client, [id_])
    raise ClusterError(
        f"the rules of the security group {id_} are changed by somebody else all the time. "
        "Try again."
    )


def _changed(client: Client, operation: str, group: str, rules: list[dict[str, object]]) -> bool:
    """Whether the rules were changed; False where somebody else had done a part of it."""
    try:
        client.call("ec2", operation, GroupId=group, IpPermissions=rules)
    except ApiError as error:
        if error.code in ("InvalidPermission.Duplicate", "InvalidPermission.NotFound"):
            return False
        raise
    return True


def _ssh(networks: Iterable[str]) -> dict[str, object]:
    rule: dict[str, object] = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    four = [{"CidrIp": one, "Description": SSH} for one in sorted(networks) if ":" not in one]
    six = [{"CidrIpv6": one, "Description": SSH} for one in sorted(networks) if ":" in one]
    return rule | ({"IpRanges": four} if four else {}) | ({"Ipv6Ranges": six} if six else {})


def _networks(rules: Iterable[Mapping[str, Any]]) -> tuple[set[str], set[str]]:
    """The networks that ssh is open for, and those of them that clusterkit let in."""
    there: set[str] = set()
    ours: set[str] = set()
    for rule in rules:
        if (rule.get("IpProtocol"), rule.get("FromPort"), rule.get("ToPort")) != ("tcp", 22, 22):
            continue
        pairs = [(one.get("CidrIp"), one) for one in rule.get("IpRanges") or ()]
        pairs += [(one.get("CidrIpv6"), one) for one in rule.get("Ipv6Ranges") or ()]
        for cidr, one in pairs:
            there.add(_network(str(cidr)))
            if one.get("Description") == SSH:
                ours.add(_network(str(cidr)))
    return there, ours


def _inside(rules: Iterable[Mapping[str, Any]], group: str) -> bool:
    return any(
        rule.get("IpProtocol") == "-1" and pair.get("GroupId") == group
        for rule in rules
        for pair in rule.get("UserIdGroupPairs") or ()
    )


def _network(cidr: str) -> str:
    """As AWS shows it: the bits that do not count are zero."""
    return str(ipaddress.ip_network(cidr, strict=False))
