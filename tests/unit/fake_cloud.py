"""A cloud in memory, with a clock of its own: capacity, quotas, lag, refusals, and sudden death.

`World.crash(n, "before" | "after")` ends the caller before or after its n-th change took effect, in
all threads: every later call raises Killed, until `revive`. Times are seconds of `Ticking`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from clusterkit.cluster.cloud import api
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
from clusterkit.cluster.cloud.clock import Clock
from clusterkit.cluster.prices import Price
from clusterkit.errors import ClusterError, UsageError

ZONES = ("east-a", "east-b", "east-c")


class Killed(BaseException):
    """The caller's process has died."""


class Ticking(Clock):
    """Time passes only while somebody waits."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.began = datetime.now(UTC)
        self._lock = threading.Lock()

    def seconds(self) -> float:
        return self.passed

    def now(self) -> datetime:
        return self.began + timedelta(seconds=self.passed)

    def pause(self, seconds: float, over: threading.Event) -> None:
        with self._lock:
            self.passed += seconds


@dataclass
class _Machine:
    """An instance, and when it enters its next state."""

    instance: Instance
    made: float
    next: tuple[float, api.InstanceState] | None = None


class World(Cloud):
    """One region of one account; several computers may use it at the same time."""

    name = "ec2"
    kinds = ("instances", "volumes", "placement groups", "security groups", "key pairs")

    def __init__(self, region: str = "east", account: str = "123456789012") -> None:
        self.region, self.number = region, account
        self.clock = Ticking()
        self.types = {
            "small": MachineType("small", 2, 4096, zones=ZONES),
            "big": MachineType("big", 8, 32768, zones=ZONES),
            "gpu": MachineType("gpu", 4, 16384, gpus=1, gpu="NVIDIA T4", zones=ZONES[:2]),
            "arm": MachineType("arm", 4, 8192, arch="arm64", zones=ZONES),
        }
        self.usable = ZONES
        #: (type, zone, market) -> machines that can be had; what is not named is plentiful.
        self.stock: dict[tuple[str, str, str], int] = {}
        #: (type, zone, market) -> machines taken back right after they were given.
        self.taken: Counter[tuple[str, str, str]] = Counter()
        #: The vCPUs that all machines of a market may have.
        self.limits: dict[str, int] = {}
        self.amounts: dict[tuple[str, str, str], float | None] = {}
        self.saved: list[Image] = []
        #: Names of images that there are not; what is wrong besides.
        self.no_images: set[str] = set()
        self.wrong: list[str] = []
        #: Seconds until what was made is shown; until machines run, are off, have ended.
        self.lag, self.boot, self.halt, self.dying = 0.0, 2.0, 2.0, 2.0
        #: Seconds for which a thing is shown that was deleted.
        self.echo = 0.0
        self.deleted: list[tuple[float, Resource]] = []
        #: id of a thing -> how often its deletion is refused.
        self.used: Counter[str] = Counter()
        #: What a call raises, by its name, as often as there are errors.
        self.trouble: dict[str, list[ClusterError]] = {}
        self.machines: dict[str, _Machine] = {}
        self.things: dict[str, Resource] = {}
        self.doors: dict[str, list[str]] = {}
        self.tokens: dict[str, tuple[Launch, list[str]]] = {}
        self.calls: list[str] = []
        self.launches: list[Launch] = []
        self.changes = 0
        self._crash: tuple[int, str] | None = None
        self._dead = False
        self._lock = threading.RLock()

    # -- for tests

    def crash(self, change: int, when: str) -> None:
        self._crash = (self.changes + change, when)

    def revive(self) -> bool:
        """Whether the caller had died."""
        died, self._dead, self._crash = self._dead, False, None
        return died

    def live(self) -> list[Instance]:
        with self._lock:
            self._pass()
            return [one.instance for one in self.machines.values() if one.instance.alive]

    def end_one(self, id_: str, why: str = "taken by the cloud", *, taken: bool = True) -> None:
        one = self.machines[id_]
        one.instance = replace(one.instance, state="ended", why=why, taken=taken)
        one.next = None

    def count(self, call: str) -> int:
        return self.calls.count(call)

    # -- inside

    def _asked(self, call: str) -> None:
        if self._dead:
            raise Killed
        self.calls.append(call)
        self._pass()
        if self.trouble.get(call):
            raise self.trouble[call].pop(0)

    def _change(self, when: str) -> None:
        """Before and after a change takes effect."""
        if self._dead:
            raise Killed
        if when == "before":
            self.changes += 1
        if self._crash == (self.changes, when):
            self._dead = True
            raise Killed

    def _pass(self) -> None:
        for one in self.machines.values():
            while one.next is not None and self.clock.seconds() >= one.next[0]:
                state = one.next[1]
                one.instance, one.next = replace(one.instance, state=state), None

    def _shown(self, one: _Machine) -> bool:
        return self.clock.seconds() >= one.made + self.lag

    def _go(
        self, id_: str, state: api.InstanceState, seconds: float, then: api.InstanceState
    ) -> None:
        one = self.machines[id_]
        one.instance = replace(one.instance, state=state)
        one.next = (self.clock.seconds() + seconds, then)

    # -- Cloud

    def account(self) -> str:
        return self.number

    def machine_types(self, names: Collection[str]) -> Mapping[str, MachineType]:
        self._asked("machine_types")
        wrong = [name for name in names if name not in self.types]
        if wrong:
            raise UsageError(f"{self.region} has no {', '.join(wrong)}")
        return {name: self.types[name] for name in names}

    def zones(self) -> tuple[str, ...]:
        self._asked("zones")
        return self.usable

    def flaws(self) -> list[str]:
        return self.wrong

    def image(self, name: str, arch: str) -> Image:
        self._asked("image")
        if name in self.no_images:
            raise UsageError(f"{self.region} has no image {name}")
        return Image(
            f"ami-{arch}", name, arch, "ubuntu", disk=8, made=datetime(2026, 11, 1, tzinfo=UTC)
        )

    def images(self) -> list[Image]:
        self._asked("images")
        return list(self.saved)

    def save_image(self, instance: Instance, name: str, labels: Mapping[str, str]) -> str:
        raise NotImplementedError

    def remove_image(self, image: Image) -> None:
        self.saved.remove(image)

    def instances(self, cluster_id: str | None) -> list[Instance]:
        with self._lock:
            self._asked("instances")
            return [
                one.instance
                for one in self.machines.values()
                if self._shown(one) and cluster_id in (None, one.instance.labels["clusterkit-id"])
            ]

    def resources(self, cluster_id: str | None) -> list[Resource]:
        with self._lock:
            self._asked("resources")
            machines = [
                Resource("instance", one.instance.id, one.instance.labels, one.instance.state)
                for one in self.machines.values()
                if one.instance.state != "ended" and self._shown(one)
            ]
            gone = [one for until, one in self.deleted if self.clock.seconds() < until]
            every = [*machines, *self.things.values(), *gone]
            return [one for one in every if cluster_id in (None, one.labels["clusterkit-id"])]

    def prepare(
        self, labels: Mapping[str, str], public_key: str, door: Sequence[str], placement: bool
    ) -> Mapping[str, str]:
        with self._lock:
            self._asked("prepare")
            name, mine = f"clusterkit-{labels['clusterkit-cluster']}", labels["clusterkit-id"]
            kinds = ["key pair", "security group"] + ["placement group"] * placement
            for kind in kinds:
                id_ = f"{kind} {name}"
                there = self.things.get(id_)
                if there is not None:
                    if there.labels["clusterkit-id"] != mine:
                        raise ClusterError(
                            f"the name is taken by the cluster {there.labels['clusterkit-id']}"
                        )
                    continue
                self._change("before")
                self.things[id_] = Resource(kind, id_, dict(labels))
                self._change("after")
            self.doors[mine] = list(door)
            return {"key": name, "group": name}

    def open_door(self, cluster_id: str, door: Sequence[str]) -> tuple[list[str], list[str]]:
        self._asked("open_door")
        before, self.doors[cluster_id] = self.doors.get(cluster_id, []), list(door)
        return [one for one in door if one not in before], [
            one for one in before if one not in door
        ]

    def launch(self, launch: Launch) -> list[Instance]:
        with self._lock:
            self._asked("launch")
            if launch.token in self.tokens:
                first, ids = self.tokens[launch.token]
                assert first == launch, "sent again, but not as it was"
                return [self.machines[id_].instance for id_ in ids]
            assert f"key pair {launch.site['key']}" in self.things
            where = launch.candidate
            key = (where.type, where.zone, where.market)
            count = min(len(launch.numbers), self.stock.get(key, 10_000))
            if count < launch.least:
                raise Refused("capacity", f"no {where.type} in {where.zone}", "try later")
            used = sum(
                self.types[one.type].cpus for one in self.live() if one.market == where.market
            )
            each, limit = self.types[where.type].cpus, self.limits.get(where.market, 10_000)
            count = min(count, (limit - used) // each)
            if count < launch.least:
                raise Refused("quota", f"{limit} vCPUs are the limit", "ask for more: PAGE")
            self._change("before")
            if key in self.stock:
                self.stock[key] -= count
            ids = [self._made(launch, index) for index in range(count)]
            for id_ in ids[: self.taken[key]]:
                self.taken[key] -= 1
                self.end_one(id_, "no room after all")
            self.tokens[launch.token] = (launch, ids)
            self.launches.append(launch)
            self._change("after")
            return [self.machines[id_].instance for id_ in ids]

    def _made(self, launch: Launch, index: int) -> str:
        number = len(self.machines) + 1
        id_ = f"i-{number:04}"
        now, where = self.clock.seconds(), launch.candidate
        instance = Instance(
            id_, where.type, where.zone, where.market, "pending", f"10.0.0.{number}",
            f"198.51.100.{number}", launch.labels, index, self.clock.now(), launch.image,
            disk=launch.disk,
        )  # fmt: skip
        self.machines[id_] = _Machine(instance, now, (now + self.boot, "running"))
        return id_

    def launched(self, token: str) -> list[Instance]:
        with self._lock:
            self._asked("launched")
            _, ids = self.tokens.get(token, (None, []))
            return [self.machines[id_].instance for id_ in ids if self._shown(self.machines[id_])]

    def start(self, instances: Sequence[Instance]) -> None:
        with self._lock:
            self._asked("start")
            self._change("before")
            for one in instances:
                if self.stock.get((one.type, one.zone, one.market)) == 0:
                    raise Refused("capacity", f"no {one.type} in {one.zone}", "try later")
                assert self.machines[one.id].instance.state == "stopped"
            for one in instances:
                self._go(one.id, "pending", self.boot, "running")
            self._change("after")

    def stop(self, instances: Sequence[Instance]) -> None:
        with self._lock:
            self._asked("stop")
            self._change("before")
            for one in instances:
                assert self.machines[one.id].instance.market == "on-demand"
                self._go(one.id, "stopping", self.halt, "stopped")
            self._change("after")

    def end(self, instances: Sequence[Instance]) -> None:
        with self._lock:
            self._asked("end")
            self._change("before")
            for one in instances:
                if self.machines[one.id].instance.state != "ended":
                    self._go(one.id, "ending", self.dying, "ended")
            self._change("after")

    def give_user_data(self, instance: Instance, user_data: str) -> None:
        raise NotImplementedError

    def delete(self, resource: Resource) -> str:
        with self._lock:
            self._asked("delete")
            self._change("before")
            mine = resource.labels["clusterkit-id"]
            if any(
                one.instance.state != "ended" and one.instance.labels["clusterkit-id"] == mine
                for one in self.machines.values()
            ):
                return "a machine uses it"
            if self.used[resource.id]:
                self.used[resource.id] -= 1
                return "it has a dependent object"
            if self.things.pop(resource.id, None) is not None:
                self.deleted.append((self.clock.seconds() + self.echo, resource))
            self._change("after")
            return ""

    def prices(
        self, types: Collection[str], zones: Collection[str], markets: Collection[Market]
    ) -> list[Price]:
        self._asked("prices")
        return [
            self._price(name, zone, market)
            for market in markets
            for name in types
            for zone in (zones if market == "spot" else ("",))
        ]

    def _price(self, name: str, zone: str, market: str) -> Price:
        usual = 0.1 if market == "spot" else 0.4
        amount = self.amounts.get((name, zone, market), usual)
        why = "" if amount is not None else "nobody told"
        now = datetime.now(UTC)
        return Price(name, amount, zone, market, "USD", self.region, "a list", now, now, why)

    def disk_price(self) -> Price:
        return replace(self._price("disk", "", "on-demand"), amount=0.001)

    def image_price(self) -> Price:
        return replace(self._price("image", "", "on-demand"), amount=0.0001)

    def address_price(self) -> Price:
        return replace(self._price("address", "", "on-demand"), amount=0.005)

    def quotas(self, needs: Sequence[Need]) -> list[Quota]:
        self._asked("quotas")
        cpus: Counter[str] = Counter()
        for need in needs:
            cpus[need.market] += need.type.cpus * need.count
        return [
            Quota(f"{one} vCPUs", "L-1", self.limits.get(one), 0, count, "PAGE", "not told")
            for one, count in cpus.items()
        ]

    def examine(self) -> Iterator[Finding]:
        yield from ()
