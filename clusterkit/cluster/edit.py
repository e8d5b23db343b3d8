"""Changes to the text of a settings file that keep everything else byte for byte. Pure, but `save`.

Where something stands is asked of PyYAML. Afterwards the new text is read again: unless it differs
from the old one in exactly what was to be changed, the change is refused, so that aliases, odd
layouts and mistakes here cannot change anything else.
"""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from clusterkit.errors import ClusterError, UsageError


def set_count(text: str, cluster: str, group: str, count: int) -> str:
    """`text` with `count` machines in a worker group of `cluster`.

    Raises UsageError when there is no such number in it, or it cannot be changed alone.
    """
    key = f"clusters.{cluster}.workers.{group}"
    path = ["clusters", cluster, "workers", group]
    node = _at(_compose(text), path)
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{key}: there is no such group in the settings file")
    found = _value(node, "count")
    if found is None and _value(node, "hosts") is not None:
        raise UsageError(
            f"{key}: its machines are listed under `hosts`; put one there, or take one out"
        )
    if not isinstance(found, yaml.ScalarNode):
        raise UsageError(f"{key}: there is no `count:` with a number in the settings file")
    begin, end = found.start_mark.index, found.end_mark.index
    wanted = copy.deepcopy(_plain(_compose(text)))
    _put(wanted, [*path, "count"], str(count))
    changed = text[:begin] + str(count) + text[end:]
    return _proved(changed, wanted, f"{key}.count: cannot be changed without changing more")


def add(text: str, block: str) -> str:
    """`text` with one more cluster at its end.

    `block` is the cluster's lines, `name:` indented by two. Raises UsageError when a cluster of
    that name is there, or the file's layout leaves no place for it.
    """
    new = _plain(_compose("clusters:\n" + block))["clusters"]
    root = _compose(text)
    wanted = _plain(root)
    if root is None:
        wanted = {}
    refusal = "no cluster can be added to this settings file; put it in with an editor"
    if not isinstance(wanted, dict) or not isinstance(
        wanted.setdefault("clusters", {}), dict | str
    ):
        raise UsageError(f"{refusal}: it is no mapping of clusters")
    for name in new:
        if name in wanted["clusters"]:
            raise UsageError(f"there is a cluster {name!r} in the settings file already")
    ending = "\r\n" if "\r\n" in text else "\n"
    clusters = _at(root, ["clusters"])
    begun = text if not text or text.endswith("\n") else text + ending
    if clusters is None:
        begun += "clusters:" + ending
    indent = "  "
    if isinstance(clusters, yaml.MappingNode) and clusters.value:
        indent = " " * clusters.value[0][0].start_mark.column
        begun += ending
    wanted["clusters"] = {**(wanted["clusters"] or {}), **new}
    lines = [indent + line[2:] if line.strip() else "" for line in block.splitlines()]
    return _proved(begun + ending.join([*lines, ""]), wanted, refusal)


def save(file: Path, text: str) -> None:
    """Write a settings file atomically, with the mode it had; a link stays a link."""
    place = file.resolve()
    staging: Path | None = None
    try:
        mode = place.stat().st_mode & 0o777 if place.exists() else 0o644
        with tempfile.NamedTemporaryFile(
            "w", dir=place.parent, prefix=f".{place.name}.", delete=False, newline=""
        ) as stream:
            staging = Path(stream.name)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        staging.chmod(mode)
        staging.rename(place)
    except OSError as error:
        if staging is not None:
            staging.unlink(missing_ok=True)
        raise ClusterError(f"{file} cannot be written: {error.strerror}") from error


def _compose(text: str) -> yaml.Node | None:
    try:
        # PyYAML's own reader: its positions count characters of `text`.
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        words = str(error).replace("\n", " ")
        raise UsageError(f"the settings file is not valid YAML: {words}") from error


def _at(node: yaml.Node | None, path: list[str]) -> yaml.Node | None:
    for key in path:
        if not isinstance(node, yaml.MappingNode):
            return None
        node = _value(node, key)
    return node


def _value(node: yaml.MappingNode, name: str) -> yaml.Node | None:
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value == name:
            found: yaml.Node = value
            return found
    return None


def _plain(node: yaml.Node | None) -> Any:
    """A node's texts, whatever they mean; equal ones are equal files but for their layout."""
    if isinstance(node, yaml.MappingNode):
        return {_key(key): _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    return node.value if isinstance(node, yaml.ScalarNode) else None


def _key(node: yaml.Node) -> str:
    return node.value if isinstance(node, yaml.ScalarNode) else repr(_plain(node))


def _put(data: Any, path: list[str], value: str) -> None:
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value


def _proved(text: str, wanted: Any, refusal: str) -> str:
    try:
        right = _plain(_compose(text)) == wanted
    except UsageError:
        right = False
    if not right:
        raise UsageError(f"{refusal} (aliases or an unusual layout); change it with an editor")
    return text
