"""What AWS offers, as far as clusterkit asks: images, prices, quotas. Made up: names, owners, codes
and the shapes of the answers are AWS's, the numbers are not, and are no source for anything.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

#: US dollars an hour of Linux on demand, in us-east-1.
ON_DEMAND = {
    "t3.micro": 0.0104, "t3.small": 0.0208, "t3.medium": 0.0416, "t3.large": 0.0832,
    "t3.xlarge": 0.1664, "t3a.medium": 0.0376, "t4g.medium": 0.0336,
    "m5.large": 0.096, "m5.xlarge": 0.192, "m6i.large": 0.096, "m6i.xlarge": 0.192,
    "m7i.large": 0.1008, "m6g.large": 0.077, "m7g.large": 0.0816,
    "c5.large": 0.085, "c5.xlarge": 0.17, "c6i.large": 0.085, "c6i.xlarge": 0.17,
    "c7i.large": 0.08925, "c7i.xlarge": 0.1785, "r5.large": 0.126,
    "g4dn.xlarge": 0.526, "g4dn.2xlarge": 0.752, "g4dn.12xlarge": 3.912,
    "g5.xlarge": 1.006, "g5.2xlarge": 1.212, "g5.12xlarge": 5.672, "g5.48xlarge": 16.288,
    "g6.xlarge": 0.8048, "g6.2xlarge": 0.9776, "g5g.xlarge": 0.42,
    "p3.2xlarge": 3.06, "p4d.24xlarge": 32.7726,
}  # fmt: skip
#: Other regions cost a little more.
_REGIONS = {
    "us-east-1": ("US East (N. Virginia)", 1.0, ""),
    "us-east-2": ("US East (Ohio)", 1.0, "USE2-"),
    "us-west-2": ("US West (Oregon)", 1.0, "USW2-"),
    "eu-central-1": ("EU (Frankfurt)", 1.25, "EUC1-"),
    "eu-west-1": ("EU (Ireland)", 1.1, "EU-"),
    "eu-north-1": ("EU (Stockholm)", 1.06, "EUN1-"),
}
#: US dollars: a GiB of gp3 and of a snapshot for a month, a public IPv4 address for an hour.
GP3, SNAPSHOT, ADDRESS = 0.08, 0.05, 0.005
#: The page of quotas: family -> (on demand, spot), by code.
QUOTA_CODES = {
    "standard": ("L-1216C47A", "L-34B43A08"),
    "g": ("L-DB2E81BA", "L-3819A6DF"),
    "p": ("L-417A185B", "L-7212CCBC"),
    "p5": ("L-417A185B", "L-C4BD4855"),
    "f": ("L-74FC7D96", "L-88CF9481"),
    "x": ("L-7295265B", "L-E3A00192"),
    "inf": ("L-1945791B", "L-B5D1601B"),
    "trn": ("L-2C3B7624", "L-6B0D517C"),
    "dl": ("L-6E869C2A", "L-85EED4F7"),
    "hpc": ("L-F7808C92", ""),
}
QUOTA_NAMES = {
    "L-1216C47A": "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
    "L-34B43A08": "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
    "L-DB2E81BA": "Running On-Demand G and VT instances",
    "L-3819A6DF": "All G and VT Spot Instance Requests",
    "L-417A185B": "Running On-Demand P instances",
    "L-7212CCBC": "All P4, P3 and P2 Spot Instance Requests",
    "L-C4BD4855": "All P5 Spot Instance Requests",
    "L-74FC7D96": "Running On-Demand F instances",
    "L-88CF9481": "All F Spot Instance Requests",
    "L-7295265B": "Running On-Demand X instances",
    "L-E3A00192": "All X Spot Instance Requests",
    "L-1945791B": "Running On-Demand Inf instances",
    "L-B5D1601B": "All Inf Spot Instance Requests",
    "L-2C3B7624": "Running On-Demand Trn instances",
    "L-6B0D517C": "All Trn Spot Instance Requests",
    "L-6E869C2A": "Running On-Demand DL instances",
    "L-85EED4F7": "All DL Spot Instance Requests",
    "L-F7808C92": "Running On-Demand HPC instances",
}

CANONICAL, DEBIAN, AMAZON, STRANGER = (
    "099720109477", "136693071363", "898082745236", "999999999999",
)  # fmt: skip


def family(type_: str) -> str:
    """Which quota a type counts against."""
    series = re.match(r"[a-z]+\d*", type_.partition(".")[0])
    name = series[0] if series else ""
    if name.startswith(("g", "vt")):
        return "g"
    if name.startswith("p5"):
        return "p5"
    for one in ("inf", "trn", "dl", "hpc", "p", "f", "x"):
        if name.startswith(one):
            return one
    return "standard"


def quota_code(type_: str, spot: bool) -> str:
    return QUOTA_CODES[family(type_)][1 if spot else 0]


@dataclass(frozen=True, slots=True)
class Offered:
    """A public image: names of it are `name` and, newest of its kind, the SSM parameter."""

    name: str
    owner: str
    arch: str
    root: str
    disk: int
    days: int  # its age
    parameters: tuple[str, ...] = ()
    alias: str = ""

    def ami(self, region: str) -> str:
        said = f"{region} {self.owner} {self.name}"
        return f"ami-{hashlib.sha256(said.encode()).hexdigest()[:17]}"

    def image(self, region: str) -> dict[str, Any]:
        """As DescribeImages shows it."""
        made = datetime.now(UTC) - timedelta(days=self.days)
        snapshot = "snap-" + self.ami(region)[4:]
        ebs = {"SnapshotId": snapshot, "VolumeSize": self.disk, "VolumeType": "gp3"}
        ebs |= {"DeleteOnTermination": True, "Encrypted": False}
        described = {
            "ImageId": self.ami(region), "Name": self.name, "OwnerId": self.owner,
            "Architecture": self.arch, "State": "available", "Public": True,
            "CreationDate": f"{made:%Y-%m-%dT%H:%M:%S.000Z}", "ImageType": "machine",
            "RootDeviceName": self.root, "RootDeviceType": "ebs", "VirtualizationType": "hvm",
            "Hypervisor": "xen", "EnaSupport": True, "PlatformDetails": "Linux/UNIX", "Tags": [],
            "ImageLocation": f"{self.alias or self.owner}/{self.name}",
            "Description": self.name.replace("/", " "),
            "BlockDeviceMappings": [{"DeviceName": self.root, "Ebs": ebs}],
        }  # fmt: skip
        if self.alias:
            described["ImageOwnerAlias"] = self.alias
        return described


def offered() -> Iterator[Offered]:
    """Every public image; of each kind a new and an old one, and one that only looks like it."""
    for version, code, kind in (("22.04", "jammy", "hvm-ssd"), ("24.04", "noble", "hvm-ssd-gp3")):
        volume = kind.rpartition("-")[2] if kind.endswith("gp3") else "gp2"
        for deb, arch in (("amd64", "x86_64"), ("arm64", "arm64")):
            name = f"ubuntu/images/{kind}/ubuntu-{code}-{version}-{deb}-server-"
            path = f"/aws/service/canonical/ubuntu/server/{version}/stable/current/{deb}/hvm/"
            said = (f"{path}ebs-{volume}/ami-id",)
            yield Offered(f"{name}20261105", CANONICAL, arch, "/dev/sda1", 8, 16, said)
            yield Offered(f"{name}20250102", CANONICAL, arch, "/dev/sda1", 8, 680)
            yield Offered(f"{name}20261120", STRANGER, arch, "/dev/sda1", 8, 1)
    for release in ("12", "13"):
        for deb, arch in (("amd64", "x86_64"), ("arm64", "arm64")):
            said = (f"/aws/service/debian/release/{release}/latest/{deb}",)
            name = f"debian-{release}-{deb}-"
            yield Offered(f"{name}20261030-2281", DEBIAN, arch, "/dev/xvda", 8, 22, said)
            yield Offered(f"{name}20250210-2019", DEBIAN, arch, "/dev/xvda", 8, 640)
            yield Offered(f"{name}20261119-9999", STRANGER, arch, "/dev/xvda", 8, 2)
    for version in ("22.04", "24.04"):
        for arch in ("x86_64", "arm64"):
            cpu = "ARM64 " if arch == "arm64" else ""
            name = f"Deep Learning {cpu}Base OSS Nvidia Driver GPU AMI (Ubuntu {version}) "
            path = f"/aws/service/deeplearning/ami/{arch}/base-oss-nvidia-driver-gpu-ubuntu-"
            said = (f"{path}{version}/latest/ami-id",)
            new = Offered(f"{name}20261107", AMAZON, arch, "/dev/sda1", 75, 14, said, "amazon")
            yield new
            yield Offered(f"{name}20250301", AMAZON, arch, "/dev/sda1", 75, 630, (), "amazon")


def parameters(region: str) -> dict[str, str]:
    """The public SSM parameters of a region."""
    return {name: one.ami(region) for one in offered() for name in one.parameters}


def spot_price(type_: str, zone: str) -> float:
    """About a third of what it costs on demand, another third in each zone."""
    _, factor, _ = _REGIONS.get(zone[:-1], ("", 1.1, ""))
    digest = hashlib.sha256(f"{type_} {zone}".encode()).digest()[0]
    return round(ON_DEMAND[type_] * factor * (0.28 + digest / 255 * 0.2), 4)


def products(vcpus: dict[str, tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """The Price List's products, as get_products answers them (each of them a JSON text there).

    `vcpus`: type -> processors, MiB of memory. Beside what is asked for there are others that only
    differ in one attribute, as there are in the real list.
    """
    for region, (location, factor, prefix) in _REGIONS.items():
        at = {"location": location, "locationType": "AWS Region", "regionCode": region}
        for type_, price in ON_DEMAND.items():
            cpus, memory = vcpus.get(type_, (2, 4096))
            yield from _machine(type_, round(price * factor, 6), cpus, memory, prefix, at)
        gp3 = {
            "servicecode": "AmazonEC2", "volumeType": "General Purpose", "volumeApiName": "gp3",
            "storageMedia": "SSD-backed", "maxVolumeSize": "16 TiB",
            "usagetype": f"{prefix}EBS:VolumeUsage.gp3", "operation": "", **at,
        }  # fmt: skip
        yield _product("Storage", "AmazonEC2", gp3, GP3 * factor, "GB-Mo")
        iops = {**gp3, "usagetype": f"{prefix}EBS:VolumeP-IOPS.gp3", "group": "EBS IOPS"}
        yield _product("System Operation", "AmazonEC2", iops, 0.005 * factor, "IOPS-Mo")
        gp2 = {**gp3, "volumeApiName": "gp2", "usagetype": f"{prefix}EBS:VolumeUsage.gp2"}
        yield _product("Storage", "AmazonEC2", gp2, 0.1 * factor, "GB-Mo")
        snapshot = {
            "servicecode": "AmazonEC2", "storageMedia": "Amazon S3", "operation": "",
            "usagetype": f"{prefix}EBS:SnapshotUsage", **at,
        }  # fmt: skip
        yield _product("Storage Snapshot", "AmazonEC2", snapshot, SNAPSHOT * factor, "GB-Mo")
        archive = {**snapshot, "usagetype": f"{prefix}EBS:SnapshotArchiveStorage"}
        yield _product("Storage Snapshot", "AmazonEC2", archive, 0.0125 * factor, "GB-Mo")
        for usage, price in (("InUse", ADDRESS), ("Idle", ADDRESS)):
            address = {
                "servicecode": "AmazonVPC", "group": "VPCPublicIPv4Address",
                "groupDescription": f"Hourly charge for {usage} Public IPv4 Addresses",
                "usagetype": f"{prefix}PublicIPv4:{usage}Address", "operation": "", **at,
            }  # fmt: skip
            yield _product("VpcPublicIPv4Address", "AmazonVPC", address, price, "Hrs")


def _machine(
    type_: str, price: float, cpus: int, memory: int, prefix: str, at: dict[str, str]
) -> Iterator[dict[str, Any]]:
    common = {
        "servicecode": "AmazonEC2", "servicename": "Amazon Elastic Compute Cloud",
        "instanceType": type_, "vcpu": str(cpus), "memory": f"{memory / 1024:g} GiB",
        "operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA",
        "capacitystatus": "Used", "licenseModel": "No License required",
        "marketoption": "OnDemand", "operation": "RunInstances",
        "usagetype": f"{prefix}BoxUsage:{type_}", "currentGeneration": "Yes", **at,
    }  # fmt: skip
    usage = f"{prefix}UnusedBox:{type_}"
    for other, factor in (
        ({}, 1.0),
        ({"operatingSystem": "Windows", "operation": "RunInstances:0002"}, 1.9),
        ({"operatingSystem": "RHEL", "operation": "RunInstances:0010"}, 1.4),
        ({"tenancy": "Dedicated", "usagetype": f"{prefix}DedicatedUsage:{type_}"}, 1.1),
        ({"preInstalledSw": "SQL Std", "operation": "RunInstances:0004"}, 4.0),
        ({"capacitystatus": "UnusedCapacityReservation", "usagetype": usage}, 1.0),
        ({"capacitystatus": "AllocatedCapacityReservation"}, 0.0),
    ):
        attributes = {**common, **other}
        yield _product("Compute Instance", "AmazonEC2", attributes, price * factor, "Hrs")


def _product(
    kind: str, service: str, attributes: dict[str, str], price: float, unit: str
) -> dict[str, Any]:
    said = f"{kind} {sorted(attributes.items())}"
    sku = hashlib.sha256(said.encode()).hexdigest()[:16].upper()
    term, rate = f"{sku}.JRTCKXETXF", f"{sku}.JRTCKXETXF.6YS6EN2CT7"
    dimension = {
        "unit": unit, "endRange": "Inf", "beginRange": "0", "appliesTo": [], "rateCode": rate,
        "description": f"${price:.4f} per {unit}", "pricePerUnit": {"USD": f"{price:.10f}"},
    }  # fmt: skip
    on_demand = {
        "priceDimensions": {rate: dimension}, "sku": sku, "offerTermCode": "JRTCKXETXF",
        "effectiveDate": "2026-11-01T00:00:00Z", "termAttributes": {},
    }  # fmt: skip
    return {
        "product": {"productFamily": kind, "attributes": attributes, "sku": sku},
        "serviceCode": service,
        "terms": {"OnDemand": {term: on_demand}},
        "version": "20261118120000",
        "publicationDate": "2026-11-18T12:00:00Z",
    }
