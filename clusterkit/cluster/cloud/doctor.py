"""What may be wrong with a cluster, or with this computer, before or after it fails: only asked.

Nothing is changed and nothing is made. A finding says what to do where something is not good.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from clusterkit.cluster import access, config, stored
from clusterkit.cluster import facts as facts_file
from clusterkit.cluster.cloud import door, known
from clusterkit.cluster.cloud import place as places
from clusterkit.cluster.cloud.api import CHECKED, GROUP, Cloud, Finding, MachineType, Need, Quota
from clusterkit.cluster.cloud.wishes import problems, wishes
from clusterkit.cluster.spec import (
    AttachSpec,
    Built,
    CloudSpec,
    LocalSpec,
    NspawnSpec,
    Spec,
)
from clusterkit.errors import (
    ClusterError,
    ClusterkitError,
    FileProblems,
    TransportError,
    UnknownCluster,
)
from clusterkit.paths import Home
from clusterkit.transport import Ssh

#: GiB that the data folder should have free: results are brought there.
_FREE = 1.0
#: Seconds that a machine's clock may be off; munge refuses credentials from 300 on.
_SKEW = 60.0
#: Days after which an image misses many updates, which each machine then fetches first.
_OLD_IMAGE = 180
#: States of instances that count against quotas.
_COUNTED = ("pending", "running")
#: Seconds for a machine to answer.
_PATIENCE = 15.0


@dataclass(frozen=True, slots=True)
class _Case:
    """What is examined."""

    home: Home
    name: str
    folder: Path
    spec: Spec


def examine(home: Home, name: str) -> Iterator[Finding]:
    """All findings about the cluster `name`, the ones that others depend on first.

    Raises UnknownCluster with near names; everything else is a finding.
    """
    yield _data_folder(home)
    try:
        source = config.source(home, name)
    except UnknownCluster:
        raise
    except FileProblems as error:
        for problem in error.problems:
            yield Finding("settings", "bad", f"{error.file}: {problem}", "Correct it.")
        source = None
    except ClusterkitError as error:
        yield Finding("settings", "bad", str(error))
        source = None
    if source is None:  # what was started is examined all the same
        try:
            source = stored.read(home.cluster(name))
        except ClusterkitError as error:
            yield Finding("settings", "bad", str(error))
        if source is None:
            return
    else:
        where = source.file or "none are needed"
        yield Finding("settings", "good", f"{where} (provider {source.spec.provider})")
    case = _Case(home, name, home.cluster(name), source.spec)
    yield from _tools(case.spec)
    yield from _keys(case)
    if isinstance(case.spec, CloudSpec):
        yield from _cloud(case, case.spec)
    else:
        yield from _clock(case)


def _data_folder(home: Home) -> Finding:
    folder = home.root
    there = next((one for one in (folder, *folder.parents) if one.is_dir()), Path("/"))
    try:
        free = shutil.disk_usage(there).free / 2**30
    except OSError as error:
        return Finding("disk", "unknown", f"{there} cannot be looked at: {error.strerror}")
    words = f"{free:.1f} GiB free for {folder}"
    if free < _FREE:
        return Finding("disk", "bad", words, "Make room, or set CLUSTERKIT_HOME to another disk.")
    return Finding("disk", "good", words)


def _tools(spec: Spec) -> Iterator[Finding]:
    """The programs of this computer that clusterkit calls."""
    far = isinstance(spec, Built) or (isinstance(spec, AttachSpec) and spec.host is not None)
    if isinstance(spec, LocalSpec) or not far:
        return
    for tool in ("ssh", "ssh-keygen"):
        found = shutil.which(tool)
        if found is None:
            advice = "Install OpenSSH's client, as by `apt install openssh-client`."
            yield Finding(tool, "bad", "not installed", advice)
        else:
            yield Finding(tool, "good", found)
    found = shutil.which("rsync")
    if found is None:
        advice = "Optional: with it, `cp` and `sync` send what is new alone (apt install rsync)."
        yield Finding("rsync", "unknown", "not installed: everything is sent each time", advice)
    else:
        yield Finding("rsync", "good", found)


def _keys(case: _Case) -> Iterator[Finding]:
    """Who can read the private keys and the shared secret of the cluster."""
    if not isinstance(case.spec, Built):
        return
    own = case.spec.key
    if own is not None:
        try:
            access.check_key(own)
        except ClusterkitError as error:
            yield Finding("ssh key", "bad", str(error), f"`chmod 600 {own}` mends it.")
        else:
            yield Finding("ssh key", "good", f"{own}, readable by you alone")
    files = [case.folder / "key", case.folder / "munge.key", *case.folder.glob("hosts/*")]
    secret = [one for one in files if one.suffix != ".pub" and one.is_file()]
    open_ = [one for one in secret if one.stat().st_mode & 0o077]
    if open_:
        yield Finding(
            "secrets",
            "bad",
            f"others can read {', '.join(map(str, open_))}",
            f"`chmod 600 {' '.join(map(str, open_))}`; who could read them may have copied them.",
        )
    elif secret:
        yield Finding("secrets", "good", f"those in {case.folder} are readable by you alone")
    elif own is None:
        yield Finding("ssh key", "good", "one is made for the cluster when it starts")


def _clock(case: _Case) -> Iterator[Finding]:
    """The head's clock against ours, where there is a head that was started."""
    facts = facts_file.read(case.folder)
    if facts is None or not facts.hosts or isinstance(case.spec, NspawnSpec | AttachSpec):
        return
    before = datetime.now(UTC).timestamp()
    try:
        told = Ssh(facts.hosts[facts.head]).run(["date", "+%s"], timeout=_PATIENCE).text.strip()
        theirs = float(told)
    except (TransportError, ValueError, KeyError) as error:
        advice = f"`clusterkit start {case.name}` heals what can be healed."
        yield Finding("head", "bad", f"does not answer: {error}", advice)
        return
    off = theirs + 0.5 - (before + datetime.now(UTC).timestamp()) / 2
    if abs(off) > _SKEW:
        words = f"the head's differs from ours by {abs(off):.0f} s"
        yield Finding("clock", "bad", words, "`timedatectl set-ntp true` on the one that is wrong.")
    else:
        yield Finding("clock", "good", "the head's and ours agree")


# -- clouds ---------------------------------------------------------------------------------------


def _cloud(case: _Case, spec: CloudSpec) -> Iterator[Finding]:
    try:
        identity = access.read_id(case.folder)
        place = places.read(case.folder, identity) if identity else None
        cloud = known.connect(spec.at(place.region, place.account) if place is not None else spec)
    except ClusterkitError as error:
        yield Finding("cloud", "bad", str(error))
        return
    credible = True
    for finding in cloud.examine():
        yield finding
        credible = credible and (finding.verdict != "bad" or finding.subject != "account")
    if credible or spec.connect != "private":  # the cloud alone knows the machines' network
        yield from _asked(
            "own address", lambda: _door(case, spec, cloud, place, identity if credible else "")
        )
    if not credible:  # every further question would be refused for the same reason
        return
    if place is not None:
        yield from _asked("account", lambda: _account(cloud, place))
    try:
        types = cloud.machine_types(sorted({name for wish in wishes(spec) for name in wish.types}))
    except ClusterkitError as error:  # neither image nor quota can be told then
        yield Finding("types", "bad", str(error))
        return
    yield from _asked("zones", lambda: _zones(spec, cloud, types))
    yield from _asked("image", lambda: _images(spec, cloud, types))
    yield from _asked("quota", lambda: _quotas(spec, cloud, types, identity))


def _asked(subject: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check that fails is a finding."""
    try:
        yield from check()
    except ClusterkitError as error:
        yield Finding(subject, "bad", str(error).replace(f" {CHECKED}", ""))


def _account(cloud: Cloud, place: places.Place) -> Iterator[Finding]:
    account = cloud.account()
    if account != place.account:
        yield Finding(
            "cluster",
            "bad",
            f"it was made in the account {place.account}; the credentials are for {account}",
            f"Use credentials of {place.account}: others see nothing of it.",
        )


def _door(
    case: _Case, spec: CloudSpec, cloud: Cloud, place: places.Place | None, identity: str
) -> Iterator[Finding]:
    """Our own address, and whether ssh is let in from it; `identity` "": the cloud is not asked."""
    allowed = (*spec.allow, *(place.allow if place is not None else ()))
    inside = cloud.door(identity) if identity else None
    own = None
    try:
        towards = cloud.network() if spec.connect == "private" else ""
        own = door.own(spec.own_address, spec.connect, towards)
    except ClusterError as error:  # who allows networks by name may do without
        yield Finding("own address", "unknown" if allowed else "bad", str(error))
    else:
        yield Finding("own address", "good", f"{own.cidr} ({own.how})")
    if not inside:
        return
    words = f"ssh is let in from {', '.join(inside)}"
    if "0.0.0.0/0" in inside:
        if "0.0.0.0/0" in allowed:
            yield Finding("door", "good", f"{words}: everybody, as you asked")
        else:
            advice = f"`clusterkit start {case.name}` closes it, if clusterkit opened it."
            yield Finding("door", "bad", f"{words}: everybody", advice)
    elif own is None or any(_within(own.cidr, one) for one in inside):
        yield Finding("door", "good" if own is not None else "unknown", words)
    else:
        yield Finding(
            "door",
            "bad",
            f"{words}, not from {own.cidr}",
            f"Every command that connects mends it, as `clusterkit start {case.name}`.",
        )


def _within(one: str, other: str) -> bool:
    import ipaddress

    try:
        return ipaddress.IPv4Network(one).subnet_of(ipaddress.IPv4Network(other))
    except ValueError:
        return False


def _zones(spec: CloudSpec, cloud: Cloud, types: Mapping[str, MachineType]) -> Iterator[Finding]:
    """Whether each group can be made somewhere in the region."""
    zones = cloud.zones()
    found = [one for wish in wishes(spec) for one in problems(wish, types, zones, cloud.region)]
    for problem in found:
        yield Finding("zones", "bad", problem, "Correct `types:` or `zones:` in the settings.")
    if not found:
        yield Finding("zones", "good", "all types of the settings are offered where they may be")


def _images(spec: CloudSpec, cloud: Cloud, types: Mapping[str, MachineType]) -> Iterator[Finding]:
    """The image for each kind of processor: its age, its disk, who logs in."""
    wished = wishes(spec)
    for arch in sorted({one.arch for one in types.values()}):
        image = cloud.image(spec.image, arch)
        words, advice = image.id if image.name == image.id else f"{image.name}: {image.id}", ""
        if image.made is not None:
            age = datetime.now(UTC) - image.made
            words += f", of {image.made:%Y-%m-%d}"
            if age > timedelta(days=_OLD_IMAGE):
                words += f", {age.days} days old"
                advice = (
                    f"Older than {_OLD_IMAGE} days: its packages are old, and machines fetch what "
                    "is new first. A name such as ubuntu-24.04 is always the newest."
                )
        yield Finding("image", "good", words, advice)
        if spec.login is not None and not image.login:
            yield Finding("login", "good", f"{spec.login}, of the settings")
        elif spec.login is not None and spec.login != image.login:
            yield Finding(
                "login",
                "bad",
                f"the settings say {spec.login}, but {image.name} lets {image.login} in",
                "Take `login:` out of the settings, unless your own image has that account.",
            )
        elif not image.login:
            words = f"which account {image.name} lets in is not known"
            yield Finding("login", "bad", words, "Write it into the settings as `login:`.")
        else:
            yield Finding("login", "good", f"{image.login}, the account of {image.name}")
        small = [w for w in wished if w.disk is not None and w.disk < image.disk]
        for wish in small:
            words = f"{wish.group}: {wish.disk} GiB, but {image.name} needs {image.disk}"
            yield Finding("disk", "bad", words, "Make `disk:` larger, or leave it out.")


def _quotas(
    spec: CloudSpec, cloud: Cloud, types: Mapping[str, MachineType], identity: str
) -> Iterator[Finding]:
    """Whether the limits let in what the settings ask for and does not run yet."""
    wished = wishes(spec)
    live = cloud.instances(identity) if identity else []
    needs = []
    for wish in wished:
        running = [
            one for one in live if one.labels.get(GROUP) == wish.group and one.state in _COUNTED
        ]
        missing = max(0, len(wish.numbers) - len(running))
        needs += [
            Need(types[wish.types[0]], market, missing, wish.disk or 0, wish.group)
            for market in wish.markets
        ]
    for quota in cloud.quotas([need for need in needs if need.count]):
        yield _quota(quota)
    if not any(need.count for need in needs):
        yield Finding("quota", "good", "all machines of the settings run already")


def _quota(quota: Quota) -> Finding:
    subject = "quota" if quota.name.startswith(quota.code) else f"quota {quota.code}"
    if quota.limit is None:
        why = quota.why or "no reason was given"
        words = f"{quota.name}: not known, {quota.needed:g} needed ({why})"
        return Finding(subject, "unknown", words, f"See {quota.page}" if quota.page else "")
    used = f"{quota.used:g} in use" if quota.used is not None else "use not known"
    words = f"{quota.name}: {quota.limit:g}, {used}, {quota.needed:g} needed"
    if quota.short:
        advice = f"Ask for more: {quota.page}; that may take hours to days."
        return Finding(subject, "bad", words, advice)
    return Finding(subject, "good" if quota.used is not None else "unknown", words)
