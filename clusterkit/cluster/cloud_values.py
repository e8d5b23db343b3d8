"""Values of the clouds' settings: names of machine types, zones, images, as each cloud has them.

As in `values`, each function takes a value as YAML gives it and raises ValueError with what is
expected instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from clusterkit.cluster.values import duration, shown, text, unknown

#: A region of EC2, such as us-east-1 or us-gov-west-1.
EC2_REGION: Final = r"[a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2}"
#: A zone: the region's name and a letter; a local zone has its city between, us-west-2-lax-1a.
EC2_ZONE: Final = rf"({EC2_REGION})(?:-[a-z0-9]+-[0-9]{{1,2}})?[a-z]"
EC2_TYPE: Final = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*\.[a-z0-9]+(?:-[a-z0-9]+)*"
EC2_AMI: Final = r"ami-[0-9a-f]{8,17}"
EC2_SUBNET: Final = r"subnet-[0-9a-f]{8,17}"

#: Images of EC2 that are known by name; Amazon's and the distributions' own.
EC2_IMAGES: Final = ("ubuntu-22.04", "ubuntu-24.04", "debian-12", "debian-13", "dlami-gpu")

#: What Google calls most things: letters, digits and hyphens, as in a host's name.
GCE_NAME: Final = r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"
#: A region of Google's, such as us-central1; a zone has a letter behind it, or ai1 and a letter.
GCE_REGION: Final = r"[a-z]+-[a-z]+[0-9]{1,2}"
GCE_ZONE: Final = rf"({GCE_REGION})-(?:ai[0-9]+)?[a-z]"
#: A project's id; a company's old ones begin with its domain.
GCE_PROJECT: Final = rf"(?:[a-z0-9.-]+\.[a-z]+:)?{GCE_NAME}"
#: A machine type, and GPUs that are attached to it: n1-standard-8+nvidia-tesla-t4:1.
GCE_MACHINE: Final = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)+"
GCE_TYPE: Final = rf"({GCE_MACHINE})(?:\+(nvidia-[a-z0-9-]*[a-z0-9]):([1-9][0-9]?))?"
GCE_IMAGE: Final = rf"(?:(?:projects/{GCE_PROJECT}/global/images/)?(?:family/)?)?{GCE_NAME}"
GCE_NETWORK: Final = rf"(?:projects/{GCE_PROJECT}/global/networks/)?{GCE_NAME}"
GCE_SUBNETWORK: Final = rf"(?:projects/{GCE_PROJECT}/regions/{GCE_REGION}/subnetworks/)?{GCE_NAME}"

#: Images of Google's that are known by name.
GCE_IMAGES: Final = ("ubuntu-22.04", "ubuntu-24.04", "dlvm-gpu")
#: GPUs that are attached to types of N1; other types have theirs, or can have none.
_GCE_GPUS: Final = ("nvidia-tesla-t4", "nvidia-tesla-v100", "nvidia-tesla-p100", "nvidia-tesla-p4")
#: Names that an own image could have, but that public ones do have.
_PUBLIC: Final = r"(ubuntu|debian)-([0-9]|minimal-).*|(common|pytorch)-.*-(ubuntu|debian)-.*"
#: Seconds that Google takes as a machine's longest life: half a minute to 120 days.
_SHORTEST_RUN, _LONGEST_RUN = 30, 120 * 86400


def several(check: Callable[[object], str]) -> Callable[[object], tuple[str, ...]]:
    """One or more, in order: `[a, b]`, or just `a`."""

    def checked(value: object) -> tuple[str, ...]:
        items = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not items:
            raise ValueError("expected at least one")
        found = tuple(map(check, items))
        twice = sorted({item for item in found if found.count(item) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is there twice; keep one")
        return found

    return checked


def any_or_several(check: Callable[[object], str]) -> Callable[[object], tuple[str, ...]]:
    """The same; `any` is none in particular, ()."""
    return lambda value: () if value in ("any", ()) else several(check)(value)


def word(value: object) -> str:
    """A name as clouds have them, where a cloud does not say more."""
    if isinstance(value, str) and re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", value):
        return value
    return text(value, "a name of small letters, digits, dots and hyphens")


def decided(value: object) -> None:
    """Processors and memory of a cloud's machine cannot be chosen one by one."""
    raise ValueError(
        f"the machine type decides this, not {shown(value)}; take it out, or choose among `types`"
    )


def ec2_region(value: object) -> str:
    words = "expected a region such as us-east-1 or eu-central-1"
    if isinstance(value, str):
        if re.fullmatch(EC2_REGION, value):
            return value
        zone = re.fullmatch(EC2_ZONE, value)
        if zone is not None:
            raise ValueError(
                f"{value} is a zone; its region is {zone[1]}, and `zones` in `head` or in a group "
                "choose zones"
            )
    raise ValueError(f"{words}, not {shown(value)}")


def ec2_zone(value: object) -> str:
    words = "expected any, or zones such as us-east-1a"
    if not isinstance(value, str):
        raise ValueError(f"{words}, not {shown(value)}")  # noqa: TRY004 - pydantic's contract
    if re.fullmatch(EC2_ZONE, value):
        return value
    hint = ""
    if re.fullmatch(EC2_REGION, value):
        hint = f"; {value} is a region: its zones are {value}a and so on"
    elif re.fullmatch(r"[a-z]+[0-9]*-az[0-9]+", value):
        hint = "; this is a zone's id, which is the same for all accounts; its name is needed"
    elif value == "any":
        hint = "; `any` stands alone"
    raise ValueError(f"{words}, not {shown(value)}{hint}")


def ec2_zone_region(zone: str) -> str:
    """The region that a zone belongs to, "" for what is no zone."""
    found = re.fullmatch(EC2_ZONE, zone)
    return found[1] if found is not None else ""


def ec2_type(value: object) -> str:
    if isinstance(value, str):
        if re.fullmatch(EC2_TYPE, value):
            return value
        if re.fullmatch(EC2_TYPE, value.strip().lower()):
            raise ValueError(f"expected {value.strip().lower()}, not {shown(value)}")
    raise ValueError(f"expected machine types such as g5.xlarge, not {shown(value)}")


def ec2_image(value: object) -> str:
    if isinstance(value, str):
        if value in EC2_IMAGES or re.fullmatch(EC2_AMI, value):
            return value
        if value.startswith("ami-"):
            raise ValueError(f"{shown(value)} is no id of an image; one is ami- and 8 or 17 digits")
        raise ValueError(
            f"{shown(value)} is {unknown(value, EC2_IMAGES)}, or an image's id, ami-..."
        )
    raise ValueError(f"expected {', '.join(EC2_IMAGES)} or an image's id, not {shown(value)}")


def ec2_subnet(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(EC2_SUBNET, value):
        return value
    raise ValueError(f"expected a subnet's id, subnet-0123456789abcdef0, not {shown(value)}")


def gce_region(value: object) -> str:
    words = "expected a region such as us-central1 or europe-west4"
    if isinstance(value, str):
        if re.fullmatch(GCE_REGION, value):
            return value
        region = gce_zone_region(value)
        if region:
            raise ValueError(
                f"{value} is a zone; its region is {region}, and `zones` in `head` or in a group "
                "choose zones"
            )
    raise ValueError(f"{words}, not {shown(value)}")


def gce_zone(value: object) -> str:
    words = "expected any, or zones such as us-central1-a"
    if not isinstance(value, str):
        raise ValueError(f"{words}, not {shown(value)}")  # noqa: TRY004 - pydantic's contract
    if gce_zone_region(value):
        return value
    hint = ""
    if re.fullmatch(GCE_REGION, value):
        hint = f"; {value} is a region: its zones are {value}-a and so on"
    elif value == "any":
        hint = "; `any` stands alone"
    elif re.fullmatch(rf"{GCE_REGION}[a-z]", value):
        hint = f"; did you mean {value[:-1]}-{value[-1]}?"
    raise ValueError(f"{words}, not {shown(value)}{hint}")


def gce_zone_region(zone: str) -> str:
    """The region that a zone belongs to, "" for what is no zone."""
    found = re.fullmatch(GCE_ZONE, zone)
    return found[1] if found is not None else ""


def gce_type(value: object) -> str:
    """A machine type, with or without attached GPUs."""
    words = "expected machine types such as g2-standard-8 or n1-standard-8+nvidia-tesla-t4:1"
    if not isinstance(value, str):
        raise ValueError(f"{words}, not {shown(value)}")  # noqa: TRY004 - pydantic's contract
    machine, plus, attached = value.partition("+")
    if not re.fullmatch(GCE_MACHINE, machine):
        small = value.strip().lower()
        if small != value and re.fullmatch(GCE_TYPE, small):
            raise ValueError(f"expected {small}, not {shown(value)}")
        raise ValueError(f"{words}, not {shown(value)}")
    if plus:
        _attached(machine, attached)
    return value


def _attached(machine: str, attached: str) -> None:
    """Refuse what Google cannot attach to a machine type, `nvidia-tesla-t4:1`."""
    gpu, _, count = attached.partition(":")
    if gpu not in _GCE_GPUS:
        model = gpu.lower().rpartition("-")[2]
        near = [one for one in _GCE_GPUS if one.rpartition("-")[2] == model]
        if near and not gpu.endswith("-vws"):
            raise ValueError(f"{shown(gpu)} is no GPU of Google's; did you mean {near[0]}?")
    if not re.fullmatch(GCE_TYPE, f"{machine}+{gpu}:1"):
        raise ValueError(
            f"expected a GPU such as {_GCE_GPUS[0]} behind the +, not {shown(attached)}"
        )
    if count not in ("1", "2", "4", "8"):
        raise ValueError(
            f"expected 1, 2, 4 or 8 GPUs, as {machine}+{gpu}:1, not {shown(count)}"
            if count
            else f"how many GPUs? For one write {machine}+{gpu}:1"
        )
    if not re.fullmatch(r"n1-(standard|highmem|highcpu|custom)-.+|custom-.+", machine):
        raise ValueError(
            f"GPUs are attached to types of N1 alone, such as n1-standard-8; {machine} has GPUs of "
            "its own, or cannot have any"
        )


def gce_image(value: object) -> str:
    words = (
        f"expected {', '.join(GCE_IMAGES)}, family/NAME, projects/PROJECT/global/images/family/NAME"
        ", or an image's name"
    )
    if not isinstance(value, str):
        raise ValueError(f"{words}, not {shown(value)}")  # noqa: TRY004 - pydantic's contract
    if value in GCE_IMAGES:
        return value
    if re.fullmatch(_PUBLIC, value):
        raise ValueError(
            f"{shown(value)} is {unknown(value, GCE_IMAGES)}; other public images are written with "
            "their project, projects/PROJECT/global/images/family/NAME"
        )
    return _resource(value, GCE_IMAGE, words)


def gce_project(value: object) -> str:
    words = "expected a project's id, such as my-project-123456"
    if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
        raise ValueError(f"{words}, not its number, {shown(value)}")
    if isinstance(value, str) and re.fullmatch(GCE_PROJECT, value):
        return value
    raise ValueError(f"{words}, not {shown(value)}; `gcloud projects list` shows the ids")


def gce_network(value: object) -> str:
    words = "expected a network's name, or projects/PROJECT/global/networks/NAME"
    return _resource(value, GCE_NETWORK, words)


def gce_subnetwork(value: object) -> str:
    words = "expected a subnetwork's name, or projects/PROJECT/regions/REGION/subnetworks/NAME"
    return _resource(value, GCE_SUBNETWORK, words)


def _resource(value: object, pattern: str, words: str) -> str:
    """The name or the path of something in a project."""
    if isinstance(value, str):
        if re.fullmatch(pattern, value):
            return value
        path = re.sub(r"^https?://[^/]+/(compute/)?(v1|beta)/", "", value)
        if path != value and re.fullmatch(pattern, path):
            raise ValueError(f"{words}, not its address; write {path}")
    raise ValueError(f"{words}, not {shown(value)}")


def gce_endpoint(value: object) -> str:
    """Where another Compute Engine than Google's answers; without a slash at the end."""
    words = "expected an address such as http://127.0.0.1:8080"
    if isinstance(value, str):
        if re.fullmatch(r"https?://[^\s/?#@]+(?:/[^\s?#]*)?", value):
            return value.rstrip("/")
        if re.fullmatch(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?/?", value):
            raise ValueError(f"{words}, not {shown(value)}; did you mean http://{value}?")
    raise ValueError(f"{words}, not {shown(value)}")


def gce_run(value: object) -> int:
    """Seconds that a machine lives at most."""
    found = duration(value)
    if not _SHORTEST_RUN <= found <= _LONGEST_RUN:
        raise ValueError(f"expected from 30s to 120d, not {shown(value)}")
    return found


def gce_disk_type(wished: str, machine_type: str) -> str:
    """The kind of a machine type's boot disk, where `wished` may be `auto`.

    Series of the fourth generation and later take Hyperdisk alone, as a3-ultragpu does.
    Source: cloud.google.com/compute/docs/machine-resource
    """
    if wished != "auto":
        return wished
    return "hyperdisk-balanced" if _late(machine_type) else "pd-balanced"


def gce_takes(disk_type: str, machine_type: str) -> bool:
    """Whether a machine type may boot from this kind of disk; True where that is not certain."""
    if disk_type.startswith("hyperdisk-"):
        return not machine_type.startswith(("e2-", "n1-"))
    return disk_type == "auto" or not _late(machine_type)


def gce_places(machine_type: str) -> bool:
    """Whether machines of this type may be put close together; True where that is not certain.

    Source: cloud.google.com/compute/docs/instances/use-compact-placement-policies
    """
    return not machine_type.startswith(("e2-", "n1-"))


def _late(machine_type: str) -> bool:
    series = re.match(r"[a-z]+([0-9]+)", machine_type)
    return machine_type.startswith("a3-ultragpu-") or (series is not None and int(series[1]) >= 4)
