"""Machines: launched, described, stopped, started, ended, taken away; and their spot requests."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import secrets
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from doubles.aws import catalogue
from doubles.aws.network import interface
from doubles.aws.storage import find_image, login_of
from doubles.aws.wire import AwsError
from doubles.aws.world import (
    Params,
    Thing,
    World,
    action,
    checked_tags,
    now,
    page,
    stamp,
    tags_of,
    unknown,
)

_CODES = {
    "pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64,
    "stopped": 80,
}  # fmt: skip
_TAGGABLE = ("instance", "volume", "network-interface", "spot-instances-request", "elastic-gpu")
_BY_USER = "Client.UserInitiatedShutdown: User initiated shutdown"
_BY_ITSELF = "Client.InstanceInitiatedShutdown: Instance initiated shutdown"
_TAKEN = "Server.SpotInstanceTermination: Spot instance termination"


# -- launching -------------------------------------------------------------------------------------


@action("RunInstances")
def run_instances(world: World, params: Params) -> Thing:
    world.settle()
    token = params.get("ClientToken", "")
    asked = {key: value for key, value in params.items() if key not in ("ClientToken", "_action")}
    if len(token) > 64:
        raise AwsError("InvalidParameterValue", "clientToken is longer than 64 characters")
    if token in world.tokens:
        before, reservation = world.tokens[token]
        if before != asked:
            raise AwsError(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in "
                "previous request(s).",
            )
        again = [one for one in world.all("instance") if one["_reservation"] == reservation]
        if all(one["State"]["Name"] == "terminated" for one in again):
            raise AwsError(
                "IdempotentInstanceTerminated",
                "The request to launch an instance uses the same client token as a previous "
                "request for which the instance has been terminated.",
            )
        return _reservation(world, reservation, again)
    plan = _Plan(world, params)
    if params.get("DryRun"):
        raise AwsError("DryRunOperation", DRY_RUN, 412)
    count = plan.granted()
    reservation = f"r-{secrets.token_hex(9)[:17]}"
    made = [plan.make(reservation, index) for index in range(count)]
    if token:
        world.tokens[token] = (asked, reservation)
    for one in made:
        world.aws.boot(world, one)
    return _reservation(world, reservation, made)


DRY_RUN = "Request would have succeeded, but DryRun flag is set."


class _Plan:
    """A launch that is checked: everything AWS refuses before it looks for room is refused here."""

    def __init__(self, world: World, params: Params) -> None:
        self.world, self.params = world, params
        self.least, self.most = params["MinCount"], params["MaxCount"]
        if not 1 <= self.least <= self.most:
            words = f"Invalid value '{self.least}' for min/maxCount. The maximum is {self.most}."
            raise AwsError("InvalidParameterValue", words)
        market = params.get("InstanceMarketOptions") or {}
        self.spot = market.get("MarketType") == "spot"
        self.market = "spot" if self.spot else "on-demand"
        self.spot_options = market.get("SpotOptions") or {}
        self.tags = {kind: tags_of(params, kind, *_TAGGABLE) for kind in _TAGGABLE}
        for tags in self.tags.values():
            checked_tags(tags)
        if self.tags["spot-instances-request"] and not self.spot:
            raise AwsError(
                "InvalidParameterValue",
                "You cannot specify tags for Spot instances requests if there are no Spot "
                "instances requests being created by the request.",
            )
        self.image = find_image(world, params.get("ImageId") or "")
        if self.image["State"] != "available":
            words = f"The image ID '{self.image['ImageId']}' is not available"
            raise AwsError("InvalidAMIID.Unavailable", words)
        self.type: str = params.get("InstanceType") or "m1.small"
        self.cpus = _type(world, self.type, self.image["Architecture"])
        self.user_data = _user_data(params.get("UserData") or "")
        self._network()
        self._key()
        self._spot()
        self._placement()
        self.disks = self._disks()

    def granted(self) -> int:
        """How many machines there are. Raises AwsError in AWS's words when they are too few."""
        aws, zone = self.world.aws, self.zone
        offering = {"instance-type": [self.type]}
        offered = self.world.moto.describe_instance_type_offerings("availability-zone", offering)
        zones = {
            one["Location"] for one in offered if (self.type, one["Location"]) not in aws.lacks
        }
        if zone not in zones:
            raise AwsError(
                "Unsupported",
                f"Your requested instance type ({self.type}) is not supported in your requested "
                f"Availability Zone ({zone}). Please retry your request by not specifying an "
                f"Availability Zone or choosing {', '.join(sorted(zones))}.",
            )
        self._quota()
        free = aws.free(self.type, zone, self.market)
        if free is None or free >= self.most:
            return int(self.most)
        if free >= self.least:
            return int(free)
        others = [
            one
            for one in sorted(zones - {zone})
            if (aws.free(self.type, one, self.market) or self.least) >= self.least
            and aws.free(self.type, one, self.market) != 0
        ]
        if self.spot:
            words = "There is no Spot capacity available that matches your request."
        else:
            words = (
                f"We currently do not have sufficient {self.type} capacity in the Availability "
                f"Zone you requested ({zone}). Our system will be working on provisioning "
                "additional capacity."
            )
            if others:
                words += (
                    f" You can currently get {self.type} capacity by not specifying an "
                    f"Availability Zone in your request or choosing {', '.join(others)}."
                )
        raise AwsError("InsufficientInstanceCapacity", words, 500)

    def make(self, reservation: str, index: int) -> Thing:
        """One machine, pending, with its disks, its interface and its spot request."""
        world = self.world
        nic = interface(world, self.subnet, self.groups, self.tags["network-interface"])
        public = world.public_address() if self.public else ""
        private = nic["PrivateIpAddress"]
        options = {"HttpTokens": "optional", "HttpPutResponseHopLimit": 1, "State": "applied"}
        options |= {"HttpEndpoint": "enabled", "InstanceMetadataTags": "disabled"}
        options |= self.params.get("MetadataOptions") or {}
        placement = {"AvailabilityZone": self.zone, "Tenancy": "default"}
        placement["GroupName"] = self.group_name
        image = self.image
        made: Thing = {
            "ImageId": image["ImageId"], "InstanceType": self.type, "AmiLaunchIndex": index,
            "LaunchTime": now(), "Placement": placement, "Monitoring": {"State": "disabled"},
            "SubnetId": self.subnet["SubnetId"], "VpcId": self.subnet["VpcId"],
            "PrivateIpAddress": private, "PrivateDnsName": _dns(world, private),
            "Architecture": image["Architecture"], "RootDeviceType": "ebs", "Hypervisor": "xen",
            "RootDeviceName": image["RootDeviceName"], "VirtualizationType": "hvm",
            "ClientToken": self.params.get("ClientToken", ""), "EbsOptimized": False,
            "EnaSupport": True, "SourceDestCheck": True, "MetadataOptions": options,
            "SecurityGroups": nic["Groups"], "StateTransitionReason": "",
            "_reservation": reservation, "_owner": world.account, "_image": image,
            "_user_data": self.user_data, "_cpus": self.cpus, "_public": self.public,
            "_login": login_of(image),
            "_shutdown": self.params.get("InstanceInitiatedShutdownBehavior", "stop"),
        }  # fmt: skip
        if self.key_name:
            made["KeyName"] = self.key_name
        instance = world.add("instance", made, self.tags["instance"])
        id_ = instance["InstanceId"]
        _state(instance, "pending")
        attached = {
            "AttachmentId": f"eni-attach-{secrets.token_hex(9)[:17]}", "InstanceId": id_,
            "DeviceIndex": 0, "Status": "attached", "DeleteOnTermination": True,
            "AttachTime": now(), "InstanceOwnerId": world.account,
        }  # fmt: skip
        nic |= {"Status": "in-use", "Attachment": attached}
        instance["NetworkInterfaces"] = [nic]
        instance["BlockDeviceMappings"] = [
            self._disk(id_, device, said) for device, said in self.disks.items()
        ]
        if self.spot:
            self._request(instance)
        _addressed(world, instance, public)
        world.aws.taken(self.type, self.zone, self.market, 1)
        return instance

    # -- its parts

    def _network(self) -> None:
        params, world = self.params, self.world
        nics = params.get("NetworkInterfaces") or ()
        wish = (params.get("Placement") or {}).get("AvailabilityZone")
        if nics and (params.get("SubnetId") or params.get("SecurityGroupIds")):
            raise AwsError(
                "InvalidParameterCombination",
                "Network interfaces and an instance-level subnet ID or security groups may not be "
                "specified on the same request",
            )
        said = nics[0] if nics else params
        subnet = said.get("SubnetId")
        if subnet is None:
            zone = wish or world.zones()[0]
            subnet = next(
                (
                    one["SubnetId"]
                    for one in world.all("subnet")
                    if one["AvailabilityZone"] == zone and one["DefaultForAz"]
                ),
                None,
            )
            if subnet is None:
                words = f"Invalid availability zone: [{zone}]"
                raise AwsError("InvalidParameterValue", words)
        self.subnet = world.get("subnet", subnet)
        self.zone: str = self.subnet["AvailabilityZone"]
        if wish and wish != self.zone:
            words = f"The availability zone {wish} does not match the subnet {subnet}"
            raise AwsError("InvalidParameterValue", words)
        ids = (said.get("Groups") if nics else params.get("SecurityGroupIds")) or ()
        self.groups = [world.get("security-group", id_) for id_ in ids]
        for name in params.get("SecurityGroups") or ():
            named = [one for one in world.all("security-group") if one["GroupName"] == name]
            if not named:
                raise unknown("security-group", [name], by_name=True)
            self.groups += named
        if not self.groups:
            self.groups = [
                one for one in world.all("security-group") if one["GroupName"] == "default"
            ]
        self.public = bool(said.get("AssociatePublicIpAddress", self.subnet["MapPublicIpOnLaunch"]))

    def _key(self) -> None:
        self.key_name = self.params.get("KeyName", "")
        names = {one["KeyName"] for one in self.world.all("key-pair")}
        if self.key_name and self.key_name not in names:
            raise unknown("key-pair", [self.key_name], by_name=True)

    def _spot(self) -> None:
        options, params = self.spot_options, self.params
        if not self.spot:
            return
        kind = options.get("SpotInstanceType", "one-time")
        behaviour = options.get("InstanceInterruptionBehavior", "terminate")
        if kind == "one-time" and behaviour != "terminate":
            words = (
                "The request with type 'one-time' is not supported when "
                f"instanceInterruptionBehavior is set to '{behaviour}'."
            )
            raise AwsError("InvalidParameterCombination", words)
        if kind == "one-time" and "ValidUntil" in options:
            words = (
                "The parameter validUntil cannot be specified when the SpotRequestType is set to "
                "'one-time'."
            )
            raise AwsError("InvalidParameterCombination", words)
        if params.get("InstanceInitiatedShutdownBehavior") == "stop":
            words = "instanceInitiatedShutdownBehavior=stop is not supported for spot instances."
            raise AwsError("InvalidParameterCombination", words)
        price = self.world.aws.spot_price(self.type, self.zone)
        if options.get("MaxPrice") and price and float(options["MaxPrice"]) < price:
            raise AwsError(
                "SpotMaxPriceTooLow",
                f"Your Spot request price of {options['MaxPrice']} is lower than the minimum "
                f"required Spot request fulfillment price of {price}.",
            )

    def _placement(self) -> None:
        self.group_name = (self.params.get("Placement") or {}).get("GroupName", "")
        if not self.group_name:
            return
        known = [
            one for one in self.world.all("placement-group") if one["GroupName"] == self.group_name
        ]
        if not known:
            raise unknown("placement-group", [self.group_name])
        if self.type.startswith("t") and known[0]["Strategy"] == "cluster":
            raise AwsError(
                "InvalidParameterCombination",
                f"Cluster placement groups are not supported by the '{self.type}' instance type. "
                "Specify a supported instance type or change the placement group strategy, and "
                "try again.",
            )

    def _disks(self) -> dict[str, dict[str, Any]]:
        """Device -> its EBS settings: the image's, with the request's laid over them."""
        disks = {one["DeviceName"]: dict(one["Ebs"]) for one in self.image["BlockDeviceMappings"]}
        for one in self.params.get("BlockDeviceMappings") or ():
            device, said = one.get("DeviceName", ""), one.get("Ebs") or {}
            before = disks.get(device, {"DeleteOnTermination": False, "VolumeType": "gp2"})
            size, least = said.get("VolumeSize"), before.get("VolumeSize", 1)
            if size is not None and size < least:
                words = (
                    f"Volume of size {size}GB is smaller than snapshot "
                    f"'{before.get('SnapshotId')}', expect size >= {least}GB"
                )
                raise AwsError("InvalidBlockDeviceMapping", words)
            disks[device] = {**before, **said}
        return disks

    def _quota(self) -> None:
        code = catalogue.quota_code(self.type, self.spot)
        limit = self.world.aws.quotas.get(code)
        if limit is None:
            return
        used = sum(
            one["_cpus"]
            for one in self.world.all("instance")
            if one["State"]["Name"] in ("pending", "running")
            and (one.get("InstanceLifecycle") == "spot") == self.spot
            and catalogue.quota_code(one["InstanceType"], self.spot) == code
        )
        if used + self.most * self.cpus <= limit:
            return
        if self.spot:
            raise AwsError("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        raise AwsError(
            "VcpuLimitExceeded",
            "You have requested more vCPU capacity than your current vCPU limit of "
            f"{limit:g} allows for the instance bucket that the specified instance type belongs "
            "to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an "
            "adjustment to this limit.",
        )

    def _disk(self, id_: str, device: str, said: Mapping[str, Any]) -> Thing:
        keep = {"DeleteOnTermination": bool(said.get("DeleteOnTermination"))}
        made = {
            "Size": said.get("VolumeSize", 8), "SnapshotId": said.get("SnapshotId", ""),
            "AvailabilityZone": self.zone, "State": "in-use", "CreateTime": now(),
            "VolumeType": said.get("VolumeType", "gp2"),
            "Encrypted": bool(said.get("Encrypted")), "_instance": id_,
        }  # fmt: skip
        if made["VolumeType"] == "gp3":
            made |= {"Iops": said.get("Iops", 3000), "Throughput": said.get("Throughput", 125)}
        volume = self.world.add("volume", made, self.tags["volume"])
        shown = {"VolumeId": volume["VolumeId"], "AttachTime": now(), **keep}
        attached = {**shown, "InstanceId": id_, "Device": device, "State": "attached"}
        volume["Attachments"] = [attached]
        return {"DeviceName": device, "Ebs": {**shown, "Status": "attached"}}

    def _request(self, instance: Thing) -> None:
        status = {
            "Code": "fulfilled", "Message": "Your spot request is fulfilled.", "UpdateTime": now(),
        }  # fmt: skip
        spec = {key: instance[key] for key in ("ImageId", "InstanceType", "SubnetId")}
        made = {
            "CreateTime": now(), "InstanceId": instance["InstanceId"], "State": "active",
            "Status": status, "Type": self.spot_options.get("SpotInstanceType", "one-time"),
            "InstanceInterruptionBehavior": "terminate", "ProductDescription": "Linux/UNIX",
            "LaunchedAvailabilityZone": self.zone, "LaunchSpecification": spec,
            "SpotPrice": str(self.spot_options.get("MaxPrice", "")),
        }  # fmt: skip
        request = self.world.add(
            "spot-instances-request", made, self.tags["spot-instances-request"]
        )
        instance["InstanceLifecycle"] = "spot"
        instance["SpotInstanceRequestId"] = request["SpotInstanceRequestId"]


# -- describing ------------------------------------------------------------------------------------


@action("DescribeInstances")
def describe_instances(world: World, params: Params) -> Thing:
    if params.get("InstanceIds") and params.get("MaxResults"):
        words = "The parameter instancesSet cannot be used with the parameter maxResults"
        raise AwsError("InvalidParameterCombination", words)
    found, more = page(params, world.describe("instance", params, "InstanceIds"), 1000)
    grouped: dict[str, list[Thing]] = {}
    for one in found:
        grouped.setdefault(one["_reservation"], []).append(one)
    listed = [_reservation(world, *one) for one in grouped.items()]
    return {"Reservations": listed, "NextToken": more}


@action("DescribeInstanceStatus")
def describe_status(world: World, params: Params) -> Thing:
    found = world.describe("instance", params, "InstanceIds")
    if not params.get("IncludeAllInstances"):
        found = [one for one in found if one["State"]["Name"] == "running"]
    listed = []
    for one in found:
        word = "ok" if one["State"]["Name"] == "running" else "not-applicable"
        listed.append(
            {
                "InstanceId": one["InstanceId"],
                "AvailabilityZone": one["Placement"]["AvailabilityZone"],
                "InstanceState": one["State"],
                "InstanceStatus": {"Status": word},
                "SystemStatus": {"Status": word},
            }
        )
    return {"InstanceStatuses": listed}


@action("DescribeInstanceAttribute")
def describe_attribute(world: World, params: Params) -> Thing:
    one = world.get("instance", params["InstanceId"])
    values: dict[str, tuple[str, Any]] = {
        "userData": ("UserData", base64.b64encode(one["_user_data"]).decode()),
        "instanceInitiatedShutdownBehavior": (
            "InstanceInitiatedShutdownBehavior",
            one["_shutdown"],
        ),
        "instanceType": ("InstanceType", one["InstanceType"]),
    }
    if params["Attribute"] not in values:
        words = f"the double knows no attribute {params['Attribute']}"
        raise AwsError("InvalidParameterValue", words)
    key, value = values[params["Attribute"]]
    return {"InstanceId": one["InstanceId"], key: {"Value": value}}


@action("GetConsoleOutput")
def console_output(world: World, params: Params) -> Thing:
    one = world.get("instance", params["InstanceId"])
    said = world.aws.console(one["InstanceId"])
    encoded = base64.b64encode(said.encode()).decode()
    return {"InstanceId": one["InstanceId"], "Output": encoded, "Timestamp": now()}


# -- changing --------------------------------------------------------------------------------------


@action("StopInstances")
def stop_instances(world: World, params: Params) -> Thing:
    found = _named(world, params)
    for one in found:
        id_, name = one["InstanceId"], one["State"]["Name"]
        if one.get("InstanceLifecycle") == "spot":
            raise AwsError(
                "UnsupportedOperation",
                f"You can't stop the Spot Instance '{id_}' because it is associated with a "
                "one-time Spot Instance request. You can only stop Spot Instances associated with "
                "persistent Spot Instance requests.",
            )
        if name in ("shutting-down", "terminated", "pending"):
            words = f"This instance '{id_}' is not in a state from which it can be stopped."
            raise AwsError("IncorrectInstanceState", words)
    return {"StoppingInstances": [_change(one, _stop(world, one)) for one in found]}


@action("StartInstances")
def start_instances(world: World, params: Params) -> Thing:
    found = _named(world, params)
    for one in found:
        if one["State"]["Name"] not in ("stopped", "running", "pending"):
            id_ = one["InstanceId"]
            words = f"The instance '{id_}' is not in a state from which it can be started."
            raise AwsError("IncorrectInstanceState", words)
    for type_, zone in {_where(one) for one in found if one["State"]["Name"] == "stopped"}:
        needed = sum(
            _where(one) == (type_, zone) and one["State"]["Name"] == "stopped" for one in found
        )
        free = world.aws.free(type_, zone, "on-demand")
        if free is not None and free < needed:
            words = f"Insufficient capacity: no {type_} is left in {zone}."
            raise AwsError("InsufficientInstanceCapacity", words, 500)
    changes = []
    for one in found:
        before = one["State"]
        if before["Name"] == "stopped":
            _state(one, "pending")
            one["LaunchTime"] = now()
            one["StateTransitionReason"] = ""
            one.pop("StateReason", None)
            _addressed(world, one, world.public_address() if one["_public"] else "")
            world.aws.taken(*_where(one), "on-demand", 1)
            world.aws.boot(world, one)
        changes.append(_change(one, before))
    return {"StartingInstances": changes}


@action("RebootInstances")
def reboot_instances(world: World, params: Params) -> Thing:
    for one in _named(world, params):
        if one["State"]["Name"] != "running":
            words = f"The instance '{one['InstanceId']}' is not in the 'running' state."
            raise AwsError("IncorrectState", words)
    return {}


@action("TerminateInstances")
def terminate_instances(world: World, params: Params) -> Thing:
    found = _named(world, params)
    return {
        "TerminatingInstances": [_change(one, terminate(world, one, _BY_USER)) for one in found]
    }


@action("ModifyInstanceAttribute")
def modify_attribute(world: World, params: Params) -> Thing:
    one = world.get("instance", params["InstanceId"])
    if "UserData" in params:
        if one["State"]["Name"] != "stopped":
            words = f"The instance '{one['InstanceId']}' is not in the 'stopped' state."
            raise AwsError("IncorrectInstanceState", words)
        value = params["UserData"].get("Value", b"")
        if len(value) > 16384:
            raise AwsError("InvalidParameterValue", "User data is limited to 16384 bytes")
        one["_user_data"] = value
    elif "InstanceInitiatedShutdownBehavior" in params:
        one["_shutdown"] = params["InstanceInitiatedShutdownBehavior"]["Value"]
    else:
        raise AwsError("InvalidParameterCombination", "No attributes specified.")
    return {}


def terminate(world: World, one: Thing, why: str) -> Thing:
    """Begin its end; its state before."""
    before: Thing = one["State"]
    if before["Name"] in ("shutting-down", "terminated"):
        return before
    if before["Name"] in ("pending", "running"):
        world.aws.taken(*_where(one), _market(one), -1)
    _state(one, "shutting-down")
    by = "Server" if why.startswith("Server") else "User"
    one["StateTransitionReason"] = f"{by.replace('Server', 'Service')} initiated ({stamp()})"
    one["StateReason"] = {"Code": why.partition(":")[0], "Message": why}
    request = world.things["spot-instances-request"].get(one.get("SpotInstanceRequestId", ""))
    if request is not None and request["State"] == "active":
        code = "instance-terminated-by-user" if by == "User" else "instance-terminated-no-capacity"
        said = {"Code": code, "Message": why, "UpdateTime": now()}
        request |= {"State": "closed", "Status": said}
    world.aws.ending(world, one, partial(ended, world, one), kill=by == "Server")
    return before


def ended(world: World, one: Thing) -> None:
    """Nothing of it is left, but that it is shown for a while."""
    if one["State"]["Name"] == "terminated":
        return
    _state(one, "terminated")
    for mapping in one["BlockDeviceMappings"]:
        volume = world.things["volume"].get(mapping["Ebs"]["VolumeId"])
        if volume is None:
            continue
        if mapping["Ebs"]["DeleteOnTermination"]:
            del world.things["volume"][volume["VolumeId"]]
        else:
            volume |= {"State": "available", "Attachments": []}
    for nic in one["NetworkInterfaces"]:
        world.things["network-interface"].pop(nic["NetworkInterfaceId"], None)
        world.freed[nic["PrivateIpAddress"]] = time.monotonic()
    for key in ("PrivateIpAddress", "PublicIpAddress", "SubnetId", "VpcId"):
        one.pop(key, None)
    one |= {"NetworkInterfaces": [], "BlockDeviceMappings": [], "SecurityGroups": []}
    one |= {"PrivateDnsName": "", "PublicDnsName": ""}
    gone = partial(world.things["instance"].pop, one["InstanceId"], None)
    one["_due"] = (time.monotonic() + world.aws.gone_after, gone)


def take_away(world: World, one: Thing) -> None:
    """A spot interruption."""
    if one.get("InstanceLifecycle") != "spot":
        raise ValueError(f"{one['InstanceId']} is no spot machine")
    terminate(world, one, _TAKEN)


def shut_itself_down(world: World, one: Thing) -> None:
    """Its system powered off: what becomes of it was said when it was launched."""
    if one["State"]["Name"] not in ("pending", "running"):
        return
    if one["_shutdown"] == "terminate" or one.get("InstanceLifecycle") == "spot":
        terminate(world, one, _BY_ITSELF)
    else:
        _stop(world, one)
        one["StateReason"] = {"Code": _BY_ITSELF.partition(":")[0], "Message": _BY_ITSELF}


def began(one: Thing) -> None:
    """It runs, unless something else became of it meanwhile."""
    if one["State"]["Name"] == "pending":
        _state(one, "running")


def _stop(world: World, one: Thing) -> Thing:
    before: Thing = one["State"]
    if before["Name"] != "running":
        return before
    world.aws.taken(*_where(one), _market(one), -1)
    _state(one, "stopping")
    one["StateTransitionReason"] = f"User initiated ({stamp()})"
    one["StateReason"] = {"Code": _BY_USER.partition(":")[0], "Message": _BY_USER}
    world.aws.stopping(world, one, partial(_stopped, world, one))
    return before


def _stopped(world: World, one: Thing) -> None:
    if one["State"]["Name"] == "stopping":
        _state(one, "stopped")
        _addressed(world, one, "")


# -- spot requests ---------------------------------------------------------------------------------


@action("DescribeSpotInstanceRequests")
def spot_requests(world: World, params: Params) -> Thing:
    found = world.describe("spot-instances-request", params, "SpotInstanceRequestIds")
    found, more = page(params, found, 1000)
    return {"SpotInstanceRequests": found, "NextToken": more}


@action("CancelSpotInstanceRequests")
def cancel_requests(world: World, params: Params) -> Thing:
    found = [world.get("spot-instances-request", id_) for id_ in params["SpotInstanceRequestIds"]]
    for one in found:
        if one["State"] in ("open", "active"):
            code = "request-canceled-and-instance-running"
            words = "Your Spot request is canceled, but the instance is still running."
            said = {"Code": code, "Message": words, "UpdateTime": now()}
            one |= {"State": "cancelled", "Status": said}
    listed = [{key: one[key] for key in ("SpotInstanceRequestId", "State")} for one in found]
    return {"CancelledSpotInstanceRequests": listed}


@action("DescribeSpotPriceHistory")
def spot_prices(world: World, params: Params) -> Thing:
    """Every zone's price of now, and older ones, newest first; Linux and Windows."""
    types = params.get("InstanceTypes") or list(catalogue.ON_DEMAND)
    products = params.get("ProductDescriptions") or ["Linux/UNIX", "Windows"]
    zone_wish = params.get("AvailabilityZone")
    found = []
    for type_ in types:
        offering = {"instance-type": [type_]}
        offered = world.moto.describe_instance_type_offerings("availability-zone", offering)
        for zone in sorted(one["Location"] for one in offered):
            price = world.aws.spot_price(type_, zone)
            if price is None or (type_, zone) in world.aws.lacks or zone_wish not in (None, zone):
                continue
            for product, factor in (("Linux/UNIX", 1.0), ("Windows", 1.8)):
                for hours, older in ((3, 1.0), (40, 1.1), (200, 0.9)):
                    one = {
                        "InstanceType": type_, "ProductDescription": product,
                        "SpotPrice": f"{price * factor * older:.6f}", "AvailabilityZone": zone,
                        "Timestamp": now() - timedelta(hours=hours),
                    }  # fmt: skip
                    if product in products:
                        found.append(one)
    started = params.get("StartTime")
    if started is not None:  # the one that held then is shown too, as AWS does
        begin = (
            started.astimezone(now().tzinfo)
            if started.tzinfo
            else started.replace(tzinfo=now().tzinfo)
        )
        newest: dict[tuple[Any, ...], Thing] = {}
        kept = []
        for one in sorted(found, key=lambda one: one["Timestamp"], reverse=True):
            key = (one["InstanceType"], one["AvailabilityZone"], one["ProductDescription"])
            if one["Timestamp"] >= begin:
                kept.append(one)
            elif key not in newest:
                newest[key] = one
        found = [*kept, *newest.values()]
    for one in params.get("Filters") or ():
        names = {
            "availability-zone": "AvailabilityZone", "instance-type": "InstanceType",
            "product-description": "ProductDescription",
        }  # fmt: skip
        if one["Name"] not in names:
            raise AwsError("InvalidParameterValue", f"The filter '{one['Name']}' is invalid")
        key_ = names[one["Name"]]
        found = [
            price
            for price in found
            if any(fnmatch.fnmatchcase(price[key_], value) for value in one["Values"])
        ]
    found.sort(key=lambda one: one["Timestamp"], reverse=True)
    found, more = page(params, found, 1000)
    return {"SpotPriceHistory": found, "NextToken": more or ""}


@action("DescribeInstanceTypeOfferings")
def offerings(world: World, params: Params) -> Thing:
    location = params.get("LocationType") or "region"
    filters = {one["Name"]: one["Values"] for one in params.get("Filters") or ()}
    found = [
        one
        for one in world.moto.describe_instance_type_offerings(location, filters)
        if (one["InstanceType"], one["Location"]) not in world.aws.lacks
    ]
    found, more = page(params, found, 1000)
    return {"InstanceTypeOfferings": found, "NextToken": more}


# -- parts -----------------------------------------------------------------------------------------


def _named(world: World, params: Params) -> list[Thing]:
    world.settle()
    ids = list(dict.fromkeys(params.get("InstanceIds") or ()))
    missing = [id_ for id_ in ids if id_ not in world.things["instance"]]
    if missing:
        raise unknown("instance", missing)
    return [world.things["instance"][id_] for id_ in ids]


def _reservation(world: World, id_: str, instances: list[Thing]) -> Thing:
    return {
        "ReservationId": id_,
        "OwnerId": world.account,
        "Groups": [],
        "Instances": sorted(instances, key=lambda one: one["AmiLaunchIndex"]),
    }


def _change(one: Thing, before: Thing) -> Thing:
    return {"InstanceId": one["InstanceId"], "CurrentState": one["State"], "PreviousState": before}


def _state(one: Thing, name: str) -> None:
    one["State"] = {"Name": name, "Code": _CODES[name]}
    one.pop("_due", None)


def _where(one: Thing) -> tuple[str, str]:
    return one["InstanceType"], one["Placement"]["AvailabilityZone"]


def _market(one: Thing) -> str:
    return "spot" if one.get("InstanceLifecycle") == "spot" else "on-demand"


def _addressed(world: World, one: Thing, public: str) -> None:
    """Give it a public address, or none."""
    for nic in one["NetworkInterfaces"]:
        nic.pop("Association", None)
    one.pop("PublicIpAddress", None)
    one["PublicDnsName"] = ""
    if public:
        name = f"ec2-{public.replace('.', '-')}.{world.region}.compute.amazonaws.com"
        one |= {"PublicIpAddress": public, "PublicDnsName": name}
        said = {"IpOwnerId": "amazon", "PublicIp": public, "PublicDnsName": name}
        one["NetworkInterfaces"][0]["Association"] = said


def _dns(world: World, private: str) -> str:
    where = "ec2" if world.region == "us-east-1" else f"{world.region}.compute"
    return f"ip-{private.replace('.', '-')}.{where}.internal"


def _type(world: World, name: str, arch: str) -> int:
    """The processors of a type. Raises AwsError for an unknown one, or one of another make."""
    try:
        found = world.moto.describe_instance_types([name], {})[0]
    except Exception:
        words = f"Invalid value '{name}' for InstanceType."
        raise AwsError("InvalidParameterValue", words) from None
    makes = found["ProcessorInfo"]["SupportedArchitectures"]
    if arch not in makes:
        raise AwsError(
            "InvalidParameterValue",
            f"The architecture '{','.join(makes)}' of the specified instance type does not match "
            f"the architecture '{arch}' of the specified AMI. Specify an instance type and an AMI "
            "that have matching architectures, and try again.",
        )
    return int(found["VCpuInfo"]["DefaultVCpus"])


def _user_data(text: str) -> bytes:
    try:
        decoded = base64.b64decode(text, validate=True)
    except binascii.Error:
        words = "Invalid BASE64 encoding of user data"
        raise AwsError("InvalidUserData.Malformed", words) from None
    if len(decoded) > 16384:
        raise AwsError("InvalidParameterValue", "User data is limited to 16384 bytes")
    return decoded
