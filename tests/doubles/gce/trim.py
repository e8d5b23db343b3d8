"""Make schemas.json anew: `python tests/doubles/gce/trim.py`.

Google's discovery documents, which google-api-python-client brings, are large; what the double
answers, and the schemas that this needs, are a small part of them. Their words are left out.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent / "schemas.json"
METHODS = {
    "compute": {
        "acceleratorTypes": "aggregatedList get list",
        "addresses": "aggregatedList delete get insert list",
        "disks": "aggregatedList delete get list setLabels",
        "firewalls": "delete get insert list patch update",
        "globalAddresses": "list",
        "globalOperations": "aggregatedList get list wait",
        "images": "delete get getFromFamily insert list setLabels",
        "instances": (
            "aggregatedList bulkInsert delete get getSerialPortOutput insert list setLabels "
            "setMetadata start stop"
        ),
        "machineTypes": "aggregatedList get list",
        "networks": "get list",
        "projects": "get",
        "regionInstances": "bulkInsert",
        "regionOperations": "get list wait",
        "regions": "get list",
        "resourcePolicies": "aggregatedList delete get insert list",
        "snapshots": "get list",
        "subnetworks": "aggregatedList get list",
        "zoneOperations": "get list wait",
        "zones": "get list",
    },
    "cloudbilling": {"services": "list", "services.skus": "list"},
}
_KEPT = {
    "$ref", "additionalProperties", "default", "enum", "flatPath", "format", "httpMethod", "items",
    "location", "maximum", "minimum", "pattern", "properties", "repeated", "request", "required",
    "response", "type",
}  # fmt: skip


def trimmed(said: Any, named: bool = False) -> Any:
    """Without words. `named`: its keys are names of Google's, not words of the document."""
    if isinstance(said, list):
        return [trimmed(one) for one in said]
    if not isinstance(said, dict):
        return said
    kept = {}
    for key, value in said.items():
        if key == "annotations" and not named:
            kept["neededBy"] = value["required"]
        elif named or key in _KEPT:
            kept[key] = trimmed(value, key in ("properties", "parameters") and not named)
    return kept


def references(said: Any) -> Iterator[str]:
    if isinstance(said, dict):
        if isinstance(said.get("$ref"), str):
            yield said["$ref"]
        said = list(said.values())
    if isinstance(said, list):
        for one in said:
            yield from references(one)


def api(document: dict[str, Any], wanted: dict[str, str]) -> dict[str, Any]:
    """Of one document: its revision, the methods by name, their schemas by name."""
    methods = {}
    for path, names in wanted.items():
        found: Any = document
        for part in path.split("."):
            found = found["resources"][part]
        for name in names.split():
            said = found["methods"][name]
            made = trimmed(said)
            made["parameters"] = trimmed(said["parameters"], named=True)
            methods[f"{path.rpartition('.')[2]}.{name}"] = made
    schemas: dict[str, Any] = {}
    waiting = sorted(set(references(methods)))
    while waiting:
        name = waiting.pop()
        if name not in schemas:
            schemas[name] = trimmed(document["schemas"][name])
            waiting += references(schemas[name])
    return {
        "revision": document["revision"],
        "path": document["servicePath"],
        "parameters": sorted(document["parameters"]),
        "methods": methods,
        "schemas": dict(sorted(schemas.items())),
    }


def written(made: dict[str, Any]) -> str:
    """As JSON, a line for each method and each schema."""
    text = json.dumps(made, separators=(",", ":"))
    return re.sub(r',("[A-Za-z.]+":\{"(?:flatPath|properties|type)":)', r",\n\1", text) + "\n"


def main() -> None:
    from googleapiclient import discovery_cache  # type: ignore[import-untyped]

    folder = Path(discovery_cache.__file__).parent / "documents"
    made = {
        name: api(json.loads((folder / f"{name}.v1.json").read_text()), wanted)
        for name, wanted in METHODS.items()
    }
    HERE.write_text(written(made))
    for name, said in made.items():
        counts = f"{len(said['methods'])} methods, {len(said['schemas'])} schemas"
        print(f"{name} v1, revision {said['revision']}: {counts}", file=sys.stderr)


if __name__ == "__main__":
    main()
