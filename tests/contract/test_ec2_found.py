"""Tags are the truth, on EC2 as its double has it: the commands themselves, without hosts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from doubles.aws import Aws

from clusterkit.cli import main
from clusterkit.cluster import access, lifecycle
from clusterkit.cluster.cloud import found, known
from clusterkit.cluster.cloud.provider import CloudProvider
from clusterkit.cluster.providers.ec2.cloud import Ec2Cloud
from clusterkit.errors import ClusterError
from clusterkit.paths import Home

SETTINGS = """\
clusters:
  lab:
    provider: ec2
    region: us-east-1
    own_address: 203.0.113.9
    head: {types: m5.large}
    workers:
      gpu: {count: 2, types: g4dn.xlarge, market: spot}
      cpu: {count: 1, types: m5.large}
"""

Said = pytest.CaptureFixture[str]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    with Aws() as double:
        double.boot_time = double.stop_time = double.end_time = 0.0
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
            monkeypatch.delenv(name, raising=False)
        for name, value in double.environment.items():
            monkeypatch.setenv(name, value)
        yield double


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws: Aws) -> Home:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    monkeypatch.setenv("CLUSTERKIT_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("CLUSTERKIT_CONFIG", raising=False)
    (tmp_path / "clusterkit.yaml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    return Home(tmp_path / "data")


def create(home: Home) -> CloudProvider:
    """As far as `start` comes without hosts: its machines run."""
    _, provider = lifecycle.made(home, "lab", keep=True)
    assert isinstance(provider, CloudProvider)
    provider.create(provider.plan(), lambda _: None)
    return provider


def run(capsys: Said, *argv: str) -> tuple[int, str, str]:
    code = main.run(argv)
    said = capsys.readouterr()
    return code, said.out, said.err


def ec2(aws: Aws) -> Any:
    return boto3.client("ec2", region_name="us-east-1")


def states(aws: Aws) -> list[str]:
    return sorted(one["State"]["Name"] for one in aws.things("instance"))


def test_the_folder_is_deleted_and_the_cluster_found_adopted_and_stopped(
    home: Home, aws: Aws, capsys: Said
) -> None:
    id_ = create(home).identity.id
    shutil.rmtree(home.cluster("lab"))
    before = aws.count()
    code, out, err = run(capsys, "list")
    assert (code, err) == (0, "")
    assert "1 head (running), 3 workers (running); `clusterkit adopt lab` takes it over" in out
    assert aws.count() - before == 1
    code, _, err = run(capsys, "stop", "lab", "--yes")
    assert code == 1
    assert "`clusterkit adopt lab`" in err
    assert states(aws) == ["running"] * 4
    assert run(capsys, "adopt", "lab", "--no-key", "--yes")[0] == 0
    assert access.read_id(home.cluster("lab")) == id_
    code, out, err = run(capsys, "stop", "lab", "--discard", "--yes")
    assert code == 0, err
    assert "4 machines (lab-cpu-1, lab-gpu-1, lab-gpu-2, lab-head)" in out
    assert "key pairs: none left" in out
    assert aws.left() == []


def test_adopt_switches_off_tells_the_new_key_and_switches_on(
    home: Home, aws: Aws, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(home)
    old = (home.cluster("lab") / "key.pub").read_text().split()[1]
    shutil.rmtree(home.cluster("lab"))
    seen: list[str] = []

    def start(*_args: object, **_more: object) -> None:  # nobody answers ssh here
        seen.extend(states(aws))
        raise ClusterError("would be started")

    monkeypatch.setattr(lifecycle, "start", start)
    before = aws.counts()
    code, out, err = run(capsys, "adopt", "lab", "--yes")
    assert (code, err) == (1, "Error: would be started\n")
    assert "2 machines will be switched off, told the new key" in out
    assert "2 spot machines will be ended" in out
    assert seen == ["running", "running", "terminated", "terminated"]
    calls = aws.counts() - before
    assert calls["ec2:StopInstances"] == calls["ec2:StartInstances"] == 1
    new = (home.cluster("lab") / "key.pub").read_text().split()[1]
    told = [
        call.params["UserData"] for call in aws.calls if call.action == "ModifyInstanceAttribute"
    ]
    assert len(told) == 2
    for one in told:
        text = one["Value"].decode()
        assert new in text
        assert old not in text
    code, out, err = run(capsys, "stop", "lab", "--discard", "--yes")
    assert code == 0, err
    assert aws.left() == []


def test_discard_ends_it_without_a_folder(home: Home, aws: Aws, capsys: Said) -> None:
    create(home)
    shutil.rmtree(home.cluster("lab"))
    code, out, err = run(capsys, "stop", "lab", "--discard", "--yes")
    assert code == 0, err
    assert aws.left() == []
    assert "4 machines" in out


def test_a_new_start_is_refused_while_somebody_elses_has_the_name(
    home: Home, aws: Aws, capsys: Said
) -> None:
    create(home)
    shutil.rmtree(home.cluster("lab"))
    code, _, err = run(capsys, "start", "lab", "--dry-run")
    assert code == 1
    assert "`clusterkit adopt lab` takes it over" in err


def test_orphans_without_a_head_are_removed(
    home: Home, aws: Aws, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(home)
    head = next(
        one["InstanceId"]
        for one in aws.things("instance")
        if {"Key": "clusterkit-role", "Value": "head"} in one["Tags"]
    )
    ec2(aws).terminate_instances(InstanceIds=[head])
    assert "no orphans" in run(capsys, "orphans", "--yes")[1]  # this computer knows it
    shutil.rmtree(home.cluster("lab"))
    code, out, _ = run(capsys, "orphans", "--yes")
    assert code == 0
    assert "young: a start may be under way; it stays" in out
    assert states(aws).count("running") == 3
    monkeypatch.setattr(found, "YOUNG", timedelta(0))
    aws.refuse("DeleteSecurityGroup", times=2)
    code, out, err = run(capsys, "orphans", "--yes")
    assert code == 0, err
    assert "none of them left" in out
    assert aws.left() == []
    assert aws.count("DeleteSecurityGroup") >= 3
    assert "no orphans" in run(capsys, "orphans", "--yes")[1]


def test_pause_costs_the_disks_alone_and_ends_spot_machines(
    home: Home, aws: Aws, capsys: Said
) -> None:
    create(home)
    code, out, err = run(capsys, "pause", "lab", "--yes")
    assert code == 0, err
    assert "lab-cpu-1, lab-head switched off. lab-gpu-1, lab-gpu-2 ended." in out
    assert "USD an hour" in out
    assert states(aws) == ["stopped", "stopped", "terminated", "terminated"]
    assert "paused" in run(capsys, "status", "lab")[1]
    plan = lifecycle.plan(home, "lab")
    assert {one.name for one in plan.missing} == {"lab-gpu-1", "lab-gpu-2"}
    assert any("switched on again: lab-cpu-1, lab-head" in note for note in plan.notes)
    code, out, err = run(capsys, "stop", "lab", "--yes")
    assert code == 0, err
    assert aws.left() == []


def test_list_all_finds_it_in_a_region_of_which_no_settings_speak(
    home: Home, aws: Aws, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(home)
    shutil.rmtree(home.cluster("lab"))
    Path("clusterkit.yaml").unlink()
    every = known.default("ec2", "us-east-1").regions()
    assert {"us-east-1", "eu-west-1"} <= set(every)
    monkeypatch.setattr(Ec2Cloud, "regions", lambda _: ("us-east-1", "eu-west-1"))  # all take long
    assert "lab" not in run(capsys, "list")[1]
    code, out, err = run(capsys, "list", "--all")
    assert (code, err) == (0, "")
    assert "`clusterkit adopt lab --provider ec2 --region us-east-1` takes it over" in out
    argv = ("adopt", "lab", "--provider", "ec2", "--region", "us-east-1", "--no-key", "--yes")
    assert run(capsys, *argv)[0] == 0
    code, _, err = run(capsys, "stop", "lab", "--discard", "--yes")
    assert code == 0, err
    assert aws.left() == []


def test_wrong_credentials_are_one_line_of_list(
    home: Home, aws: Aws, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODY")
    code, out, err = run(capsys, "list")
    assert code == 1
    assert "stopped" in out
    assert len(err.splitlines()) == 1
    assert err.startswith("ec2 us-east-1 could not be asked: ")


def test_without_a_cluster_of_a_cloud_boto3_is_not_imported(home: Home, tmp_path: Path) -> None:
    """Though it is installed here."""
    program = (
        "import sys; from clusterkit.cli import main; assert main.run(['list']) == 0;"
        "print(sorted({'boto3', 'botocore'} & set(sys.modules)))"
    )
    (tmp_path / "clusterkit.yaml").write_text("clusters:\n  a:\n    provider: local\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_what_the_proof_lists_is_what_was_looked_for(home: Home, aws: Aws) -> None:
    _, provider = lifecycle.made(home, "lab", keep=False)
    assert provider is not None
    assert set(provider.looked_for) == set(known.default("ec2", "us-east-1").kinds)
