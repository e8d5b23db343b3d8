"""Places where machines come from: the interface, and the one list of them.

A new place is one module with one `Provider` and one line in `PROVIDERS`. `start` calls `plan`,
asks for consent, calls `create` and `machines`, reaches them, and runs the playbooks over them;
`stop` calls `destroy` and proves with `left` that nothing remains. Every machine and every other
resource carries the cluster's labels (name, id, role) from the call that creates it.

`local` is the one provider whose "machines" are this one and whose daemons are the caller's own
processes (`PrivateProvider`); all others give machines that are reached by ssh and run systemd.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from clusterkit.cluster.facts import Facts
from clusterkit.cluster.hardware import Gpu
from clusterkit.errors import ClusterError, UsageError
from clusterkit.transport import Address

if TYPE_CHECKING:
    from clusterkit.cluster.access import Identity
    from clusterkit.cluster.spec import Spec

#: Called with a line about what is being done.
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of a cluster. `roles` are "head", "worker" or both; memory in MiB.

    `name` is its host name and SLURM's NodeName. `cpus` and `memory` 0: what the machine itself
    shows when it is reached. `state`: "absent" (planned, not there), "running", "stopped" (there,
    switched off) or "dead" (there, but it will not come back by itself).
    """

    name: str
    address: str  # where the other machines and ssh reach it; "" while it is not known
    roles: tuple[str, ...]
    cpus: int = 0
    memory: int = 0
    gpus: tuple[Gpu, ...] = ()
    hostname: str = ""  # what it calls itself, where that is not `name`
    group: str = ""  # the worker group, which is its partition; "" for a head
    gpus_promised: int = 0
    state: str = "running"
    login: str = ""  # the account to log in with; "": the usual ones of the image are tried
    port: int = 22
    reach: Address | None = None  # how ssh reaches it where that is not the cluster's own way
    why: str = ""  # of a dead one: the place's own words, as "preempted"
    ansible: Mapping[str, object] = field(default_factory=dict)
    running: tuple[str, ...] = ()  # the daemons seen to run (`local` only)


@dataclass(frozen=True, slots=True)
class Plan:
    """What `create` and the playbooks would do; `notes` are for the user's eyes.

    `machines` are those that the cluster will have; `missing` those of them to be made; `surplus`
    are there, but no longer wanted: `start` leaves them alone and says so, `resize` removes them.
    `price` is an hour's, in `currency`, of what will run; None when it is not known or there is
    none to pay. `asks` are what the user has to agree to before anything is made. `table` says what
    will be made and what it costs, its first row is the head.
    """

    machines: tuple[Machine, ...]
    packages: tuple[str, ...] = ()  # to be installed (`local` only)
    notes: tuple[str, ...] = ()
    missing: tuple[Machine, ...] = ()
    surplus: tuple[Machine, ...] = ()
    asks: tuple[str, ...] = ()
    price: float | None = None
    currency: str = ""
    table: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """What `destroy` ended."""

    jobs: int = 0
    processes: int = 0
    machines: tuple[str, ...] = ()


class Provider(abc.ABC):
    """One cluster at one place. Every method may be called again after any interruption."""

    name: ClassVar[str]
    #: Machines are reached by ssh.
    remote: ClassVar[bool] = True
    #: Machines are made for the cluster and go with it; else they were there and stay.
    disposable: ClassVar[bool] = True
    #: The machines see one shared /home by themselves: nothing has to be exported or mounted.
    shares_by_bind: ClassVar[bool] = False
    #: The kinds of things `left` looks for, in words, for the proof at the end of `stop`.
    looked_for: ClassVar[tuple[str, ...]] = ()

    def __init__(self, spec: Spec, identity: Identity, folder: Path) -> None:
        """`folder` is the cluster's own in the user's data folder; it need not be there yet."""
        self.spec = spec
        self.identity = identity
        self.cluster = identity.cluster
        self.folder = folder

    def tell(self, say: Say) -> None:
        """Who is told from now on what the user should know about waiting."""
        del say

    @abc.abstractmethod
    def plan(self) -> Plan:
        """What a `start` would make now. Changes nothing.

        Raises ClusterError when it cannot succeed, with all that the user can do about it.
        """

    @abc.abstractmethod
    def create(self, plan: Plan, say: Say) -> None:
        """Make what is missing, start what is stopped; leave alone what is well.

        Repeated after a crash, it makes nothing twice. Returns when the machines are running, not
        when they can be reached.
        """

    @abc.abstractmethod
    def machines(self) -> tuple[Machine, ...]:
        """The cluster's machines as they are now: asks the world, never a file alone."""

    def lacking(self, absent: Collection[str]) -> tuple[str, ...]:
        """Those of these absent machines without which it is not the cluster that was asked for."""
        return tuple(absent)

    def allow(self, cidrs: Sequence[str]) -> None:
        """Let these networks in by ssh too, from the next `open_door` on. Raises UsageError."""
        if cidrs:
            raise UsageError(
                f"cluster {self.cluster!r} is {self.name}: it has no door that --allow could open"
            )

    def variables(self) -> Mapping[str, object]:
        """The roles' variables that this place decides. After `create`."""
        return {}

    def open_door(self) -> str:
        """Make the machines reachable from here; what had to be mended, in words, or ""."""
        return ""

    def doorway(self) -> str:
        """Who may come in by ssh, in words, for an error about machines that are silent."""
        return ""

    def pause(self, say: Say) -> None:  # noqa: ARG002 - for those that can
        """Switch the machines off and keep their disks; `create` switches them on again."""
        raise ClusterError(f"cluster {self.cluster!r}: {self.name} machines cannot be paused")

    def symptoms(self) -> str:
        """What this place knows about a failure (consoles, logs); empty when nothing."""
        return ""

    @abc.abstractmethod
    def destroy(self, say: Say, only: Collection[str] | None = None) -> Ended:
        """End everything of the cluster, or only the machines of these names."""

    @abc.abstractmethod
    def left(self) -> tuple[str, ...]:
        """What is still there of the cluster, in words; asks the world. Empty after `destroy`."""


class PrivateProvider(Provider):
    """SLURM's daemons are the caller's own processes on this machine; no ssh, no systemd."""

    remote = False

    #: Ansible's folder for temporary files while it sets this cluster up.
    ansible_home: str

    @abc.abstractmethod
    def settle(self) -> int:
        """Mend what the scheduler believes against what is so; how many jobs that concerned.

        After the playbooks. Where it did something, the cluster is verified once more.
        """

    @abc.abstractmethod
    def mend(self) -> bool:
        """After playbooks that failed: mend what may have been the cause; whether it was there.

        Where it was, the playbooks are run once more.
        """

    @abc.abstractmethod
    def facts(self) -> Facts:
        """What `connect` needs. After the playbooks."""


#: name -> (module, class); imported when used, so that no cloud's SDK is loaded for another one.
PROVIDERS: Mapping[str, tuple[str, str]] = {
    "local": ("clusterkit.cluster.providers.local", "LocalProvider"),
    "nspawn": ("clusterkit.cluster.providers.nspawn", "NspawnProvider"),
    "ssh": ("clusterkit.cluster.providers.ssh", "SshProvider"),
    "ec2": ("clusterkit.cluster.providers.ec2", "Ec2Provider"),
    "gce": ("clusterkit.cluster.providers.gce", "GceProvider"),
}


def provider(spec: Spec, identity: Identity, folder: Path) -> Provider:
    """The provider of `spec` for the cluster in `folder`."""
    module, attribute = PROVIDERS[spec.provider]
    made = getattr(importlib.import_module(module), attribute)(spec, identity, folder)
    assert isinstance(made, Provider)
    return made
