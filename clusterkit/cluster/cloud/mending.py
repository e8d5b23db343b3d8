"""A cloud's machine that is silent or down: the door is mended, or the cloud says what it knows.

Called when ssh or SLURM has failed already, so a healthy cluster costs no question to its cloud.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clusterkit.cluster import drain
from clusterkit.cluster.cloud.known import CLOUDS
from clusterkit.cluster.facts import Facts
from clusterkit.cluster.providers import Machine, Provider
from clusterkit.cluster.state import Node
from clusterkit.errors import ClusterkitError, TransportError, Unreachable
from clusterkit.paths import Home

Say = Callable[[str], None]


def mend(home: Home, facts: Facts, machine: str, error: Unreachable, say: Say) -> bool:
    """Whether the way to a silent machine was shut and has been opened, which is told.

    Else raises Unreachable with what the cloud knows of the machine; False where there is no cloud.
    """
    if facts.provider not in CLOUDS:
        return False
    start = f"`clusterkit start {facts.cluster}`"
    try:
        provider = _provider(home, facts)
        done = provider.open_door()
        if done:
            say(done)
            return True
        there = {one.name: one for one in provider.machines()}
    except ClusterkitError as trouble:
        raise Unreachable(
            f"{error}\nWhether its door is open could not be found out: {trouble}", error.why
        ) from trouble
    raise Unreachable(f"{error}\n{_fate(there.get(machine), facts, machine)} {start}", error.why)


def mourn(home: Home, facts: Facts, ill: Sequence[Node]) -> dict[str, str]:
    """Of nodes that are down or silent in SLURM, those whose machine is gone: name -> why.

    SLURM is told so, unless it knows: their jobs go back into the queue now. Raises ClusterkitError
    when the cloud cannot be asked.
    """
    if facts.provider not in CLOUDS or not ill:
        return {}
    there = {one.name: one for one in _provider(home, facts).machines()}
    gone = {node.name: _why(there.get(node.name)) for node in ill}
    gone = {name: why for name, why in gone.items() if why}
    untold: dict[str, list[str]] = {}
    for node in ill:
        if node.name in gone and not node.reason.startswith(drain.GONE):
            untold.setdefault(gone[node.name], []).append(node.name)
    if untold:
        from clusterkit.cluster import remote

        head = remote.head_transport(facts)
        for why, names in untold.items():
            try:
                drain.requeue(head, names, f"{drain.GONE}: {why}")
            except TransportError:
                break  # SLURM is silent too: the status tells that
    return gone


def _provider(home: Home, facts: Facts) -> Provider:
    from clusterkit.cluster import lifecycle

    _, provider = lifecycle.made(home, facts.cluster, keep=False, as_started=True)
    assert provider is not None
    return provider


def _why(machine: Machine | None) -> str:
    """Why a machine does not come back; "" where it is there."""
    if machine is None or machine.state == "absent":
        return "the cloud has it no more"
    if machine.state == "dead":
        return machine.why or "it has ended"
    return ""


def _fate(machine: Machine | None, facts: Facts, name: str) -> str:
    """What became of a machine, up to the command that mends it."""
    why = _why(machine)
    if why:
        return f"The machine of {name} is gone ({why}). It is replaced by"
    assert machine is not None
    if machine.state == "stopped":
        return f"{name} is switched off: the cluster is paused. It is resumed by"
    known = facts.hosts[name].host if name in facts.hosts else ""
    now = machine.reach.host if machine.reach is not None else machine.address
    if known and now and now != known:
        return f"{name} has another address by now, {now}. It is found again by"
    return f"The cloud says that {name} runs, and its door is open. If it stays silent, try"
