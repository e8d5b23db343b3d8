"""What Google's machines cost, by the Cloud Billing Catalog: the sum of what is billed apart.

A machine is billed as cores, memory and GPUs, each by an SKU of its own, found by its description:
cloud.google.com/billing/v1/how-tos/catalog-api. A sum that lacks a part is an unknown price.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from clusterkit.cluster.cloud.api import MachineType, Market
from clusterkit.cluster.prices import Price
from clusterkit.errors import ClusterkitError, UsageError

_CATALOG = "Cloud Billing Catalog"
#: A month of storage, in hours.
MONTH_HOURS = 730
_USAGE: Mapping[str, str] = {"on-demand": "OnDemand", "spot": "Preemptible"}
#: Units of SKUs -> what a price of that unit is multiplied with for one hour, and for one GiB.
_UNITS: Mapping[str, float] = {
    "h": 1.0,
    "GiBy.h": 1.0,
    "GBy.h": 2**30 / 1e9,
    "GiBy.mo": 1 / MONTH_HOURS,
    "GBy.mo": 2**30 / 1e9 / MONTH_HOURS,
}
#: Accelerators whose SKU has not just their name ("nvidia-l4": "Nvidia L4 GPU") -> its `stem`.
_GPUS: Mapping[str, str] = {
    "nvidia-a100-80gb": "nvidia (tesla )?a100 80gb gpu",
    "nvidia-h100-mega-80gb": "nvidia h100 (80gb (mega|plus)|mega 80gb) gpu",
    "nvidia-h200-141gb": "(nvidia )?h200 141gb gpu",
}
#: Machine types with GPUs in them -> these, and the GiB of local SSD beside each, billed apart:
#: cloud.google.com/compute/docs/accelerator-optimized-machines.
_BUILT_IN: Mapping[str, tuple[str, int]] = {
    r"g2-.+": ("nvidia-l4", 0),
    r"a2-(high|mega)gpu-\d+g": ("nvidia-tesla-a100", 0),
    r"a2-ultragpu-\d+g": ("nvidia-a100-80gb", 375),
    r"a3-(high|edge)gpu-\d+g": ("nvidia-h100-80gb", 750),
    r"a3-megagpu-\d+g": ("nvidia-h100-mega-80gb", 750),
    r"a3-ultragpu-\d+g": ("nvidia-h200-141gb", 1500),
}
#: Types that share a core, and the part of one that is billed; the memory is billed in full:
#: cloud.google.com/compute/docs/general-purpose-machines#e2-shared-core.
_SHARED: Mapping[str, float] = {"e2-micro": 0.25, "e2-small": 0.5, "e2-medium": 1.0}
#: Types that are billed whole.
_WHOLE: Mapping[str, str] = {
    "f1-micro": "micro instance with burstable cpu",
    "g1-small": "small instance with 1 vcpu",
}
#: Kinds of disks -> what the SKU of their room is called.
_DISKS: Mapping[str, str] = {
    "pd-balanced": "balanced pd capacity",
    "pd-ssd": "ssd backed pd capacity",
    "pd-standard": "storage pd capacity",
    "hyperdisk-balanced": "hyperdisk balanced capacity",
}
#: Series, and parts of them, whose SKUs are not named after them.
_NAMED: Mapping[str, str] = {
    "n1": "n1 predefined instance",
    "c2": "compute optimized( instance)?",
    "m1": "memory-optimized instance",
    "m3": "m3 memory-optimized instance",
    "a3-megagpu": "a3plus instance",
    "a3-ultragpu": "a3ultra instance",
}
#: Types whose price is more than the sum of parts that are known here.
_UNKNOWN: Mapping[str, str] = {
    r"(m2|a4|a4x|g4|z3)-.+|m4-ultramem-224|e2-custom-(micro|small|medium)-.+": "{} is billed",
    r".+-lssd(-.+)?": "the local SSD of {} is billed",
    r".+-ext": "the extended memory of {} is billed",
}
_REGION = re.compile(r"( attached to spot preemptible vms)?( running)?( in .+)?$")


class Catalog(Protocol):
    """The client. `skus`: of Compute Engine (6F81-5844-456A), JSON of Cloud Billing v1, kept."""

    region: str

    def skus(self) -> Sequence[Mapping[str, Any]]: ...

    def machine_types(self, names: Collection[str]) -> Mapping[str, MachineType]: ...


def prices(
    client: Catalog, types: Collection[str], zones: Collection[str], markets: Collection[Market]
) -> list[Price]:
    """On demand one price of each type (zone ""), spot one of each type in each zone: it is the
    same in all zones of the region that have the type. A type may be `n1-standard-8+ACCELERATOR:N`.

    Never raises: what cannot be had is an unknown price with Google's words.
    """
    names = sorted(set(types))
    places: dict[Market, list[str]] = {"on-demand": [""], "spot": sorted(set(zones))}
    blank = [
        Price(name, None, zone, market, region=client.region, source=_CATALOG)
        for market, where in places.items()
        if market in markets
        for name in names
        for zone in where
    ]
    if not blank:
        return []
    try:
        known = rates(client.skus(), client.region)
    except ClusterkitError as error:
        return [replace(price, why=str(error)) for price in blank]
    described = _described(client, names)
    now = datetime.now(UTC)
    asked = [replace(price, fetched=now) for price in blank]
    return [_machine(price, described[price.subject], known) for price in asked]


def disk_price(client: Catalog, kind: str = "auto") -> Price:
    """Of one GiB of a balanced persistent disk for an hour: a month's price by 730 hours."""
    kind = "pd-balanced" if kind == "auto" else kind
    return _listed(client, f"{kind} disk, 1 GiB", _DISKS.get(kind, kind))


def image_price(client: Catalog) -> Price:
    """Of one GiB of a custom image for an hour."""
    return _listed(client, "image, 1 GiB", "storage image", wider=True)


def address_price(client: Catalog) -> Price:
    """Of one external IPv4 address in use for an hour, beyond the hours that are free. That of a
    spot machine costs less.
    """
    return _listed(client, "public IPv4 address", "external ip charge on a standard vm", wider=True)


@dataclass(frozen=True, slots=True)
class Rate:
    """A price of the catalogue, of one hour and (of memory and storage) one GiB."""

    amount: float
    currency: str
    monthly: bool
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class Part:
    """So much is billed of what is called `words`; `stem` is a pattern of what SKUs are of."""

    count: float
    words: str
    stem: str


#: Usage type and stem of the description -> what the catalogue says.
Rates = Mapping[tuple[str, str], Sequence[Rate]]


def stem(description: str) -> str:
    """A description in small letters without its place and without the words for spot: what
    "Spot Preemptible N1 Predefined Instance Core running in Americas" is the price of.
    """
    low = " ".join(description.lower().split())
    return _REGION.sub("", re.sub(r"^(spot )?preemptible ", "", low))


def rates(skus: Iterable[Mapping[str, Any]], region: str, *, wider: bool = False) -> Rates:
    """What the catalogue says about a region; an SKU that cannot be understood is none.

    `wider`: SKUs of the whole world and of the region's part of it too.
    """
    places = {region, "global", region.partition("-")[0]} if wider else {region}
    found: dict[tuple[str, str], list[Rate]] = {}
    for sku in skus:
        try:
            if places.isdisjoint(sku["serviceRegions"]):
                continue
            usage, name = str(sku["category"]["usageType"]), stem(str(sku["description"]))
            rate = _rate(sku["pricingInfo"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            continue
        if rate.amount > 0:
            found.setdefault((usage, name), []).append(rate)
    return found


def _rate(said: Sequence[Mapping[str, Any]]) -> Rate:
    """The newest price; of several tiers the dearest one: some begin with what is free."""
    newest = said[-1]
    expression = newest["pricingExpression"]
    unit = str(expression["usageUnit"])
    told = [tier["unitPrice"] for tier in expression["tieredRates"]]
    amount = max(int(one.get("units", 0)) + int(one.get("nanos", 0)) / 1e9 for one in told)
    currency = str(told[0].get("currencyCode") or "USD")
    as_of = _time(newest.get("effectiveTime"))
    return Rate(amount * _UNITS[unit], currency, unit.endswith(".mo"), as_of)


def _time(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def parts(type_: MachineType) -> list[Part] | str:
    """What a machine of a type is billed for; in words, why that is not known."""
    name, _, attached = type_.name.partition("+")
    if name not in _WHOLE and not (type_.cpus and type_.memory):
        return f"how many cores and how much memory {name} has is not told"
    for pattern, why in _UNKNOWN.items():
        if re.fullmatch(pattern, name):
            return f"how {why.format(name)} is not known to this version"
    if name in _WHOLE:
        found = [Part(1, name, _WHOLE[name])]
    else:
        series = _series(name)
        cores = _SHARED.get(name, float(type_.cpus))
        found = [
            Part(cores, f"a core of {name}", f"{series} core"),
            Part(type_.memory / 1024, f"memory of {name}", f"{series} ram"),
        ]
    gpu, ssd = built_in(name)
    gpus = type_.gpus
    if attached:
        gpu, _, count = attached.partition(":")
        gpus = int(count) if count.isdigit() else gpus
    if bool(gpu) != (gpus > 0):
        return f"which GPUs {type_.name} has, and how many, is not known to this version"
    if gpu:
        found.append(Part(gpus, f"a {gpu}", _GPUS.get(gpu) or f"{gpu.replace('-', ' ')} gpu"))
    if ssd:
        local = f"(ssd backed local storage|{name[:2]} instance local ssd)"
        found.append(Part(ssd * gpus, f"the local SSD of {name}", local))
    return found


def built_in(name: str) -> tuple[str, int]:
    """The kind of GPUs that a machine type has in it, and the GiB of local SSD for each; "" and 0
    without.
    """
    return next((one for key, one in _BUILT_IN.items() if re.fullmatch(key, name)), ("", 0))


def _series(name: str) -> str:
    """A pattern of what the SKUs of a type's series begin with."""
    series, _, rest = name.partition("-")
    if series == "custom" or (series == "n1" and rest.startswith("custom")):
        return "(n1 )?custom instance"
    if rest.startswith("custom"):
        return f"{re.escape(series)}( amd| arm)? custom instance"
    part = "-".join(name.split("-")[:2])
    return _NAMED.get(part) or _NAMED.get(series, f"{re.escape(series)}( amd| arm)? instance")


def total(price: Price, billed: Sequence[Part], known: Rates) -> Price:
    """`price` with the sum of what is billed; unknown where the catalogue lacks a part of it.

    Where the catalogue says several things of one part, the dearest.
    """
    usage = _USAGE[price.market]
    summed = []
    for part in billed:
        pattern = re.compile(part.stem)
        said = [
            rate
            for (of, name), listed in known.items()
            if of == usage and pattern.fullmatch(name)
            for rate in listed
        ]
        if not said:
            lacks = f"the {_CATALOG} has no {price.market} price of {part.words}"
            return replace(price, why=f"{lacks} for {price.region}")
        summed.append((part.count, max(said, key=lambda rate: rate.amount)))
    currencies = {rate.currency for _, rate in summed}
    if len(currencies) != 1:
        return replace(price, why=f"its parts are priced in {', '.join(sorted(currencies))}")
    times = [rate.as_of for _, rate in summed if rate.as_of is not None]
    return replace(
        price,
        amount=sum(count * rate.amount for count, rate in summed),
        currency=currencies.pop(),
        source=f"{_CATALOG}, a month of {MONTH_HOURS} h"
        if all(rate.monthly for _, rate in summed)
        else _CATALOG,
        as_of=max(times, default=None),
    )


def _machine(price: Price, type_: MachineType | str, known: Rates) -> Price:
    if isinstance(type_, str):
        return replace(price, why=type_)
    if price.zone and type_.zones and price.zone not in type_.zones:
        return replace(price, why=f"{price.zone} does not have {price.subject}")
    billed = parts(type_)
    return replace(price, why=billed) if isinstance(billed, str) else total(price, billed, known)


def _described(client: Catalog, names: Sequence[str]) -> dict[str, MachineType | str]:
    """Each type, or why it is not known; one that does not exist does not hide the others."""
    try:
        found = client.machine_types(names)
    except ClusterkitError as error:
        if isinstance(error, UsageError) and len(names) > 1:
            return {name: _described(client, [name])[name] for name in names}
        return dict.fromkeys(names, str(error))
    missing = f"{client.region} does not have this machine type"
    return {name: replace(found[name], name=name) if name in found else missing for name in names}


def _listed(client: Catalog, subject: str, name: str, *, wider: bool = False) -> Price:
    price = Price(subject, None, region=client.region, source=_CATALOG)
    try:
        known = rates(client.skus(), client.region, wider=wider)
    except ClusterkitError as error:
        return replace(price, why=str(error))
    now = datetime.now(UTC)
    return total(replace(price, fetched=now), [Part(1, subject, re.escape(name))], known)
