"""What the project has: things as Google shows them, in dictionaries, by collection and scope.

A scope is "global", "regions/<region>" or "zones/<zone>". Keys that begin with "_" are the double's
own and never shown. One lock of `Gce` is held by whoever reads or changes the world.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import ipaddress
import itertools
import re
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from doubles.gce import catalogue
from doubles.gce.wire import Asked, GoogleError

if TYPE_CHECKING:
    from doubles.gce import Gce

Thing = dict[str, Any]
Handler = Callable[["World", Asked], Thing]

#: Method, as "instances.insert" -> what does it.
METHODS: dict[str, Handler] = {}

#: Collection -> `kind`, without "compute#".
KINDS = {
    "instances": "instance", "disks": "disk", "addresses": "address", "firewalls": "firewall",
    "images": "image", "snapshots": "snapshot", "resourcePolicies": "resourcePolicy",
    "networks": "network", "subnetworks": "subnetwork", "operations": "operation",
    "regions": "region", "zones": "zone", "machineTypes": "machineType",
    "acceleratorTypes": "acceleratorType", "projects": "project",
}  # fmt: skip
#: Documentation's own ranges (RFC 5737): a public address of the double leads nowhere.
_PUBLIC = [*ipaddress.ip_network("203.0.113.0/24").hosts()]
_PUBLIC += [*ipaddress.ip_network("198.51.100.0/24").hosts()]


def method(*names: str) -> Callable[[Handler], Handler]:
    def keep(handler: Handler) -> Handler:
        for name in names:
            METHODS[name] = handler
        return handler

    return keep


class World:
    """One project's things."""

    def __init__(self, gce: Gce) -> None:
        self.gce = gce
        self.things: dict[tuple[str, str], dict[str, Thing]] = {}
        self.requests: dict[str, tuple[str, Thing]] = {}  # requestId -> what was asked, operation
        self.freed: dict[str, float] = {}  # private address -> since when it is free
        self._planned: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._public = itertools.cycle(_PUBLIC)
        self._network()

    # -- names ----------------------------------------------------------------------------------

    def path(self, collection: str, scope: str, name: str, project: str = "") -> str:
        """As in Google's messages: "projects/p/zones/z/instances/x"."""
        project = project or self.gce.project
        if collection in ("zones", "regions"):
            return f"projects/{project}/{collection}/{name}"
        return f"projects/{project}/{scope}/{collection}/{name}"

    def link(self, collection: str, scope: str, name: str, project: str = "") -> str:
        return f"{self.gce.url}/compute/v1/{self.path(collection, scope, name, project)}"

    def new_id(self) -> str:
        return str(10**18 + secrets.randbelow(8 * 10**18))

    # -- things ---------------------------------------------------------------------------------

    def add(self, collection: str, scope: str, thing: Thing) -> Thing:
        """Raises GoogleError where there is one of that name."""
        name = thing["name"]
        self.free_name(collection, scope, name)
        made = self.dressed(collection, scope, thing)
        made |= {"_hidden": self.gce.lag, "_collection": collection, "_scope": scope}
        if "labels" in thing:
            made["labelFingerprint"] = fingerprint(thing["labels"])
        self.things.setdefault((collection, scope), {})[name] = made
        return made

    def dressed(self, collection: str, scope: str, thing: Mapping[str, Any]) -> Thing:
        """With what every thing has: kind, id, time, where it is."""
        name = thing["name"]
        made: Thing = {
            "kind": f"compute#{KINDS[collection]}", "id": self.new_id(),
            "creationTimestamp": stamp(), "selfLink": self.link(collection, scope, name),
        }  # fmt: skip
        place, _, where = scope.partition("/")
        if where:
            made[place.removesuffix("s")] = self.link(place, scope, where)
        return {**made, **thing}

    def free_name(self, collection: str, scope: str, name: str) -> None:
        if name in self.things.get((collection, scope), {}):
            words = f"The resource '{self.path(collection, scope, name)}' already exists"
            raise GoogleError(409, words, "alreadyExists")

    def get(self, collection: str, scope: str, name: str) -> Thing:
        """By name or id. Raises GoogleError for an unknown one."""
        for one in self.within(collection, scope):
            if name in (one["name"], one["id"]):
                return one
        raise self.unknown(collection, scope, name)

    def unknown(self, collection: str, scope: str, name: str, project: str = "") -> GoogleError:
        path = self.path(collection, scope, name, project)
        return GoogleError(404, f"The resource '{path}' was not found", "notFound")

    def within(self, collection: str, scope: str) -> list[Thing]:
        return list(self.things.get((collection, scope), {}).values())

    def all(self, collection: str) -> list[Thing]:
        return [one for key in list(self.things) if key[0] == collection
                for one in self.within(*key)]  # fmt: skip

    def remove(self, thing: Thing) -> None:
        here = self.things.get((thing["_collection"], thing["_scope"]), {})
        if here.get(thing["name"]) is thing:
            del here[thing["name"]]

    def exists(self, thing: Thing) -> bool:
        here = self.things.get((thing["_collection"], thing["_scope"]), {})
        return here.get(thing["name"]) is thing

    def linked(self, url: str, collection: str) -> Thing:
        """What a URL, whole or partial, leads to. Raises GoogleError."""
        scope, name = parts(url, collection)
        return self.get(collection, scope, name)

    def by_link(self, link: str) -> Thing | None:
        """The thing with just this selfLink."""
        for things in self.things.values():
            for one in things.values():
                if one["selfLink"] == link:
                    return one
        return None

    # -- time -----------------------------------------------------------------------------------

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._planned, (time.monotonic() + seconds, next(self._number), act))

    def settle(self) -> None:
        """What was to happen by now has happened."""
        while self._planned and self._planned[0][0] <= time.monotonic():
            heapq.heappop(self._planned)[2]()

    # -- the network ----------------------------------------------------------------------------

    def private_address(self, subnet: Thing) -> str:
        """A free address; one that was used comes again last. Google keeps the first two and the
        last two of a subnet (cloud.google.com/vpc/docs/subnets)."""
        net = ipaddress.ip_network(subnet["ipCidrRange"])
        used = {
            nic["networkIP"] for one in self.all("instances") for nic in one["networkInterfaces"]
        }
        rested: list[tuple[float, str]] = []
        for number in range(2, min(net.num_addresses - 2, 1024)):
            address = str(net[number])
            if address in used:
                continue
            if address not in self.freed:
                return address
            rested.append((self.freed[address], address))
        if not rested:
            words = f"IP space of '{subnet['selfLink']}' is exhausted."
            raise GoogleError(400, words, "ipSpaceExhausted")
        return min(rested)[1]

    def public_address(self) -> str:
        used = {public_of(one) for one in self.all("instances")}
        used |= {one["address"] for one in self.all("addresses")}
        return next(str(one) for one in self._public if str(one) not in used)

    def _network(self) -> None:
        """The default network, as every new project has it, and its rules."""
        net = ipaddress.IPv4Network(self.gce.range)
        name = "default"
        network: Thing = {
            "name": name, "autoCreateSubnetworks": True, "mtu": 1460, "subnetworks": [],
            "description": "Default network for the project",
            "routingConfig": {"routingMode": "REGIONAL"},
            "networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL",
        }  # fmt: skip
        link = self.add("networks", "global", network)["selfLink"]
        pieces = net.subnets(new_prefix=max(20, net.prefixlen + 4))
        for region, piece in zip(catalogue.REGIONS, pieces, strict=False):
            subnet: Thing = {
                "name": name, "network": link, "ipCidrRange": str(piece),
                "gatewayAddress": str(piece[1]), "privateIpGoogleAccess": False,
                "fingerprint": fingerprint(region), "purpose": "PRIVATE", "stackType": "IPV4_ONLY",
                "privateIpv6GoogleAccess": "DISABLE_GOOGLE_ACCESS",
            }  # fmt: skip
            made = self.add("subnetworks", f"regions/{region}", subnet)
            self.things["networks", "global"][name]["subnetworks"].append(made["selfLink"])
        if not self.gce.default_rules:
            return
        anywhere = ["0.0.0.0/0"]
        for rule, sources, protocol, ports in (
            ("icmp", anywhere, "icmp", ()), ("ssh", anywhere, "tcp", ("22",)),
            ("rdp", anywhere, "tcp", ("3389",)), ("internal", [str(net)], "tcp", ("0-65535",)),
        ):  # fmt: skip
            allowed = {"IPProtocol": protocol, **({"ports": list(ports)} if ports else {})}
            both = [allowed]
            if rule == "internal":
                both += [{**allowed, "IPProtocol": "udp"}, {"IPProtocol": "icmp"}]
            made = {
                "name": f"default-allow-{rule}", "network": link, "direction": "INGRESS",
                "priority": 65534, "sourceRanges": sources, "allowed": both, "disabled": False,
                "description": f"Allow {rule} by default", "logConfig": {"enable": False},
            }  # fmt: skip
            self.add("firewalls", "global", made)


def parts(url: str, collection: str) -> tuple[str, str]:
    """Scope and name of a URL, whole or partial. Raises GoogleError for one of something else."""
    match = re.fullmatch(
        rf"(?:https?://[^/]+/compute/[a-z0-9]+/|/)?(?:projects/[^/]+/)?"
        rf"(global|(?:zones|regions)/[^/]+)/{collection}/([^/]+)",
        url,
    )
    if match is None:
        words = f"Invalid value for field 'resource': '{url}'. The URL is malformed."
        raise GoogleError(400, words)
    return match[1], match[2]


def last(url: str) -> str:
    return url.rpartition("/")[2]


def scope_of(params: Mapping[str, Any]) -> str:
    """Where a call is about. Raises GoogleError for a place that there is not."""
    for place, known in (("zone", catalogue.ZONES), ("region", catalogue.REGIONS)):
        if place in params:
            if params[place] not in known:
                words = f"Invalid value for field '{place}': '{params[place]}'. Unknown {place}."
                raise GoogleError(400, words)
            return f"{place}s/{params[place]}"
    return "global"


def shown(thing: Mapping[str, Any]) -> Thing:
    return {key: value for key, value in thing.items() if not key.startswith("_")}


def fingerprint(said: Any) -> str:
    """Eight bytes of base64, as Google's."""

    text = repr(sorted(said.items()) if isinstance(said, dict) else said)
    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


def public_of(instance: Mapping[str, Any]) -> str:
    for nic in instance["networkInterfaces"]:
        for one in nic.get("accessConfigs", ()):
            return str(one.get("natIP", ""))
    return ""


def checked_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Raises GoogleError for what Google refuses (cloud.google.com: "Requirements for labels")."""
    found = dict(labels or {})
    for key, value in found.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key):
            words = f"Invalid value for field 'resource.labels': '{key}'. Label key '{key}' "
            raise GoogleError(400, words + "violates format constraints.")
        if not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            words = f"Invalid value for field 'resource.labels': '{value}'. Label value '{value}' "
            raise GoogleError(400, words + "violates format constraints.")
    if len(found) > 64:
        raise GoogleError(400, "Too many labels: 64 are allowed.")
    return found


def refuse_unless(found: str, said: str | None, what: str) -> None:
    """Google's lock on changes: what was read must still be so. Raises GoogleError."""
    if said != found:
        words = f"Supplied fingerprint does not match current {what} fingerprint."
        raise GoogleError(412, words, "conditionNotMet")


def stamp(when: datetime | None = None) -> str:
    """Google's own time is Pacific; an offset is all that a reader may rely on."""
    return (when or datetime.now(UTC)).isoformat(timespec="milliseconds")
