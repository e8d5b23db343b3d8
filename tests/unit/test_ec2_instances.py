"""AWS's answers as clusterkit's nouns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from clusterkit.cluster.providers.ec2 import found

SAID: dict[str, Any] = {
    "InstanceId": "i-1",
    "InstanceType": "g5.xlarge",
    "Placement": {"AvailabilityZone": "us-east-1a"},
    "State": {"Code": 16, "Name": "running"},
    "PrivateIpAddress": "172.31.0.5",
    "AmiLaunchIndex": 3,
    "Tags": [{"Key": "clusterkit-id", "Value": "x"}],
}


def test_an_instance() -> None:
    one = found.instance(SAID)
    assert (one.id, one.zone, one.market, one.state) == (
        "i-1",
        "us-east-1a",
        "on-demand",
        "running",
    )
    assert (one.private, one.public, one.index) == ("172.31.0.5", "", 3)
    assert one.labels == {"clusterkit-id": "x"}
    assert (one.why, one.taken) == ("", False)


@pytest.mark.parametrize(("tag", "disk"), [("30", 30), ("", 0), ("much", 0), ("-3", 0), ("²", 0)])
def test_the_size_of_a_disk_is_in_its_label(tag: str, disk: int) -> None:
    assert found.instance(SAID).disk == 0
    assert found.instance({**SAID, "Tags": [{"Key": "clusterkit-disk", "Value": tag}]}).disk == disk


@pytest.mark.parametrize(
    ("word", "state", "alive"),
    [
        ("pending", "pending", True),
        ("stopping", "stopping", True),
        ("stopped", "stopped", True),
        ("shutting-down", "ending", False),
        ("terminated", "ended", False),
        ("hibernating-maybe", "pending", True),
    ],
)
def test_states(word: str, state: str, alive: bool) -> None:
    one = found.instance({**SAID, "State": {"Name": word}})
    assert (one.state, one.alive) == (state, alive)


def ended(code: str, message: str, **more: Any) -> Any:
    return found.instance(
        {
            **SAID,
            "State": {"Name": "terminated"},
            "StateReason": {"Code": code, "Message": message},
            **more,
        }
    )


def test_a_spot_machine_that_was_taken_away() -> None:
    message = "Server.SpotInstanceTermination: Spot instance termination"
    one = ended("Server.SpotInstanceTermination", message, InstanceLifecycle="spot")
    assert one.taken
    assert one.market == "spot"
    assert one.why == message


def test_one_that_the_user_ended_was_not() -> None:
    message = "Client.UserInitiatedShutdown: User initiated shutdown"
    one = ended("Client.UserInitiatedShutdown", message, InstanceLifecycle="spot")
    assert not one.taken
    assert one.why == message


def test_a_type_with_gpus() -> None:
    one = found.machine_type(
        {
            "InstanceType": "g4dn.12xlarge",
            "ProcessorInfo": {"SupportedArchitectures": ["i386", "x86_64"]},
            "VCpuInfo": {"DefaultVCpus": 48},
            "MemoryInfo": {"SizeInMiB": 196608},
            "GpuInfo": {"Gpus": [{"Name": "T4", "Manufacturer": "NVIDIA", "Count": 4}]},
        },
        {"b", "a"},
    )
    assert (one.cpus, one.memory, one.arch) == (48, 196608, "x86_64")
    assert (one.gpus, one.gpu, one.zones) == (4, "NVIDIA T4", ("a", "b"))


def test_an_image_needs_what_its_root_disk_has() -> None:
    said = {
        "ImageId": "ami-1",
        "Architecture": "arm64",
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
            {"DeviceName": "/dev/sdc", "Ebs": {"VolumeSize": 500}},
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 20}},
        ],
        "CreationDate": "2026-11-05T09:12:44.000Z",
        "State": "failed",
        "StateReason": {"Message": "no"},
    }
    one = found.image(said, "mine", "admin")
    assert (one.disk, one.arch, one.login) == (20, "arm64", "admin")
    assert one.made == datetime(2026, 11, 5, 9, 12, 44, tzinfo=UTC)
    assert (one.state, one.words) == ("failed", "no")
