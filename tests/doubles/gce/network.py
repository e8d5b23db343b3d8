"""Firewall rules, addresses, placement policies; and what rules mean for hosts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from doubles.gce import offers, operations
from doubles.gce.storage import refuse_used
from doubles.gce.wire import Asked, GoogleError
from doubles.gce.world import (
    Thing,
    World,
    checked_labels,
    last,
    method,
    parts,
    scope_of,
)
from doubles.hosts import Doors

#: The largest number of a priority, which is the weakest.
_WEAKEST = 65535

_TAG = r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"
_PROTOCOLS = ("all", "tcp", "udp", "icmp", "esp", "ah", "ipip", "sctp")
#: Fields of a rule that Google fills in, whatever is said.
_GIVEN = ("kind", "id", "creationTimestamp", "selfLink")


# -- firewall rules --------------------------------------------------------------------------------


@method("firewalls.insert")
def insert_firewall(world: World, asked: Asked) -> Thing:
    rule = _checked(world, {**asked.body})
    over = offers.exceeded(world, "", {"FIREWALLS": 1}, 1)
    if over is not None:
        words = f"Quota 'FIREWALLS' exceeded.  Limit: {over[2]:.1f} globally."
        raise GoogleError(403, words, "quotaExceeded")
    one = world.add("firewalls", "global", rule)
    return operations.begin(world, "global", "insert", one)


@method("firewalls.patch", "firewalls.update")
def change_firewall(world: World, asked: Asked) -> Thing:
    one = world.get("firewalls", "global", asked.params["firewall"])
    body = {key: value for key, value in asked.body.items() if key not in _GIVEN}
    kept = one if asked.name == "firewalls.patch" else {"network": one["network"]}
    said = {key: value for key, value in {**kept, **body}.items() if value is not None}
    fixed = {"name": one["name"], "network": one["network"]}
    for key, value in fixed.items():
        if last(str(said.get(key, value))) != last(value):
            words = f"Invalid value for field 'resource.{key}': it cannot be changed."
            raise GoogleError(400, words)
    if said.get("direction", "INGRESS") != one["direction"]:
        raise GoogleError(400, "Firewall direction cannot be changed once set.")
    checked = _checked(world, {**said, **fixed})
    keep = {key: one[key] for key in one if key in _GIVEN or key.startswith("_")}
    one.clear()
    one |= {**checked, **keep}
    return operations.begin(world, "global", asked.name.partition(".")[2], one)


@method("firewalls.delete")
def delete_firewall(world: World, asked: Asked) -> Thing:
    one = world.get("firewalls", "global", asked.params["firewall"])
    return operations.begin(world, "global", "delete", one, partial(world.remove, one))


def _checked(world: World, rule: Thing) -> Thing:
    """A rule with its defaults. Raises GoogleError."""
    network = world.get("networks", "global", last(rule.get("network", "default")))
    rule["network"] = network["selfLink"]
    for key, value in (("direction", "INGRESS"), ("priority", 1000), ("disabled", False)):
        rule.setdefault(key, value)
    rule.setdefault("logConfig", {"enable": False})
    if bool(rule.get("allowed")) == bool(rule.get("denied")):
        words = "Invalid value for field 'resource.allowed': ''. Exactly one of allowed and denied"
        raise GoogleError(400, f"{words} must be specified.")
    if not 0 <= rule["priority"] <= 65535:
        raise _wrong("priority", rule["priority"], "Must be between 0 and 65535.")
    if rule["direction"] == "EGRESS" and (rule.get("sourceRanges") or rule.get("sourceTags")):
        raise _wrong("sourceRanges", "", "Firewall direction is EGRESS.")
    for one in (*rule.get("allowed", ()), *rule.get("denied", ())):
        _protocol(one)
    for key in ("sourceTags", "targetTags"):
        for tag in rule.get(key, ()):
            if not re.fullmatch(_TAG, tag):
                raise _wrong(key, tag, f"Must be a match of regex '{_TAG}'")
    for number, text in enumerate(rule.get("sourceRanges", ())):
        try:
            ipaddress.ip_network(text)
        except ValueError:
            words = "Must be a valid CIDR range."
            raise _wrong(f"sourceRanges[{number}]", text, words) from None
    if rule["direction"] == "INGRESS" and not (rule.get("sourceRanges") or rule.get("sourceTags")):
        rule["sourceRanges"] = ["0.0.0.0/0"]
    return {key: value for key, value in rule.items() if value not in ([], "")}


def _protocol(one: Mapping[str, Any]) -> None:
    protocol = str(one.get("IPProtocol", "")).lower()
    if protocol not in _PROTOCOLS and not (protocol.isdigit() and int(protocol) < 256):
        raise _wrong("allowed[0].IPProtocol", protocol, "Invalid protocol.")
    if one.get("ports") and protocol not in ("tcp", "udp", "sctp"):
        raise _wrong("allowed[0].ports", one["ports"], "Ports are for tcp, udp and sctp only.")
    for port in one.get("ports", ()):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", port)
        if match is None or not int(match[1]) <= int(match[2] or match[1]) <= 65535:
            raise _wrong("allowed[0].ports", port, "Must be a valid port or range.")


def _wrong(field: str, value: Any, words: str) -> GoogleError:
    return GoogleError(400, f"Invalid value for field 'resource.{field}': '{value}'. {words}")


def doors(world: World) -> Doors:
    """What the ingress rules come to, for the machines they are about.

    Of rules that deny only those that deny everything to everybody are minded. What they do not
    come after is shut out; of the same priority the one that denies counts.
    cloud.google.com/firewall/docs/firewalls#priority_order_for_firewall_rules
    """
    machines = {
        one["networkInterfaces"][0]["networkIP"]: set(one["tags"].get("items", ()))
        for one in world.all("instances")
    }
    inward: dict[str, tuple[tuple[str, str, int, int], ...]] = {}
    among = []
    rules = [
        one
        for one in world.all("firewalls")
        if one["direction"] == "INGRESS" and not one["disabled"]
    ]
    shut = {
        address: min(
            (one["priority"] for one in rules if _denies_all(one) and _targets(one, tags)),
            default=_WEAKEST + 1,
        )
        for address, tags in machines.items()
    }
    for rule in rules:
        if not rule.get("allowed"):
            continue
        here = [
            address
            for address, tags in machines.items()
            if _targets(rule, tags) and rule["priority"] < shut[address]
        ]
        for network in rule.get("sourceRanges", ()):
            for protocol, low, high in _ports(rule):
                for address in here:
                    said = (network, protocol, low, high)
                    inward[address] = (*inward.get(address, ()), said)
        if any(protocol == "all" for protocol, _, _ in _ports(rule)):
            nets = [ipaddress.ip_network(one) for one in rule.get("sourceRanges", ())]
            tags = set(rule.get("sourceTags", ()))
            others = [
                one
                for one, its in machines.items()
                if its & tags or any(ipaddress.ip_address(one) in net for net in nets)
            ]
            among.append((tuple(others), tuple(here)))
    return Doors(inward, tuple(among))


def _targets(rule: Mapping[str, Any], tags: set[str]) -> bool:
    """Whether a rule is about a machine with these tags."""
    return rule.get("targetTags") is None or bool(tags & set(rule["targetTags"]))


def _denies_all(rule: Mapping[str, Any]) -> bool:
    protocols = {one["IPProtocol"].lower() for one in rule.get("denied") or ()}
    return "all" in protocols and "0.0.0.0/0" in (rule.get("sourceRanges") or ())


def _ports(rule: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Protocols and ports; tcp and udp of all ports are all that matters among hosts."""
    found = []
    for one in rule["allowed"]:
        protocol = one["IPProtocol"].lower()
        if protocol in ("tcp", "udp"):
            for port in one.get("ports") or ("0-65535",):
                low, _, high = port.partition("-")
                found.append((protocol, int(low), int(high or low)))
        elif protocol == "all":
            found.append(("all", 0, 65535))
    if {("tcp", 0, 65535), ("udp", 0, 65535)} <= set(found):
        found.append(("all", 0, 65535))
    return found


# -- addresses -------------------------------------------------------------------------------------


@method("addresses.insert")
def insert_address(world: World, asked: Asked) -> Thing:
    scope = scope_of(asked.params)
    kept = ("name", "description", "labels", "networkTier")
    said = {key: asked.body[key] for key in kept if key in asked.body}
    said["labels"] = checked_labels(asked.body.get("labels"))
    one = world.add(
        "addresses", scope,
        {"addressType": "EXTERNAL", "status": "RESERVED", "networkTier": "PREMIUM",
         "address": world.public_address(), **said},
    )  # fmt: skip
    return operations.begin(world, scope, "insert", one)


@method("addresses.delete")
def delete_address(world: World, asked: Asked) -> Thing:
    one = world.get("addresses", scope_of(asked.params), asked.params["address"])
    refuse_used(world, one, "addresses")
    return operations.begin(world, one["_scope"], "delete", one, partial(world.remove, one))


# -- placement policies ----------------------------------------------------------------------------


@method("resourcePolicies.insert")
def insert_policy(world: World, asked: Asked) -> Thing:
    scope = scope_of(asked.params)
    body = asked.body
    if not body.get("name"):
        raise _wrong("name", "", "A value is required.")
    if "groupPlacementPolicy" not in body:
        raise _wrong("groupPlacementPolicy", "", "The double knows placement policies only.")
    kept = ("name", "description", "groupPlacementPolicy")
    made: Thing = {"status": "READY"}
    made |= {key: body[key] for key in kept if key in body}
    one = world.add("resourcePolicies", scope, made)
    return operations.begin(world, scope, "insert", one)


@method("resourcePolicies.delete")
def delete_policy(world: World, asked: Asked) -> Thing:
    one = world.get("resourcePolicies", scope_of(asked.params), asked.params["resourcePolicy"])
    users = [
        each["selfLink"] for each in world.all("instances")
        if one["selfLink"] in each.get("resourcePolicies", ())
    ]  # fmt: skip
    refuse_used(world, {**one, "users": users}, "resourcePolicies")
    return operations.begin(world, one["_scope"], "delete", one, partial(world.remove, one))


def policy(world: World, region: str, url: str) -> str:
    """The link of a policy that a machine is to have. Raises GoogleError."""
    name = url if "/" not in url else parts(url, "resourcePolicies")[1]
    return str(world.get("resourcePolicies", f"regions/{region}", name)["selfLink"])
