"""An image of one's own, with the packages of heads and workers in it: later starts are faster.

It is made of a temporary machine of the cluster (the builder), never of one that has worked: that
machine is set up by the roles' own scripts as far as packages go, every trace of it is removed,
and its stopped disk becomes the image. No key, host key, secret, name or history is in it.

<cluster folder>/image.json   what was begun: killed at any point, it goes on or begins anew
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.cluster import access, reach, remote
from clusterkit.cluster import facts as facts_file
from clusterkit.cluster.access import write_private
from clusterkit.cluster.cloud import api, place
from clusterkit.cluster.cloud.api import Cloud, Image, Instance
from clusterkit.cluster.cloud.place import Place
from clusterkit.cluster.cloud.wishes import wishes
from clusterkit.cluster.lock import hold
from clusterkit.cluster.providers import Plan
from clusterkit.cluster.reach import Reached
from clusterkit.cluster.spec import CloudSpec
from clusterkit.cluster.watch import Nobody, Phases, Watch
from clusterkit.errors import ClusterError, UsageError
from clusterkit.paths import Home

if TYPE_CHECKING:
    from clusterkit.cluster.cloud.provider import CloudProvider

#: Asked before anything is made; raises when the user does not agree.
Agree = Callable[[Plan], None]

_FILE = "image.json"
#: Seconds between two looks at an image that is being made: the first, and the longest.
_LOOK, _LOOK_AT_MOST = 1.0, 15.0
#: Hours of a month, as clouds count them.
_MONTH = 730


@dataclass(frozen=True, slots=True)
class _Begun:
    """A builder whose disk holds a finished image: nothing but switching off is missing."""

    instance: str
    digest: str
    gpus: bool


def digest(spec: CloudSpec, image: str, arch: str) -> str:  # noqa: ARG001 - what others may need
    """What a saved image is recognized by: of all that the roles are, the image's name, the kind
    of processor. 32 hex digits, which any cloud's labels can hold.
    """
    said = json.dumps([image, arch]).encode()
    return hashlib.sha256(remote.playbooks() + said).hexdigest()[:32]


def fitting(images: Sequence[Image], digest: str, arch: str) -> list[Image]:
    """Those of them, in any state, that were made with these roles for this processor."""
    return [one for one in images if one.digest == digest and one.arch == arch]


def has_driver(image: Image) -> bool:
    """Whether NVIDIA's driver is in a saved image; the others serve machines without GPUs well."""
    return image.labels.get(api.GPUS) != "0"


def saved(cloud: Cloud) -> list[Image]:
    """All images of this account that `save` made, the newest first."""
    return sorted(cloud.images(), key=lambda image: str(image.made or ""), reverse=True)


def remove(cloud: Cloud, image: Image) -> None:
    """Remove an image that `save` made, and the disks behind it. Raises UsageError for others."""
    if not image.digest:
        raise UsageError(f"{image.id} is no image that `clusterkit image save` made: it stays")
    cloud.remove_image(image)


def preview(home: Home, name: str) -> Plan:
    """What `save` would make; changes nothing. Raises UsageError, ClusterError."""
    watch = Nobody()
    provider = _provider(home, name)
    work = _work(provider, watch, Phases(watch, home, name))
    missing = [one for one in work if one.there() is None]
    if missing:
        return _plan(provider, missing)
    there = [image for image in (one.there() for one in work) if image is not None]
    names = ", ".join(f"{one.id} ({one.name})" for one in there)
    return Plan((), notes=(f"nothing would be made: {names} is there and fits",))


def save(home: Home, name: str, agree: Agree = lambda _: None, watch: Watch | None = None) -> Image:
    """Make the image for the machines of the cluster `name`; the one that is there, if it fits.

    Where its machines have different processors there is an image for each; the head's is answered.
    The cluster need not run. Raises UsageError, Busy, ClusterError, SetupFailed; what was begun is
    ended then.
    """
    from clusterkit.cluster import lifecycle

    watch = watch or Nobody()
    with hold(home, name), Phases(watch, home, name) as phase:
        phase("plan")
        provider = _provider(home, name)
        work = _work(provider, watch, phase)
        missing = [one for one in work if one.there() is None]
        if missing:
            agree(_plan(provider, missing))
            access.keep(provider.identity)  # first: it would be given another id
            lifecycle.made(home, name, keep=True)
            if provider.place is None:
                here = Place(provider.identity.id, provider.cloud.region, provider.cloud.account())
                place.write(provider.folder, here)
        try:
            images = [one.image() for one in work]
        except BaseException:
            with suppress(ClusterError):
                _tidy(provider, watch)
            raise
        _tidy(provider, watch)
        return images[0]


def _provider(home: Home, name: str) -> CloudProvider:
    """Raises UsageError for a cluster that is of no cloud."""
    from clusterkit.cluster import lifecycle
    from clusterkit.cluster.cloud.provider import CloudProvider

    _, provider = lifecycle.made(home, name, keep=False)
    if not isinstance(provider, CloudProvider):
        raise UsageError(
            f"the cluster {name!r} is of no cloud: only a cloud's machines start from images"
        )
    return provider


def _work(provider: CloudProvider, watch: Watch, phase: Phases) -> list[_Baking]:
    """The images that the cluster's machines need, the head's first."""
    return [
        _Baking(provider, arch, watch, phase, gpus=gpus) for arch, gpus in _arches(provider).items()
    ]


def _tidy(provider: CloudProvider, watch: Watch) -> None:
    """Of a cluster that does not run, nothing but the image stays."""
    begun = provider.place is not None and facts_file.read(provider.folder) is None
    if begun and not any(one.alive for one in provider.fleet.instances()):
        provider.destroy(watch.say)
        if not provider.left():
            place.forget(provider.folder)  # nobody has to wonder what there may be


def _arches(provider: CloudProvider) -> dict[str, bool]:
    """The kinds of processors of the cluster's machines, the head's first; whether with GPUs."""
    spec = provider.settings
    wished = wishes(spec)
    types = provider.cloud.machine_types(sorted({one for wish in wished for one in wish.types}))
    found: dict[str, bool] = {}
    for wish in wished:
        for one in wish.types:
            gpus = bool(wish.gpus or types[one].gpus)
            found[types[one].arch] = found.get(types[one].arch, False) or gpus
    return found


def _plan(provider: CloudProvider, work: list[_Baking]) -> Plan:
    """What the user agrees to."""
    kinds = ", ".join(f"{one.arch}{', with the NVIDIA driver' if one.gpus else ''}" for one in work)
    price = provider.cloud.image_price()
    words = f"{price.why or 'its price is not known'}"
    if price.amount is not None:
        words = (
            f"{price.amount * _MONTH:.3f} {price.currency} a month for each GiB ({price.source})"
        )
    ask = (
        f"An image of {provider.settings.image} ({kinds}) will be made in {provider.cloud.region}, "
        "by a temporary on-demand machine that is ended after it; that takes some ten minutes"
    )
    note = f"kept until `clusterkit image remove`, and paid for: {words}"
    return Plan((), notes=(note,), asks=(ask,))


class _Baking:
    """One image, for one kind of processor; `gpus`: the NVIDIA driver is in it too."""

    def __init__(
        self, provider: CloudProvider, arch: str, watch: Watch, phase: Phases, *, gpus: bool
    ) -> None:
        self.arch, self.gpus = arch, gpus
        self._provider, self._watch, self._phase = provider, watch, phase
        self._cloud, self._spec = provider.cloud, provider.settings
        self._file = provider.folder / _FILE
        self._digest = digest(self._spec, self._spec.image, arch)

    def there(self) -> Image | None:
        """An image that fits, of whichever cluster."""
        fitting = (one for one in self._ours() if one.state == "available")
        return next(fitting, None)

    def image(self) -> Image:
        """It, made where it is missing."""
        there = self.there()
        if there is None and self._pending():
            self._phase("image")
            there = self._awaited()
        there = there or self._made()
        self._file.unlink(missing_ok=True)
        self._provider.builder.end()
        return there

    def _made(self) -> Image:
        builder = self._provider.builder.find()
        if builder is None or self._read() != _Begun(builder.id, self._digest, self.gpus):
            self._file.unlink(missing_ok=True)
            if builder is not None:  # of one that was killed: how far it came is not known
                self._watch.say("the temporary machine of an earlier try is ended")
                self._provider.builder.end()
            self._bake()
        self._begin()
        return self._awaited()

    def _bake(self) -> None:
        """A temporary machine with the packages and no trace of anybody."""
        provider, say = self._provider, self._watch.say
        try:
            self._phase("temporary machine")
            machine = provider.builder.launch(self.arch, say)
            door = provider.open_door()
            if door:
                say(door)
            self._phase("reach")
            (reached,) = reach.reach(
                provider,
                provider.identity,
                [machine],
                float(self._spec.timeouts.boot),
                self._watch.host,
                lambda: [replace(machine, state=self._state())],
            )
            set_up(
                reached,
                folder=provider.folder,
                gpus=self.gpus,
                timeout=float(self._spec.timeouts.setup),
                phase=self._phase,
                tell=self._watch.host,
            )
            begun = _Begun(self._there().id, self._digest, self.gpus)
            write_private(self._file, json.dumps(asdict(begun)).encode())
        except BaseException:
            say("the temporary machine is ended")
            provider.builder.end()
            raise

    def _state(self) -> str:
        builder = self._provider.builder.find()
        return "running" if builder and builder.state in ("pending", "running") else "dead"

    def _there(self) -> Instance:
        builder = self._provider.builder.find()
        if builder is None:
            raise ClusterError(
                "the temporary machine ended before its image was begun. Repeat the command: it "
                "begins anew."
            )
        return builder

    def _begin(self) -> None:
        """Switched off from outside: from inside, a machine of a cloud may end itself."""
        self._phase("image")
        builder = self._there()
        if builder.state in ("pending", "running"):
            self._cloud.stop([builder])
        (builder,) = self._provider.fleet.await_states([builder.id], {"stopped"})
        labels = {
            **self._provider.identity.labels("image"),
            api.DIGEST: self._digest,
            api.IMAGE: self._spec.image,
            api.LOGIN: builder.labels.get(api.LOGIN, ""),
            api.GPUS: str(int(self.gpus)),
        }
        for failed in self._ours():
            if failed.state not in ("available", "pending"):
                self._cloud.remove_image(failed)
        suffix = "-gpu" if self.gpus else ""
        name = f"clusterkit-{self._provider.cluster}-{self._digest[:12]}{suffix}"
        self._cloud.save_image(builder, name, labels)

    def _awaited(self) -> Image:
        """The image, once its cloud has it whole."""
        cluster, say = self._provider.cluster, self._watch.say
        began, pause, never = time.monotonic(), _LOOK, threading.Event()
        limit, told = float(self._spec.timeouts.setup), began
        again = f"`clusterkit image save {cluster}` goes on from here"
        while True:
            found = self._ours()
            good = next((one for one in found if one.state == "available"), None)
            if good is not None:
                return good
            failed = next((one for one in found if one.state != "pending"), None)
            if failed is not None and not self._pending():
                self._cloud.remove_image(failed)
                raise ClusterError(
                    f"the cloud could not make the image {failed.id}: "
                    f"{failed.words or failed.state}. {again}."
                )
            now = time.monotonic()
            if now - began > limit:
                raise ClusterError(
                    f"the image of {cluster!r} is not there after {limit:g} s. {again}; "
                    f"`clusterkit stop {cluster}` ends its temporary machine, which is off."
                )
            if now - told > 60:
                say(f"the image is being made, for {(now - began) / 60:.0f} min now")
                told = now
            never.wait(pause)
            pause = min(1.5 * pause, _LOOK_AT_MOST)

    def _pending(self) -> bool:
        return any(one.state == "pending" for one in self._ours())

    def _ours(self) -> list[Image]:
        """The images that fit, in any state, the newest first."""
        return [
            one
            for one in fitting(saved(self._cloud), self._digest, self.arch)
            if has_driver(one) or not self.gpus
        ]

    def _read(self) -> _Begun | None:
        try:
            said = json.loads(self._file.read_text())
            return _Begun(str(said["instance"]), str(said["digest"]), bool(said["gpus"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # the builder is ended, and another one made


def set_up(
    one: Reached,
    *,
    folder: Path,
    gpus: bool,
    timeout: float = 0,
    phase: Callable[[str], None] = lambda _: None,
    tell: Callable[[str, str], None] = lambda _host, _task: None,
) -> None:
    """Install what heads and workers need on a machine, then remove every trace of it.

    Nobody can log in to it afterwards. Its first host key is believed no more. Raises SetupFailed.
    """
    from clusterkit.cluster import ansible, lifecycle

    ansible.run(
        "image.yml",
        _inventory(one, gpus=gpus),
        folder=lifecycle.run_folder(folder),
        home=str(folder / "ansible"),
        on_play=phase,
        on_task=tell,
        timeout=timeout,
    )
    one.transport.close()


def _inventory(one: Reached, *, gpus: bool) -> dict[str, object]:
    name = one.machine.name
    here: Mapping[str, object] = {
        **remote.connection(one),
        "node_name": name,
        "cluster_name": name,
        "gpus_promised": 0,
        "base_owns_machine": True,
    }
    groups = ["image", "nvidia"] if gpus else ["image"]
    return {
        "all": {
            "hosts": {name: here},
            "children": {group: {"hosts": {name: None}} for group in groups},
        }
    }
