"""What clusterkit asks of a cloud: the nouns, and the interface `Cloud` that each one implements.

Nothing here knows a cloud's SDK. Every resource of a cluster carries the cluster's labels
(`access.Identity.labels`) from the call that creates it; asked with an id, a cloud finds all that
carries it. Memory in MiB, disks in GiB, times with time zone (UTC), money per hour where not said.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal

from clusterkit.cluster.prices import Price
from clusterkit.errors import ClusterError, UsageError

Market = Literal["spot", "on-demand"]

#: Labels beside those of `Identity.labels`; on machines, from the call that launches them.
GROUP = "clusterkit-group"  # the worker group; "head"; "builder" of a machine that becomes an image
LAUNCH = "clusterkit-launch"  # the token of the launch
NUMBERS = "clusterkit-numbers"  # the numbers of its machines in order, as "1-3_7"; see `ranges`
LOGIN = "clusterkit-login"  # the account that the image's cloud-init gives the key to
GPUS = "clusterkit-gpus"  # how many each has
IMAGE = "clusterkit-image"  # the image's name in the settings
DISK = "clusterkit-disk"  # the GiB of the disk of each
DIGEST = "clusterkit-digest"  # of a saved image: of the roles that it was made with

#: Said in errors about credentials, but not by `doctor` itself.
CHECKED = "`clusterkit doctor` checks them."

#: States of an instance. "ending" and "ended" ones never come back.
InstanceState = Literal["pending", "running", "stopping", "stopped", "ending", "ended"]


@dataclass(frozen=True, slots=True)
class MachineType:
    """A machine type of a region. `gpu` is the model, as "NVIDIA T4"; `zones` have it."""

    name: str
    cpus: int
    memory: int
    arch: str = "x86_64"  # or "arm64"
    gpus: int = 0
    gpu: str = ""
    zones: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """An image that machines can start from.

    `login` is the account that its cloud-init gives the key to, `disk` the GiB it needs at least,
    `made` when, `digest` (of one saved by `image save`) of the roles that it was made with.
    """

    id: str
    name: str
    arch: str
    login: str
    disk: int = 8
    made: datetime | None = None
    digest: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    state: str = "available"  # or "pending", or the cloud's word for a failure
    words: str = ""  # of a failure, the cloud's


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to get machines; they are tried in the order that the plan shows.

    `zone` is the region's name where the cloud shall choose among its zones.
    """

    type: str
    zone: str
    market: Market

    def __str__(self) -> str:
        return f"{self.type} {self.market} in {self.zone}"


@dataclass(frozen=True, slots=True)
class Launch:
    """One request for machines, whole: it is kept on disk before it is sent, and sent again as it
    is when its answer was not heard. The same `token` never makes machines twice.

    `numbers` are those of the machines wanted, in order; `least` of them are accepted. `site` is
    what `Cloud.prepare` answered. `user_data` holds the launch's first host key.
    """

    token: str
    group: str
    numbers: tuple[int, ...]
    least: int
    candidate: Candidate
    image: str
    disk: int
    user_data: str
    labels: Mapping[str, str]
    site: Mapping[str, str]
    placement: bool = False


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine as the cloud shows it; one that ended a while ago is not shown any more.

    `index` counts within its launch, from 0. `why`: of one that ended, the cloud's own words.
    `disk` in GiB; 0: not known.
    """

    id: str
    type: str
    zone: str
    market: Market
    state: InstanceState
    private: str
    public: str
    labels: Mapping[str, str]
    index: int = 0
    began: datetime | None = None
    image: str = ""
    why: str = ""
    taken: bool = False  # a spot machine that the cloud took away
    disk: int = 0

    @property
    def alive(self) -> bool:
        return self.state not in ("ending", "ended")


@dataclass(frozen=True, slots=True)
class Resource:
    """Anything with a cluster's label that exists (an ended instance does not).

    `kind` is one of `Cloud.kinds`, in the singular. `words` say more for people, as "30 GiB,
    available".
    """

    kind: str
    id: str
    labels: Mapping[str, str]
    words: str = ""
    made: datetime | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.id}" + (f" ({self.words})" if self.words else "")


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit of the account that a plan would count against; None: not known (`why` says so)."""

    name: str
    code: str
    limit: float | None
    used: float | None
    needed: float
    page: str = ""  # where more is asked for
    why: str = ""

    @property
    def short(self) -> bool:
        """Whether it is known that the plan does not fit."""
        return self.limit is not None and (self.used or 0) + self.needed > self.limit


@dataclass(frozen=True, slots=True)
class Need:
    """What a plan needs of one kind, for quotas. `disk`: GiB of each that are to be made.

    Of needs of one `group` just one comes true, as of those of a group's markets; "" is by itself.
    """

    type: MachineType
    market: Market
    count: int
    disk: int = 0
    group: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What `doctor` found: "good", "bad" or "unknown"; `advice` says what to do."""

    subject: str
    verdict: Literal["good", "bad", "unknown"]
    words: str
    advice: str = ""


class NoRegion(UsageError):
    """Neither the settings nor this computer say which region is meant, or which project."""


class NoCredentials(ClusterError):
    """This computer has none for the cloud."""


class Refused(ClusterError):
    """A launch that the cloud refused: nothing was started by it.

    `kind`: "capacity", "quota", "unsupported" (the type in that zone), "price"; the next candidate
    is tried after any of these. "never": no candidate would help, as for a missing permission; of a
    launch that is sent again it says nothing about the first time. `words` are the cloud's own,
    `advice` what to do.
    """

    def __init__(self, kind: str, words: str, advice: str = "") -> None:
        self.kind = kind
        self.words = words
        self.advice = advice
        super().__init__(f"{words}" + (f" {advice}" if advice else ""))


class Cloud(abc.ABC):
    """One region of one account. Every method may be called again after any interruption.

    All raise ClusterError, with the cloud's words and what to do, for missing, wrong or expired
    credentials, a refused permission, and a cloud that does not answer; a cloud that asks to slow
    down is obeyed for a bounded time, with `say` told about it once.
    """

    #: The provider's name, as in the settings.
    name: ClassVar[str]
    #: The kinds of things `resources` looks for, plural, in words, for the proof after `stop`.
    kinds: ClassVar[tuple[str, ...]]
    currency: ClassVar[str] = "USD"
    #: Whether a launch may name the region instead of a zone, and the cloud chooses the zone.
    chooses_zone: ClassVar[bool] = False
    region: str

    @property
    def server(self) -> str:
        """Another server than the cloud's own that is asked, such as a test double; "": its own."""
        return ""

    @property
    def place(self) -> object:
        """What is equal of two that give the same answers, known without asking."""
        return object()

    def tell(self, say: Callable[[str], None]) -> None:
        """Who is told from now on what the user should know about waiting."""
        del say

    @abc.abstractmethod
    def account(self) -> str:
        """The account or project whose credentials are used, asked of the cloud once."""

    @abc.abstractmethod
    def machine_types(self, names: Collection[str]) -> Mapping[str, MachineType]:
        """Raises UsageError that names all that the region does not have, with near names."""

    def regions(self) -> tuple[str, ...]:
        """The regions that the account can use, asked of the cloud."""
        return (self.region,)

    @abc.abstractmethod
    def zones(self) -> tuple[str, ...]:
        """The zones of the region that machines can be put in, sorted."""

    def network(self) -> str:
        """An address of the network that machines are put in; "" when that is not known."""
        return ""

    def flaws(self) -> list[str]:
        """Why the settings can never be had here, beside types, zones and images. Raises nothing
        where that is not known.
        """
        return []

    @abc.abstractmethod
    def image(self, name: str, arch: str) -> Image:
        """The newest image of that name (`ubuntu-24.04`, ...), or of that id. Raises UsageError."""

    @abc.abstractmethod
    def images(self) -> list[Image]:
        """The images of this account that `image save` made, of all clusters, in any state."""

    @abc.abstractmethod
    def save_image(self, instance: Instance, name: str, labels: Mapping[str, str]) -> str:
        """Begin to make an image of a stopped instance's disk; its id. Labels are on its disk
        snapshot too. One of this name and this cluster that is there already is answered.
        """

    @abc.abstractmethod
    def remove_image(self, image: Image) -> None:
        """The image and the disk snapshots behind it."""

    @abc.abstractmethod
    def instances(self, cluster_id: str | None) -> list[Instance]:
        """A cluster's, or (None) those of all clusters of clusterkit in the region."""

    @abc.abstractmethod
    def resources(self, cluster_id: str | None) -> list[Resource]:
        """All that exists with the label of a cluster, or of any; images and their disks apart."""

    @abc.abstractmethod
    def prepare(
        self, labels: Mapping[str, str], public_key: str, door: Sequence[str], placement: bool
    ) -> Mapping[str, str]:
        """Make what machines need before they are launched, where it is missing: the key pair, the
        door (ssh from the CIDRs `door`, all among the cluster's machines), a placement group.

        Its answer is `Launch.site`. Names are taken atomically. Raises ClusterError when another
        cluster of this account (another id) has the name, and says whose it is and since when.
        """

    @abc.abstractmethod
    def open_door(self, cluster_id: str, door: Sequence[str]) -> tuple[list[str], list[str]]:
        """Let ssh in from just these CIDRs: those that were added, and those that were removed."""

    def door(self, cluster_id: str) -> list[str] | None:
        """The CIDRs that ssh is let in from now; None: not known. Changes nothing."""
        del cluster_id
        return None

    @abc.abstractmethod
    def launch(self, launch: Launch) -> list[Instance]:
        """Launch machines, or hear again what an earlier call with this token launched. Raises
        Refused when the cloud will not; nothing runs then.
        """

    @abc.abstractmethod
    def launched(self, token: str) -> list[Instance]:
        """What a launch long ago made, asked without launching anything."""

    @abc.abstractmethod
    def start(self, instances: Sequence[Instance]) -> None:
        """Switch on again, all in one call. Raises Refused."""

    @abc.abstractmethod
    def stop(self, instances: Sequence[Instance]) -> None:
        """Switch off and keep the disks, all in one call."""

    @abc.abstractmethod
    def end(self, instances: Sequence[Instance]) -> None:
        """End them and their disks, all in one call; those that are gone are no error."""

    @abc.abstractmethod
    def give_user_data(self, instance: Instance, user_data: str) -> None:
        """What a stopped instance reads at its next boot."""

    @abc.abstractmethod
    def delete(self, resource: Resource) -> str:
        """Delete it; "" when it is gone, else the cloud's words why it cannot be yet (something
        that goes away still uses it).
        """

    @abc.abstractmethod
    def prices(
        self, types: Collection[str], zones: Collection[str], markets: Collection[Market]
    ) -> list[Price]:
        """What is known of them; "unknown" prices too, with the reason. Never raises for a price
        that cannot be had.
        """

    @abc.abstractmethod
    def disk_price(self) -> Price:
        """Of one GiB of the machines' disks for one hour."""

    @abc.abstractmethod
    def image_price(self) -> Price:
        """Of one GiB of a saved image for one hour."""

    @abc.abstractmethod
    def address_price(self) -> Price:
        """Of one public address for one hour."""

    @abc.abstractmethod
    def quotas(self, needs: Sequence[Need]) -> list[Quota]:
        """The limits that launching `needs` counts against. Never raises for an unknown one."""

    @abc.abstractmethod
    def examine(self) -> Iterator[Finding]:
        """What `doctor` checks of this cloud: credentials, permissions, billing, region, network,
        clock. Raises nothing: what fails is a finding.
        """
