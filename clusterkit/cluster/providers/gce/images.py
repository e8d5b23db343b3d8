"""Images by name, from whom they really come, and images made from a cluster's machines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from clusterkit.cluster.cloud import api
from clusterkit.cluster.cloud.api import Image, Instance
from clusterkit.cluster.providers.gce import found, words
from clusterkit.cluster.providers.gce.client import Client
from clusterkit.cluster.providers.gce.words import ApiError, GoogleError
from clusterkit.errors import ClusterError, UsageError


@dataclass(frozen=True, slots=True)
class _Known:
    """A project's families of images that have a name here; by processor, the first that is there.

    Where none of `families` is there, the newest image whose family `like` describes is taken.
    """

    project: str
    login: str
    families: Mapping[str, tuple[str, ...]]
    like: str = ""


# cloud.google.com/compute/docs/images/os-details; cloud.google.com/deep-learning-vm/docs/images.
# Debian's images at Google have no cloud-init.
_KNOWN: Mapping[str, _Known] = {
    "ubuntu-22.04": _Known(
        "ubuntu-os-cloud",
        "ubuntu",
        {"x86_64": ("ubuntu-2204-lts",), "arm64": ("ubuntu-2204-lts-arm64",)},
    ),
    "ubuntu-24.04": _Known(
        "ubuntu-os-cloud",
        "ubuntu",
        {"x86_64": ("ubuntu-2404-lts-amd64",), "arm64": ("ubuntu-2404-lts-arm64",)},
    ),
    "dlvm-gpu": _Known(
        "deeplearning-platform-release",
        "ubuntu",
        {"x86_64": ("common-cu129-ubuntu-2404-nvidia-580",)},
        r"common-cu\d+-ubuntu-2[24]04(-nvidia-\d+)?(-py\d+)?",
    ),
}
#: GiB that an image needs of which that is not told.
_DISK = 10
#: Seconds for an image to be made.
_MAKING = 3600.0
#: Letters that Google takes in the name of an image: 63 of these at most.
_LETTERS = re.compile(r"[^a-z0-9-]+")


def named(client: Client, name: str, arch: str) -> Image:
    """The newest image of that name, family or path.

    Raises UsageError for one that is not there, or is for other processors.
    """
    project, path, login = _unseen(client, name, arch)
    unseen = f"the image {name} is taken unseen"
    try:
        image = _told(client, name, arch)
        if "/" in image.id:
            return image
        if image.id:  # without an address; it is where it was asked for
            return replace(image, id=f"projects/{project}/global/images/{image.id}")
    except UsageError:
        if client.endpoint is None or _lists(client, project, unseen):
            raise
    except ApiError as error:
        if not client.lacks(error, unseen):
            raise
    return Image(f"projects/{project}/global/images/{path}", name, arch, login, disk=_DISK)


def _lists(client: Client, project: str, otherwise: str) -> bool:
    """Whether another endpoint than Google's, which has not found an image, may have images."""
    try:
        client.pages("images", "list", project=project)
    except ApiError as error:
        return not client.lacks(error, otherwise)
    return True


def _told(client: Client, name: str, arch: str) -> Image:
    known = _KNOWN.get(name)
    if known is None:
        return _own(client, name, arch)
    for family in known.families.get(arch, ()):
        said = _of_family(client, known.project, family)
        if said is not None:
            return found.image(said, name, known.login)
    if known.like and arch in known.families:
        newest = _like(client, known)
        if newest is not None:
            return found.image(newest, name, known.login)
    raise UsageError(f"{known.project} has no image {name} for {arch}")


def save(client: Client, instance: Instance, name: str, labels: Mapping[str, str]) -> str:
    """Make an image of a stopped instance's disk; its path. The one of this name and this cluster
    that is there is answered. Raises ClusterError where the name is another's.
    """
    name = _LETTERS.sub("-", name.lower())[:63].strip("-")
    said = client.call("instances", "get", zone=instance.zone, instance=found.name_of(instance))
    disk = next(str(one.source) for one in said.disks if one.boot)
    resource: dict[str, Any] = {
        "name": name,
        "source_disk": found.last_of(disk, "projects") or disk,
        "labels": found.labels(labels),
    }
    digest = labels.get(api.DIGEST, "")
    if digest:  # a family for each set of roles: its newest image is the one to take
        resource["family"] = f"clusterkit-{_LETTERS.sub('-', digest.lower())}"[:63].strip("-")
    try:
        client.act("images", "insert", wait=_MAKING, image_resource=resource)
    except GoogleError as error:
        if not words.is_there(error):
            raise
        there = client.call("images", "get", image=name)
        theirs = found.read(there.labels).get(found.ID)
        if theirs != labels.get(found.ID):
            raise ClusterError(
                f"an image named {name!r} is there and not this cluster's: {error}"
            ) from error
    return f"projects/{client.project}/global/images/{name}"


def saved(client: Client) -> list[Image]:
    """The images that `image save` made, of all clusters."""
    try:
        told = client.pages("images", "list", filter=found.carrying(None))
    except ApiError as error:
        if not client.lacks(error, "no image was saved there"):
            raise
        return []
    images = [found.image(one, str(one.name), _login(one)) for one in told]
    return [one for one in images if found.carries(one.labels, None)]


def remove(client: Client, image: Image) -> None:
    """One that is gone is no error."""
    try:
        client.act("images", "delete", image=found.last(image.id))
    except GoogleError as error:
        if not words.is_gone(error):
            raise


def _unseen(client: Client, name: str, arch: str) -> tuple[str, str, str]:
    """The project, the path in it, and the login of an image that nobody tells anything of."""
    known = _KNOWN.get(name)
    if known is None:
        project, family, last = _parts(client, name)
        return project, f"{family}{last}", "ubuntu" if "ubuntu" in name else ""
    families = known.families.get(arch, ())
    if not families:
        raise UsageError(f"{known.project} has no image {name} for {arch}")
    return known.project, f"family/{families[0]}", known.login


def _parts(client: Client, name: str) -> tuple[str, str, str]:
    """Project, `family/` or "", and the name, of `NAME`, `family/NAME`, or either with its project
    before it.
    """
    match = re.fullmatch(r"(?:projects/([^/]+)/global/images/)?(family/)?([^/]+)", name)
    if match is None:
        raise UsageError(
            f"the image {name!r} is not known; known are {', '.join(_KNOWN)}, family/NAME, an own "
            "image's name, and projects/PROJECT/global/images/..."
        )
    return match[1] or client.project, match[2] or "", match[3]


def _own(client: Client, name: str, arch: str) -> Image:
    project, family, last = _parts(client, name)
    said = _of_family(client, project, last) if family else _of_name(client, project, last)
    if said is None:
        raise UsageError(
            f"the project {project} has no image {'of the family ' if family else ''}{last}, or "
            f"does not let you use it. `gcloud compute images list --project {project}` lists them"
        )
    image = found.image(said, name, _login(said))
    if image.arch != arch:
        raise UsageError(f"{name} is for {image.arch}, but the machines are {arch}")
    return image


def _of_family(client: Client, project: str, family: str) -> Any | None:
    return _asked(client, "get_from_family", project=project, family=family)


def _of_name(client: Client, project: str, name: str) -> Any | None:
    return _asked(client, "get", project=project, image=name)


def _asked(client: Client, method: str, **request: Any) -> Any | None:
    """An image, or None when there is none of that name that may be seen."""
    try:
        return client.call("images", method, **request)
    except ApiError as error:
        if error.status != 404 or error.lacking:
            raise
    return None


def _like(client: Client, known: _Known) -> Any | None:
    told = client.pages("images", "list", project=known.project)
    fits = [one for one in told if re.fullmatch(known.like, str(one.family))]
    fresh = [one for one in fits if str(one.deprecated.state) in ("", "ACTIVE")]
    return max(fresh, key=lambda one: str(one.creation_timestamp), default=None)


def _login(said: Any) -> str:
    """The account of an image's cloud-init; "" where that is not known."""
    labelled = found.read(said.labels)
    if labelled.get(api.LOGIN):
        return labelled[api.LOGIN]
    return "ubuntu" if "ubuntu" in f"{said.name} {said.family} {said.source_image}" else ""
