"""The limits of a project that launches count against: CPUs, GPUs, addresses, disks of a region.

Which metric a machine type counts against no API tells; the rules are those of
cloud.google.com/compute/resource-usage. Spot machines count against the preemptible metric where
the project has been given any of it, else against the usual one. Limits and use are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode

from clusterkit.cluster.cloud.api import MachineType, Market, Need, Quota
from clusterkit.cluster.cloud_values import gce_disk_type
from clusterkit.errors import ClusterkitError

#: Series whose CPUs count against CPUS; those of the others have a metric of their own. E2 has one
#: in some projects.
_COMMON = ("e2", "f1", "g1", "n1", "custom")
#: Machine types with GPUs in them -> the model in the metric's name.
_BUILT_IN: Mapping[str, str] = {
    r"g2-.+": "L4",
    r"a2-(high|mega)gpu-.+": "A100",
    r"a2-ultragpu-.+": "A100_80GB",
    r"a3-(high|edge)gpu-.+": "H100",
    r"a3-megagpu-.+": "H100_MEGA",
    r"a3-ultragpu-.+": "H200",
}
#: Accelerators whose metric is not named as they are.
_NAMED: Mapping[str, str] = {
    "nvidia-h100-80gb": "H100",
    "nvidia-h100-mega-80gb": "H100_MEGA",
    "nvidia-h200-141gb": "H200",
}
#: Metrics of the whole project.
_ALL_CPUS, _ALL_GPUS = "CPUS_ALL_REGIONS", "GPUS_ALL_REGIONS"
#: Of newer series and GPUs, by region and family; the API of Compute Engine does not tell these.
_FAMILY_CPUS, _FAMILY_GPUS = "CPUS_PER_VM_FAMILY", "GPUS_PER_GPU_FAMILY"
_CONSOLE = "https://console.cloud.google.com/iam-admin/quotas"
#: What the GiB of a kind of disk count against.
_DISKS: Mapping[str, str] = {
    "pd-standard": "DISKS_TOTAL_GB",
    "pd-balanced": "SSD_TOTAL_GB",
    "pd-ssd": "SSD_TOTAL_GB",
    "hyperdisk-balanced": "HDB_TOTAL_GB",
}
#: Told only where they are too small: they seldom are, and a plan is read by people.
_QUIET = ("INSTANCES", "IN_USE_ADDRESSES", *_DISKS.values())

#: Limit and use by metric.
Limits = Mapping[str, tuple[float, float]]


class Project(Protocol):
    """What is asked of the client: limits as metric, limit and use."""

    region: str
    project: str

    def region_quotas(self) -> Sequence[tuple[str, float, float]]: ...

    def project_quotas(self) -> Sequence[tuple[str, float, float]]: ...


@dataclass(frozen=True, slots=True)
class Demand:
    """So much of a metric is needed, for what; `everywhere`: it is one of the whole project."""

    metric: str
    needed: float
    what: str
    everywhere: bool = False


def page(project: str) -> str:
    """Where more is asked for."""
    asked = {"project": project} if project else {}
    return f"{_CONSOLE}?{urlencode({**asked, 'service': 'compute.googleapis.com'})}"


def advice(
    project: str, said: str, region: str, metric: str = "", limit: float | None = None
) -> str:
    """What to do when a launch was refused with QUOTA_EXCEEDED. `said` are Google's words, which
    tell the metric, the limit and the region where these are not given.
    """
    told_metric, told_limit, told_region = told(said)
    metric = metric or told_metric
    limit = told_limit if limit is None else limit
    everywhere = metric.endswith(("_ALL_REGIONS", "-ALL-REGIONS-per-project"))
    where = "in all regions" if everywhere else f"in {told_region or region}"
    name = f"The quota {metric}" if metric else "A quota"
    value = f" is {limit:g} {where}, which" if limit is not None else f" {where}"
    others = "another type or market" if everywhere else "another type, market or region"
    words = (
        f"{name}{value} is too small. Ask for more at {page(project)}"
        f"{f' (filter for {metric})' if metric else ''}, or use {others}."
    )
    if "GPU" in metric and limit == 0:
        words += " A free trial account has no GPUs: it has to be made a paid one first."
    return words


def told(said: str) -> tuple[str, float | None, str]:
    """Metric, limit and region in words like "Quota 'NVIDIA_T4_GPUS' exceeded. Limit: 0.0 in region
    us-central1."; "" and None for what is not there.
    """
    metric = re.search(r"Quota '([^']+)' exceeded", said)
    limit = re.search(r"Limit:?\s+(\d+(?:\.\d+)?)", said)
    region = re.search(r"in region ([a-z0-9-]+)", said)
    return (
        metric[1] if metric else "",
        float(limit[1]) if limit else None,
        region[1] if region else "",
    )


def quotas(
    client: Project, needs: Sequence[Need], *, addresses: bool = True, disk_type: str = "auto"
) -> list[Quota]:
    """The limits that `needs` count against. Never raises for an unknown one.

    `addresses`: each has a public address. The limits of these, of disks and of the number of
    machines are told only where they are too small.
    """
    wanted = [need for need in needs if need.count > 0]
    if not wanted:
        return []
    region, why = _asked(client.region_quotas)
    project, project_why = _asked(client.project_quotas)
    found = [
        _quota(client, one, *((project, project_why) if one.everywhere else (region, why)))
        for one in demands(wanted, region, addresses=addresses, disk_type=disk_type)
    ]
    return [one for one in found if one.short or one.code not in _QUIET]


def _asked(ask: Callable[[], Iterable[tuple[str, float, float]]]) -> tuple[Limits, str]:
    """Limit and use by metric, or why these are not known."""
    try:
        listed = ask()
    except ClusterkitError as error:
        return {}, str(error)
    return {metric: (limit, used) for metric, limit, used in listed}, ""


def demands(
    needs: Sequence[Need], limits: Limits, *, addresses: bool = True, disk_type: str = "auto"
) -> list[Demand]:
    """What `needs` count against, each metric once. `limits` are those of the region: with them
    it is decided whether spot machines have a metric of their own.
    """
    found: dict[str, Demand] = {}
    most: dict[tuple[str, str], float] = {}  # metric and group -> what the largest need takes

    def add(group: str, metric: str, needed: float, what: str, *, everywhere: bool = False) -> None:
        before = found.get(metric, Demand(metric, 0, "", everywhere))
        more = max(needed - most.get((metric, group), 0), 0)
        most[metric, group] = max(needed, most.get((metric, group), 0))
        told = [one for one in before.what.split(", ") if one]
        words = ", ".join(dict.fromkeys([*told, what]))
        found[metric] = Demand(metric, before.needed + more, words, everywhere)

    for number, need in enumerate(needs):
        group = need.group or str(number)
        cpus = float(need.type.cpus * need.count)
        add(group, cpu_metric(need.type.name, need.market, limits), cpus, need.type.name)
        add(group, _ALL_CPUS, cpus, "CPUs", everywhere=True)
        model, each = gpus(need.type)
        if each:
            needed = float(each * need.count)
            add(group, gpu_metric(model, need.market, limits), needed, need.type.name)
            add(group, _ALL_GPUS, needed, "GPUs", everywhere=True)
    for number, need in enumerate(needs):
        group = need.group or str(number)
        add(group, "INSTANCES", need.count, "machines")
        if addresses:
            add(group, "IN_USE_ADDRESSES", need.count, "public addresses")
        disk = _DISKS.get(gce_disk_type(disk_type, need.type.name))
        if need.disk and disk is not None:
            add(group, disk, need.disk * need.count, "disks")
    return list(found.values())


def cpu_metric(type_name: str, market: Market, limits: Limits) -> str:
    """The metric that the CPUs of a type count against."""
    if market == "spot" and _given("PREEMPTIBLE_CPUS", limits):
        return "PREEMPTIBLE_CPUS"
    series = type_name.partition("-")[0]
    own = f"{series.upper()}_CPUS"
    return "CPUS" if series in _COMMON and own not in limits else own


def gpu_metric(model: str, market: Market, limits: Limits) -> str:
    """The metric that GPUs of a model, as `gpus` has it, count against."""
    own = f"PREEMPTIBLE_NVIDIA_{model}_GPUS"
    return own if market == "spot" and _given(own, limits) else f"NVIDIA_{model}_GPUS"


def _given(metric: str, limits: Limits) -> bool:
    return limits.get(metric, (0.0, 0.0))[0] > 0


def gpus(type_: MachineType) -> tuple[str, int]:
    """The model of a type's GPUs as metrics name it ("T4"), and how many each machine has."""
    name, _, attached = type_.name.partition("+")
    accelerator, _, count = attached.partition(":")
    if accelerator:
        number = int(count) if count.isdigit() else type_.gpus or 1
        return _NAMED.get(accelerator) or _model(accelerator), number
    for pattern, model in _BUILT_IN.items():
        if re.fullmatch(pattern, name):
            return model, type_.gpus
    return _model(type_.gpu), type_.gpus


def _model(words: str) -> str:
    """Of "nvidia-tesla-t4" or "NVIDIA T4": T4."""
    kept = [one for one in re.split(r"[\s_-]+", words.upper()) if one not in ("NVIDIA", "TESLA")]
    return "_".join(kept) or "UNKNOWN"


def _quota(client: Project, one: Demand, limits: Limits, why: str) -> Quota:
    where = "in all regions" if one.everywhere else f"in {client.region}"
    name, code = f"{one.metric} {where}", one.metric
    limit, used = limits.get(one.metric, (None, None))
    if limit is None and not why:
        why = f"Google does not tell it {where}"
        family = _family(one.metric, limits)
        if family:
            code = family
            name = f"{family} {where} for {one.what}"
            why = "the API of Compute Engine does not tell it"
    return Quota(name, code, limit, used, one.needed, page(client.project), why)


def _family(metric: str, limits: Collection[str]) -> str:
    """The quota of a family that counts where a metric is not among a region's limits."""
    if not limits:
        return ""
    if metric.endswith("_GPUS"):
        return _FAMILY_GPUS
    return _FAMILY_CPUS if metric.endswith("_CPUS") else ""
