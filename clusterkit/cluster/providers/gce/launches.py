"""Machines: launched with one call for all of a group, switched on and off, ended."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from clusterkit.cluster.cloud import api
from clusterkit.cluster.cloud.api import Instance, Launch, Refused
from clusterkit.cluster.cloud.wishes import machine_name
from clusterkit.cluster.cloud_values import gce_disk_type
from clusterkit.cluster.providers.gce import found, words
from clusterkit.cluster.providers.gce.client import Client
from clusterkit.cluster.providers.gce.offers import parts
from clusterkit.cluster.providers.gce.words import ApiError, GoogleError

#: What an endpoint answers that does not have bulkInsert.
_UNHEARD_OF = (404, 405, 501)
#: Seconds for Google to list what it has made.
_SHOWN = 30.0
#: So often metadata are looked at anew that somebody else has changed.
_TRIES = 5
#: Calls for single machines that are on the way at once.
_AT_ONCE = 16


def launch(client: Client, launch: Launch) -> list[Instance]:
    """Launch machines, or hear again what this token launched. Raises api.Refused."""
    try:
        if not _bulk(client, launch):
            _one_by_one(client, launch)
    except GoogleError as error:
        _refused(client, error)
    return _shown(client, launch)


def names(launch: Launch) -> list[str]:
    """The machines' names in order."""
    cluster = launch.labels["clusterkit-cluster"]
    return [machine_name(cluster, launch.group, number) for number in launch.numbers]


def properties(launch: Launch) -> dict[str, Any]:
    """InstanceProperties in the SDK's names: of one launch always the same."""
    site, where = launch.site, launch.candidate
    type_, gpu, count = parts(where.type)
    labels = found.labels(launch.labels)
    spot = where.market == "spot"
    gpus = int(launch.labels.get(api.GPUS, "0"))
    disk = gce_disk_type(site.get("disk type") or "auto", type_)
    scheduling: dict[str, Any] = {
        "on_host_maintenance": "TERMINATE" if spot or gpus or gpu else "MIGRATE",
        "automatic_restart": not spot,
        "provisioning_model": "SPOT" if spot else "STANDARD",
    }
    if spot:
        scheduling["instance_termination_action"] = "DELETE"
    if site.get("max run"):
        scheduling |= {
            "max_run_duration": {"seconds": int(site["max run"])},
            "instance_termination_action": "DELETE",
        }
    interface: dict[str, Any] = {"network": site["network"]}
    if site.get("subnetwork"):
        interface["subnetwork"] = site["subnetwork"]
    if site.get("address") == "public":
        interface["access_configs"] = [{"name": "External NAT", "type_": "ONE_TO_ONE_NAT"}]
    made: dict[str, Any] = {
        "machine_type": type_,
        "labels": labels,
        "tags": {"items": [site["tag"]]},
        "metadata": {
            "items": [
                {"key": "user-data", "value": launch.user_data},
                {"key": "enable-oslogin", "value": "FALSE"},
                {"key": "block-project-ssh-keys", "value": "TRUE"},
            ]
        },
        "network_interfaces": [interface],
        "scheduling": scheduling,
        "disks": [
            {
                "boot": True,
                "auto_delete": True,
                "initialize_params": {
                    "source_image": launch.image,
                    "disk_size_gb": launch.disk,
                    "disk_type": disk,
                    "labels": labels,
                },
            }
        ],
    }
    if gpu:
        made["guest_accelerators"] = [{"accelerator_type": gpu, "accelerator_count": count}]
    if launch.placement and site.get("placement"):
        made["resource_policies"] = [site["placement"]]
    return made


def launched(client: Client, token: str) -> list[Instance]:
    """What a launch made, as far as Google shows it still."""
    told = instances(client, f"labels.{api.LAUNCH}={token}")
    return sorted(told, key=lambda one: one.index)


def instances(client: Client, filter_: str) -> list[Instance]:
    """Those of the region that a filter chooses."""
    told = client.pages("instances", "aggregated_list", filter=filter_)
    return [
        one
        for scope, have in told
        for said in have.instances
        if found.last(scope).startswith(f"{client.region}-")
        for one in [found.instance(said)]
    ]


def start(client: Client, some: Sequence[Instance]) -> None:
    """Switch on again. Raises api.Refused."""
    try:
        _all(client, "start", some)
    except GoogleError as error:
        kind = words.refusal_kind(error)
        if not kind:
            raise
        raise Refused(kind, error.words, _advice(client, kind, error)) from error


def stop(client: Client, some: Sequence[Instance]) -> None:
    """Switch off and keep the disks."""
    _all(client, "stop", some)


def end(client: Client, some: Sequence[Instance]) -> None:
    """End them and their disks; those that are gone are no error."""
    _all(client, "delete", some)


def give_user_data(client: Client, instance: Instance, user_data: str) -> None:
    """What a stopped instance reads at its next boot; others may change its metadata meanwhile."""
    name = {"zone": instance.zone, "instance": found.name_of(instance)}
    for tries_left in reversed(range(_TRIES)):
        said = client.call("instances", "get", **name)
        kept = [one for one in said.metadata.items if one.key != "user-data"]
        items = [{"key": one.key, "value": one.value} for one in kept]
        made = {
            "fingerprint": said.metadata.fingerprint,
            "items": [*items, {"key": "user-data", "value": user_data}],
        }
        request: dict[str, Any] = {**name, "metadata_resource": made}
        try:
            client.act("instances", "set_metadata", **request)
        except ApiError as error:
            if error.status != 412 or not tries_left:
                raise
        else:
            return


def _all(client: Client, method: str, some: Sequence[Instance]) -> None:
    """One call for each, at the same time; the first error after all were asked."""

    def one(instance: Instance) -> None:
        try:
            client.act("instances", method, zone=instance.zone, instance=found.name_of(instance))
        except ApiError as error:
            if error.status != 404 or method != "delete":
                raise

    with ThreadPoolExecutor(min(_AT_ONCE, max(1, len(some)))) as pool:
        tasks = [pool.submit(one, instance) for instance in some]
    for task in tasks:
        task.result()


def _bulk(client: Client, launch: Launch) -> bool:
    """Launch all with one call. False: the endpoint does not have it, and nothing was done."""
    zone = launch.candidate.zone
    resource: dict[str, Any] = {
        "count": len(launch.numbers),
        "min_count": launch.least,
        "per_instance_properties": {name: {"name": name} for name in names(launch)},
        "instance_properties": properties(launch),
    }
    place = {"zone": zone}
    if zone == client.region:
        place = {"region": zone}
        resource["location_policy"] = {
            "target_shape": "ANY_SINGLE_ZONE",
            "locations": {f"zones/{one}": {"preference": "ALLOW"} for one in _zones(launch)},
        }
    request: dict[str, Any] = {
        **place,
        "request_id": str(uuid.UUID(launch.token)),
        "bulk_insert_instance_resource_resource": resource,
    }
    service = "region_instances" if zone == client.region else "instances"
    try:
        client.act(service, "bulk_insert", **request)
    except ApiError as error:
        # Google says 404 as well of a project, an image or a network that is not there.
        if error.status not in _UNHEARD_OF or re.search(r"projects/|resource '", error.said):
            raise
        return False
    return True


def _zones(launch: Launch) -> list[str]:
    """The zones that have the type, where any of them will do."""
    return launch.site.get(f"zones {launch.candidate.type}", "").split()


def _one_by_one(client: Client, launch: Launch) -> None:
    """One call for each machine. Where any zone will do, zone after zone, until one has them."""
    zone = launch.candidate.zone
    zones = _zones(launch) if zone == client.region else [zone]
    for number, one in enumerate(zones, 1):
        try:
            _each(client, launch, one)
            break
        except GoogleError as error:
            if number == len(zones) or not words.refusal_kind(error):
                raise


def _each(client: Client, launch: Launch, zone: str) -> None:
    """As with one call for all, less than the least is nothing: what was made is ended again.

    Raises the first machine's GoogleError.
    """
    common = _in_zone(properties(launch), zone)

    def one(name: str) -> GoogleError | None:
        request: dict[str, Any] = {
            "zone": zone,
            "request_id": str(uuid.uuid5(uuid.UUID(launch.token), f"{zone}/{name}")),
            "instance_resource": {**common, "name": name},
        }
        try:
            client.act("instances", "insert", **request)
        except GoogleError as error:
            return error
        return None

    wanted = names(launch)
    with ThreadPoolExecutor(min(_AT_ONCE, len(wanted))) as pool:
        refusals = [error for error in pool.map(one, wanted) if error is not None]
    if len(wanted) - len(refusals) < launch.least:
        end(client, launched(client, launch.token))
        raise refusals[0]


def _in_zone(made: dict[str, Any], zone: str) -> dict[str, Any]:
    """InstanceProperties as an Instance of a zone has them: by path."""
    disk = made["disks"][0]
    parameters = dict(disk["initialize_params"])
    parameters["disk_type"] = f"zones/{zone}/diskTypes/{parameters['disk_type']}"
    gpus = [
        {**one, "accelerator_type": f"zones/{zone}/acceleratorTypes/{one['accelerator_type']}"}
        for one in made.get("guest_accelerators", ())
    ]
    return {
        **made,
        "machine_type": f"zones/{zone}/machineTypes/{made['machine_type']}",
        "disks": [{**disk, "initialize_params": parameters}],
        "guest_accelerators": gpus,
    }


def _shown(client: Client, launch: Launch) -> list[Instance]:
    """The machines that were made; Google may take a moment to list them all."""
    made: list[Instance] = []

    def all_there() -> bool:
        made[:] = launched(client, launch.token)
        return len(made) >= len(launch.numbers)

    client.look(all_there, _SHOWN if launch.least == len(launch.numbers) else 1.0)
    return made


def _refused(client: Client, error: GoogleError) -> NoReturn:
    """Raises Refused for Google's refusals of a launch, and `error` for anything else."""
    kind = words.refusal_kind(error)
    if kind:
        raise Refused(kind, error.words, _advice(client, kind, error)) from error
    if isinstance(error, ApiError) and not error.unsure:
        raise Refused("never", str(error)) from error
    raise error


def _advice(client: Client, kind: str, error: GoogleError) -> str:
    from clusterkit.cluster.providers.gce import quotas

    if kind == "quota":
        metric, limit, where = "", None, client.region
        if isinstance(error, words.OperationError):
            trouble = words.cause(error.troubles)
            metric, limit, where = trouble.metric, trouble.limit, trouble.where or where
        return quotas.advice(client.project, error.said, where, metric, limit)
    if kind == "capacity":
        return "More types or zones in the settings give it more to choose from; or try later."
    return "`zones: any` leaves the choice of the zone open."
