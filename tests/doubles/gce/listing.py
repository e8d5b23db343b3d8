"""What is only looked up: gets, lists, and lists of all places, of every collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from doubles.gce import filters, wire
from doubles.gce.offers import OFFERED
from doubles.gce.wire import Asked
from doubles.gce.world import KINDS, METHODS, Thing, World, scope_of, shown

#: Collection -> the schema of one, the name of one in paths.
COLLECTIONS = {
    "instances": ("Instance", "instance"), "disks": ("Disk", "disk"),
    "addresses": ("Address", "address"), "globalAddresses": ("Address", "address"),
    "firewalls": ("Firewall", "firewall"), "images": ("Image", "image"),
    "snapshots": ("Snapshot", "snapshot"), "networks": ("Network", "network"),
    "resourcePolicies": ("ResourcePolicy", "resourcePolicy"), "zones": ("Zone", "zone"),
    "subnetworks": ("Subnetwork", "subnetwork"), "regions": ("Region", "region"),
    "machineTypes": ("MachineType", "machineType"), "operations": ("Operation", "operation"),
    "acceleratorTypes": ("AcceleratorType", "acceleratorType"),
}  # fmt: skip
#: Where things of a collection may be; others are in zones.
_PLACES = {
    "addresses": ("regions", "global"), "resourcePolicies": ("regions",),
    "subnetworks": ("regions",), "operations": ("zones", "regions", "global"),
    "disks": ("zones", "regions"),
}  # fmt: skip


def things(world: World, collection: str, scope: str) -> list[Thing]:
    """Those that are seen: a new one is not at once, where `lag` says so."""
    if collection in OFFERED:
        return OFFERED[collection](world, scope)
    seen = []
    for one in world.within(collection, scope):
        if one["_hidden"] > 0:
            one["_hidden"] -= 1
        else:
            seen.append(one)
    return seen


def get(world: World, asked: Asked) -> Thing:
    collection = asked.name.partition(".")[0]
    name = asked.params[COLLECTIONS[collection][1]]
    scope = "global" if collection in ("zones", "regions") else scope_of(asked.params)
    for one in things(world, collection, scope):
        if name in (one["name"], one["id"]):
            return shown(one)
    raise world.unknown(collection, scope, name)


def list_(world: World, asked: Asked) -> Thing:
    collection = asked.name.partition(".")[0].replace("globalAddresses", "addresses")
    scope = scope_of(asked.params)
    return page_of(world, asked, collection, scope, things(world, collection, scope))


def aggregated_list(world: World, asked: Asked) -> Thing:
    collection = asked.name.partition(".")[0]
    found = [
        {**one, "_scope": scope}
        for scope in _scopes(collection)
        for one in things(world, collection, scope)
    ]
    return aggregate(world, asked, collection, found)


def page_of(
    world: World, asked: Asked, collection: str, scope: str, found: Sequence[Mapping[str, Any]]
) -> Thing:
    """One page of a list, in Google's shape."""
    found, more = filters.page(_chosen(asked, collection, found), asked.params)
    made: Thing = {
        "kind": f"compute#{KINDS[collection]}List",
        "id": f"projects/{world.gce.project}/{scope}/{collection}",
        "selfLink": world.link(collection, scope, "").rstrip("/"),
    }
    if found:
        made["items"] = [shown(one) for one in found]
    if more:
        made["nextPageToken"] = more
    return made


def aggregate(
    world: World, asked: Asked, collection: str, found: Sequence[Mapping[str, Any]]
) -> Thing:
    """One page of an aggregated list; places that have nothing on it say so."""
    ordered = sorted(_chosen(asked, collection, found), key=lambda one: str(one["_scope"]))
    missed = {f"zones/{one}" for one in world.gce.unreachable} & set(_scopes(collection))
    ordered = [one for one in ordered if one["_scope"] not in missed]
    page, more = filters.page(ordered, asked.params)
    items: dict[str, Thing] = {}
    for one in page:
        items.setdefault(one["_scope"], {}).setdefault(collection, []).append(shown(one))
    for scope in _scopes(collection):
        warning = {
            "code": "NO_RESULTS_ON_PAGE", "data": [{"key": "scope", "value": scope}],
            "message": f"There are no results for scope '{scope}' on this page.",
        }  # fmt: skip
        if scope in missed:
            words = f"The scope '{scope}' cannot be reached."
            warning = {"code": "UNREACHABLE", "data": warning["data"], "message": words}
        items.setdefault(scope, {"warning": warning})
    made: Thing = {
        "kind": f"compute#{KINDS[collection]}AggregatedList",
        "id": f"projects/{world.gce.project}/aggregated/{collection}",
        "selfLink": world.link(collection, "aggregated", "").rstrip("/"),
        "items": dict(sorted(items.items())),
    }
    if missed:
        base = f"projects/{world.gce.project}"
        made["unreachables"] = [f"{base}/{scope}" for scope in sorted(missed)]
    if more:
        made["nextPageToken"] = more
    return made


def _chosen(asked: Asked, collection: str, found: Sequence[Mapping[str, Any]]) -> list[Any]:
    schema = COLLECTIONS[collection][0]
    return filters.chosen(found, asked.params, lambda field: _known(asked, schema, field))


def _known(asked: Asked, schema: str, field: str) -> bool:
    """Whether the things of a list have such a field."""
    said: Any = {"$ref": schema}
    for part in field.split("."):
        while "$ref" in said or said.get("type") == "array":
            said = asked.method.schemas[said["$ref"]] if "$ref" in said else said["items"]
        inner = said.get("properties", {}).get(part, said.get("additionalProperties"))
        if inner is None:
            return False
        said = inner
    return True


def _scopes(collection: str) -> list[str]:
    from doubles.gce import catalogue

    known = {
        "zones": [f"zones/{one}" for one in catalogue.ZONES],
        "regions": [f"regions/{one}" for one in catalogue.REGIONS],
        "global": ["global"],
    }
    return [one for place in _PLACES.get(collection, ("zones",)) for one in known[place]]


for _method in wire.methods():
    _noun, _, _verb = _method.name.partition(".")
    _handlers = {"get": get, "list": list_, "aggregatedList": aggregated_list}
    if _noun in COLLECTIONS and _verb in _handlers and _method.api == "compute":
        METHODS.setdefault(_method.name, _handlers[_verb])
