"""What Google offers, as it shows it: regions with their quotas, zones, types, the project."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any

from doubles.gce import catalogue
from doubles.gce.wire import Asked
from doubles.gce.world import Thing, World, last, method, stamp

_PLATFORMS = ["Ampere Altra", "Intel Broadwell", "Intel Cascade Lake", "Intel Skylake"]


def regions(world: World, _scope: str) -> list[Thing]:
    made = []
    for region, letters in catalogue.REGIONS.items():
        zones = [world.link("zones", "", f"{region}-{one}") for one in letters]
        limits = {**catalogue.REGION_QUOTAS}
        limits |= {metric: 0.0 for where, metric in world.gce.quotas if where in (region, "*")}
        one = {"name": region, "status": "UP", "zones": zones, "description": region,
               "supportsPzs": False, "quotas": quotas(world, region, limits)}  # fmt: skip
        made.append(_fixed(world, "regions", "global", one))
    return made


def zones(world: World, _scope: str) -> list[Thing]:
    made = []
    for zone in catalogue.ZONES:
        region = world.link("regions", "", catalogue.region_of(zone))
        one = {"name": zone, "status": "UP", "region": region, "description": zone,
               "supportsPzs": False, "availableCpuPlatforms": _PLATFORMS}  # fmt: skip
        made.append(_fixed(world, "zones", "global", one))
    return made


def machine_types(world: World, scope: str) -> list[Thing]:
    zone = last(scope)
    made = []
    for type_ in catalogue.TYPES.values():
        if not has(world, type_.name, zone):
            continue
        one: Thing = {
            "name": type_.name, "guestCpus": type_.cpus, "memoryMb": type_.memory, "zone": zone,
            "description": f"{type_.cpus} vCPUs, {type_.memory / 1024:g} GB RAM",
            "imageSpaceGb": 0, "maximumPersistentDisks": 128, "isSharedCpu": type_.shared,
            "maximumPersistentDisksSizeGb": "263168", "architecture": type_.arch,
        }  # fmt: skip
        if type_.gpus:
            gpu = {"guestAcceleratorType": type_.gpu, "guestAcceleratorCount": type_.gpus}
            one["accelerators"] = [gpu]
        made.append(_fixed(world, "machineTypes", scope, one))
    return made


def accelerator_types(world: World, scope: str) -> list[Thing]:
    zone = last(scope)
    made = []
    for gpu in catalogue.GPUS.values():
        if zone in gpu.zones and (gpu.type, zone) not in world.gce.lacks:
            one = {"name": gpu.type, "description": gpu.name, "maximumCardsPerInstance": gpu.most,
                   "zone": world.link("zones", "", zone)}  # fmt: skip
            made.append(_fixed(world, "acceleratorTypes", scope, one))
    return made


#: Collections that are not kept, but are as the catalogue and the knobs say.
OFFERED: dict[str, Callable[[World, str], list[Thing]]] = {
    "regions": regions, "zones": zones, "machineTypes": machine_types,
    "acceleratorTypes": accelerator_types,
}  # fmt: skip


@method("projects.get")
def project(world: World, asked: Asked) -> Thing:
    name = world.gce.project
    limits = {**catalogue.GLOBAL_QUOTAS}
    limits |= {metric: 0.0 for where, metric in world.gce.quotas if not where}
    return {
        "kind": "compute#project", "id": "1066737951711000000", "name": name,
        "creationTimestamp": stamp(), "xpnProjectStatus": "UNSPECIFIED_XPN_PROJECT_STATUS",
        "commonInstanceMetadata": {"kind": "compute#metadata", "fingerprint": "YBmHu5mfCCA="},
        "quotas": quotas(world, "", limits), "defaultNetworkTier": "PREMIUM",
        "selfLink": f"{world.gce.url}/compute/v1/projects/{name}",
        "vmDnsSetting": "ZONAL_ONLY", "cloudArmorTier": "CA_STANDARD",
        "defaultServiceAccount": "1066737951711-compute@developer.gserviceaccount.com",
    }  # fmt: skip


def has(world: World, type_: str, zone: str) -> bool:
    """Whether a zone has a machine type."""
    found = catalogue.TYPES.get(type_)
    return found is not None and zone in found.zones and (type_, zone) not in world.gce.lacks


# -- quotas ----------------------------------------------------------------------------------------


def quotas(world: World, region: str, limits: Iterable[str]) -> list[Thing]:
    return [
        {
            "metric": one,
            "limit": float(limit(world, region, one)),
            "usage": used(world, region, one),
        }
        for one in sorted(limits)
    ]


def limit(world: World, region: str, metric: str) -> float:
    """`region` is "" for those of all regions."""
    default = (catalogue.REGION_QUOTAS if region else catalogue.GLOBAL_QUOTAS).get(metric, 0)
    fallback = world.gce.quotas.get(("*", metric), default) if region else default
    return world.gce.quotas.get((region, metric), fallback)


def used(world: World, region: str, metric: str) -> float:
    total = 0.0
    if metric in ("FIREWALLS", "NETWORKS", "IMAGES", "SNAPSHOTS"):
        return float(len(world.all(metric.lower())))
    for one in world.all("instances"):
        if one["status"] in ("TERMINATED", "STOPPING") and metric != "INSTANCES":
            continue
        if not region or one["_region"] == region:
            total += one["_needs"].get(metric, 0)
    if metric in ("DISKS_TOTAL_GB", "SSD_TOTAL_GB", "HDB_TOTAL_GB"):
        for one in world.all("disks"):
            if f"regions/{region}" == f"regions/{catalogue.region_of(last(one['zone']))}":
                total += int(one["sizeGb"]) if metric == disk_quota(last(one["type"])) else 0
    if metric == "STATIC_ADDRESSES":
        total += len(world.within("addresses", f"regions/{region}"))
    return total


def disk_quota(type_: str) -> str:
    kinds = {"pd-standard": "DISKS_TOTAL_GB", "hyperdisk-balanced": "HDB_TOTAL_GB"}
    return kinds.get(type_, "SSD_TOTAL_GB")


def needs(world: World, region: str, type_: catalogue.Type, gpu: str, count: int,
          spot: bool) -> dict[str, float]:  # fmt: skip
    """Metric -> how much one running machine counts against it. Spot machines have GPU quotas of
    their own, and one for processors where the project was given any (compute/docs/instances/spot).
    """
    cpus = catalogue.cpu_quota(type_.family)
    if spot and limit(world, region, "PREEMPTIBLE_CPUS") > 0:
        cpus = "PREEMPTIBLE_CPUS"
    found: dict[str, float] = {cpus: type_.cpus, "CPUS_ALL_REGIONS": type_.cpus, "INSTANCES": 1}
    if gpu:
        metric = catalogue.GPUS[gpu].quota
        found[f"PREEMPTIBLE_{metric}" if spot else metric] = count
        found["GPUS_ALL_REGIONS"] = count
    return found


def exceeded(
    world: World, region: str, wanted: dict[str, float], count: int
) -> tuple[str, str, float] | None:
    """Region (or ""), metric and limit of the first quota that `count` machines would exceed."""
    for metric, each in wanted.items():
        where = "" if metric in catalogue.GLOBAL_QUOTAS else region
        most = limit(world, where, metric)
        known = metric in catalogue.REGION_QUOTAS or metric in catalogue.GLOBAL_QUOTAS
        if not known and (where, metric) not in world.gce.quotas:
            continue
        if used(world, where, metric) + each * count > most:
            return where, metric, most
    return None


def _fixed(world: World, collection: str, scope: str, one: dict[str, Any]) -> Thing:
    """The same each time that it is shown."""
    id_ = str(zlib.crc32(f"{collection}{scope}{one['name']}".encode()) + 1)
    made = {"creationTimestamp": "1969-12-31T16:00:00.000-08:00", "id": id_}
    said = {**one, **made}
    if "zone" not in one or "/" in one["zone"]:
        return world.dressed(collection, scope, said)
    return {**world.dressed(collection, scope, said), "zone": one["zone"]}
