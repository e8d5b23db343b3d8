"""Machines: launched with one call for all of a group, switched on and off, ended."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NoReturn

from clusterkit.cluster.cloud import api
from clusterkit.cluster.cloud.api import Candidate, Instance, Launch, Refused
from clusterkit.cluster.providers.ec2 import found, words
from clusterkit.cluster.providers.ec2.client import Client
from clusterkit.cluster.providers.ec2.words import ApiError
from clusterkit.errors import ClusterError, ClusterkitError

#: A machine that began so recently may be unknown to AWS, though it is there.
_NEW = timedelta(minutes=10)
_GONE = "InvalidInstanceID.NotFound"


def launch(client: Client, launch: Launch, root: str) -> list[Instance]:
    """Launch machines, or hear again what this token launched. Raises api.Refused.

    `root` is the name of the image's root disk.
    """
    asked = request(launch, root)
    unsure = False

    def ask() -> Any:
        nonlocal unsure
        try:
            return client.call("ec2", "RunInstances", **asked)
        except ApiError as error:
            unsure = unsure or error.unsure
            raise

    try:
        # The key pair or the group, made a moment ago, may not be known everywhere yet.
        answer = client.settled(ask, "InvalidKeyPair.NotFound", "InvalidGroup.NotFound",
                                "InvalidSecurityGroupID.NotFound", "InvalidPlacementGroup.Unknown",
                                "InvalidAMIID.NotFound")  # fmt: skip
    except ApiError as error:
        if error.code == "IdempotentParameterMismatch":
            raise ClusterError(
                f"{error} The launch {launch.token} of {launch.group!r} was asked for differently "
                "before. `clusterkit stop` ends what it made; then start anew."
            ) from error
        if not unsure and not words.refusal_kind(error.code, error.said):
            raise Refused("never", str(error)) from error
        _refused(client, error, launch.candidate)
    made = found.instances([answer])
    return sorted(made, key=lambda one: one.index)


def request(launch: Launch, root: str) -> dict[str, Any]:
    """RunInstances' parameters: of one launch always the same, or its token would be refused."""
    site, where = launch.site, launch.candidate
    subnet = site.get(f"subnet {where.zone}")
    if subnet is None:
        raise Refused("unsupported", f"there is no subnet for the cluster in {where.zone}.")
    cluster = launch.labels.get("clusterkit-cluster", "")
    labels = {
        api.GROUP: launch.group,
        api.LAUNCH: launch.token,
        **launch.labels,
        "Name": f"{cluster}-{launch.group}",
    }
    kinds = ["instance", "volume", "network-interface"]
    params: dict[str, Any] = {
        "ClientToken": launch.token,
        "ImageId": launch.image,
        "InstanceType": where.type,
        "MinCount": launch.least,
        "MaxCount": len(launch.numbers),
        "KeyName": site["key"],
        "UserData": launch.user_data,
        # A machine that switches itself off ends, and needs no credentials for it.
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
        },
        "BlockDeviceMappings": [
            {
                "DeviceName": root,
                "Ebs": {
                    "VolumeType": "gp3",
                    "VolumeSize": launch.disk,
                    "DeleteOnTermination": True,
                },
            }
        ],
    }
    if site.get(f"address {where.zone}") == "public":
        params["NetworkInterfaces"] = [
            {
                "DeviceIndex": 0,
                "SubnetId": subnet,
                "Groups": [site["group"]],
                "AssociatePublicIpAddress": True,
                "DeleteOnTermination": True,
            }
        ]
    else:
        params |= {"SubnetId": subnet, "SecurityGroupIds": [site["group"]]}
    if launch.placement:
        params["Placement"] = {"GroupName": site["placement"]}
    if where.market == "spot":
        kinds.append("spot-instances-request")
        params["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {
                "SpotInstanceType": "one-time",
                "InstanceInterruptionBehavior": "terminate",
            },
        }
    params["TagSpecifications"] = [found.tagged(kind, labels) for kind in kinds]
    return params


def launched(client: Client, token: str) -> list[Instance]:
    """What a launch made, as far as AWS shows it still."""
    told = client.pages(
        "ec2",
        "DescribeInstances",
        "Reservations",
        Filters=[{"Name": f"tag:{api.LAUNCH}", "Values": [token]}],
    )
    return sorted(found.instances(told), key=lambda one: one.index)


def start(client: Client, instances: Sequence[Instance]) -> None:
    """Switch on again, all in one call. Raises api.Refused."""
    if not instances:
        return
    try:
        client.call("ec2", "StartInstances", InstanceIds=_ids(instances))
    except ApiError as error:
        one = instances[0]
        _refused(client, error, Candidate(one.type, one.zone, one.market))


def stop(client: Client, instances: Sequence[Instance]) -> None:
    """Switch off, all in one call."""
    if instances:
        client.settled(lambda: client.call("ec2", "StopInstances", InstanceIds=_ids(instances)))


def end(client: Client, instances: Sequence[Instance]) -> dict[str, str]:
    """End them, all in one call; by id the state that AWS says they are in by then.

    One that AWS does not know is gone, or so new that it is not known everywhere yet: that one is
    asked for again for a while. AWS refuses the whole call for it, so the others go without it.
    """
    left = set(_ids(instances))
    unknown: set[str] = set()
    states: dict[str, str] = {}
    while left:
        try:
            answer = client.call("ec2", "TerminateInstances", InstanceIds=sorted(left))
        except ApiError as error:
            named = left & set(re.findall(r"i-[0-9a-f]+", error.said))
            if error.code != _GONE or not named:
                raise
            unknown |= named
            left -= named
            continue
        states |= _states(answer)
        left.clear()
    since = datetime.now(UTC) - _NEW
    for one in instances:
        if one.id in unknown and one.began is not None and one.began > since:
            ask = partial(client.call, "ec2", "TerminateInstances", InstanceIds=[one.id])
            try:
                states |= _states(client.settled(ask, _GONE))
            except ApiError as error:
                if error.code != _GONE:
                    raise
    return states


def give_user_data(client: Client, instance: Instance, user_data: str) -> None:
    """What a stopped instance reads at its next boot."""
    client.call(
        "ec2",
        "ModifyInstanceAttribute",
        InstanceId=instance.id,
        UserData={"Value": user_data.encode()},
    )


def _ids(instances: Sequence[Instance]) -> list[str]:
    return sorted(one.id for one in instances)


def _states(answer: Mapping[str, Any]) -> dict[str, str]:
    return {
        one["InstanceId"]: str((one.get("CurrentState") or {}).get("Name", ""))
        for one in answer.get("TerminatingInstances") or ()
    }


def _refused(client: Client, error: ApiError, where: Candidate) -> NoReturn:
    """Raises Refused for AWS's refusals of a launch, and `error` for anything else."""
    kind = words.refusal_kind(error.code, error.said)
    if not kind:
        raise error
    limit = _limit(client, where) if kind == "quota" else ""
    told = words.refusal_advice(
        error.code, where.market, where.type, where.zone, client.region, limit
    )
    raise Refused(kind, error.words, told) from error


def _limit(client: Client, where: Candidate) -> str:
    """The value of the quota that was too small, in words; "" where it is not known."""
    from clusterkit.cluster.providers.ec2 import quotas

    family = quotas.family(where.type, where.market)
    if family is None or not family.code:
        return ""
    try:
        told: Mapping[str, Any] = client.call(
            "service-quotas", "GetServiceQuota", ServiceCode="ec2", QuotaCode=family.code
        )
    except ClusterkitError:
        return ""
    value = (told.get("Quota") or {}).get("Value")
    return f" of {value:g} vCPUs" if isinstance(value, int | float) else ""
