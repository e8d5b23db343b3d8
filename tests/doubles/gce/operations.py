"""Operations: PENDING in the answer, RUNNING for some looks and time, DONE; and their errors."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from doubles.gce.wire import Asked, GoogleError
from doubles.gce.world import Thing, World, method, scope_of, shown, stamp

#: Code -> HTTP status, the words for it, and Google's words.
_CODES: dict[str, tuple[int, str, str]] = {
    "ZONE_RESOURCE_POOL_EXHAUSTED": (
        503, "SERVICE UNAVAILABLE",
        ("The zone '{zone}' does not have enough resources available to fulfill the request.  Try "
        "a different zone, or try again later."),
    ),
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS": (
        503, "SERVICE UNAVAILABLE",
        ("The zone '{zone}' does not have enough resources available to fulfill the request.  "
        "'(resource type:compute)'."),
    ),
    "QUOTA_EXCEEDED": (403, "FORBIDDEN", "Quota '{metric}' exceeded.  Limit: {limit} {where}."),
    "VM_MIN_COUNT_NOT_REACHED": (
        503, "SERVICE UNAVAILABLE", "Requested minimum count of {least} VMs could not be created.",
    ),
    "UNSUPPORTED_OPERATION": (400, "BAD REQUEST", "The operation is not supported."),
    "RESOURCE_NOT_FOUND": (404, "NOT FOUND", "The resource was not found."),
    "INTERNAL_ERROR": (
        500, "INTERNAL SERVER ERROR",
        "Internal error. Please try again or contact Google Support. (Code: '57B4F6E2C')",
    ),
}  # fmt: skip


class Failed(Exception):
    """What an operation was to do cannot be done; `errors` as the operation shows them."""

    def __init__(self, *errors: Thing) -> None:
        super().__init__(", ".join(one["code"] for one in errors))
        self.errors = list(errors)


def trouble(code: str, words: str = "", details: Thing | None = None, **more: Any) -> Thing:
    """One error of an operation."""
    if not words:
        said = {"zone": "", "metric": "CPUS", "limit": 0, "where": "", "least": 1, **more}
        words = _CODES.get(code, (400, "", code))[2].format_map(said)
    found: Thing = {"code": code, "message": words}
    if details:
        found["errorDetails"] = [details]
    return found


def stockout(world: World, zone: str, type_: str) -> Thing:
    info = {
        "domain": "compute.googleapis.com", "reason": "resource_availability",
        "metadatas": {"vmType": type_, "zone": zone, "zonesAvailable": "", "attachment": ""},
    }  # fmt: skip
    path = world.path("zones", "", zone)
    return trouble("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", zone=path,
                   details={"errorInfo": info})  # fmt: skip


def over_quota(region: str, metric: str, limit: float) -> Thing:
    where = f"in region {region}" if region else "globally"
    name = metric.replace("_", "-")
    info = {
        "metricName": f"compute.googleapis.com/{metric.lower()}",
        "limitName": f"{name}-per-project-region" if region else f"{name}-per-project",
        "dimensions": {"region": region} if region else {"global": "global"}, "limit": limit,
    }  # fmt: skip
    return trouble("QUOTA_EXCEEDED", metric=metric, limit=float(limit), where=where,
                   details={"quotaInfo": info})  # fmt: skip


def begin(
    world: World,
    scope: str,
    type_: str,
    target: Mapping[str, Any] | str,
    done: Callable[[], None] | None = None,
    seconds: float | None = None,
    work: Callable[[], None] | None = None,
    undone: Callable[[], None] | None = None,
    waits: bool = False,
) -> Thing:
    """An operation that was just taken. `done` happens with the lock, after `seconds` or after
    `work`, which takes its time in a thread; it may raise Failed. `undone`: when `work` failed.
    One that `waits` is ended by `finish`.
    """
    moment = f"{time.time_ns() // 1000000}-{secrets.token_hex(6)}"
    name = f"operation-{moment}-{secrets.token_hex(4)}-{secrets.token_hex(4)}"
    one = world.add("operations", scope, {"name": name, "operationType": type_})
    del one["creationTimestamp"]
    one |= {
        "_hidden": 0, "status": "PENDING", "progress": 0, "user": "tester@example.com",
        "insertTime": stamp(), "_looks": world.gce.looks, "_finished": False,
        "_until": time.monotonic() + world.gce.late,
    }  # fmt: skip
    if isinstance(target, str):
        one["targetLink"] = target
    else:
        one |= {"targetLink": target["selfLink"], "targetId": target["id"]}

    def failed() -> None:
        if undone is not None:
            undone()
        finish(one, problem="INTERNAL_ERROR")

    if work is not None:
        world.gce.later(work, lambda: finish(one, done), failed)
    elif not waits:
        pause = world.gce.operation_time if seconds is None else seconds
        world.after(pause, lambda: finish(one, done))
    return one


def happened(
    world: World, scope: str, type_: str, target: Thing, words: str, user: str = "system"
) -> Thing:
    """An operation of Google's own that is over, as a preemption."""
    one = begin(world, scope, type_, target, waits=True)
    one |= {"user": user, "statusMessage": words, "_looks": 0, "_until": 0.0}
    finish(one)
    return one


def finish(one: Thing, done: Callable[[], None] | None = None, problem: str = "") -> None:
    errors: list[Thing] = [trouble(problem)] if problem else []
    try:
        if done is not None and not problem:
            done()
    except Failed as failed:
        errors = failed.errors
    except GoogleError as error:
        one |= {"httpErrorStatusCode": error.status, "httpErrorMessage": error.words}
        errors = [trouble(error.reason, error.words)]
    if errors:
        status, words, _ = _CODES.get(errors[-1]["code"], (400, "BAD REQUEST", ""))
        one.setdefault("httpErrorStatusCode", status)
        one.setdefault("httpErrorMessage", words)
        one["error"] = {"errors": errors}
    one |= {"_finished": True, "endTime": stamp()}


def over(one: Thing) -> bool:
    return bool(one["_finished"] and time.monotonic() >= one["_until"])


def look(one: Thing, counts: bool = True) -> Thing:
    """As it is shown: a look counts, and the first ones never see its end."""
    if over(one) and one["_looks"] <= 0:
        return {**shown(one), "status": "DONE", "progress": 100,
                "startTime": one["insertTime"]}  # fmt: skip
    if counts:
        one["_looks"] -= 1
    hidden = ("error", "endTime", "httpErrorStatusCode", "httpErrorMessage")
    said = {key: value for key, value in shown(one).items() if key not in hidden}
    return {**said, "status": "RUNNING", "startTime": one["insertTime"]}


@method("zoneOperations.get", "regionOperations.get", "globalOperations.get")
def get(world: World, asked: Asked) -> Thing:
    return look(world.get("operations", scope_of(asked.params), asked.params["operation"]))


@method("zoneOperations.wait", "regionOperations.wait", "globalOperations.wait")
def wait(world: World, asked: Asked) -> Thing:
    """The server calls again until it is over, or until it has waited for long enough."""
    one = world.get("operations", scope_of(asked.params), asked.params["operation"])
    if over(one):
        one["_looks"] = 0
    return look(one, counts=False)


@method("zoneOperations.list", "regionOperations.list", "globalOperations.list")
def listed(world: World, asked: Asked) -> Thing:
    from doubles.gce.listing import page_of

    scope = scope_of(asked.params)
    found = [look(one, counts=False) for one in world.within("operations", scope)]
    return page_of(world, asked, "operations", scope, found)


@method("globalOperations.aggregatedList")
def aggregated(world: World, asked: Asked) -> Thing:
    from doubles.gce.listing import aggregate

    found = [
        {**look(one, counts=False), "_scope": one["_scope"]} for one in world.all("operations")
    ]
    return aggregate(world, asked, "operations", found)
