"""Take over a cluster that this computer does not know, found by its labels.

This is the claim: its id and its settings come into the cluster's folder. Nothing of the cluster
is changed by it; a key that lets in is brought by `newkey` afterwards.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterkit.cluster import access, config, stored
from clusterkit.cluster import facts as facts_file
from clusterkit.cluster.cloud import api, elsewhere, found, known, place, ranges
from clusterkit.cluster.cloud.found import Found
from clusterkit.cluster.cloud.place import Place
from clusterkit.cluster.lock import hold
from clusterkit.cluster.providers import Say
from clusterkit.cluster.spec import SPECS, CloudSpec
from clusterkit.cluster.watch import Phases, Watch
from clusterkit.errors import ClusterError, UnknownCluster, UsageError
from clusterkit.paths import Home

#: Holds the cluster's id from the claim until a key was brought: `adopt` that was killed goes on.
_MARK = "adopting"


@dataclass(frozen=True, slots=True)
class Claim:
    """A cluster that can be taken over; `file` is the settings file that names it, if one does.

    `begun`: it was claimed here before, but no key was brought yet.
    """

    found: Found
    spec: CloudSpec
    file: str | None
    account: str
    begun: bool = False


def look(
    home: Home,
    name: str,
    *,
    id_: str = "",
    provider: str = "",
    region: str | None = None,
    say: Say = lambda _: None,
) -> Claim:
    """The cluster of that name in its cloud. Changes nothing; `say` is told about long waits.

    One that is known here is taken back from who adopted it meanwhile, if `id_` says so. Raises
    UnknownCluster when there is none, ClusterError when there are several or it is known here
    (without `id_`), and when another one of its name is; UsageError.
    """
    spec, file = _settings(home, name, provider, region)
    where = elsewhere.named(provider, region) if spec is None else elsewhere.Region(spec)
    cloud = where.connect()
    cloud.tell(say)
    there = [one for one in found.clusters(cloud) if one.name == name]
    if id_:
        there = [one for one in there if one.id == id_]
    if not there:
        with_id = f" with the id {id_}" if id_ else ""
        raise UnknownCluster(
            f"{cloud.name} {cloud.region} has no cluster {name!r}{with_id}. "
            "`clusterkit list --all` looks in all regions."
        )
    if len(there) > 1:
        listed = "\n".join(f"  --id {one.id}: {one.whose}; {one.machines}" for one in there)
        raise ClusterError(
            f"{cloud.name} {cloud.region} has {len(there)} clusters {name!r}; say which:\n{listed}"
        )
    chosen = there[0]
    folder = home.cluster(name)
    here = access.read_id(folder)
    begun = here == chosen.id and _mark(folder) == chosen.id
    if here and here != chosen.id:
        raise ClusterError(
            f"this computer has a cluster {name!r} of its own (id {here}); the one in "
            f"{cloud.region} is another (id {chosen.id}, {chosen.whose}). `clusterkit stop {name}` "
            "ends the own one; then this one can be adopted."
        )
    if here and not begun and not id_ and stored.provider(folder) is not None:
        raise ClusterError(
            f"the cluster {name!r} is known on this computer: `clusterkit start {name}`. If it was "
            f"adopted elsewhere, `clusterkit adopt {name} --id {here}` takes it back."
        )
    if spec is None:
        spec = described(chosen, provider, cloud.region)
    return Claim(chosen, spec, file, cloud.account(), begun)


def stranger(home: Home, name: str) -> Found | None:
    """A cluster that the settings say is a cloud's, which is there, but is not known here.

    None where it is known, or its cloud has none of that name; the cloud is asked only when this
    computer has no id of it. Raises ClusterError when it cannot be asked.
    """
    folder = home.cluster(name)
    if access.read_id(folder):
        return None
    source = stored.read(folder) or config.source(home, name)
    if not isinstance(source.spec, CloudSpec):
        return None
    cloud = known.connect(source.spec)
    return next((one for one in found.clusters(cloud) if one.name == name), None)


def take(home: Home, name: str, claim: Claim) -> None:
    """Make it a cluster of this computer's. Can be repeated; nothing of the cluster is changed."""
    folder = home.cluster(name)
    with hold(home, name):
        if access.read_id(folder) not in ("", claim.found.id):
            raise ClusterError(f"the cluster {name!r} was made here meanwhile; nothing was changed")
        if not access.read_id(folder):  # what lies here is of an earlier cluster of that name
            access.forget(folder)
            facts_file.forget(folder)
        (folder / _MARK).write_text(claim.found.id)
        created = _created(claim.found)
        access.write_identity(folder, claim.found.id, created)
        known_place = place.read(folder, claim.found.id)
        allow = known_place.allow if known_place is not None else ()
        place.write(folder, Place(claim.found.id, claim.found.region, claim.account, allow))
        stored.write(folder, claim.spec, claim.file)


def described(there: Found, provider: str, region: str) -> CloudSpec:
    """Settings for a cluster that none name, as its machines tell them."""
    heads = [one for one in there.instances if one.labels.get(found.ROLE) == "head"]
    groups: dict[str, list[api.Instance]] = {}
    for one in there.instances:
        if one.labels.get(found.ROLE) == "worker":
            groups.setdefault(one.labels.get(api.GROUP, "workers"), []).append(one)
    if not heads:
        raise ClusterError(
            f"the cluster {there.name!r} has no head that could be adopted. `clusterkit orphans "
            f"--provider {provider} --region {region}` removes what is left of it."
        )
    tree: dict[str, Any] = {
        "provider": provider,
        "region": region,
        "connect": "public" if heads[0].public else "private",
        "head": {"types": [heads[0].type], "market": heads[0].market},
        "workers": {
            name: {
                "count": max(map(_number, several)),
                "types": [kind for kind, _ in Counter(one.type for one in several).most_common()],
                "market": _market({one.market for one in several}),
            }
            for name, several in groups.items()
        },
    }
    image = heads[0].labels.get(api.IMAGE, "")
    if image:
        tree["image"] = image
    made = SPECS[provider].model_validate(tree)
    assert isinstance(made, CloudSpec)
    return made


def _settings(
    home: Home, name: str, provider: str, region: str | None
) -> tuple[CloudSpec | None, str | None]:
    """What the settings say of `name`; None where they do not name it, but a cloud was said."""
    try:
        source = stored.read(home.cluster(name)) or config.source(home, name)
    except UnknownCluster as error:
        if not provider:
            raise UnknownCluster(
                f"{error} To adopt a cluster that no settings name, say where it is: "
                f"`clusterkit adopt {name} --provider {next(iter(known.CLOUDS))} --region REGION`."
            ) from error
        return None, None
    if not isinstance(source.spec, CloudSpec):
        raise UsageError(
            f"{name!r} is {source.spec.provider} in the settings; only a cluster of a cloud "
            f"({', '.join(known.CLOUDS)}) can be adopted"
        )
    if provider and provider != source.spec.provider:
        raise UsageError(f"{name!r} is {source.spec.provider} in the settings, not {provider}")
    spec = source.spec
    if region and spec.region not in (None, region):
        raise UsageError(f"{name!r} is in {spec.region} in the settings, not in {region}")
    return (spec.model_copy(update={"region": region}) if region else spec), source.file


def _mark(folder: Path) -> str:
    try:
        return (folder / _MARK).read_text()
    except OSError:
        return ""


def _created(there: Found) -> str:
    return there.created.strftime("%Y%m%dT%H%M%SZ") if there.created is not None else ""


def _number(one: api.Instance) -> int:
    numbers = ranges.parse(one.labels.get(api.NUMBERS, ""))
    return numbers[one.index] if one.index < len(numbers) else 1


def _market(markets: set[api.Market]) -> str:
    return "spot-then-on-demand" if len(markets) > 1 else next(iter(markets))


def bring_key(home: Home, name: str, watch: Watch) -> None:
    """Make this computer's key the one that lets in. Machines are switched off and on for it.

    Killed, the same call goes on. Raises ClusterError, Busy.
    """
    from clusterkit.cluster import lifecycle
    from clusterkit.cluster.cloud import newkey
    from clusterkit.cluster.cloud.provider import CloudProvider

    with hold(home, name), Phases(watch, home, name) as phase:
        _, provider = lifecycle.made(home, name, keep=False, as_started=True)
        assert isinstance(provider, CloudProvider)
        phase("bringing the new key")
        newkey.bring(provider, watch.say)
        (home.cluster(name) / _MARK).unlink(missing_ok=True)
