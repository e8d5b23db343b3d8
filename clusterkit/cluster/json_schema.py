"""The JSON Schema of clusterkit.yaml, for editors. Pure."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from clusterkit.cluster import values
from clusterkit.cluster.spec import SPECS


def schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12). It knows keys, types and choices; `config` knows the rest."""
    _, made = models_json_schema([(model, "validation") for model in SPECS.values()])
    definitions: dict[str, Any] = made["$defs"]
    for definition in definitions.values():
        definition.pop("title", None)
        for name, field in definition.get("properties", {}).items():
            field.pop("title", None)
            if name == "workers":
                field["propertyNames"] = {"pattern": f"^{values.GROUP_NAME}$"}
            if name in _SECTIONS:
                _may_be_empty(field)
    choices = []
    for provider, model in SPECS.items():
        definition = definitions[model.__name__]
        definition["required"] = ["provider", *definition.get("required", ())]
        choices.append(
            {
                "if": {"properties": {"provider": {"const": provider}}, "required": ["provider"]},
                "then": {"$ref": f"#/$defs/{model.__name__}"},
            }
        )
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "clusterkit.yaml",
        "description": "The clusters that clusterkit starts and uses.",
        "type": "object",
        "additionalProperties": False,
        "required": ["clusters"],
        "properties": {
            "clusters": {
                "description": "A name for each cluster, and its settings.",
                "type": ["object", "null"],
                "propertyNames": {"pattern": f"^{values.CLUSTER_NAME}$"},
                "additionalProperties": {
                    "type": "object",
                    "required": ["provider"],
                    "properties": {
                        "provider": {
                            "description": "Where the machines come from.",
                            "enum": list(SPECS),
                        }
                    },
                    "allOf": choices,
                },
            }
        },
        "$defs": definitions,
    }


_SECTIONS = ("environment", "head", "workers", "timeouts", "host_keys")


def _may_be_empty(field: dict[str, Any]) -> None:
    """A section with everything in it commented out is null to a YAML reader."""
    if "type" in field:
        field["type"] = [field["type"], "null"]
    elif "$ref" in field:
        field["anyOf"] = [{"$ref": field.pop("$ref")}, {"type": "null"}]
