"""What the settings wish for, and the ways to get it, in order. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from clusterkit.cluster.cloud.api import Candidate, MachineType, Market
from clusterkit.cluster.spec import CloudSpec

HEAD = "head"
BUILDER = "builder"


@dataclass(frozen=True, slots=True)
class Wish:
    """Machines of one kind: the head, or a worker group; `disk` in GiB, None: what the image needs.

    `least` is how many have to be there in all; `numbers` count from 1, as the names do.
    """

    group: str
    roles: tuple[str, ...]
    numbers: tuple[int, ...]
    least: int
    types: tuple[str, ...]
    zones: tuple[str, ...]  # (): any
    markets: tuple[Market, ...]
    disk: int | None = None
    placement: bool = False
    gpus: int = 0


def wishes(spec: CloudSpec) -> tuple[Wish, ...]:
    """The head's, then those of the groups in order; a group of no machines has one too."""
    head = spec.head
    found = [
        Wish(
            HEAD,
            ("head", "worker") if head.worker else ("head",),
            (1,),
            1,
            head.types,
            head.zones,
            _markets(head.market),
            head.disk,
        )
    ]
    for name, group in spec.workers.items():
        found.append(
            Wish(
                name,
                ("worker",),
                tuple(range(1, group.count + 1)),
                group.count if group.min is None else min(group.min, group.count),
                group.types,
                group.zones,
                _markets(group.market),
                group.disk,
                group.placement,
                group.gpus,
            )
        )
    return tuple(found)


def _markets(market: str) -> tuple[Market, ...]:
    if market == "spot-then-on-demand":
        return ("spot", "on-demand")
    return ("spot",) if market == "spot" else ("on-demand",)


def machine_name(cluster: str, group: str, number: int) -> str:
    """The name of a machine: a head and a builder are alone, workers are numbered."""
    alone = group in (HEAD, BUILDER)
    return f"{cluster}-{group}" if alone else f"{cluster}-{group}-{number}"


def candidates(
    wish: Wish,
    types: Mapping[str, MachineType],
    zones: Collection[str],
    spot: Mapping[tuple[str, str], float],
    near: Sequence[str] = (),
    anywhere: str = "",
) -> tuple[Candidate, ...]:
    """The ways to get it, the first to be tried first: by market, then type, then zone.

    Where any zone will do, spot machines are tried in the cheapest first (`spot`: the prices of
    types in zones that are known), on-demand ones, which cost the same everywhere, in the zones
    `near` first. Only `zones` can be used. `anywhere`: the region of a cloud that chooses among its
    zones itself; it does so when the nearest one does not have them.
    """
    found: list[Candidate] = []
    for market in wish.markets:
        for name in wish.types:
            there = [zone for zone in types[name].zones if zone in zones]
            if wish.zones:
                order = [zone for zone in wish.zones if zone in there]
            elif anywhere:
                order = [*[zone for zone in near if zone in there][:1], anywhere] if there else []
            elif market == "spot":
                priced = sorted((spot.get((name, zone), float("inf")), zone) for zone in there)
                order = [zone for _, zone in priced]
            else:
                order = [zone for zone in near if zone in there]
                order += sorted(zone for zone in there if zone not in near)
            found += [Candidate(name, zone, market) for zone in order]
    return tuple(found)


def nearness(
    wished: Sequence[Wish],
    types: Mapping[str, MachineType],
    zones: Collection[str],
    spot: Mapping[tuple[str, str], float],
    there: Sequence[str],
) -> tuple[str, ...]:
    """The zones where machines that may be anywhere are best put: between zones, traffic costs.

    First where machines are (`there`), then where the first spot group will be, if its settings or
    prices tell, then those that the settings of others name, then where it may be.
    """
    group = next((one for one in wished if one.markets[0] == "spot" and one.numbers), None)
    spots: list[str] = []
    tells = False
    if group is not None:
        name = group.types[0]
        ways = candidates(group, types, zones, spot)
        spots = [one.zone for one in ways if (one.type, one.market) == (name, "spot")]
        tells = bool(group.zones) or len({spot.get((name, zone)) for zone in spots}) > 1
    named = [zone for one in wished if one.numbers for zone in one.zones]
    found = [*there, *(spots if tells else ()), *named, *spots]
    return tuple(dict.fromkeys(zone for zone in found if zone in zones))


def problems(
    wish: Wish, types: Mapping[str, MachineType], zones: Collection[str], region: str
) -> list[str]:
    """Why this wish can never be met in this region; nothing of types that it does not have."""
    key = wish.group if wish.group == HEAD else f"workers.{wish.group}"
    wish = replace(wish, types=tuple(name for name in wish.types if name in types))
    found = []
    unknown = [zone for zone in wish.zones if zone not in zones]
    if unknown:
        found.append(
            f"{key}.zones: {', '.join(unknown)}: not in {region}, or without a network there; it "
            f"has {', '.join(sorted(zones)) or 'none'}"
        )
    elif wish.types and not candidates(wish, types, zones, {}):
        offered = "; ".join(
            f"{name} is offered in {', '.join(types[name].zones) or 'no zone'}"
            for name in wish.types
        )
        found.append(
            f"{key}: no zone of {region} that can be used ({', '.join(sorted(zones)) or 'none'}) "
            f"has {' or '.join(wish.types)}: {offered}"
        )
    if wish.gpus:
        poor = [name for name in wish.types if types[name].gpus < wish.gpus]
        if poor:
            told = ", ".join(f"{name} has {types[name].gpus}" for name in poor)
            found.append(f"{key}.gpus: {wish.gpus} were asked for, but {told}")
    arches = {types[name].arch for name in wish.types}
    if len(arches) > 1:
        found.append(
            f"{key}.types: {', '.join(wish.types)} are of different processors "
            f"({', '.join(sorted(arches))}); a group has one kind"
        )
    return found
