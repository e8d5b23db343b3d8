"""Volumes, images and the snapshots behind them."""

from __future__ import annotations

import time
from functools import partial

from doubles.aws import catalogue
from doubles.aws.wire import AwsError
from doubles.aws.world import Params, Thing, World, action, now, page, tags_of, unknown


@action("CreateVolume")
def create_volume(world: World, params: Params) -> Thing:
    tags = tags_of(params, "volume")
    zone = params.get("AvailabilityZone")
    if zone not in world.zones():
        raise AwsError("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")
    made = {
        "Size": params.get("Size", 8), "SnapshotId": params.get("SnapshotId", ""),
        "AvailabilityZone": zone, "State": "available", "CreateTime": now(), "Attachments": [],
        "VolumeType": params.get("VolumeType", "gp2"), "Encrypted": False,
    }  # fmt: skip
    return world.add("volume", made, tags)


@action("DescribeVolumes")
def volumes(world: World, params: Params) -> Thing:
    found, more = page(params, world.describe("volume", params, "VolumeIds"), 1000)
    return {"Volumes": found, "NextToken": more}


@action("DeleteVolume")
def delete_volume(world: World, params: Params) -> Thing:
    one = world.get("volume", params["VolumeId"])
    if one["Attachments"]:
        to = one["Attachments"][0]["InstanceId"]
        words = f"Volume {one['VolumeId']} is currently attached to {to}"
        raise AwsError("VolumeInUse", words)
    del world.things["volume"][one["VolumeId"]]
    return {}


# -- images ----------------------------------------------------------------------------------------


def find_image(world: World, id_: str) -> Thing:
    """An image that can be used by this account. Raises AwsError."""
    world.settle()
    for one in (*world.all("image"), *_public(world)):
        if one["ImageId"] == id_:
            return one
    raise unknown("image", [id_])


def login_of(image: Thing) -> str:
    """The account that cloud-init gives the key to."""
    return str(
        image.get("_login") or ("admin" if image["OwnerId"] == catalogue.DEBIAN else "ubuntu")
    )


@action("DescribeImages")
def images(world: World, params: Params) -> Thing:
    among = [*world.all("image"), *_public(world)]
    owners = params.get("Owners")
    if owners:
        wanted = {world.account if one == "self" else one for one in owners}
        among = [
            one for one in among if one["OwnerId"] in wanted or one.get("ImageOwnerAlias") in wanted
        ]
    found = world.describe("image", params, "ImageIds", among=among)
    if params.get("MaxResults") or params.get("NextToken"):
        found, more = page(params, found, 1000)
        return {"Images": found, "NextToken": more}
    return {"Images": found}


@action("CreateImage")
def create_image(world: World, params: Params) -> Thing:
    tags = tags_of(params, "image", "snapshot")
    of_snapshot = tags_of(params, "snapshot", "image")
    instance = world.get("instance", params["InstanceId"])
    if instance["State"]["Name"] not in ("running", "stopped", "stopping"):
        words = f"Instance is not in state running or stopped or stopping: {instance['InstanceId']}"
        raise AwsError("IncorrectState", words)
    name = params["Name"]
    for one in world.all("image"):
        if one["Name"] == name:
            words = f"AMI name {name} is already in use by AMI {one['ImageId']}"
            raise AwsError("InvalidAMIName.Duplicate", words)
    if not 3 <= len(name) <= 128:
        words = "AMI names must be between 3 and 128 characters long"
        raise AwsError("InvalidAMIName.Malformed", words)
    base = instance["_image"]
    device = instance["RootDeviceName"]
    volume_id = next(
        one["Ebs"]["VolumeId"]
        for one in instance["BlockDeviceMappings"]
        if one["DeviceName"] == device
    )
    size = world.get("volume", volume_id)["Size"]
    snapshot = world.add(
        "snapshot",
        {
            "VolumeId": volume_id, "State": "pending", "VolumeSize": size, "Progress": "0%",
            "OwnerId": world.account, "StartTime": now(), "Encrypted": False,
            "Description": f"Created by CreateImage({instance['InstanceId']})",
        },
        of_snapshot,
    )  # fmt: skip
    ebs = {"SnapshotId": snapshot["SnapshotId"], "VolumeSize": size, "VolumeType": "gp3"}
    ebs |= {"DeleteOnTermination": True, "Encrypted": False}
    image = world.add(
        "image",
        {
            **{key: base[key] for key in _INHERITED},
            "Name": name, "Description": params.get("Description", ""), "State": "pending",
            "_login": login_of(base),
            "OwnerId": world.account, "Public": False, "SourceInstanceId": instance["InstanceId"],
            "CreationDate": f"{now():%Y-%m-%dT%H:%M:%S.000Z}",
            "ImageLocation": f"{world.account}/{name}",
            "BlockDeviceMappings": [{"DeviceName": device, "Ebs": ebs}],
        },
        tags,
    )  # fmt: skip
    finished = partial(_made, image, snapshot)
    if world.aws.hosts is None:
        image["_due"] = (time.monotonic() + world.aws.image_time, finished)
    else:
        world.aws.keep_image(world, instance, image, finished)
    return {"ImageId": image["ImageId"]}


@action("DeregisterImage")
def deregister_image(world: World, params: Params) -> Thing:
    id_ = params["ImageId"]
    one = find_image(world, id_)
    if one["OwnerId"] != world.account:
        raise AwsError("AuthFailure", f"Not authorized for image:{id_}", 403)
    del world.things["image"][id_]
    if params.get("DeleteAssociatedSnapshots"):
        for mapping in one["BlockDeviceMappings"]:
            world.things["snapshot"].pop(mapping["Ebs"]["SnapshotId"], None)
    return {"Return": True}


@action("DescribeSnapshots")
def snapshots(world: World, params: Params) -> Thing:
    owners = params.get("OwnerIds") or ["self"]
    among = world.all("snapshot") if {"self", world.account} & set(owners) else []
    found, more = page(params, world.describe("snapshot", params, "SnapshotIds", among), 1000)
    return {"Snapshots": found, "NextToken": more}


@action("DeleteSnapshot")
def delete_snapshot(world: World, params: Params) -> Thing:
    id_ = params["SnapshotId"]
    world.get("snapshot", id_)
    for one in world.all("image"):
        if any(mapping["Ebs"]["SnapshotId"] == id_ for mapping in one["BlockDeviceMappings"]):
            words = f"The snapshot {id_} is currently in use by {one['ImageId']}"
            raise AwsError("InvalidSnapshot.InUse", words)
    del world.things["snapshot"][id_]
    return {}


_INHERITED = (
    "Architecture", "RootDeviceName", "RootDeviceType", "VirtualizationType", "Hypervisor",
    "ImageType", "EnaSupport", "PlatformDetails",
)  # fmt: skip


def _made(image: Thing, snapshot: Thing) -> None:
    image["State"] = "available"
    snapshot |= {"State": "completed", "Progress": "100%"}


def _public(world: World) -> list[Thing]:
    return [one.image(world.region) for one in catalogue.offered()]
