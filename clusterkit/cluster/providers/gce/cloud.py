"""GCE as a `Cloud`: which module does what. Answers that do not change are kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import ClassVar

from clusterkit.cluster.cloud.api import (
    Cloud,
    Finding,
    Image,
    Instance,
    Launch,
    MachineType,
    Market,
    Need,
    Quota,
    Resource,
)
from clusterkit.cluster.cloud.found import moment
from clusterkit.cluster.prices import Price
from clusterkit.cluster.providers.gce import (
    found,
    images,
    launches,
    machines,
    network,
    offers,
    resources,
    scopes,
    words,
)
from clusterkit.cluster.providers.gce.catalog import Catalog
from clusterkit.cluster.providers.gce.client import Client
from clusterkit.cluster.providers.gce.words import ApiError, GoogleError
from clusterkit.errors import ClusterkitError

#: How long a machine that Google took is shown.
_TOLD = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Choices:
    """What the settings say of machines besides their types; `max_run` in seconds."""

    network: str | None = None
    subnetwork: str | None = None
    disk_type: str = "auto"
    max_run: int | None = None
    public: bool = True


class GceCloud(Cloud):
    """One region of one project."""

    name: ClassVar[str] = "gce"
    kinds: ClassVar[tuple[str, ...]] = resources.PLURALS
    chooses_zone: ClassVar[bool] = True

    def __init__(self, client: Client, choices: Choices | None = None) -> None:
        self.client = client
        self.region = client.region
        self._choices = choices or Choices()
        self._types: dict[str, MachineType] = {}
        self._images: dict[tuple[str, str], Image] = {}
        self._spot: dict[str | None, set[str]] = {}
        self._taken: dict[str, list[Instance]] = {}
        self._leaving: set[str] = set()  # names of machines that were on their way out
        self._made: list[Resource] = []  # here, and not listed by Google yet

    @property
    def server(self) -> str:
        return self.client.endpoint or ""

    @property
    def place(self) -> object:
        client = self.client
        who = getattr(client.credentials, "service_account_email", "")
        return (self.name, client.endpoint, client.project, self.region, who)

    def tell(self, say: Callable[[str], None]) -> None:
        self.client.say = say

    def account(self) -> str:
        return self._account

    @cached_property
    def _account(self) -> str:
        try:
            return str(self.client.call("projects", "get").name) or self.client.project
        except ApiError as error:
            if not scopes.all_the_same(self.client, error):
                raise
            return self.client.project

    @cached_property
    def _zones(self) -> tuple[str, ...]:
        return offers.zones(self.client)

    @cached_property
    def _catalog(self) -> Catalog:
        return Catalog(self.client, self.machine_types)

    def machine_types(self, names: Collection[str]) -> Mapping[str, MachineType]:
        missing = [name for name in names if name not in self._types]
        self._types |= offers.machine_types(self.client, missing, self._zones)
        return {name: self._types[name] for name in names}

    def regions(self) -> tuple[str, ...]:
        try:
            told = self.client.pages("regions", "list")
        except ApiError as error:
            if not self.client.lacks(error):
                raise
            return (self.region,)
        return tuple(sorted(str(one.name) for one in told)) or (self.region,)

    def zones(self) -> tuple[str, ...]:
        return self._zones

    def network(self) -> str:
        try:
            return network.range_of(
                self.client, self._choices.network, self._choices.subnetwork
            ).partition("/")[0]
        except ClusterkitError:
            return ""

    def flaws(self) -> list[str]:
        from clusterkit.cluster.providers.gce import doctor

        told = doctor.flaw(self.client, self._choices.network, self._choices.subnetwork)
        return [f"network: {told}"] if told else []

    def image(self, name: str, arch: str) -> Image:
        if (name, arch) not in self._images:
            self._images[name, arch] = images.named(self.client, name, arch)
        return self._images[name, arch]

    def images(self) -> list[Image]:
        return images.saved(self.client)

    def save_image(self, instance: Instance, name: str, labels: Mapping[str, str]) -> str:
        return images.save(self.client, instance, name, labels)

    def remove_image(self, image: Image) -> None:
        images.remove(self.client, image)

    def instances(self, cluster_id: str | None) -> list[Instance]:
        """Google forgets a machine that ended; spot machines that it took are told by operations,
        which are asked for at first, and when one has gone or is going.
        """
        there = resources.instances(self.client, cluster_id)
        if cluster_id is None:
            return there
        leaving = [one for one in there if one.state in ("stopping", "ending")]
        self._leaving = set(map(found.name_of, leaving))
        spot = {one.id for one in there if one.market == "spot" and one.alive}
        if self._spot.get(cluster_id, {""}) - spot:
            self._taken[cluster_id] = self._ended(cluster_id, there)
        self._spot[cluster_id] = spot
        taken = {one.id: one for one in self._taken.get(cluster_id, ())}
        shown = [
            replace(one, why=taken.pop(one.id).why, taken=True)
            if one.id in taken and not one.alive
            else one
            for one in there
        ]
        ids = {one.id for one in there}
        return shown + [one for one in taken.values() if one.id not in ids]

    def _ended(self, cluster_id: str, there: Sequence[Instance]) -> list[Instance]:
        """The spot machines of a cluster that Google took in the last hour."""
        marks = next((one.labels for one in there), None)
        if marks is None:
            rule = next(iter(network.firewalls(self.client, cluster_id)), None)
            if rule is None:
                return []
            marks = found.described(str(rule.description))
        cluster, began = marks.get("clusterkit-cluster", ""), marks.get("clusterkit-created", "")
        since = max(datetime.now(UTC) - _TOLD, moment(began) or datetime.min.replace(tzinfo=UTC))
        if not self.client.has("global_operations", "aggregated_list"):
            return []
        try:
            told = self.client.pages(
                "global_operations",
                "aggregated_list",
                filter='operationType = "compute.instances.preempted"',
            )
        except ApiError as error:
            if not self.client.lacks(error) and not words.unclear(error.status):
                raise
            return []
        ours = {key: value for key, value in marks.items() if key.startswith("clusterkit-")}
        some = [
            found.taken(one, cluster, ours)
            for scope, have in told
            if found.last(scope).startswith(f"{self.region}-")
            for one in have.operations
            if str(one.operation_type) == "compute.instances.preempted"
        ]
        return [one for one in some if one is not None and (one.began is None or one.began > since)]

    def resources(self, cluster_id: str | None) -> list[Resource]:
        """What was made here is among them before Google lists it: it shall not be left behind."""
        shown = resources.resources(self.client, cluster_id)
        known = {(one.kind, one.id) for one in shown}
        self._made = [one for one in self._made if (one.kind, one.id) not in known]
        return shown + [
            one for one in self._made if cluster_id in (None, one.labels.get("clusterkit-id"))
        ]

    def prepare(
        self, labels: Mapping[str, str], public_key: str, door: Sequence[str], placement: bool
    ) -> Mapping[str, str]:
        """The key comes with the user-data; Google knows nothing of it."""
        del public_key
        choices = self._choices
        net = network.path_of(self.client, choices.network, choices.subnetwork)
        site = network.prepare(
            self.client, labels, door, net, placement=placement, made=self._made.append
        )
        site |= {f"zones {one.name}": " ".join(one.zones) for one in self._types.values()}
        site["disk type"] = choices.disk_type
        if choices.subnetwork is not None:
            site["subnetwork"] = network.subnetwork_path(self.client, choices.subnetwork)
        if choices.public:
            site["address"] = "public"
        if choices.max_run is not None:
            site["max run"] = str(choices.max_run)
        return site

    def open_door(self, cluster_id: str, door: Sequence[str]) -> tuple[list[str], list[str]]:
        return network.open_door(self.client, cluster_id, door)

    def door(self, cluster_id: str) -> list[str] | None:
        return network.door(self.client, cluster_id)

    def launch(self, launch: Launch) -> list[Instance]:
        """Of machines that were taken before Google could list them it is told why."""
        if self._leaving.intersection(launches.names(launch)):
            launches.await_names(self.client, launch)
        made = launches.launch(self.client, launch)
        if len(made) >= launch.least:
            return made
        names = set(launches.names(launch)) - set(map(found.name_of, made))
        taken = self._ended(launch.labels["clusterkit-id"], made)
        places = (launch.candidate.zone, self.region)
        gone = [one for one in taken if found.name_of(one) in names and one.zone in places]
        return [*made, *gone]

    def launched(self, token: str) -> list[Instance]:
        return machines.launched(self.client, token)

    def start(self, instances: Sequence[Instance]) -> None:
        try:
            machines.start(self.client, instances)
        except GoogleError as error:
            launches.refused(self.client, error, launching=False)

    def stop(self, instances: Sequence[Instance]) -> None:
        machines.stop(self.client, instances)

    def end(self, instances: Sequence[Instance]) -> None:
        machines.end(self.client, instances)

    def give_user_data(self, instance: Instance, user_data: str) -> None:
        machines.give_user_data(self.client, instance, user_data)

    def delete(self, resource: Resource) -> str:
        said = resources.delete(self.client, resource)
        if not said:
            self._made = [
                one for one in self._made if (one.kind, one.id) != (resource.kind, resource.id)
            ]
        return said

    # -- what is only asked about -------------------------------------------------------------

    def prices(
        self, types: Collection[str], zones: Collection[str], markets: Collection[Market]
    ) -> list[Price]:
        from clusterkit.cluster.providers.gce import prices

        return prices.prices(self._catalog, types, zones, markets)

    def disk_price(self) -> Price:
        from clusterkit.cluster.providers.gce import prices

        return prices.disk_price(self._catalog, self._choices.disk_type)

    def image_price(self) -> Price:
        from clusterkit.cluster.providers.gce import prices

        return prices.image_price(self._catalog)

    def address_price(self) -> Price:
        from clusterkit.cluster.providers.gce import prices

        return prices.address_price(self._catalog)

    def quotas(self, needs: Sequence[Need]) -> list[Quota]:
        from clusterkit.cluster.providers.gce import quotas

        choices = self._choices
        return quotas.quotas(
            self._catalog, needs, addresses=choices.public, disk_type=choices.disk_type
        )

    def examine(self) -> Iterator[Finding]:
        from clusterkit.cluster.providers.gce import doctor

        yield from doctor.examine(self.client, self._choices.network, self._choices.subnetwork)
