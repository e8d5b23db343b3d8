"""What EC2 costs: on demand by the AWS Price List, spot by the history of spot prices.

The Price List is asked once for each type, the spot history once for all; all at once. See
docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from clusterkit.cluster.cloud.api import Market
from clusterkit.cluster.prices import Price
from clusterkit.errors import ClusterkitError

if TYPE_CHECKING:
    from clusterkit.cluster.providers.ec2.client import Client

_LIST = "AWS Price List"
_HISTORY = "EC2 spot price history"
#: AWS counts a month of storage as so many hours: aws.amazon.com/ebs/pricing.
MONTH_HOURS = 730
#: Questions that are on the way at once.
_AT_ONCE = 8


def prices(
    client: Client,
    types: Collection[str],
    zones: Collection[str],
    markets: Collection[Market],
) -> list[Price]:
    """On demand one price of each type (zone ""), spot one of each type in each zone.

    Never raises: what cannot be had is an unknown price with AWS's words.
    """
    names = sorted(set(types))
    asked = [name for name in names if "on-demand" in markets]
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        spot = pool.submit(_spot, client, names, sorted(set(zones))) if "spot" in markets else None
        found = list(pool.map(lambda name: _on_demand(client, name), asked))
    return found + (spot.result() if spot is not None else [])


def disk_price(client: Client) -> Price:
    """Of one GiB of gp3 for an hour: a month's price by 730 hours."""
    return _hourly(
        client,
        "gp3 disk, 1 GiB",
        "AmazonEC2",
        {"productFamily": "Storage", "volumeApiName": "gp3"},
        lambda usage: usage.endswith("EBS:VolumeUsage.gp3"),
    )


def image_price(client: Client) -> Price:
    """Of one GiB of an EBS snapshot, in the standard tier, for an hour."""
    return _hourly(
        client,
        "snapshot, 1 GiB",
        "AmazonEC2",
        {"productFamily": "Storage Snapshot"},
        lambda usage: usage.endswith("EBS:SnapshotUsage"),
    )


def address_price(client: Client) -> Price:
    """Of one public IPv4 address in use for an hour."""
    return _hourly(
        client,
        "public IPv4 address",
        "AmazonVPC",
        {"group": "VPCPublicIPv4Address"},
        lambda usage: usage.endswith("PublicIPv4:InUseAddress"),
    )


@dataclass(frozen=True, slots=True)
class Rate:
    """A price of the Price List; `unit` as "Hrs" or "GB-Mo"."""

    amount: float
    currency: str
    unit: str
    as_of: datetime | None


def rates(
    texts: Iterable[object],
    wanted: Mapping[str, str],
    usage: Callable[[str], bool] = lambda _: True,
) -> list[Rate]:
    """The on-demand rates in products of the Price List whose attributes are `wanted`.

    `texts` are products as JSON; one that cannot be understood is none. `productFamily` stands
    beside the attributes, and is looked for there. Rates of 0 are those of reserved capacity.
    """
    return [rate for text in texts for rate in _rates(text, wanted, usage) if rate.amount > 0]


def _rates(text: object, wanted: Mapping[str, str], usage: Callable[[str], bool]) -> Iterator[Rate]:
    try:
        said: Any = json.loads(text) if isinstance(text, str) else text
        product = said["product"]
        attributes = {"productFamily": product.get("productFamily"), **product["attributes"]}
        if any(attributes.get(name) != value for name, value in wanted.items()):
            return
        if not usage(str(attributes.get("usagetype", ""))):
            return
        found = []
        for term in said["terms"]["OnDemand"].values():
            as_of = _time(term.get("effectiveDate"))
            for one in term["priceDimensions"].values():
                if str(one.get("beginRange", "0")) not in ("0", ""):
                    continue  # cheaper from so much on
                currency, amount = _money(one["pricePerUnit"])
                found.append(Rate(amount, currency, str(one.get("unit", "")), as_of))
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    yield from found


def _money(said: Mapping[str, str]) -> tuple[str, float]:
    """US dollars, or what is charged where those are not."""
    currency = "USD" if "USD" in said else next(iter(said), "")
    amount = float(said[currency])
    if not math.isfinite(amount) or amount < 0:
        raise ValueError(f"{amount} is no price")
    return currency, amount


def _time(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _on_demand(client: Client, name: str) -> Price:
    """Of one type with Linux, shared hardware and nothing preinstalled."""
    wanted = {
        "instanceType": name,
        "regionCode": client.region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    return _listed(
        client,
        Price(name, None, region=client.region, source=_LIST),
        "AmazonEC2",
        wanted,
        lambda _: True,
    )


def _hourly(
    client: Client,
    subject: str,
    service: str,
    wanted: Mapping[str, str],
    usage: Callable[[str], bool],
) -> Price:
    return _listed(
        client,
        Price(subject, None, region=client.region, source=_LIST),
        service,
        {**wanted, "regionCode": client.region},
        usage,
    )


def _listed(
    client: Client,
    price: Price,
    service: str,
    wanted: Mapping[str, str],
    usage: Callable[[str], bool],
) -> Price:
    """`price` with what the Price List says; where it says several things, the dearest."""
    filters = [
        {"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in wanted.items()
    ]
    try:
        texts = client.pages(
            "pricing",
            "GetProducts",
            "PriceList",
            ServiceCode=service,
            Filters=filters,
        )
        found = rates(texts, wanted, usage)
    except ClusterkitError as error:
        return replace(price, why=str(error))
    now = datetime.now(UTC)
    known = [rate for rate in found if rate.unit in ("Hrs", "Hours", "GB-Mo")]
    if not known:
        return replace(price, fetched=now, why=f"the {_LIST} does not have it for {client.region}")
    dearest = max(known, key=lambda rate: rate.amount)
    monthly = dearest.unit == "GB-Mo"
    return replace(
        price,
        amount=dearest.amount / MONTH_HOURS if monthly else dearest.amount,
        currency=dearest.currency,
        source=f"{_LIST}, a month of {MONTH_HOURS} h" if monthly else _LIST,
        as_of=dearest.as_of,
        fetched=now,
    )


def _spot(client: Client, names: list[str], zones: list[str]) -> list[Price]:
    """The newest spot price of each type in each zone, asked in one go."""
    blank = [
        Price(name, None, zone, "spot", region=client.region, source=_HISTORY)
        for name in names
        for zone in zones
    ]
    now = datetime.now(UTC)
    try:
        told = list(
            client.pages(
                "ec2",
                "DescribeSpotPriceHistory",
                "SpotPriceHistory",
                InstanceTypes=names,
                ProductDescriptions=["Linux/UNIX"],
                # What held then is told, and what changed since; our clock may be ahead.
                StartTime=now - timedelta(minutes=10),
            )
        )
    except ClusterkitError as error:
        return [replace(price, why=str(error)) for price in blank]
    newest: dict[tuple[str, str], tuple[datetime, float]] = {}
    for one in told:
        key, known = _spot_entry(one)
        if known is not None and (key not in newest or known[0] > newest[key][0]):
            newest[key] = known
    found = []
    for price in blank:
        as_of, amount = newest.get((price.subject, price.zone), (None, None))
        why = "" if amount is not None else f"there is no spot price of it in {price.zone}"
        found.append(replace(price, amount=amount, as_of=as_of, fetched=now, why=why))
    return found


def _spot_entry(one: Mapping[str, Any]) -> tuple[tuple[str, str], tuple[datetime, float] | None]:
    """Type and zone, time and price of an entry of the history; None where it makes no sense."""
    key = (str(one.get("InstanceType")), str(one.get("AvailabilityZone")))
    time, price = one.get("Timestamp"), one.get("SpotPrice")
    if not str(one.get("ProductDescription", "")).startswith("Linux/UNIX"):
        return key, None
    try:
        amount = float(price) if isinstance(price, str | int | float) else math.nan
    except ValueError:
        return key, None
    if not isinstance(time, datetime) or not math.isfinite(amount) or amount <= 0:
        return key, None
    return key, (time if time.tzinfo is not None else time.replace(tzinfo=UTC), amount)
