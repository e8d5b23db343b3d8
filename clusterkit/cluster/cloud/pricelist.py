"""Prices for the user's eyes: of a cluster's machine types, or of any, in a region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clusterkit.cluster import config, values
from clusterkit.cluster import prices as prices_of
from clusterkit.cluster.cloud import known
from clusterkit.cluster.cloud.api import Cloud, MachineType, Market
from clusterkit.cluster.cloud.wishes import wishes
from clusterkit.cluster.prices import Price, Prices
from clusterkit.cluster.spec import CloudSpec
from clusterkit.errors import ClusterError, UnknownCluster, UsageError
from clusterkit.paths import Home


@dataclass(frozen=True, slots=True)
class PriceList:
    """The cheapest first, unknown ones last. `sources` say where from and how old."""

    provider: str
    region: str
    prices: tuple[Price, ...]
    types: Mapping[str, MachineType]
    sources: tuple[str, ...]
    note: str = ""


def ask(
    home: Home,
    name: str,
    types: Sequence[str] = (),
    *,
    spot: bool = False,
    region: str | None = None,
) -> PriceList:
    """Ask the cloud for the prices of machine types; of the cluster's own where none are named.

    `name` is a cluster or a provider. With `spot` spot prices too, zone by zone. Where the cloud
    does not answer, prices that are kept are shown with their age.

    Raises UnknownCluster, UsageError, and ClusterError when the cloud tells nothing and nothing is
    kept, as of types that the region does not have.
    """
    cloud, own = _cloud(home, name, region)
    names = tuple(dict.fromkeys(types)) or own
    if not names:
        raise UsageError(f"name machine types, as `clusterkit prices {name} g5.xlarge`")
    kept = Prices(home.root / "prices", cloud.name, server=cloud.server)
    there: Mapping[str, MachineType] = {}
    note = ""
    try:
        there = cloud.machine_types(names)
        zones = tuple(sorted({zone for one in there.values() for zone in one.zones}))
    except ClusterError as error:
        note = str(error)
        zones = kept.zones(cloud.region)
    markets: tuple[Market, ...] = ("on-demand", "spot") if spot else ("on-demand",)
    found = [
        one
        for one in kept.of(cloud, names, zones, markets, live=True)
        if not one.zone or one.subject not in there or one.zone in there[one.subject].zones
    ]
    if note and all(one.amount is None for one in found):
        raise ClusterError(note)
    return PriceList(
        cloud.name,
        cloud.region,
        tuple(prices_of.cheapest(found)),
        there,
        tuple(f"{one.currency}: {kept.age(one)}" for one in prices_of.oldest(found)),
        note,
    )


def _cloud(home: Home, name: str, region: str | None) -> tuple[Cloud, tuple[str, ...]]:
    """The cloud that is meant, and the machine types of the cluster."""
    try:
        spec = config.cluster_spec(home, name)
    except UnknownCluster:
        provider = values.provider_meant(name)
        if provider not in known.CLOUDS:
            raise
        return known.default(provider, region), ()
    if not isinstance(spec, CloudSpec):
        raise UsageError(
            f"the cluster {name!r} is {spec.provider}: its machines cost nothing here. Prices are "
            f"those of {', '.join(known.CLOUDS)}."
        )
    if region is not None:
        spec = spec.model_copy(update={"region": region})
    own = tuple(dict.fromkeys(one for wish in wishes(spec) for one in wish.types))
    return known.connect(spec), own
