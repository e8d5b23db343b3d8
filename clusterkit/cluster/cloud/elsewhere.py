"""Clusters of the clouds that this computer does not know, in the regions it has to do with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from clusterkit.cluster import access, config, stored
from clusterkit.cluster.cloud import found, known, place
from clusterkit.cluster.cloud.api import Cloud, NoCredentials, NoRegion
from clusterkit.cluster.cloud.found import Found
from clusterkit.cluster.spec import CloudSpec
from clusterkit.errors import ClusterError, ClusterkitError, UsageError
from clusterkit.paths import Home

#: Told, in one line, of a cloud that could not be asked.
Warn = Callable[[str], None]

#: Regions that are asked at the same time.
_AT_ONCE = 16

_S = TypeVar("_S")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Region:
    """A region of a cloud, not connected to yet; `settings` say how to."""

    settings: CloudSpec

    @property
    def name(self) -> str:
        return f"{self.settings.provider} {self.settings.region or '(the default region)'}"

    def connect(self) -> Cloud:
        return known.connect(self.settings)


def regions(home: Home) -> list[Region]:
    """Where the clusters of the settings and those that were started are; each region once.

    Imports no SDK. A settings file with mistakes counts for nothing here.
    """
    made: dict[tuple[object, ...], Region] = {}
    for spec in _specs(home):
        key = (spec.provider, spec.region, *spec.access)
        made.setdefault(key, Region(spec))
    return list(made.values())


def named(provider: str, region: str | None) -> Region:
    """A region of which no settings speak. Raises UsageError for a provider that is no cloud."""
    from clusterkit.cluster.spec import SPECS

    if provider not in known.CLOUDS:
        raise UsageError(f"{provider!r} is no cloud; it is one of {', '.join(known.CLOUDS)}")
    settings = SPECS[provider].model_construct(provider=provider, region=region)
    assert isinstance(settings, CloudSpec)
    return Region(settings)


def everywhere(home: Home, warn: Warn) -> list[Region]:
    """All regions that the accounts can use, of all clouds whose SDK is installed."""
    some = regions(home)
    accounts: dict[tuple[object, ...], Region] = {}
    for one in (*some, *(named(provider, None) for provider in known.CLOUDS)):
        accounts.setdefault((one.settings.provider, *one.settings.access), one)
    made = []
    for one in accounts.values():
        try:
            every = _regions(one)
        except ClusterkitError as error:
            if one in some or not _unused(error):
                warn(f"{one.settings.provider} could not be asked for its regions: {_first(error)}")
            continue
        made += [Region(one.settings.at(name)) for name in every]
    return made


def _regions(one: Region) -> tuple[str, ...]:
    """All that the account can use; any region tells of the others."""
    try:
        return one.connect().regions()
    except NoRegion:
        return Region(one.settings.at(one.settings.some_region)).connect().regions()


def _unused(error: ClusterkitError) -> bool:
    """Whether it says that this computer has nothing to do with a cloud."""
    return isinstance(error.__cause__, ImportError) or isinstance(error, NoRegion | NoCredentials)


def look(where: Iterable[Region], warn: Warn) -> list[Found]:
    """The clusters there, all regions asked at the same time."""
    unique = {
        one.id: one
        for several in ask(where, lambda cloud: found.clusters(cloud, whole=False), warn)
        for one in several
    }
    return sorted(unique.values(), key=lambda one: (one.name, one.id))


def ask(where: Iterable[Region], question: Callable[[Cloud], _T], warn: Warn) -> list[_T]:
    """The answers of the regions, asked at the same time; one that gives none is warned of.

    Each place is asked once, however it is named: the settings may leave the project to gcloud.
    """

    def tried(region: Region, act: Callable[[], _S]) -> _S | None:
        try:
            return act()
        except ClusterkitError as error:
            warn(f"{region.name} could not be asked: {_first(error)}")
            return None

    several = list(where)
    if not several:
        return []
    with ThreadPoolExecutor(min(_AT_ONCE, len(several))) as pool:
        clouds = pool.map(lambda region: tried(region, region.connect), several)
        places: dict[object, tuple[Region, Cloud]] = {}
        for region, cloud in zip(several, clouds, strict=True):
            if cloud is not None:
                places.setdefault(cloud.place, (region, cloud))
        answers = pool.map(
            lambda one: tried(one[0], lambda: question(one[1])), list(places.values())
        )
        return [answer for answer in answers if answer is not None]


def ids(home: Home) -> set[str]:
    """The ids of the clusters that have a folder here."""
    made = set()
    for file in (home.root / "clusters").glob("*/identity.json"):
        try:
            made.add(access.read_id(file.parent))
        except ClusterError:
            continue  # a damaged one knows nothing
    return made - {""}


def _specs(home: Home) -> Iterable[CloudSpec]:
    """Of clusters that were started, then of those of the settings file."""
    for name in stored.names(home.root / "clusters"):
        folder = home.cluster(name)
        if stored.provider(folder) not in known.CLOUDS:
            continue
        try:
            started = stored.read(folder)
            there = place.read(folder, access.read_id(folder))
        except ClusterError:
            continue
        if started is not None and isinstance(started.spec, CloudSpec):
            spec = started.spec
            yield spec.at(there.region, there.account) if there is not None else spec
    try:
        file = config.find(home)
        specs = config.load(file) if file is not None else {}
    except UsageError:  # told by whoever needs the file
        return
    yield from (spec for spec in specs.values() if isinstance(spec, CloudSpec))


def _first(error: Exception) -> str:
    return str(error).partition("\n")[0]
