"""What is missing of what the settings wish for, and how to get it: types, zones, images, prices.

All is asked of the cloud once: what the plan showed is tried in that order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

from clusterkit.cluster.cloud import imaging
from clusterkit.cluster.cloud.api import Candidate, Cloud, Image, Instance, MachineType, Market
from clusterkit.cluster.cloud.launching import Order
from clusterkit.cluster.cloud.whereabouts import Whereabouts
from clusterkit.cluster.cloud.wishes import (
    BUILDER,
    HEAD,
    candidates,
    machine_name,
    nearness,
    problems,
    wishes,
)
from clusterkit.cluster.prices import Prices
from clusterkit.errors import UsageError

SPOT: tuple[Market, ...] = ("spot",)


@dataclass(frozen=True, slots=True)
class Known:
    """What does not change while a command runs: types by name, usable zones."""

    types: Mapping[str, MachineType]
    zones: tuple[str, ...]


def _types(cloud: Cloud, names: Sequence[str]) -> tuple[Mapping[str, MachineType], list[str]]:
    """Those that the region has, and what it says of the others."""
    try:
        return cloud.machine_types(names), []
    except UsageError as error:
        told = str(error)
    found: dict[str, MachineType] = {}
    for name in names:
        with suppress(UsageError):
            found |= cloud.machine_types([name])
    return found, [f"types: {told}"]


class Orders:
    """Those of one cluster."""

    def __init__(self, where: Whereabouts) -> None:
        self._where = where
        self._cluster, self._settings = where.cluster, where.settings
        self._images: dict[tuple[str, str], Image] = {}
        self._plain: dict[str, Image] = {}

    @cached_property
    def known(self) -> Known:
        """Raises UsageError with all that can never be had in this region."""
        cloud, wished = self._where.cloud, wishes(self._settings)
        names = sorted({name for wish in wished for name in wish.types})
        zones = cloud.zones()
        types, found = _types(cloud, names)
        found += [
            problem for wish in wished for problem in problems(wish, types, zones, cloud.region)
        ]
        for arch in sorted({one.arch for one in types.values()} or {"x86_64"}):
            try:
                found += self._flaws(self._named(arch))
            except UsageError as error:
                found.append(f"image: {error}")
        found += cloud.flaws()
        if found:
            lines = "\n".join(f"  {problem}" for problem in found)
            raise UsageError(
                f"cluster {self._cluster!r} cannot be made, nothing was changed:\n{lines}"
            )
        return Known(types, zones)

    def of(self, alive: Mapping[str, Instance]) -> list[Order]:
        """What is wished for, and how to get what is missing of it."""
        wished = wishes(self._settings)
        missing = {
            wish.group: tuple(
                number
                for number in wish.numbers
                if machine_name(self._cluster, wish.group, number) not in alive
            )
            for wish in wished
        }
        if not any(missing.values()):
            return [Order(wish, (), len(wish.numbers), (), {}, {}) for wish in wished]
        types = self.known.types
        spot = self._spot
        near = nearness(wished, types, self.known.zones, spot, self._zones(alive))
        anywhere = self._where.cloud.region if self._where.cloud.chooses_zone else ""
        if anywhere and not near:  # nobody said where: together
            near = tuple(way.zone for way in candidates(wished[0], types, self.known.zones, {}))
        orders = []
        for wish in wished:
            gone = missing[wish.group]
            ways: tuple[Candidate, ...] = ()
            if gone:
                ways = candidates(wish, types, self.known.zones, spot, near, anywhere)
            if wish.placement:  # together with those that are there, where that is possible
                names = [machine_name(self._cluster, wish.group, number) for number in wish.numbers]
                there = {alive[name].zone for name in names if name in alive}
                ways = tuple(way for way in ways if not there or way.zone in there) or ways
            images = {name: self._image(types[name].arch) for name in wish.types if gone}
            orders.append(
                Order(
                    wish,
                    gone,
                    len(wish.numbers) - len(gone),
                    ways,
                    images,
                    {name: wish.gpus or types[name].gpus for name in wish.types},
                    "head" if wish.group == HEAD else "worker",
                )
            )
        return orders

    def _zones(self, alive: Mapping[str, Instance]) -> list[str]:
        """The zones of the machines that are there, the head's first, then where most are."""
        head = alive.get(machine_name(self._cluster, HEAD, 1))
        builder = machine_name(self._cluster, BUILDER, 1)
        counts = Counter(one.zone for name, one in alive.items() if name != builder)
        most = sorted(counts, key=lambda zone: (-counts[zone], zone))
        return list(dict.fromkeys([*([head.zone] if head is not None else []), *most]))

    def there(self, orders: Sequence[Order], alive: Mapping[str, Instance]) -> dict[str, set[str]]:
        """The zones of each group's machines that are there."""
        return {
            order.wish.group: {
                alive[name].zone
                for number in order.wish.numbers
                if (name := machine_name(self._cluster, order.wish.group, number)) in alive
            }
            for order in orders
        }

    @cached_property
    def _spot(self) -> dict[tuple[str, str], float]:
        """Asked once: what the plan showed is tried in that order."""
        wished = wishes(self._settings)
        names = sorted({n for wish in wished if "spot" in wish.markets for n in wish.types})
        if not names:
            return {}
        found = self.prices.of(self._where.cloud, names, self.known.zones, SPOT)
        return {(one.subject, one.zone): one.amount for one in found if one.amount is not None}

    @cached_property
    def prices(self) -> Prices:
        folder = self._where.folder.parents[1] / "prices"
        return Prices(folder, self._settings.provider, server=self._where.cloud.server)

    def _image(self, arch: str) -> Image:
        """The image for machines of this processor: the saved one that fits, else the named.

        All machines of a kind share it, so where some have GPUs one with their driver is preferred.
        """
        wished = self._settings.image
        key = (wished, arch)
        if key not in self._images:
            named = self._named(arch)
            if self._settings.saved_image == "auto":
                digest = imaging.digest(self._settings, wished, arch)
                own = imaging.fitting(self._saved, digest, arch)
                gpus = self._has_gpus(arch)
                best = max(
                    (one for one in own if one.state == "available"),
                    key=lambda one: (gpus and imaging.has_driver(one), str(one.made or "")),
                    default=None,
                )
                if best is not None:
                    named = replace(best, name=named.name, login=best.login or named.login)
            self._images[key] = named
        return self._images[key]

    def _flaws(self, image: Image) -> list[str]:
        """Why machines of this image could not be set up."""
        settings = self._settings
        if settings.user != (settings.login or image.login) or settings.shared == "there":
            return []
        told = (
            f"user: machines of {image.name} are set up with the account {settings.user}, and the"
        )
        return [f"{told} shared /home would hide its own: choose another name for yours"]

    def _named(self, arch: str) -> Image:
        """The image of the settings. Raises UsageError."""
        if arch not in self._plain:
            self._plain[arch] = self._where.cloud.image(self._settings.image, arch)
        return self._plain[arch]

    def _has_gpus(self, arch: str) -> bool:
        types = self.known.types
        return any(
            wish.gpus or types[name].gpus
            for wish in wishes(self._settings)
            for name in wish.types
            if types[name].arch == arch
        )

    @cached_property
    def _saved(self) -> list[Image]:
        return self._where.cloud.images()
