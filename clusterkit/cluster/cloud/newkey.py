"""Bring this computer's key into a cluster that was made on another one, by the cloud's own means.

Whoever may steer the cloud's account may change a machine's user-data while it is off, and nobody
else may: that is the one way in that asks for no trust in whoever answers on the network. Every
machine is switched off, is given new keys (`Identity.adoption_user_data`), and is switched on. Its
first host key is known here, so `reach` trusts it as it does a new machine. Spot machines cannot be
switched off: they are ended, and `start` makes others.

<cluster folder>/newkey.json   {"nonce": ..., "given": [ids]}: killed at any point, it goes on
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.cluster.access import write_private
from clusterkit.cluster.cloud import api
from clusterkit.cluster.cloud.api import Instance
from clusterkit.cluster.cloud.wishes import BUILDER
from clusterkit.cluster.providers import Say
from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from clusterkit.cluster.cloud.provider import CloudProvider

_FILE = "newkey.json"


def bring(provider: CloudProvider, say: Say) -> None:
    """Make this computer's key the only one of the cluster's; the machines run again afterwards.

    Can be repeated at any time, and goes on where it was. Raises ClusterError, Refused (a machine
    that was switched off may find no room in its zone).
    """
    file = provider.folder / _FILE
    nonce, given = _begun(file)
    alive, surplus = provider.fleet.alive(provider.fleet.instances())
    ending = [*surplus, *(one for one in alive.values() if _passing(one))]
    if ending:
        names = ", ".join(sorted(provider.fleet.machine_of(one) or one.id for one in ending))
        say(f"ended, for they cannot be switched off to be given a key: {names}")
        provider.cloud.end(ending)
    kept = {name: one for name, one in alive.items() if not _passing(one)}
    todo = {name: one for name, one in kept.items() if one.id not in given}
    if todo:
        _give(provider, todo, nonce, say)
        given = given | {one.id for one in todo.values()}
        _keep(file, nonce, given)
    # Those that were given their keys are off, or were switched on afterwards.
    ids = [one.id for one in kept.values()]
    now = _still(provider, ids, {"running", "stopped"})
    off = [one for one in now if one.state == "stopped"]
    if off:
        say(f"switched on: {_names(provider, off)}")
        provider.cloud.start(off)
        _still(provider, ids, {"running"})
    file.unlink(missing_ok=True)


def _give(provider: CloudProvider, todo: dict[str, Instance], nonce: str, say: Say) -> None:
    """Switch these machines off, and lay new keys ready for their next boot."""
    identity = provider.identity
    ids = [one.id for one in todo.values()]
    now = _still(provider, ids, {"running", "stopping", "stopped"})  # none is on its way up
    running = [one for one in now if one.state == "running"]
    if running:
        say(f"switched off, to be given a new key: {_names(provider, running)}")
        provider.cloud.stop(running)
    for one in _still(provider, ids, {"stopped"}):
        name = provider.fleet.machine_of(one)
        user_data = identity.adoption_user_data(name, nonce)
        identity.believe_adopted(name)
        provider.cloud.give_user_data(one, user_data)


def _still(provider: CloudProvider, ids: Sequence[str], states: set[str]) -> list[Instance]:
    """The instances, once they are in one of these states. Raises ClusterError when one ends."""
    now = provider.fleet.await_states(ids, states)
    there = {one.id for one in now if one.alive}
    gone = [one for one in ids if one not in there]
    if gone:
        why = "; ".join(one.why for one in now if one.why and not one.alive)
        raise ClusterError(
            f"{', '.join(gone)} of {provider.cluster!r} ended meanwhile{f' ({why})' if why else ''}"
            ". Repeat the command: it goes on with the others."
        )
    return [one for one in now if one.alive]


def _passing(one: Instance) -> bool:
    """Whether it is not worth a key, or cannot be given one."""
    return one.market == "spot" or one.labels.get(api.GROUP) == BUILDER


def _names(provider: CloudProvider, instances: Sequence[Instance]) -> str:
    return ", ".join(sorted(provider.fleet.machine_of(one) for one in instances))


def _begun(file: Path) -> tuple[str, frozenset[str]]:
    """The nonce, and which machines have their keys; a new one when none was begun."""
    try:
        said = json.loads(file.read_text())
        return str(said["nonce"]), frozenset(map(str, said["given"]))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"{file} cannot be understood ({error}): remove it") from error
    nonce = secrets.token_hex(8)
    _keep(file, nonce, frozenset())
    return nonce, frozenset()


def _keep(file: Path, nonce: str, given: frozenset[str]) -> None:
    write_private(file, json.dumps({"nonce": nonce, "given": sorted(given)}).encode())
