"""A cluster's life on any cloud, in terms of `Cloud`: what `Provider` wants, from its parts.

whereabouts  its settings, folder, region and account
fleet        its machines, named and waited for
orders       what is missing, and how to get it
door         who may come in
proposal     the plan
ending       its end, and its pause
builder      a machine that becomes an image
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import ClassVar

from clusterkit.cluster import facts as facts_file
from clusterkit.cluster.access import Identity
from clusterkit.cluster.cloud import place as places
from clusterkit.cluster.cloud.api import Cloud, Instance, Refused
from clusterkit.cluster.cloud.builder import Builder
from clusterkit.cluster.cloud.clock import Clock
from clusterkit.cluster.cloud.door import Door, OwnAddress
from clusterkit.cluster.cloud.ending import Ending
from clusterkit.cluster.cloud.fleet import Fleet
from clusterkit.cluster.cloud.orders import Orders
from clusterkit.cluster.cloud.place import Place
from clusterkit.cluster.cloud.proposal import Proposal
from clusterkit.cluster.cloud.whereabouts import Whereabouts
from clusterkit.cluster.cloud.wishes import BUILDER, machine_name
from clusterkit.cluster.providers import Ended, Machine, Plan, Provider, Say
from clusterkit.cluster.spec import CloudSpec, Spec
from clusterkit.errors import ClusterError


class CloudProvider(Provider):
    """`cloud`, `own` (how one's own address is found) and `clock` are given by tests."""

    name: ClassVar[str]

    def __init__(
        self,
        spec: Spec,
        identity: Identity,
        folder: Path,
        *,
        cloud: Cloud | None = None,
        own: Callable[[], OwnAddress] | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(spec, identity, folder)
        assert isinstance(spec, CloudSpec)
        self.settings: CloudSpec = spec
        where = self._where = Whereabouts(spec, identity, folder, cloud, clock)
        self.fleet = Fleet(where)
        self._orders = Orders(where)
        self._door = Door(where, own)
        self._proposal = Proposal(where, self.fleet, self._orders, self._door)
        self._ending = Ending(where, self.fleet)
        self.builder = Builder(where, self.fleet, self._orders, self._door)

    @property
    def cloud(self) -> Cloud:
        return self._where.cloud

    @property
    def place(self) -> Place | None:
        return self._where.place

    def tell(self, say: Say) -> None:
        self._where.tell(say)

    def plan(self) -> Plan:
        return self._proposal.plan()

    def machines(self) -> tuple[Machine, ...]:
        return self.fleet.machines()

    def lacking(self, absent: Collection[str]) -> tuple[str, ...]:
        return self.fleet.lacking(absent)

    def allow(self, cidrs: Sequence[str]) -> None:
        self._door.allow(cidrs)

    def open_door(self) -> str:
        return self._door.open()

    def pause(self, say: Say) -> None:
        self._ending.pause(say)

    def destroy(self, say: Say, only: Collection[str] | None = None) -> Ended:
        return self._ending.destroy(say, only)

    def left(self) -> tuple[str, ...]:
        return self._ending.left()

    def symptoms(self) -> str:
        """The cloud's words about machines that ended."""
        dead = self.fleet.dead(self.fleet.instances())
        dead.pop(machine_name(self.cluster, BUILDER, 1), None)
        return "\n".join(f"{name}: {one.why}" for name, one in sorted(dead.items()) if one.why)

    def doorway(self) -> str:
        return self._door.told

    def create(self, plan: Plan, say: Say) -> None:
        self.tell(say)
        self._where.require_its_region()
        if plan.missing:
            self._door.cidrs(say)  # before anything is made: it may not be known
        self._where.remember(self._door.named)
        launcher = self.fleet.launcher(say)
        launcher.settle()
        alive = self._awake({machine.name for machine in plan.machines}, say)
        orders = [order for order in self._orders.of(alive) if order.missing]
        if not orders:
            self._where.intents.forget()
            return
        begun = {id_ for intent in self._where.intents.all() for id_ in intent.ids or ()}
        older = [one for one in alive.values() if one.id not in begun]
        never = not older and facts_file.read(self.folder) is None
        try:
            site = self.cloud.prepare(
                self.identity.labels("cluster"),
                self.identity.public_key,
                self._door.cidrs(say),
                any(order.wish.placement for order in orders),
            )
            launcher.fill(orders, site)
            self._where.intents.forget()
        except ClusterError as error:
            if never:  # it never was a cluster: nothing of it is kept
                self._undo(error, say)
            raise

    def _awake(self, wanted: Collection[str], say: Say) -> dict[str, Instance]:
        """The live machines by name, once those that are wanted run; what is there twice ends."""
        alive, surplus = self.fleet.alive(self.fleet.awaited())
        if surplus:
            say(f"there twice, and ended: {', '.join(one.id for one in surplus)}")
            self.cloud.end(surplus)
        ours = [one for name, one in alive.items() if name in wanted]
        if all(one.state == "running" for one in ours):
            return alive
        self._switch_on(ours, say)
        self.fleet.await_states([one.id for one in ours], {"running"})
        return self.fleet.alive(self.fleet.instances())[0]

    def _switch_on(self, instances: Sequence[Instance], say: Say) -> None:
        going = [one.id for one in instances if one.state == "stopping"]
        if going:
            say(f"{len(going)} machines are still being switched off")
            self.fleet.await_states(going, {"stopped"})
        off = [one for one in instances if one.state in ("stopping", "stopped")]
        if not off:
            return
        names = ", ".join(sorted(map(self.fleet.machine_of, off)))
        say(f"switched on: {names}")
        try:
            self.cloud.start(off)
        except Refused as refused:
            raise ClusterError(
                f"cluster {self.cluster!r}: {names} cannot be switched on now: {refused}\nTheir "
                f"disks are kept. `clusterkit start {self.cluster}` tries again."
            ) from refused

    def _undo(self, error: ClusterError, say: Say) -> None:
        try:
            self.destroy(say)
            places.forget(self.folder)
        except ClusterError as trouble:
            raise ClusterError(
                f"{error}\nWhat was begun of {self.cluster!r} could not be removed: {trouble}\n"
                f"`clusterkit stop {self.cluster}` tries again."
            ) from error
