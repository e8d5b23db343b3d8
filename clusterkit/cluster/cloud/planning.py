"""The plan before money: what is started, what is tried in which order, what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clusterkit.cluster.cloud.api import Cloud, Instance, MachineType, Market, Need, Quota
from clusterkit.cluster.cloud.launching import Order
from clusterkit.cluster.cloud.wishes import HEAD
from clusterkit.cluster.prices import Price, Prices
from clusterkit.errors import UsageError

_HEADER: tuple[str, ...] = (
    "WHAT",
    "COUNT",
    "TYPE",
    "MARKET",
    "ZONES IN ORDER",
    "EACH/HOUR",
    "ALL/HOUR",
)


@dataclass(frozen=True, slots=True)
class Shown:
    """`price`: an hour's of all that will run, by the first ways; None when a part is not known.

    `most` is that by the dearest ways; `known` the sum of what is known; `unknown` what is not.
    """

    table: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    price: float | None
    most: float = 0.0
    known: float = 0.0
    unknown: tuple[str, ...] = ()
    currency: str = "USD"


@dataclass
class _Sum:
    first: float = 0.0
    most: float = 0.0
    unknown: list[str] = field(default_factory=list)
    seen: list[Price] = field(default_factory=list)

    def add(self, price: Price | None, what: str, count: float) -> None:
        """A price that is paid whichever way is taken."""
        if price is None or price.amount is None:
            self.unknown.append(what)
            return
        self.seen.append(price)
        self.first += price.amount * count
        self.most += price.amount * count


def show(
    cloud: Cloud,
    orders: Sequence[Order],
    types: Mapping[str, MachineType],
    prices: Prices,
    *,
    public: bool,
    running: Sequence[Instance],
) -> Shown:
    """What `orders` would start beside what runs already."""
    zones = sorted({c.zone for order in orders for c in order.candidates})
    names = sorted(
        {c.type for order in orders for c in order.candidates} | {one.type for one in running}
    )
    markets: set[Market] = {c.market for order in orders for c in order.candidates}
    markets |= {one.market for one in running}
    zones = sorted({*zones, *(one.zone for one in running)})
    found = prices.of(cloud, names, zones, sorted(markets))
    table, total = [_HEADER], _Sum()
    for order in orders:
        table += _rows(order, found, total, cloud.region)
    table += _there(running, found, total)
    count = sum(len(order.missing) for order in orders)
    disk = prices.disk(cloud)
    size = sum(
        max([order.wish.disk or 0, *(image.disk for image in order.images.values())])
        * len(order.missing)
        for order in orders
    )
    sized = [one.disk for one in running if one.disk > 0]
    size += sum(sized)
    if size:
        total.add(disk, "disks", size)
        disks = str(count + len(sized))
        table.append(("disks", disks, f"{size} GiB in all", "", "", "", _all(disk, size)))
    if public:
        addresses = count + len(running)
        address = prices.address(cloud)
        total.add(address, "public addresses", addresses)
        words = ("public addresses", str(addresses), "", "", "")
        table.append((*words, _each(address), _all(address, addresses)))
    table.append(("in all", "", "", "", "", "", _in_all(total)))
    notes = []
    if len(sized) < len(running):
        unsized = ", ".join(sorted(one.id for one in running if one.disk <= 0))
        notes.append(f"not in the sum: the disks of {unsized}, whose size is not known")
    notes += _sources(total.seen, prices)
    if total.unknown:
        told = ", ".join(dict.fromkeys(total.unknown))
        why = next((one.why for one in (*found, disk) if one.amount is None and one.why), "")
        notes.append(f"not known: the price of {told}" + (f" ({why})" if why else ""))
    off = [one for one in running if one.state in ("stopping", "stopped")]
    if orders or off:
        notes += _quotas(cloud, orders, types, off)
    return Shown(
        tuple(table),
        tuple(notes),
        None if total.unknown else round(total.first, 4),
        round(total.most, 4),
        round(total.first, 4),
        tuple(dict.fromkeys(total.unknown)),
        cloud.currency,
    )


def apart(orders: Sequence[Order], there: Mapping[str, Collection[str]]) -> list[str]:
    """A note when workers will be in another zone than the head, by the first ways.

    `there`: group -> the zones of its machines that are there.
    """
    zones = {
        order.wish.group: {*there[order.wish.group], *(c.zone for c in order.candidates[:1])}
        for order in orders
    }
    head = zones.pop(HEAD)
    away = [
        f"{group} in {', '.join(sorted(some - head))}"
        for group, some in zones.items()
        if some - head
    ]
    if not away:
        return []
    told = f"the head is in {', '.join(sorted(head))}, workers {'; '.join(away)}"
    return [f"{told}: between zones traffic costs, which is not counted here; see `zones`"]


def total(shown: Shown) -> str:
    """What it costs in one sentence."""
    if not shown.table:
        return ""
    if shown.price is None and not shown.known:
        return "What that costs is not known"
    most = f", at most {shown.most:.3f}" if shown.most > shown.known + 0.0005 else ""
    words = f"{shown.known:.3f} {shown.currency} an hour{most}"
    if shown.unknown:
        return f"That costs more than {words} (not known: {', '.join(shown.unknown)})"
    return f"That costs {words}"


def _rows(order: Order, found: Sequence[Price], total: _Sum, region: str) -> list[tuple[str, ...]]:
    """A row for each type and market, in the order in which they are tried."""
    ways: dict[tuple[str, Market], list[str]] = {}
    for candidate in order.candidates:
        ways.setdefault((candidate.type, candidate.market), []).append(candidate.zone)
    count, dearest = len(order.missing), 0.0
    rows: list[tuple[str, ...]] = []
    for number, ((name, market), zones) in enumerate(ways.items()):
        here = [_price(found, name, zone, market) for zone in zones]
        first = here[0]
        known = [one.amount for one in here if one is not None and one.amount is not None]
        dearest = max([dearest, *known])
        if number == 0:
            if first is None or first.amount is None:
                total.unknown.append(f"{name} {market}")
            else:
                total.seen.append(first)
                total.first += first.amount * count
        elif first is not None and first.amount is not None:
            total.seen.append(first)
        what = ("head" if order.wish.group == HEAD else f"workers {order.wish.group}", str(count))
        rows.append(
            (
                *(what if number == 0 else ("  or", "")),
                name,
                market,
                ", ".join("any" if zone == region else zone for zone in zones),
                _each(first),
                _all(first, count),
            )
        )
    total.most += dearest * count
    return rows


def _there(
    running: Sequence[Instance], found: Sequence[Price], total: _Sum
) -> list[tuple[str, ...]]:
    """A row for each kind of machine that is there already."""
    kinds = Counter((one.type, one.market, one.zone) for one in running)
    rows: list[tuple[str, ...]] = []
    for (name, market, zone), count in sorted(kinds.items()):
        price = _price(found, name, zone, market)
        total.add(price, f"{name} {market}", count)
        rows.append(
            ("there already", str(count), name, market, zone, _each(price), _all(price, count))
        )
    return rows


def _in_all(total: _Sum) -> str:
    if not total.unknown:
        return f"{total.first:.4f}"
    return f"over {total.first:.4f}" if total.first else "unknown"


def _price(found: Sequence[Price], name: str, zone: str, market: str) -> Price | None:
    """Of a type in a zone: the zone's own price, else the region's."""
    fits = [one for one in found if one.subject == name and one.market == market]
    return next(
        (one for one in fits if one.zone == zone), next((one for one in fits if not one.zone), None)
    )


def _each(price: Price | None) -> str:
    return "unknown" if price is None or price.amount is None else f"{price.amount:.4f}"


def _all(price: Price | None, count: float) -> str:
    return "unknown" if price is None or price.amount is None else f"{price.amount * count:.4f}"


def _sources(seen: Sequence[Price], prices: Prices) -> list[str]:
    """Where the prices come from and how old they are; the oldest of each source.

    What a source's name has after a comma, as "a month of 730 h", is said of the source once.
    """
    oldest: dict[tuple[str, str], Price] = {}
    details: dict[tuple[str, str], list[str]] = {}
    for price in seen:
        name, _, detail = price.source.partition(", ")
        key = (name, price.currency)
        if detail and detail not in details.setdefault(key, []):
            details[key].append(detail)
        known = oldest.get(key)
        if known is None or (price.fetched and known.fetched and price.fetched < known.fetched):
            oldest[key] = price
    told = []
    for key, price in oldest.items():
        name, currency = key
        more = f" ({'; '.join(details[key])})" if details.get(key) else ""
        told.append(f"prices in {currency}: {prices.age(replace(price, source=name + more))}")
    return told


def _quotas(
    cloud: Cloud,
    orders: Sequence[Order],
    types: Mapping[str, MachineType],
    off: Sequence[Instance],
) -> list[str]:
    """The limits that count against what is launched, and what is switched on again (`off`)."""
    needs, notes = _again(cloud, types, off)
    for order in orders:
        markets: dict[Market, str] = {}
        for candidate in order.candidates:
            markets.setdefault(candidate.market, candidate.type)
        disk = max([order.wish.disk or 0, *(image.disk for image in order.images.values())])
        needs += [
            Need(types[name], market, len(order.missing), disk, order.wish.group)
            for market, name in markets.items()
        ]
    return [_quota(one) for one in cloud.quotas(needs)] + notes


def _again(
    cloud: Cloud, types: Mapping[str, MachineType], off: Sequence[Instance]
) -> tuple[list[Need], list[str]]:
    """What machines that are off will need, and a note on types that the region lost."""
    kinds = Counter((one.type, one.market) for one in off)
    asked = sorted({name for name, _ in kinds} - types.keys())
    notes: list[str] = []
    known = dict(types)
    if asked:
        try:
            known |= cloud.machine_types(asked)
        except UsageError as error:
            notes.append(f"quota of {', '.join(asked)}: not known ({error})")
    needs = [
        Need(known[name], market, count)
        for (name, market), count in sorted(kinds.items())
        if name in known
    ]
    return needs, notes


def _quota(one: Quota) -> str:
    if one.limit is None:
        return f"quota {one.name}: not known ({one.why})"
    used = f", {one.used:g} in use" if one.used is not None else ""
    words = f"quota {one.name}: {one.limit:g}{used}, {one.needed:g} needed"
    if one.short:
        return f"{words}: TOO SMALL, that will be refused. Ask for more: {one.page}"
    return words
