"""All that carries a cluster's label, of every kind that clusterkit makes, and its deletion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from clusterkit.cluster.cloud.api import Instance, Resource
from clusterkit.cluster.providers.ec2 import found, launches, words
from clusterkit.cluster.providers.ec2.client import Client
from clusterkit.cluster.providers.ec2.words import ApiError
from clusterkit.errors import ClusterError

#: Errors of a deletion that end by themselves, when something else has gone.
_NOT_YET = frozenset(
    {
        "DependencyViolation", "VolumeInUse", "IncorrectState", "IncorrectInstanceState",
        "InvalidPlacementGroup.InUse", "InvalidGroup.InUse", "InvalidNetworkInterface.InUse",
        "InvalidIPAddress.InUse", "ResourceInUse", "OperationNotPermitted",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one kind is listed and deleted. `words` say more of one; `id` and `key` are where AWS has
    its id and the list; `gone` tells that one that is shown does not exist any more.
    """

    name: str
    plural: str
    describe: str
    key: str
    id: str
    delete: str
    parameter: str
    words: Callable[[Mapping[str, Any]], str] = lambda _: ""
    made: str = ""
    gone: Callable[[Mapping[str, Any]], bool] = lambda _: False
    many: bool = False  # `parameter` is a list


_KINDS = (
    _Kind("spot request", "spot requests", "DescribeSpotInstanceRequests", "SpotInstanceRequests",
          "SpotInstanceRequestId", "CancelSpotInstanceRequests", "SpotInstanceRequestIds",
          words=lambda one: str(one.get("State", "")), made="CreateTime",
          gone=lambda one: one.get("State") not in ("open", "active"), many=True),
    _Kind("volume", "volumes", "DescribeVolumes", "Volumes", "VolumeId", "DeleteVolume", "VolumeId",
          words=lambda one: f"{one.get('Size')} GiB, {one.get('State')}", made="CreateTime",
          gone=lambda one: one.get("State") in ("deleted", "deleting")),
    _Kind("network interface", "network interfaces", "DescribeNetworkInterfaces",
          "NetworkInterfaces", "NetworkInterfaceId", "DeleteNetworkInterface", "NetworkInterfaceId",
          words=lambda one: str(one.get("Status", ""))),
    _Kind("elastic address", "elastic addresses", "DescribeAddresses", "Addresses", "AllocationId",
          "ReleaseAddress", "AllocationId", words=lambda one: str(one.get("PublicIp", ""))),
    _Kind("placement group", "placement groups", "DescribePlacementGroups", "PlacementGroups",
          "GroupName", "DeletePlacementGroup", "GroupName",
          gone=lambda one: one.get("State") in ("deleted", "deleting")),
    _Kind("security group", "security groups", "DescribeSecurityGroups", "SecurityGroups",
          "GroupId", "DeleteSecurityGroup", "GroupId",
          words=lambda one: str(one.get("GroupName", ""))),
    _Kind("key pair", "key pairs", "DescribeKeyPairs", "KeyPairs", "KeyName", "DeleteKeyPair",
          "KeyName", made="CreateTime"),
)  # fmt: skip
#: What an endpoint answers that has never heard of an action.
_UNHEARD_OF = frozenset(
    {"InvalidAction", "NotImplemented", "UnknownOperationException", "404", "500", "501"}
)
_BY_NAME = {kind.name: kind for kind in _KINDS}
INSTANCE = "instance"
#: All that `resources` looks for, in words.
PLURALS = ("instances", *(kind.plural for kind in _KINDS))


def instances(client: Client, cluster_id: str | None) -> list[Instance]:
    told = client.pages(
        "ec2", "DescribeInstances", "Reservations", Filters=found.carrying(cluster_id)
    )
    return found.instances(told)


def resources(client: Client, cluster_id: str | None) -> list[Resource]:
    """All kinds, asked for at the same time."""
    with ThreadPoolExecutor(max_workers=len(_KINDS) + 1) as pool:
        machines = pool.submit(instances, client, cluster_id)
        others = [pool.submit(_asked, client, kind, cluster_id) for kind in _KINDS]
        result = [_machine(one) for one in machines.result() if one.state != "ended"]
        for task in others:
            result += task.result()
    return result


def delete(client: Client, resource: Resource) -> str:
    """Delete it; "" when it is gone, else AWS's words why it cannot be yet."""
    if resource.kind == INSTANCE:
        states = launches.end(client, [_stub(resource)])
        state = states.get(resource.id, "terminated")
        return "" if state == "terminated" else f"it is {state}"
    kind = _BY_NAME[resource.kind]
    params: dict[str, Any] = {kind.parameter: [resource.id] if kind.many else resource.id}
    try:
        client.call("ec2", kind.delete, **params)
    except ApiError as error:
        if _is_gone(error.code):
            return ""
        if error.code in _NOT_YET or "in use" in error.said:
            return error.words
        # What is gone has no label any more that a policy could allow its deletion by.
        if words.denied(error.code) and not _there(client, kind, resource):
            return ""
        raise
    return ""


def _there(client: Client, kind: _Kind, resource: Resource) -> bool:
    cluster_id = resource.labels.get("clusterkit-id")
    return any(one.id == resource.id for one in _listed(client, kind, cluster_id))


def _asked(client: Client, kind: _Kind, cluster_id: str | None) -> list[Resource]:
    """Placement groups cost nothing: an endpoint that does not know them hinders nobody's end."""
    try:
        return _listed(client, kind, cluster_id)
    except ClusterError as error:
        strange = not isinstance(error, ApiError) or error.code in _UNHEARD_OF
        if kind.name != "placement group" or not strange:
            raise
        client.say_once(kind.name, f"placement groups were not looked for: {error}")
        return []


def _listed(client: Client, kind: _Kind, cluster_id: str | None) -> list[Resource]:
    told = client.pages("ec2", kind.describe, kind.key, Filters=found.carrying(cluster_id))
    return [
        Resource(
            kind.name,
            str(one[kind.id]),
            # A network interface has its tags under another name than all others.
            found.labels(one.get("Tags") or one.get("TagSet")),
            kind.words(one),
            found.time(one[kind.made]) if kind.made and one.get(kind.made) else None,
        )
        for one in told
        if not kind.gone(one)
    ]


def _machine(one: Instance) -> Resource:
    words = f"{one.type}, {'shutting down' if one.state == 'ending' else one.state}"
    return Resource(INSTANCE, one.id, one.labels, words, one.began)


def _stub(resource: Resource) -> Instance:
    return Instance(
        resource.id, "", "", "on-demand", "running", "", "", resource.labels, began=resource.made
    )


def _is_gone(code: str) -> bool:
    return code.endswith((".NotFound", ".Unknown"))
