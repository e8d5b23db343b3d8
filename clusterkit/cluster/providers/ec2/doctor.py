"""What can be wrong with an AWS account before the first machine: asked, never changed.

Permissions are found out by dry runs: AWS answers whether it would have done it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

from clusterkit.cluster.access import owner
from clusterkit.cluster.cloud.api import Finding
from clusterkit.cluster.providers.ec2 import images, words
from clusterkit.cluster.providers.ec2.found import carrying, tags
from clusterkit.cluster.providers.ec2.words import ApiError
from clusterkit.errors import ClusterkitError

if TYPE_CHECKING:
    from clusterkit.cluster.providers.ec2.client import Client

#: Seconds that a clock may be wrong; AWS refuses requests from 300 on.
_SKEW = 60.0
#: Where botocore found the credentials, in words; never what they are.
_KINDS = {
    "env": "the environment (AWS_ACCESS_KEY_ID)",
    "shared-credentials-file": "the credentials file (~/.aws/credentials)",
    "config-file": "the config file (~/.aws/config)",
    "sso": "a login with IAM Identity Center (aws sso login)",
    "login": "a login with the console's account (aws login)",
    "assume-role": "a role that your profile assumes",
    "assume-role-with-web-identity": "a role assumed with a web identity",
    "custom-process": "the program that your profile names (credential_process)",
    "iam-role": "the role of this EC2 machine",
    "container-role": "the role of this container",
}
#: Errors that mean: this account, or this region of it, may not use EC2 yet, or no more.
_BILLING = (
    "OptInRequired",
    "SubscriptionRequiredException",
    "PendingVerification",
    "PendingAccountVerification",
    "Blocked",
    "AccountDisabled",
)
#: Errors that no start survives.
_FATAL = (
    "AuthFailure",
    "InvalidSubnetID.NotFound",
    "InvalidSubnetID.Malformed",
    "ExpiredToken",
    "RequestExpired",
)
_LOGIN = "`aws configure` or `aws configure sso` sets them up; see docs/ec2.md."


def examine(client: Client, subnet: str | None = None) -> Iterator[Finding]:
    """All findings, the ones that others depend on first. Raises nothing.

    `subnet` is the settings' own one, where they name one.
    """
    yield _sdk()
    yield _credentials(client)
    identity, verdict = _identity(client)
    yield verdict
    if identity is None:
        return
    yield _clock(identity)
    checks: list[Callable[[], Sequence[Finding]]] = [
        lambda: _region(client),
        lambda: _network(client, subnet),
        lambda: _allowed(client),
    ]
    with ThreadPoolExecutor(max_workers=len(checks)) as pool:
        for findings in pool.map(lambda check: check(), checks):
            yield from findings


def door(client: Client, cluster_id: str) -> list[str]:
    """The networks that the security groups of a cluster let in by ssh; [] where there are none."""
    groups = client.pages(
        "ec2",
        "DescribeSecurityGroups",
        "SecurityGroups",
        Filters=carrying(cluster_id),
    )
    return sorted(
        {
            str(one["CidrIp"])
            for group in groups
            for rule in group.get("IpPermissions", [])
            if rule.get("IpProtocol") == "-1"
            or (rule.get("IpProtocol") == "tcp" and rule["FromPort"] <= 22 <= rule["ToPort"])
            for one in rule.get("IpRanges", [])
        }
    )


def _sdk() -> Finding:
    from importlib.metadata import version

    return Finding("SDK", "good", f"boto3 {version('boto3')}")


def _credentials(client: Client) -> Finding:
    try:
        found = client.session.get_credentials()
    except Exception as error:  # noqa: BLE001 - any provider of credentials may fail in its own way
        return Finding("credentials", "bad", f"AWS's own chain failed: {error}", _LOGIN)
    if found is None:
        return Finding("credentials", "bad", "there are none", _LOGIN)
    told = f"from {_KINDS.get(found.method, found.method)}"
    profile = client.session.profile_name
    if profile and profile != "default":
        told += f", profile {profile}"
    expires = getattr(found, "_expiry_time", None)
    if isinstance(expires, datetime):
        told += f", until {expires.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        if expires < datetime.now(UTC):
            return Finding("credentials", "bad", told, "They have expired: log in again.")
    elif found.token:
        told += ", for a while: when they expire, AWS says so"
    return Finding("credentials", "good", told)


def _identity(client: Client) -> tuple[Mapping[str, Any] | None, Finding]:
    try:
        told = client.call("sts", "GetCallerIdentity")
    except ClusterkitError as error:
        return None, replace(_bad("account", error, _LOGIN), verdict="bad")
    arn = str(told.get("Arn", "?"))
    advice = ""
    if arn.endswith(":root"):
        advice = "These are the account's root credentials; AWS advises to make a user of its own."
    return told, Finding("account", "good", f"{told.get('Account', '?')}, as {arn}", advice)


def _clock(answer: Mapping[str, Any]) -> Finding:
    """Our clock against the date of an answer that is a moment old."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        theirs = parsedate_to_datetime(str(headers.get("date", "")))
    except ValueError:
        return Finding("clock", "unknown", "AWS's answer had no date")
    if theirs.tzinfo is None:
        theirs = theirs.replace(tzinfo=UTC)
    off = (datetime.now(UTC) - theirs).total_seconds()
    if abs(off) > _SKEW:
        direction = "ahead of" if off > 0 else "behind"
        return Finding(
            "clock",
            "bad",
            f"{abs(off):.0f} s {direction} AWS's",
            "AWS refuses requests of clocks that are wrong: let this computer set its clock from "
            "the network (`timedatectl set-ntp true`).",
        )
    return Finding("clock", "good", f"within {max(1.0, abs(off)):.0f} s of AWS's")


def _region(client: Client) -> list[Finding]:
    name = client.region
    try:
        told = client.call("ec2", "DescribeRegions", RegionNames=[name], AllRegions=True)
    except ClusterkitError as error:
        return [_bad("region", error, f"Is {name} the region that you mean?")]
    status = next((one.get("OptInStatus") for one in told.get("Regions", [])), None)
    if status == "not-opted-in":
        return [
            Finding(
                "region",
                "bad",
                f"{name} is not switched on for this account",
                "Switch it on at https://console.aws.amazon.com/billing/home#/account (it takes "
                "minutes), or name another `region:`.",
            )
        ]
    return [Finding("region", "good", f"{name} can be used ({status or 'no word on opting in'})")]


def _network(client: Client, subnet: str | None) -> list[Finding]:
    try:
        if subnet is not None:
            told = client.call("ec2", "DescribeSubnets", SubnetIds=[subnet])
            return [_subnets(told.get("Subnets", []), f"subnet {subnet}")]
        default = {"Name": "is-default", "Values": ["true"]}
        vpcs = client.call("ec2", "DescribeVpcs", Filters=[default]).get("Vpcs", [])
        if not vpcs:
            return [
                Finding(
                    "network",
                    "bad",
                    f"there is no default VPC in {client.region}",
                    f"`aws ec2 create-default-vpc --region {client.region}` makes one (it costs "
                    "nothing), or name a `subnet:` in the settings.",
                )
            ]
        vpc = str(vpcs[0].get("VpcId"))
        where = [
            {"Name": "vpc-id", "Values": [vpc]},
            {"Name": "default-for-az", "Values": ["true"]},
        ]
        told = client.call("ec2", "DescribeSubnets", Filters=where)
        return [_subnets(told.get("Subnets", []), f"default VPC {vpc}")]
    except ClusterkitError as error:
        return [_bad("network", error, "" if subnet is None else _subnet_advice(client.region))]


def _subnet_advice(region: str) -> str:
    return (
        f"`aws ec2 describe-subnets --region {region}` shows those that there are: correct "
        "`subnet:` in the settings, or leave it out for the default VPC's."
    )


def _subnets(subnets: Sequence[Mapping[str, Any]], what: str) -> Finding:
    if not subnets:
        return Finding(
            "network",
            "bad",
            f"{what} has no default subnet",
            "`aws ec2 create-default-subnet --availability-zone ZONE` makes one, or name a "
            "`subnet:` in the settings.",
        )
    zones = ", ".join(sorted({str(one.get("AvailabilityZone")) for one in subnets}))
    free = sum(int(one.get("AvailableIpAddressCount", 0)) for one in subnets)
    if free == 0:
        advice = "Name another `subnet:`, or end what uses them."
        return Finding("network", "bad", f"{what}: no address is free", advice)
    return Finding("network", "good", f"{what}: {zones}, {free} addresses free")


def _allowed(client: Client) -> list[Finding]:
    """One finding for each action that can be tried without doing it."""
    labels = {
        "clusterkit-cluster": "doctor",
        "clusterkit-id": "0" * 16,
        "clusterkit-role": "doctor",
        "clusterkit-owner": owner(),
    }
    name = f"clusterkit-doctor-{secrets.token_hex(4)}"

    def tagged(*kinds: str) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": tags(labels)} for kind in kinds]

    try:
        vpc = {"VpcId": client.call("ec2", "DescribeVpcs")["Vpcs"][0]["VpcId"]}
    except (ClusterkitError, KeyError, IndexError):
        vpc = {}
    tries: list[tuple[str, dict[str, Any]]] = [
        (
            "CreateSecurityGroup",
            {
                "GroupName": name,
                "Description": "a dry run",
                "TagSpecifications": tagged("security-group"),
                **vpc,
            },
        ),
        (
            "ImportKeyPair",
            {
                "KeyName": name,
                # AWS looks at it after it has looked at the permission.
                "PublicKeyMaterial": b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + b"A" * 43,
                "TagSpecifications": tagged("key-pair"),
            },
        ),
    ]
    found: list[Finding] = []
    image = _some_image(client)
    if image is None:
        found.append(_unasked("RunInstances", "no image was found to try it with"))
    else:
        machine: dict[str, Any] = {
            "ImageId": image,
            "InstanceType": "t3.micro",
            "MinCount": 1,
            "MaxCount": 1,
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            "TagSpecifications": tagged("instance", "volume", "network-interface"),
        }
        group = _own_group(client)
        if group is not None:
            machine["SecurityGroupIds"] = [group]
        tries.append(("RunInstances", machine))
    machines = _own_machines(client)
    if machines:
        tries += [
            ("TerminateInstances", {"InstanceIds": machines}),
            ("StopInstances", {"InstanceIds": machines}),
        ]
    else:
        found.append(_unasked("TerminateInstances", "there is no machine of clusterkit to try"))
    with ThreadPoolExecutor(max_workers=len(tries)) as pool:
        tried = list(pool.map(lambda one: _try(client, *one), tries))
    if not any(one.subject == "billing" for one in tried):
        verdict: Literal["good", "unknown"] = "unknown"
        if any(one.verdict == "good" for one in tried):
            verdict = "good"
        told = "AWS refused nothing for the account's state; what is owed, its API does not tell"
        found.append(Finding("billing", verdict, told))
    return list(dict.fromkeys([*tried, *found]))


def _unasked(action: str, why: str) -> Finding:
    return Finding(f"ec2:{action}", "unknown", f"not tried: {why}")


def _try(client: Client, action: str, parameters: Mapping[str, Any]) -> Finding:
    try:
        client.call("ec2", action, DryRun=True, **parameters)
    except ApiError as error:
        if error.code == "DryRunOperation":
            return Finding(f"ec2:{action}", "good", "allowed")
        if words.denied(error.code) and _foreign_group(error, parameters):
            return _unasked(
                action, "AWS refuses the default security group, which clusterkit does not use"
            )
        return _bad("billing" if error.code in _BILLING else f"ec2:{action}", error)
    except ClusterkitError as error:
        return _bad(f"ec2:{action}", error)
    return Finding(f"ec2:{action}", "unknown", "AWS took the dry run for a real one")


def _foreign_group(error: ApiError, parameters: Mapping[str, Any]) -> bool:
    """Whether what was refused is the group that AWS itself put in: docs/aws-policy.json allows
    launches with clusterkit's own groups alone, and there is none before the first start.
    """
    return "SecurityGroupIds" not in parameters and ":security-group/" in error.said


def _own_group(client: Client) -> str | None:
    """A security group of clusterkit's, where there is one."""
    try:
        groups = client.pages(
            "ec2",
            "DescribeSecurityGroups",
            "SecurityGroups",
            Filters=carrying(None),
        )
        return next((str(group["GroupId"]) for group in groups), None)
    except ClusterkitError:
        return None


def _some_image(client: Client) -> str | None:
    """Any image that a t3.micro could start from."""
    try:
        return images.named(client, "ubuntu-24.04", "x86_64").image.id
    except ClusterkitError:
        return None


def _own_machines(client: Client) -> list[str]:
    """One machine of clusterkit's that lives, where there is one."""
    try:
        reservations = client.pages(
            "ec2",
            "DescribeInstances",
            "Reservations",
            Filters=[
                *carrying(None),
                {"Name": "instance-state-name", "Values": ["running", "stopped"]},
            ],
        )
    except ClusterkitError:
        return []
    found = [str(i["InstanceId"]) for one in reservations for i in one.get("Instances", [])]
    return found[:1]


def _bad(subject: str, error: ClusterkitError, advice: str = "") -> Finding:
    """A finding of an error; "bad" where it is known that machines could not be started."""
    if not isinstance(error, ApiError):
        return Finding(subject, "unknown", str(error), advice)
    told = words.advice(error.code, error.said, error.action)
    fatal = error.code in (*_BILLING, *_FATAL) or words.denied(error.code)
    return Finding(subject, "bad" if fatal else "unknown", error.words, told or advice)
