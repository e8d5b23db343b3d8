"""The life of machines: they run, are switched off and on, end, or are taken away."""

from __future__ import annotations

import re
import time
from functools import partial

from doubles.gce import offers, operations
from doubles.gce.operations import Failed
from doubles.gce.plans import access, checked_metadata, metadata
from doubles.gce.storage import relabel
from doubles.gce.wire import Asked, GoogleError
from doubles.gce.world import Thing, World, fingerprint, method, refuse_unless, scope_of, stamp

#: Statuses in which a machine takes room.
ON = ("PROVISIONING", "STAGING", "RUNNING")
#: Types that bring local SSDs: cloud.google.com/compute/docs/disks/local-ssd.
_LOCAL_SSD = r"a2-ultragpu-|a3-|a4-|g4-|.+-lssd"


def began(world: World, one: Thing) -> None:
    """It runs, unless something else became of it meanwhile."""
    if one["status"] not in ("PROVISIONING", "STAGING") or not world.exists(one):
        return
    one["status"] = "RUNNING"
    limit = one["scheduling"].get("maxRunDuration")
    if limit is not None:
        started = one["lastStartTimestamp"]
        world.after(int(limit["seconds"]), partial(_ran_for_long_enough, world, one, started))


def forget(world: World, one: Thing) -> None:
    """Nothing of it is left but the disks that were to be kept."""
    if not world.exists(one):
        return
    world.remove(one)
    for nic in one["networkInterfaces"]:
        world.freed[nic["networkIP"]] = time.monotonic()
    for said in one["disks"]:
        disk = world.by_link(said["source"])
        if disk is None:
            continue
        if said["autoDelete"]:
            world.remove(disk)
        else:
            disk |= {"users": [], "lastDetachTimestamp": stamp()}


# -- calls -----------------------------------------------------------------------------------------


@method("instances.delete")
def delete(world: World, asked: Asked) -> Thing:
    one = _named(world, asked)
    if one.get("deletionProtection"):
        words = "Invalid resource usage: 'Resource cannot be deleted if it's protected against "
        raise GoogleError(400, words + "deletion.'.", "invalidResourceUsage")
    if one["_ending"]:
        raise _not_ready(world, one)
    return end(world, one)


@method("instances.stop")
def stop(world: World, asked: Asked) -> Thing:
    one = _named(world, asked)
    if one["status"] == "TERMINATED":
        return operations.begin(world, one["_scope"], "stop", one)
    if one["status"] != "RUNNING":
        raise _not_ready(world, one)
    local = re.match(_LOCAL_SSD, one["_key"]) is not None
    if local and "discardLocalSsd" not in asked.params:
        words = "VM has a Local SSD attached but discardLocalSsd is not said."
        raise GoogleError(400, words, "badRequest")
    return switch_off(world, one, "stop")


@method("instances.start")
def start(world: World, asked: Asked) -> Thing:
    one = _named(world, asked)
    zone, gce = one["_scope"].partition("/")[2], world.gce
    if one["status"] == "RUNNING":
        return operations.begin(world, one["_scope"], "start", one)
    if one["status"] != "TERMINATED":
        raise _not_ready(world, one)
    wanted = {key: value for key, value in one["_needs"].items() if key != "INSTANCES"}
    over = offers.exceeded(world, one["_region"], wanted, 1)
    errors = [operations.over_quota(*over)] if over else []
    if not errors and gce.free(one["_key"], zone, one["_market"]) == 0:
        errors = [operations.stockout(world, zone, one["_key"])]
    if errors:

        def refused() -> None:
            raise Failed(*errors)

        return operations.begin(world, one["_scope"], "start", one, refused)
    gce.taken(one["_key"], zone, one["_market"], 1)
    one |= {"status": "STAGING", "lastStartTimestamp": stamp()}
    if one["_public"]:
        one["networkInterfaces"][0]["accessConfigs"] = [access(world)]
    return gce.boot(world, one, "start", partial(began, world, one))


@method("instances.setMetadata")
def set_metadata(world: World, asked: Asked) -> Thing:
    one = _named(world, asked)
    refuse_unless(one["metadata"]["fingerprint"], asked.body.get("fingerprint"), "metadata")
    one["metadata"] = metadata(checked_metadata(asked.body))
    return operations.begin(world, one["_scope"], "setMetadata", one)


@method("instances.setLabels")
def set_labels(world: World, asked: Asked) -> Thing:
    return relabel(world, _named(world, asked), asked.body)


@method("instances.getSerialPortOutput")
def serial_port(world: World, asked: Asked) -> Thing:
    one = _named(world, asked)
    if not 1 <= asked.params.get("port", 1) <= 4:
        words = f"Invalid value for field 'port': '{asked.params['port']}'. Values must be between"
        raise GoogleError(400, f"{words} 1 and 4")
    said = world.gce.console(one["id"]) if asked.params.get("port", 1) == 1 else ""
    begin = max(int(asked.params.get("start", 0)), 0)
    return {
        "kind": "compute#serialPortOutput", "contents": said[begin:], "start": str(begin),
        "next": str(len(said)), "selfLink": f"{one['selfLink']}/serialPort",
    }  # fmt: skip


# -- what happens to them --------------------------------------------------------------------------


def end(world: World, one: Thing) -> Thing:
    """Begin its end; the operation of it."""
    _freed(world, one)
    one |= {"status": "STOPPING", "_ending": True}
    return world.gce.ending(world, one, "delete", partial(forget, world, one))


def switch_off(world: World, one: Thing, type_: str) -> Thing:
    _freed(world, one)
    one["status"] = "STOPPING"
    return world.gce.stopping(world, one, type_, partial(_is_off, one))


def take_away(world: World, one: Thing) -> None:
    """A preemption: what becomes of the machine was said when it was made."""
    if one["_market"] != "spot":
        raise ValueError(f"{one['name']} is no spot machine")
    if one["status"] not in ON:
        return
    words = "Instance was preempted."
    operations.happened(world, one["_scope"], "compute.instances.preempted", one, words)
    world.gce.kill(one)
    _by_its_action(world, one)


def shut_itself_down(world: World, one: Thing) -> None:
    """Its system powered off: it is kept, a spot machine too."""
    if one["status"] not in ON or one["_ending"]:
        return
    words = "Instance terminated by guest OS shutdown."
    operations.happened(world, one["_scope"], "compute.instances.guestTerminate", one, words)
    _freed(world, one)
    _is_off(one)


def _ran_for_long_enough(world: World, one: Thing, started: str) -> None:
    if one["status"] == "RUNNING" and one["lastStartTimestamp"] == started and world.exists(one):
        _by_its_action(world, one)


def _by_its_action(world: World, one: Thing) -> None:
    if one["scheduling"].get("instanceTerminationAction") == "DELETE":
        end(world, one)
    else:
        switch_off(world, one, "stop")


def _is_off(one: Thing) -> None:
    if one["_ending"]:
        return
    one |= {"status": "TERMINATED", "lastStopTimestamp": stamp()}
    for nic in one["networkInterfaces"]:
        for config in nic.get("accessConfigs", ()):
            config.pop("natIP", None)


def _freed(world: World, one: Thing) -> None:
    if one["status"] in ON:
        zone = one["_scope"].partition("/")[2]
        world.gce.taken(one["_key"], zone, one["_market"], -1)
    one["fingerprint"] = fingerprint(stamp())


def _named(world: World, asked: Asked) -> Thing:
    name = asked.params.get("instance") or asked.params["resource"]
    return world.get("instances", scope_of(asked.params), name)


def _not_ready(world: World, one: Thing) -> GoogleError:
    path = world.path("instances", one["_scope"], one["name"])
    return GoogleError(400, f"The resource '{path}' is not ready", "resourceNotReady")
