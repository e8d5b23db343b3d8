"""EC2 from nothing to nothing: the double's API, and real systemd machines behind it.

Every machine boots with the very user-data that was sent, is reached at its private address through
the rules of its security group, and is set up by the same roles as any other.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import project as here
import pytest
from doubles.aws import Aws
from doubles.hosts import Hosts
from project import Project, until

from clusterkit.cluster import access

pytestmark = pytest.mark.skipif(bool(here.WHY_NOT), reason=f"no machines here: {here.WHY_NOT}")

# /home is one folder of all hosts of a cluster here, which `start` finds out by itself.
SETTINGS = """\
clusters:
  aws:
    provider: ec2
    region: us-east-1
    connect: private
    user: tester
    head:
      types: [t3.medium]
    workers:
      cpu:
        count: 2
        types: [c5.large]
        market: spot
"""
SCRIPT = """
import os, time, clusterkit
p = clusterkit.params()
time.sleep(p["seconds"])
with open(os.path.join(os.environ["CLUSTERKIT_OUT"], "square.txt"), "w") as file:
    file.write(str(p["x"] ** 2))
clusterkit.log(square=p["x"] ** 2, node=os.environ["SLURMD_NODENAME"])
"""


@pytest.fixture
def aws(spot: Path) -> Iterator[Aws]:
    with Aws(Hosts()) as made:
        yield made
        assert made.left() == []


@pytest.fixture
def project(aws: Aws, tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path, more=aws.environment)
    made.settings(SETTINGS)
    with made.ended("aws"):
        yield made


def states(project: Project, name: str) -> list[str]:
    (found,) = (one for one in project.run("list", "--json").json if one["name"] == name)
    return [found["state"]]


def workers(aws: Aws) -> list[dict[str, Any]]:
    return [
        one
        for one in aws.things("instance")
        if one["State"]["Name"] == "running" and one.get("InstanceLifecycle") == "spot"
    ]


def test_a_whole_life(aws: Aws, project: Project) -> None:
    planned = project.run("start", "aws", "--dry-run").out
    assert "c5.large" in planned
    assert "USD an hour" in planned
    assert aws.count("RunInstances") == 0

    started = project.start("aws", "--yes")
    assert sorted(started["nodes"]) == ["aws-cpu-1", "aws-cpu-2", "aws-head"]
    assert project.slurm("aws", "hostname") == "aws-head"
    assert project.start("aws", "--yes")["changed"] == 0
    assert aws.count("RunInstances") == 2

    # A grid; one of its nodes is taken away in the middle, and is replaced.
    project.task(SCRIPT, "params: {x: {range: [0, 20]}, seconds: 1.0}\n")
    experiment = project.parrun("aws")
    until(
        lambda: any(row["state"] == "RUNNING" for row in project.rows(experiment)),
        "a task that runs",
    )
    lost = workers(aws)[0]
    aws.take_away(lost["InstanceId"])
    healed = project.start("aws", "--yes")
    assert any("Server.SpotInstanceTermination" in note for note in healed["notes"]), healed
    assert aws.count("RunInstances") == 3
    assert len(workers(aws)) == 2
    rows = project.finished(experiment)
    assert [row["square"] for row in rows] == [x * x for x in range(20)]
    assert {row["state"] for row in rows} == {"COMPLETED"}

    # Switched off and on: new addresses, the same trust.
    identity = access.read_id(project.cluster("aws"))
    known = (project.cluster("aws") / "known_hosts").read_text()
    head = next(line for line in known.splitlines() if line.startswith("aws-head "))
    project.run("pause", "aws", "--yes")
    assert workers(aws) == []
    assert states(project, "aws") == ["paused"]
    project.start("aws", "--yes")
    assert head in (project.cluster("aws") / "known_hosts").read_text()
    assert project.rows(experiment) == rows

    # The computer is lost: the tags are the truth.
    assert "20 files" in project.run("stop", "aws", code=1).err
    shutil.rmtree(project.cluster("aws"))
    assert states(project, "aws") == ["elsewhere"]
    project.run("adopt", "aws", "--yes")
    assert access.read_id(project.cluster("aws")) == identity
    assert project.slurm("aws", "hostname") == "aws-head"
    sinfo = ("sinfo", "--noheader", "--format=%D %t")  # a job of the proof may be completing still
    until(lambda: project.slurm("aws", *sinfo) == "2 idle", "two idle nodes")
    assert project.rows(experiment) == rows

    ended = project.run("stop", "aws", "--harvest", "--yes").all
    assert "security groups" in ended
    assert aws.left() == []
    assert project.rows(experiment) == rows
