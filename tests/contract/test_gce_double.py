"""The double of Compute Engine, asked by Google's typed clients: that it refuses what Google
refuses, and does what Google does."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from doubles.gce import Gce, catalogue, wire

pytest.importorskip("google.cloud.compute_v1")

from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1 as compute

UBUNTU = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"
ZONE, REGION = "us-central1-a", "us-central1"
T4 = "nvidia-tesla-t4"
NAT = {"type_": "ONE_TO_ONE_NAT", "name": "External NAT"}
SPOT = {
    "provisioning_model": "SPOT",
    "instance_termination_action": "DELETE",
    "automatic_restart": False,
    "on_host_maintenance": "TERMINATE",
}
LABELS = {"clusterkit-id": "abc"}


@pytest.fixture
def gce() -> Iterator[Gce]:
    with Gce() as made:
        made.boot_time = made.stop_time = made.end_time = made.image_time = 0.0
        made.operation_time = 0.0
        made.looks = 0
        yield made


class Asker:
    """Google's clients, with the project filled in."""

    def __init__(self, gce: Gce) -> None:
        self.gce = gce
        self._clients: dict[str, Any] = {}

    def __call__(self, service: str, method: str, **request: Any) -> Any:
        if service not in self._clients:
            kind: Any = getattr(compute, f"{service}Client")
            self._clients[service] = kind(
                credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
                client_options={"api_endpoint": self.gce.url},
                transport="rest",
            )
        said = {"project": self.gce.project, **request}
        return getattr(self._clients[service], method)(request=said, retry=None, timeout=10)

    def act(self, service: str, method: str, **request: Any) -> Any:
        """The operation once it is done."""
        return self.done(self(service, f"{method}_unary", **request))

    def done(self, one: Any) -> Any:
        until = time.monotonic() + 10
        while one.status.name != "DONE":
            assert time.monotonic() < until
            one = self.look(one)
        return one

    def look(self, one: Any) -> Any:
        zone, region = one.zone.rpartition("/")[2], one.region.rpartition("/")[2]
        if zone:
            return self("ZoneOperations", "get", zone=zone, operation=one.name)
        if region:
            return self("RegionOperations", "get", region=region, operation=one.name)
        return self("GlobalOperations", "get", operation=one.name)

    def insert(self, name: str = "one", zone: str = ZONE, **more: Any) -> Any:
        """The operation of a new machine."""
        return self.act("Instances", "insert", zone=zone, instance_resource=machine(name, **more))

    def bulk(self, count: int, least: int, zone: str = "", **more: Any) -> Any:
        said = bulk(count, least, **more)
        resource = {"bulk_insert_instance_resource_resource": said}
        if zone:
            return self.act("Instances", "bulk_insert", zone=zone, **resource)
        return self.act("RegionInstances", "bulk_insert", region=REGION, **resource)

    def statuses(self) -> dict[str, str]:
        found = self("Instances", "aggregated_list")
        return {one.name: one.status for _, scope in found for one in scope.instances}

    def get(self, name: str, zone: str = ZONE) -> Any:
        return self("Instances", "get", zone=zone, instance=name)


@pytest.fixture
def ask(gce: Gce) -> Asker:
    return Asker(gce)


def machine(name: str, type_: str = "e2-standard-2", zone: str = ZONE, **more: Any) -> Any:
    disk = {
        "boot": True,
        "auto_delete": True,
        "initialize_params": {"source_image": UBUNTU, "disk_size_gb": 30, "labels": LABELS},
    }
    said: dict[str, Any] = {
        "name": name,
        "machine_type": f"zones/{zone}/machineTypes/{type_}",
        "disks": [disk],
        "network_interfaces": [{"network": "global/networks/default", "access_configs": [NAT]}],
        "labels": LABELS,
    }
    return compute.Instance(said | more)


def bulk(count: int, least: int, type_: str = "e2-standard-2", **more: Any) -> Any:
    like = compute.Instance.to_dict(machine("x"))
    properties = {key: like[key] for key in ("disks", "network_interfaces", "labels")}
    properties |= {"machine_type": type_, **more}
    return compute.BulkInsertInstanceResource(
        count=count,
        min_count=least,
        per_instance_properties={f"w-{number}": {} for number in range(1, count + 1)},
        instance_properties=properties,
    )


def gpus(count: int = 1, type_: str = T4, zone: str = "") -> dict[str, Any]:
    name = f"zones/{zone}/acceleratorTypes/{type_}" if zone else type_
    return {"guest_accelerators": [{"accelerator_type": name, "accelerator_count": count}]}


def codes(operation: Any) -> list[str]:
    return [one.code for one in operation.error.errors]


def post(gce: Gce, path: str, body: Any, verb: str = "POST") -> tuple[int, Any]:
    """Without a client that knows better."""
    request = urllib.request.Request(
        f"{gce.url}/compute/v1/projects/{gce.project}/{path}",
        json.dumps(body).encode() if body is not None else None,
        {"Content-Type": "application/json"},
        method=verb,
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        said = error.read()
        return error.code, json.loads(said) if said.startswith(b"{") else said.decode()


# -- the document ----------------------------------------------------------------------------------


def test_every_method_of_the_document_is_answered() -> None:
    from doubles.gce.world import METHODS

    assert {one.name for one in wire.methods()} == set(METHODS)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("instances", {"name": "a", "nme": 1}, "Unknown name \"nme\" at 'resource'"),
        ("instances", {"name": "A"}, "Must be a match of regex"),
        ("instances", {}, "resource.name"),
        ("instances", {"name": "a", "disks": {}}, "it is not a list"),
        ("instances", {"name": "a", "disks": [{"boot": "yes"}]}, "it is not a boolean"),
        ("instances", {"name": "a", "disks": [{"diskSizeGb": 30}]}, "it is not a string (int64)"),
        ("instances", {"name": "a", "disks": [{"diskSizeGb": "3x"}]}, "it is not a int64"),
        ("instances", {"name": "a", "scheduling": {"provisioningModel": "Spot"}}, "none of"),
        ("instances", {"name": "a", "labels": {"a": 1}}, "it is not a string"),
        ("instances?when=now", {"name": "a"}, "Cannot bind query parameter"),
        ("instances?requestId=1", {"name": "a"}, "valid UUID"),
        ("instances/bulkInsert", {"count": 1}, "it is not a string (int64)"),
    ],
)
def test_requests_that_google_would_not_understand(
    gce: Gce, path: str, body: Any, words: str
) -> None:
    status, said = post(gce, f"zones/{ZONE}/{path}", body)
    assert status == 400
    assert said["error"]["code"] == 400
    assert words in said["error"]["message"]
    assert said["error"]["errors"][0]["domain"] == "global"
    assert gce.things("instances") == []


def test_errors_as_google_writes_them(gce: Gce, ask: Asker) -> None:
    status, said = post(gce, f"zones/{ZONE}/instances/nobody", None, "GET")
    words = f"The resource 'projects/test-project/zones/{ZONE}/instances/nobody' was not found"
    one = {"message": words, "domain": "global", "reason": "notFound"}
    assert (status, said) == (404, {"error": {"code": 404, "message": words, "errors": [one]}})
    with pytest.raises(exceptions.NotFound, match="projects/another' was not found"):
        ask("Regions", "list", project="another")
    with pytest.raises(exceptions.BadRequest, match="Unknown zone"):
        ask("Instances", "list", zone="us-central1-z")
    status, said = post(gce, "nowhere", None, "GET")
    assert status == 404
    assert "<title>Error 404" in said


# -- launching -------------------------------------------------------------------------------------


def test_a_machine_whole(gce: Gce, ask: Asker) -> None:
    gce.looks = 1
    more = {
        "tags": {"items": ["ssh"]},
        "metadata": {"items": [{"key": "user-data", "value": "#cloud-config\n"}]},
    }
    resource = machine("one", "n1-standard-8", scheduling=SPOT, **gpus(zone=ZONE), **more)
    begun = ask("Instances", "insert_unary", zone=ZONE, instance_resource=resource)
    assert begun.status.name == "PENDING"
    assert begun.operation_type == "insert"
    seen = ask.look(begun)
    assert (seen.status.name, seen.end_time) == ("RUNNING", "")
    assert ask.look(begun).status.name == "DONE"
    one = ask.get("one")
    assert one.status == "RUNNING"
    assert str(one.id) == str(begun.target_id)
    assert one.self_link == begun.target_link
    assert one.scheduling.provisioning_model == "SPOT"
    assert one.guest_accelerators[0].accelerator_count == 1
    assert one.network_interfaces[0].network_i_p == "10.128.0.2"
    assert one.network_interfaces[0].access_configs[0].nat_i_p == "203.0.113.1"
    assert dict(one.labels) == LABELS
    disk = ask("Disks", "get", zone=ZONE, disk="one")
    assert (disk.size_gb, list(disk.users)) == (30, [one.self_link])
    assert gce.left() == ["instance one", "disk one"]
    with pytest.raises(exceptions.Conflict, match="already exists"):
        ask.insert("one")


def test_a_request_id_makes_machines_once(gce: Gce, ask: Asker) -> None:
    id_ = str(uuid.uuid4())
    one = ask.insert("one")
    first = ask("Instances", "insert_unary", zone=ZONE, instance_resource=machine("two"),
                request_id=id_)  # fmt: skip
    again = ask("Instances", "insert_unary", zone=ZONE, instance_resource=machine("two"),
                request_id=id_)  # fmt: skip
    assert first.name == again.name != one.name
    with pytest.raises(exceptions.BadRequest, match="requestId"):
        ask("Instances", "insert_unary", zone=ZONE, instance_resource=machine("three"),
            request_id=id_)  # fmt: skip
    assert sorted(ask.statuses()) == ["one", "two"]


def test_a_request_id_used_at_the_same_time(gce: Gce) -> None:
    id_, found, gate = str(uuid.uuid4()), list[Any](), threading.Barrier(4)

    def launch() -> None:
        asker = Asker(gce)
        gate.wait()
        found.append(
            asker("RegionInstances", "bulk_insert_unary", region=REGION, request_id=id_,
                  bulk_insert_instance_resource_resource=bulk(2, 2)).name
        )  # fmt: skip

    threads = [threading.Thread(target=launch) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(gce.things("instances")) == 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"type_": "x9-huge"}, "Machine type with name 'x9-huge' does not exist"),
        ({"machine_type": "e2-standard-2"}, "The URL is malformed"),
        ({"type_": "t2a-standard-2"}, "architecture"),
        ({"disks": []}, "Boot disk"),
        ({"network_interfaces": []}, "network interface"),
        ({"labels": {"Team": "red"}}, "Label key"),
        ({"labels": {"team": "2026-01-01T00:00:00Z"}}, "Label value"),
        ({"tags": {"items": ["A"]}}, "Must be a match"),
        ({"type_": "n1-standard-8", **gpus(zone=ZONE)}, "do not support live migration"),
        ({"type_": "g2-standard-8"}, "do not support live migration"),
        ({"scheduling": SPOT, **gpus(zone=ZONE)}, "not compatible with machine type"),
        ({"type_": "n1-standard-8", "scheduling": SPOT, **gpus(3, zone=ZONE)}, "Must be one of"),
        ({"scheduling": SPOT | {"automatic_restart": True}}, "automaticRestart be false"),
        ({"scheduling": SPOT | {"on_host_maintenance": "MIGRATE"}}, "onHostMaintenance"),
        ({"scheduling": {"instance_termination_action": "DELETE"}}, "provisioning model SPOT"),
        ({"scheduling": {"max_run_duration": {"seconds": 3600}}}, "instanceTerminationAction"),
        ({"metadata": {"items": [{"key": "a", "value": "1"}] * 2}}, "duplicate key"),
        ({"metadata": {"items": [{"key": "a", "value": "1" * 262145}]}}, "maximum allowed size"),
    ],
)
def test_launches_that_are_refused(gce: Gce, ask: Asker, more: dict[str, Any], words: str) -> None:
    with pytest.raises(exceptions.BadRequest, match=words):
        ask.insert(**more)
    assert gce.things("instances") == []
    assert gce.things("disks") == []


def test_what_is_not_there(gce: Gce, ask: Asker) -> None:
    image = {"boot": True, "initialize_params": {"source_image": f"{UBUNTU}-none"}}
    with pytest.raises(exceptions.NotFound, match="images/family/ubuntu-2404-lts-amd64-none"):
        ask.insert(disks=[image])
    with pytest.raises(exceptions.NotFound, match="networks/mine"):
        ask.insert(network_interfaces=[{"network": "global/networks/mine"}])
    gce.lacks.add((T4, ZONE))
    with pytest.raises(exceptions.NotFound, match=f"acceleratorTypes/{T4}"):
        ask.insert(type_="n1-standard-8", scheduling=SPOT, **gpus(zone=ZONE))


def test_capacity(gce: Gce, ask: Asker) -> None:
    gce.capacity["e2-standard-2", ZONE, "on-demand"] = 1
    assert codes(ask.insert("one")) == []
    failed = ask.insert("two")
    assert codes(failed) == ["ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"]
    assert failed.http_error_status_code == 503
    assert "does not have enough resources" in failed.error.errors[0].message
    assert ask.statuses() == {"one": "RUNNING"}
    assert [one["name"] for one in gce.things("disks")] == ["one"]
    assert codes(ask.insert("two", scheduling=SPOT)) == [], "another market"
    ask.act("Instances", "delete", zone=ZONE, instance="one")
    assert codes(ask.insert("three")) == [], "one is free again"


def test_where_e2_goes_for_maintenance(gce: Gce, ask: Asker) -> None:
    with pytest.raises(exceptions.BadRequest, match="e2 instances do not support"):
        ask.insert(scheduling={"on_host_maintenance": "TERMINATE"})
    assert codes(ask.insert(scheduling=SPOT)) == []


def test_local_ssds_of_a_machine_that_is_switched_off(gce: Gce, ask: Asker) -> None:
    ask.insert(type_="a2-ultragpu-1g", scheduling={"on_host_maintenance": "TERMINATE"})
    with pytest.raises(exceptions.BadRequest, match="Local SSD"):
        ask.act("Instances", "stop", zone=ZONE, instance="one")
    ask.act("Instances", "stop", zone=ZONE, instance="one", discard_local_ssd=True)
    assert ask.statuses() == {"one": "TERMINATED"}


def test_zones_that_are_not_reached(gce: Gce, ask: Asker) -> None:
    ask.insert()
    gce.unreachable = {ZONE}
    page = ask("Instances", "aggregated_list").raw_page
    assert page.items[f"zones/{ZONE}"].warning.code == "UNREACHABLE"
    assert not page.items[f"zones/{ZONE}"].instances
    assert list(page.unreachables) == [f"projects/test-project/zones/{ZONE}"]


def test_many_at_once(gce: Gce, ask: Asker) -> None:
    for zone in ("us-central1-a", "us-central1-b", "us-central1-f"):
        gce.capacity["n1-standard-4+nvidia-tesla-t4:1", zone, "spot"] = 1
    more = {"type_": "n1-standard-4", "scheduling": SPOT, **gpus()}
    made = ask.bulk(3, 2, **more)
    assert codes(made) == []
    places = made.instances_bulk_insert_operation_metadata.per_location_status
    assert places["zones/us-central1-c"].created_vm_count == 3
    assert {one.rpartition("/")[2] for one in _zones(ask)} == {"us-central1-c"}
    children = list(
        ask("ZoneOperations", "list", zone="us-central1-c", filter="operationType=insert")
    )
    assert {one.operation_group_id for one in children} == {made.operation_group_id}
    again = ask.bulk(3, 2, zone="us-central1-c", **more)
    assert codes(again) == ["VM_MIN_COUNT_NOT_REACHED"], "why, the operations of the machines tell"
    told = [
        one
        for one in ask("ZoneOperations", "list", zone="us-central1-c")
        if (one.operation_group_id, one.operation_type) == (again.operation_group_id, "insert")
    ]
    assert [codes(one) for one in told] == [["RESOURCE_ALREADY_EXISTS"]] * 3
    assert "instances/w-" in told[0].error.errors[0].message
    assert len(_zones(ask)) == 3
    said = bulk(1, 1)
    said.per_instance_properties = {"w-9": {"name": "w-9"}}
    with pytest.raises(exceptions.BadRequest, match="output only"):
        ask.act("Instances", "bulk_insert", zone=ZONE,
                bulk_insert_instance_resource_resource=said)  # fmt: skip


def _zones(ask: Asker) -> list[str]:
    found = ask("Instances", "aggregated_list")
    return [one.zone for _, scope in found for one in scope.instances]


def test_many_that_are_not_there(gce: Gce, ask: Asker) -> None:
    gce.capacity["*", "us-central1-*", "*"] = 1
    failed = ask.bulk(3, 2)
    assert codes(failed)[0] == "VM_MIN_COUNT_NOT_REACHED"
    assert set(codes(failed)[1:]) == {"ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"}
    assert gce.things("instances") == gce.things("disks") == []
    fewer = ask.bulk(3, 1, zone=ZONE)
    assert codes(fewer) == []
    places = fewer.instances_bulk_insert_operation_metadata.per_location_status
    assert places[f"zones/{ZONE}"].created_vm_count == 1
    assert list(ask.statuses()) == ["w-3"], "not the first: Google promises none"


def test_many_in_some_zones(gce: Gce, ask: Asker) -> None:
    said = bulk(1, 1)
    said.location_policy = {
        "locations": {"zones/us-central1-f": {"preference": "ALLOW"}},
        "target_shape": "ANY_SINGLE_ZONE",
    }
    ask.act("RegionInstances", "bulk_insert", region=REGION,
            bulk_insert_instance_resource_resource=said)  # fmt: skip
    assert [one.rpartition("/")[2] for one in _zones(ask)] == ["us-central1-f"]
    said = bulk(1, 1)
    said.instance_properties.machine_type = f"zones/{ZONE}/machineTypes/e2-standard-2"
    with pytest.raises(exceptions.BadRequest, match="It must be a name"):
        ask.act("RegionInstances", "bulk_insert", region=REGION,
                bulk_insert_instance_resource_resource=said)  # fmt: skip


def test_quotas(gce: Gce, ask: Asker) -> None:
    gce.quotas[REGION, "PREEMPTIBLE_NVIDIA_T4_GPUS"] = 1
    more = {"type_": "n1-standard-4", "scheduling": SPOT, **gpus(zone=ZONE)}
    assert codes(ask.insert("one", **more)) == []
    failed = ask.insert("two", **more)
    assert codes(failed) == ["QUOTA_EXCEEDED"]
    said = failed.error.errors[0]
    assert "Quota 'PREEMPTIBLE_NVIDIA_T4_GPUS' exceeded.  Limit: 1.0 in region" in said.message
    info = said.error_details[0].quota_info
    assert (info.limit, info.dimensions["region"]) == (1, REGION)
    region = ask("Regions", "get", region=REGION)
    shown = {one.metric: (one.limit, one.usage) for one in region.quotas}
    assert shown["PREEMPTIBLE_NVIDIA_T4_GPUS"] == (1, 1)
    assert shown["CPUS"] == (256, 4)
    gce.quotas["", "GPUS_ALL_REGIONS"] = 1
    project = ask("Projects", "get")
    assert {one.metric: one.usage for one in project.quotas}["GPUS_ALL_REGIONS"] == 1
    on_demand = {"on_host_maintenance": "TERMINATE"}
    failed = ask.bulk(1, 1, type_="g2-standard-4", scheduling=on_demand)
    assert codes(failed) == ["VM_MIN_COUNT_NOT_REACHED", "QUOTA_EXCEEDED"]
    assert "GPUS_ALL_REGIONS' exceeded.  Limit: 1.0 globally" in failed.error.errors[1].message


# -- life ------------------------------------------------------------------------------------------


def test_life_of_a_machine(gce: Gce, ask: Asker) -> None:
    ask.insert()
    one = ask.get("one")
    public = one.network_interfaces[0].access_configs[0].nat_i_p
    gce.stop_time = 60
    begun = ask("Instances", "stop_unary", zone=ZONE, instance="one")
    assert ask.statuses() == {"one": "STOPPING"}
    with pytest.raises(exceptions.BadRequest, match="is not ready"):
        ask("Instances", "start_unary", zone=ZONE, instance="one")
    with gce.lock:
        gce.world._planned[0][2]()
    assert ask.done(begun).operation_type == "stop"
    assert ask.statuses() == {"one": "TERMINATED"}
    with pytest.raises(exceptions.PreconditionFailed):
        ask.act("Instances", "set_metadata", zone=ZONE, instance="one",
                metadata_resource={"items": []})  # fmt: skip
    said = {"items": [{"key": "user-data", "value": "new"}], "fingerprint": ""}
    said["fingerprint"] = one.metadata.fingerprint
    ask.act("Instances", "set_metadata", zone=ZONE, instance="one", metadata_resource=said)
    with pytest.raises(exceptions.PreconditionFailed, match="fingerprint"):
        ask.act("Instances", "set_metadata", zone=ZONE, instance="one", metadata_resource=said)
    ask.act("Instances", "set_labels", zone=ZONE, instance="one",
            instances_set_labels_request_resource={
                "labels": {"a": "b"}, "label_fingerprint": one.label_fingerprint})  # fmt: skip
    gce.capacity["e2-standard-2", ZONE, "*"] = 0
    failed = ask.act("Instances", "start", zone=ZONE, instance="one")
    assert codes(failed) == ["ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"]
    assert ask.statuses() == {"one": "TERMINATED"}
    gce.capacity.clear()
    ask.act("Instances", "start", zone=ZONE, instance="one")
    again = ask.get("one")
    assert again.status == "RUNNING"
    assert dict(again.labels) == {"a": "b"}
    assert again.metadata.items[0].value == "new"
    assert again.network_interfaces[0].network_i_p == one.network_interfaces[0].network_i_p
    assert again.network_interfaces[0].access_configs[0].nat_i_p != public
    ask.act("Instances", "delete", zone=ZONE, instance="one")
    with pytest.raises(exceptions.NotFound):
        ask.get("one")
    assert gce.left() == []


def test_machines_that_are_taken_away(gce: Gce, ask: Asker) -> None:
    ask.insert("one", scheduling=SPOT)
    ask.insert("two", scheduling=SPOT | {"instance_termination_action": "STOP"})
    ask.insert("three")
    id_ = ask.get("one").id
    gce.take_away("one")
    gce.take_away("two")
    with pytest.raises(ValueError, match="no spot machine"):
        gce.take_away("three")
    assert ask.statuses() == {"two": "TERMINATED", "three": "RUNNING"}
    found = list(
        ask("ZoneOperations", "list", zone=ZONE,
            filter='operationType="compute.instances.preempted"')
    )  # fmt: skip
    assert {one.target_link.rpartition("/")[2] for one in found} == {"one", "two"}
    assert str(id_) in {str(one.target_id) for one in found}
    assert {one.status_message for one in found} == {"Instance was preempted."}
    gce.shut_itself_down("three")
    assert ask.statuses()["three"] == "TERMINATED"
    assert [one["name"] for one in gce.things("disks")] == ["two", "three"]


def test_a_machine_ends_by_itself(gce: Gce, ask: Asker) -> None:
    limited = {"max_run_duration": {"seconds": 30}, "instance_termination_action": "DELETE"}
    ask.insert("one", scheduling=limited | {"automatic_restart": False})
    assert ask.statuses() == {"one": "RUNNING"}
    with gce.lock:
        gce.world._planned[0][2]()
    assert ask.statuses() == {}


def test_the_serial_port(gce: Gce, ask: Asker) -> None:
    ask.insert()
    said = ask("Instances", "get_serial_port_output", zone=ZONE, instance="one")
    assert (said.contents, said.next_) == ("made up\n", 8)


# -- operations ------------------------------------------------------------------------------------


def test_waiting(gce: Gce, ask: Asker) -> None:
    gce.boot_time, gce.looks = 0.3, 3
    begun = ask("Instances", "insert_unary", zone=ZONE, instance_resource=machine("one"))
    began = time.monotonic()
    done = ask("ZoneOperations", "wait", zone=ZONE, operation=begun.name)
    assert done.status.name == "DONE"
    assert time.monotonic() - began > 0.2
    gce.boot_time, gce.wait_time = 60, 0.1
    begun = ask("Instances", "insert_unary", zone=ZONE, instance_resource=machine("two"))
    seen = ask("ZoneOperations", "wait", zone=ZONE, operation=begun.name)
    assert seen.status.name == "RUNNING"
    assert ask.statuses()["two"] == "PROVISIONING"
    scopes = dict(ask("GlobalOperations", "aggregated_list"))
    assert len(scopes[f"zones/{ZONE}"].operations) == 2
    with pytest.raises(exceptions.NotFound):
        ask("ZoneOperations", "get", zone=ZONE, operation="operation-none")


def test_what_is_made_may_be_seen_late(gce: Gce, ask: Asker) -> None:
    gce.lag = 2
    ask.insert()
    assert ask.statuses() == {}
    with pytest.raises(exceptions.NotFound):
        ask.get("one")
    assert ask.statuses() == {"one": "RUNNING"}


# -- looking ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("labels.team=red", ["a", "b"]),
        ("labels.team:*", ["a", "b", "c"]),
        ("labels.team:r*", ["a", "b"]),
        ("-labels.team:*", ["d"]),
        ("(labels.team=red) AND (labels.size=big)", ["b"]),
        ("(labels.team=red) (labels.size=big)", ["b"]),
        ('labels.team="red" AND NOT labels.size=big', ["a"]),
        ("labels.size=big OR name=d", ["b", "c", "d"]),
        ("name eq '[ab]'", ["a", "b"]),
        ("name ne [ab]", ["c", "d"]),
        ("status=RUNNING", ["a", "b", "c", "d"]),
        ("status!=RUNNING", []),
        ("scheduling.automaticRestart=false", ["d"]),
        ("disks.diskSizeGb > 20", ["a", "b", "c", "d"]),
    ],
)
def test_filters(fleet: Asker, wanted: str, names: list[str]) -> None:
    found = fleet("Instances", "list", zone=ZONE, filter=wanted)
    assert [one.name for one in found] == names


@pytest.fixture(scope="module")
def fleet() -> Iterator[Asker]:
    with Gce() as gce:
        gce.boot_time = gce.operation_time = 0.0
        asker = Asker(gce)
        asker.insert("a", labels={"team": "red"})
        asker.insert("b", labels={"team": "red", "size": "big"})
        asker.insert("c", labels={"team": "blue", "size": "big"})
        asker.insert("d", labels={}, scheduling=SPOT)
        yield asker


@pytest.mark.parametrize("wanted", ["name", "name=", "(name=a", "nme=a", "name~a", "= a"])
def test_filters_that_google_refuses(fleet: Asker, wanted: str) -> None:
    with pytest.raises(exceptions.BadRequest, match="Invalid list filter expression"):
        list(fleet("Instances", "list", zone=ZONE, filter=wanted))


def test_pages(fleet: Asker) -> None:
    before = fleet.gce.count("instances.list")
    found = fleet("Instances", "list", zone=ZONE, max_results=3)
    assert [one.name for one in found] == ["a", "b", "c", "d"]
    assert fleet.gce.count("instances.list") == before + 2
    pages = list(fleet("Instances", "aggregated_list", max_results=3).pages)
    assert len(pages) == 2
    scopes = dict(pages[0].items)
    assert len(scopes[f"zones/{ZONE}"].instances) == 3
    empty = scopes["zones/us-east1-b"]
    assert empty.warning.code == "NO_RESULTS_ON_PAGE"
    with pytest.raises(exceptions.BadRequest, match="between 0 and 500"):
        list(fleet("Instances", "list", zone=ZONE, max_results=501))
    with pytest.raises(exceptions.BadRequest, match="pageToken"):
        list(fleet("Instances", "list", zone=ZONE, page_token="?"))


def test_what_google_offers(gce: Gce, ask: Asker) -> None:
    assert {one.name for one in ask("Regions", "list")} == set(catalogue.REGIONS)
    zones = [one.name for one in ask("Zones", "list", filter="name=us-central1-*")]
    assert zones == [], "`=` takes no patterns"
    zones = [one.name for one in ask("Zones", "list", filter="name:us-central1-*")]
    assert zones == [f"us-central1-{one}" for one in "abcf"]
    type_ = ask("MachineTypes", "get", zone=ZONE, machine_type="g2-standard-8")
    assert (type_.guest_cpus, type_.memory_mb, type_.zone) == (8, 32768, ZONE)
    assert type_.accelerators[0].guest_accelerator_type == "nvidia-l4"
    gce.lacks.add(("g2-standard-8", ZONE))
    scopes = ask("MachineTypes", "aggregated_list", filter="name=g2-standard-8")
    have = {scope for scope, one in scopes if one.machine_types}
    assert f"zones/{ZONE}" not in have
    assert "zones/us-central1-b" in have
    scopes = ask("AcceleratorTypes", "aggregated_list", filter=f"name={T4}")
    assert {f"zones/us-central1-{one}" for one in "abcf"} <= {
        scope for scope, one in scopes if one.accelerator_types
    }
    subnets = list(ask("Subnetworks", "list", region=REGION))
    assert [one.ip_cidr_range for one in subnets] == ["10.128.0.0/20"]
    assert ask("Networks", "get", network="default").auto_create_subnetworks is True
    image = ask("Images", "get_from_family", project="ubuntu-os-cloud",
                family="ubuntu-2404-lts-amd64")  # fmt: skip
    assert image.name == "ubuntu-2404-noble-amd64-v20261022"
    named = ask("Images", "get", project="ubuntu-os-cloud", image=image.name)
    assert (named.id, named.architecture) == (image.id, "X86_64")


# -- rules, addresses, policies, images ------------------------------------------------------------


def test_firewall_rules(gce: Gce, ask: Asker) -> None:
    rule = {
        "name": "door",
        "description": json.dumps({"clusterkit-id": "abc"}),
        "allowed": [{"I_p_protocol": "tcp", "ports": ["22"]}],
        "source_ranges": ["203.0.113.9/32"],
        "target_tags": ["machines"],
    }
    ask.act("Firewalls", "insert", firewall_resource=rule)
    with pytest.raises(exceptions.Conflict):
        ask.act("Firewalls", "insert", firewall_resource=rule)
    one = ask("Firewalls", "get", firewall="door")
    assert (one.direction, one.priority) == ("INGRESS", 1000)
    assert one.network.endswith("/global/networks/default")
    ask.act("Firewalls", "patch", firewall="door",
            firewall_resource={"source_ranges": ["198.51.100.7/32"]})  # fmt: skip
    one = ask("Firewalls", "get", firewall="door")
    assert list(one.source_ranges) == ["198.51.100.7/32"]
    assert list(one.target_tags) == ["machines"]
    ask.act("Firewalls", "update", firewall="door",
            firewall_resource={"name": "door", "allowed": rule["allowed"]})  # fmt: skip
    one = ask("Firewalls", "get", firewall="door")
    assert list(one.source_ranges) == ["0.0.0.0/0"]
    assert list(one.target_tags) == []
    for wrong in (
        {"allowed": []},
        {"source_ranges": ["203.0.113.9/24"]},
        {"source_tags": ["A"]},
        {"allowed": [{"I_p_protocol": "icmp", "ports": ["1"]}]},
        {"allowed": [{"I_p_protocol": "tcp", "ports": ["22-21"]}]},
    ):
        with pytest.raises(exceptions.BadRequest):
            ask.act("Firewalls", "insert", firewall_resource={**rule, "name": "other", **wrong})
    gce.refuse("firewalls.delete")
    with pytest.raises(exceptions.BadRequest, match="already being used"):
        ask.act("Firewalls", "delete", firewall="door")
    ask.act("Firewalls", "delete", firewall="door")
    assert gce.left() == []


def test_a_new_projects_own_rules() -> None:
    with Gce(default_rules=True) as gce:
        names = [one["name"] for one in gce.things("firewalls")]
    assert "default-allow-ssh" in names


def test_doors_of_hosts(gce: Gce, ask: Asker) -> None:
    from doubles.gce.network import doors

    ask.insert("one", tags={"items": ["machines"]})
    ask.insert("two", tags={"items": ["machines"]})
    ask.insert("three")
    ssh = [{"I_p_protocol": "tcp", "ports": ["22"]}]
    both = [{"I_p_protocol": "tcp"}, {"I_p_protocol": "udp", "ports": ["0-65535"]}]
    tag = {"target_tags": ["machines"]}
    ask.act("Firewalls", "insert", firewall_resource={
        "name": "door", "allowed": ssh, "source_ranges": ["203.0.113.9/32"], **tag})  # fmt: skip
    ask.act("Firewalls", "insert", firewall_resource={
        "name": "inside", "allowed": both, "source_tags": ["machines"], **tag})  # fmt: skip
    found = doors(gce.world)
    addresses = ("10.128.0.2", "10.128.0.3")
    assert found.among == ((addresses, addresses),)
    assert found.inward == dict.fromkeys(addresses, (("203.0.113.9/32", "tcp", 22, 22),))


def test_addresses_and_policies(gce: Gce, ask: Asker) -> None:
    address = {"name": "a", "labels": LABELS}
    ask.act("Addresses", "insert", region=REGION, address_resource=address)
    scopes = dict(ask("Addresses", "aggregated_list", filter="labels.clusterkit-id=abc"))
    assert [one.name for one in scopes[f"regions/{REGION}"].addresses] == ["a"]
    policy = {"name": "p", "description": "clusterkit-id",
              "group_placement_policy": {"collocation": "COLLOCATED"}}  # fmt: skip
    ask.act("ResourcePolicies", "insert", region=REGION, resource_policy_resource=policy)
    assert gce.left() == ["address a", "resourcePolicy p"]
    links = [one.self_link for one in ask("ResourcePolicies", "list", region=REGION)]
    near = {"type_": "n2-standard-2", "resource_policies": links}
    with pytest.raises(exceptions.BadRequest, match="automaticRestart"):
        ask.insert(**near)
    ask.insert(scheduling={"automatic_restart": False}, **near)
    with pytest.raises(exceptions.BadRequest, match="already being used by"):
        ask.act("ResourcePolicies", "delete", region=REGION, resource_policy="p")
    ask.act("Instances", "delete", zone=ZONE, instance="one")
    ask.act("ResourcePolicies", "delete", region=REGION, resource_policy="p")
    ask.act("Addresses", "delete", region=REGION, address="a")
    assert gce.left() == []


def test_images_of_ones_own(gce: Gce, ask: Asker) -> None:
    ask.insert()
    image = {"name": "mine", "family": "mine", "labels": LABELS,
             "source_disk": f"zones/{ZONE}/disks/one"}  # fmt: skip
    with pytest.raises(exceptions.BadRequest, match="already being used by"):
        ask.act("Images", "insert", image_resource=image)
    ask.act("Instances", "stop", zone=ZONE, instance="one")
    gce.image_time = 60
    begun = ask("Images", "insert_unary", image_resource=image)
    assert ask("Images", "get", image="mine").status == "PENDING"
    disk = {"boot": True, "initialize_params": {"source_image": "global/images/mine"}}
    with pytest.raises(exceptions.BadRequest, match="is not ready"):
        ask.insert("two", disks=[disk])
    with gce.lock:
        gce.world._planned[0][2]()
    ask.done(begun)
    found = list(ask("Images", "list", filter="labels.clusterkit-id=abc"))
    assert [(one.name, one.status, one.disk_size_gb) for one in found] == [("mine", "READY", 30)]
    ask.insert("two", disks=[disk])
    fresh = {"labels": {"a": "b"}, "label_fingerprint": found[0].label_fingerprint}
    ask.act("Images", "set_labels", resource="mine",
            global_set_labels_request_resource=fresh)  # fmt: skip
    with pytest.raises(exceptions.PreconditionFailed):
        ask.act("Images", "set_labels", resource="mine", global_set_labels_request_resource=fresh)
    ask.act("Images", "delete", image="mine")
    assert list(ask("Images", "list")) == []
    with pytest.raises(exceptions.BadRequest, match="already being used by"):
        ask.act("Disks", "delete", zone=ZONE, disk="one")
    ask.act("Instances", "delete", zone=ZONE, instance="two")
    ask.act("Disks", "delete", zone=ZONE, disk="two")
    assert [one["name"] for one in gce.things("disks")] == ["one"], "the other was kept"
    assert list(ask("Snapshots", "list")) == []


def test_prices(gce: Gce) -> None:
    def listed(path: str) -> Any:
        with urllib.request.urlopen(f"{gce.url}/v1/{path}", timeout=10) as answer:
            return json.load(answer)

    services = {one["displayName"]: one["name"] for one in listed("services")["services"]}
    path = f"{services['Compute Engine']}/skus"
    first = listed(f"{path}?pageSize=100")
    assert len(first["skus"]) == 100
    assert listed(f"{path}?pageSize=100&pageToken={first['nextPageToken']}")["skus"]
    skus = {one["description"]: one for one in listed(path)["skus"]}
    one = skus["Nvidia Tesla T4 GPU attached to Spot Preemptible VMs running in Americas"]
    assert one["category"]["usageType"] == "Preemptible"
    rate = one["pricingInfo"][0]["pricingExpression"]["tieredRates"][0]["unitPrice"]
    assert (rate["units"], rate["nanos"]) == ("0", 108500000)
    assert "N1 Predefined Instance Core running in Americas" in skus


# -- bad days --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("throttle", exceptions.Forbidden, "Queries per minute"),
        ("busy", exceptions.TooManyRequests, "Too many"),
        ("denied", exceptions.Forbidden, "Required 'compute.instances.list' permission"),
        ("disabled", exceptions.Forbidden, "has not been used in project test-project"),
        ("unpaid", exceptions.Forbidden, "requires billing"),
        ("unavailable", exceptions.ServiceUnavailable, "try again"),
        ("internal", exceptions.InternalServerError, "encountered"),
        ("absent", exceptions.NotFound, "404"),
        ("resourceNotReady", exceptions.BadRequest, "is not ready"),
    ],
)
def test_planned_errors(gce: Gce, ask: Asker, what: str, error: Any, words: str) -> None:
    fault = gce.fault("instances.*", what, after=1)
    assert list(ask("Instances", "list", zone=ZONE)) == []
    with pytest.raises(error, match=words):
        ask("Instances", "list", zone=ZONE)
    assert list(ask("Instances", "list", zone=ZONE)) == []
    assert fault.hits == 1
    assert [one.outcome for one in gce.calls][::2] == ["ok", "ok"]


def test_credentials_that_expired(gce: Gce) -> None:
    """Asked without a client: anonymous credentials cannot be renewed."""
    gce.fault("*", "expired")
    status, said = post(gce, "regions", None, "GET")
    assert status == 401
    assert said["error"]["status"] == "UNAUTHENTICATED"


def test_planned_errors_of_operations(gce: Gce, ask: Asker) -> None:
    gce.fault("*.bulkInsert", "ZONE_RESOURCE_POOL_EXHAUSTED")
    gce.fault("instances.insert", "late", seconds=0.3)
    failed = ask.bulk(2, 2)
    assert codes(failed) == ["VM_MIN_COUNT_NOT_REACHED", "ZONE_RESOURCE_POOL_EXHAUSTED"]
    assert gce.things("instances") == []
    began = time.monotonic()
    ask.insert()
    assert time.monotonic() - began > 0.25


def test_answers_that_are_lost(gce: Gce, ask: Asker) -> None:
    import requests

    id_ = str(uuid.uuid4())
    gce.fault("instances.insert", "cut")
    gce.fault("instances.insert", "lost", after=1)
    for expected in ([], ["one"]):
        with pytest.raises(requests.ConnectionError):
            ask("Instances", "insert_unary", zone=ZONE, instance_resource=machine("one"),
                request_id=id_)  # fmt: skip
        assert [one["name"] for one in gce.things("instances")] == expected
    again = ask("Instances", "insert_unary", zone=ZONE, instance_resource=machine("one"),
                request_id=id_)  # fmt: skip
    assert codes(ask.done(again)) == []
    assert [one.outcome for one in gce.calls if one.action == "instances.insert"] == [
        "cut", "lost", "ok",
    ]  # fmt: skip


@pytest.mark.parametrize("effect", ["before", "after"])
def test_calls_that_are_held(gce: Gce, ask: Asker, effect: Any) -> None:
    import requests

    hold = gce.hold(1, effect)
    errors: list[Exception] = []

    def launch() -> None:
        try:
            ask("Instances", "insert_unary", zone=ZONE, instance_resource=machine("one"))
        except requests.ConnectionError as error:
            errors.append(error)

    thread = threading.Thread(target=launch)
    thread.start()
    assert hold.reached.wait(10)
    assert hold.action == "instances.insert"
    assert len(gce.things("instances")) == (effect == "after")
    hold.release(drop=True)
    thread.join(10)
    assert len(errors) == 1
    assert len(gce.things("instances")) == (effect == "after")


def test_permissions(gce: Gce, ask: Asker) -> None:
    gce.allowed = {"compute.*.list", "compute.*.get"}
    ask.statuses()
    with pytest.raises(exceptions.Forbidden, match=r"Required 'compute\.instances\.create'"):
        ask.bulk(1, 1)
    assert gce.permissions() == {"compute.instances.list", "compute.instances.create"}


def test_the_environment(gce: Gce) -> None:
    said = gce.environment
    assert said["CLUSTERKIT_GCE_ENDPOINT"] == gce.url
    assert said["GOOGLE_CLOUD_PROJECT"] == "test-project"
