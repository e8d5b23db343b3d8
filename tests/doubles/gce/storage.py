"""Disks, images and snapshots."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from doubles.gce import catalogue, operations
from doubles.gce.listing import page_of, things
from doubles.gce.wire import Asked, GoogleError
from doubles.gce.world import (
    Thing,
    World,
    checked_labels,
    fingerprint,
    last,
    method,
    parts,
    refuse_unless,
    scope_of,
    shown,
)

# -- disks -----------------------------------------------------------------------------------------


@method("disks.delete")
def delete_disk(world: World, asked: Asked) -> Thing:
    one = world.get("disks", scope_of(asked.params), asked.params["disk"])
    refuse_used(world, one, "disks")
    return operations.begin(world, one["_scope"], "delete", one, partial(world.remove, one))


def refuse_used(world: World, one: Thing, collection: str) -> None:
    """Raises GoogleError where something uses it."""
    path = world.path(collection, one["_scope"], one["name"])
    for user in one.get("users", ()):
        by = user.partition("/compute/v1/")[2]
        words = f"The {collection.removesuffix('s')} resource '{path}' is already being used by"
        raise GoogleError(400, f"{words} '{by}'", "resourceInUseByAnotherResource")


def make_disk(world: World, scope: str, said: Mapping[str, Any], image: Thing) -> Thing:
    """A disk made from an image: `name`, `sizeGb`, `type`, `labels` as given."""
    made: Thing = {
        "status": "READY", "physicalBlockSizeBytes": "4096", "architecture": image["architecture"],
        "sourceImage": image["selfLink"], "sourceImageId": image["id"], "users": [],
        "labelFingerprint": fingerprint({}), **said,
    }  # fmt: skip
    for key in ("licenses", "guestOsFeatures"):
        if image.get(key):
            made[key] = image[key]
    return world.add("disks", scope, made)


# -- images ----------------------------------------------------------------------------------------


def public_images(world: World, project: str) -> list[Thing]:
    """Those of a project of Google's or its partners, newest first."""
    return [
        _public(world.link("images", "global", one.name, project), one)
        for one in catalogue.IMAGES
        if one.project == project
    ]


def find_image(world: World, url: str) -> Thing:
    """What `sourceImage` names, a family's newest too. Raises GoogleError."""
    match = re.fullmatch(
        r"(?:https?://[^/]+/compute/[a-z0-9]+/|/)?(?:projects/([^/]+)/)?"
        r"global/images/(family/)?([^/]+)",
        url,
    )
    if match is None:
        words = f"Invalid value for field 'resource.disks[0].initializeParams.sourceImage': '{url}'"
        raise GoogleError(400, f"{words}. The referenced image resource cannot be found.")
    project, family, name = match.groups()
    project = project or world.gce.project
    if family:
        return newest(world, project, name)
    for one in _of_project(world, project):
        if one["name"] == name:
            return one
    raise world.unknown("images", "global", name, project)


def newest(world: World, project: str, family: str) -> Thing:
    found = [
        one
        for one in _of_project(world, project)
        if one.get("family") == family and one["status"] == "READY" and "deprecated" not in one
    ]
    if not found:
        raise world.unknown("images", "global", f"family/{family}", project)
    return max(found, key=lambda one: (one["creationTimestamp"], one["name"]))


@method("images.get")
def get_image(world: World, asked: Asked) -> Thing:
    project, name = asked.params["project"], asked.params["image"]
    for one in _seen(world, project):
        if name in (one["name"], one["id"]):
            return shown(one)
    raise world.unknown("images", "global", name, project)


@method("images.getFromFamily")
def get_from_family(world: World, asked: Asked) -> Thing:
    return shown(newest(world, asked.params["project"], asked.params["family"]))


@method("images.list")
def list_images(world: World, asked: Asked) -> Thing:
    return page_of(world, asked, "images", "global", _seen(world, asked.params["project"]))


@method("images.insert")
def insert_image(world: World, asked: Asked) -> Thing:
    body = asked.body
    labels = checked_labels(body.get("labels"))
    if "sourceDisk" not in body:
        words = "Invalid value for field 'resource.sourceDisk': ''. The double makes images of"
        raise GoogleError(400, f"{words} disks only.")
    disk = world.get("disks", *parts(body["sourceDisk"], "disks"))
    machine = next((one for one in map(world.by_link, disk["users"]) if one is not None), None)
    force = asked.params.get("forceCreate") and world.gce.hosts is None
    if machine is not None and machine["status"] != "TERMINATED" and not force:
        refuse_used(world, disk, "disks")
    source = world.by_link(disk["sourceImage"]) or find_image(world, disk["sourceImage"])
    one = world.add(
        "images", "global",
        {
            "name": body["name"], "status": "PENDING", "sourceType": "RAW", "labels": labels,
            "architecture": disk["architecture"], "diskSizeGb": disk["sizeGb"],
            "sourceDisk": disk["selfLink"], "sourceDiskId": disk["id"], "archiveSizeBytes": "0",
            "storageLocations": body.get("storageLocations", ["us"]),
            **{key: source[key] for key in ("_cloud_init", "_login", "_driver")},
            **{key: body[key] for key in ("family", "description") if key in body},
        },
    )  # fmt: skip

    def done() -> None:
        one.update({"status": "READY", "archiveSizeBytes": str(2 * 2**30)})

    work = None
    if world.gce.hosts is not None:
        if machine is None:
            world.remove(one)
            raise GoogleError(400, "With hosts, only the disk of a machine becomes an image.")
        work = partial(world.gce.hosts.snapshot, machine["id"], one["id"])
    return operations.begin(
        world, "global", "insert", one, done, world.gce.image_time, work,
        undone=lambda: one.update({"status": "FAILED"}),
    )  # fmt: skip


@method("images.delete")
def delete_image(world: World, asked: Asked) -> Thing:
    one = _own(world, asked.params["project"], asked.params["image"])
    one["status"] = "DELETING"
    return operations.begin(world, "global", "delete", one, partial(world.remove, one))


@method("images.setLabels", "disks.setLabels")
def set_labels(world: World, asked: Asked) -> Thing:
    if asked.name == "images.setLabels":
        one = _own(world, asked.params["project"], asked.params["resource"])
    else:
        one = world.get("disks", scope_of(asked.params), asked.params["resource"])
    return relabel(world, one, asked.body)


def relabel(world: World, one: Thing, body: Mapping[str, Any]) -> Thing:
    """The operation that gives a thing new labels."""
    labels = checked_labels(body.get("labels"))
    refuse_unless(one["labelFingerprint"], body.get("labelFingerprint"), "resource")
    one |= {"labels": labels, "labelFingerprint": fingerprint(labels)}
    return operations.begin(world, one["_scope"], "setLabels", one)


def _own(world: World, project: str, name: str) -> Thing:
    if project != world.gce.project:
        words = f"Required 'compute.images.delete' permission for 'projects/{project}'"
        raise GoogleError(403, words, "forbidden")
    return world.get("images", "global", name)


def _of_project(world: World, project: str) -> list[Thing]:
    if project == world.gce.project:
        return world.within("images", "global")
    found = public_images(world, project)
    if not found:
        raise GoogleError(404, f"The resource 'projects/{project}' was not found", "notFound")
    return found


def _seen(world: World, project: str) -> list[Thing]:
    own = project == world.gce.project
    return things(world, "images", "global") if own else _of_project(world, project)


@functools.cache
def _public(link: str, one: catalogue.Image) -> Thing:
    day = one.name[-8:]
    stamp = f"{day[:4]}-{day[4:6]}-{day[6:]}T03:21:44.615-07:00"
    number = str(10**18 + sum(one.name.encode()) * 10**9)
    project = link.partition("/global/")[0]
    made: Thing = {
        "kind": "compute#image", "id": number, "name": last(link), "selfLink": link,
        "creationTimestamp": stamp, "family": one.family, "status": "READY", "sourceType": "RAW",
        "description": f"{one.family}, made up", "archiveSizeBytes": str(10**9),
        "diskSizeGb": str(one.disk), "architecture": one.arch, "storageLocations": ["us"],
        "labelFingerprint": "42WmSpB8rSM=", "licenses": [f"{project}/global/licenses/{one.family}"],
        "guestOsFeatures": [{"type": "UEFI_COMPATIBLE"}, {"type": "GVNIC"}],
        "_cloud_init": one.cloud_init, "_login": one.login, "_driver": one.driver,
    }  # fmt: skip
    return made
