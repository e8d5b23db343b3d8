"""The role in the docs: what every call of the provider needs is in it, and nothing else is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml
from google.cloud import compute_v1

from clusterkit.cluster.providers.gce.doctor import PERMISSIONS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clusterkit" / "cluster" / "providers" / "gce"
#: What `Client` is asked with.
DOORS = ("call", "pages", "act")
#: Last part of a permission, where it isn't the method's name.
VERBS = {
    "aggregated_list": "list",
    "bulk_insert": "create",
    "insert": "create",
    "patch": "update",
}
#: Parts of a new machine that Google asks a permission for.
MACHINE = {
    "compute.disks.create",
    "compute.disks.setLabels",
    "compute.images.useReadOnly",
    "compute.instances.setLabels",
    "compute.instances.setMetadata",
    "compute.instances.setTags",
    "compute.resourcePolicies.use",
    "compute.subnetworks.use",
    "compute.subnetworks.useExternalIp",
}
#: What Google asks for beside the permission that is called as the method.
BESIDE = {
    ("instances", "bulk_insert"): MACHINE,
    ("instances", "insert"): MACHINE,
    ("region_instances", "bulk_insert"): MACHINE,
    ("firewalls", "delete"): {"compute.networks.updatePolicy"},
    ("firewalls", "insert"): {"compute.networks.updatePolicy"},
    ("firewalls", "patch"): {"compute.networks.updatePolicy"},
    ("images", "insert"): {"compute.disks.useReadOnly", "compute.images.setLabels"},
}


def needed(service: str, method: str) -> set[str]:
    """The permissions that a call needs."""
    noun = _camel(service.removeprefix("region_") if service == "region_instances" else service)
    verb = VERBS.get(method) or _camel(method)
    return {f"compute.{noun}.{verb}"} | BESIDE.get((service, method), set())


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(one.title() for one in others)


@cache
def called() -> frozenset[tuple[str, str]]:
    """Service and method of every call in the provider's code."""
    found = set()
    for file in sorted(PACKAGE.glob("*.py")):
        for door, service, method in _Module(ast.parse(file.read_text())).calls():
            pairs = {
                (one, other)
                for one in service
                for other in method
                if hasattr(_client(one), other + ("_unary" if door == "act" else ""))
            }
            assert pairs, f"what {file.name} asks for cannot be told: {service}, {method}"
            found |= pairs
    return frozenset(found)


def _client(service: str) -> type | None:
    name = "".join(part.title() for part in service.split("_")) + "Client"
    return getattr(compute_v1, name, None)


class _Module:
    """One module, and what the arguments of its calls may be."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.functions = [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)]

    def calls(self) -> Iterator[tuple[str, set[str], set[str]]]:
        for function in self.functions:
            for node in ast.walk(function):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                    continue
                if node.func.attr in DOORS and len(node.args) == 2:
                    service, method = (self.texts(one, function) for one in node.args)
                    yield node.func.attr, service, method

    def texts(self, told: ast.expr, function: ast.FunctionDef) -> set[str]:
        """All texts that an expression may be, by assignments and by the function's callers."""
        found: set[str] = set()
        todo: list[tuple[ast.AST, ast.FunctionDef]] = [(told, function)]
        seen: set[tuple[str, str]] = set()
        while todo:
            node, inside = todo.pop()
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.Name) and (inside.name, node.id) not in seen:
                seen.add((inside.name, node.id))
                todo += [(one, inside) for one in _assigned(node.id, inside)]
                todo += self._passed(node.id, inside)
            todo += [(one, inside) for one in ast.iter_child_nodes(node)]
        return found

    def _passed(
        self, name: str, function: ast.FunctionDef
    ) -> list[tuple[ast.AST, ast.FunctionDef]]:
        """What a function's callers give for a parameter."""
        # A function inside another one has the other's parameters too.
        outer = [
            one
            for one in self.functions
            if one is function or any(each is function for each in ast.walk(one))
        ]
        return [
            (call.args[place], caller)
            for one in outer
            for place, argument in enumerate(one.args.args)
            if argument.arg == name
            for caller in self.functions
            for call in ast.walk(caller)
            if isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id == one.name
            and len(call.args) > place
        ]


def _assigned(name: str, function: ast.FunctionDef) -> Iterator[ast.expr]:
    for node in ast.walk(function):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        value = getattr(node, "value", None)
        names = [one.id for each in targets for one in ast.walk(each) if isinstance(one, ast.Name)]
        if name in names and isinstance(value, ast.expr):
            yield value


def role() -> list[str]:
    said = yaml.safe_load((ROOT / "docs" / "gce-role.yaml").read_text())
    return list(said["includedPermissions"])


def test_the_search_finds_calls() -> None:
    some = {("region_instances", "bulk_insert"), ("zone_operations", "get"), ("disks", "delete")}
    some |= {("instances", one) for one in ("insert", "delete", "start", "stop", "set_metadata")}
    assert some <= called()


def test_clusterkit_needs_just_what_its_calls_do() -> None:
    assert set(PERMISSIONS) == {one for pair in called() for one in needed(*pair)}


def test_what_is_needed_beside_calls_is_of_calls() -> None:
    assert set(BESIDE) <= called()


def test_the_role_is_just_that() -> None:
    assert role() == sorted(set(role()))
    assert tuple(role()) == PERMISSIONS
    # Google takes so many in one question.
    assert len(PERMISSIONS) <= 100
