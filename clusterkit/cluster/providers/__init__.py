"""Places where machines come from: the interface, and the one list of them.

A new place is one module with one `Provider` and one line in `PROVIDERS`. `start` calls `plan`,
`create`, `machines` and `variables`, runs the playbooks over what they return, and asks for
`facts`; `stop` calls `destroy` and proves with `left` that nothing remains.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from clusterkit.cluster.facts import Facts
from clusterkit.cluster.hardware import Gpu
from clusterkit.errors import ClusterError


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of a cluster. `roles` are "head", "worker" or both; memory in MiB.

    `ansible` are the variables by which Ansible reaches it; `running` the daemons of the cluster
    that were seen to run on it.
    """

    name: str
    address: str
    roles: tuple[str, ...]
    cpus: int
    memory: int
    gpus: tuple[Gpu, ...] = ()
    ansible: Mapping[str, object] = field(default_factory=dict)
    running: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What `create` and the playbooks would do; `notes` are for the user's eyes."""

    machines: tuple[Machine, ...]
    packages: tuple[str, ...] = ()  # to be installed
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """What `destroy` ended."""

    jobs: int
    processes: int


class Provider(abc.ABC):
    """One cluster at one place. Every method may be called again after any interruption."""

    name: ClassVar[str]

    def __init__(self, cluster: str, folder: Path) -> None:
        """`folder` is the cluster's own in the user's data folder; it need not be there yet."""
        self.cluster = cluster
        self.folder = folder
        #: Ansible's folder for temporary files while it sets this cluster up.
        self.ansible_home = str(folder / "ansible")

    @abc.abstractmethod
    def plan(self) -> Plan:
        """What a `start` would make now. Changes nothing.

        Raises ClusterError when it cannot succeed, with what the user can do about it.
        """

    @abc.abstractmethod
    def create(self, plan: Plan) -> None:
        """Make what is planned and missing, end what is broken; leave alone what is well."""

    @abc.abstractmethod
    def machines(self) -> tuple[Machine, ...]:
        """The machines as they are now: asks the world, never a file alone."""

    @abc.abstractmethod
    def variables(self) -> Mapping[str, object]:
        """The roles' variables that this place decides. After `create`."""

    def settle(self) -> int:
        """Mend what the scheduler believes against what is so; how many jobs that concerned.

        After the playbooks. Where it did something, the cluster is verified once more.
        """
        return 0

    def mend(self) -> bool:
        """After playbooks that failed: mend what may have been the cause; whether it was there.

        Where it was, the playbooks are run once more.
        """
        return False

    @abc.abstractmethod
    def facts(self) -> Facts:
        """What `connect` needs. After the playbooks."""

    @abc.abstractmethod
    def symptoms(self) -> str:
        """What the daemons' own logs say about a failure; empty when nothing."""

    @abc.abstractmethod
    def destroy(self, say: Callable[[str], None]) -> Ended:
        """Cancel all jobs, end everything of the cluster; results stay. `say` tells the steps."""

    @abc.abstractmethod
    def left(self) -> tuple[str, ...]:
        """What is still there of the cluster, in words; asks the world. Empty after `destroy`."""


#: name -> (module, class); imported when used, so that no cloud's SDK is loaded for another one.
PROVIDERS: Mapping[str, tuple[str, str]] = {
    "local": ("clusterkit.cluster.providers.local", "LocalProvider"),
}


def provider(name: str, cluster: str, folder: Path) -> Provider:
    """The provider `name` for the cluster in `folder`. Raises ClusterError for an unknown name."""
    if name not in PROVIDERS:
        raise ClusterError(
            f"cluster {cluster!r}: no provider {name!r}; there is {', '.join(sorted(PROVIDERS))}"
        )
    module, attribute = PROVIDERS[name]
    made = getattr(importlib.import_module(module), attribute)(cluster, folder)
    assert isinstance(made, Provider)
    return made
