"""What single fields of clusterkit.yaml take: how each is checked, and what an editor is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, WithJsonSchema

from clusterkit.cluster import cloud_values, slurm_keys, values
from clusterkit.cluster.slurm_keys import Scalar


def _path(value: object, info: ValidationInfo) -> Path | None:
    folder = (info.context or {}).get("folder")
    return None if value is None else values.path(value, folder)


def optional(check: Callable[[object], object]) -> Callable[[object], object]:
    return lambda value: None if value is None else check(value)


def text_schema(*alternatives: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [*alternatives, {"type": "null"}]})


_MEASURE = {"type": "string", "pattern": r"^[0-9]+\s*[MGTmgt]?$"}
_TIME = {"type": "string", "pattern": r"^[0-9]+\s*[smhdSMHD]?$"}
SCALARS = {"type": ["string", "number", "boolean", "null"]}
TEXT = {"type": "string", "minLength": 1}

Memory = Annotated[
    int | None,
    BeforeValidator(optional(values.memory)),
    text_schema({"type": "integer", "minimum": 1}, _MEASURE),
]
Seconds = Annotated[
    int,
    BeforeValidator(values.duration),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, _TIME]}),
]
FilePath = Annotated[Path | None, BeforeValidator(_path), text_schema(TEXT)]
User = Annotated[
    str,
    BeforeValidator(values.user),
    WithJsonSchema({"type": "string", "pattern": f"^{values.ACCOUNT}$"}),
]
Login = Annotated[
    str | None,
    BeforeValidator(optional(values.account)),
    text_schema({"type": "string", "pattern": f"^{values.ACCOUNT}$"}),
]
PythonVersion = Annotated[str | None, BeforeValidator(optional(values.version)), text_schema(TEXT)]
Mirror = Annotated[str | None, BeforeValidator(optional(values.mirror)), text_schema(TEXT)]
PrivateNetwork = Annotated[str | None, BeforeValidator(optional(values.network)), text_schema(TEXT)]
LoginNode = Annotated[str | None, BeforeValidator(optional(values.host_text)), text_schema(TEXT)]
OwnAddress = Annotated[str, BeforeValidator(values.own_address), WithJsonSchema(TEXT)]
Profile = Annotated[
    str | None,
    BeforeValidator(optional(lambda value: values.text(value, "the name of a profile"))),
    text_schema(TEXT),
]
Ec2Region = Annotated[
    str | None,
    BeforeValidator(optional(cloud_values.ec2_region)),
    text_schema({"type": "string", "pattern": f"^{cloud_values.EC2_REGION}$"}),
]
Ec2Subnet = Annotated[
    str | None,
    BeforeValidator(optional(cloud_values.ec2_subnet)),
    text_schema({"type": "string", "pattern": f"^{cloud_values.EC2_SUBNET}$"}),
]
Ec2Image = Annotated[
    str,
    BeforeValidator(cloud_values.ec2_image),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(cloud_values.EC2_IMAGES)},
                {"type": "string", "pattern": f"^{cloud_values.EC2_AMI}$"},
            ]
        }
    ),
]
GceRegion = Annotated[
    str | None,
    BeforeValidator(optional(cloud_values.gce_region)),
    text_schema({"type": "string", "pattern": f"^{cloud_values.GCE_REGION}$"}),
]
GceProject = Annotated[
    str | None,
    BeforeValidator(optional(cloud_values.gce_project)),
    text_schema({"type": "string", "pattern": f"^{cloud_values.GCE_PROJECT}$"}),
]
GceNetwork = Annotated[
    str | None,
    BeforeValidator(optional(cloud_values.gce_network)),
    text_schema({"type": "string", "pattern": f"^{cloud_values.GCE_NETWORK}$"}),
]
GceSubnetwork = Annotated[
    str | None,
    BeforeValidator(optional(cloud_values.gce_subnetwork)),
    text_schema({"type": "string", "pattern": f"^{cloud_values.GCE_SUBNETWORK}$"}),
]
GceEndpoint = Annotated[
    str | None,
    BeforeValidator(optional(cloud_values.gce_endpoint)),
    text_schema({"type": "string", "pattern": "^https?://"}),
]
GceImage = Annotated[
    str,
    BeforeValidator(cloud_values.gce_image),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(cloud_values.GCE_IMAGES)},
                {"type": "string", "pattern": f"^{cloud_values.GCE_IMAGE}$"},
            ]
        }
    ),
]
GceRun = Annotated[
    int | None,
    BeforeValidator(optional(cloud_values.gce_run)),
    text_schema({"type": "integer", "minimum": 30}, _TIME),
]
HostText = Annotated[str, BeforeValidator(values.host_text), WithJsonSchema(TEXT)]
SlurmConf = Annotated[
    dict[str, Scalar],
    BeforeValidator(slurm_keys.settings),
    WithJsonSchema({"type": ["object", "null"], "additionalProperties": SCALARS}),
]
PartitionConf = Annotated[
    dict[str, Scalar],
    BeforeValidator(slurm_keys.partition),
    WithJsonSchema({"type": ["object", "null"], "additionalProperties": SCALARS}),
]
GroupName = Annotated[
    str,
    BeforeValidator(values.group_name),
    WithJsonSchema({"type": "string", "pattern": f"^{values.GROUP_NAME}$"}),
]


def _listing(pattern: str, *words: str) -> WithJsonSchema:
    """One of a pattern, or a list of them; or one of `words`, alone."""
    item = {"type": "string", "pattern": f"^{pattern}$"}
    more = [{"const": word} for word in words]
    return WithJsonSchema(
        {
            "anyOf": [
                *more,
                item,
                {"type": "array", "items": item, "minItems": 1, "uniqueItems": True},
            ]
        }
    )


def _any(zones: tuple[str, ...]) -> list[str] | str:
    return list(zones) or "any"


_NAME = r"[a-z0-9][a-z0-9._-]{0,62}"

Disk = Annotated[
    int | None,
    BeforeValidator(optional(values.disk)),
    text_schema(
        {"type": "integer", "minimum": 1, "maximum": values.LARGEST_DISK},
        {"type": "string", "pattern": r"^[0-9]+\s*[GTgt]?$"},
    ),
]
Cidrs = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: cloud_values.several(values.cidr)(value) if value else ()),
    _listing(r"[0-9.]+(/[0-9]{1,2})?"),
]
Types = Annotated[
    tuple[str, ...], BeforeValidator(cloud_values.several(cloud_values.word)), _listing(_NAME)
]
Zones = Annotated[
    tuple[str, ...],
    BeforeValidator(cloud_values.any_or_several(cloud_values.word)),
    PlainSerializer(_any, when_used="json"),
    _listing(_NAME, "any"),
]
Ec2Types = Annotated[
    tuple[str, ...],
    BeforeValidator(cloud_values.several(cloud_values.ec2_type)),
    _listing(cloud_values.EC2_TYPE),
]
Ec2Zones = Annotated[
    tuple[str, ...],
    BeforeValidator(cloud_values.any_or_several(cloud_values.ec2_zone)),
    PlainSerializer(_any, when_used="json"),
    _listing(cloud_values.EC2_ZONE, "any"),
]
GceTypes = Annotated[
    tuple[str, ...],
    BeforeValidator(cloud_values.several(cloud_values.gce_type)),
    _listing(cloud_values.GCE_TYPE),
]
GceZones = Annotated[
    tuple[str, ...],
    BeforeValidator(cloud_values.any_or_several(cloud_values.gce_zone)),
    PlainSerializer(_any, when_used="json"),
    _listing(cloud_values.GCE_ZONE, "any"),
]
#: A cloud's machine has what its type has.
Decided = Annotated[
    None, BeforeValidator(optional(cloud_values.decided)), WithJsonSchema({"type": "null"})
]
Cpus = Annotated[int | None, Field(ge=1, le=65_000)]
