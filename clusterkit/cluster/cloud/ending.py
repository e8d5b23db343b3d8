"""The end of a cluster in its cloud, and its pause: machines first, then what they needed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from clusterkit.cluster.cloud.api import Resource
from clusterkit.cluster.cloud.fleet import Fleet, count
from clusterkit.cluster.cloud.whereabouts import Whereabouts
from clusterkit.cluster.cloud.wishes import BUILDER, machine_name
from clusterkit.cluster.providers import Ended, Say
from clusterkit.errors import ClusterError

#: Seconds for which a deletion may be refused, and for a cloud to show what it has deleted.
_PATIENCE, _SHOWN = 600.0, 30.0
#: The order in which things can be deleted, by a word of their kind; machines go before all.
_LAST = ("security", "firewall", "key pair")


class Ending:
    """Every part of it can be repeated."""

    def __init__(self, where: Whereabouts, fleet: Fleet) -> None:
        self._where, self._fleet = where, fleet
        self._cluster = where.cluster

    def pause(self, say: Say) -> None:
        """On-demand machines are switched off; a spot machine cannot be, and is ended."""
        self._where.tell(say)
        self._fleet.launcher(say).settle()
        alive, surplus = self._fleet.alive(self._fleet.awaited())
        self._where.intents.forget()
        builder = alive.pop(machine_name(self._cluster, BUILDER, 1), None)
        spot = [one for one in alive.values() if one.market == "spot"]
        ours = [one for one in alive.values() if one.market != "spot"]
        if spot:
            names = ", ".join(sorted(map(self._fleet.machine_of, spot)))
            say(f"ended, for spot machines cannot be switched off: {names}")
        ending = [*spot, *surplus, *([builder] if builder is not None else [])]
        if ending:
            self._where.cloud.end(ending)
        starting = [one.id for one in ours if one.state == "pending"]
        if starting:
            self._fleet.await_states(starting, {"running", "stopping", "stopped"})
        running = [one for one in ours if one.state in ("pending", "running")]
        if running:
            say(f"switched off: {', '.join(sorted(map(self._fleet.machine_of, running)))}")
            self._where.cloud.stop(running)
        self._fleet.await_states([one.id for one in ours], {"stopped"})
        self._fleet.await_states([one.id for one in ending], {"ended"})

    def destroy(self, say: Say, only: Collection[str] | None = None) -> Ended:
        """End everything of the cluster, or only the machines of these names."""
        self._where.tell(say)
        if only is None:
            self._fleet.launcher(say).settle()
        instances = [one for one in self._fleet.awaited() if one.state != "ended"]
        if only is not None:
            instances = [one for one in instances if self._fleet.machine_of(one) in only]
        alive = [one for one in instances if one.alive]
        if alive:
            say(f"ending {count(alive)}")
            self._where.cloud.end(alive)
        self._fleet.await_states([one.id for one in instances], {"ended"})
        names = tuple(sorted({*map(self._fleet.machine_of, instances)} - {""}))
        if only is None:
            known = {one.id for one in instances}
            left = self._where.cloud.resources(self._where.identity.id)
            lost = [one for one in left if _machine(one) and one.id not in known]
            if lost:  # to the labels that machines are found by
                say(f"ending what has lost its labels: {', '.join(map(str, lost))}")
            self._delete([one for one in left if one in lost or not _machine(one)], say)
            self._where.intents.forget()
        return Ended(machines=names)

    def _delete(self, resources: Sequence[Resource], say: Say) -> None:
        """Delete things that no machine needs any more; one that is refused for now is tried again.

        Raises ClusterError with the cloud's words when some are refused for ten minutes.
        """
        left = list(resources)
        refused: list[tuple[Resource, str]] = []
        told = False

        def done() -> bool:
            """Those that can go first; then the others, the claim of the cluster's name last."""
            nonlocal told
            refused.clear()
            for rank in sorted(set(map(_last, left))):
                for one in [one for one in left if _last(one) == rank]:
                    words = self._where.cloud.delete(one)
                    if words:
                        refused.append((one, words))
                    else:
                        left.remove(one)
                if refused:
                    break
            if refused and not told:
                say(f"{refused[0][0]} is in use still: {refused[0][1]}")
                told = True
            return not left

        if not self._where.clock.until(done, _PATIENCE):
            lines = "\n".join(f"  {one}: {words}" for one, words in refused)
            raise ClusterError(
                f"cluster {self._cluster!r}: these cannot be deleted yet:\n{lines}\n"
                f"`clusterkit stop {self._cluster}` tries again."
            )

    def left(self) -> tuple[str, ...]:
        """What is left; a cloud may show for a moment what it has just deleted."""
        found: list[Resource] = []

        def none() -> bool:
            found[:] = self._where.cloud.resources(self._where.identity.id)
            return not found

        self._where.clock.until(none, _SHOWN)
        return tuple(map(str, found))


def _machine(resource: Resource) -> bool:
    return resource.kind == "instance"


def _last(resource: Resource) -> int:
    return next((n for n, word in enumerate(_LAST, 1) if word in resource.kind), 0)
