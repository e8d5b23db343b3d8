"""More workers, or fewer: the settings are changed first, then the world follows them.

A resize that was killed goes on when it is called again, also without naming counts: what is there
too much is drained and ended, what is missing is made by `start`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clusterkit.cluster import config, drain, edit, lifecycle, providers, remote, stored
from clusterkit.cluster import facts as facts_file
from clusterkit.cluster.lifecycle import Agree, Started
from clusterkit.cluster.lock import hold
from clusterkit.cluster.providers import Plan
from clusterkit.cluster.spec import Built, CloudGroup, Group, SshGroup
from clusterkit.cluster.watch import Nobody, Phases, Watch
from clusterkit.errors import ClusterNotStarted, TransportError, UsageError
from clusterkit.paths import Home


@dataclass(frozen=True, slots=True)
class Resized:
    """A cluster of another size. `ended` are the machines that went, `file` what was edited."""

    started: Started
    ended: tuple[str, ...]
    file: Path | None


def counts(home: Home, name: str, wishes: Mapping[str, int]) -> dict[str, int]:
    """The groups that are meant. `workers` means the only group. Raises UsageError."""
    spec = config.cluster_spec(home, name)
    if not isinstance(spec, Built) or spec.provider == "ssh":
        raise UsageError(
            f"{name!r} is {spec.provider}: its machines are named in the settings. Add or remove "
            f"hosts there, then `clusterkit start {name}`."
            if isinstance(spec, Built)
            else f"{name!r} is {spec.provider}: it has no machines that could become more"
        )
    problems, found = [], {}
    for group, count in wishes.items():
        known = group
        if group not in spec.workers and group == "workers" and len(spec.workers) == 1:
            known = next(iter(spec.workers))
        if known not in spec.workers:
            problems.append(f"no group {group!r}; {name!r} has {', '.join(spec.workers)}")
        elif count < 0:
            problems.append(f"{group}={count}: a count is 0 or more")
        elif (least := _least(spec.workers[known])) > count > 0:
            problems.append(
                f"{group}={count}: in the settings, `min` of {known} is {least}; lower that first"
            )
        else:
            found[known] = count
    after = {group: found.get(group, one.count) for group, one in spec.workers.items()}
    if not problems and not spec.head.worker and not any(after.values()):
        problems.append("no worker would be left; `stop` ends a cluster")
    if problems:
        raise UsageError(f"nothing was changed: {'; '.join(problems)}")
    return found


def _least(group: Group | SshGroup) -> int:
    """The machines without which a group is not accepted, where the settings say so."""
    return (group.min or 0) if isinstance(group, CloudGroup) else 0


def preview(home: Home, name: str, wishes: Mapping[str, int]) -> Plan:
    """What `resize` would make and end; changes nothing. Raises UsageError."""
    chosen = counts(home, name, wishes)
    spec, provider = lifecycle.made(home, name, keep=False)
    assert isinstance(spec, Built)
    assert provider is not None
    groups = {
        group: one.model_copy(update={"count": chosen.get(group, one.count)})
        for group, one in spec.workers.items()
    }
    wished = spec.model_copy(update={"workers": groups})
    return providers.provider(wished, provider.identity, provider.folder).plan()


def resize(
    home: Home,
    name: str,
    wishes: Mapping[str, int],
    *,
    agree: Agree = lambda _: None,
    watch: Watch | None = None,
    now: bool = False,
) -> Resized:
    """Give the groups of workers these counts. Busy nodes are waited for, unless `now`.

    With `now` the jobs of nodes that go are put back into the queue. Raises UsageError,
    ClusterNotStarted, and whatever `start` raises.
    """
    chosen = counts(home, name, wishes)
    known = facts_file.read(home.cluster(name))
    if known is None:
        raise ClusterNotStarted(
            f"the cluster {name!r} is not started. Change the count in the settings, then "
            f"`clusterkit start {name}`."
        )
    watch = watch or Nobody()
    with hold(home, name), Phases(watch, home, name) as phase:
        file = _edit(home, name, chosen) if chosen else None
        _, provider = lifecycle.made(home, name, keep=True)
        assert provider is not None
        planned: Plan = provider.plan()
        going = [machine.name for machine in planned.surplus]
        if going:
            phase("drain")
            try:
                lifecycle.mend_door(provider, watch.say)
                drain.drain(
                    remote.head_transport(known), going, "clusterkit: resize", watch.say, now=now
                )
            except TransportError as error:
                watch.say(f"SLURM was not asked to drain {', '.join(going)}: {error}")
                if not now:
                    raise
            phase("ending machines")
            provider.destroy(watch.say, only=going)
            for machine in going:
                provider.identity.forget(machine)
    started = lifecycle.start(home, name, agree=agree, watch=watch)
    return Resized(started, tuple(going), file)


def _edit(home: Home, name: str, chosen: Mapping[str, int]) -> Path:
    """Write the counts into the settings file, and into what the cluster was started with."""
    source = config.source(home, name)
    if source.file is None or not Path(source.file).is_file():
        raise UsageError(
            f"the settings file of {name!r} is gone ({source.file}), so it cannot be resized. Put "
            "it back there first."
        )
    file = Path(source.file)
    text = config.text(file)
    for group, count in chosen.items():
        text = edit.set_count(text, name, group, count)
    before = config.text(file)
    edit.save(file, text)
    try:
        spec = config.load(file)[name]
    except UsageError:
        edit.save(file, before)
        raise
    stored.write(home.cluster(name), spec, file)
    return file
