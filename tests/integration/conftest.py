"""A real SLURM for the tests: `local`, in a data folder of the tests' own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from lab import Lab

REPOSITORY = Path(__file__).resolve().parents[2]


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
    ) -> subprocess.CompletedProcess[str]: ...


def environment(home: Path | None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without any SLURM's variables, with the data folder `home`."""
    base = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
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
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*args),
        env=environment(home, env),
        cwd=cwd,
        input=input if input is not None else "",
        capture_output=True,
        text=True,
        timeout=300,
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


@pytest.fixture
def lab(slurm_home: Path, tmp_path: Path, clusterkit: Clusterkit) -> Iterator[Lab]:
    """A user's project on the session's cluster."""
    from lab import Lab, cancelled_after

    made = Lab(slurm_home, tmp_path / "project", clusterkit)
    made.folder.mkdir()
    with cancelled_after(made):
        yield made
