"""All that carries a cluster's label, of every kind that clusterkit makes, and its deletion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from clusterkit.cluster.cloud.api import Instance, Resource
from clusterkit.cluster.providers.gce import found, machines, network, scopes, words
from clusterkit.cluster.providers.gce.client import Client
from clusterkit.cluster.providers.gce.words import ApiError, GoogleError

INSTANCE, DISK, ADDRESS = "instance", "disk", "address"
#: All that `resources` looks for, in words.
PLURALS = ("instances", "disks", "addresses", "firewall rules", "placement policies")


def instances(client: Client, cluster_id: str | None) -> list[Instance]:
    return machines.instances(client, cluster_id)


def resources(client: Client, cluster_id: str | None) -> list[Resource]:
    """All kinds, asked for at the same time; the claims of names last."""

    def some() -> list[Instance]:
        if cluster_id is None:
            return instances(client, None)
        return machines.every(client, cluster_id)

    asks: Sequence[Callable[[], list[Resource]]] = (
        lambda: [_machine(one) for one in some()],
        lambda: _scattered(client, cluster_id, DISK, scopes.disks, _disk_words),
        lambda: _scattered(
            client, cluster_id, ADDRESS, scopes.addresses, lambda one: str(one.address)
        ),
        lambda: [_described(network.POLICY, one) for one in network.policies(client, cluster_id)],
        lambda: [_described(network.RULE, one) for one in network.firewalls(client, cluster_id)],
    )
    with ThreadPoolExecutor(max_workers=len(asks)) as pool:
        return [one for some in pool.map(lambda ask: ask(), asks) for one in some]


def delete(client: Client, resource: Resource) -> str:
    """Delete it; "" when it is gone, else Google's words why it cannot be yet."""
    if resource.kind == INSTANCE:
        return _end(client, resource)
    place, _, name = resource.id.rpartition("/")
    scope = _scope(place)
    request: tuple[str, dict[str, Any]]
    match resource.kind:
        case "disk":
            request = ("disks", {**scope, "disk": name})
        case "address":
            service = "addresses" if scope else "global_addresses"
            request = (service, {**scope, "address": name})
        case "placement policy":
            request = ("resource_policies", {"region": client.region, "resource_policy": name})
        case _:
            request = ("firewalls", {"firewall": name})
    service, where = request
    try:
        client.act(service, "delete", **where)
    except GoogleError as error:
        if words.is_gone(error):
            machines.require_gone(client, error, lambda: _there(client, resource))
            return ""
        if words.is_in_use(error):
            return error.words
        raise
    return ""


def _end(client: Client, resource: Resource) -> str:
    there = machines.every(client, resource.labels[found.ID])
    machines.end(client, [one for one in there if one.id == resource.id])
    return ""


def _there(client: Client, resource: Resource) -> bool:
    shown = resources(client, resource.labels[found.ID])
    return any((one.kind, one.id) == (resource.kind, resource.id) for one in shown)


def _machine(one: Instance) -> Resource:
    return Resource(INSTANCE, one.id, one.labels, f"{one.type}, {one.state}", one.began)


def _scattered(
    client: Client,
    cluster_id: str | None,
    kind: str,
    ask: Callable[[Client, str], scopes.Things],
    words: Callable[[Any], str],
) -> list[Resource]:
    """Things of the region and its zones, which have labels; their ids tell where they are."""
    try:
        told = ask(client, found.carrying(cluster_id))
    except ApiError as error:
        if not client.lacks(error, f"no {kind} can be there, and none is looked for"):
            raise
        return []
    return [
        Resource(
            kind,
            f"{scope}/{one.name}",
            found.read(one.labels),
            words(one),
            found.time(one.creation_timestamp),
        )
        for scope, one in told
        if found.carries(one.labels, cluster_id)
    ]


def _described(kind: str, one: Any) -> Resource:
    """Something whose labels stand in its description."""
    labels: Mapping[str, str] = found.described(str(one.description))
    return Resource(kind, str(one.name), labels, made=found.time(one.creation_timestamp))


def _disk_words(one: Any) -> str:
    return f"{one.size_gb} GiB, {'attached' if one.users else 'unattached'}"


def _scope(place: str) -> dict[str, str]:
    """The parameter that says where something is, of "zones/us-central1-a"."""
    kind, _, name = place.partition("/")
    return {kind.removesuffix("s"): name} if name else {}
