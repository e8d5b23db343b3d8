"""A cloud in memory, for tests of what is read from labels: just enough of `api.Cloud`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from clusterkit.cluster.cloud import api
from clusterkit.cluster.cloud.api import (
    Cloud,
    Finding,
    Image,
    Instance,
    Launch,
    MachineType,
    Need,
    Quota,
    Resource,
)
from clusterkit.cluster.prices import Price

NOW = datetime.now(UTC).replace(microsecond=0)


def ago(**how: float) -> datetime:
    return NOW - timedelta(**how)


def labels(name: str, id_: str, role: str, since: datetime, **more: str) -> dict[str, str]:
    return {
        "clusterkit-cluster": name,
        "clusterkit-id": id_,
        "clusterkit-role": role,
        "clusterkit-owner": "anna_laptop",
        "clusterkit-created": since.strftime("%Y%m%dT%H%M%SZ"),
        **{f"clusterkit-{key}": value for key, value in more.items()},
    }


class Memory(Cloud):
    """`things` refuse deletion while a machine lives, and `stubborn` ones as often as is said."""

    name = "ec2"
    kinds = ("instances", "volumes", "placement groups", "security groups", "key pairs")

    def __init__(self, region: str = "us-east-1") -> None:
        self.region = region
        self.machines: dict[str, Instance] = {}
        self.things: dict[str, Resource] = {}
        self.saved: dict[str, Image] = {}
        self.stubborn: Counter[str] = Counter()
        self.calls: list[str] = []
        self.others: tuple[str, ...] = ()
        self.door: tuple[list[str], list[str]] = ([], [])

    def cluster(
        self, name: str, id_: str, since: datetime, *, head: str = "running", workers: int = 2
    ) -> None:
        """A cluster with all that belongs to it; no `head`: it died."""
        groups = [("head", "head", 1)] * bool(head) + [("gpu", "worker", workers)]
        for group, role, count in groups:
            marks = labels(name, id_, role, since, group=group, numbers=f"1-{count}")
            for index in range(count):
                state = head if group == "head" else "running"
                self.machine(f"i-{id_[:3]}{group}{index + 1}", marks, state, index, since)
        marks = labels(name, id_, "cluster", since)
        for kind in ("key pair", "security group", "volume"):
            self.thing(kind, f"{kind.replace(' ', '-')}-{id_[:3]}", marks, None)

    def machine(
        self,
        id_: str,
        marks: Mapping[str, str],
        state: str = "running",
        index: int = 0,
        began: datetime | None = None,
        market: api.Market = "on-demand",
    ) -> None:
        number = len(self.machines) + 5
        self.machines[id_] = Instance(
            id_, "g5.xlarge", "us-east-1a", market, state, f"10.0.0.{number}",  # type: ignore[arg-type]
            f"203.0.113.{number}", marks, index, began,
        )  # fmt: skip

    def thing(self, kind: str, id_: str, marks: Mapping[str, str], made: datetime | None) -> None:
        words = "30 GiB, in-use" if kind == "volume" else ""
        self.things[id_] = Resource(kind, id_, marks, words, made)

    # -- api.Cloud

    def account(self) -> str:
        return "123456789012"

    def regions(self) -> tuple[str, ...]:
        return (self.region, *self.others)

    def instances(self, cluster_id: str | None) -> list[Instance]:
        self.calls.append("instances")
        return [one for one in self.machines.values() if _of(one.labels, cluster_id)]

    def resources(self, cluster_id: str | None) -> list[Resource]:
        self.calls.append("resources")
        machines = [
            Resource("instance", one.id, one.labels, one.state, one.began)
            for one in self.machines.values()
            if one.alive
        ]
        every = [*machines, *self.things.values()]
        return [one for one in every if _of(one.labels, cluster_id)]

    def end(self, instances: Sequence[Instance]) -> None:
        self.calls.append(f"end {' '.join(sorted(one.id for one in instances))}")
        for one in instances:
            self.machines[one.id] = replace(self.machines[one.id], state="ended")

    def stop(self, instances: Sequence[Instance]) -> None:
        for one in instances:
            self.machines[one.id] = replace(self.machines[one.id], state="stopped")

    def start(self, instances: Sequence[Instance]) -> None:
        for one in instances:
            self.machines[one.id] = replace(self.machines[one.id], state="running")

    def delete(self, resource: Resource) -> str:
        self.calls.append(f"delete {resource.id}")
        mine = resource.labels["clusterkit-id"]
        if any(one.alive for one in self.machines.values() if _of(one.labels, mine)):
            return "resource has a dependent object"
        if self.stubborn[resource.id]:
            self.stubborn[resource.id] -= 1
            return "resource has a dependent object"
        self.things.pop(resource.id, None)
        return ""

    def images(self) -> list[Image]:
        return list(self.saved.values())

    def remove_image(self, image: Image) -> None:
        del self.saved[image.id]

    def open_door(self, cluster_id: str, door: Sequence[str]) -> tuple[list[str], list[str]]:
        self.calls.append(f"open_door {' '.join(door)}")
        done, self.door = self.door, ([], [])
        return done

    def disk_price(self) -> Price:
        return Price("gp3", 0.0001)

    def image_price(self) -> Price:
        return Price("snapshot", 0.00007)

    def address_price(self) -> Price:
        return Price("address", None, why="nobody told")

    # -- what these tests never ask

    def machine_types(self, names: Collection[str]) -> Mapping[str, MachineType]:
        raise NotImplementedError

    def zones(self) -> tuple[str, ...]:
        raise NotImplementedError

    def image(self, name: str, arch: str) -> Image:
        raise NotImplementedError

    def save_image(self, instance: Instance, name: str, labels: Mapping[str, str]) -> str:
        raise NotImplementedError

    def prepare(
        self, labels: Mapping[str, str], public_key: str, door: Sequence[str], placement: bool
    ) -> Mapping[str, str]:
        raise NotImplementedError

    def launch(self, launch: Launch) -> list[Instance]:
        raise NotImplementedError

    def launched(self, token: str) -> list[Instance]:
        raise NotImplementedError

    def give_user_data(self, instance: Instance, user_data: str) -> None:
        raise NotImplementedError

    def prices(
        self, types: Collection[str], zones: Collection[str], markets: Collection[api.Market]
    ) -> list[Price]:
        raise NotImplementedError

    def quotas(self, needs: Sequence[Need]) -> list[Quota]:
        raise NotImplementedError

    def examine(self) -> Iterator[Finding]:
        raise NotImplementedError


def _of(marks: Mapping[str, str], cluster_id: str | None) -> bool:
    return cluster_id in (None, marks.get("clusterkit-id"))
