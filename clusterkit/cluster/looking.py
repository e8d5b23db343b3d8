"""status and list: how clusters are, asked of their machines, of SLURM and of the clouds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from clusterkit import cluster as clusters
from clusterkit.cluster import access, lifecycle, lock, paused, state
from clusterkit.cluster import facts as facts_file
from clusterkit.cluster.cloud import place
from clusterkit.cluster.facts import Facts
from clusterkit.cluster.providers import Machine, PrivateProvider, Provider
from clusterkit.cluster.state import Node, Status
from clusterkit.errors import ClusterError, ClusterkitError, CommandFailed, Unreachable
from clusterkit.paths import Home

if TYPE_CHECKING:
    from clusterkit.cluster.cloud.found import Found


def status(
    home: Home, name: str, *, ask: bool = True, say: Callable[[str], None] = lambda _: None
) -> Status:
    """How the cluster is, asked of its machines or processes and of SLURM.

    Without `ask` a cluster of `attach` that was not used yet is left alone. `say` is told when the
    way to its machines had to be mended.
    """
    clusters.require_known(name, home)
    folder = home.cluster(name)
    known = facts_file.read(folder)
    if known is not None and not known.daemons:
        return _remote_status(home, name, known, say)
    spec, provider = lifecycle.made(home, name, keep=False, as_started=True)
    if provider is None:  # of a cluster somebody else runs the first use is its start
        if not ask:
            return Status(name, spec.provider, "stopped", {}, problem="not used yet")
        try:
            clusters.connect(name, home)
        except Unreachable as error:
            return Status(name, spec.provider, "unreachable", {}, problem=str(error))
        known = facts_file.read(folder)
        assert known is not None
        return _remote_status(home, name, known, say)
    if not isinstance(provider, PrivateProvider):
        pid = lock.holder(home, name)
        if pid:
            problem = f"another clusterkit (pid {pid}) is working on it"
            return Status(name, provider.name, "broken", {}, problem=problem)
        return _unknown_status(name, provider, ask=ask)
    return _private_status(name, provider, known)


def _unknown_status(name: str, provider: Provider, *, ask: bool) -> Status:
    """Of a cluster without facts: it was not started, not to the end, or it is paused."""
    there: tuple[Machine, ...] = ()
    if access.read_id(provider.folder):
        try:
            there = provider.machines()
        except ClusterkitError as error:
            problem = f"its machines were not asked for: {error}"
            return Status(name, provider.name, "unreachable", {}, problem=problem)
    from clusterkit.cluster.cloud.known import CLOUDS

    states = {one.state for one in there} - {"dead"}
    if not there or (provider.name in CLOUDS and not states):  # a cloud's dead are gone
        problem = ""
        if (provider.folder / place.FILE).is_file():  # its end was not proved yet
            problem = f"no machines; `clusterkit stop {name}` removes what else may be left"
        elif ask and provider.name in CLOUDS and not access.read_id(provider.folder):
            problem = clusters.adoption(name)  # `list` asks the cloud instead
        return Status(name, provider.name, "stopped", {}, problem=problem)
    if provider.name in CLOUDS and states == {"stopped"}:
        note = paused.read(provider.folder) or paused.Paused("")
        problem = f"{note.cost}. `clusterkit start {name}` resumes it"
        return Status(name, provider.name, "paused", {}, problem=problem)
    problem = f"half made; finished by `clusterkit start {name}`"
    return Status(name, provider.name, "broken", {}, problem=problem)


def _remote_status(home: Home, name: str, known: Facts, say: Callable[[str], None]) -> Status:
    theirs = known.provider == "attach"
    try:
        nodes, running, pending = state.ask(clusters.connect(name, home, say=say), mine=theirs)
    except Unreachable as error:
        return Status(name, known.provider, "unreachable", {}, problem=str(error), facts=known)
    except (CommandFailed, ClusterError) as error:
        return Status(name, known.provider, "broken", {}, problem=str(error), facts=known)
    down = [n for n in nodes
            if n.state.startswith(("down", "drain", "fail")) or n.state.endswith("*")]  # fmt: skip
    why = _deaths(home, known, down)
    ill = [f"{n.name} is {n.state}" + (f" ({reason})" if reason else "") for n in down
           for reason in [why.get(n.name) or n.reason]]  # fmt: skip
    problem = "; ".join(ill)
    if theirs and ill:  # somebody sees to it, and there may be hundreds
        problem = f"{len(ill)} of {len(nodes)} nodes are down or drained"
    elif problem and known.hosts:
        problem += f". `clusterkit start {name}` {'replaces' if why else 'heals'} what died"
    return Status(
        name, known.provider, "running", {}, nodes, running, pending, problem=problem, facts=known
    )


def _deaths(home: Home, known: Facts, down: Sequence[Node]) -> dict[str, str]:
    """What the cloud says of nodes that are down: why their machines are gone, by name."""
    if not down or not known.disposable:
        return {}
    from clusterkit.cluster.cloud import mending

    try:
        return mending.mourn(home, known, down)
    except ClusterkitError as error:
        return {down[0].name: f"{down[0].reason}; its cloud could not be asked: {error}"}


def _private_status(name: str, provider: PrivateProvider, found: Facts | None) -> Status:
    seen = {daemon for machine in provider.machines() for daemon in machine.running}
    alive = {daemon: daemon in seen for daemon in ("munged", "slurmctld", "slurmd")}
    heal = f"healed by `clusterkit start {name}`"
    if not any(alive.values()):
        if found is None:
            return Status(name, provider.name, "stopped", alive)
        problem = f"its daemons died; {heal}"
        return Status(name, provider.name, "broken", alive, problem=problem, facts=found)
    if found is None:
        return Status(name, provider.name, "broken", alive, problem=heal)
    dead = [daemon for daemon, runs in alive.items() if not runs]
    if dead:
        problem = f"{', '.join(dead)} died; {heal}"
        return Status(name, provider.name, "broken", alive, problem=problem, facts=found)
    try:
        nodes, running, pending = state.ask(clusters.connection(found))
    except CommandFailed as error:
        return Status(name, provider.name, "broken", alive, problem=str(error), facts=found)
    return Status(name, provider.name, "running", alive, nodes, running, pending, facts=found)


def list_(
    home: Home,
    *,
    everywhere: bool = False,
    warn: Callable[[str], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Status, ...]:
    """All known clusters, and those that their clouds have besides: "elsewhere".

    `everywhere`: of all regions of all clouds. `warn` is told of a cloud that could not be asked,
    `say` when the way to a cluster's machines had to be mended.
    """
    from clusterkit.cluster.cloud import elsewhere

    statuses = {name: status(home, name, ask=False, say=say) for name in clusters.known(home)}
    where = elsewhere.everywhere(home, warn) if everywhere else elsewhere.regions(home)
    own = elsewhere.ids(home)
    more = []
    for found in elsewhere.look(where, warn):
        here = statuses.get(found.name)
        if found.id in own:
            if here is not None:
                statuses[found.name] = _with_surplus(here, found)
            continue
        if here is not None and here.state == "stopped" and here.provider == found.provider:
            del statuses[found.name]  # it was not started here; there it is
        elif here is not None:
            advice = f"another cluster of the name {found.name!r} that is here"
            more.append(_elsewhere(found, advice))
            continue
        place = "" if here is not None else f" --provider {found.provider} --region {found.region}"
        more.append(_elsewhere(found, f"`clusterkit adopt {found.name}{place}` takes it over"))
    return (*statuses.values(), *more)


def _with_surplus(status: Status, found: Found) -> Status:
    """Machines that run, and cost, and are none of the cluster's nodes, are told of."""
    from clusterkit.cluster.cloud.api import GROUP
    from clusterkit.cluster.cloud.found import BUILDER

    ours = [one for one in found.instances if one.labels.get(GROUP) != BUILDER]
    alive = sum(one.alive for one in ours)
    known = len(status.facts.hosts) if status.facts is not None else 0
    if status.state != "running" or alive <= known:
        return status
    told = f"{alive} machines are there, and {known} of them in it: `clusterkit start {found.name}`"
    return replace(status, problem=" ".join(filter(None, (status.problem, told))))


def _elsewhere(found: Found, advice: str) -> Status:
    words = f"{found.whose}, in {found.region}: {found.machines}; {advice}"
    return Status(found.name, found.provider, "elsewhere", {}, problem=words, found=found)
