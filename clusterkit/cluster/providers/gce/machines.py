"""Machines that there are: listed, switched on and off, ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from clusterkit.cluster.cloud import api
from clusterkit.cluster.cloud.api import Instance
from clusterkit.cluster.providers.gce import found, network, scopes, words
from clusterkit.cluster.providers.gce.client import Client
from clusterkit.cluster.providers.gce.words import ApiError, GoogleError

#: Seconds for a machine to come to rest that is on its way up, down or out.
RESTING = 180.0
#: Seconds for what is gone to be shown no more.
_SHOWN = 30.0
#: So often metadata are looked at anew that somebody else has changed.
_TRIES = 5
#: Calls for single machines that are on the way at once.
AT_ONCE = 16


def instances(client: Client, value: str | None, label: str = found.ID) -> list[Instance]:
    """Those of the region that carry a cluster's id, or (None) any cluster's."""
    told = scopes.instances(client, found.carrying(value, label))
    there = [found.instance(said, scope) for scope, said in told]
    return [one for one in there if found.carries(one.labels, value, label)]


def every(client: Client, cluster_id: str) -> list[Instance]:
    """A cluster's, with those that have lost its label and still have its network tag."""
    mark, tag = {found.ID: cluster_id}, network.tag_of(cluster_id)
    return [
        replace(one, labels={**one.labels, **mark})
        for scope, said in scopes.instances(client)
        for one in [found.instance(said, scope)]
        if mark.items() <= one.labels.items() or tag in said.tags.items
    ]


def launched(client: Client, token: str) -> list[Instance]:
    """What a launch made, as far as Google shows it still."""
    return sorted(instances(client, token, api.LAUNCH), key=lambda one: one.index)


def start(client: Client, some: Sequence[Instance]) -> None:
    """Switch on again. Raises GoogleError."""
    _all(client, "start", some)


def stop(client: Client, some: Sequence[Instance]) -> None:
    """Switch off and keep the disks, but local SSDs, which come with some types: Google wants to
    hear what shall become of them, and takes money for keeping them.
    """
    _all(client, "stop", some, discard_local_ssd=True)


def end(client: Client, some: Sequence[Instance]) -> None:
    """End them and their disks."""
    _all(client, "delete", some)


def give_user_data(client: Client, instance: Instance, user_data: str) -> None:
    """What a stopped instance reads at its next boot; others may change its metadata meanwhile."""
    name = _where(instance)
    for tries_left in reversed(range(_TRIES)):
        said = client.call("instances", "get", **name)
        kept = [one for one in said.metadata.items if one.key != "user-data"]
        items = [{"key": one.key, "value": one.value} for one in kept]
        made = {
            "fingerprint": said.metadata.fingerprint,
            "items": [*items, {"key": "user-data", "value": user_data}],
        }
        request: dict[str, Any] = {**name, "metadata_resource": made}
        try:
            client.act("instances", "set_metadata", **request)
        except ApiError as error:
            if error.status != 412 or not tries_left:
                raise
        else:
            return


def _all(client: Client, method: str, some: Sequence[Instance], **more: Any) -> None:
    """One call for each, at the same time; those that are gone are no error.

    Raises the first error after all were asked.
    """

    def one(instance: Instance) -> None:
        """Google refuses changes of a machine that is on its way: then again, until it rests."""
        where: dict[str, Any] = {**_where(instance), **more}
        refusal: list[GoogleError] = []

        def done() -> bool:
            try:
                client.act("instances", method, **where)
            except GoogleError as error:
                if words.is_gone(error):
                    require_gone(client, error, lambda: _there(client, instance))
                    return True
                if error.code not in words.NOT_READY:
                    raise
                refusal[:] = [error]
                return False
            return True

        if not client.look(done, RESTING):
            raise refusal[0]

    with ThreadPoolExecutor(min(AT_ONCE, max(1, len(some)))) as pool:
        tasks = [pool.submit(one, instance) for instance in some]
    for task in tasks:
        task.result()


def require_gone(client: Client, error: GoogleError, there: Callable[[], bool]) -> None:
    """Raises `error`, where it says that a thing is gone, or that another endpoint than Google's
    does not have the call, and the thing is there.
    """
    lacking = isinstance(error, ApiError) and error.lacking
    if lacking and not client.look(lambda: not there(), _SHOWN):
        raise error


def _there(client: Client, instance: Instance) -> bool:
    shown = [found.instance(said, scope) for scope, said in scopes.instances(client)]
    same = [one for one in shown if (one.id, one.zone) == (instance.id, instance.zone)]
    return any(one.state not in ("stopping", "ending") for one in same)


def _where(instance: Instance) -> dict[str, str]:
    return {"zone": instance.zone, "instance": found.name_of(instance)}
