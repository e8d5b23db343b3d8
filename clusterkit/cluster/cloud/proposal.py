"""The plan of a start: what is there, what is missing, what that costs, what the user is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clusterkit.cluster import facts as facts_file
from clusterkit.cluster import paused
from clusterkit.cluster.cloud import planning
from clusterkit.cluster.cloud.api import Instance
from clusterkit.cluster.cloud.door import Door
from clusterkit.cluster.cloud.fleet import Fleet, count
from clusterkit.cluster.cloud.found import since
from clusterkit.cluster.cloud.launching import Order
from clusterkit.cluster.cloud.orders import Orders
from clusterkit.cluster.cloud.whereabouts import Whereabouts
from clusterkit.cluster.cloud.wishes import BUILDER, HEAD, machine_name, wishes
from clusterkit.cluster.providers import Machine, Plan
from clusterkit.errors import ClusterError


class Proposal:
    """Made anew by each `plan`; what was asked of the cloud for one is kept for the next."""

    def __init__(self, where: Whereabouts, fleet: Fleet, orders: Orders, door: Door) -> None:
        self._where, self._fleet, self._orders, self._door = where, fleet, orders, door
        self._cluster = where.cluster
        self._shown: dict[object, planning.Shown] = {}
        self._name_is_free = False

    def plan(self) -> Plan:
        self._where.require_its_region()
        instances = self._fleet.instances()
        if self._where.place is None:
            self._require_free_name()
        alive, _ = self._fleet.alive(instances)
        dead = {name: one.why for name, one in self._fleet.dead(instances).items()}
        orders = self._orders.of(alive)
        machines, missing = [], []
        for order in orders:
            for number in order.wish.numbers:
                name = machine_name(self._cluster, order.wish.group, number)
                if name in alive:
                    machines.append(self._fleet.machine(name, alive[name]))
                    continue
                absent = self._absent(name, order, dead.get(name))
                machines.append(absent)
                missing.append(absent)
        names = {machine.name for machine in machines}
        builder = machine_name(self._cluster, BUILDER, 1)
        more = [one for name, one in alive.items() if name not in names and name != builder]
        kept = {name: one for name, one in alive.items() if name in names}
        stopped = sorted(name for name, one in kept.items() if one.state in ("stopping", "stopped"))
        shown = planning.Shown((), (), None)
        if missing or stopped:
            shown = self._show(orders, list(kept.values()))
        return Plan(
            machines=tuple(machines),
            missing=tuple(missing),
            surplus=tuple(self._fleet.machine(self._fleet.machine_of(one), one) for one in more),
            notes=(*shown.notes, *self._notes(orders, instances, alive, stopped)),
            asks=self._asks(missing, stopped, dead, shown, more=len(kept) > len(stopped)),
            price=shown.price,
            currency=self._where.cloud.currency if shown.table else "",
            table=shown.table,
        )

    def _notes(
        self,
        orders: Sequence[Order],
        instances: Sequence[Instance],
        alive: Mapping[str, Instance],
        stopped: Sequence[str],
    ) -> list[str]:
        """What the user should know besides money."""
        notes = []
        if any(order.missing for order in orders):
            notes += self._images(orders)
            notes += self._door.notes()
            notes += planning.apart(orders, self._orders.there(orders, alive))
        else:
            notes += self._door.news()
        if stopped:
            notes.append(f"switched on again: {', '.join(stopped)}")
        _, surplus = self._fleet.alive(instances)
        if surplus:
            notes.append(f"there twice, and ended: {', '.join(one.id for one in surplus)}")
        notes += self._other_types(alive)
        strange = [one.id for one in instances if one.alive and not self._fleet.machine_of(one)]
        if strange:
            notes.append(
                f"{', '.join(strange)}: which machines these are cannot be told from their labels; "
                f"they are left alone until `clusterkit stop {self._cluster}`"
            )
        builder = machine_name(self._cluster, BUILDER, 1)
        if builder in alive:
            notes.append(
                f"{builder} is there still, to become an image: `clusterkit image save "
                f"{self._cluster}` goes on with it, and ends it"
            )
        return notes

    def _other_types(self, alive: Mapping[str, Instance]) -> list[str]:
        """Settings that were changed do not change machines that are there."""
        wished = {
            machine_name(self._cluster, wish.group, number): wish.types
            for wish in wishes(self._where.settings)
            for number in wish.numbers
        }
        others = [
            f"{name} is {one.type}"
            for name, one in sorted(alive.items())
            if name in wished and one.type not in wished[name]
        ]
        if not others:
            return []
        told = f"{', '.join(others)}, which the settings do not name any more: what is there stays"
        head = f"{machine_name(self._cluster, HEAD, 1)} is "
        again = []
        if any(not one.startswith(head) for one in others):
            again.append(
                f"`clusterkit resize {self._cluster}` to fewer and back makes other workers"
            )
        if any(one.startswith(head) for one in others):
            again.append(f"`clusterkit stop {self._cluster}`, then `start`, makes another head")
        return [f"{told}. {'; '.join(again)}"]

    def _show(self, orders: Sequence[Order], running: Sequence[Instance]) -> planning.Shown:
        """What it costs and the quotas, asked once for the same machines."""
        missing = [order for order in orders if order.missing]
        key = (
            tuple((order.wish.group, order.missing, order.candidates) for order in missing),
            tuple(sorted(one.id for one in running)),
        )
        if key not in self._shown:
            self._shown[key] = planning.show(
                self._where.cloud,
                missing,
                self._orders.known.types if missing else {},
                self._orders.prices,
                public=self._where.settings.connect == "public",
                running=running,
            )
        return self._shown[key]

    def _asks(
        self,
        missing: Sequence[Machine],
        stopped: Sequence[str],
        dead: Mapping[str, str],
        shown: planning.Shown,
        *,
        more: bool,
    ) -> tuple[str, ...]:
        """`more`: other machines run already, and are in the sum."""
        if not missing and not stopped:
            return ()
        asks = []
        head = machine_name(self._cluster, HEAD, 1)
        was = (
            facts_file.read(self._where.folder) is not None
            or paused.read(self._where.folder) is not None
        )
        if was and head in {one.name for one in missing}:
            why = f" ({dead[head]})" if dead.get(head) else ""
            asks.append(
                f"The head of {self._cluster!r} is gone{why}, and with it its disk: the queue, the "
                "accounting and the results that lay there alone. A new one is made"
            )
        parts = [f"{count(missing)} will be started"] if missing else []
        parts += [f"{count(stopped)} will be switched on again"] if stopped else []
        whole = ", with what runs already" if more else ""
        asks.append(
            f"{' and '.join(parts)} in {self._where.cloud.region}. {planning.total(shown)}{whole}, "
            f"until `clusterkit stop {self._cluster}`"
        )
        return tuple(asks)

    def _require_free_name(self) -> None:
        """Refuse a name that somebody else's cluster in this account has, before any question."""
        if self._name_is_free:
            return
        taken = next(
            (
                one
                for one in self._where.cloud.instances(None)
                if one.alive
                and one.labels.get("clusterkit-cluster") == self._cluster
                and one.labels.get("clusterkit-id") != self._where.identity.id
            ),
            None,
        )
        if taken is not None:
            raise ClusterError(
                f"the name {self._cluster!r} is taken in {self._where.cloud.region} by a cluster "
                f"of {taken.labels.get('clusterkit-owner', 'somebody')} "
                f"(id {taken.labels.get('clusterkit-id', '?')}, since "
                f"{since(taken.labels)}). Choose another name; if it is "
                f"yours, `clusterkit adopt {self._cluster}` takes it over."
            )
        self._name_is_free = True

    def _images(self, orders: Sequence[Order]) -> list[str]:
        notes = []
        for order in orders:
            needed = max((image.disk for image in order.images.values()), default=0)
            if order.missing and order.wish.disk is not None and order.wish.disk < needed:
                notes.append(
                    f"disk of {order.wish.group}: {order.wish.disk} GiB are too few for the image, "
                    f"so it has {needed} GiB"
                )
        images = {image.id: image for order in orders for image in order.images.values()}
        for image in images.values():
            if image.digest:
                notes.append(f"image {image.name}: your own {image.id}, with the packages in it")
            else:
                made = f" of {image.made:%Y-%m-%d}" if image.made else ""
                named = "" if image.name == image.id else f"{image.name}: "
                notes.append(f"image {named}{image.id}{made}")
            if not image.login and not self._where.settings.login:
                notes.append(
                    f"which account {image.id} lets in is not known: write `login:` into the "
                    "settings, or its machines will not be reached"
                )
        return notes

    def _absent(self, name: str, order: Order, why: str | None) -> Machine:
        first = self._orders.known.types[order.candidates[0].type]
        return Machine(
            name=name,
            address="",
            roles=order.wish.roles,
            cpus=first.cpus,
            memory=first.memory,
            group="" if order.wish.group == HEAD else order.wish.group,
            gpus_promised=order.wish.gpus or first.gpus,
            state="absent" if why is None else "dead",
            why=why or "",
        )
