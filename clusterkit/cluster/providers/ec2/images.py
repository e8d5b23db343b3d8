"""Images by name, from whom they really come, and images made from a cluster's machines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from clusterkit.cluster.cloud import api
from clusterkit.cluster.cloud.api import Image, Instance
from clusterkit.cluster.providers.ec2 import found
from clusterkit.cluster.providers.ec2.client import Client
from clusterkit.cluster.providers.ec2.words import ApiError
from clusterkit.errors import ClusterError, UsageError

#: State of a saved image that is gone but for its snapshot, which still costs; see `saved`.
LEFTOVER = "leftover"
_DEB = {"x86_64": "amd64", "arm64": "arm64"}


@dataclass(frozen=True, slots=True)
class _Known:
    """An image that has a name here. `{arch}` is filled in; of several parameters the first wins.

    `parameters` are public ones of SSM, `owner` and `pattern` how to find it without them.
    """

    login: str
    parameters: tuple[str, ...]
    owner: str
    pattern: str
    deb: bool = True  # the architecture is called amd64, not x86_64


_CANONICAL, _DEBIAN = "099720109477", "136693071363"
_UBUNTU = "/aws/service/canonical/ubuntu/server/{version}/stable/current/{{arch}}/hvm/{disk}/ami-id"
_DLAMI = "/aws/service/deeplearning/ami/{arch}/base-oss-nvidia-driver-gpu-ubuntu-"

# documentation.ubuntu.com/aws: "Find Ubuntu images"; wiki.debian.org/Cloud/AmazonEC2Image;
# docs.aws.amazon.com/dlami: "Get the ID of a DLAMI".
_KNOWN: Mapping[str, _Known] = {
    "ubuntu-22.04": _Known(
        "ubuntu",
        (_UBUNTU.format(version="22.04", disk="ebs-gp2"),),
        _CANONICAL,
        "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-{arch}-server-*",
    ),
    "ubuntu-24.04": _Known(
        "ubuntu",
        (_UBUNTU.format(version="24.04", disk="ebs-gp3"),),
        _CANONICAL,
        "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{arch}-server-*",
    ),
    "debian-12": _Known(
        "admin", ("/aws/service/debian/release/12/latest/{arch}",), _DEBIAN, "debian-12-{arch}-*"
    ),
    "debian-13": _Known(
        "admin", ("/aws/service/debian/release/13/latest/{arch}",), _DEBIAN, "debian-13-{arch}-*"
    ),
    "dlami-gpu": _Known(
        "ubuntu",
        (f"{_DLAMI}24.04/latest/ami-id", f"{_DLAMI}22.04/latest/ami-id"),
        "amazon",
        "Deep Learning*Base OSS Nvidia Driver GPU AMI (Ubuntu 2?.04) *",
        deb=False,
    ),
}


@dataclass(frozen=True, slots=True)
class Found:
    """An image, and the name of its root disk."""

    image: Image
    root: str


def named(client: Client, name: str, arch: str) -> Found:
    """The newest image of that name, or the image of that id.

    Raises UsageError for one that is not there, or is for other processors.
    """
    if name.startswith("ami-"):
        said = described(client, name)
        result = _found(said, name, _login(said))
        if result.image.arch != arch:
            raise UsageError(f"{name} is for {result.image.arch}, but the machines are {arch}")
        return result
    known = _KNOWN.get(name)
    if known is None:
        raise UsageError(
            f"the image {name!r} is not known; known are {', '.join(_KNOWN)}, and ids, ami-..."
        )
    id_ = _parameter(client, known, arch)
    if id_:
        return _found(described(client, id_), name, known.login)
    told = client.pages(
        "ec2",
        "DescribeImages",
        "Images",
        Owners=[known.owner],
        Filters=[
            {"Name": "name", "Values": [known.pattern.format(arch=_arch(known, arch))]},
            {"Name": "architecture", "Values": [arch]},
            {"Name": "state", "Values": ["available"]},
        ],
    )
    if not told:
        raise UsageError(f"{client.region} has no image {name} for {arch}")
    newest = max(told, key=lambda one: str(one.get("CreationDate", "")))
    return _found(newest, name, known.login)


def described(client: Client, id_: str) -> Mapping[str, Any]:
    """An image as AWS describes it. Raises UsageError when there is none of that id."""
    try:
        told = client.pages("ec2", "DescribeImages", "Images", ImageIds=[id_])
    except ApiError as error:
        if not error.code.startswith("InvalidAMIID"):
            raise
        told = []
    if not told:
        raise UsageError(
            f"the image {id_} is not in {client.region}, or this account may not use it; an "
            "image's id is another one in each region"
        )
    image: Mapping[str, Any] = told[0]
    return image


def root_name(client: Client, id_: str) -> str:
    """The name of an image's root disk; it never changes, so a launch sent again is the same."""
    return str(described(client, id_).get("RootDeviceName") or "/dev/sda1")


def _found(said: Mapping[str, Any], name: str, login: str) -> Found:
    return Found(found.image(said, name, login), str(said.get("RootDeviceName") or "/dev/sda1"))


def _parameter(client: Client, known: _Known, arch: str) -> str:
    """The image's id as AWS publishes it; "" where it does not, or does not tell this account.

    What else may be wrong, the search for the image tells.
    """
    names = [one.format(arch=_arch(known, arch)) for one in known.parameters]
    try:
        told = client.call("ssm", "GetParameters", Names=names).get("Parameters") or ()
    except ClusterError:
        return ""
    values = {one["Name"]: str(one["Value"]) for one in told}
    return next((values[name] for name in names if name in values), "")


def _arch(known: _Known, arch: str) -> str:
    return _DEB.get(arch, arch) if known.deb else arch


def _login(said: Mapping[str, Any]) -> str:
    """The account of an image's cloud-init, from who made it; "" where that is not known."""
    name = str(said.get("Name") or "")
    labelled = found.labels(said.get("Tags"))
    if labelled.get(api.LOGIN):
        return labelled[api.LOGIN]
    owner = str(said.get("OwnerId") or "")
    if owner == _CANONICAL or "ubuntu" in name.lower():
        return "ubuntu"
    if owner == _DEBIAN or name.startswith("debian-"):
        return "admin"
    return "ec2-user" if re.match(r"al20\d\d-ami|amzn2?-ami", name) else ""


# -- saved ones -----------------------------------------------------------------------------------


def save(client: Client, instance: Instance, name: str, labels: Mapping[str, str]) -> str:
    """Begin to make an image of a stopped instance's disk; its id. The one of this name and this
    cluster that is there is answered. Raises ClusterError where the name is another's.
    """
    tags = {"Name": name, **labels}
    try:
        made = client.settled(
            lambda: client.call(
                "ec2",
                "CreateImage",
                InstanceId=instance.id,
                Name=name,
                Description=f"clusterkit {labels.get('clusterkit-cluster', '')}".strip(),
                TagSpecifications=[found.tagged("image", tags), found.tagged("snapshot", tags)],
            )
        )
    except ApiError as error:
        if error.code != "InvalidAMIName.Duplicate":
            raise
        told = client.pages(
            "ec2",
            "DescribeImages",
            "Images",
            Owners=["self"],
            Filters=[{"Name": "name", "Values": [name]}],
        )
        for one in told:
            theirs = found.labels(one.get("Tags")).get("clusterkit-id")
            if theirs == labels.get("clusterkit-id"):
                return str(one["ImageId"])
        raise ClusterError(
            f"an image named {name!r} is there and not this cluster's: {error}"
        ) from error
    return str(made["ImageId"])


def saved(client: Client) -> list[Image]:
    """The images that `image save` made, of all clusters. A snapshot whose image is gone (a removal
    that was cut off) is one of state "leftover", so that it is seen and can be removed.
    """
    told = client.pages(
        "ec2", "DescribeImages", "Images", Owners=["self"], Filters=found.carrying(None)
    )
    snapshots = client.pages(
        "ec2", "DescribeSnapshots", "Snapshots", OwnerIds=["self"], Filters=found.carrying(None)
    )
    used = {id_ for one in told for id_ in _snapshots(one)}
    there = {one["ImageId"] for one in told}
    images = [found.image(one, str(one.get("Name") or one["ImageId"]), _login(one)) for one in told]
    for one in snapshots:
        if one["SnapshotId"] in used or _of(one) in there:
            continue
        labels = found.labels(one.get("Tags"))
        images.append(
            Image(
                id=one["SnapshotId"],
                name=labels.get("Name", one["SnapshotId"]),
                arch="",
                login="",
                disk=int(one.get("VolumeSize") or 0),
                made=found.time(one.get("StartTime")),
                digest=labels.get(api.DIGEST, ""),
                labels=labels,
                state=LEFTOVER,
                words="the snapshot of an image that is gone",
            )
        )
    return images


def remove(client: Client, image: Image) -> None:
    """The image, then its snapshots. One that is gone is no error."""
    snapshots = [image.id]
    if image.id.startswith("ami-"):
        carries = found.carrying(image.labels.get("clusterkit-id"))
        told = client.pages(
            "ec2", "DescribeSnapshots", "Snapshots", OwnerIds=["self"], Filters=carries
        )
        try:
            said = described(client, image.id)
        except UsageError:
            said = {}
        snapshots = sorted(
            {*_snapshots(said), *(one["SnapshotId"] for one in told if _of(one) == image.id)}
        )
        if said:
            _gone(client, "DeregisterImage", ImageId=image.id)
    for snapshot in snapshots:
        ask = partial(_gone, client, "DeleteSnapshot", SnapshotId=snapshot)
        client.settled(ask, "InvalidSnapshot.InUse")


def _gone(client: Client, operation: str, **params: Any) -> None:
    try:
        client.call("ec2", operation, **params)
    except ApiError as error:
        if not error.code.endswith((".NotFound", ".Unavailable")):
            raise


def _snapshots(said: Mapping[str, Any]) -> list[str]:
    disks = [one.get("Ebs") or {} for one in said.get("BlockDeviceMappings") or ()]
    return [str(disk["SnapshotId"]) for disk in disks if disk.get("SnapshotId")]


def _of(snapshot: Mapping[str, Any]) -> str:
    """The image that a snapshot was made for, as AWS writes into its description."""
    match = re.search(r"for (ami-[0-9a-f]+)", str(snapshot.get("Description") or ""))
    return match[1] if match else ""
