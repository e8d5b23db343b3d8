"""Prices on GCE: which SKUs of the Cloud Billing Catalog a machine is the sum of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from clusterkit.cluster.cloud.api import MachineType
from clusterkit.cluster.prices import Price
from clusterkit.cluster.providers.gce import prices
from clusterkit.errors import ClusterError, UsageError

REGION = "us-central1"
ZONES = ("us-central1-a", "us-central1-b")
SINCE = "2026-10-01T08:30:00Z"


def sku(
    description: str,
    dollars: float,
    *,
    usage: str = "OnDemand",
    unit: str = "h",
    regions: Sequence[str] = ("us-central1", "us-east1"),
    since: str = SINCE,
    free: float = 0,
) -> dict[str, Any]:
    """An SKU as Cloud Billing v1 has it: int64 as strings, nanos as numbers, tiers by amount."""
    units, nanos = divmod(round(dollars * 1e9), 10**9)
    nothing = {"currencyCode": "USD", "units": "0", "nanos": 0}
    price = {"currencyCode": "USD", "units": str(units), "nanos": nanos}
    tiers = [{"startUsageAmount": free, "unitPrice": price}]
    if free:
        tiers.insert(0, {"startUsageAmount": 0, "unitPrice": nothing})
    return {
        "name": "services/6F81-5844-456A/skus/0000-0000-0000",
        "description": description,
        "category": {"serviceDisplayName": "Compute Engine", "usageType": usage},
        "serviceRegions": list(regions),
        "pricingInfo": [
            {
                "effectiveTime": since,
                "pricingExpression": {"usageUnit": unit, "tieredRates": tiers},
            }
        ],
    }


def family(name: str, core: float, ram: float, spot: float = 0.3) -> list[dict[str, Any]]:
    """Core and RAM of a series, on demand and spot."""
    return [
        sku(f"{name} Core running in Americas", core),
        sku(f"{name} Ram running in Americas", ram, unit="GiBy.h"),
        sku(f"Spot Preemptible {name} Core running in Americas", spot * core, usage="Preemptible"),
        sku(
            f"Spot Preemptible {name} Ram running in Americas",
            spot * ram,
            usage="Preemptible",
            unit="GiBy.h",
        ),
    ]


def gpu(name: str, dollars: float, spot: float = 0.4) -> list[dict[str, Any]]:
    told = f"{name} attached to Spot Preemptible VMs running in Americas"
    return [
        sku(f"{name} running in Americas", dollars),
        sku(told, spot * dollars, usage="Preemptible"),
    ]


#: What must not be taken for the price of a machine.
NOISE = [
    sku("N1 Predefined Instance Core running in Frankfurt", 9, regions=["europe-west3"]),
    sku("Commitment v1: N2 Cpu in Americas for 1 Year", 9, usage="Commit1Yr"),
    sku("N2 Custom Instance Core running in Americas", 9),
    sku("N2 Custom Extended Instance Ram running in Americas", 9, unit="GiBy.h"),
    sku("N2D AMD Instance Core running in Americas", 9),
    sku("N2 Instance Core running Windows", 9),
    sku("Sole Tenancy Instance Core running in Americas", 9),
    sku("Nvidia Tesla T4 GPU attached to Sole Tenancy VMs running in Americas", 9),
    sku("Nvidia L4 Virtual Workstation GPU running in Americas", 9),
    sku("Reserved Nvidia Tesla A100 80GB GPU in Americas", 9),
    sku("Regional Balanced PD Capacity in Americas", 9, unit="GiBy.mo"),
    sku("Storage Machine Image in US", 9, unit="GiBy.mo"),
    sku("Static Ip Charge", 9),
    sku(
        "Memory Optimized Upgrade Premium for Memory-optimized Instance Core running in Americas", 9
    ),
    {"description": "N1 Predefined Instance Core running in Americas"},
    {**sku("N1 Predefined Instance Core running in Americas", 9), "pricingInfo": []},
    sku("N1 Predefined Instance Core running in Americas", 9, unit="By"),
    sku("N1 Predefined Instance Core running in Americas", 0),
]
CATALOGUE = [
    *NOISE,
    *family("N1 Predefined Instance", 0.031611, 0.004237),
    *family("N2 Instance", 0.04, 0.005),
    *family("E2 Instance", 0.02, 0.003),
    *family("G2 Instance", 0.025, 0.0029),
    *family("A2 Instance", 0.03, 0.004),
    *family("A3 Instance", 0.0322, 0.0028),
    *family("A3Plus Instance", 0.027, 0.0023),
    *family("Compute optimized", 0.034, 0.0045),
    *family("Custom Instance", 0.033, 0.0044),
    *gpu("Nvidia Tesla T4 GPU", 0.35),
    *gpu("Nvidia L4 GPU", 0.56),
    *gpu("Nvidia Tesla A100 GPU", 2.9),
    *gpu("Nvidia Tesla A100 80GB GPU", 3.9),
    *gpu("Nvidia H100 80GB GPU", 11.06),
    *gpu("Nvidia H100 80GB Mega GPU", 10.34),
    sku("Nvidia H100 80GB Mega GPU attached to DWS Defined Duration VMs running in Americas", 4.4),
    sku("Micro Instance with burstable CPU running in Americas", 0.0076),
    sku("SSD backed Local Storage", 0.08, unit="GiBy.mo"),
    sku("Balanced PD Capacity", 0.1, unit="GiBy.mo"),
    sku("Storage Image in US", 0.05, unit="GiBy.mo", regions=["us"]),
    sku("External IP Charge on a Standard VM", 0.005, regions=["global"], free=744),
    sku("External IP Charge on a Spot Preemptible VM", 0.0025, regions=["global"], free=744),
]


class Client:
    region = REGION

    def __init__(self, *types: MachineType, skus: Sequence[Mapping[str, Any]] = CATALOGUE) -> None:
        self.types = {one.name: one for one in types}
        self.listed = skus
        self.broken: Exception | None = None

    def skus(self) -> Sequence[Mapping[str, Any]]:
        if self.broken is not None:
            raise self.broken
        return self.listed

    def machine_types(self, names: Collection[str]) -> Mapping[str, MachineType]:
        missing = sorted(set(names) - set(self.types))
        if missing:
            raise UsageError(f"{REGION} does not have {', '.join(missing)}")
        return {name: self.types[name] for name in names}


def kind(name: str, cpus: int, gib: float, gpus: int = 0, **more: Any) -> MachineType:
    return MachineType(name, cpus, int(gib * 1024), gpus=gpus, **more)


N1 = kind("n1-standard-8", 8, 30)
N1_T4 = kind("n1-standard-8+nvidia-tesla-t4:2", 8, 30, 2, gpu="NVIDIA T4")


def on_demand(type_: MachineType) -> Price:
    [found] = prices.prices(Client(type_), [type_.name], [], ["on-demand"])
    return found


@pytest.mark.parametrize(
    ("type_", "amount"),
    [
        (N1, 8 * 0.031611 + 30 * 0.004237),
        (N1_T4, 8 * 0.031611 + 30 * 0.004237 + 2 * 0.35),
        (kind("n2-standard-4", 4, 16), 4 * 0.04 + 16 * 0.005),
        (kind("c2-standard-4", 4, 16), 4 * 0.034 + 16 * 0.0045),
        (kind("custom-4-8192", 4, 8), 4 * 0.033 + 8 * 0.0044),
        (kind("n1-custom-4-8192", 4, 8), 4 * 0.033 + 8 * 0.0044),
        (kind("e2-micro", 2, 1), 0.25 * 0.02 + 1 * 0.003),
        (kind("e2-medium", 2, 4), 1 * 0.02 + 4 * 0.003),
        (kind("f1-micro", 1, 0.6), 0.0076),
        (kind("g2-standard-8", 8, 32, 1), 8 * 0.025 + 32 * 0.0029 + 0.56),
        (kind("a2-highgpu-2g", 24, 170, 2), 24 * 0.03 + 170 * 0.004 + 2 * 2.9),
        (
            kind("a2-ultragpu-2g", 24, 340, 2),
            24 * 0.03 + 340 * 0.004 + 2 * 3.9 + 2 * 375 * 0.08 / 730,
        ),
        (
            kind("a3-highgpu-8g", 208, 1872, 8),
            208 * 0.0322 + 1872 * 0.0028 + 8 * 11.06 + 6000 * 0.08 / 730,
        ),
        (
            kind("a3-megagpu-8g", 208, 1872, 8),
            208 * 0.027 + 1872 * 0.0023 + 8 * 10.34 + 6000 * 0.08 / 730,
        ),
    ],
    ids=lambda value: value.name if isinstance(value, MachineType) else "",
)
def test_a_machine_is_the_sum_of_what_is_billed(type_: MachineType, amount: float) -> None:
    found = on_demand(type_)
    assert found.amount == pytest.approx(amount), found.why
    assert (found.subject, found.market, found.zone) == (type_.name, "on-demand", "")
    assert (found.region, found.currency, found.source) == (REGION, "USD", "Cloud Billing Catalog")
    assert found.as_of == datetime(2026, 10, 1, 8, 30, tzinfo=UTC)
    assert found.fetched is not None


@pytest.mark.parametrize(
    ("type_", "why"),
    [
        (kind("n2d-standard-8", 8, 32), "no on-demand price of memory of n2d-standard-8"),
        (kind("n9-standard-8", 8, 32), "no on-demand price of a core of n9-standard-8"),
        (kind("g1-small", 1, 1.7), "no on-demand price of g1-small"),
        (kind("n1-standard-4+nvidia-new:1", 4, 15, 1), "no on-demand price of a nvidia-new"),
        (kind("m2-ultramem-208", 208, 5888), "how m2-ultramem-208 is billed is not known"),
        (kind("g4-standard-48", 48, 180, 1), "how g4-standard-48 is billed is not known"),
        (kind("c3-standard-8-lssd", 8, 32), "the local SSD of c3-standard-8-lssd is billed"),
        (kind("c4-highmem-4-lssd-v1", 4, 31), "the local SSD of c4-highmem-4-lssd-v1 is billed"),
        (kind("n2-custom-2-65536-ext", 2, 64), "the extended memory of"),
        (kind("e2-custom-micro-1024", 2, 1), "is not known to this version"),
        (kind("g2-standard-8", 8, 32, 0), "which GPUs g2-standard-8 has"),
        (kind("n2-standard-8", 8, 32, 1), "which GPUs n2-standard-8 has"),
        (kind("n1-standard-8+nvidia-tesla-t4:x", 8, 30), "which GPUs"),
    ],
    ids=lambda value: value.name if isinstance(value, MachineType) else "",
)
def test_what_is_not_known_for_sure_is_unknown(type_: MachineType, why: str) -> None:
    found = on_demand(type_)
    assert found.amount is None
    assert why in found.why


def test_spot_is_one_price_in_every_zone_that_has_the_type() -> None:
    type_ = kind("g2-standard-8", 8, 32, 1, zones=("us-central1-a", "us-central1-c"))
    found = prices.prices(Client(type_, N1_T4), [type_.name, N1_T4.name], ZONES, ["spot"])
    by = {(one.subject, one.zone): one for one in found}
    assert len(found) == 4
    assert {one.market for one in found} == {"spot"}
    spot = 0.3 * (8 * 0.025 + 32 * 0.0029) + 0.4 * 0.56
    assert by[type_.name, "us-central1-a"].amount == pytest.approx(spot)
    assert by[type_.name, "us-central1-b"].amount is None
    assert "us-central1-b does not have" in by[type_.name, "us-central1-b"].why
    n1 = 0.3 * (8 * 0.031611 + 30 * 0.004237) + 2 * 0.4 * 0.35
    assert [by[N1_T4.name, zone].amount for zone in ZONES] == [pytest.approx(n1)] * 2


def test_both_markets_are_answered_and_nothing_twice() -> None:
    found = prices.prices(Client(N1), [N1.name, N1.name], ZONES, ["spot", "on-demand"])
    told = [(one.market, one.zone) for one in found]
    assert told == [("on-demand", ""), ("spot", ZONES[0]), ("spot", ZONES[1])]


def test_nothing_is_asked_for_nothing() -> None:
    client = Client()
    client.broken = ClusterError("must not be asked")
    assert prices.prices(client, [], ZONES, ["spot"]) == []


def test_a_type_that_does_not_exist_does_not_hide_the_others() -> None:
    found = prices.prices(Client(N1), [N1.name, "n1-nonsense-8"], [], ["on-demand"])
    by = {one.subject: one for one in found}
    assert by[N1.name].amount is not None
    assert by["n1-nonsense-8"].amount is None
    assert by["n1-nonsense-8"].why == f"{REGION} does not have n1-nonsense-8"


def test_a_catalogue_that_cannot_be_read_makes_all_unknown_with_its_words() -> None:
    client = Client(N1)
    client.broken = ClusterError("The API is switched off")
    found = prices.prices(client, [N1.name], ZONES, ["on-demand", "spot"])
    found += [prices.disk_price(client), prices.image_price(client), prices.address_price(client)]
    assert len(found) == 6
    for one in found:
        assert (one.amount, one.why) == (None, "The API is switched off")


def test_disks_images_and_addresses() -> None:
    disk, image = prices.disk_price(Client()), prices.image_price(Client())
    assert disk.amount == pytest.approx(0.1 / 730)
    assert image.amount == pytest.approx(0.05 / 730)
    assert disk.source == image.source == "Cloud Billing Catalog, a month of 730 h"
    address = prices.address_price(Client())
    assert address.amount == pytest.approx(0.005)
    assert address.source == "Cloud Billing Catalog"
    none = prices.disk_price(Client(skus=NOISE))
    assert none.amount is None
    assert f"for {REGION}" in none.why


def test_memory_in_decimal_gigabytes_is_made_binary() -> None:
    listed = [
        sku("C4D Instance Core running in Americas", 0.03),
        sku("C4D Instance Ram running in Americas", 0.003, unit="GBy.h"),
    ]
    type_ = kind("c4d-standard-8", 8, 31)
    [found] = prices.prices(Client(type_, skus=listed), [type_.name], [], ["on-demand"])
    assert found.amount == pytest.approx(8 * 0.03 + 31 * 0.003 * 1.073741824)


def test_of_several_prices_the_dearest_and_of_one_the_newest() -> None:
    old = sku("N2 Instance Core running in Americas", 7)
    old["pricingInfo"] += sku("", 0.05, since="2026-11-01T00:00:00.123456789Z")["pricingInfo"]
    listed = [*family("N2 Instance", 0.04, 0.005), old]
    type_ = kind("n2-standard-2", 2, 8)
    [found] = prices.prices(Client(type_, skus=listed), [type_.name], [], ["on-demand"])
    assert found.amount == pytest.approx(2 * 0.05 + 8 * 0.005)
    assert found.as_of is not None
    assert found.as_of.month == 11


def test_parts_in_several_currencies_are_not_added_up() -> None:
    listed = family("N2 Instance", 0.04, 0.005)
    expression = listed[0]["pricingInfo"][0]["pricingExpression"]
    expression["tieredRates"][0]["unitPrice"]["currencyCode"] = "EUR"
    type_ = kind("n2-standard-2", 2, 8)
    [found] = prices.prices(Client(type_, skus=listed), [type_.name], [], ["on-demand"])
    assert found.amount is None
    assert "EUR, USD" in found.why


@pytest.mark.parametrize(
    ("description", "stem"),
    [
        ("N1 Predefined Instance Core running in Americas", "n1 predefined instance core"),
        (
            "Spot Preemptible N1 Predefined Instance Ram running in Los Angeles",
            "n1 predefined instance ram",
        ),
        ("Preemptible Compute optimized Core running in Paris", "compute optimized core"),
        ("Nvidia L4 GPU attached to Spot Preemptible VMs running in Iowa", "nvidia l4 gpu"),
        (
            "SSD backed Local Storage attached to Spot Preemptible VMs in Milan",
            "ssd backed local storage",
        ),
        ("Balanced PD Capacity in Japan", "balanced pd capacity"),
        ("Balanced PD Capacity", "balanced pd capacity"),
        ("N2 Instance Core running Windows", "n2 instance core running windows"),
    ],
)
def test_what_a_description_is_the_price_of(description: str, stem: str) -> None:
    assert prices.stem(description) == stem
