"""EC2 as a `Cloud`: which module does what. Answers that do not change are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
    Refused,
    Resource,
)
from clusterkit.cluster.prices import Price
from clusterkit.cluster.providers.ec2 import images, launches, network, offers, resources
from clusterkit.cluster.providers.ec2.client import Client
from clusterkit.cluster.providers.ec2.offers import Subnet
from clusterkit.errors import ClusterError, ClusterkitError

#: Where the SDK is told of another server than AWS's: docs.aws.amazon.com/sdkref,
#: feature-ss-endpoints.
_SERVERS = ("AWS_ENDPOINT_URL_PRICING", "AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL")


class Ec2Cloud(Cloud):
    """`subnet` is the settings' own; `public`: machines shall have public addresses."""

    name: ClassVar[str] = "ec2"
    kinds: ClassVar[tuple[str, ...]] = resources.PLURALS

    def __init__(self, client: Client, *, subnet: str | None = None, public: bool = True) -> None:
        self.client = client
        self.region = client.region
        self._subnet, self._public = subnet, public
        self._types: dict[str, MachineType] = {}
        self._images: dict[tuple[str, str], images.Found] = {}
        self._roots: dict[str, str] = {}
        self._made: list[Resource] = []  # here, and not listed by AWS yet

    @property
    def server(self) -> str:
        return next(filter(None, map(os.environ.get, _SERVERS)), "")

    @property
    def place(self) -> object:
        return (self.name, self.client.profile, self.region)

    def tell(self, say: Callable[[str], None]) -> None:
        self.client.say = say

    def account(self) -> str:
        return self._account

    @cached_property
    def _account(self) -> str:
        return str(self.client.call("sts", "GetCallerIdentity")["Account"])

    @cached_property
    def _subnets(self) -> tuple[Subnet, ...]:
        return offers.subnets(self.client, self._subnet)

    def machine_types(self, names: Collection[str]) -> Mapping[str, MachineType]:
        missing = [name for name in names if name not in self._types]
        self._types |= offers.machine_types(self.client, missing)
        return {name: self._types[name] for name in names}

    def regions(self) -> tuple[str, ...]:
        told = self.client.pages("ec2", "DescribeRegions", "Regions")
        return tuple(sorted(str(one["RegionName"]) for one in told))

    def zones(self) -> tuple[str, ...]:
        return tuple(subnet.zone for subnet in self._subnets)

    def network(self) -> str:
        try:
            return self._subnets[0].cidr.partition("/")[0]
        except ClusterkitError:
            return ""

    def image(self, name: str, arch: str) -> Image:
        if (name, arch) not in self._images:
            found = images.named(self.client, name, arch)
            self._images[name, arch] = found
            self._roots[found.image.id] = found.root
        return self._images[name, arch].image

    def images(self) -> list[Image]:
        return images.saved(self.client)

    def save_image(self, instance: Instance, name: str, labels: Mapping[str, str]) -> str:
        return images.save(self.client, instance, name, labels)

    def remove_image(self, image: Image) -> None:
        images.remove(self.client, image)

    def instances(self, cluster_id: str | None) -> list[Instance]:
        return resources.instances(self.client, cluster_id)

    def resources(self, cluster_id: str | None) -> list[Resource]:
        """What was made here is among them before AWS lists it: it shall not be left behind."""
        shown = resources.resources(self.client, cluster_id)
        known = {(one.kind, one.id) for one in shown}
        self._made = [one for one in self._made if (one.kind, one.id) not in known]
        return shown + [
            one for one in self._made if cluster_id in (None, one.labels.get("clusterkit-id"))
        ]

    def prepare(
        self, labels: Mapping[str, str], public_key: str, door: Sequence[str], placement: bool
    ) -> Mapping[str, str]:
        return network.prepare(
            self.client,
            labels,
            public_key,
            door,
            self._subnets,
            placement=placement,
            public=self._public,
            made=self._made.append,
        )

    def open_door(self, cluster_id: str, door: Sequence[str]) -> tuple[list[str], list[str]]:
        return network.open_door(self.client, cluster_id, door)

    def door(self, cluster_id: str) -> list[str] | None:
        from clusterkit.cluster.providers.ec2 import doctor

        return doctor.door(self.client, cluster_id)

    def launch(self, launch: Launch) -> list[Instance]:
        if launch.image not in self._roots:
            try:
                self._roots[launch.image] = images.root_name(self.client, launch.image)
            except ClusterError as error:
                raise Refused("never", str(error)) from error
        return launches.launch(self.client, launch, self._roots[launch.image])

    def launched(self, token: str) -> list[Instance]:
        return launches.launched(self.client, token)

    def start(self, instances: Sequence[Instance]) -> None:
        launches.start(self.client, instances)

    def stop(self, instances: Sequence[Instance]) -> None:
        launches.stop(self.client, instances)

    def end(self, instances: Sequence[Instance]) -> None:
        launches.end(self.client, instances)

    def give_user_data(self, instance: Instance, user_data: str) -> None:
        launches.give_user_data(self.client, instance, user_data)

    def delete(self, resource: Resource) -> str:
        words = resources.delete(self.client, resource)
        if not words:
            self._made = [
                one for one in self._made if (one.kind, one.id) != (resource.kind, resource.id)
            ]
        return words

    # -- what is only asked about -------------------------------------------------------------

    def prices(
        self, types: Collection[str], zones: Collection[str], markets: Collection[Market]
    ) -> list[Price]:
        from clusterkit.cluster.providers.ec2 import prices

        return prices.prices(self.client, types, zones, markets)

    def disk_price(self) -> Price:
        from clusterkit.cluster.providers.ec2 import prices

        return prices.disk_price(self.client)

    def image_price(self) -> Price:
        from clusterkit.cluster.providers.ec2 import prices

        return prices.image_price(self.client)

    def address_price(self) -> Price:
        from clusterkit.cluster.providers.ec2 import prices

        return prices.address_price(self.client)

    def quotas(self, needs: Sequence[Need]) -> list[Quota]:
        from clusterkit.cluster.providers.ec2 import quotas

        return quotas.quotas(self.client, needs)

    def examine(self) -> Iterator[Finding]:
        from clusterkit.cluster.providers.ec2 import doctor

        yield from doctor.examine(self.client, self._subnet)
