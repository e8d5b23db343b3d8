"""The limits of an account that launches count against: vCPUs of a family, in a region.

Which quota a type counts against no API tells. The families and codes are those of
docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html; limits are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clusterkit.cluster.cloud.api import Market, Need, Quota
from clusterkit.errors import ClusterkitError

if TYPE_CHECKING:
    from clusterkit.cluster.providers.ec2.client import Client


@dataclass(frozen=True, slots=True)
class Family:
    """A quota: its name as Service Quotas shows it, its code; "" where AWS documents none."""

    name: str
    code: str


#: The letters that types of a family begin with -> (its name, on demand, spot); "" : has no spot.
_FAMILIES: Mapping[tuple[str, ...], tuple[str, str, str]] = {
    ("a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"): (
        "Standard (A, C, D, H, I, M, R, T, Z)",
        "L-1216C47A",
        "L-34B43A08",
    ),
    ("g", "gr", "vt"): ("G and VT", "L-DB2E81BA", "L-3819A6DF"),
    ("p",): ("P", "L-417A185B", "L-7212CCBC"),
    ("f",): ("F", "L-74FC7D96", "L-88CF9481"),
    ("x",): ("X", "L-7295265B", "L-E3A00192"),
    ("inf",): ("Inf", "L-1945791B", "L-B5D1601B"),
    ("trn",): ("Trn", "L-2C3B7624", "L-6B0D517C"),
    ("dl",): ("DL", "L-6E869C2A", "L-85EED4F7"),
    ("hpc",): ("HPC", "L-F7808C92", ""),
    ("u",): ("High Memory", "L-43DA4232", ""),
}
_P5_SPOT = Family("All P5 Spot Instance Requests", "L-C4BD4855")
#: Instances in these states count.
_COUNTED = ("pending", "running")


def family(type_name: str, market: Market) -> Family | None:
    """The quota that a type counts against; None for a family that is not known here."""
    if market == "spot" and type_name.startswith("p5"):
        return _P5_SPOT
    letters = re.match(r"[a-z]+", type_name)
    for beginnings, (name, on_demand, spot) in _FAMILIES.items():
        if letters is not None and letters[0] in beginnings:
            if market == "spot":
                return Family(f"All {name} Spot Instance Requests", spot)
            return Family(f"Running On-Demand {name} instances", on_demand)
    return None


def page(region: str, code: str = "") -> str:
    """Where more is asked for."""
    home = f"https://{region}.console.aws.amazon.com/servicequotas/home/services/ec2/quotas"
    return f"{home}/{code}" if code else home


def advice(type_name: str, market: str, region: str) -> str:
    """What to do when a launch was refused for its quota."""
    found = family(type_name, "spot" if market == "spot" else "on-demand")
    if found is None or not found.code:
        return f"Ask for a higher limit at {page(region)}, or use another type or region."
    return (
        f'The quota is "{found.name}" ({found.code}), in vCPUs of the whole region. Ask for more '
        f"at {page(region, found.code)}, or use another type, market or region."
    )


def quotas(client: Client, needs: Sequence[Need]) -> list[Quota]:
    """The limits that `needs` count against, in vCPUs. Asks for all at once; never raises."""
    needed: dict[Family, float] = {}
    unknown: list[Quota] = []
    for need in needs:
        found = family(need.type.name, need.market)
        cpus = float(need.type.cpus * need.count)
        if found is not None and found.code:
            needed[found] = needed.get(found, 0.0) + cpus
        elif need.count:
            why = "this version does not know which quota the type counts against"
            if found is not None:
                why = "AWS documents no such quota"
            name = found.name if found is not None else f"of {need.type.name}, {need.market}"
            unknown.append(Quota(name, "", None, None, cpus, page(client.region), why))
    if not needed:
        return unknown
    with ThreadPoolExecutor(max_workers=8) as pool:
        used = pool.submit(_used, client)
        limits = list(pool.map(lambda one: _limit(client, one.code), needed))
    usage = used.result()
    return [
        Quota(
            name or one.name,
            one.code,
            limit,
            None if usage is None else usage.get(one.code, 0.0),
            cpus,
            page(client.region, one.code),
            why,
        )
        for (one, cpus), (limit, name, why) in zip(needed.items(), limits, strict=True)
    ] + unknown


def _limit(client: Client, code: str) -> tuple[float | None, str, str]:
    """The limit of a quota and its name as AWS has it by now, or why it is not known."""
    try:
        told = client.call("service-quotas", "GetServiceQuota", ServiceCode="ec2", QuotaCode=code)
    except ClusterkitError as error:
        return None, "", str(error)
    said = told.get("Quota") or {}
    value = said.get("Value")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, "", "Service Quotas answered without a value"
    return float(value), str(said.get("QuotaName") or ""), ""


def _used(client: Client) -> dict[str, float] | None:
    """The vCPUs of live instances in the region by the quota's code; None: not known."""
    try:
        reservations = client.pages(
            "ec2",
            "DescribeInstances",
            "Reservations",
            Filters=[{"Name": "instance-state-name", "Values": list(_COUNTED)}],
        )
        live = [one for reservation in reservations for one in reservation.get("Instances", [])]
        asked = sorted({str(one.get("InstanceType")) for one in live if not _cpus(one)})
        sizes = _sizes(client, asked) if asked else {}
    except ClusterkitError:
        return None
    found: dict[str, float] = {}
    for one in live:
        name = str(one.get("InstanceType"))
        counted = family(name, "spot" if one.get("InstanceLifecycle") == "spot" else "on-demand")
        if counted is not None and counted.code:
            cpus = _cpus(one) or sizes.get(name, 0)
            found[counted.code] = found.get(counted.code, 0.0) + cpus
    return found


def _cpus(instance: Mapping[str, Any]) -> int:
    """The vCPUs of an instance, as it tells itself; 0 where it does not."""
    options = instance.get("CpuOptions") or {}
    cores, threads = options.get("CoreCount"), options.get("ThreadsPerCore")
    return cores * threads if isinstance(cores, int) and isinstance(threads, int) else 0


def _sizes(client: Client, names: Sequence[str]) -> dict[str, int]:
    told = client.pages(
        "ec2",
        "DescribeInstanceTypes",
        "InstanceTypes",
        Filters=[{"Name": "instance-type", "Values": list(names)}],
    )
    return {
        str(one.get("InstanceType")): int((one.get("VCpuInfo") or {}).get("DefaultVCpus", 0))
        for one in told
    }
