"""Getting machines: candidate after candidate, and nothing is left behind by what failed."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from clusterkit.cluster.access import Identity
from clusterkit.cluster.cloud import api, ranges
from clusterkit.cluster.cloud.api import Candidate, Cloud, Image, Instance, Launch, Refused
from clusterkit.cluster.cloud.clock import Clock
from clusterkit.cluster.cloud.intents import Intent, Intents
from clusterkit.cluster.cloud.wishes import Wish, machine_name
from clusterkit.cluster.providers import Say
from clusterkit.errors import ClusterError

#: Seconds within which a cloud shows what it launched, for a request that it will not take again.
_SHOWN = 30.0
#: The longest label of numbers; no cloud's labels may be longer.
_NUMBERS = 63

#: Waits until the machines of these ids have left "pending", or until the event is set; answers
#: those of them that are shown, as they are then.
Await = Callable[[Sequence[str], threading.Event], list[Instance]]


@dataclass(frozen=True, slots=True)
class Order:
    """A wish, what is missing of it, and the ways to get that. `there` counts what it has."""

    wish: Wish
    missing: tuple[int, ...]
    there: int
    candidates: tuple[Candidate, ...]
    images: Mapping[str, Image]  # by machine type
    gpus: Mapping[str, int]  # by machine type
    role: str = "worker"


@dataclass
class _Got:
    """What one order came to."""

    order: Order
    made: list[Instance] = field(default_factory=list)
    refusals: list[tuple[Candidate, str, str]] = field(default_factory=list)  # words, advice

    @property
    def enough(self) -> bool:
        return self.order.there + len(self.made) >= self.order.wish.least


class Launcher:
    """Launches machines of one cluster."""

    def __init__(
        self,
        cloud: Cloud,
        identity: Identity,
        intents: Intents,
        wait: Await,
        say: Say,
        clock: Clock | None = None,
    ) -> None:
        self._cloud, self._identity, self._intents = cloud, identity, intents
        self._wait, self._say, self._clock = wait, say, clock or Clock()
        self._over = threading.Event()
        self._made: dict[str, Instance] = {}

    def settle(self) -> None:
        """Learn what became of launches whose answer was never heard."""
        for intent in self._intents.all():
            if not intent.open:
                continue
            made = self._heard(intent)
            if made:
                self._intents.close(intent.launch, made)
            else:
                self._intents.drop(intent.launch.token)

    def fill(self, orders: Sequence[Order], site: Mapping[str, str]) -> list[Instance]:
        """Launch what is missing, all orders at the same time; what was launched. After `settle`.

        The requests stay on disk: whoever called drops them when all that he wished for is there.
        Raises ClusterError with every refusal, the cloud's words and what to do, when an order gets
        less than its least, or one cannot be asked for. What was launched by then, and by attempts
        that were cut off, is ended.
        """
        try:
            got = self._all(orders, site)
            poor = [one for one in got if not one.enough]
            if not poor:
                return [instance for one in got for instance in one.made]
            raise ClusterError(  # noqa: TRY301 - both ends are undone in one place
                f"cluster {self._identity.cluster!r}: its machines could not all be had; "
                "nothing runs of what was begun.\n" + "\n".join(_told(one) for one in poor)
            )
        except ClusterError as error:
            try:
                self._undo()
            except ClusterError as trouble:
                raise ClusterError(
                    f"{error}\nBut the machines that did start could not be ended: {trouble}\n"
                    "Repeat the same command: it begins with them. "
                    f"`clusterkit stop {self._identity.cluster}` ends the whole cluster."
                ) from error
            raise

    def _all(self, orders: Sequence[Order], site: Mapping[str, str]) -> list[_Got]:
        with ThreadPoolExecutor(max_workers=max(1, len(orders))) as pool:
            tasks = [pool.submit(self._one, order, site) for order in orders]
            try:
                done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
                for task in done:
                    task.result()
            except BaseException:
                self._over.set()  # nobody begins another launch; what is under way is on disk
                raise
        return [task.result() for task in tasks]

    def _heard(self, intent: Intent) -> list[Instance]:
        """What a launch made: asked, and where that does not show all of it, sent again."""
        launch = intent.launch
        made = self._cloud.launched(launch.token)
        if len(made) == len(launch.numbers) or not self._intents.repeatable(intent):
            return made
        try:
            return self._cloud.launch(launch)
        except ClusterError as error:
            if isinstance(error, Refused) and error.kind != "never":
                return made
            # It may have been taken before, and cannot be now: a permission, a group that is gone.
            self._say(f"{launch.group}: what became of an earlier launch is looked for: {error}")
            self._clock.until(lambda: bool(self._cloud.launched(launch.token)), _SHOWN)
            return self._cloud.launched(launch.token)

    def _one(self, order: Order, site: Mapping[str, str]) -> _Got:
        got = _Got(order)
        left = list(order.missing)
        for candidate in order.candidates:
            there = got.made[0].zone if got.made and order.wish.placement else candidate.zone
            while left and not self._over.is_set() and candidate.zone == there:
                here = self._try(got, candidate, _labelled(left), site)
                left = [number for number in left if number not in here]
                if not here:
                    break
        return got

    def _try(
        self, got: _Got, candidate: Candidate, numbers: Sequence[int], site: Mapping[str, str]
    ) -> set[int]:
        """Ask for machines one way; the numbers of those that run."""
        wish, some = got.order.wish, len(numbers)
        least = some
        if wish.least < len(wish.numbers):
            # Machines that belong together are of one zone: it has to have as many as are needed.
            needed = wish.least - got.order.there - len(got.made)
            least = min(some, max(1, needed)) if wish.placement else 1
        launch = self._launch(got.order, candidate, numbers, least, site)
        try:
            made = self._send(launch)
        except Refused as refused:
            if refused.kind == "never":
                raise
            self._refused(got, candidate, refused.words, refused.advice)
            return set()
        alive = self._settled(launch, made, got, candidate)
        got.made += alive
        if alive:
            # Where the cloud chose the zone, it is told which.
            zones = ", ".join(sorted({one.zone for one in alive}))
            self._say(f"{wish.group}: {len(alive)} x {replace(candidate, zone=zones)}")
        return {launch.numbers[one.index] for one in alive}

    def _send(self, launch: Launch) -> list[Instance]:
        """Launch it; the request is on disk until it is known what became of it."""
        self._intents.open(launch)
        try:
            made = self._cloud.launch(launch)
        except Refused:
            self._intents.drop(launch.token)
            raise
        self._made |= {one.id: one for one in made}
        self._intents.close(launch, made)
        return made

    def _settled(
        self, launch: Launch, made: list[Instance], got: _Got, candidate: Candidate
    ) -> list[Instance]:
        """Those that run. A cloud may take machines back that it has just given."""
        shown = {one.id: one for one in self._wait([one.id for one in made], self._over)}
        now = [shown.get(one.id, one) for one in made]
        alive = [one for one in now if one.alive]
        if len(alive) < len(made) or not made:
            dead = next((one for one in now if not one.alive and one.why), None)
            words = dead.why if dead is not None else "what was launched ended again at once"
            self._refused(got, candidate, words, "")
        if len(alive) < launch.least:
            if alive:
                self._cloud.end(alive)
            alive = []
        if alive:
            self._intents.close(launch, alive)
        else:
            self._intents.drop(launch.token)
        return alive

    def _refused(self, got: _Got, candidate: Candidate, words: str, advice: str) -> None:
        got.refusals.append((candidate, words, advice))
        self._say(f"{got.order.wish.group}: {candidate}: {words}")

    def _undo(self) -> None:
        """End what this attempt has begun, and attempts before it that were cut off.

        A request whose answer is not known stays on disk: `settle` learns what became of it.
        """
        intents = [intent for intent in self._intents.all() if not intent.open]
        ids = {id_ for intent in intents for id_ in intent.ids or ()}
        ours = {id_: one for id_, one in self._made.items() if id_ in ids}
        if ids - ours.keys():
            shown = self._cloud.instances(self._identity.id)
            ours |= {one.id: one for one in shown if one.id in ids and one.alive}
        if ours:
            count = len(ours)
            self._say(f"ending {count} machine{'' if count == 1 else 's'} that did start")
            self._cloud.end(list(ours.values()))
        for intent in intents:
            self._intents.drop(intent.launch.token)

    def _launch(
        self,
        order: Order,
        candidate: Candidate,
        numbers: Sequence[int],
        least: int,
        site: Mapping[str, str],
    ) -> Launch:
        wish, identity = order.wish, self._identity
        image = order.images[candidate.type]
        token = secrets.token_hex(16)
        names = [machine_name(identity.cluster, wish.group, number) for number in numbers]
        for name in names:
            identity.forget_first_key(name)  # of an earlier machine of that name
        user_data = identity.launch_user_data(token)
        identity.believe_first(token, names)
        identity.forget_launch(token)  # the request has it; it is used once
        disk = max(wish.disk or 0, image.disk)
        labels = {
            **identity.labels(order.role),
            api.GROUP: wish.group,
            api.LAUNCH: token,
            api.NUMBERS: ranges.text(numbers),
            api.IMAGE: image.name,
            api.LOGIN: image.login,
            api.GPUS: str(order.gpus.get(candidate.type, 0)),
            api.DISK: str(disk),
        }
        return Launch(
            token=token,
            group=wish.group,
            numbers=tuple(numbers),
            least=least,
            candidate=candidate,
            image=image.id,
            disk=disk,
            user_data=user_data,
            labels=labels,
            site=site,
            placement=wish.placement and len(wish.numbers) > 1,
        )


def _labelled(numbers: Sequence[int]) -> list[int]:
    """As many of the first of them as one label can hold."""
    count = len(numbers)
    while len(ranges.text(numbers[:count])) > _NUMBERS:
        count -= 1
    return list(numbers[:count])


def _told(got: _Got) -> str:
    """All refusals of one order; an advice that holds for several candidates stands once."""
    wish, order = got.order.wish, got.order
    have = order.there + len(got.made)
    needed = f"{wish.least} of {len(wish.numbers)} needed, {have} to be had"
    lines = [f"  {wish.group}: {needed}; asked for in this order:"]
    for candidate, words, advice in got.refusals:
        lines.append(f"    {candidate}: {words}")
        if advice and f"      {advice}" not in lines:
            lines.append(f"      {advice}")
    if not order.candidates:
        lines.append("    no type and zone to try")
    elif not got.refusals and not got.made:
        lines.append("    nothing any more: another group had failed")
    return "\n".join(lines)
