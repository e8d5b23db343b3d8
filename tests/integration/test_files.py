"""`harvest --files`: what tasks wrote into CLUSTERKIT_OUT comes back, once."""

from __future__ import annotations

import os

import pytest
from lab import Lab, everywhere

pytestmark = pytest.mark.slurm

SCRIPT = """
import os
out = os.environ["CLUSTERKIT_OUT"]
task = os.environ["CLUSTERKIT_TASK"]
os.makedirs(out + "/a folder")
open(out + "/weights.npz", "w").write("w" * (int(task) + 1))
open(out + "/a folder/ünï.txt", "w").write(task)
os.symlink("/etc/passwd", out + "/link.npz")
"""


@everywhere
def test_files_come_back_once(lab: Lab) -> None:
    lab.project(SCRIPT, "params: {i: [1, 2, 3]}\nflags: none\n")

    def run(*words: str) -> str:
        return lab.call(*words).stdout

    lab.parrun("--wait", "--name", "files")
    said = run("harvest", "files", "--files", "out/*.npz", "--into", "back")
    assert "3 new files, 3 in all" in said
    back = lab.folder / "back"
    names = sorted(path.relative_to(back).as_posix() for path in back.rglob("*") if path.is_file())
    assert names == ["0/weights.npz", "1/weights.npz", "2/weights.npz"]
    assert [(back / name).read_text() for name in names] == ["w", "ww", "www"]
    (back / "1/weights.npz").unlink()
    os.utime(back / "2/weights.npz")
    assert "2 new files, 3 in all" in run("harvest", "files", "--files", "*.npz", "--into", "back")
    assert "0 new files, 3 in all" in run("harvest", "files", "--files", "*.npz", "--into", "back")
    run("harvest", "files", "--files", "*", "--into", "all")
    assert (lab.folder / "all/2/a folder/ünï.txt").read_text() == "2"
    assert not (lab.folder / "all/0/link.npz").exists()
