"""A real SLURM for the tests: `local`, in a data folder of the tests' own; and other clusters.

A test runs on `local` unless `@everywhere` or `@on(...)` names others (see `places`).
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from lab import Lab
    from places import Place

REPOSITORY = Path(__file__).resolve().parents[2]
#: The home of all that is started here: nobody's settings, keys and caches are read or written.
NOBODYS = Path(tempfile.mkdtemp(prefix="clusterkit-home-"))
atexit.register(shutil.rmtree, NOBODYS, ignore_errors=True)


class Clusterkit(Protocol):
    """`clusterkit ARGS...` in a process of its own."""

    def __call__(
        self,
        *args: str | Path,
        home: Path | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        input: str | None = None,  # noqa: A002
        timeout: float = 600,
    ) -> subprocess.CompletedProcess[str]: ...


def environment(home: Path | None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without any SLURM's variables, with the data folder `home`."""
    left_out = ("SLURM_", "CLUSTERKIT_", "SSH_")
    base = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
    base |= {"HOME": str(NOBODYS)}
    python_path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    data = {"CLUSTERKIT_HOME": str(home)} if home is not None else {}
    return {**base, "PYTHONPATH": python_path, **data, **(extra or {})}


def command(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "clusterkit", *(str(arg) for arg in args)]


def _run(
    *args: str | Path,
    home: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    input: str | None = None,  # noqa: A002
    timeout: float = 600,
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*args),
        env=environment(home, env),
        cwd=cwd,
        input=input if input is not None else "",
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode != 0:
        words: Sequence[str] = [str(arg) for arg in args]
        raise AssertionError(
            f"clusterkit {' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done


@pytest.fixture(scope="session")
def clusterkit() -> Clusterkit:
    return _run


def start_or_skip(home: Path) -> subprocess.CompletedProcess[str]:
    """Start `local` in `home`; skip where SLURM's packages are missing and cannot be installed."""
    done = _run("start", "local", "--json", home=home, check=False)
    if done.returncode != 0:
        if "not installed" in done.stderr:
            pytest.skip(done.stderr.strip())
        raise AssertionError(f"clusterkit start local: {done.stdout}{done.stderr}")
    return done


@pytest.fixture(scope="session")
def slurm_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder in which the cluster `local` runs, for all tests of the session."""
    home = tmp_path_factory.mktemp("home")
    try:
        start_or_skip(home)
        yield home
    finally:
        _run("stop", "local", "--yes", "--discard", home=home)


@pytest.fixture(scope="session")
def local_place(slurm_home: Path) -> Place:
    from places import Place

    return Place("local", slurm_home)


@pytest.fixture(scope="session")
def attach_place(slurm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The SLURM of `local` as one that somebody else has started, from another data folder."""
    import places

    return places.attached(slurm_home, tmp_path_factory.mktemp("attach"))


@pytest.fixture(scope="session")
def attach_ssh_place(slurm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The same, reached by ssh through a jump host."""
    import places

    with places.attached_by_ssh(slurm_home, tmp_path_factory.mktemp("ssh")) as place:
        yield place


@pytest.fixture(scope="session")
def nspawn_place(
    tmp_path_factory: pytest.TempPathFactory, clusterkit: Clusterkit
) -> Iterator[Place]:
    """A head and two workers that this host boots."""
    import places

    with places.nspawn(tmp_path_factory.mktemp("nspawn"), clusterkit) as place:
        yield place


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path, clusterkit: Clusterkit) -> Iterator[Lab]:
    """A user's project on one of the session's clusters, `local` unless the test says otherwise."""
    from lab import cancelled_after

    kind = getattr(request, "param", "local")
    place: Place = request.getfixturevalue(f"{kind}_place")
    made = place.lab(tmp_path / "project", clusterkit)
    with cancelled_after(made):
        yield made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on nspawn machines come last, so that these run no longer than they are needed."""
    items.sort(key=lambda item: item.name.endswith("[nspawn]"))
