"""What AWS answers, as clusterkit's nouns. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from clusterkit.cluster.cloud import api
from clusterkit.cluster.cloud.api import Image, Instance, InstanceState, MachineType

_STATES: Mapping[str, InstanceState] = {
    "pending": "pending",
    "running": "running",
    "stopping": "stopping",
    "stopped": "stopped",
    "shutting-down": "ending",
    "terminated": "ended",
}
#: Codes of a StateReason that say that AWS took a spot machine away:
#: docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html
_TAKEN = ("Server.SpotInstanceTermination", "Server.SpotInstanceShutdown")


def tags(labels: Mapping[str, str]) -> list[dict[str, str]]:
    """Labels as AWS wants them."""
    return [{"Key": key, "Value": value} for key, value in sorted(labels.items())]


def tagged(kind: str, labels: Mapping[str, str]) -> dict[str, object]:
    """A TagSpecification: the label is there from the call that creates the thing."""
    return {"ResourceType": kind, "Tags": tags(labels)}


def labels(found: Iterable[Mapping[str, str]] | None) -> dict[str, str]:
    """Tags as clusterkit's labels."""
    return {one["Key"]: one["Value"] for one in found or ()}


def carrying(cluster_id: str | None) -> list[dict[str, object]]:
    """The filter for what carries a cluster's id, or (None) any cluster's."""
    if cluster_id is None:
        return [{"Name": "tag-key", "Values": ["clusterkit-id"]}]
    return [{"Name": "tag:clusterkit-id", "Values": [cluster_id]}]


def instances(reservations: Iterable[Mapping[str, Any]]) -> list[Instance]:
    return [instance(one) for some in reservations for one in some.get("Instances") or ()]


def instance(said: Mapping[str, Any]) -> Instance:
    # A state that AWS may invent one day is alive: better waited for than made twice.
    state = _STATES.get(str((said.get("State") or {}).get("Name", "")), "pending")
    reason = said.get("StateReason") or {}
    code = str(reason.get("Code", ""))
    told = str(said.get("StateTransitionReason") or "")
    why = ""
    if state in ("ending", "ended"):
        why = str(reason.get("Message") or told)
    spot = said.get("InstanceLifecycle") == "spot"
    marks = labels(said.get("Tags"))
    disk = marks.get(api.DISK, "")
    return Instance(
        id=said["InstanceId"],
        type=str(said.get("InstanceType", "")),
        zone=str((said.get("Placement") or {}).get("AvailabilityZone", "")),
        market="spot" if spot else "on-demand",
        state=state,
        private=str(said.get("PrivateIpAddress") or ""),
        public=str(said.get("PublicIpAddress") or ""),
        labels=marks,
        index=int(said.get("AmiLaunchIndex") or 0),
        began=said.get("LaunchTime"),
        image=str(said.get("ImageId", "")),
        why=why,
        taken=spot and (code in _TAKEN or told.startswith(_TAKEN)),
        disk=int(disk) if disk.isascii() and disk.isdigit() else 0,  # people may change tags
    )


def machine_type(said: Mapping[str, Any], zones: Iterable[str]) -> MachineType:
    archs = (said.get("ProcessorInfo") or {}).get("SupportedArchitectures") or ()
    gpus = (said.get("GpuInfo") or {}).get("Gpus") or ()
    model = f"{gpus[0].get('Manufacturer', '')} {gpus[0].get('Name', '')}".strip() if gpus else ""
    return MachineType(
        name=said["InstanceType"],
        cpus=int((said.get("VCpuInfo") or {}).get("DefaultVCpus") or 0),
        memory=int((said.get("MemoryInfo") or {}).get("SizeInMiB") or 0),
        arch=next((one for one in archs if one in ("x86_64", "arm64")), "x86_64"),
        gpus=sum(int(one.get("Count") or 0) for one in gpus),
        gpu=model,
        zones=tuple(sorted(zones)),
    )


def root(said: Mapping[str, Any]) -> dict[str, Any]:
    """The disk of an image that its system is on, as AWS describes it; {} where it tells none."""
    name = said.get("RootDeviceName")
    return next(
        (dict(one) for one in said.get("BlockDeviceMappings") or ()
         if one.get("DeviceName") == name and one.get("Ebs")), {}
    )  # fmt: skip


def image(said: Mapping[str, Any], name: str, login: str) -> Image:
    found = labels(said.get("Tags"))
    disk = root(said).get("Ebs") or {}
    return Image(
        id=said["ImageId"],
        name=name,
        arch=str(said.get("Architecture", "x86_64")).removesuffix("_mac"),
        login=login,
        disk=int(disk.get("VolumeSize") or 8),
        made=time(said.get("CreationDate")),
        digest=found.get(api.DIGEST, ""),
        labels=found,
        state=str(said.get("State", "available")),
        words=str((said.get("StateReason") or {}).get("Message") or ""),
    )


def time(said: object) -> datetime | None:
    """A time as AWS's answers have it: parsed already, or "2026-11-05T09:12:44.000Z"."""
    if isinstance(said, datetime):
        return said if said.tzinfo is not None else said.replace(tzinfo=UTC)
    try:
        found = datetime.fromisoformat(str(said))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
