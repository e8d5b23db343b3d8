"""What Google answers, as clusterkit's nouns, and labels as Google has them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from clusterkit.cluster.cloud import api, ranges
from clusterkit.cluster.cloud.api import Image, Instance, InstanceState

#: cloud.google.com/compute/docs/instances/instance-lifecycle. TERMINATED is what is switched off.
_STATES: Mapping[str, InstanceState] = {
    "PENDING": "pending",
    "PROVISIONING": "pending",
    "STAGING": "pending",
    "RUNNING": "running",
    "REPAIRING": "running",
    "PENDING_STOP": "stopping",
    "STOPPING": "stopping",
    "DEPROVISIONING": "stopping",
    "SUSPENDING": "stopping",
    "SUSPENDED": "stopped",
    "STOPPED": "stopped",
    "TERMINATED": "stopped",
}
#: The label that all of a cluster carries.
ID = "clusterkit-id"
_CREATED = "clusterkit-created"
_ARCHES = {"X86_64": "x86_64", "ARM64": "arm64"}


def labels(wanted: Mapping[str, str]) -> dict[str, str]:
    """Labels as Google takes them: small letters, digits, `_` and `-`, 63 of them at most.

    cloud.google.com/compute/docs/labeling-resources
    """
    return {_letters(key): _letters(value) for key, value in wanted.items()}


def read(found: Mapping[str, str]) -> dict[str, str]:
    """Google's labels as clusterkit has them: times with large letters."""
    made = dict(found)
    if _CREATED in made:
        made[_CREATED] = made[_CREATED].upper()
    return made


def description(wanted: Mapping[str, str]) -> str:
    """The labels of what has none at Google, as a firewall rule, for its description."""
    return json.dumps(dict(sorted(wanted.items())))


def described(text: str) -> dict[str, str]:
    """The labels of a `description`; {} where somebody else wrote it."""
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(said, dict):
        return {}
    return {str(key): str(value) for key, value in said.items()}


def carrying(value: str | None, label: str = ID) -> str:
    """The filter for what carries a cluster's id, or (None) any cluster's.

    A value without quotes may be a number there: an id can look as one.
    """
    return f"labels.{label}:*" if value is None else f'labels.{label}="{value}"'


def carries(labels: Mapping[str, str], value: str | None, label: str = ID) -> bool:
    """The same, looked at here: another endpoint than Google's may not filter what it tells."""
    has = labels.get(label, "")
    return bool(has) if value is None else has == value


def instance(said: Any, scope: str = "") -> Instance:
    """An Instance of compute_v1. `scope` is where it was found, as "zones/us-central1-a"."""
    # A state that Google may invent one day is alive: better waited for than made twice.
    state = _STATES.get(str(said.status), "pending")
    marks = read(said.labels)
    spot = str(said.scheduling.provisioning_model) == "SPOT" or bool(said.scheduling.preemptible)
    suspended = str(said.status) == "SUSPENDING"  # then it is kept, whatever stops it
    if state == "stopping" and spot and not suspended and _goes_away(said):
        state = "ending"
    nic = next(iter(said.network_interfaces), None)
    outside = next(iter(nic.access_configs), None) if nic is not None else None
    disk = next((one for one in said.disks if one.boot), None)
    return Instance(
        id=f"{said.name}/{said.id}",
        type=machine(last(said.machine_type), said.guest_accelerators),
        zone=last(said.zone) or last(scope),
        market="spot" if spot else "on-demand",
        state=state,
        private=str(nic.network_i_p) if nic is not None else "",
        public=str(outside.nat_i_p) if outside is not None else "",
        labels=marks,
        index=_index(str(said.name), marks),
        began=time(said.creation_timestamp),
        why=str(said.status_message),
        disk=int(disk.disk_size_gb) if disk is not None else 0,
    )


def _goes_away(said: Any) -> bool:
    """Whether an Instance of compute_v1 is deleted when Google stops it."""
    return str(said.scheduling.instance_termination_action) == "DELETE"


def name_of(one: Instance) -> str:
    """Google's name of a machine: its id here has Google's number too, for names come again."""
    return one.id.partition("/")[0]


def taken(said: Any, cluster: str, labels: Mapping[str, str]) -> Instance | None:
    """The machine that an operation `compute.instances.preempted` took from a cluster.

    It is gone, and its labels with it: its name tells which it was. None: not of this cluster.
    """
    name, zone = last(said.target_link), last(said.zone)
    stem, _, tail = name.rpartition("-")
    numbered = tail.isdigit()
    begin, _, group = stem.rpartition("-") if numbered else (stem, "", tail)
    if begin != cluster or not group:
        return None
    return Instance(
        id=f"{name}/{said.target_id}",
        type="",
        zone=zone,
        market="spot",
        state="ended",
        private="",
        public="",
        labels={**labels, api.GROUP: group, api.NUMBERS: tail if numbered else "1"},
        began=time(said.insert_time),
        why=str(said.status_message) or "Google took the spot machine back (preempted).",
        taken=True,
    )


def machine(type_: str, accelerators: Iterable[Any]) -> str:
    """A machine type with the GPUs that were attached: `n1-standard-8+nvidia-tesla-t4:1`."""
    if type_.startswith(("a2-", "a3-", "a4-", "g2-", "g4-")):  # they have their own
        return type_
    more = [f"+{last(one.accelerator_type)}:{one.accelerator_count}" for one in accelerators]
    return type_ + "".join(more[:1])


def image(said: Any, name: str, login: str) -> Image:
    """An Image of compute_v1."""
    marks = read(said.labels)
    ready = {"READY": "available", "PENDING": "pending"}
    return Image(
        id=last_of(said.self_link, "projects") or str(said.name),
        name=name,
        arch=_ARCHES.get(str(said.architecture), "x86_64"),
        login=login,
        disk=int(said.disk_size_gb) or 10,
        made=time(said.creation_timestamp),
        digest=marks.get(api.DIGEST, ""),
        labels=marks,
        state=ready.get(str(said.status), str(said.status).lower()),
    )


def time(text: str) -> datetime | None:
    """A time as "2026-11-05T09:12:44.000-08:00"."""
    try:
        made = datetime.fromisoformat(text)
    except ValueError:
        return None
    return made if made.tzinfo is not None else made.replace(tzinfo=UTC)


def last(url: str) -> str:
    """The name at the end of a URL."""
    return str(url).rpartition("/")[2]


def last_of(url: str, word: str) -> str:
    """The part of a URL from a word on: "projects/p/global/images/i"."""
    _, found, rest = str(url).partition(f"/{word}/")
    return f"{word}/{rest}" if found else ""


def _index(name: str, marks: Mapping[str, str]) -> int:
    """Which of its launch's machines one is: its number's place among the label's."""
    numbers = ranges.parse(marks.get(api.NUMBERS, ""))
    tail = name.rpartition("-")[2]
    if tail.isdigit() and int(tail) in numbers:
        return list(numbers).index(int(tail))
    return 0 if len(numbers) == 1 else len(numbers)


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]
