"""The tree of a settings file to typed clusters, with every problem told at once.

The models of `spec` judge each value; here their findings become sentences with line and key, and
what concerns several values at once, or the disk, is looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from clusterkit import yaml12
from clusterkit.cluster import cloud_values, values
from clusterkit.cluster.slurm_keys import Refused
from clusterkit.cluster.spec import SPECS, Built, CloudSpec, GceSpec, Spec, SshSpec
from clusterkit.cluster.values import either, shown, unknown
from clusterkit.yaml12 import Document, Node, Scalar

#: Keys from the top of the file, and positions in lists.
Where = tuple[str | int, ...]
Tell = Callable[[Where, str], None]

#: What may be left empty: everything in it is commented out.
_SECTIONS = (
    ("clusters",),
    *(
        ("clusters", None, section)
        for section in (
            "environment", "slurm", "head", "workers", "timeouts", "host_keys", "sbatch",
        )
    ),
    ("clusters", None, "workers", None, "slurm"),
)  # fmt: skip


def clusters(document: Document) -> dict[str, Spec]:
    """The clusters of a settings file, in its order. Raises FileProblems."""
    tree = _Tree(document)
    root = tree.data
    if not isinstance(root, dict):
        if not document.spoilt(document.root):
            tree.tell((), "expected `clusters:` with a cluster, `name: ...`, in it")
        document.refuse()
        return {}
    for key in root:
        if key != "clusters":
            tree.tell((key,), unknown(key, ("clusters",)))
    named = root.get("clusters")
    if "clusters" not in root and not document.problems:
        tree.tell((), "there is no `clusters:`; write it with one cluster in it")
    if named is not None and not isinstance(named, dict):
        tree.tell(("clusters",), "expected clusters, each `name:` with its settings indented")
        named = None
    found = {name: _cluster(tree, name, data) for name, data in (named or {}).items()}
    tree.tell_empty()
    document.refuse()
    return {name: spec for name, spec in found.items() if spec is not None}


class _Tree:
    """A document as plain values, and where each stands."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.folder = document.file.absolute().parent
        self._lines: dict[Where, int] = {}
        self._spoilt: set[Where] = set()
        self._empty: list[Where] = []
        self._told: set[Where] = set()
        self.data = self._plain(document.root, ())

    def _plain(self, node: Node, where: Where) -> Any:
        self._lines.setdefault(where, node.line)
        if node.bad:
            self._spoilt.add(where)
        if isinstance(node, Scalar):
            if node.empty:
                self._empty.append(where)
            return node.value
        if isinstance(node, yaml12.Sequence):
            return [self._plain(item, (*where, at)) for at, item in enumerate(node.items)]
        for key, (line, _) in node.entries.items():
            self._lines[(*where, key)] = line
        return {key: self._plain(item, (*where, key)) for key, (_, item) in node.entries.items()}

    def tell(self, where: Where, message: str) -> None:
        """A problem at a place, unless one was told there or around it already."""
        if any(where[:length] in self._spoilt for length in range(len(where) + 1)):
            return
        self._told.add(where)
        near = where
        while near not in self._lines:
            near = near[:-1]
        line = self._lines[near] if where else None
        self.document.tell(line, dotted(where), message)

    def tell_empty(self) -> None:
        """Values that were left out, where nothing worse was told of them."""
        for where in self._empty:
            if where and where not in self._told and not any(map(_fits(where), _SECTIONS)):
                self.tell(where, "nothing stands behind it: write a value, or take the line out")


def _fits(where: Where) -> Callable[[tuple[str | None, ...]], bool]:
    return lambda form: (
        len(form) == len(where)
        and all(one is None or one == key for one, key in zip(form, where, strict=True))
    )


def dotted(where: Where) -> str:
    """`clusters.lab.workers.gpu.hosts[1]`."""
    path = ""
    for key in where:
        path = f"{path}[{key}]" if isinstance(key, int) else yaml12.dotted(path, key)
    return path


def _cluster(tree: _Tree, name: str, data: Any) -> Spec | None:
    """One cluster; None after telling what is wrong with it."""
    at: Where = ("clusters", name)
    try:
        values.cluster_name(name)
    except ValueError as error:
        tree.tell(at, str(error))
    if not isinstance(data, dict):
        tree.tell(at, f"expected settings, the first of them `provider:` {either(SPECS)}")
        return None
    provider = data.get("provider")
    model = SPECS.get(provider) if isinstance(provider, str) else None
    if provider is None:
        tree.tell(at, f"has no `provider:`; it is {either(SPECS)}")
        return None
    if model is None:
        tree.tell((*at, "provider"), _choice(provider, tuple(SPECS)))
        return None

    def tell(where: Where, message: str) -> None:
        tree.tell((*at, *where), message)

    if name == "local" and provider != "local":
        tell((), "is this machine's own cluster, with `provider: local`; choose another name")

    spec = None
    try:
        spec = model.model_validate(data, context={"folder": tree.folder})
    except ValidationError as error:
        for detail in error.errors():
            _tell_detail(tell, model, detail)
    if issubclass(model, Built):
        _check_workers(tell, data)
    if model is SshSpec:
        _check_hosts(tell, data)
    if issubclass(model, CloudSpec):
        _check_least(tell, data)
        _check_zones(tell, model, data)
    if issubclass(model, GceSpec):
        _check_types(tell, data)
    _check_files(tell, model, tree.folder, data)
    return spec


# --- a finding of pydantic in words


def _tell_detail(tell: Tell, model: type[BaseModel], detail: ErrorDetails) -> None:
    where = tuple(key for key in detail["loc"] if key != "[key]")
    context = detail.get("ctx", {})
    given = detail["input"]
    kind = detail["type"]
    error = context.get("error")
    if isinstance(error, Refused):
        for key, message in error.problems:
            tell((*where, key), message)
        return
    if kind == "value_error":
        message = str(error)
    elif kind == "extra_forbidden":
        message = unknown(str(where[-1]), _keys(model, where[:-1]))
        if len(where) == 1 and issubclass(model, Built):
            deeper = _deeper(model, str(where[0]))
            message = f"belongs {deeper}, not here" if deeper else message
    elif kind == "missing":
        message = f"is missing: {_meaning(model, where)}"
    elif kind == "literal_error":
        allowed = get_args(_field(model, where))
        message = _choice(given, tuple(map(str, allowed)))
    elif kind in _EXPECTED:
        message = f"expected {_EXPECTED[kind]}, not {shown(given)}"
    elif kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        message = f"expected {words} {context[bound]}, not {shown(given)}"
    elif kind == "too_short":
        message = "expected at least one"
    else:
        message = f"{detail['msg']}, not {shown(given)}"
    tell(where, message)


#: Where keys belong that are easily written one level too high.
_PLACES = {
    "head": "in `head`",
    "workers": "in a group of `workers`",
    "timeouts": "in `timeouts`",
    "environment": "in `environment`",
}


def _deeper(model: type[BaseModel], key: str) -> str:
    """Where this key is known inside `model`, in words; "" where nowhere."""
    places = [words for section, words in _PLACES.items() if key in _keys(model, (section,))]
    return " or ".join(places)


_SETTINGS = "settings, each `name: value` on a line of its own, indented"
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "a text",
    "model_type": _SETTINGS,
    "model_attributes_type": _SETTINGS,
    "dict_type": _SETTINGS,
    "tuple_type": "a list, such as [one, two]",
}
_BOUNDS = {
    "greater_than_equal": ("a number from", "ge"),
    "less_than_equal": ("a number up to", "le"),
}


def _choice(given: object, allowed: tuple[str, ...]) -> str:
    if not isinstance(given, str):
        return f"expected {either(allowed)}, not {shown(given)}"
    return f"{shown(given)} is {unknown(given, allowed)}"


def _model_at(model: type[BaseModel], where: Where) -> type[BaseModel] | None:
    """The model that stands at a place inside `model`; the names of groups are passed over."""
    for key in where:
        field = model.model_fields.get(str(key))
        if field is None:
            continue
        inner = _inner(field.annotation)
        if inner is None:
            return None
        model = inner
    return model


def _inner(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in get_args(annotation):
        found = _inner(part)
        if found is not None:
            return found
    return None


def _keys(model: type[BaseModel], where: Where) -> tuple[str, ...]:
    found = _model_at(model, where)
    return tuple(found.model_fields) if found is not None else ()


def _field(model: type[BaseModel], where: Where) -> Any:
    found = _model_at(model, where[:-1])
    return found.model_fields[str(where[-1])].annotation if found is not None else None


def _meaning(model: type[BaseModel], where: Where) -> str:
    found = _model_at(model, where[:-1])
    described = found.model_fields[str(where[-1])].description if found is not None else None
    words = (described or "it is needed.").removesuffix(".")
    return words[0].lower() + words[1:]


# --- several values at once, and the disk


def _check_workers(tell: Tell, data: Mapping[str, Any]) -> None:
    """Somebody runs jobs, and no two machines get the same name."""
    groups = data.get("workers") or {}
    if not isinstance(groups, dict):
        return
    for name in groups:
        bare = name.rstrip("0123456789")
        if bare != name and bare in groups:  # gpu1's 2nd and gpu's 12th would have one name
            tell(
                ("workers", name),
                f"is {bare} and a number, as the machines of the group {bare} are named; "
                "choose a name that ends otherwise",
            )
    head = data.get("head") or {}
    counts = [_count(group) for group in groups.values()]
    if None in counts or not isinstance(head, dict) or head.get("worker") not in (None, False):
        return
    if not any(counts):
        tell(
            ("workers",),
            "nothing would run jobs: give a group at least one machine, or write "
            "`worker: true` in `head`",
        )


def _count(group: Any) -> int | None:
    """How many machines a group has; None where that is a problem of its own."""
    if not isinstance(group, dict):
        return None
    count, hosts = group.get("count"), group.get("hosts")
    if isinstance(hosts, list):
        return len(hosts) or None  # an empty list is told as such
    return count if isinstance(count, int) and not isinstance(count, bool) else None


def _check_hosts(tell: Tell, data: Mapping[str, Any]) -> None:
    """No host twice, and no host key for a host that is not there."""
    places: list[tuple[Where, Any]] = []
    head, groups = data.get("head"), data.get("workers")
    if isinstance(head, dict):
        places.append((("head", "host"), head.get("host")))
    for name, group in groups.items() if isinstance(groups, dict) else ():
        hosts = group.get("hosts") if isinstance(group, dict) else None
        for at, host in enumerate(hosts) if isinstance(hosts, list) else ():
            places.append((("workers", name, "hosts", at), host))
    seen: dict[tuple[str, int], Where] = {}
    for where, text in places:
        try:
            host = values.host(text)
        except ValueError:
            continue  # told already
        first = seen.setdefault((host.name.lower(), host.port), where)
        if first == ("head", "host") != where:
            tell(
                where, f"{host.name} is the head already; `worker: true` in `head` lets it run jobs"
            )
        elif first != where:
            tell(where, f"{host.name} is there twice, first as {dotted(first)}; keep one")
    known = sorted({name for name, _ in seen})
    keys = data.get("host_keys")
    for name in keys if isinstance(keys, dict) else ():
        if name.lower() not in known and known:
            tell(("host_keys", name), f"is no host of this cluster; they are {', '.join(known)}")


def _check_least(tell: Tell, data: Mapping[str, Any]) -> None:
    """`min` is not more than `count`; of a group that is switched off (0) it says nothing."""
    groups = data.get("workers")
    for name, group in groups.items() if isinstance(groups, dict) else ():
        count, least = _count(group), group.get("min") if isinstance(group, dict) else None
        if count and isinstance(least, int) and not isinstance(least, bool) and least > count:
            tell(
                ("workers", name, "min"),
                f"{least} cannot be enough where `count` is {count}; lower it, or take it out",
            )


def _check_zones(tell: Tell, model: type[CloudSpec], data: Mapping[str, Any]) -> None:
    """All zones are in one region: that of the settings, or else the first one's."""
    places: list[tuple[Where, Any]] = [(("head",), data.get("head"))]
    groups = data.get("workers")
    if isinstance(groups, dict):
        places += [(("workers", name), group) for name, group in groups.items()]
    region, reason = data.get("region"), "`region`"
    if not isinstance(region, str):
        region = None
    for where, part in places:
        zones = part.get("zones") if isinstance(part, dict) else None
        for zone in zones if isinstance(zones, list) else (zones,):
            own = model.zone_region(zone) if isinstance(zone, str) else ""
            if not own:
                continue  # told already, or any
            if region is None:
                region, reason = own, f"{zone} ({dotted((*where, 'zones'))})"
            elif own != region:
                tell(
                    (*where, "zones"),
                    f"{zone} is in {own}, and {reason} says {region}; a cluster is in one region",
                )
                break


def _check_types(tell: Tell, data: Mapping[str, Any]) -> None:
    """What Google's machine types never take, which it would say after the first were launched."""
    groups = data.get("workers")
    places: list[tuple[Where, Any]] = [(("head",), data.get("head"))]
    if isinstance(groups, dict):
        places += [(("workers", name), group) for name, group in groups.items()]
    disk = data.get("disk_type")
    for where, part in places:
        if not isinstance(part, dict):
            continue
        types = part.get("types")
        names = [one for one in (types if isinstance(types, list) else [types])
                 if isinstance(one, str)]  # fmt: skip
        if part.get("placement") is True and names and not any(map(cloud_values.gce_places, names)):
            tell(  # where one of them may be, the others lead to it
                (*where, "placement"),
                f"Google does not put {', '.join(names)} close together; take `placement` out, or "
                "other types",
            )
        strange = [one for one in names if not cloud_values.gce_takes(str(disk or "auto"), one)]
        if strange:
            tell(
                ("disk_type",),
                f"{', '.join(strange)} ({dotted(where)}) cannot have {disk}; with `auto` each type "
                "gets what it takes",
            )


def _check_files(tell: Tell, model: type[Spec], folder: Path, data: Mapping[str, Any]) -> None:
    environment = data.get("environment")
    places: list[tuple[Where, Any]] = [
        ((key,), data.get(key)) for key in ("key", "credentials") if key in model.model_fields
    ]
    if isinstance(environment, dict):
        places.append((("environment", "requirements"), environment.get("requirements")))
    for where, value in places:
        if not isinstance(value, str):
            continue
        try:
            file = values.path(value, folder)
        except ValueError:
            continue  # told already
        message = _file_problem(file)
        if message is None and where == ("key",):
            message = _key_problem(file)
        if message is None and where == ("credentials",):
            message = _credentials_problem(file)
        if message is not None:
            tell(where, message)


def _file_problem(file: Path) -> str | None:
    try:
        if file.is_file():
            return None
        return f"{file} is {'a folder, not a file' if file.is_dir() else 'not there'}"
    except OSError as error:
        return f"{file} cannot be looked at: {error.strerror}"


def _key_problem(key: Path) -> str | None:
    try:
        with key.open("rb") as stream:
            beginning = stream.read(4096)
        mode = key.stat().st_mode & 0o777
    except OSError as error:
        return f"{key} cannot be read: {error.strerror}"
    if re.match(rb"(ssh-|ecdsa-|sk-)\S+ AAAA", beginning):
        private = key.with_suffix("") if key.suffix == ".pub" else "the file beside it"
        return f"{key} is the public half of a key; name the private one, {private}"
    if b"PRIVATE KEY" not in beginning:
        return f"{key} is no private key for ssh"
    if mode & 0o077:
        return (
            f"{key} can be read by others (mode {mode:o}), and ssh refuses such a key: "
            f"chmod 600 {key}"
        )
    return None


def _credentials_problem(file: Path) -> str | None:
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"
    except ValueError:
        found = None
    if isinstance(found, dict) and "type" in found:
        return None
    return f"{file} is no key file of a service account, as Google gives it (JSON, with a `type`)"
