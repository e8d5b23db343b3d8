"""What a cluster needs before its first machine: its claim of a name, and its door.

Google lets the name of a firewall rule exist once in a project, so making the rule for ssh is the
atomic claim of the cluster's name: who finds the name taken looks at its labels, which stand in its
description, and goes on only where they are his own.

The default network of a project lets ssh in from everywhere (its rule `default-allow-ssh`, of the
weakest priority). So a third rule shuts out whatever the other two do not let in, as it is on other
clouds: cloud.google.com/firewall/docs/firewalls#more_rules_default_vpc.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clusterkit.cluster.cloud.api import Resource
from clusterkit.cluster.cloud.found import since
from clusterkit.cluster.providers.gce import found, words
from clusterkit.cluster.providers.gce.client import Client
from clusterkit.cluster.providers.gce.words import ApiError, GoogleError
from clusterkit.errors import ClusterError

#: A label of rules alone: the region that the cluster is in.
_REGION = "clusterkit-region"
#: Rules of a small number go before those of a larger one.
_OPEN, _SHUT = 900, 1000
#: Kinds of `api.Resource`.
RULE, POLICY = "firewall rule", "placement policy"
#: Seconds for Google to show what another computer has made.
_SHOWN = 30.0
#: What follows where another endpoint has no placement policies.
_NO_POLICIES = "no placement policy can be there, and none is looked for"
#: Ends of the names of a cluster's rules. That of ssh is the claim, and is deleted last.
_DOOR, _INSIDE, _CLOSED = "door", "inside", "closed"


def name_of(cluster: str, end: str = _DOOR) -> str:
    """The name of one of a cluster's rules. No two clusters' are the same: every one has an end."""
    return f"clusterkit-{cluster}-{end}"


def tag_of(cluster_id: str) -> str:
    """The network tag of a cluster's machines."""
    return f"clusterkit-{cluster_id}"


def prepare(
    client: Client,
    labels: Mapping[str, str],
    door: Sequence[str],
    network: str,
    *,
    placement: bool,
    made: Callable[[Resource], None] = lambda _: None,
) -> dict[str, str]:
    """Make what is missing of it; what launches have to be told (`api.Launch.site`).

    `network` is a network's path. `made` is told of each thing at once: Google may list it a little
    later. Raises ClusterError where another cluster has the name.
    """
    for rule in rules({**labels, _REGION: client.region}, door, network):
        there = _claim(client, rule, labels)
        if there is None:
            made(Resource(RULE, str(rule["name"]), labels))
        elif _is_claim(there):
            _let_in(client, there, door)
    site = {"network": network, "tag": tag_of(labels["clusterkit-id"])}
    if placement:
        path = _path(client, name_of(labels["clusterkit-cluster"], "near"))
        try:
            if _place_near(client, path, labels):
                made(Resource(POLICY, found.last(path), labels))
            site["placement"] = path
        except ApiError as error:
            if not client.lacks(error, "machines are not put close together"):
                raise
    return site


def rules(labels: Mapping[str, str], door: Sequence[str], network: str) -> list[dict[str, Any]]:
    """The firewall rules of a cluster, its claim first, as the SDK names their parts."""
    cluster, tag = labels["clusterkit-cluster"], tag_of(labels["clusterkit-id"])
    common = {
        "network": network,
        "direction": "INGRESS",
        "description": found.description(labels),
        "target_tags": [tag],
    }
    return [
        {
            **common,
            "name": name_of(cluster, _DOOR),
            "priority": _OPEN,
            "source_ranges": networks(door),
            "allowed": [{"I_p_protocol": "tcp", "ports": ["22"]}],
        },
        {
            **common,
            "name": name_of(cluster, _INSIDE),
            "priority": _OPEN,
            "source_tags": [tag],
            "allowed": [{"I_p_protocol": "all"}],
        },
        {
            **common,
            "name": name_of(cluster, _CLOSED),
            "priority": _SHUT,
            "source_ranges": ["0.0.0.0/0"],
            "denied": [{"I_p_protocol": "all"}],
        },
    ]


def path_of(client: Client, network: str | None, subnetwork: str | None) -> str:
    """The path of the settings' network; unless told, that of their subnetwork, or `default`."""
    if network is None and subnetwork is not None:
        return found.last_of(str(_subnetwork(client, subnetwork).network), "projects")
    named = network or "default"
    return named if "/" in named else f"projects/{client.project}/global/networks/{named}"


def subnetwork_path(client: Client, subnetwork: str) -> str:
    """The path of a subnetwork of the region, of its name or path."""
    if "/" in subnetwork:
        return subnetwork
    return f"projects/{client.project}/regions/{client.region}/subnetworks/{subnetwork}"


def range_of(client: Client, network: str | None, subnetwork: str | None) -> str:
    """The addresses of the subnetwork that machines are put in, as a CIDR; "" without one."""
    if subnetwork is not None:
        return str(_subnetwork(client, subnetwork).ip_cidr_range)
    path = path_of(client, network, None)
    told = client.pages("subnetworks", "list", region=client.region)
    return next((str(one.ip_cidr_range) for one in told if str(one.network).endswith(path)), "")


def _subnetwork(client: Client, subnetwork: str) -> Any:
    path = subnetwork_path(client, subnetwork).split("/")
    return client.call("subnetworks", "get", project=path[1], region=path[3], subnetwork=path[5])


def firewalls(client: Client, cluster_id: str | None) -> list[Any]:
    """The rules of a cluster, or (None) of any cluster, of the region, by their description; the
    claims of names last. Rules are the project's: those of a cluster in another region are none
    here, where nobody could tell that it lives.
    """
    rules = [
        one
        for one in client.pages("firewalls", "list")
        for labels in [found.described(str(one.description))]
        if found.carries(labels, cluster_id) and labels.get(_REGION) == client.region
    ]
    return sorted(rules, key=_is_claim)


def policies(client: Client, cluster_id: str | None) -> list[Any]:
    """The placement policies of the region that carry a cluster's id, or any's."""
    try:
        told = client.pages("resource_policies", "list", region=client.region)
    except ApiError as error:
        if not client.lacks(error, _NO_POLICIES):
            raise
        return []
    return [one for one in told if found.carries(found.described(str(one.description)), cluster_id)]


def open_door(client: Client, cluster_id: str, door: Sequence[str]) -> tuple[list[str], list[str]]:
    """Let ssh in from just these networks: those that were added, and those that were removed."""
    rule = _door(client, cluster_id)
    if rule is None:
        raise ClusterError(
            f"the cluster has no firewall rule in {client.project}; somebody has removed it. "
            "`clusterkit start` makes it again with the next machines."
        )
    return _let_in(client, rule, door)


def door(client: Client, cluster_id: str) -> list[str] | None:
    """The networks that ssh is let in from; None: there is no rule that could tell."""
    rule = _door(client, cluster_id)
    return None if rule is None else sorted(map(str, rule.source_ranges))


def networks(door: Sequence[str]) -> list[str]:
    """As Google shows them: the bits that do not count are zero.

    Raises ClusterError for none: a rule that names nobody lets everybody in.
    """
    if not door:
        raise ClusterError("nobody would be let in: no network is named that ssh may come from")
    return sorted({str(ipaddress.ip_network(one, strict=False)) for one in door})


def _door(client: Client, cluster_id: str) -> Any | None:
    return next((one for one in firewalls(client, cluster_id) if _is_claim(one)), None)


def _is_claim(rule: Any) -> bool:
    return str(rule.name).endswith(f"-{_DOOR}")


def _let_in(client: Client, rule: Any, door: Sequence[str]) -> tuple[list[str], list[str]]:
    wanted, there = set(networks(door)), set(map(str, rule.source_ranges))
    if wanted != there:
        client.act(
            "firewalls",
            "patch",
            firewall=rule.name,
            firewall_resource={"source_ranges": sorted(wanted)},
        )
    return sorted(wanted - there), sorted(there - wanted)


def _claim(client: Client, rule: Mapping[str, Any], labels: Mapping[str, str]) -> Any | None:
    """Make a rule whose name must be free, or see that it is ours: None, or as Google shows it."""
    try:
        client.act("firewalls", "insert", firewall_resource=dict(rule))
    except GoogleError as error:
        if not words.is_there(error):
            raise
        there = _shown(client, "firewalls", error, firewall=rule["name"])
        _require_ours(str(there.description), rule["name"], labels, client.project, error)
        return there
    return None


def _path(client: Client, policy: str) -> str:
    return f"projects/{client.project}/regions/{client.region}/resourcePolicies/{policy}"


def _place_near(client: Client, path: str, labels: Mapping[str, str]) -> bool:
    """A policy that puts machines close together; whether it was made."""
    name = found.last(path)
    policy = {
        "name": name,
        "description": found.description(labels),
        "group_placement_policy": {"collocation": "COLLOCATED"},
    }
    try:
        client.act(
            "resource_policies", "insert", region=client.region, resource_policy_resource=policy
        )
    except GoogleError as error:
        if not words.is_there(error):
            raise
        place = {"region": client.region, "resource_policy": name}
        there = _shown(client, "resource_policies", error, **place)
        _require_ours(str(there.description), name, labels, client.project, error)
        return False
    return True


def _shown(client: Client, service: str, taken: GoogleError, **place: str) -> Any:
    """What has a name that is taken; somebody may be making it just now. Raises `taken`."""
    there: list[Any] = []

    def seen() -> bool:
        try:
            there[:] = [client.call(service, "get", **place)]
        except ApiError as error:
            if error.status != 404:
                raise
        return bool(there)

    if not client.look(seen, _SHOWN):
        raise taken
    return there[0]


def _require_ours(
    description: str, name: str, labels: Mapping[str, str], project: str, taken: GoogleError
) -> None:
    """Raises ClusterError where something of a wanted name is not this cluster's."""
    theirs = found.described(description)
    cluster = labels["clusterkit-cluster"]
    if theirs.get("clusterkit-id") == labels["clusterkit-id"]:
        return
    if not theirs.get("clusterkit-id"):
        raise ClusterError(
            f"{name} is there already and clusterkit did not make it ({taken.words}) "
            f"Remove it, or give the cluster another name than {cluster!r}."
        ) from taken
    owner = theirs.get("clusterkit-owner", "somebody")
    where = f" in {theirs[_REGION]}" if _REGION in theirs else ""
    raise ClusterError(
        f"the name {cluster!r} is taken in the project {project} by another cluster{where} (id "
        f"{theirs['clusterkit-id']}, of {owner}, since {since(theirs)}). Give yours another name, "
        f"or, if that one is yours too, `clusterkit adopt {cluster}` takes it over."
    ) from taken
