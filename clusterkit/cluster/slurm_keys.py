"""Which settings of slurm.conf a user may override, and which are clusterkit's own. Pure.

Keys of slurm.conf know no upper and lower case, so neither do these rules.
https://slurm.schedmd.com/slurm.conf.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from clusterkit.cluster.values import shown

Scalar = str | int | float | None

_MACHINES: Final = "it follows from the cluster's machines; change `head` and `workers`"
_IDENTITY: Final = "it follows from the cluster's name"
_ACCOUNTS: Final = "clusterkit makes that account"
_PLACES: Final = "clusterkit's own files and ports are found by it"
_TRUST: Final = "clusterkit makes the cluster's keys; another kind would lock it out"
_DATABASE: Final = "clusterkit sets the database up; `accounting: false` switches it off"

#: key in small letters -> why it is refused
_OWN: Final[Mapping[str, str]] = {
    "clustername": _IDENTITY,
    **dict.fromkeys(
        ("slurmctldhost", "slurmctldaddr", "controlmachine", "controladdr", "backupcontroller",
         "backupaddr", "nodename", "nodeaddr", "nodehostname", "nodeset", "frontendname",
         "downnodes", "grestypes"),
        _MACHINES,
    ),
    "partitionname": "a worker group is a partition; its settings stand in `workers.NAME.slurm`",
    **dict.fromkeys(("slurmuser", "slurmduser"), _ACCOUNTS),
    **dict.fromkeys(
        ("slurmctldport", "slurmdport", "statesavelocation", "slurmdspooldir", "slurmctldpidfile",
         "slurmdpidfile", "slurmctldlogfile", "slurmdlogfile", "plugindir"),
        _PLACES,
    ),
    **dict.fromkeys(
        ("authtype", "authinfo", "authalttypes", "authaltparameters", "cryptotype", "credtype",
         "jobcredentialprivatekey", "jobcredentialpubliccertificate"),
        _TRUST,
    ),
    **dict.fromkeys(
        ("accountingstoragetype", "accountingstoragehost", "accountingstorageport",
         "accountingstorageuser", "accountingstoragepass", "accountingstoragebackuphost",
         "defaultstoragehost", "defaultstoragepass", "defaultstoragetype"),
        _DATABASE,
    ),
    "include": "everything stands in one file here; write the settings themselves",
}  # fmt: skip

_PARTITION_OWN: Final[Mapping[str, str]] = {
    "partitionname": "it is the group's name",
    "nodes": _MACHINES,
}


def settings(value: object) -> dict[str, Scalar]:
    """`slurm:` of a cluster: settings merged into slurm.conf; None takes one out of it."""
    return _checked(value, _OWN)


def partition(value: object) -> dict[str, Scalar]:
    """`slurm:` of a worker group: settings of its partition."""
    return _checked(value, _PARTITION_OWN)


def nothing(value: object) -> dict[str, Scalar]:
    """`slurm:` of a cluster that somebody else runs."""
    if value:
        raise ValueError("cannot be set: this SLURM is somebody else's; did you mean `sbatch`?")
    return {}


class Refused(ValueError):
    """`problems` are (key, message), all of them."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{key}: {message}" for key, message in problems))
        self.problems = problems


def _checked(value: object, own: Mapping[str, str]) -> dict[str, Scalar]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError("expected settings of slurm.conf, each `Name: value`")  # noqa: TRY004
    found: dict[str, Scalar] = {}
    problems: list[tuple[str, str]] = []
    seen: dict[str, str] = {}
    for key, one in value.items():
        small = key.lower()
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", key):
            problems.append((key, "is no name of a setting of slurm.conf"))
        elif small in own:
            problems.append((key, f"cannot be set here: {own[small]}"))
        elif small in seen:
            problems.append((key, f"is {seen[small]} once more; keep one"))
        else:
            seen[small] = key
            try:
                found[key] = _scalar(one)
            except ValueError as error:
                problems.append((key, str(error)))
    if problems:
        raise Refused(problems)
    return found


def _scalar(value: object) -> Scalar:
    if isinstance(value, bool):
        return "YES" if value else "NO"
    if value is None or isinstance(value, int | float):
        return value
    # " and # cannot be quoted in slurm.conf: the one ends a value, the other begins a comment.
    if isinstance(value, str) and value and not re.search(r'[\x00-\x1f\x7f"#]', value):
        return value
    raise ValueError(
        f'expected one line of text without " and #, a number, true, false or null (which takes '
        f"the setting out), not {shown(value)}"
    )


#: sbatch's options that clusterkit sets itself for every experiment.
_SBATCH_OWN: Final = frozenset(
    {"array", "job-name", "output", "error", "input", "chdir", "export", "requeue", "no-requeue",
     "signal", "open-mode", "parsable", "wait", "wrap", "test-only"}
)  # fmt: skip


def sbatch(value: object) -> dict[str, str]:
    """`sbatch:` of a cluster: long options and their values; names with hyphens afterwards."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError("expected options of sbatch, each `name: value`")  # noqa: TRY004
    found: dict[str, str] = {}
    problems: list[tuple[str, str]] = []
    for key, one in value.items():
        name = key.replace("_", "-")
        good = isinstance(one, str | int) and not isinstance(one, bool)
        if name in _SBATCH_OWN:
            problems.append((key, "clusterkit sets this option of sbatch itself"))
        elif not re.fullmatch(r"[a-z][a-z-]*[a-z]", name):
            problems.append((key, "expected the long name of an option, without --"))
        elif name in found:
            problems.append((key, f"is {name} once more; keep one"))
        elif not good or not str(one) or re.search(r"[\x00-\x1f\x7f]", str(one)):
            problems.append((key, f"expected one line of text or a number, not {shown(one)}"))
        else:
            found[name] = str(one)
    if problems:
        raise Refused(problems)
    return found
