"""Google's REST both ways, after Google's own discovery documents (schemas.json, see trim.py).

A request becomes an `Asked` with typed parameters, or a `GoogleError` as Google would answer it.
The client may be any: whatever Google's own clients check before they send is checked here.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

#: Words of google.rpc.Code for HTTP statuses.
_STATUS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    409: "ALREADY_EXISTS", 412: "FAILED_PRECONDITION", 429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL", 503: "UNAVAILABLE",
}  # fmt: skip
_REASONS = {400: "invalid", 403: "forbidden", 404: "notFound", 409: "alreadyExists"}
_RANGES = {
    "int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1), "uint64": (0, 2**64 - 1),
}  # fmt: skip
#: Of any method, written as `$alt` or `alt`; see cloud.google.com/apis/docs/system-parameters.
_SYSTEM = ("alt", "key", "prettyPrint", "quotaUser", "userIp", "oauth_token", "access_token")


class GoogleError(Exception):
    """An error that Google answers with. `details` are google.rpc's."""

    def __init__(
        self,
        status: int,
        words: str,
        reason: str = "",
        details: tuple[Mapping[str, Any], ...] = (),
    ) -> None:
        super().__init__(f"{status} {reason}: {words}")
        self.status = status
        self.words = words
        self.reason = reason or _REASONS.get(status, "backendError")
        self.details = details

    def body(self) -> dict[str, Any]:
        one = {"message": self.words, "domain": "global", "reason": self.reason}
        error: dict[str, Any] = {"code": self.status, "message": self.words, "errors": [one]}
        if self.details:
            error |= {"status": _STATUS.get(self.status, "UNKNOWN"), "details": list(self.details)}
        return {"error": error}


class NoSuchPage(Exception):
    """Nothing of the API is there; Google answers with a page for people."""


@dataclass(frozen=True, slots=True)
class Method:
    """Of an API ("compute", "cloudbilling") one method, as "instances.insert"."""

    api: str
    name: str
    verb: str
    path: re.Pattern[str]
    said: Mapping[str, Any]

    @property
    def schemas(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = document()[self.api]["schemas"]
        return found


@dataclass(slots=True)
class Asked:
    """A call of the API: its parameters of path and query, typed, and its body."""

    method: Method
    params: dict[str, Any]
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.method.name


@functools.cache
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "schemas.json").read_text())
    return found


@functools.cache
def methods() -> tuple[Method, ...]:
    found = []
    for api, said in document().items():
        for name, one in said["methods"].items():
            path = re.escape(f"/{said['path']}{one['flatPath']}")
            path = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", path)
            found.append(Method(api, name, one["httpMethod"], re.compile(path), one))
    return tuple(sorted(found, key=lambda one: one.said["flatPath"].count("{")))


def find(verb: str, path: str) -> tuple[Method, dict[str, str]]:
    """The method of a path and what its path says. Raises NoSuchPage."""
    for one in methods():
        match = one.path.fullmatch(path)
        if match is not None and one.verb == verb:
            return one, match.groupdict()
    raise NoSuchPage(f"{verb} {path}")


def parse(method: Method, named: Mapping[str, str], query: str, body: bytes) -> Asked:
    """The call, whole. Raises GoogleError in Google's words for what is not in its document."""
    params: dict[str, Any] = {}
    pairs = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True)]
    for name, value in (*named.items(), *pairs):
        if method.api == "cloudbilling" and name == "servicesId":
            params["parent"] = f"services/{value}"
            continue
        if name.lstrip("$") in _SYSTEM:
            continue
        said = method.said["parameters"].get(name)
        if said is None or (said["location"] == "path") != (name in named):
            words = f"Unknown name \"{name}\": Cannot bind query parameter. Field '{name}'"
            raise _payload(f"{words} could not be found in request message.", name)
        typed = _parameter(name, said, value)
        if said.get("repeated"):
            params.setdefault(name, []).append(typed)
        else:
            params[name] = typed
    for name, said in method.said["parameters"].items():
        if said.get("required") and name not in params:
            raise GoogleError(400, f"Required field '{name}' not specified", "required")
    return Asked(method, params, _body(method, body))


def problems(schemas: Mapping[str, Any], schema: Any, value: Any, method: str) -> Iterator[str]:
    """What is wrong with an answer: the double checks itself too."""
    try:
        _check(schemas, schema, value, "", method)
    except GoogleError as error:
        yield error.words


def _body(method: Method, body: bytes) -> dict[str, Any]:
    wanted = method.said.get("request")
    if wanted is None:
        if body.strip() not in (b"", b"{}"):
            raise _payload("A body was sent to a method that takes none.", "")
        return {}
    try:
        said = json.loads(body or b"{}")
    except ValueError as error:
        raise GoogleError(400, "Parse Error", "parseError") from error
    if not isinstance(said, dict):
        raise _payload("Root element must be a message.", "")
    _check(method.schemas, wanted, said, "resource", f"{method.api}.{method.name}")
    return said


def _check(
    schemas: Mapping[str, Any], schema: Mapping[str, Any], value: Any, where: str, method: str
) -> None:
    while "$ref" in schema:
        schema = schemas[schema["$ref"]]
    kind = schema.get("type", "any")
    if value is None or kind == "any":
        return
    if kind == "array":
        if not isinstance(value, list):
            raise _wrong(where, value, "it is not a list")
        for number, one in enumerate(value):
            _check(schemas, schema["items"], one, f"{where}[{number}]", method)
    elif kind == "object":
        if not isinstance(value, dict):
            raise _wrong(where, value, "it is not an object")
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for key, one in value.items():
            inner = known.get(key, others)
            if inner is None:
                raise _payload(f"Unknown name \"{key}\" at '{where}': Cannot find field.", where)
            _check(schemas, inner, one, f"{where}.{key}" if where else key, method)
        for key, inner in known.items():
            needed = method in inner.get("neededBy", ()) and method.endswith("nsert")
            if needed and value.get(key) is None:
                words = f"Invalid value for field '{where}.{key}': ''. A value is required."
                raise GoogleError(400, words, "required")
    else:
        _scalar(schema, kind, value, where)


def _scalar(schema: Mapping[str, Any], kind: str, value: Any, where: str) -> None:
    format_ = schema.get("format", "")
    if kind == "boolean":
        if not isinstance(value, bool):
            raise _wrong(where, value, "it is not a boolean")
    elif kind in ("integer", "number"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(where, value, f"it is not a {kind} (TYPE_{format_.upper()})")
        low, high = _RANGES.get(format_, (value, value))
        if not low <= value <= high or (kind == "integer" and not isinstance(value, int)):
            raise _wrong(where, value, f"it is not of {format_}")
    elif not isinstance(value, str):
        raise _wrong(where, value, f"it is not a string{f' ({format_})' if format_ else ''}")
    elif format_ in _RANGES:
        low, high = _RANGES[format_]
        if not re.fullmatch(r"-?\d+", value) or not low <= int(value) <= high:
            raise _wrong(where, value, f"it is not a {format_}")
    elif format_ == "byte":
        _base64(where, value)
    elif "enum" in schema and value not in schema["enum"]:
        raise _wrong(where, value, f"it is none of {', '.join(schema['enum'])}")
    elif "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        words = f"Must be a match of regex '{schema['pattern']}'"
        raise GoogleError(400, f"Invalid value for field '{where}': '{value}'. {words}", "invalid")


def _base64(where: str, value: str) -> None:
    try:
        base64.b64decode(value, altchars=b"-_", validate=True)
    except binascii.Error:
        raise _wrong(where, value, "Base64 decoding failed") from None


def _parameter(name: str, said: Mapping[str, Any], value: str) -> Any:
    typed: Any = value
    if said["type"] == "boolean":
        if value not in ("true", "false"):
            raise _wrong(name, value, "it is not a boolean")
        typed = value == "true"
    elif said["type"] == "integer":
        if not re.fullmatch(r"-?\d+", value):
            raise _wrong(name, value, "it is not a number")
        typed = int(value)
        low, high = int(said.get("minimum", typed)), int(said.get("maximum", typed))
        if not low <= typed <= high:
            words = f"Values must be between {low} and {high}"
            raise GoogleError(400, f"Invalid value for field '{name}': '{value}'. {words}")
    _scalar(said, said["type"], typed, name)
    return typed


def _wrong(where: str, value: Any, why: str) -> GoogleError:
    return _payload(f"Invalid value at '{where}' ({json.dumps(value)[:200]}): {why}", where)


def _payload(words: str, where: str) -> GoogleError:
    violation = {"field": where, "description": words}
    details = {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [violation],
    }
    words = f"Invalid JSON payload received. {words}"
    return GoogleError(400, words, "badRequest", (details,))
