"""New machines: `insert`, and `bulkInsert` of a zone and of a region."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from doubles.gce import catalogue, operations
from doubles.gce.instances import began, forget
from doubles.gce.operations import Failed
from doubles.gce.plans import Plan
from doubles.gce.wire import Asked, GoogleError
from doubles.gce.world import Thing, World, method, scope_of

_MOST = 1000


@method("instances.insert")
def insert(world: World, asked: Asked) -> Thing:
    for name in ("sourceInstanceTemplate", "sourceMachineImage"):
        if name in asked.params:
            raise GoogleError(400, f"The double does not know '{name}'.")
    scope = scope_of(asked.params)
    plan = Plan(world, asked.params["zone"], asked.body, bulk=False)
    count, errors = plan.room(1, 1)
    one = plan.make(asked.body["name"])
    if not count:  # it is seen for a moment

        def refused() -> None:
            forget(world, one)
            raise Failed(*errors)

        return operations.begin(world, scope, "insert", one, refused)
    world.gce.taken(plan.key, plan.zone, plan.market, 1)
    return world.gce.boot(world, one, "insert", partial(began, world, one))


@method("instances.bulkInsert")
def bulk_insert(world: World, asked: Asked) -> Thing:
    scope = scope_of(asked.params)
    return _bulk(world, asked.body, scope, [asked.params["zone"]])


@method("regionInstances.bulkInsert")
def region_bulk_insert(world: World, asked: Asked) -> Thing:
    scope, region = scope_of(asked.params), asked.params["region"]
    policy = asked.body.get("locationPolicy", {})
    if policy.get("targetShape", "ANY_SINGLE_ZONE") != "ANY_SINGLE_ZONE":
        raise _wrong("locationPolicy.targetShape", "The double knows ANY_SINGLE_ZONE only.")
    here = [f"{region}-{letter}" for letter in catalogue.REGIONS[region]]
    preferences: dict[str, str] = {}
    for place, one in policy.get("locations", {}).items():
        zone = place.removeprefix("zones/")
        if zone not in here or zone == place:
            raise _wrong("locationPolicy.locations", f"'{place}' is no zone of {region}.")
        preferences[zone] = one.get("preference", "PREFERENCE_UNSPECIFIED")
    chosen = policy.get("zones", ())
    if chosen:
        raise _wrong("locationPolicy.zones", "The double knows `locations` only.")
    some = "ALLOW" in preferences.values()
    zones = [
        one for one in here
        if preferences.get(one, "DENY" if some else "ALLOW") != "DENY"
    ]  # fmt: skip
    return _bulk(world, asked.body, scope, zones)


def _bulk(world: World, body: Mapping[str, Any], scope: str, zones: list[str]) -> Thing:
    count, least, properties = _wanted(body)
    plans, refusal = [], None
    for zone in zones:
        try:
            plans.append(Plan(world, zone, properties, bulk=True))
        except GoogleError as error:
            refusal = refusal or error
    if not plans:
        assert refusal is not None
        raise refusal
    names = _names(world, body, count, [plan.scope for plan in plans])
    best, granted, errors = plans[0], -1, list[Thing]()
    for plan in plans:
        found, why = plan.room(count, least)
        errors += [one for one in why if one not in errors]
        if found > granted:
            best, granted = plan, found
    target = f"{world.gce.url}/compute/v1/projects/{world.gce.project}/{scope}/instances"
    group = str(uuid.uuid4())
    free = [name for name in names if not _is_taken(world, best.scope, name)]
    for name in names:
        if name not in free:
            _refused_alone(world, best.scope, name, group)
    granted = min(granted, len(free)) if min(granted, len(free)) >= least else 0
    if not granted:
        # What a machine's own operation tells, this one does not: googleapis/google-cloud-go#5168.
        first = operations.trouble("VM_MIN_COUNT_NOT_REACHED", least=least)

        def refused() -> None:
            _told(parent, zones, best.zone, count, 0)
            raise Failed(first, *errors)

        parent = operations.begin(world, scope, "bulkInsert", target, refused)
        parent["operationGroupId"] = group
        _told(parent, zones, best.zone, count, None)
        return parent
    parent = operations.begin(world, scope, "bulkInsert", target, waits=True)
    parent["operationGroupId"] = group
    _told(parent, zones, best.zone, count, None)
    machines = [best.make(name) for name in free[-granted:]]  # which ones, Google does not say
    world.gce.taken(best.key, best.zone, best.market, granted)
    waiting = {one["id"] for one in machines}

    def ready(one: Thing) -> None:
        began(world, one)
        waiting.discard(one["id"])
        if not waiting:
            _told(parent, zones, best.zone, count, granted)
            operations.finish(parent)

    for one in machines:
        child = world.gce.boot(world, one, "insert", partial(ready, one))
        child["operationGroupId"] = group
    return parent


def _wanted(body: Mapping[str, Any]) -> tuple[int, int, Mapping[str, Any]]:
    """How many, how many at least, and of what kind. Raises GoogleError."""
    if "sourceInstanceTemplate" in body or "instanceFlexibilityPolicy" in body:
        raise _wrong("sourceInstanceTemplate", "The double knows neither it nor flexibility.")
    if "instanceProperties" not in body:
        raise _wrong("instanceProperties", "A value is required.")
    count = int(body.get("count", 0))
    if not 1 <= count <= _MOST:
        raise _wrong("count", f"Values must be between 1 and {_MOST}.")
    least = int(body.get("minCount", count))
    if not 1 <= least <= count:
        raise _wrong("minCount", f"Values must be between 1 and {count}.")
    return count, least, body["instanceProperties"]


def _names(world: World, body: Mapping[str, Any], count: int, scopes: list[str]) -> list[str]:
    """Those that are said, or the first of the pattern that are free. Raises GoogleError."""
    named, pattern = body.get("perInstanceProperties"), body.get("namePattern", "")
    if bool(named) == bool(pattern):
        words = "Exactly one of namePattern and perInstanceProperties must be specified."
        raise _wrong("namePattern", words)
    if named:
        if len(named) != count:
            raise _wrong("perInstanceProperties", f"It must have {count} names, as count says.")
        if any("name" in one for one in named.values()):
            raise _wrong("perInstanceProperties[0].name", "It is output only; the key is the name.")
        names = sorted(named, key=lambda one: (len(one), one))
        for name in names:
            _check_name(name)
        return names
    taken = {one["name"] for scope in scopes for one in world.within("instances", scope)}
    taken |= {one["name"] for scope in scopes for one in world.within("disks", scope)}
    hashes = pattern.count("#")
    if not hashes or "#" * hashes not in pattern:
        raise _wrong("namePattern", "It must have one run of '#'.")
    made: list[str] = []
    number = 1
    while len(made) < count:
        name = pattern.replace("#" * hashes, f"{number:0{hashes}}")
        if name not in taken:
            _check_name(name)
            made.append(name)
        number += 1
    return made


def _is_taken(world: World, scope: str, name: str) -> bool:
    return any(
        name == one["name"] for kind in ("instances", "disks") for one in world.within(kind, scope)
    )


def _refused_alone(world: World, scope: str, name: str, group: str) -> None:
    """A name that is taken is found out by the operation of that machine alone: slurm-gcp's
    resume.py.
    """
    words = f"The resource '{world.path('instances', scope, name)}' already exists"

    def refused() -> None:
        raise Failed(operations.trouble("RESOURCE_ALREADY_EXISTS", words))

    link = world.link("instances", scope, name)
    one = operations.begin(world, scope, "insert", link, refused)
    one |= {"operationGroupId": group, "_looks": 0}  # that of all waits for it


def _check_name(name: str) -> None:
    wanted = r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"
    if not re.fullmatch(wanted, name):
        raise _wrong("perInstanceProperties", f"'{name}' must be a match of regex '{wanted}'")


def _told(operation: Thing, zones: list[str], chosen: str, count: int, created: int | None) -> None:
    """What the operation says of each place; `created` is None while it is on the way."""
    places = {}
    for zone in zones:
        wanted = count if zone == chosen else 0
        made = (created or 0) if zone == chosen else 0
        status = "CREATING" if created is None and wanted else "DONE"
        places[f"zones/{zone}"] = {
            "status": status, "targetVmCount": wanted, "createdVmCount": made,
            "failedToCreateVmCount": 0 if created is None else wanted - made, "deletedVmCount": 0,
        }  # fmt: skip
    operation["instancesBulkInsertOperationMetadata"] = {"perLocationStatus": places}


def _wrong(field: str, words: str) -> GoogleError:
    return GoogleError(400, f"Invalid value for field 'resource.{field}'. {words}")
