"""GCE from nothing to nothing: the double's API, and real systemd machines behind it.

Every machine boots with the very user-data that was sent, is reached at its private address through
its project's firewall rules, believes that it has the GPU that was asked for, and is set up by the
same roles as any other.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import project as here
import pytest
from doubles.gce import Gce
from doubles.hosts import Hosts
from project import Project, until

from clusterkit.cluster import access

pytestmark = pytest.mark.skipif(bool(here.WHY_NOT), reason=f"no machines here: {here.WHY_NOT}")

TYPE = "n1-standard-8"
# /home is one folder of all hosts of a cluster here, which `start` finds out by itself.
SETTINGS = f"""\
clusters:
  gce:
    provider: gce
    region: us-central1
    connect: private
    user: tester
    head:
      types: [e2-medium]
      zones: [us-central1-b]
    workers:
      gpu:
        count: 2
        types: ["{TYPE}+nvidia-tesla-t4:1"]
        zones: [us-central1-a, us-central1-b]
        market: spot
"""
SCRIPT = """
import os, time, clusterkit
p = clusterkit.params()
time.sleep(p["seconds"])
with open(os.path.join(os.environ["CLUSTERKIT_OUT"], "square.txt"), "w") as file:
    file.write(str(p["x"] ** 2))
clusterkit.log(square=p["x"] ** 2, gpu=os.environ["CUDA_VISIBLE_DEVICES"])
"""
ROWS = 20


@pytest.fixture
def gce(spot: Path) -> Iterator[Gce]:
    with Gce(Hosts(range="10.128.0.0/20"), default_rules=True) as made:
        yield made
        assert made.left() == []


@pytest.fixture
def project(gce: Gce, tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path, more=gce.environment)
    made.settings(SETTINGS)
    with made.ended("gce"):
        yield made


def state(project: Project, name: str) -> str:
    (found,) = (one for one in project.run("list", "--json").json if one["name"] == name)
    return str(found["state"])


def spot(gce: Gce) -> list[str]:
    return sorted(
        one["name"]
        for one in gce.things("instances")
        if one["status"] == "RUNNING" and one["scheduling"].get("provisioningModel") == "SPOT"
    )


def test_a_whole_life(gce: Gce, project: Project) -> None:
    gce.capacity[TYPE, "us-central1-a", "spot"] = 0
    planned = project.run("start", "gce", "--dry-run").out
    assert "us-central1-a, us-central1-b" in planned
    assert "USD an hour" in planned
    assert gce.left() == []

    told = project.run("start", "gce", "--yes").all
    assert "spot in us-central1-a: ZONE_RESOURCE_POOL_EXHAUSTED" in told
    assert f"2 x {TYPE}+nvidia-tesla-t4:1 spot in us-central1-b" in told
    assert {one["zone"].rpartition("/")[2] for one in gce.things("instances")} == {"us-central1-b"}
    assert spot(gce) == ["gce-gpu-1", "gce-gpu-2"]
    assert project.slurm("gce", "hostname") == "gce-head"
    assert project.start("gce", "--yes")["changed"] == 0

    # A grid, each task with a GPU; a node is taken away in the middle, and is replaced.
    project.task(SCRIPT, f"params: {{x: {{range: [0, {ROWS}]}}, seconds: 1.0}}\n")
    asked = gce.count()
    experiment = project.parrun("gce", "--alloc", "--gres=gpu:1")
    until(
        lambda: any(row["state"] == "RUNNING" for row in project.rows(experiment)),
        "a task that runs",
    )
    project.run("status", "gce")
    assert gce.count() == asked  # who runs and harvests pays nothing for the SDK
    gce.take_away("gce-gpu-1")
    healed = project.start("gce", "--yes")
    assert any("preempted" in note for note in healed["notes"]), healed
    assert spot(gce) == ["gce-gpu-1", "gce-gpu-2"]
    rows = project.finished(experiment)
    assert [row["square"] for row in rows] == [x * x for x in range(ROWS)]
    assert {row["state"] for row in rows} == {"COMPLETED"}
    assert {row["gpu"] for row in rows} == {"0"}

    # Switched off and on: the same trust.
    identity = access.read_id(project.cluster("gce"))
    known = (project.cluster("gce") / "known_hosts").read_text()
    head = next(line for line in known.splitlines() if line.startswith("gce-head "))
    project.run("pause", "gce", "--yes")
    assert spot(gce) == []
    assert state(project, "gce") == "paused"
    project.start("gce", "--yes")
    assert head in (project.cluster("gce") / "known_hosts").read_text()
    assert project.rows(experiment) == rows

    # The computer is lost: the labels are the truth.
    assert f"{ROWS} files" in project.run("stop", "gce", code=1).err
    shutil.rmtree(project.cluster("gce"))
    assert state(project, "gce") == "elsewhere"
    project.run("adopt", "gce", "--yes")
    assert access.read_id(project.cluster("gce")) == identity
    assert project.slurm("gce", "hostname") == "gce-head"
    sinfo = ("sinfo", "--noheader", "--format=%D %t")  # a job of the proof may be completing still
    until(lambda: project.slurm("gce", *sinfo) == "2 idle", "two idle nodes")
    assert project.rows(experiment) == rows

    ended = project.run("stop", "gce", "--harvest", "--yes").all
    assert "firewall rules" in ended
    assert gce.left() == []
    assert project.rows(experiment) == rows
