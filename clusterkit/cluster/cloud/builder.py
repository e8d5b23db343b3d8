"""The builder: a machine of a cluster that becomes an image, and goes again."""

from __future__ import annotations

from dataclasses import replace

from clusterkit.cluster.cloud.api import LAUNCH, Instance
from clusterkit.cluster.cloud.door import Door
from clusterkit.cluster.cloud.fleet import Fleet
from clusterkit.cluster.cloud.launching import Order
from clusterkit.cluster.cloud.orders import Orders
from clusterkit.cluster.cloud.whereabouts import Whereabouts
from clusterkit.cluster.cloud.wishes import BUILDER, candidates, machine_name, wishes
from clusterkit.cluster.providers import Machine, Say


class Builder:
    """That of one cluster; it need not be there."""

    def __init__(self, where: Whereabouts, fleet: Fleet, orders: Orders, door: Door) -> None:
        self._where, self._fleet, self._orders, self._door = where, fleet, orders, door
        self._name = machine_name(where.cluster, BUILDER, 1)

    def launch(self, arch: str, say: Say) -> Machine:
        """A machine of its own, from which an image is made; the one that is there already."""
        where = self._where
        where.tell(say)
        launcher = self._fleet.launcher(say)
        launcher.settle()
        alive, _ = self._fleet.alive(self._fleet.awaited())
        made = alive.get(self._name)
        if made is None:
            order = self._order(arch)
            labels = where.identity.labels("cluster")
            door = self._door.cidrs(say)
            site = where.cloud.prepare(labels, where.identity.public_key, door, False)
            (made,) = launcher.fill([order], site)
        return self._fleet.machine(self._name, made)

    def _order(self, arch: str) -> Order:
        """On demand, of the types of the first group that has this processor."""
        known = self._orders.known
        wished = wishes(self._where.settings)
        group = next(
            (wish for wish in wished if any(known.types[one].arch == arch for one in wish.types)),
            wished[0],
        )
        wish = replace(
            group,
            group=BUILDER,
            roles=("head", "worker"),
            numbers=(1,),
            least=1,
            markets=("on-demand",),
            placement=False,
            gpus=0,
        )
        ways = candidates(wish, known.types, known.zones, {})
        plain = self._where.cloud.image(self._where.settings.image, arch)
        return Order(wish, (1,), 0, ways, dict.fromkeys(wish.types, plain), {}, BUILDER)

    def find(self) -> Instance | None:
        """It, where it is there."""
        alive, _ = self._fleet.alive(self._fleet.instances())
        return alive.get(self._name)

    def end(self) -> None:
        """End it, and forget how it was launched."""
        one = self.find()
        if one is not None:
            # It is seen, so its request needs no answer, which would be waited for in vain.
            self._where.intents.drop(one.labels.get(LAUNCH, ""))
            self._where.cloud.end([one])
            self._fleet.await_states([one.id], {"ended"})
            self._where.identity.forget(self._name)
        for intent in self._where.intents.all():
            if intent.launch.group == BUILDER and not intent.open:
                self._where.intents.drop(intent.launch.token)
