"""How a cluster is now: its nodes and its queue, as SLURM tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterkit import slurm
from clusterkit.cluster.facts import Facts
from clusterkit.transport import Connection

if TYPE_CHECKING:
    from clusterkit.cluster.cloud.found import Found


@dataclass(frozen=True, slots=True)
class Node:
    """A node as sinfo sees it; `state` is its word ("idle", "mixed", "down*").

    `reason` is why it is down or drained, "" where it is neither. Memory in MiB.
    """

    name: str
    state: str
    cpus: int
    cpus_busy: int
    memory: int
    gres: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """A cluster now.

    `state`: running, broken (a daemon died or SLURM is silent), unreachable, paused (only its disks
    are kept), stopped, or elsewhere: a cloud has it, and this computer knows nothing of it but what
    its labels say (`found`). `running` and `pending` count job elements: of an array, each one.
    """

    name: str
    provider: str
    state: str
    daemons: Mapping[str, bool]
    nodes: tuple[Node, ...] = ()
    running: int = 0
    pending: int = 0
    problem: str = ""
    facts: Facts | None = None
    found: Found | None = None

    @property
    def busy(self) -> bool:
        return self.running + self.pending > 0


NODES_ARGV = ("sinfo", "--noheader", "--Node", "--format=%N|%T|%C|%m|%G|%E")
QUEUE_ARGV = ("squeue", "--noheader", "--states=RUNNING,COMPLETING,PENDING", "--format=%T|%K")

#: Seconds for which SLURM may think.
_PATIENCE = 60.0


def parse_nodes(text: str) -> tuple[Node, ...]:
    """Lines of NODES_ARGV; %C is allocated/idle/other/total. A node counts once."""
    found: dict[str, Node] = {}
    for line in text.splitlines():
        fields = line.split("|", 5)
        if len(fields) >= 5:
            name, state, cpus, memory, gres = fields[:5]
            reason = fields[5] if len(fields) == 6 else ""
            counts = [int(one) for one in cpus.split("/")]
            found[name] = Node(
                name,
                state,
                counts[3],
                counts[0],
                int(memory),
                "" if gres == "(null)" else gres,
                "" if reason == "none" else reason,
            )
    return tuple(found.values())


def parse_queue(text: str) -> tuple[int, int]:
    """Lines of QUEUE_ARGV as (running, pending) elements."""
    running = pending = 0
    for line in text.splitlines():
        state, _, indexes = line.partition("|")
        count = sum(last - first + 1 for first, last in slurm.parse_indexes(indexes)) or 1
        if state == "PENDING":
            pending += count
        else:
            running += count
    return running, pending


def ask(connection: Connection, *, mine: bool = False) -> tuple[tuple[Node, ...], int, int]:
    """Nodes, running and pending elements (`mine`: of this account alone).

    Raises CommandFailed, Unreachable.
    """
    listed = connection.run(NODES_ARGV, timeout=_PATIENCE)
    queue = connection.transport.run(
        [*QUEUE_ARGV, "--me"] if mine else QUEUE_ARGV,
        env={**connection.env, **slurm.SQUEUE_ENVIRONMENT},
        timeout=_PATIENCE,
    )
    running, pending = parse_queue(queue.text)
    return parse_nodes(listed.text), running, pending
