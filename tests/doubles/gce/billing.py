"""The Cloud Billing Catalog: Compute Engine's SKUs, with made-up prices, worded as Google's.

cloud.google.com/billing/v1/how-tos/catalog-api. There is more in it than one looks for, as in the
real one: commitments, custom machines, other services.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from doubles.gce import filters
from doubles.gce.wire import Asked, GoogleError
from doubles.gce.world import Thing, World, method

COMPUTE = "6F81-5844-456A"
SERVICES = {COMPUTE: "Compute Engine", "95FF-2EF5-5EA1": "Cloud Storage",
            "152E-C115-5142": "Cloud Run"}  # fmt: skip
#: Where a price holds: the words of SKUs, regions, and how much dearer than in the first.
PLACES = (
    ("Americas", ("us-central1", "us-east1", "us-west1"), 1.0),
    ("Belgium", ("europe-west1",), 1.1), ("Netherlands", ("europe-west4",), 1.11),
    ("Taiwan", ("asia-east1",), 1.16),
)  # fmt: skip
#: Family -> the words for it, dollars of a core and of a GiB of memory for an hour.
FAMILIES: Mapping[str, tuple[str, float, float]] = {
    "N1": ("N1 Predefined", 0.031611, 0.004237), "E2": ("E2", 0.02181159, 0.00292353),
    "N2": ("N2", 0.031611, 0.004237), "N2D": ("N2D AMD", 0.027502, 0.003686),
    "C2": ("Compute optimized", 0.03398, 0.00455), "C3": ("C3", 0.03398, 0.00456),
    "T2D": ("T2D AMD", 0.027502, 0.003686), "T2A": ("T2A Arm", 0.0241, 0.0032),
    "G2": ("G2", 0.024988, 0.002927), "A2": ("A2", 0.031611, 0.004237),
    "A3": ("A3", 0.0292, 0.0025),
}  # fmt: skip
#: Words for a GPU -> dollars of one for an hour.
GPUS: Mapping[str, float] = {
    "Nvidia Tesla T4 GPU": 0.35, "Nvidia Tesla V100 GPU": 2.48, "Nvidia Tesla P100 GPU": 1.46,
    "Nvidia Tesla P4 GPU": 0.60, "Nvidia L4 GPU": 0.560004, "Nvidia Tesla A100 GPU": 2.933908,
    "Nvidia Tesla A100 80GB GPU": 3.92808, "Nvidia H100 80GB GPU": 9.7969,
}  # fmt: skip
#: Words, resource group -> dollars of a GiB for a month.
STORAGE = {
    ("Storage PD Capacity", "PDStandard"): 0.04, ("Balanced PD Capacity", "SSD"): 0.1,
    ("SSD backed PD Capacity", "SSD"): 0.17, ("Storage Image", "StorageImage"): 0.05,
    ("Hyperdisk Balanced Capacity", "SSD"): 0.08, ("Storage PD Snapshot", "PDSnapshot"): 0.05,
}  # fmt: skip
#: Of what is taken away at will, the part of the price; of commitments of a year.
_SPOT, _COMMITTED = 0.31, 0.63
_TIME = "2026-11-01T07:00:00.000Z"


@method("services.list")
def services(world: World, asked: Asked) -> Thing:
    found = [
        {"name": f"services/{id_}", "serviceId": id_, "displayName": name,
         "businessEntityName": "businessEntities/GCP"}
        for id_, name in SERVICES.items()
    ]  # fmt: skip
    page, more = filters.page(found, asked.params, "pageSize", 5000)
    return {"services": page, "nextPageToken": more}


@method("skus.list")
def skus(world: World, asked: Asked) -> Thing:
    id_ = asked.params["parent"].removeprefix("services/")
    if id_ not in SERVICES:
        raise GoogleError(404, f"Service {id_} was not found.", "notFound")
    currency = asked.params.get("currencyCode") or "USD"
    if currency != "USD":
        raise GoogleError(400, f"The double knows USD only, not {currency}.")
    found = list(_catalogue()) if id_ == COMPUTE else []
    page, more = filters.page(found, asked.params, "pageSize", 5000)
    return {"skus": page, "nextPageToken": more}


@cache
def _catalogue() -> tuple[Thing, ...]:
    return tuple(_skus())


def _skus() -> Iterator[Thing]:
    for place, regions, factor in PLACES:
        for words, group, usage, unit, price in _products():
            told = words if words.startswith("Commitment") else f"{words} running in {place}"
            if group in ("PDStandard", "SSD", "StorageImage", "PDSnapshot"):
                told = words if place == "Americas" else f"{words} in {place}"
            if words.startswith("External IP"):
                if place != "Americas":
                    continue
                told = words
            if words.startswith("Commitment"):
                told = f"{words} in {place} for 1 Year"
            where = ("global",) if group == "IpAddress" else regions
            yield _sku(told, group, usage, unit, price * factor, where)


def _products() -> Iterator[tuple[str, str, str, str, float]]:
    """Words, resource group, usage type, unit, price in the first place."""
    for family, (words, core, memory) in FAMILIES.items():
        groups = ("N1Standard", "N1Standard") if family == "N1" else ("CPU", "RAM")
        custom = family if family != "N1" else "N1"
        for what, group, unit, price in (
            ("Core", groups[0], "h", core), ("Ram", groups[1], "GiBy.h", memory),
        ):  # fmt: skip
            told = f"{words} Instance {what}"
            if family == "C2":
                told = f"{words} {what}"
            yield told, group, "OnDemand", unit, price
            yield f"Spot Preemptible {told}", group, "Preemptible", unit, price * _SPOT
            yield f"{custom} Custom Instance {what}", group, "OnDemand", unit, price * 1.05
            yield f"{words} Sole Tenancy Instance {what}", group, "OnDemand", unit, price * 1.1
            yield f"Commitment v1: {family} {what}", group, "Commit1Yr", unit, price * _COMMITTED
    for words, price in GPUS.items():
        yield words, "GPU", "OnDemand", "h", price
        spot = f"{words} attached to Spot Preemptible VMs"
        yield spot, "GPU", "Preemptible", "h", price * _SPOT
        yield f"Commitment v1: {words}", "GPU", "Commit1Yr", "h", price * _COMMITTED
        if "T4" in words or "P100" in words or "P4" in words:
            yield f"{words} Virtual Workstation", "GPU", "OnDemand", "h", price + 0.2
    for (words, group), price in STORAGE.items():
        yield words, group, "OnDemand", "GiBy.mo", price
    yield "External IP Charge on a Standard VM", "IpAddress", "OnDemand", "h", 0.005
    spot = "External IP Charge on a Spot Preemptible VM"
    yield spot, "IpAddress", "Preemptible", "h", 0.0025


def _sku(
    words: str, group: str, usage: str, unit: str, price: float, regions: tuple[str, ...]
) -> Thing:
    digest = hashlib.sha256(f"{words} {usage} {regions}".encode()).hexdigest().upper()
    id_ = f"{digest[:4]}-{digest[4:8]}-{digest[8:12]}"
    family = {"IpAddress": "Network"}.get(group, "Storage" if unit == "GiBy.mo" else "Compute")
    names = {"h": "hour", "GiBy.h": "gibibyte hour", "GiBy.mo": "gibibyte month"}
    base, factor = ("s", 3600.0) if unit == "h" else ("By.s", 3865470566400.0)
    if unit == "GiBy.mo":
        factor = 2951479051793528.0
    geography: dict[str, Any] = {"type": "MULTI_REGIONAL", "regions": list(regions)}
    if len(regions) == 1:
        geography["type"] = "REGIONAL"
    if regions == ("global",):
        geography = {"type": "GLOBAL", "regions": []}
    rates = [{"startUsageAmount": 0, "unitPrice": _money(price)}]
    if group == "IpAddress":  # the first hours are free
        rates = [{"startUsageAmount": 0, "unitPrice": _money(0.0)},
                 {"startUsageAmount": 1, "unitPrice": _money(price)}]  # fmt: skip
    return {
        "name": f"services/{COMPUTE}/skus/{id_}", "skuId": id_, "description": words,
        "category": {"serviceDisplayName": SERVICES[COMPUTE], "resourceFamily": family,
                     "resourceGroup": group, "usageType": usage},
        "serviceRegions": list(regions), "serviceProviderName": "Google",
        "geoTaxonomy": geography,
        "pricingInfo": [{
            "summary": "", "currencyConversionRate": 1, "effectiveTime": _TIME,
            "pricingExpression": {
                "usageUnit": unit, "usageUnitDescription": names[unit], "baseUnit": base,
                "baseUnitDescription": "second" if base == "s" else "byte second",
                "baseUnitConversionFactor": factor, "displayQuantity": 1, "tieredRates": rates,
            },
        }],
    }  # fmt: skip


def _money(price: float) -> Thing:
    whole, nanos = divmod(round(price * 1e9), 10**9)
    return {"currencyCode": "USD", "units": str(whole), "nanos": nanos}
