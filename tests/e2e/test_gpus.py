"""GPUs in SLURM, on machines that pretend to have some: an nvidia-smi that prints what a real one
printed, and device files. Everything but the driver is real.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import project as here
import pytest
from project import Project, inside

from clusterkit.cluster import access

pytestmark = pytest.mark.skipif(bool(here.WHY_NOT), reason=f"no machines here: {here.WHY_NOT}")

SETTINGS = f"""\
clusters:
  lab:
    provider: nspawn
    images: {here.IMAGES}
    accounting: false
    workers:
      gpu: {{count: 1, cpus: 2, memory: 2G, gpus: 3}}
"""
#: What `nvidia-smi --query-gpu=index,name,memory.total --format=csv,noheader,nounits` and
#: `--query-gpu=index` print on a machine with two of them (driver 550).
NVIDIA_SMI = """\
#!/bin/sh
for number in 0 1; do
  case "$*" in
    *index,name,memory.total*) echo "$number, NVIDIA A100-SXM4-40GB, 40960" ;;
    *) echo $number ;;
  esac
done
"""
SCRIPT = """
import os, time, clusterkit
began = time.time()
time.sleep(1.5)
clusterkit.log(visible=os.environ["CUDA_VISIBLE_DEVICES"], gpu=os.environ["SLURM_JOB_GPUS"],
               began=began, ended=time.time())
"""


def pretend(group: Path, count: int) -> None:
    (group / "dev").mkdir(parents=True)
    for number in range(count):
        # A real device file, which a control group can fence: that of /dev/null.
        os.mknod(group / "dev" / f"nvidia{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    program = group / "usr" / "bin" / "nvidia-smi"
    program.parent.mkdir(parents=True)
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)


@pytest.fixture(scope="module")
def project(spot: Path) -> Iterator[Project]:
    made = Project(spot)
    pretend(made.cluster("lab") / "pretend" / "gpu", 2)
    made.settings(SETTINGS)
    with made.ended("lab"):
        yield made


def test_gpus_promised_and_had(project: Project) -> None:
    if not (project.cluster("lab") / "facts.json").exists():
        refused = project.run("start", "lab", code=1)
        assert "lab-gpu-1 was promised 3 GPU(s), but nvidia-smi shows 2" in refused.err
        assert "nothing was changed" in refused.err
    project.settings(SETTINGS.replace("gpus: 3", "gpus: 2"))
    facts = project.start("lab")["facts"]
    assert facts["gpus"] == ["a100_sxm4_40gb"] * 2
    known = access.read_id(project.cluster("lab"))
    assert "Gres=gpu:a100_sxm4_40gb:2" in inside(known, "lab-head", "cat /etc/slurm/slurm.conf")
    assert inside(known, "lab-gpu-1", "grep -c /dev/nvidia /etc/slurm/gres.conf") == "2"
    assert project.slurm("lab", "sinfo", "--noheader", "--format=%G").startswith("gpu:a100")


def test_each_task_has_one_of_its_own(project: Project) -> None:
    project.settings(SETTINGS.replace("gpus: 3", "gpus: 2"))
    assert project.start("lab")["changed"] >= 0
    project.task(SCRIPT, "params: {i: [1, 2, 3, 4, 5, 6]}\n")
    words = ("--alloc", "--gres=gpu:1 --mem=200 --cpus-per-task=1", "--pack", "off")
    rows = project.finished(project.parrun("lab", *words))
    assert [row["state"] for row in rows] == ["COMPLETED"] * 6
    assert all(len(str(row["visible"]).split(",")) == 1 for row in rows)
    assert {str(row["gpu"]) for row in rows} == {"0", "1"}
    for gpu in ("0", "1"):
        times = sorted((row["began"], row["ended"]) for row in rows if str(row["gpu"]) == gpu)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))
