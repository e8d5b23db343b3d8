"""What is in the zones of a region, in the region, or global: all things of one kind.

Google tells all in one call (`aggregatedList`). Another endpoint may have only the lists of each
zone, and none of the zones: then the names that zones have are tried. Google's call fails, too,
where it does not reach a zone anywhere: compute_v1's documentation of `aggregated_list`. The lists
of the zones of the region do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clusterkit.cluster.providers.gce import words
from clusterkit.cluster.providers.gce.client import Client
from clusterkit.cluster.providers.gce.found import last
from clusterkit.cluster.providers.gce.words import ApiError

#: The last letters of zones: cloud.google.com/compute/docs/regions-zones.
_LETTERS = "abcdef"

#: Each with its scope, as "zones/us-central1-a".
Things = list[tuple[str, Any]]


def instances(client: Client, filter_: str = "") -> Things:
    """Those of the region. `filter_` lets Google tell less; whoever calls looks at what comes.

    Raises ApiError (`lacking`) where another endpoint has no call that tells of any.
    """
    return _things(client, "instances", "zone", filter_)


def disks(client: Client, filter_: str = "") -> Things:
    """Likewise, and those of the region itself."""
    return _things(client, "disks", "zone", filter_)


def addresses(client: Client, filter_: str = "") -> Things:
    """Likewise, and global ones."""
    return _things(client, "addresses", "region", filter_)


def all_the_same(client: Client, error: ApiError) -> bool:
    """Whether another endpoint, which tells nothing of the project, tells of its machines.

    Raises ClusterError where it does not tell of them.
    """
    if client.endpoint is None or not (error.lacking or error.status == 404):
        return False
    instances(client)
    return True


def answering(client: Client) -> tuple[str, ...]:
    """The zones whose machines can be listed."""
    told = _each(client, "instances", "zone", zones(client), {})
    return tuple(scope.partition("/")[2] for scope in told)


def zones(client: Client) -> list[str]:
    """The zones of the region, those that are down too; where nobody tells, what may be one."""
    told = listed(client)
    if told is None:
        return [f"{client.region}-{letter}" for letter in _LETTERS]
    return sorted(str(one.name) for one in told if region_of(one) == client.region)


def listed(client: Client) -> list[Any] | None:
    """The zones of all regions; None where another endpoint does not tell any."""
    if not client.has("zones", "list"):
        return None
    try:
        told = client.pages("zones", "list")
    except ApiError as error:
        if not client.lacks(error):
            raise
        return None
    return None if client.endpoint and not told else told


def region_of(zone: Any) -> str:
    """The region of a Zone of compute_v1; its name tells it as well."""
    return last(zone.region) or str(zone.name).rpartition("-")[0]


def _things(client: Client, service: str, kind: str, filter_: str) -> Things:
    asked = {"filter": filter_} if filter_ else {}
    if client.has(service, "aggregated_list"):
        try:
            told = client.pages(service, "aggregated_list", **asked)
        except ApiError as error:
            if not client.lacks(error) and not words.unclear(error.status):
                raise
        else:
            ours = [(scope, have) for scope, have in told if _ours(scope, client.region)]
            found = [(scope, one) for scope, have in ours for one in getattr(have, service)]
            # Google names its zones where they have nothing, too; others may say {} to anything.
            if told or client.endpoint is None:
                return found
    places = [client.region] if kind == "region" else zones(client)
    try:
        by_scope = _each(client, service, kind, places, asked)
    except ApiError as error:
        if not error.lacking or not client.has(service, "aggregated_list"):
            raise
        return []
    return [(scope, one) for scope, have in by_scope.items() for one in have]


def _each(
    client: Client, service: str, kind: str, names: Sequence[str], asked: Mapping[str, str]
) -> dict[str, list[Any]]:
    """One list after the other, by scope: of the zones that another endpoint has.

    Raises ApiError when it has no list of any.
    """
    found: dict[str, list[Any]] = {}
    absent: list[ApiError] = []
    for name in names:
        try:
            found[f"{kind}s/{name}"] = client.pages(service, "list", **{kind: name}, **asked)
        except ApiError as error:
            if client.endpoint is None or not (error.lacking or error.status == 404):
                raise
            absent.append(error)
    if absent and not found:
        raise next((error for error in absent if error.lacking), absent[0])
    return found


def _ours(scope: str, region: str) -> bool:
    name = last(scope)
    return name in ("global", region) or name.startswith(f"{region}-")
