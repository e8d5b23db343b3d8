"""A computer with a cluster at Google, against the double; see `cloud_cluster`."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cloud_cluster
from cloud_cluster import Kills
from doubles.faults import Counts

from clusterkit.cluster.providers.gce import ENDPOINT
from clusterkit.cluster.providers.gce.client import Client

REGION = "us-central1"
A, B = f"{REGION}-a", f"{REGION}-b"
HEAD, TYPE = "e2-medium", "c2-standard-4"
#: Collections of what is a cluster's.
COLLECTIONS = (
    "instances", "disks", "addresses", "firewalls", "resourcePolicies", "images", "snapshots",
)  # fmt: skip
#: What a start may ask.
_SERVICES = (
    "catalog", "disks", "addresses", "firewalls", "global_operations", "images", "instances",
    "machine_types", "accelerator_types", "networks", "projects", "region_instances",
    "region_operations", "regions", "resource_policies", "subnetworks", "zone_operations", "zones",
)  # fmt: skip


class Computer(cloud_cluster.Computer):
    #: What it needs is made by every kind of call.
    SETTINGS: Mapping[str, Any] = {
        "provider": "gce",
        "region": REGION,
        "connect": "private",
        "own_address": "10.9.8.7",
        "saved_image": "off",
        "head": {"types": [HEAD], "zones": [A]},
        "workers": {
            "cpu": {
                "count": 2,
                "types": [TYPE],
                "zones": [A, B],
                "market": "spot",
                "placement": True,
            }
        },
    }


class Waiting(cloud_cluster.Waiting):
    client = Client


class Forks(cloud_cluster.Forks):
    def __init__(self, environment: Mapping[str, str]) -> None:
        without = ("GOOGLE_", "CLOUDSDK_", "GCLOUD_", "CLUSTERKIT_GCE_")
        super().__init__(Path(__file__), environment, without)


def without_hosts() -> None:
    """From now on in this process: no machine is reached; the SDK's clients are made once."""
    cloud_cluster.without_hosts()
    make, lock = Client._client, threading.Lock()
    made: dict[tuple[str | None, ...], Any] = {}

    def client(self: Client, service: str) -> Any:
        key = (service, self.endpoint)
        with lock:
            if key not in made:
                made[key] = make(self, service)
            return made[key]

    Client._client = client  # type: ignore[method-assign]


def looks(action: str) -> bool:
    """Whether a call ("instances.aggregatedList") changes nothing."""
    return action.rpartition(".")[2].startswith(("get", "list", "aggregatedList"))


def changes_and_first_looks() -> Counts:
    """Operations are looked at so often that the first look after a change must do for all."""
    look_counts = True

    def counts(action: str) -> bool:
        nonlocal look_counts
        before, look_counts = look_counts, not looks(action)
        return before or look_counts

    return counts


def kills(gce: Any, forks: Forks, computer: Computer) -> Kills:
    return Kills(
        gce,
        forks,
        computer,
        remember=_remembered,
        things=_things,
        looks=looks,
        before=changes_and_first_looks,
    )


def _remembered(gce: Any) -> Callable[[], None]:
    """The double's times have to be 0: what is planned for later is not kept."""
    world = gce.world
    with gce.lock:
        world.settle()
        assert not world._planned
        kept = copy.deepcopy((world.things, world.requests))
        freed, capacity = dict(world.freed), dict(gce.capacity)

    def back() -> None:
        with gce.lock:
            world.settle()
            world.things, world.requests = copy.deepcopy(kept)
            world.freed, gce.capacity = dict(freed), dict(capacity)

    return back


def _things(gce: Any) -> Iterator[tuple[object, ...]]:
    for collection in COLLECTIONS:
        for one in gce.things(collection):
            yield collection, one["name"], one.get("status", ""), str(one.get("sourceRanges"))


def _warm() -> None:
    client = Client(REGION, "none", endpoint=os.environ[ENDPOINT])
    for service in _SERVICES:
        client._client(service)


if __name__ == "__main__":
    without_hosts()
    cloud_cluster.serve(Computer, Waiting, _warm, endpoint="http://127.0.0.1:9", project="none")
