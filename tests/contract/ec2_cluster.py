"""A computer with a cluster on EC2, against the double; see `cloud_cluster`."""

from __future__ import annotations

import copy
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import botocore.hooks
import botocore.session
import cloud_cluster
from cloud_cluster import Kills

from clusterkit.cluster.providers.ec2.client import Client

#: What a client of botocore depends on.
_WHO = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
#: Kinds of what is a cluster's.
_KINDS = ("instance", "volume", "key-pair", "security-group", "placement-group")


class Computer(cloud_cluster.Computer):
    #: What it needs is made by every kind of call.
    SETTINGS: Mapping[str, Any] = {
        "provider": "ec2",
        "region": "us-east-1",
        "connect": "private",
        "own_address": "10.9.8.7",
        "saved_image": "off",
        "head": {"types": ["t3.medium"], "zones": ["us-east-1a"]},
        "workers": {
            "cpu": {
                "count": 2,
                "types": ["c5.large"],
                "zones": ["us-east-1a", "us-east-1b"],
                "market": "spot",
                "placement": True,
            }
        },
    }


class Waiting(cloud_cluster.Waiting):
    client = Client


class Forks(cloud_cluster.Forks):
    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(Path(__file__), environment, without=("AWS_",))


def without_hosts() -> None:
    """From now on in this process: no machine is reached; AWS's models are read once."""
    cloud_cluster.without_hosts()
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)
    botocore.hooks.accepts_kwargs = functools.cache(botocore.hooks.accepts_kwargs)
    make, lock = Client._client, threading.Lock()
    made: dict[tuple[str | None, ...], Any] = {}

    def client(self: Client, service: str, region: str) -> Any:
        key = (service, region, *(os.environ.get(name) for name in _WHO))
        with lock:
            if key not in made:
                made[key] = make(self, service, region)
            return made[key]

    Client._client = client  # type: ignore[method-assign]


def looks(action: str) -> bool:
    """Whether a call ("ec2:DescribeInstances", "DescribeInstances") changes nothing in AWS."""
    return action.rpartition(":")[2].startswith(("Describe", "Get"))


def kills(aws: Any, forks: Forks, computer: Computer) -> Kills:
    return Kills(aws, forks, computer, remember=_remembered, things=_things, looks=looks)


def _remembered(aws: Any) -> Callable[[], None]:
    world = aws.world()
    with aws.lock:
        world.settle()
        kept = copy.deepcopy(world.things)
        tokens, freed = copy.deepcopy(world.tokens), dict(world.freed)

    def back() -> None:
        with aws.lock:
            world.things = copy.deepcopy(kept)
            world.tokens, world.freed = copy.deepcopy(tokens), dict(freed)

    return back


def _things(aws: Any) -> Iterator[tuple[object, ...]]:
    for kind in _KINDS:
        for one in aws.things(kind):
            yield kind, str(one.get("State")), len(one.get("IpPermissions", ()))


def _warm() -> None:
    client = Client("us-east-1")
    for service in ("ec2", "sts", "ssm", "pricing", "service-quotas"):
        client._client(service, "us-east-1")


if __name__ == "__main__":
    without_hosts()
    cloud_cluster.serve(Computer, Waiting, _warm, region=None, profile="none")
