"""Values of the clouds' settings: names of machine types, zones, images, as each cloud has them.

As in `values`, each function takes a value as YAML gives it and raises ValueError with what is
expected instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from clusterkit.cluster.values import shown, text, unknown

#: A region of EC2, such as us-east-1 or us-gov-west-1.
EC2_REGION: Final = r"[a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2}"
#: A zone: the region's name and a letter; a local zone has its city between, us-west-2-lax-1a.
EC2_ZONE: Final = rf"({EC2_REGION})(?:-[a-z0-9]+-[0-9]{{1,2}})?[a-z]"
EC2_TYPE: Final = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*\.[a-z0-9]+(?:-[a-z0-9]+)*"
EC2_AMI: Final = r"ami-[0-9a-f]{8,17}"
EC2_SUBNET: Final = r"subnet-[0-9a-f]{8,17}"

#: Images of EC2 that are known by name; Amazon's and the distributions' own.
EC2_IMAGES: Final = ("ubuntu-22.04", "ubuntu-24.04", "debian-12", "debian-13", "dlami-gpu")


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
