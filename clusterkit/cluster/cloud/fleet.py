"""The machines of one cluster, as its cloud shows them: named, and waited for.

The cloud's labels are the truth: which machines there are, and which of the cluster's they are, is
asked of it each time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

from clusterkit.cluster.cloud import api, ranges
from clusterkit.cluster.cloud.api import Instance
from clusterkit.cluster.cloud.launching import Launcher
from clusterkit.cluster.cloud.whereabouts import Whereabouts
from clusterkit.cluster.cloud.wishes import BUILDER, HEAD, machine_name, wishes
from clusterkit.cluster.providers import Machine, Say
from clusterkit.errors import ClusterError

#: Seconds for machines to come up, or to go down, in the cloud's own account of them.
_PATIENCE = 600.0
#: Seconds for a cloud to show what it has launched a moment ago.
_SHOWN = 30.0

_STATES = {
    "pending": "running",
    "running": "running",
    "stopping": "stopped",
    "stopped": "stopped",
    "ending": "dead",
    "ended": "dead",
}


class Fleet:
    """Instances, and which of the cluster's machines they are."""

    def __init__(self, where: Whereabouts) -> None:
        self._where = where
        self._cluster = where.cluster

    def instances(self) -> list[Instance]:
        return self._where.cloud.instances(self._where.identity.id)

    def machine_of(self, instance: Instance) -> str:
        """The name of the machine that an instance is; "" of one that cannot be told."""
        group = instance.labels.get(api.GROUP, "")
        numbers = ranges.parse(instance.labels.get(api.NUMBERS, ""))
        if not group or instance.index >= len(numbers):
            return ""
        return machine_name(self._cluster, group, numbers[instance.index])

    def alive(self, instances: Sequence[Instance]) -> tuple[dict[str, Instance], list[Instance]]:
        """The live instances by their machine's name, and those that are there too much.

        Two starts from two computers may have made one machine twice: the older one is it. Those
        that cannot be told are neither: only `destroy` ends them.
        """
        found: dict[str, Instance] = {}
        surplus = []
        for one in sorted(instances, key=lambda one: (str(one.began or ""), one.id)):
            name = self.machine_of(one)
            if one.alive and name:
                if name in found:
                    surplus.append(one)
                else:
                    found[name] = one
        return found, surplus

    def dead(self, instances: Sequence[Instance]) -> dict[str, Instance]:
        """Of machines that have no live instance the one that ended last, by name."""
        alive, _ = self.alive(instances)
        newest = sorted(instances, key=lambda one: (str(one.began or ""), one.id))
        named = {self.machine_of(one): one for one in newest}
        return {name: one for name, one in named.items() if name and name not in alive}

    def machines(self) -> tuple[Machine, ...]:
        """The head first, then the groups in order; the builder is none of them."""
        instances = self.instances()
        there = self.alive(instances)[0] | self.dead(instances)
        found = {name: self.machine(name, one) for name, one in there.items()}
        builder = machine_name(self._cluster, BUILDER, 1)
        order = {
            group: number for number, group in enumerate([HEAD, *self._where.settings.workers])
        }
        return tuple(
            sorted(
                (machine for name, machine in found.items() if name != builder),
                key=lambda one: (order.get(one.group or HEAD, len(order)), _natural(one.name)),
            )
        )

    def machine(self, name: str, one: Instance) -> Machine:
        """The machine of that name, which this instance is."""
        group = one.labels[api.GROUP]
        login = self._where.settings.login or one.labels.get(api.LOGIN, "")
        gpus = one.labels.get(api.GPUS, "0")
        reach = None
        if self._where.settings.connect == "public" and one.public:
            reach = self._where.identity.address(name, one.public, login)
        return Machine(
            name=name,
            address=one.private,
            roles=self._roles(group),
            group="" if group in (HEAD, BUILDER) else group,
            gpus_promised=int(gpus) if gpus.isdigit() else 0,
            state=_STATES[one.state],
            login=login,
            reach=reach,
            why=one.why,
        )

    def _roles(self, group: str) -> tuple[str, ...]:
        if group == BUILDER:
            return ("head", "worker")
        if group == HEAD:
            return ("head", "worker") if self._where.settings.head.worker else ("head",)
        return ("worker",)

    def lacking(self, absent: Collection[str]) -> tuple[str, ...]:
        """Those of these absent machines of which a group has too few."""
        alive, _ = self.alive(self.instances())
        poor: list[str] = []
        for wish in wishes(self._where.settings):
            names = [machine_name(self._cluster, wish.group, number) for number in wish.numbers]
            if sum(name in alive for name in names) < wish.least:
                poor += [name for name in names if name in absent]
        return tuple(poor)

    def awaited(self) -> list[Instance]:
        """The instances, with those in that were launched a moment ago.

        A cloud that shows what it made a little later is waited for.
        """
        awaited = {
            id_
            for intent in self._where.intents.all()
            if self._where.intents.repeatable(intent)
            for id_ in intent.ids or ()
        }

        def shown(now: Sequence[Instance]) -> bool:
            return awaited <= {one.id for one in now}

        return self._look_until(shown, _SHOWN)

    def await_running(self, ids: Sequence[str], over: threading.Event) -> list[Instance]:
        """These, once none of them is coming up any more, or `over` is set."""
        wanted = set(ids)

        def settled(now: Sequence[Instance]) -> bool:
            seen = {one.id: one.state for one in now}
            return all(seen.get(one, "pending") != "pending" for one in wanted)

        return [one for one in self._look_until(settled, _PATIENCE, over) if one.id in wanted]

    def await_states(self, ids: Sequence[str], states: Collection[str]) -> list[Instance]:
        """Wait until the instances are in one of these states; those that ended are in any.

        Raises ClusterError when that takes longer than ten minutes.
        """
        wanted = set(ids)

        def settled(now: Sequence[Instance]) -> bool:
            return all(
                one.state in states or one.state == "ended" for one in now if one.id in wanted
            )

        now = self._look_until(settled, _PATIENCE)
        late = [one for one in now if one.id in wanted and one.state not in (*states, "ended")]
        if late:
            told = ", ".join(f"{self.machine_of(one) or one.id} is {one.state}" for one in late)
            raise ClusterError(
                f"not {' or '.join(sorted(states))} after {_PATIENCE:g} s: {told}. Repeat the "
                "command: it goes on from here."
            )
        return [one for one in now if one.id in wanted]

    def _look_until(
        self,
        enough: Callable[[Sequence[Instance]], bool],
        seconds: float,
        over: threading.Event | None = None,
    ) -> list[Instance]:
        """The instances, asked for until it is enough or `seconds` have passed."""
        now: list[Instance] = []

        def done() -> bool:
            now[:] = self.instances()
            return enough(now)

        self._where.clock.until(done, seconds, over)
        return now

    def launcher(self, say: Say) -> Launcher:
        """What gets more of them."""
        where = self._where
        return Launcher(
            where.cloud, where.identity, where.intents, self.await_running, say, where.clock
        )


def count(some: Collection[object]) -> str:
    """ "1 machine", "2 machines"."""
    return "1 machine" if len(some) == 1 else f"{len(some)} machines"


def _natural(name: str) -> tuple[str, int]:
    stem, _, number = name.rpartition("-")
    return (stem, int(number)) if number.isdigit() else (name, 0)
