"""Render the roles' scripts as Ansible does, without Ansible: for tests."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
ROLES = sorted(folder.name for folder in (PLAYBOOKS / "roles").iterdir())


@functools.cache
def environment(*folders: Path) -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*map(str, folders), str(PLAYBOOKS / "templates")]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        extensions=["jinja2.ext.do"],
    )  # fmt: skip
    made.filters |= {
        "quote": lambda value: shlex.quote(str(value)),
        "bool": lambda value: value in (True, "yes", "true", "True", 1, "1"),
        "ternary": lambda value, one, other: one if value else other,
        "dict2items": lambda value: [{"key": k, "value": v} for k, v in value.items()],
        "flatten": lambda value: [one for each in value for one in each],
        "combine": lambda *dicts: {k: v for each in dicts for k, v in each.items()},
        "extract": lambda key, mapping: mapping[key],
    }
    for name in ("map", "select", "selectattr", "reject", "rejectattr", "unique"):
        made.filters[name] = _listed(made.filters[name])
    made.tests["search"] = lambda value, pattern: re.search(pattern, str(value)) is not None
    made.globals["lookup"] = lambda _, name: (
        next(PLAYBOOKS.glob(f"roles/*/files/{name}")).read_text().rstrip("\n")
    )
    return made


def _listed(lazy: Any) -> Any:
    """Ansible's filters give lists where Jinja's own give generators."""

    @functools.wraps(lazy)
    def listed(*args: Any, **named: Any) -> list[Any]:
        return list(lazy(*args, **named))

    return listed


class Variables(dict[str, Any]):
    """Role variables: a value that is a template is rendered when it is asked for."""

    def __init__(self, plain: Mapping[str, Any], made: jinja2.Environment) -> None:
        super().__init__(plain)
        self.made = made

    def value(self, raw: object) -> Any:
        if isinstance(raw, dict):
            return {key: self.value(one) for key, one in raw.items()}
        if isinstance(raw, list):
            return [self.value(one) for one in raw]
        if not isinstance(raw, str) or "{{" not in raw:
            return raw
        whole = re.fullmatch(r"\s*\{\{(.*)\}\}\s*", raw, re.DOTALL)
        needed = {name: self.get_value(name) for name in self._names(raw)}
        if whole and "{{" not in whole[1]:
            return self.made.compile_expression(whole[1].strip(), undefined_to_none=False)(**needed)
        return self.made.from_string(raw).render(**needed)

    def _names(self, raw: str) -> list[str]:
        from jinja2 import meta

        return [n for n in meta.find_undeclared_variables(self.made.parse(raw)) if n in self]

    def get_value(self, name: str) -> Any:
        return self.value(self[name])


@functools.cache
def role_variables(role: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in ("defaults", "vars"):
        file = PLAYBOOKS / "roles" / role / kind / "main.yml"
        if file.exists():
            found |= yaml.safe_load(file.read_text()) or {}
    return found


def render(role: str, given: Mapping[str, Any]) -> str:
    """The script of `role` (or of `verify`, `done`) with `given` as the inventory's variables."""
    folder = PLAYBOOKS / "roles" / role
    made = environment(folder / "templates")
    # A play's roles see each other's defaults; this is the play with all of them.
    defaults = {k: v for one in ROLES for k, v in role_variables(one).items()}
    variables = Variables({**defaults, **given}, made)
    text = "".join(
        file.read_text()
        for place in (folder / "templates", PLAYBOOKS / "templates")
        for file in sorted(place.glob("*.j2"))
    )
    values = {
        name: _or_missing(variables, name)
        for name in variables.keys() & set(re.findall(r"\w+", text))
    }
    given_values = {name: value for name, value in values.items() if value is not _MISSING}
    return made.get_template(f"{role}.sh.j2").render(given_values)


_MISSING = object()


def _or_missing(variables: Variables, name: str) -> object:
    try:
        return variables.get_value(name)
    except jinja2.UndefinedError:  # a variable that this script may not need
        return _MISSING
