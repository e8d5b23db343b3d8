"""Machines that are made: with one call for all of a group, or one for each."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from clusterkit.cluster.cloud import api
from clusterkit.cluster.cloud.api import Instance, Launch, Refused
from clusterkit.cluster.cloud.wishes import machine_name
from clusterkit.cluster.cloud_values import gce_disk_type
from clusterkit.cluster.providers.gce import found, machines, offers, words
from clusterkit.cluster.providers.gce.client import Client
from clusterkit.cluster.providers.gce.words import ApiError, GoogleError, OperationError

#: What to do about a name that is taken though no machine of the cluster has it.
_UNLABELLED = (
    "It has not this cluster's labels: give it those that the others have, or end it, then repeat "
    "the same command."
)
#: Seconds for Google to list what it has made.
_SHOWN = 30.0
#: The same, of machines of which some may be missing.
_SHOWN_MORE = 1.0


def launch(client: Client, launch: Launch) -> list[Instance]:
    """Launch machines, or hear again what this token launched. Raises api.Refused."""
    taken: list[GoogleError] = []
    stays = 0  # how often none of them was on its way out: it may have gone just then
    tries = 0

    def done() -> bool:
        """False while earlier machines of these names are still on their way out."""
        nonlocal stays, tries
        tries += 1
        try:
            if not _bulk(client, launch, tries):
                _one_by_one(client, launch)
        except GoogleError as error:
            if not words.is_there(error):
                raise
            if machines.launched(client, launch.token):
                return True  # asked for so long ago that Google has forgotten the request
            stays = 0 if _leaving(client, launch) else stays + 1
            if stays > 1:
                raise
            taken[:] = [error]
            return False
        return True

    try:
        if not client.look(done, machines.RESTING):
            raise taken[0]
    except GoogleError as error:
        refused(client, error)
    return _shown(client, launch)


def await_names(client: Client, launch: Launch) -> None:
    """Wait for earlier machines of these names that are on their way out; not for ever.

    A request for many that finds a name taken begins the others, and ends them again.
    """
    client.look(lambda: not _leaving(client, launch), machines.RESTING)


def names(launch: Launch) -> list[str]:
    """The machines' names in order."""
    cluster = launch.labels["clusterkit-cluster"]
    return [machine_name(cluster, launch.group, number) for number in launch.numbers]


def properties(launch: Launch) -> dict[str, Any]:
    """InstanceProperties in the SDK's names: of one launch always the same."""
    site, where = launch.site, launch.candidate
    type_, gpu, count = offers.parts(where.type)
    labels = found.labels(launch.labels)
    spot = where.market == "spot"
    gpus = int(launch.labels.get(api.GPUS, "0"))
    near = site.get("placement") if launch.placement else None
    disk = gce_disk_type(site.get("disk type") or "auto", type_)
    scheduling: dict[str, Any] = {
        "on_host_maintenance": "TERMINATE" if spot or gpus or gpu or near else "MIGRATE",
        # Not with a placement: GoogleCloudPlatform/cluster-toolkit, modules/compute/vm-instance.
        "automatic_restart": not (spot or near or site.get("max run")),
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
    if near:
        made["resource_policies"] = [found.last(near)]
    return made


def _bulk(client: Client, launch: Launch, tries: int) -> bool:
    """Launch all with one call. False: the endpoint does not have it, and nothing was done.

    Google answers a request id again with what came of it, names that were taken too: each of the
    `tries` has its own, and the same one when all is begun again.
    """
    zone = launch.candidate.zone
    resource: dict[str, Any] = {
        "count": len(launch.numbers),
        "min_count": launch.least,
        "per_instance_properties": {name: {} for name in names(launch)},
        "instance_properties": properties(launch),
    }
    place = {"zone": zone}
    if zone == client.region:
        place = {"region": zone}
        resource["location_policy"] = {
            "target_shape": "ANY_SINGLE_ZONE",
            "locations": {
                f"zones/{one}": {"preference": "ALLOW"} for one in _zones(client, launch)
            },
        }
    request: dict[str, Any] = {
        **place,
        "request_id": _request_id(launch, f"try {tries}" if tries > 1 else ""),
        "bulk_insert_instance_resource_resource": resource,
    }
    service = "region_instances" if zone == client.region else "instances"
    if not client.has(service, "bulk_insert"):
        return False
    try:
        operation = client.act(service, "bulk_insert", **request)
    except OperationError:
        # Google ends what it has made when that is less than the least; seen to, not believed.
        made = [one for one in machines.launched(client, launch.token) if one.alive]
        if len(made) >= launch.least:
            return True
        machines.end(client, made)
        raise
    except ApiError as error:
        if not client.lacks(error):  # Google has it
            raise
        return False
    return bool(operation.name)  # others may say {} to anything


def _zones(client: Client, launch: Launch) -> list[str]:
    """The zones that have the type, where any of them will do."""
    return launch.site.get(f"zones {launch.candidate.type}", "").split() or [*offers.zones(client)]


def _leaving(client: Client, launch: Launch) -> list[Instance]:
    """Earlier machines of these names that are on their way out, or down."""
    wanted = set(names(launch))
    there = machines.instances(client, launch.labels[found.ID])
    leaving = ("stopping", "ending")
    return [one for one in there if one.state in leaving and found.name_of(one) in wanted]


def _one_by_one(client: Client, launch: Launch) -> None:
    """One call for each machine. Where any zone will do, zone after zone, until one has them."""
    zone = launch.candidate.zone
    zones = _zones(client, launch) if zone == client.region else [zone]
    # A request that was refused for a name could not be repeated beside those that were taken.
    await_names(client, launch)
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
    common = _in_zone(client, properties(launch), zone)

    def one(name: str) -> GoogleError | None:
        request: dict[str, Any] = {
            "zone": zone,
            "request_id": _request_id(launch, f"{zone}/{name}"),
            "instance_resource": {**common, "name": name},
        }
        try:
            client.act("instances", "insert", **request)
        except GoogleError as error:
            return error
        return None

    wanted = names(launch)
    with ThreadPoolExecutor(min(machines.AT_ONCE, len(wanted))) as pool:
        refusals = [error for error in pool.map(one, wanted) if error is not None]
    if len(wanted) - len(refusals) >= launch.least:
        return
    made: list[Instance] = []

    def enough() -> bool:
        made[:] = [one for one in machines.launched(client, launch.token) if one.zone == zone]
        return len(made) >= launch.least

    # A name that is taken may be by this launch, whose answer was lost: shown a little later.
    if not client.look(enough, _SHOWN if any(map(words.is_there, refusals)) else 0):
        machines.end(client, made)
        raise refusals[0]


def _request_id(launch: Launch, part: str = "") -> str:
    """That of a launch, or of a part of it; of version 4, as google.aip.dev/155 has them."""
    token = uuid.UUID(launch.token)
    made = uuid.uuid5(token, part) if part else token
    return str(uuid.UUID(bytes=made.bytes, version=4))


def _in_zone(client: Client, made: dict[str, Any], zone: str) -> dict[str, Any]:
    """InstanceProperties as an Instance of a zone has them: by path."""
    disk = made["disks"][0]
    parameters = dict(disk["initialize_params"])
    parameters["disk_type"] = f"zones/{zone}/diskTypes/{parameters['disk_type']}"
    gpus = [
        {**one, "accelerator_type": f"zones/{zone}/acceleratorTypes/{one['accelerator_type']}"}
        for one in made.get("guest_accelerators", ())
    ]
    policies = f"projects/{client.project}/regions/{client.region}/resourcePolicies"
    return {
        **made,
        "machine_type": f"zones/{zone}/machineTypes/{made['machine_type']}",
        "disks": [{**disk, "initialize_params": parameters}],
        "guest_accelerators": gpus,
        "resource_policies": [f"{policies}/{one}" for one in made.get("resource_policies", ())],
    }


def _shown(client: Client, launch: Launch) -> list[Instance]:
    """The machines that were made; Google may take a moment to list them all."""
    made: list[Instance] = []

    def there(count: int) -> bool:
        made[:] = machines.launched(client, launch.token)
        return len(made) >= count

    if client.look(lambda: there(launch.least), _SHOWN) and launch.least < len(launch.numbers):
        client.look(lambda: there(len(launch.numbers)), _SHOWN_MORE)
    return made


def refused(client: Client, error: GoogleError, *, launching: bool = True) -> NoReturn:
    """Raises Refused for Google's refusals of machines, and `error` for anything else.

    `launching`: nothing runs after any other refusal that was heard at the first try.
    """
    kind = words.refusal_kind(error)
    if kind:
        raise Refused(kind, error.words, _advice(client, kind, error)) from error
    taken = words.is_there(error)
    if launching and (taken or isinstance(error, ApiError)) and not getattr(error, "unsure", False):
        advice = f" {_UNLABELLED}" if taken else ""
        raise Refused("never", f"{error}{advice}") from error
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
