"""A machine that is asked for: everything that Google refuses before it looks for room is refused
here; then whether there is room, and the machine itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from doubles.gce import catalogue, network, offers, operations
from doubles.gce.storage import find_image, make_disk
from doubles.gce.wire import GoogleError
from doubles.gce.world import (
    Thing,
    World,
    checked_labels,
    fingerprint,
    last,
    stamp,
)

_NAME = r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"
#: What is kept of a request as it is.
_KEPT = (
    "description", "canIpForward", "serviceAccounts", "shieldedInstanceConfig", "hostname",
    "advancedMachineFeatures", "deletionProtection", "minCpuPlatform", "displayDevice",
)  # fmt: skip


class Plan:
    """A machine that is checked, for one zone. `bulk`: types are names there, else URLs."""

    def __init__(self, world: World, zone: str, said: Mapping[str, Any], bulk: bool) -> None:
        self.world, self.zone, self.said, self.bulk = world, zone, said, bulk
        self.region = catalogue.region_of(zone)
        self.scope = f"zones/{zone}"
        name = self._named("machineType", said.get("machineType", ""), "machineTypes")
        if not offers.has(world, name, zone):
            words = f"Invalid value for field 'resource.machineType': '{said.get('machineType')}'."
            raise GoogleError(400, f"{words} Machine type with name '{name}' does not exist in "
                              f"zone '{zone}'.")  # fmt: skip
        self.type = catalogue.TYPES[name]
        self._gpus()
        self._scheduling()
        self.labels = checked_labels(said.get("labels"))
        self._tags()
        self._metadata()
        self._network()
        self.policies = [
            network.policy(world, self.region, one) for one in said.get("resourcePolicies", ())
        ]
        if self.policies and self.scheduling["automaticRestart"]:
            raise _wrong("scheduling.automaticRestart", "", "It must be false with a placement "
                         "policy.")  # fmt: skip
        if self.policies and self.type.family in ("e2", "n1", "n4", "c4a", "t2a", "t2d"):
            raise _wrong("resourcePolicies", self.type.family, "Placement policies are not "
                         "supported for this machine type.")  # fmt: skip
        self.disks = [self._disk(number, one) for number, one in enumerate(said.get("disks", ()))]
        if not self.disks or not self.disks[0]["boot"]:
            raise _wrong("disks", "", "Boot disk must be specified.")
        self.needs = offers.needs(
            world, self.region, self.type, self.gpu, self.gpus, self.market == "spot"
        )
        if self.public:
            self.needs["IN_USE_ADDRESSES"] = 1

    @property
    def key(self) -> str:
        """As `Gce.capacity` names it: "n1-standard-8+nvidia-tesla-t4:1"."""
        attached = self.gpu and not self.type.gpus
        return f"{self.type.name}+{self.gpu}:{self.gpus}" if attached else self.type.name

    def room(self, count: int, least: int) -> tuple[int, list[Thing]]:
        """How many machines there are now, or why there are too few."""
        gce = self.world.gce
        wanted = {**self.needs}
        for one in self.disks:
            if "image" in one:
                metric = offers.disk_quota(one["type"])
                wanted[metric] = wanted.get(metric, 0) + one["size"]
        over = offers.exceeded(self.world, self.region, wanted, count)
        if over is not None:
            return 0, [operations.over_quota(*over)]
        free = gce.free(self.key, self.zone, self.market)
        if free is None or free >= count:
            return count, []
        if free >= least:
            return free, []
        return 0, [operations.stockout(self.world, self.zone, self.key)]

    def make(self, name: str) -> Thing:
        """The machine, and its disks. Raises GoogleError where a name is taken."""
        world, scope, said = self.world, self.scope, self.said
        world.free_name("instances", scope, name)
        for one in self.disks:
            if "image" in one:
                world.free_name("disks", scope, one["name"] or name)
        link = world.link("instances", scope, name)
        nic: Thing = {
            "kind": "compute#networkInterface", "name": "nic0", "network": self.subnet["network"],
            "subnetwork": self.subnet["selfLink"], "stackType": "IPV4_ONLY",
            "networkIP": world.private_address(self.subnet), "fingerprint": fingerprint(name),
        }  # fmt: skip
        if self.public:
            nic["accessConfigs"] = [access(world)]
        tags = {"fingerprint": fingerprint(self.tags)} | ({"items": self.tags} if self.tags else {})
        made: Thing = {
            "name": name, "status": "PROVISIONING", "cpuPlatform": "Intel Broadwell",
            "machineType": world.link("machineTypes", scope, self.type.name), "tags": tags,
            "networkInterfaces": [nic], "scheduling": self.scheduling, "startRestricted": False,
            "disks": [self._attached(number, one, name, link)
                      for number, one in enumerate(self.disks)],
            "metadata": metadata(self.metadata), "labelFingerprint": fingerprint(self.labels),
            "lastStartTimestamp": stamp(), "fingerprint": fingerprint(link),
            "deletionProtection": False, "canIpForward": False,
            **{key: said[key] for key in _KEPT if key in said},
            "_key": self.key, "_market": self.market, "_region": self.region, "_needs": self.needs,
            "_public": self.public, "_ending": False, "_gpus": (self.gpu, self.gpus),
            "_image": self._image(),
        }  # fmt: skip
        if self.labels:
            made["labels"] = self.labels
        if self.policies:
            made["resourcePolicies"] = self.policies
        if self.gpu:
            type_ = world.link("acceleratorTypes", scope, self.gpu)
            made["guestAccelerators"] = [{"acceleratorType": type_, "acceleratorCount": self.gpus}]
        return world.add("instances", scope, made)

    def _image(self) -> Thing:
        """What it boots from: an image, or that of the disk."""
        first = self.disks[0]
        return dict(first.get("image") or find_image(self.world, first["disk"]["sourceImage"]))

    # -- its parts

    def _named(self, field: str, value: str, collection: str) -> str:
        """The name of a type. Google wants URLs of a single machine, and names of many."""
        where = f"resource.{'instanceProperties.' if self.bulk else ''}{field}"
        match = re.fullmatch(
            rf"(?:https?://[^/]+/compute/[a-z0-9]+/|/)?(?:projects/[^/]+/)?zones/([^/]+)/"
            rf"{collection}/([^/]+)",
            value,
        )
        if not value or "/" in value if self.bulk else match is None:
            why = "It must be a name." if self.bulk else "The URL is malformed."
            raise GoogleError(400, f"Invalid value for field '{where}': '{value}'. {why}")
        if match is None:
            return value
        if match[1] != self.zone:
            words = f"Invalid value for field '{where}': '{value}'. It is in another zone."
            raise GoogleError(400, words)
        return match[2]

    def _gpus(self) -> None:
        type_, world = self.type, self.world
        self.gpu, self.gpus = type_.gpu, type_.gpus
        said = self.said.get("guestAccelerators") or []
        for one in said:
            count = one.get("acceleratorCount", 0)
            field = "guestAccelerators[0].acceleratorType"
            name = self._named(field, one.get("acceleratorType", ""), "acceleratorTypes")
            known = catalogue.GPUS.get(name)
            if (
                known is None
                or self.zone not in known.zones
                or (name, self.zone) in world.gce.lacks
            ):
                raise world.unknown("acceleratorTypes", self.scope, name)
            if type_.gpu and (name, count) == (type_.gpu, type_.gpus) and len(said) == 1:
                continue
            if type_.family != "n1" or not known.counts or len(said) > 1 or type_.shared:
                raise _wrong("guestAccelerators", name, "[" + name + "] features are not "
                             f"compatible with machine type {type_.name}.")  # fmt: skip
            if count not in known.counts:
                raise _wrong("guestAccelerators[0].acceleratorCount", count,
                             f"Must be one of {known.counts}.")  # fmt: skip
            self.gpu, self.gpus = name, count

    def _scheduling(self) -> None:
        said: Thing = {**self.said.get("scheduling", {})}
        spot = said.get("provisioningModel") == "SPOT" or bool(said.get("preemptible"))
        self.market = "spot" if spot else "on-demand"
        limited = "maxRunDuration" in said
        made: Thing = {
            "onHostMaintenance": "TERMINATE" if spot else "MIGRATE", "automaticRestart": not spot,
            "preemptible": spot, "provisioningModel": "SPOT" if spot else "STANDARD",
        }  # fmt: skip
        made |= said
        if spot:
            made["preemptible"] = True
            made.setdefault("instanceTerminationAction", "STOP")
        if spot and made["automaticRestart"]:
            raise _wrong("scheduling", "", "Scheduling must have automaticRestart be false when "
                         "preemptible is true.")  # fmt: skip
        if spot and made["onHostMaintenance"] != "TERMINATE":
            raise _wrong("scheduling", "", "Scheduling must have onHostMaintenance be TERMINATE "
                         "when preemptible is true.")  # fmt: skip
        if self.gpu and made["onHostMaintenance"] != "TERMINATE":
            raise GoogleError(400, "Instances with guest accelerators do not support live "
                              "migration.")  # fmt: skip
        if self.type.family == "e2" and not spot and made["onHostMaintenance"] != "MIGRATE":
            raise GoogleError(400, "e2 instances do not support onHostMaintenance=TERMINATE unless "
                              "they are preemptible.", "badRequest")  # fmt: skip
        if "instanceTerminationAction" in said and not spot and not limited:
            raise _wrong("scheduling.instanceTerminationAction", "", "It needs provisioning model "
                         "SPOT, or maxRunDuration.")  # fmt: skip
        if limited:
            seconds = int(said["maxRunDuration"].get("seconds", 0))
            if not 30 <= seconds <= 120 * 86400 or "instanceTerminationAction" not in said:
                raise _wrong("scheduling.maxRunDuration", seconds, "It must be from 30 seconds to "
                             "120 days, and needs instanceTerminationAction.")  # fmt: skip
            if made["automaticRestart"]:
                raise _wrong("scheduling.automaticRestart", "", "It must be false with "
                             "maxRunDuration.")  # fmt: skip
        self.scheduling = made

    def _tags(self) -> None:
        self.tags = list(self.said.get("tags", {}).get("items", ()))
        for tag in self.tags:
            if not re.fullmatch(_NAME, tag):
                raise _wrong("tags.items", tag, f"Must be a match of regex '{_NAME}'")

    def _metadata(self) -> None:
        self.metadata = checked_metadata(self.said.get("metadata", {}))

    def _network(self) -> None:
        nics = self.said.get("networkInterfaces") or []
        if len(nics) != 1:
            raise _wrong("networkInterfaces", "", "At least one network interface is required; the "
                         "double knows just one.")  # fmt: skip
        nic, world = nics[0], self.world
        self.public = bool(nic.get("accessConfigs"))
        net = last(nic.get("network", "default"))
        world.get("networks", "global", net)
        name = last(nic.get("subnetwork", net))
        self.subnet = world.get("subnetworks", f"regions/{self.region}", name)

    def _disk(self, number: int, said: Mapping[str, Any]) -> Thing:
        """How a disk is to be: `image`, `size`, `type`, `name`; or the `disk` that there is."""
        made: Thing = {
            "boot": bool(said.get("boot")), "auto": bool(said.get("autoDelete")),
            "device": said.get("deviceName") or f"persistent-disk-{number}",
        }  # fmt: skip
        if "source" in said:
            disk = self.world.linked(said["source"], "disks")
            if disk["users"] or disk["_scope"] != self.scope:
                raise GoogleError(
                    400,
                    f"The disk resource '{said['source']}' is already being used"
                    " or in another zone.",
                    "resourceInUseByAnotherResource",
                )
            return {**made, "disk": disk}
        params = said.get("initializeParams", {})
        image = find_image(self.world, params.get("sourceImage", ""))
        if image["architecture"] != self.type.arch:
            raise _wrong("disks[0].initializeParams.sourceImage", image["name"], "The architecture "
                         f"does not match that of machine type {self.type.name}.")  # fmt: skip
        if image["status"] != "READY":
            path = self.world.path("images", "global", image["name"])
            raise GoogleError(400, f"The resource '{path}' is not ready", "resourceNotReady")
        sizes = {int(one["diskSizeGb"]) for one in (said, params) if "diskSizeGb" in one}
        size = sizes.pop() if sizes else int(image["diskSizeGb"])
        if size < int(image["diskSizeGb"]):
            raise _wrong(
                f"disks[{number}].initializeParams.diskSizeGb",
                size,
                "Requested disk size"
                f" cannot be smaller than the image size ({image['diskSizeGb']} GB)",
            )
        field, default = f"disks[{number}].initializeParams.diskType", "pd-standard"
        type_ = default
        if "diskType" in params:
            type_ = self._named(field, params["diskType"], "diskTypes")
        elif self.type.family in catalogue.NO_STANDARD_DISKS:
            type_ = "pd-balanced"
        if type_ not in catalogue.DISK_TYPES:
            raise self.world.unknown("diskTypes", self.scope, type_)
        strange = type_ == default and self.type.family in catalogue.NO_STANDARD_DISKS
        if strange or (type_.startswith("hyperdisk-") and self.type.family in ("e2", "n1")):
            raise GoogleError(400, f"[{type_}] features are not compatible for creating "
                              f"instance of {self.type.name}.", "badRequest")  # fmt: skip
        return {
            **made, "image": image, "size": size, "type": type_,
            "name": params.get("diskName", ""), "labels": checked_labels(params.get("labels")),
        }  # fmt: skip

    def _attached(self, number: int, one: Thing, name: str, link: str) -> Thing:
        """The disk made, and how the machine shows it."""
        disk = one.get("disk")
        if disk is None:
            said = {
                "name": one["name"] or (name if not number else f"{name}-{number}"),
                "sizeGb": str(one["size"]), "labels": one["labels"],
                "type": self.world.link("diskTypes", self.scope, one["type"]),
            }  # fmt: skip
            disk = make_disk(self.world, self.scope, said, one["image"])
        disk |= {"users": [link], "lastAttachTimestamp": stamp()}
        return {
            "kind": "compute#attachedDisk", "type": "PERSISTENT", "mode": "READ_WRITE",
            "source": disk["selfLink"], "deviceName": one["device"], "index": number,
            "boot": one["boot"], "autoDelete": one["auto"], "interface": "SCSI",
            "diskSizeGb": disk["sizeGb"], "architecture": disk["architecture"],
            **{key: disk[key] for key in ("licenses", "guestOsFeatures") if key in disk},
        }  # fmt: skip


def access(world: World) -> Thing:
    """A public address, of those that lead nowhere."""
    return {
        "kind": "compute#accessConfig", "type": "ONE_TO_ONE_NAT", "name": "External NAT",
        "natIP": world.public_address(), "networkTier": "PREMIUM",
    }  # fmt: skip


def checked_metadata(said: Mapping[str, Any]) -> list[Thing]:
    """The items. Raises GoogleError (cloud.google.com/compute/docs/metadata: limitations)."""
    items = [dict(one) for one in said.get("items") or ()]
    keys = [one.get("key", "") for one in items]
    for key in keys:
        if keys.count(key) > 1:
            raise _wrong("metadata", key, f"metadata has duplicate key '{key}'.")
    sizes = [len(one.get("value", "").encode()) for one in items]
    if any(one > 262144 for one in sizes) or sum(sizes) > 524288:
        raise _wrong("metadata.items", "", "metadata size exceeds the maximum allowed size: 262144 "
                     "bytes of one value, 524288 of all.")  # fmt: skip
    return items


def metadata(items: list[Thing]) -> Thing:
    return {"kind": "compute#metadata", "fingerprint": fingerprint(items), "items": items}


def _wrong(field: str, value: Any, words: str) -> GoogleError:
    return GoogleError(400, f"Invalid value for field 'resource.{field}': '{value}'. {words}")
