"""grid.yaml to points. Pure but for reading the file.

The reference of the format is docs/grid.md. Whatever is not in it is an error with a line, not a
guess, and all problems of a file are told at once.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clusterkit import slurm
from clusterkit.records import FlagStyle, Grid, Point, SlurmRequest, Value
from clusterkit.sweep import axes as axes_of
from clusterkit.sweep import grid_yaml
from clusterkit.sweep.axes import LATER, Axis, either, unknown
from clusterkit.sweep.command import PLACES, Place, argv_for, flags_for, template
from clusterkit.sweep.grid_yaml import Document, Node, Scalar

__all__ = ["argv_for", "flags_for", "load", "point_id"]

_KEYS = ("params", "seeds", "slurm", "run", "flags", "warm")
_LATER_KEYS = ("samples", "zip", "exclude", "include", "grids")

_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
).encode

_Section = tuple[int, Node] | None  # the line of its key and what it holds


def load(path: Path, *, max_points: int = 100_000) -> Grid:
    """Read a grid file and multiply it out: the first parameter varies slowest, the seed fastest.

    Raises FileProblems with all problems at once, UsageError when the file cannot be read.
    More than `max_points` points are a problem, noticed before they are multiplied out.
    """
    document = grid_yaml.read(path)
    sections = _sections(document)
    axes = _axes(document, sections.get("params"), sections.get("seeds"))
    request = _slurm(document, sections.get("slurm"))
    run = _run(document, sections.get("run"), _names(document.root))
    flags = _flags(document, sections.get("flags"))
    warm = _warm(document, sections.get("warm"))
    values = _values(document, axes, max_points)
    document.refuse()
    return Grid(
        points=tuple(_cross([axis.name for axis in axes], values)),
        axes=tuple(axis.name for axis in axes if axis.count > 1),
        slurm=request,
        run=run,
        flags=flags,
        warm=warm,
        text=document.text,
    )


def point_id(params: Mapping[str, Value]) -> str:
    """SHA-256 (hex) of the canonical JSON: sorted keys, no spaces, ASCII. 1 and 1.0 differ."""
    return hashlib.sha256(_encode(dict(params)).encode()).hexdigest()


def _sections(document: Document) -> Mapping[str, tuple[int, Node]]:
    root = document.root
    if not isinstance(root, grid_yaml.Mapping):
        if not document.spoilt(root):
            document.tell(root.line, "", f"expected the sections {either(_KEYS)}, each `name: ...`")
        return {}
    for key, (line, _) in root.entries.items():
        if key in _LATER_KEYS:
            document.tell(line, key, LATER)
        elif key not in _KEYS:
            document.tell(line, key, unknown(key, _KEYS))
    return root.entries


def _entries(document: Document, name: str, section: _Section) -> Mapping[str, tuple[int, Node]]:
    """The entries of a section that is a mapping; a section left empty has none."""
    if section is None:
        return {}
    line, node = section
    if isinstance(node, grid_yaml.Mapping):
        return node.entries
    if not (isinstance(node, Scalar) and (node.empty or node.bad)):
        document.tell(line, name, "expected entries `name: value`, one a line, indented")
    return {}


def _names(root: Node) -> list[str]:
    """The parameters' names, also of those that have a problem."""
    sections = root.entries if isinstance(root, grid_yaml.Mapping) else {}
    params = sections["params"][1] if "params" in sections else None
    names = [*params.entries] if isinstance(params, grid_yaml.Mapping) else []
    return [*names, "seed"] if "seeds" in sections else names


# --- points


def _axes(document: Document, params: _Section, seeds: _Section) -> list[Axis]:
    entries = _entries(document, "params", params)
    if not entries and seeds is None and not document.problems:
        document.tell(None, "", "no parameters: fill `params:`, or give `seeds:`")
    axes = [axes_of.parameter(document, name, *entry) for name, entry in entries.items()]
    if seeds is not None:
        axes.append(axes_of.seeds(document, *seeds))
        if "seed" in entries:
            document.tell(
                seeds[0], "seeds", "makes the parameter seed, which params.seed makes already"
            )
    return [axis for axis in axes if axis is not None]


def _values(document: Document, axes: Sequence[Axis], max_points: int) -> list[list[Value]]:
    """Each axis's values, unless they make too many points; equal ones are told."""
    total = math.prod(axis.count for axis in axes)
    if total > max_points:
        factors = " × ".join(
            f"{axis.name} {_amount(axis.count)}" for axis in axes if axis.count > 1
        )
        document.tell(
            None,
            "",
            f"{_amount(total)} points ({factors}), more than {max_points:,}; take values out, "
            "or allow more with --max-points",
        )
        return []
    values = []
    for axis in axes:
        made = axis.values()
        seen: dict[str, int] = {}
        for at, value in enumerate(made):
            text = _encode(value)
            if text in seen:
                shown = text if len(text) <= 60 else text[:57] + "..."
                document.tell(
                    axis.line,
                    axis.key,
                    f"{shown} is there twice, as value {seen[text] + 1} and value {at + 1}",
                )
                break
            seen[text] = at
        values.append(made)
    return values


def _amount(count: int) -> str:
    return f"{count:,}" if count < 10**15 else f"about 10^{math.floor(math.log10(count))}"


def _cross(names: Sequence[str], values: Sequence[Sequence[Value]]) -> Iterator[Point]:
    """All combinations in the order of nested loops.

    The ids are those of `point_id`, but each value is encoded once and not once a point.
    """
    order = sorted(range(len(names)), key=names.__getitem__)
    pieces = [
        [f"{_encode(name)}:{_encode(value)}" for value in made]
        for name, made in zip(names, values, strict=True)
    ]
    sha256 = hashlib.sha256
    for params, parts in zip(itertools.product(*values), itertools.product(*pieces), strict=True):
        text = "{" + ",".join([parts[at] for at in order]) + "}"
        yield Point(sha256(text.encode()).hexdigest(), dict(zip(names, params, strict=True)))


# --- slurm


_ONE_LINE = ("one line of text", r"[^\x00-\x1f\x7f]+")
_COUNT = "a whole number from 1"
_MEMORY = "a number of megabytes or one with K, M, G or T, such as 4G"
_TIME = "minutes, or a text such as 1:30:00 (hours:minutes:seconds) or 2-12 (days-hours)"

#: sbatch's long options that a grid may set, what each takes, and the pattern of it.
#: https://slurm.schedmd.com/sbatch.html
_OPTIONS: Mapping[str, tuple[str, str]] = {
    "time": (_TIME, r"[\d:-]+|UNLIMITED|INFINITE"),
    "mem": (_MEMORY, r"\d+[KMGT]?"),
    "mem-per-cpu": (_MEMORY, r"\d+[KMGT]?"),
    "mem-per-gpu": (_MEMORY, r"\d+[KMGT]?"),
    "tmp": (_MEMORY, r"\d+[KMGT]?"),
    "cpus-per-task": (_COUNT, r"[1-9]\d*"),
    "cpus-per-gpu": (_COUNT, r"[1-9]\d*"),
    "ntasks": (_COUNT, r"[1-9]\d*"),
    "ntasks-per-node": (_COUNT, r"[1-9]\d*"),
    "nodes": ("a number of nodes, or from-to such as 1-4", r"[1-9]\d*(-[1-9]\d*)?"),
    "gres": _ONE_LINE,
    "gpus": _ONE_LINE,
    "gpus-per-node": _ONE_LINE,
    "gpus-per-task": _ONE_LINE,
    "partition": _ONE_LINE,
    "account": _ONE_LINE,
    "qos": _ONE_LINE,
    "constraint": _ONE_LINE,
    "nodelist": _ONE_LINE,
    "exclude": _ONE_LINE,
    "licenses": _ONE_LINE,
    "reservation": _ONE_LINE,
    "hint": _ONE_LINE,
    "comment": _ONE_LINE,
    "nice": ("a whole number, or true", r"-?\d+"),
    "exclusive": ("true, false, user, mcs or topo", r"user|mcs|topo"),
}
_BARE = ("exclusive", "nice")
_OURS = (
    "array", "job-name", "output", "error", "input", "chdir", "export", "requeue", "no-requeue",
    "signal", "open-mode", "parsable", "wait", "wrap", "test-only",
)  # fmt: skip


def _slurm(document: Document, section: _Section) -> SlurmRequest:
    options: dict[str, str | bool] = {}
    lines: dict[str, int] = {}
    throttle: int | None = None
    for key, (line, node) in _entries(document, "slurm", section).items():
        name = key.replace("_", "-")
        if name in lines:
            document.tell(line, f"slurm.{key}", f"written twice, first in line {lines[name]}")
            continue
        lines[name] = line
        if name != "throttle" and name not in _OPTIONS:
            document.tell(line, f"slurm.{key}", _no_option(name))
            continue
        if document.spoilt(node):
            continue
        value = node.value if isinstance(node, Scalar) else None
        if name != "throttle":
            word = _option(name, value)
            if word is None:
                document.tell(line, f"slurm.{key}", f"expected {_OPTIONS[name][0]}")
            elif word is not False:
                options[name] = word
        elif type(value) is int and value > 0:
            throttle = value
        else:
            document.tell(line, f"slurm.{key}", f"expected {_COUNT}: how many slots run at once")
    memory = [name for name in ("mem", "mem-per-cpu", "mem-per-gpu") if name in options]
    if len(memory) > 1:
        document.tell(lines[memory[-1]], f"slurm.{memory[-1]}", f"excludes {memory[0]}; keep one")
    return SlurmRequest(options, throttle)


def _no_option(name: str) -> str:
    if name in _OURS:
        return "clusterkit sets this option of sbatch itself"
    reason = unknown(name, ("throttle", *sorted(_OPTIONS)))
    return f"{reason}; other options of sbatch go to --alloc"


def _option(name: str, value: Value) -> str | bool | None:
    """A value as sbatch takes it; True: a bare flag, False: leave it out, None: it is wrong."""
    if isinstance(value, bool):
        return value if name in _BARE else None
    if not isinstance(value, str | int):
        return None
    text = str(value)
    if not re.fullmatch(_OPTIONS[name][1], text, re.ASCII | re.IGNORECASE):
        return None
    if name == "time":
        try:
            slurm.parse_time(text)
        except ValueError:
            return None
    return text


# --- run, flags, warm


def _run(document: Document, section: _Section, names: list[str]) -> str | None:
    if section is None:
        return None
    line, node = section
    if document.spoilt(node):
        return None
    if not isinstance(node, Scalar) or not isinstance(node.value, str):
        document.tell(
            line, "run", 'expected a command line in quotes, such as "python {script} {flags}"'
        )
        return None
    try:
        words = template(node.value)
    except ValueError as error:
        document.tell(line, "run", str(error))
        return None
    used = dict.fromkeys(part.name for word in words for part in word if isinstance(part, Place))
    allowed = (*PLACES, *names)
    for name in used:
        if name in PLACES and name in names:
            document.tell(line, "run", f"{{{name}}} is also a parameter's name; rename that one")
        elif name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            meant = f"did you mean {{{near[0]}}}? Allowed" if near else "allowed"
            listed = ", ".join(f"{{{each}}}" for each in allowed)
            document.tell(
                line, "run", f"{{{name}}} is unknown; {meant}: {listed}; {{{{ }}}} for braces"
            )
    return node.value


def _flags(document: Document, section: _Section) -> FlagStyle:
    if section is None:
        return FlagStyle.SPACE
    line, node = section
    if isinstance(node, Scalar) and node.value in tuple(FlagStyle):
        return FlagStyle(node.value)
    if not document.spoilt(node):
        allowed = either([f'"{style}"' for style in FlagStyle])
        document.tell(line, "flags", f"expected {allowed}")
    return FlagStyle.SPACE


def _warm(document: Document, section: _Section) -> tuple[str, ...]:
    if section is None:
        return ()
    line, node = section
    if not isinstance(node, grid_yaml.Sequence):
        if not document.spoilt(node):
            document.tell(line, "warm", "expected a list of modules, such as [torch, numpy]")
        return ()
    modules: list[str] = []
    for at, item in enumerate(node.items):
        name = item.value if isinstance(item, Scalar) else None
        if isinstance(name, str) and all(part.isidentifier() for part in name.split(".")):
            modules.append(name)
        elif not document.spoilt(item):
            document.tell(
                item.line, f"warm[{at}]", "expected the name of a module, such as sklearn.datasets"
            )
    return tuple(modules)
