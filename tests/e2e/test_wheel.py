"""The built wheel, in a virtual environment and an empty home of its own: the README's path."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git would ship, so that a file that was forgotten is missing here too."""
    source = tmp_path_factory.mktemp("source")
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.split(b"\0")
    for name in (os.fsdecode(part) for part in names if part):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        check=True,
        capture_output=True,
    )
    (found,) = out.glob("*.whl")
    return found


def test_holds_what_it_needs(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "clusterkit/py.typed",
        "clusterkit/_data/playbooks/site.yml",
        "clusterkit/_data/playbooks/verify.yml",
        "clusterkit/_data/playbooks/ansible.cfg",
        "clusterkit/_data/playbooks/roles/slurm/meta/argument_specs.yml",
        "clusterkit/_data/templates/slot.sbatch.j2",
        "clusterkit/store/migrations/env.py",
        "clusterkit/store/migrations/versions/0001_first.py",
        "clusterkit/node/__main__.py",
    ):
        assert wanted in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "experiments/", "bench/")) for name in names)


def test_the_whole_path(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "an environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/python*/site-packages")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps",
         "--no-index", wheel],
        check=True,
    )  # fmt: skip
    # The dependencies are the ones that are here; the package itself is the wheel's.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    for script in Path(sys.executable).parent.glob("ansible*"):
        (environment / "bin" / script.name).symlink_to(script)
    home = tmp_path / "an empty home"
    project = tmp_path / "a project"
    home.mkdir()
    project.mkdir()
    (project / "train.py").write_text(
        "import argparse, clusterkit\n"
        "p = argparse.ArgumentParser()\n"
        "p.add_argument('--width', type=int)\n"
        "p.add_argument('--seed', type=int)\n"
        "a = p.parse_args()\n"
        "clusterkit.log(accuracy=a.width / 100 + a.seed, where=clusterkit.__file__)\n"
    )
    (project / "grid.yaml").write_text("params:\n  width: [8, 32]\nseeds: 3\n")
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
    }

    def clusterkit(*words: str) -> str:
        done = subprocess.run(
            [environment / "bin" / "clusterkit", *words],
            cwd=project,
            env=env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        clusterkit("start", "local")
        clusterkit("parrun", "train.py", "--grid", "grid.yaml", "--wait")
        clusterkit("harvest", "--to", "results.json")
    finally:
        clusterkit("stop", "local", "--yes", "--discard")
    rows = json.loads((project / "results.json").read_text())
    assert [row["state"] for row in rows] == ["COMPLETED"] * 6
    assert {row["accuracy"] for row in rows} == {w / 100 + s for w in (8, 32) for s in range(3)}
    assert all(str(home) in row["where"] for row in rows)  # the shipped one, not a checkout
    assert list((home / ".local/share/clusterkit").iterdir())
