"""clusterkit.yaml: where it is, which clusters it names, and the settings of one.

A cluster that was started is known from its own folder (see `stored`), also where its settings
file is gone or does not lie above the present folder. pydantic and PyYAML are imported only when
there is a settings file to read, so that `local` without one costs nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clusterkit import paths
from clusterkit.cluster import stored
from clusterkit.errors import UnknownCluster, UsageError
from clusterkit.paths import Home

if TYPE_CHECKING:
    from clusterkit.cluster.spec import Spec
    from clusterkit.yaml12 import Document

FILE: Final = "clusterkit.yaml"
#: The cluster that needs no settings.
LOCAL: Final = "local"
_EMPTY: Final = (
    "empty: write `clusters:` with one cluster; `clusterkit init NAME --provider nspawn` writes an "
    "example"
)


def find(home: Home) -> Path | None:
    """The settings file: CLUSTERKIT_CONFIG's, the nearest upwards, or the user's own; absolute.

    Raises UsageError when CLUSTERKIT_CONFIG names none.
    """
    if home.config is not None:
        if not home.config.is_file():
            raise UsageError(
                f"CLUSTERKIT_CONFIG names {home.config}, which is no file. Correct it, or unset it "
                f"to use the nearest {FILE}."
            )
        return home.config
    near = upwards()
    if near is not None:
        return near
    own = paths.user_settings()
    return own if own.is_file() else None


def upwards() -> Path | None:
    """The nearest clusterkit.yaml in the present folder or above it."""
    try:
        here = Path.cwd()
    except OSError:  # the present folder was removed
        return None
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return folder / FILE
    return None


def place(home: Home) -> Path:
    """Where `init` writes to: the file of this project, or a new one in the present folder."""
    found = home.config or upwards()
    if found is not None:
        return found
    try:
        return Path.cwd() / FILE
    except OSError as error:
        raise UsageError(f"the present folder cannot be used: {error.strerror}") from error


def names(home: Home) -> list[str]:
    """The names of all clusters: those of the settings file, those that were started, `local`.

    A settings file with problems gives the names that can be made out. Raises UsageError when it
    cannot be read, FileProblems when it is no YAML.
    """
    file = find(home)
    found = {LOCAL, *stored.names(home.root / "clusters")}
    if file is not None:
        found |= _named(_read(file))
    return sorted(found)


def load(file: Path) -> dict[str, Spec]:
    """The clusters of a settings file, in its order.

    Raises UsageError when it cannot be read, FileProblems with all its problems at once.
    """
    from clusterkit.cluster import settings

    return settings.clusters(_read(file))


def text(file: Path) -> str:
    """A settings file's text, its line endings as they are. Raises UsageError."""
    try:
        return file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error


def cluster_spec(home: Home, name: str) -> Spec:
    """The settings of the cluster `name`; raises as `source` does."""
    return source(home, name).spec


def source(home: Home, name: str) -> stored.Stored:
    """The settings of the cluster `name`, and the file that they stand in, as `stored` keeps them.

    Those of the settings file, where it has the name; else those it was started with, and the
    file that it was started from; `local` needs none.

    Raises UnknownCluster with near names, FileProblems with all problems of the file, UsageError
    when the cluster was started from another file than the one that would be used now.
    """
    file = find(home)
    specs = load(file) if file is not None else {}
    if not _possible(name):  # it must not become a path
        raise UnknownCluster(_unknown(home, name, file))
    folder = home.cluster(name)
    if file is not None and name in specs:
        _require_same(stored.read(folder), name, file, specs[name])
        return stored.Stored(str(file.resolve()), specs[name])
    started = stored.read(folder)
    if started is not None:
        return started
    if name == LOCAL:
        from clusterkit.cluster.spec import LocalSpec

        return stored.Stored(None, LocalSpec())
    raise UnknownCluster(_unknown(home, name, file))


def require(home: Home, name: str) -> None:
    """Raise UnknownCluster, with the nearest name, unless `name` is a cluster.

    A cluster that was started, and `local`, are known without reading the settings file: a mistake
    in it keeps nobody from stopping them.
    """
    if name == LOCAL or (_possible(name) and stored.provider(home.cluster(name)) is not None):
        return
    file = find(home)
    if file is None or name not in _named(_read(file)):
        raise UnknownCluster(_unknown(home, name, file))


def _possible(name: str) -> bool:
    from clusterkit.cluster.values import CLUSTER_NAME

    return re.fullmatch(CLUSTER_NAME, name) is not None


def _unknown(home: Home, name: str, file: Path | None) -> str:
    """What to say of a cluster that is not there: the nearest name, all names, and what to do."""
    import difflib

    from clusterkit.cluster.values import provider_meant

    known = names(home)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    where = f"in {file}" if file is not None else f"and there is no {FILE} here or above"
    new = name if _possible(name) else "NAME"
    provider = "" if provider_meant(name) else " --provider nspawn"
    return (
        f"there is no cluster {name!r} {where}.{hint} Known: {', '.join(known)}. "
        f"`clusterkit init {new}{provider}` writes an example."
    )


def _require_same(started: stored.Stored | None, name: str, file: Path, spec: Spec) -> None:
    """Refuse settings that are another cluster's of the same name.

    A file that was moved is the same one: its old place is empty and it says the same.
    """
    if started is None or started.file is None or Path(started.file) == file.resolve():
        return
    gone = not Path(started.file).is_file()
    if gone and started.spec == spec:
        return
    if gone:
        advice = (
            "That file is gone. Put it back there, or stop the cluster with "
            f"`clusterkit stop {name}`; then this file is used."
        )
    else:
        advice = (
            f"Give one of the two clusters another name, or stop that one first: "
            f"`clusterkit stop {name}`. To use that file from here, set "
            f"CLUSTERKIT_CONFIG={started.file}."
        )
    raise UsageError(
        f"the cluster {name!r} was started from {started.file}, and {file} has a cluster of that "
        f"name too. {advice}"
    )


def _read(file: Path) -> Document:
    from clusterkit import yaml12

    return yaml12.read(file, what="settings file", empty=_EMPTY)


def _named(document: Document) -> set[str]:
    from clusterkit.yaml12 import Mapping

    root = document.root
    clusters = root.entries.get("clusters") if isinstance(root, Mapping) else None
    if clusters is None or not isinstance(clusters[1], Mapping):
        return set()
    return set(filter(_possible, clusters[1].entries))
