"""Which clusters a cloud has, and what no cluster owns: read from labels alone.

Nothing here reads this computer's folders: whoever asks says which ids are known to him.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from clusterkit.cluster.cloud.api import GROUP, Cloud, Image, Instance, Resource
from clusterkit.cluster.prices import Price
from clusterkit.errors import ClusterError

#: Labels of `access.Identity.labels`, read back.
NAME, ID, ROLE = "clusterkit-cluster", "clusterkit-id", "clusterkit-role"
OWNER, CREATED = "clusterkit-owner", "clusterkit-created"
BUILDER = "builder"

#: Younger than this, what has no head may belong to a start that is under way.
YOUNG = timedelta(hours=1)
#: A machine that makes an image is done long before that.
BUILDING = timedelta(hours=2)

#: In this order things can be deleted, by a word of their kind; what is not named goes in the
#: middle. The key pair is the claim of the cluster's name, so it goes last.
_ORDER = ("instance", "spot", "address", "volume", "interface", "", "placement", "security",
          "firewall", "key")  # fmt: skip
#: Hours of a month, as the clouds bill disks.
HOURS = 730
#: Seconds for which machines may take to end, and for which a deletion may be refused.
_ENDING, _REFUSED = 300.0, 300.0
_LOOK, _LOOK_AT_MOST = 0.5, 10.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """A cluster that a cloud has. `heads` and `workers` count live machines by state.

    `created` None: nothing of it tells. `resources` are empty where only machines were asked for.
    """

    name: str
    id: str
    owner: str
    created: datetime | None
    provider: str
    region: str
    heads: Mapping[str, int]
    workers: Mapping[str, int]
    instances: tuple[Instance, ...] = ()
    resources: tuple[Resource, ...] = ()

    @property
    def whose(self) -> str:
        """ "of anna_laptop, since 2026-11-21 13:41 UTC"."""
        since = f", since {when(self.created)}" if self.created is not None else ""
        return f"of {self.owner or 'somebody'}{since}"

    @property
    def machines(self) -> str:
        """ "1 head (running), 4 workers (3 running, 1 stopped)"; "no machines"."""
        parts = [_counted("head", self.heads), _counted("worker", self.workers)]
        return ", ".join(filter(None, parts)) or "no machines"


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something that no live cluster owns. `young`: a start may be under way; it is left alone."""

    resource: Resource
    cluster: str
    id: str
    owner: str
    since: datetime | None
    young: bool
    why: str


def clusters(cloud: Cloud, *, whole: bool = True) -> list[Found]:
    """The clusters of the region, by name; without `whole` of their machines alone (one call)."""
    instances, resources = _ask(cloud, whole)
    every: list[Instance | Resource] = [*instances, *resources]
    ids = dict.fromkeys(_id(one) for one in every if _id(one))
    return sorted(
        (_found(cloud, id_, instances, resources) for id_ in ids),
        key=lambda one: (one.name, one.id),
    )


def orphans(cloud: Cloud, known: Collection[str], now: datetime | None = None) -> list[Orphan]:
    """What has a cluster's label, but no live head, and an id that is not one of `known`.

    Machines that were to become an image are orphans after two hours, whosever they are. Saved
    images are none: they are kept on purpose.
    """
    now = now or datetime.now(UTC)
    found = []
    for cluster in clusters(cloud):
        began = {one.id: one.began for one in cluster.instances}
        headless = not cluster.heads and cluster.id not in known
        newest = max(filter(None, (_since(one, cluster, began) for one in cluster.resources)),
                     default=None)  # fmt: skip
        for resource in cluster.resources:
            since = _since(resource, cluster, began)
            builder = resource.labels.get(GROUP) == BUILDER
            if headless:
                young = newest is not None and now - newest < YOUNG
                why = "a start may be under way" if young else "its cluster has no head"
            elif builder and since is not None and now - since >= BUILDING:
                young, why = False, "a machine that was to become an image was left behind"
            else:
                continue
            found.append(
                Orphan(resource, cluster.name, cluster.id, cluster.owner, since, young, why)
            )
    return sorted(found, key=lambda one: (one.cluster, one.id, rank(one.resource.kind)))


def remove(
    cloud: Cloud,
    chosen: Sequence[Orphan],
    known: Collection[str],
    say: Say,
    *,
    over: threading.Event | None = None,
) -> list[Resource]:
    """Remove orphans, machines first, and prove that they are gone; what went.

    They are looked at once more before: what has become young or got a head meanwhile stays. A
    refusal is tried again for a while. Raises ClusterError that names all that is left.
    """
    over = over or threading.Event()
    wanted = {(one.resource.kind, one.resource.id) for one in chosen if not one.young}
    still = [
        one.resource
        for one in orphans(cloud, known)
        if (one.resource.kind, one.resource.id) in wanted and not one.young
    ]
    ids = {one.id for one in still}
    machines = [one for one in cloud.instances(None) if one.alive and one.id in ids]
    if machines:
        say(f"ending {', '.join(one.id for one in machines)}")
        cloud.end(machines)
        _await_end(cloud, {one.id for one in machines}, over)
    ended = {one.id for one in machines}
    rest = sorted((one for one in still if one.id not in ended), key=lambda one: rank(one.kind))
    refused = delete(cloud, rest, say, over=over)
    gone = {(one.kind, one.id) for one in still}
    left = [one for one in cloud.resources(None) if (one.kind, one.id) in gone]
    if left:
        words = [f"{one}{': ' + refused[one.id] if one.id in refused else ''}" for one in left]
        raise ClusterError(
            f"{cloud.name} {cloud.region}: this is left: {'; '.join(words)}. Try again in some "
            "minutes; if it stays, remove it by hand."
        )
    return still


def delete(
    cloud: Cloud, resources: Sequence[Resource], say: Say, *, over: threading.Event
) -> dict[str, str]:
    """Delete what is no machine, in the order given; id -> the cloud's words of what stays.

    What something that goes away still uses is tried again, for five minutes in all.
    """
    waiting, deadline, pause = list(resources), time.monotonic() + _REFUSED, _LOOK
    while True:
        refused = {one.id: words for one in waiting if (words := cloud.delete(one))}
        waiting = [one for one in waiting if one.id in refused]
        if not waiting or over.is_set() or time.monotonic() >= deadline:
            return refused
        if pause == _LOOK:
            say(f"waiting for {', '.join(map(str, waiting))}: {refused[waiting[0].id]}")
        over.wait(pause)
        pause = min(2 * pause, _LOOK_AT_MOST)


def kept(cloud: Cloud, cluster_id: str) -> tuple[str, ...]:
    """The saved images of a cluster, with what they cost, in words."""
    try:
        mine = [one for one in cloud.images() if one.labels.get(ID) == cluster_id]
    except ClusterError as error:
        return (f"saved images, if there are any: the cloud was not asked ({error})",)
    price = cloud.image_price() if mine else None
    return tuple(f"{one.id} ({one.name}): {monthly(one, price)}" for one in mine)


def monthly(image: Image, price: Price | None) -> str:
    """What a saved image costs in a month of 730 hours, in words."""
    if price is None or price.amount is None:
        return f"{image.disk} GiB, at an unknown price" + (f" ({price.why})" if price else "")
    return f"{image.disk} GiB, {price.amount * image.disk * HOURS:.2f} {price.currency} a month"


def rank(kind: str) -> int:
    """Where in the order of deletions a kind of thing stands."""
    for place, word in enumerate(_ORDER):
        if word and word in kind:
            return place
    return _ORDER.index("")


def gib(resource: Resource) -> int:
    """The size of a disk, which its words tell; 0 when they do not."""
    size = re.search(r"(\d+) GiB", resource.words)
    return int(size[1]) if size else 0


def when(moment: datetime) -> str:
    """ "2026-11-21 13:41 UTC"."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def since(labels: Mapping[str, str]) -> str:
    """When a cluster was made, by its labels, for people."""
    made = moment(labels.get("clusterkit-created", ""))
    return when(made) if made is not None else "an unknown time"


def moment(text: str) -> datetime | None:
    """The time of a label, "20261121T134118Z"; None when it is none."""
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _ask(cloud: Cloud, whole: bool) -> tuple[list[Instance], list[Resource]]:
    """Live machines, and with `whole` everything; both at once."""
    if not whole:
        return [one for one in cloud.instances(None) if one.alive], []
    with ThreadPoolExecutor(2) as pool:
        instances = pool.submit(cloud.instances, None)
        resources = pool.submit(cloud.resources, None)
        return [one for one in instances.result() if one.alive], resources.result()


def _id(one: Instance | Resource) -> str:
    return one.labels.get(ID, "")


def _found(
    cloud: Cloud, id_: str, instances: Sequence[Instance], resources: Sequence[Resource]
) -> Found:
    machines = tuple(one for one in instances if _id(one) == id_)
    things = tuple(one for one in resources if _id(one) == id_)
    every = [one.labels for one in machines] + [one.labels for one in things]

    def first(label: str) -> str:
        return next((labels[label] for labels in every if labels.get(label)), "")

    times = [one.began for one in machines] + [one.made for one in things]
    workers = [one for one in machines if one.labels.get(ROLE) == "worker"]
    heads = [one for one in machines if one.labels.get(ROLE) == "head"]
    return Found(
        name=first(NAME),
        id=id_,
        owner=first(OWNER),
        created=moment(first(CREATED)) or min(filter(None, times), default=None),
        provider=cloud.name,
        region=cloud.region,
        heads=dict(Counter(one.state for one in heads)),
        workers=dict(Counter(one.state for one in workers)),
        instances=machines,
        resources=things,
    )


def _since(
    resource: Resource, cluster: Found, began: Mapping[str, datetime | None]
) -> datetime | None:
    own = resource.made or began.get(resource.id) or moment(resource.labels.get(CREATED, ""))
    return own or cluster.created


def _counted(word: str, states: Mapping[str, int]) -> str:
    total = sum(states.values())
    if not total:
        return ""
    named = [f"{count} {state}" if len(states) > 1 else state for state, count in states.items()]
    return f"{total} {word}{'' if total == 1 else 's'} ({', '.join(named)})"


def _await_end(cloud: Cloud, ids: Collection[str], over: threading.Event) -> None:
    deadline, pause = time.monotonic() + _ENDING, _LOOK
    while True:
        there = {one.id: one for one in cloud.instances(None)}
        waiting = [id_ for id_ in ids if id_ in there and there[id_].state != "ended"]
        if not waiting:
            return
        if over.is_set() or time.monotonic() >= deadline:
            raise ClusterError(
                f"{cloud.name} {cloud.region}: {', '.join(waiting)} did not end within "
                f"{_ENDING:g} s. Try again in some minutes."
            )
        over.wait(pause)
        pause = min(2 * pause, _LOOK_AT_MOST)
