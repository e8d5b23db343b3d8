"""A bridge of a cluster's own: a private /24, this machine at .1 in it, and masquerade outwards.

Everything is named for the cluster's id and made by calls that may be repeated; `down` removes it
wholly. The one setting that stays is the kernel's ip_forward, which others may rely on by then.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from clusterkit.errors import ClusterError
from clusterkit.transport import Local

_SETTINGS = Path("/proc/sys/net/ipv4")


@dataclass(frozen=True, slots=True)
class Network:
    """The network of the cluster with this id (16 hex digits)."""

    id: str
    range: IPv4Network

    @property
    def bridge(self) -> str:
        """At most 15 letters (IFNAMSIZ)."""
        return f"ck{self.id[:10]}"

    @property
    def table(self) -> str:
        return f"clusterkit_{self.id}"

    @property
    def gateway(self) -> IPv4Address:
        """This machine's own address in it."""
        return self.range.network_address + 1

    def up(self) -> None:
        """Make what is missing of it."""
        here = Local()
        if not self.is_up():
            here.run(["ip", "link", "add", "name", self.bridge, "type", "bridge"])
        address = f"{self.gateway}/{self.range.prefixlen}"
        here.run(["ip", "address", "replace", address, "dev", self.bridge])
        here.run(["ip", "link", "set", "dev", self.bridge, "up"])
        # A host that has just come up is found within a tenth of a second, not a second.
        _write(_SETTINGS / "neigh" / self.bridge / "retrans_time_ms", "100")
        _write(_SETTINGS / "ip_forward", "1")
        here.run(["nft", "-f", "-"], input=self.rules().encode())

    def rules(self) -> str:
        """The nft script, which replaces the cluster's table at once."""
        return (
            f"table ip {self.table}\n"
            f"delete table ip {self.table}\n"
            f"table ip {self.table} {{\n"
            "  chain out {\n"
            "    type nat hook postrouting priority srcnat; policy accept;\n"
            f'    ip saddr {self.range} oifname != "{self.bridge}" masquerade\n'
            "  }\n"
            "}\n"
        )

    def is_up(self) -> bool:
        return Path("/sys/class/net", self.bridge).exists()

    def down(self) -> None:
        """Remove it wholly; nothing to do when it is not there."""
        here = Local()
        # A host that was killed may leave its end of the wire behind, and the next one of its
        # name would find the name taken.
        for wire in self._wires():
            here.run(["ip", "link", "delete", "dev", wire], check=False)
        if self.is_up():
            here.run(["ip", "link", "delete", "dev", self.bridge, "type", "bridge"])
        if self._has_table():
            here.run(["nft", "delete", "table", "ip", self.table])

    def left(self) -> tuple[str, ...]:
        """What is there of it, in words."""
        found = []
        if self.is_up():
            found.append(f"bridge {self.bridge}")
            found += [f"network device {wire}" for wire in self._wires()]
        if self._has_table():
            found.append(f"nft table {self.table}")
        return tuple(found)

    def _wires(self) -> list[str]:
        """The hosts' ends that hang on the bridge."""
        folder = Path("/sys/class/net", self.bridge, "brif")
        return sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []

    def _has_table(self) -> bool:
        listed = Local().run(["nft", "--json", "list", "tables"]).stdout
        return self.table in tables(listed)


def tables(listed: bytes) -> tuple[str, ...]:
    """The names of the tables of `nft --json list tables`."""
    items = json.loads(listed).get("nftables", [])
    return tuple(item["table"]["name"] for item in items if "table" in item)


def blocked(listed: bytes) -> bool:
    """Whether another table drops what is forwarded by default: `nft --json list chains`.

    Docker's does. No table of ours can take that back: every hook has to accept a packet.
    """
    chains = [item["chain"] for item in json.loads(listed).get("nftables", []) if "chain" in item]
    return any(one.get("hook") == "forward" and one.get("policy") == "drop" for one in chains)


def warning(bridge: str) -> str:
    """A word on a firewall of this machine that would keep the hosts from the world, or ""."""
    if not blocked(Local().run(["nft", "--json", "list", "chains"]).stdout):
        return ""
    return (
        "a firewall here drops forwarded packets (Docker's does), so that the machines may not "
        f"reach their mirrors; `iptables -I FORWARD -i {bridge} -j ACCEPT` and the same with `-o` "
        "let them"
    )


def choose(
    cluster_id: str, wanted: str | None = None, taken: Collection[IPv4Network] = ()
) -> IPv4Network:
    """The /24 of a cluster: `wanted`, or the first free one from a place that its id decides.

    `taken` are others' (of clusters that are switched off, whose bridges are not to be seen).
    Raises ClusterError when `wanted` overlaps one that is in use.
    """
    used = [*routes(Local().run(["ip", "-json", "-4", "route", "show", "table", "all"]).stdout)]
    used += taken
    if wanted is not None:
        network = IPv4Network(wanted)
        clash = next((one for one in used if one.overlaps(network)), None)
        if clash is not None:
            raise ClusterError(
                f"network {wanted} overlaps {clash}, which this machine uses. Name another /24 as "
                "`network:`, or leave it out, and a free one is taken."
            )
        return network
    found = free(cluster_id, used)
    if found is None:
        raise ClusterError("no private /24 network is free on this machine; name one: `network:`")
    return found


def free(cluster_id: str, used: Iterable[IPv4Network]) -> IPv4Network | None:
    """The first /24 of 10.64.0.0/10, from where the id points, that overlaps none of `used`."""
    blocked = tuple(used)
    first = int(cluster_id[:8], 16) % 16384
    for step in range(16384):
        place = (first + step) % 16384
        network = IPv4Network((int(IPv4Address("10.64.0.0")) + place * 256, 24))
        if not any(network.overlaps(one) for one in blocked):
            return network
    return None


def routes(listed: bytes) -> list[IPv4Network]:
    """The networks of `ip -json route`, without the default route."""
    found = []
    for route in json.loads(listed or b"[]"):
        target = route.get("dst", "default")
        if target in ("default", "0.0.0.0/0"):
            continue
        try:
            found.append(ipaddress.IPv4Network(target, strict=False))
        except ValueError:  # a name of iproute2's own; no network
            continue
    return found


def _write(file: Path, value: str) -> None:
    try:
        if file.read_text().strip() != value:
            file.write_text(value)
    except OSError as error:
        raise ClusterError(f"{file} cannot be set to {value}: {error.strerror}") from error
