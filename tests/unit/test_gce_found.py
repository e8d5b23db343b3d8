"""What is read of Google's answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.cloud import compute_v1 as sdk

from clusterkit.cluster.access import Identity
from clusterkit.cluster.cloud import api
from clusterkit.cluster.cloud.found import moment
from clusterkit.cluster.providers.gce import found

ZONE = "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-b"
LABELS = {
    "clusterkit-id": "0123456789abcdef",
    "clusterkit-created": "20261121T134118Z",
    api.GROUP: "gpu",
    api.NUMBERS: "1-3_7",
    api.IMAGE: "ubuntu-24.04",
}


def machine(name: str = "lab-gpu-7", status: str = "RUNNING", **more: Any) -> sdk.Instance:
    said = {
        "name": name,
        "id": "4711",
        "status": status,
        "zone": ZONE,
        "machineType": f"{ZONE}/machineTypes/n1-standard-8",
        "guestAccelerators": [
            {"acceleratorType": f"{ZONE}/acceleratorTypes/nvidia-tesla-t4", "acceleratorCount": 1}
        ],
        "scheduling": {"provisioningModel": "SPOT"},
        "networkInterfaces": [
            {"networkIP": "10.128.0.5", "accessConfigs": [{"natIP": "203.0.113.9"}]}
        ],
        "disks": [{"boot": True, "diskSizeGb": "30"}],
        "labels": found.labels(LABELS),
        "creationTimestamp": "2026-11-21T05:41:18.123-08:00",
    }
    return sdk.Instance.from_json(json.dumps({**said, **more}))


def test_labels_are_what_google_takes_and_come_back() -> None:
    sent = found.labels(LABELS)
    assert all(value == value.lower() and "." not in value for value in sent.values())
    assert moment(found.read(sent)["clusterkit-created"]) is not None
    assert found.read(sent)[api.NUMBERS] == "1-3_7"
    assert len(found.labels({"k": "x" * 80})["k"]) == 63


def test_labels_of_an_identity_fit(tmp_path: Any) -> None:
    sent = Identity("lab", "0" * 16, tmp_path, created="20261121T134118Z").labels("head")
    assert found.described(found.description(sent)) == sent
    assert found.read(found.labels(sent)) == sent


def test_a_filter_takes_an_id_for_a_text() -> None:
    assert found.carrying("12345678901234e5") == 'labels.clusterkit-id="12345678901234e5"'
    assert found.carrying(None) == "labels.clusterkit-id:*"


@pytest.mark.parametrize("text", ["", "ssh for everybody", "[1]", "{"])
def test_a_description_of_somebody_else_tells_nothing(text: str) -> None:
    assert found.described(text) == {}


def test_a_machine() -> None:
    one = found.instance(machine())
    assert (one.id, one.zone, one.market, one.state) == (
        "lab-gpu-7/4711", "us-central1-b", "spot", "running",
    )  # fmt: skip
    assert one.type == "n1-standard-8+nvidia-tesla-t4:1"
    assert (one.private, one.public, one.disk) == ("10.128.0.5", "203.0.113.9", 30)
    assert one.index == 3
    assert one.began is not None
    assert one.began.utcoffset() is not None


def test_a_head_is_the_first_of_its_launch() -> None:
    head = {**found.labels(LABELS), api.NUMBERS: "1", api.GROUP: "head"}
    assert found.instance(machine("lab-head", labels=head)).index == 0


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("PROVISIONING", "pending"),
        ("STAGING", "pending"),
        ("PENDING", "pending"),
        ("STOPPING", "stopping"),
        ("DEPROVISIONING", "stopping"),
        ("STOPPED", "stopped"),
        ("TERMINATED", "stopped"),
        ("SOMETHING_NEW", "pending"),
    ],
)
def test_states(status: str, state: str) -> None:
    assert found.instance(machine(status=status)).state == state


def test_a_machine_that_is_suspended_is_kept() -> None:
    way = {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}
    assert found.instance(machine(status="STOPPING", scheduling=way)).state == "ending"
    assert found.instance(machine(status="SUSPENDING", scheduling=way)).state == "stopping"


def test_families_with_gpus_of_their_own_have_no_suffix() -> None:
    one = machine(machineType=f"{ZONE}/machineTypes/g2-standard-8")
    assert found.instance(one).type == "g2-standard-8"


def test_an_image() -> None:
    said = sdk.Image(
        name="ubuntu-2404-noble-amd64-v20261101",
        self_link="https://www.googleapis.com/compute/v1/projects/u/global/images/ubuntu-2404",
        architecture="X86_64",
        disk_size_gb=10,
        status="READY",
        creation_timestamp="2026-11-01T00:00:00.000-07:00",
    )
    one = found.image(said, "ubuntu-24.04", "ubuntu")
    assert (one.id, one.arch, one.disk, one.state) == (
        "projects/u/global/images/ubuntu-2404", "x86_64", 10, "available",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "group", "numbers"), [("lab-gpu-2", "gpu", "2"), ("lab-head", "head", "1")]
)
def test_a_machine_that_was_taken_is_told_by_its_name(name: str, group: str, numbers: str) -> None:
    said = sdk.Operation(
        operation_type="compute.instances.preempted",
        target_link=f"{ZONE}/instances/{name}",
        target_id=4711,
        zone=ZONE,
        insert_time="2026-11-21T05:41:18.123-08:00",
        status_message="Instance was preempted.",
    )
    one = found.taken(said, "lab", {"clusterkit-id": "0" * 16})
    assert one is not None
    assert (one.id, one.state, one.taken, one.why) == (
        f"{name}/4711", "ended", True, "Instance was preempted.",
    )  # fmt: skip
    assert (one.labels[api.GROUP], one.labels[api.NUMBERS]) == (group, numbers)
    assert found.taken(said, "la", {}) is None
    assert found.taken(said, "lab-gpu", {}) is None
