"""GCE's `Cloud` against the double of Compute Engine, which is never kinder than Google. The pauses
that the client would make are recorded, and hardly made."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from doubles.gce import Gce
from doubles.gce.world import Thing

from clusterkit.cluster.cloud import ranges
from clusterkit.cluster.cloud.api import (
    DIGEST,
    GPUS,
    GROUP,
    LAUNCH,
    LOGIN,
    NUMBERS,
    Candidate,
    Instance,
    Launch,
    Need,
    Refused,
)
from clusterkit.cluster.providers.gce import found
from clusterkit.cluster.providers.gce.client import Client
from clusterkit.cluster.providers.gce.cloud import Choices, GceCloud
from clusterkit.cluster.providers.gce.doctor import PERMISSIONS
from clusterkit.cluster.providers.gce.words import ApiError, GoogleError
from clusterkit.errors import ClusterError, UsageError

pytest.importorskip("google.cloud.compute_v1")

ID, REGION, ZONE = "a" * 16, "us-central1", "us-central1-a"
LABELS = {
    "clusterkit-cluster": "c",
    "clusterkit-id": ID,
    "clusterkit-role": "cluster",
    "clusterkit-owner": "anna_laptop",
    "clusterkit-created": "20261121T134118Z",
}
HOME = "203.0.113.7/32"
T4 = "n1-standard-8+nvidia-tesla-t4:1"
TYPES = ("e2-standard-2", "c2-standard-4", "g2-standard-8", T4)


@pytest.fixture
def gce() -> Iterator[Gce]:
    with Gce() as made:
        made.boot_time = made.stop_time = made.end_time = made.image_time = 0.0
        made.operation_time = 0.0
        made.looks = 0
        made.allowed = PERMISSIONS  # whatever else is called is refused
        yield made


class Asked:
    """A cloud, the pauses it would have made, and what it said."""

    def __init__(self, gce: Gce, region: str = REGION, **choices: Any) -> None:
        self.pauses: list[float] = []
        self.said: list[str] = []
        client = Client(
            region, gce.project, endpoint=gce.url, say=self.said.append, pause=self._pause
        )
        client.filters = True  # as Google has them; the double understands them
        self.cloud = GceCloud(client, Choices(**choices))

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        threading.Event().wait(0.002)


@pytest.fixture
def asked(gce: Gce) -> Asked:
    return Asked(gce)


@pytest.fixture
def cloud(asked: Asked) -> GceCloud:
    return asked.cloud


def wish(
    cloud: GceCloud,
    token: str,
    type_: str = "e2-standard-2",
    market: Any = "on-demand",
    zone: str = ZONE,
    **more: Any,
) -> Launch:
    """A launch of two machines, unless told."""
    numbers = more.get("numbers", (1, 2))
    group = more.get("group", "cpu")
    types = cloud.machine_types([*TYPES, type_])
    site = cloud.prepare(LABELS, "", [HOME], more.get("placement", False))
    labels = {
        **LABELS,
        GROUP: group,
        LAUNCH: token,
        LOGIN: "ubuntu",
        NUMBERS: ranges.text(numbers),
        GPUS: str(types[type_].gpus),
    }
    image = cloud.image("ubuntu-24.04", "x86_64").id
    where = Candidate(type_, zone, market)
    whole = Launch(
        token, group, numbers, len(numbers), where, image, 30, "#cloud-config\n", labels, site
    )
    return replace(whole, **more)


@pytest.fixture
def launch(cloud: GceCloud) -> Callable[..., Launch]:
    """A new token each time."""
    count = iter(range(1, 100))
    return lambda *args, **more: wish(cloud, f"{next(count):032x}", *args, **more)


Wish = Callable[..., Launch]


def names(gce: Gce) -> list[str]:
    return sorted(one["name"] for one in gce.things("instances"))


def statuses(gce: Gce) -> dict[str, str]:
    return {one["name"]: one["status"] for one in gce.things("instances")}


def rule(gce: Gce, end: str = "door") -> Thing:
    (found,) = [one for one in gce.things("firewalls") if one["name"] == f"clusterkit-c-{end}"]
    return found


def bulk_inserts(gce: Gce) -> int:
    return gce.count("instances.bulkInsert", "regionInstances.bulkInsert")


# -- what there is --------------------------------------------------------------------------------


def test_types_with_their_gpus_and_the_zones_that_have_both(cloud: GceCloud, gce: Gce) -> None:
    gce.lacks.add(("nvidia-tesla-t4", "us-central1-b"))
    found = cloud.machine_types([T4, "a2-highgpu-2g", "e2-standard-2", "t2a-standard-4"])
    assert [*found] == [T4, "a2-highgpu-2g", "e2-standard-2", "t2a-standard-4"]
    gpu, own = found[T4], found["a2-highgpu-2g"]
    assert (gpu.cpus, gpu.memory, gpu.gpus, gpu.gpu) == (8, 30720, 1, "NVIDIA T4")
    assert gpu.zones == ("us-central1-a", "us-central1-c", "us-central1-f")
    assert (own.gpus, own.gpu) == (2, "NVIDIA A100 40GB")
    assert found["t2a-standard-4"].arch == "arm64"
    assert found["t2a-standard-4"].zones == ("us-central1-a", "us-central1-b", "us-central1-f")
    assert found["e2-standard-2"].gpus == 0
    before = gce.count()
    cloud.machine_types(["e2-standard-2", T4])
    assert gce.count() == before  # what is known is not asked again


def test_all_unknown_types_and_gpus_at_once_with_near_names(cloud: GceCloud) -> None:
    wanted = ["n1-standard-7", "e2-standard-2", "n1-standard-8+nvidia-tesla-t5:1", "x9-huge"]
    with pytest.raises(UsageError) as caught:
        cloud.machine_types(wanted)
    told = str(caught.value)
    assert "us-central1 does not have" in told
    assert "n1-standard-7 (near are: n1-standard-8" in told.replace("96, ", "")
    assert "nvidia-tesla-t5 (near are: nvidia-tesla-t4" in told
    assert "x9-huge" in told
    assert "e2-standard-2" not in told


def test_zones_regions_account_and_network(cloud: GceCloud, gce: Gce) -> None:
    assert cloud.zones() == tuple(f"us-central1-{letter}" for letter in "abcf")
    assert {"us-central1", "europe-west4"} <= set(cloud.regions())
    assert cloud.account() == gce.project
    assert cloud.network().startswith("10.128.")
    assert Asked(gce, network="absent").cloud.network() == ""


@pytest.mark.parametrize(
    ("name", "arch", "family"),
    [
        ("ubuntu-22.04", "x86_64", "ubuntu-2204-jammy"),
        ("ubuntu-24.04", "x86_64", "ubuntu-2404-noble-amd64-v20261022"),
        ("ubuntu-24.04", "arm64", "ubuntu-2404-noble-arm64"),
        ("dlvm-gpu", "x86_64", "common-cu129-ubuntu-2404-nvidia-580"),
    ],
)
def test_images_by_name(cloud: GceCloud, gce: Gce, name: str, arch: str, family: str) -> None:
    one = cloud.image(name, arch)
    assert (one.name, one.arch, one.login) == (name, arch, "ubuntu")
    assert one.id.rpartition("/")[2].startswith(family)
    assert one.id.startswith("projects/")
    assert one.disk == (50 if name == "dlvm-gpu" else 10)
    before = gce.count()
    assert cloud.image(name, arch) is one
    assert gce.count() == before


def test_the_driver_s_family_may_have_another_name(
    cloud: GceCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    from doubles.gce import catalogue

    kept = tuple(one for one in catalogue.IMAGES if "cu129" not in one.family)
    monkeypatch.setattr(catalogue, "IMAGES", kept)
    assert "common-cu128-ubuntu-2204" in cloud.image("dlvm-gpu", "x86_64").id


def test_images_by_family_path_and_own_name(cloud: GceCloud) -> None:
    path = "projects/ubuntu-os-cloud/global/images/family/ubuntu-minimal-2404-lts-amd64"
    minimal = cloud.image(path, "x86_64")
    assert minimal.name == path  # machines' labels have it; `adopt` reads them
    assert (minimal.login, minimal.arch) == ("ubuntu", "x86_64")
    assert cloud.image(minimal.id, "x86_64").id == minimal.id
    debian = cloud.image("projects/debian-cloud/global/images/family/debian-12", "x86_64")
    assert debian.login == ""  # not known


@pytest.mark.parametrize(
    ("name", "arch", "words"),
    [
        ("dlvm-gpu", "arm64", "no image dlvm-gpu for arm64"),
        ("mine", "x86_64", "the project test-project has no image mine"),
        ("family/mine", "x86_64", "no image of the family mine"),
        ("projects/nobody/global/images/mine", "x86_64", "the project nobody has no image mine"),
        ("a/b", "x86_64", "known are ubuntu-22.04, ubuntu-24.04, dlvm-gpu"),
        (
            "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-arm64",
            "x86_64",
            "is for arm64, but the machines are x86_64",
        ),
    ],
)
def test_images_that_are_not(cloud: GceCloud, name: str, arch: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        cloud.image(name, arch)


# -- the claim of a name, and the door ------------------------------------------------------------


def test_prepare_makes_what_is_missing_once(cloud: GceCloud, gce: Gce) -> None:
    site = cloud.prepare(LABELS, "", [HOME, "198.51.100.77/24"], True)
    before = gce.things("firewalls")
    assert cloud.prepare(LABELS, "", [HOME, "198.51.100.0/24"], True) == site
    assert gce.things("firewalls") == before
    assert gce.count("firewalls.patch") == 0
    tag = f"clusterkit-{ID}"
    door, inside, closed = (rule(gce, end) for end in ("door", "inside", "closed"))
    assert all(one["targetTags"] == [tag] for one in (door, inside, closed))
    assert door["sourceRanges"] == ["198.51.100.0/24", HOME]
    assert door["allowed"] == [{"IPProtocol": "tcp", "ports": ["22"]}]
    assert inside["sourceTags"] == [tag]
    assert "sourceRanges" not in inside
    assert (closed["sourceRanges"], closed["denied"]) == (["0.0.0.0/0"], [{"IPProtocol": "all"}])
    assert door["priority"] < closed["priority"] < 65534  # of a new project's rules
    assert inside["priority"] < closed["priority"]
    assert site["tag"] == tag
    assert site["placement"].endswith(f"/regions/{REGION}/resourcePolicies/clusterkit-c-near")
    kinds = [one.kind for one in cloud.resources(ID)]
    assert sorted(kinds) == ["firewall rule"] * 3 + ["placement policy"]
    for one in cloud.resources(ID):
        assert one.labels.items() >= LABELS.items()
        assert one.made is not None


def test_what_the_settings_say_of_the_network(gce: Gce) -> None:
    plain = Asked(gce).cloud.prepare(LABELS, "", [HOME], False)
    assert plain["network"] == "projects/test-project/global/networks/default"
    assert plain["address"] == "public"
    assert "subnetwork" not in plain
    more = Asked(gce, subnetwork="default", public=False, max_run=7200).cloud
    site = more.prepare(LABELS, "", [HOME], False)
    assert site["network"] == plain["network"]
    assert site["subnetwork"] == f"projects/test-project/regions/{REGION}/subnetworks/default"
    assert site["max run"] == "7200"
    assert "address" not in site


@pytest.mark.parametrize("what", ["lost", "cut", "internal"])
@pytest.mark.parametrize("action", ["firewalls.insert", "resourcePolicies.insert"])
def test_an_answer_that_was_not_heard_while_it_prepares(
    cloud: GceCloud, gce: Gce, action: str, what: str
) -> None:
    gce.fault(action, what)
    cloud.prepare(LABELS, "", [HOME], True)
    assert len(cloud.resources(ID)) == 4
    assert cloud.door(ID) == [HOME]


def test_what_was_just_made_may_be_unknown(gce: Gce) -> None:
    gce.lag = 3
    cloud = Asked(gce).cloud
    site = cloud.prepare(LABELS, "", [HOME], True)
    assert cloud.prepare(LABELS, "", [HOME], True) == site


def test_a_name_that_another_cluster_has(cloud: GceCloud, gce: Gce) -> None:
    cloud.prepare(LABELS, "", [HOME], False)
    before = gce.things("firewalls")
    with pytest.raises(ClusterError) as caught:
        cloud.prepare({**LABELS, "clusterkit-id": "b" * 16}, "", ["198.51.100.1/32"], False)
    for word in ("'c' is taken", "test-project", ID, "anna_laptop", "2026-11-21 13:41 UTC"):
        assert word in str(caught.value)
    assert gce.things("firewalls") == before


@pytest.mark.parametrize("text", ["for everybody", "{}", '["x"]'])
def test_a_name_that_something_else_has(cloud: GceCloud, text: str) -> None:
    resource = {"name": "clusterkit-c-door", "description": text, "source_ranges": [HOME]}
    resource |= {"allowed": [{"I_p_protocol": "tcp"}]}
    cloud.client.act("firewalls", "insert", firewall_resource=resource)
    with pytest.raises(ClusterError, match="clusterkit did not make it"):
        cloud.prepare(LABELS, "", [HOME], False)


def test_one_name_for_two_who_want_it_at_once(gce: Gce) -> None:
    """The rule of the door is the claim: one gets it, the others are told."""
    outcomes: list[str] = []

    def claim(id_: str) -> None:
        try:
            Asked(gce).cloud.prepare({**LABELS, "clusterkit-id": id_}, "", [HOME], False)
            outcomes.append("made")
        except ClusterError as error:
            outcomes.append("taken" if "is taken" in str(error) else str(error))

    threads = [threading.Thread(target=claim, args=(letter * 16,)) for letter in "abcd"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(outcomes) == ["made", "taken", "taken", "taken"]
    assert len(gce.things("firewalls")) == 3


def test_prepare_mends_the_door(cloud: GceCloud, gce: Gce) -> None:
    cloud.prepare(LABELS, "", ["192.0.2.1/32"], False)
    cloud.client.act("firewalls", "delete", firewall="clusterkit-c-inside")
    cloud.prepare(LABELS, "", [HOME], False)
    assert rule(gce)["sourceRanges"] == [HOME]
    assert rule(gce, "inside")
    assert found.described(rule(gce)["description"]) == LABELS | {"clusterkit-region": REGION}


def test_the_door_is_open_for_just_these(cloud: GceCloud, gce: Gce) -> None:
    cloud.prepare(LABELS, "", [HOME], False)
    assert cloud.door(ID) == [HOME]
    assert cloud.open_door(ID, [HOME]) == ([], [])
    moved = ["198.51.100.9/32", "10.1.2.3/16"]
    assert cloud.open_door(ID, moved) == (["10.1.0.0/16", "198.51.100.9/32"], [HOME])
    assert gce.count("firewalls.patch") == 1
    assert cloud.door(ID) == ["10.1.0.0/16", "198.51.100.9/32"]
    assert cloud.open_door(ID, moved) == ([], [])
    one = rule(gce)
    assert one["targetTags"] == [f"clusterkit-{ID}"]
    assert one["allowed"] == [{"IPProtocol": "tcp", "ports": ["22"]}]


def test_a_door_for_nobody_would_be_one_for_everybody(cloud: GceCloud, gce: Gce) -> None:
    with pytest.raises(ClusterError, match="nobody would be let in"):
        cloud.prepare(LABELS, "", [], False)
    assert gce.things("firewalls") == []
    cloud.prepare(LABELS, "", [HOME], False)
    with pytest.raises(ClusterError, match="nobody would be let in"):
        cloud.open_door(ID, [])
    assert cloud.door(ID) == [HOME]


def test_no_door_of_an_unknown_cluster(cloud: GceCloud) -> None:
    assert cloud.door("f" * 16) is None
    with pytest.raises(ClusterError, match="no firewall rule in test-project"):
        cloud.open_door("f" * 16, [HOME])


# -- machines are made ----------------------------------------------------------------------------


def test_a_group_is_one_call(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    wanted = launch(numbers=tuple(range(1, 33)), least=32)
    made = cloud.launch(wanted)
    assert gce.count("instances.bulkInsert") == 1
    assert gce.count("instances.insert") == 0
    assert [one.index for one in made] == list(range(32))
    assert [found.name_of(one) for one in made] == [f"c-cpu-{number}" for number in range(1, 33)]
    assert {one.labels[LAUNCH] for one in made} == {wanted.token}
    assert cloud.launched(wanted.token) == made
    assert sorted(one.id for one in cloud.instances(ID)) == sorted(one.id for one in made)
    assert {one.state for one in made} == {"running"}
    assert {(one.zone, one.type, one.market) for one in made} == {
        (ZONE, "e2-standard-2", "on-demand")
    }
    assert all(one.private.startswith("10.") and one.public for one in made)
    assert {one.disk for one in made} == {30}
    assert all(one.began is not None and one.alive for one in made)


def test_a_machine_whole(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    """Labels on machine and disk in the call that makes them, user-data, no other keys."""
    cloud.launch(launch(group="head", numbers=(1,), user_data="#cloud-config\nusers: []\n"))
    (one,) = gce.things("instances")
    (disk,) = gce.things("disks")
    assert one["name"] == "c-head"
    marks = found.labels({**LABELS, GROUP: "head", LAUNCH: f"{1:032x}", LOGIN: "ubuntu"})
    for thing in (one, disk):
        assert thing["labels"].items() >= marks.items()
    assert gce.count("instances.setLabels", "disks.setLabels") == 0
    assert {item["key"]: item["value"] for item in one["metadata"]["items"]} == {
        "user-data": "#cloud-config\nusers: []\n",
        "enable-oslogin": "FALSE",
        "block-project-ssh-keys": "TRUE",
    }
    assert one["tags"]["items"] == [f"clusterkit-{ID}"]
    assert one["disks"][0]["autoDelete"]
    assert (disk["sizeGb"], disk["type"].rpartition("/")[2]) == ("30", "pd-balanced")
    assert one["scheduling"]["provisioningModel"] == "STANDARD"
    assert one["scheduling"]["onHostMaintenance"] == "MIGRATE"
    assert one["scheduling"]["automaticRestart"]
    (shown,) = cloud.instances(ID)
    assert shown.labels["clusterkit-created"] == LABELS["clusterkit-created"]
    assert shown.id == f"c-head/{one['id']}"


@pytest.mark.parametrize("market", ["spot", "on-demand"])
def test_gpus_are_attached(cloud: GceCloud, gce: Gce, launch: Wish, market: str) -> None:
    made = cloud.launch(launch(T4, market, numbers=(1,)))
    assert [one.type for one in made] == [T4]
    (one,) = gce.things("instances")
    (gpu,) = one["guestAccelerators"]
    assert gpu["acceleratorType"].endswith(f"zones/{ZONE}/acceleratorTypes/nvidia-tesla-t4")
    assert gpu["acceleratorCount"] == 1
    assert one["scheduling"]["onHostMaintenance"] == "TERMINATE"
    spot = market == "spot"
    assert one["scheduling"]["automaticRestart"] != spot
    assert one["scheduling"]["provisioningModel"] == ("SPOT" if spot else "STANDARD")
    assert one["scheduling"].get("instanceTerminationAction") == ("DELETE" if spot else None)


def test_gpus_that_belong_to_a_type(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    made = cloud.launch(launch("g2-standard-8", numbers=(1,)))
    assert [one.type for one in made] == ["g2-standard-8"]
    (one,) = gce.things("instances")
    assert one["scheduling"]["onHostMaintenance"] == "TERMINATE"


@pytest.mark.parametrize("market", ["spot", "on-demand"])
@pytest.mark.parametrize("single", [False, True])
def test_what_the_settings_say_of_machines(gce: Gce, market: str, single: bool) -> None:
    if single:
        gce.fault("*.bulkInsert", "absent", times=None)
    asked = Asked(gce, subnetwork="default", public=False, max_run=7200, disk_type="pd-ssd")
    wanted = wish(asked.cloud, f"{7:032x}", "c2-standard-4", market, placement=True)
    made = asked.cloud.launch(wanted)
    assert {one.public for one in made} == {""}
    for one in gce.things("instances"):
        assert one["networkInterfaces"][0]["subnetwork"].endswith(f"{REGION}/subnetworks/default")
        assert one["scheduling"]["maxRunDuration"] == {"seconds": "7200"}
        assert one["scheduling"]["instanceTerminationAction"] == "DELETE"
        assert one["scheduling"]["onHostMaintenance"] == "TERMINATE"
        (policy,) = one["resourcePolicies"]
        assert policy.endswith("/resourcePolicies/clusterkit-c-near")
    assert {one["type"].rpartition("/")[2] for one in gce.things("disks")} == {"pd-ssd"}


def test_google_chooses_the_zone(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    gce.capacity["e2-standard-2", ZONE, "*"] = 1
    gce.capacity["e2-standard-2", "us-central1-b", "*"] = 0
    made = cloud.launch(launch(zone=REGION))
    assert gce.count("regionInstances.bulkInsert") == 1
    assert len({one.zone for one in made}) == 1
    assert made[0].zone in ("us-central1-c", "us-central1-f")


def test_google_chooses_among_the_zones_that_have_the_gpus(
    cloud: GceCloud, gce: Gce, launch: Wish
) -> None:
    gce.lacks |= {("nvidia-tesla-t4", f"us-central1-{letter}") for letter in "abf"}
    made = cloud.launch(launch(T4, "spot", REGION))
    assert {one.zone for one in made} == {"us-central1-c"}
    (call,) = [one for one in gce.calls if one.action == "regionInstances.bulkInsert"]
    assert [*call.body["locationPolicy"]["locations"]] == ["zones/us-central1-c"]


def test_fewer_than_wanted_but_enough(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    gce.capacity["e2-standard-2", ZONE, "*"] = 2
    made = cloud.launch(launch(numbers=(3, 5, 8), least=1))
    assert len(made) == 2
    assert [f"c-cpu-{(3, 5, 8)[one.index]}" for one in made] == [found.name_of(one) for one in made]


@pytest.mark.parametrize("zone", [ZONE, REGION])
@pytest.mark.parametrize("what", ["internal", "cut", "lost"])
def test_an_answer_that_was_not_heard_makes_nothing_twice(
    asked: Asked, gce: Gce, launch: Wish, what: str, zone: str
) -> None:
    wanted = launch(zone=zone)
    gce.fault("*.bulkInsert", what, times=2)
    made = asked.cloud.launch(wanted)
    assert [found.name_of(one) for one in made] == names(gce) == ["c-cpu-1", "c-cpu-2"]
    assert bulk_inserts(gce) == 3
    assert asked.pauses


@pytest.mark.parametrize("what", ["", "absent"])
def test_a_launch_that_is_sent_again_by_another_process(
    cloud: GceCloud, gce: Gce, launch: Wish, what: str
) -> None:
    if what:
        gce.fault("*.bulkInsert", what, times=None)
    wanted = launch(zone=REGION)
    first = cloud.launch(wanted)
    again = Asked(gce).cloud.launch(wanted)  # knows nothing of the first
    assert [one.id for one in again] == [one.id for one in first]
    assert len(names(gce)) == 2


@pytest.mark.parametrize("what", ["", "absent"])
def test_a_launch_whose_request_google_has_forgotten(
    cloud: GceCloud, gce: Gce, launch: Wish, what: str
) -> None:
    """It knows request ids for an hour; the names are taken then."""
    if what:
        gce.fault("*.bulkInsert", what, times=None)
    wanted = launch()
    first = cloud.launch(wanted)
    gce.world.requests.clear()
    assert [one.id for one in cloud.launch(wanted)] == [one.id for one in first]
    assert len(names(gce)) == 2


@pytest.mark.parametrize("what", ["", "absent"])
def test_names_of_machines_that_are_on_their_way_out_are_waited_for(
    asked: Asked, gce: Gce, launch: Wish, what: str
) -> None:
    if what:
        gce.fault("*.bulkInsert", what, times=None)
    first = asked.cloud.launch(launch(market="spot"))
    gce.end_time = 0.3
    gce.take_away("c-cpu-2")
    made = asked.cloud.launch(launch(market="spot", numbers=(2,)))
    assert [found.name_of(one) for one in made] == ["c-cpu-2"]
    assert made[0].id != first[1].id
    assert {one.id for one in asked.cloud.instances(ID) if one.alive} == {first[0].id, made[0].id}


def test_names_of_somebody_elses_machines(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    cloud.launch(launch())
    with pytest.raises(Refused, match="already exists") as caught:
        cloud.launch(launch())
    assert caught.value.kind == "never"
    assert len(names(gce)) == 2


def test_what_was_made_may_be_shown_late(asked: Asked, gce: Gce, launch: Wish) -> None:
    wanted = launch()
    gce.lag = 3
    assert len(asked.cloud.launch(wanted)) == 2


# -- without bulkInsert ---------------------------------------------------------------------------


@pytest.fixture
def single(gce: Gce) -> None:
    """Another double than ours, which does not have it."""
    gce.fault("*.bulkInsert", "absent", times=None)


@pytest.mark.usefixtures("single")
@pytest.mark.parametrize("type_", ["e2-standard-2", T4])
def test_one_call_for_each_machine(cloud: GceCloud, gce: Gce, launch: Wish, type_: str) -> None:
    made = cloud.launch(launch(type_, "spot"))
    assert [found.name_of(one) for one in made] == ["c-cpu-1", "c-cpu-2"]
    assert gce.count("instances.insert") == 2
    for one in gce.things("instances"):
        assert one["labels"][LAUNCH] == f"{1:032x}"
        assert one["scheduling"]["instanceTerminationAction"] == "DELETE"
        assert len(one.get("guestAccelerators", ())) == (type_ == T4)
    assert {one["type"].rpartition("/")[2] for one in gce.things("disks")} == {"pd-balanced"}


@pytest.mark.usefixtures("single")
@pytest.mark.parametrize("what", ["internal", "cut", "lost"])
def test_one_call_for_each_whose_answer_was_not_heard(
    cloud: GceCloud, gce: Gce, launch: Wish, what: str
) -> None:
    gce.fault("instances.insert", what, times=2)
    assert len(cloud.launch(launch())) == len(names(gce)) == 2


@pytest.mark.usefixtures("single")
@pytest.mark.parametrize("prepared", [True, False])
def test_all_in_one_zone_after_zone(
    cloud: GceCloud, gce: Gce, launch: Wish, prepared: bool
) -> None:
    """Where one does not have enough, what it had is ended again."""
    gce.capacity["e2-standard-2", ZONE, "*"] = 1
    gce.capacity["e2-standard-2", "us-central1-b", "*"] = 0
    wanted = launch(zone=REGION)
    if not prepared:  # nobody said which zones have the type
        site = {key: one for key, one in wanted.site.items() if not key.startswith("zones ")}
        wanted = replace(wanted, site=site)
    made = cloud.launch(wanted)
    assert {one.zone for one in made} == {"us-central1-c"}
    assert len(names(gce)) == 2
    # Sent again, the first zone's refusal ends nothing of the third's.
    again = Asked(gce).cloud.launch(wanted)
    assert [one.id for one in again] == [one.id for one in made]
    assert len(names(gce)) == 2


@pytest.mark.usefixtures("single")
@pytest.mark.parametrize("zone", [ZONE, REGION])
def test_less_than_the_least_is_nothing(cloud: GceCloud, gce: Gce, launch: Wish, zone: str) -> None:
    gce.capacity["e2-standard-2", "*", "*"] = 2
    with pytest.raises(Refused) as caught:
        cloud.launch(launch(zone=zone, numbers=(1, 2, 3)))
    assert caught.value.kind == "capacity"
    assert names(gce) == []
    assert gce.things("disks") == []
    assert len(cloud.launch(launch(zone=zone, numbers=(1, 2, 3), least=2))) == 2


@pytest.mark.usefixtures("single")
def test_what_no_zone_would_take_is_asked_for_once(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    gce.fault("instances.insert", "denied", times=None)
    with pytest.raises(Refused, match=r"permission compute\.instances\.create") as caught:
        cloud.launch(launch(zone=REGION))
    assert caught.value.kind == "never"
    assert gce.count("instances.insert") == 2


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", [ZONE, REGION])
def test_no_capacity_is_asked_for_once_and_told_in_googles_words(
    asked: Asked, gce: Gce, launch: Wish, zone: str
) -> None:
    gce.capacity["e2-standard-2", "*", "spot"] = 1
    with pytest.raises(Refused) as caught:
        asked.cloud.launch(launch(market="spot", zone=zone))
    assert caught.value.kind == "capacity"
    assert "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS" in caught.value.words
    assert "does not have enough resources available" in caught.value.words
    assert caught.value.advice
    assert bulk_inserts(gce) == 1
    assert names(gce) == []
    assert len(asked.cloud.launch(launch(market="spot", zone=zone, least=1))) == 1


@pytest.mark.parametrize("single", [False, True])
def test_a_quota_is_named_with_its_limit_and_page(
    cloud: GceCloud, gce: Gce, launch: Wish, single: bool
) -> None:
    if single:
        gce.fault("*.bulkInsert", "absent", times=None)
    gce.quotas[REGION, "NVIDIA_T4_GPUS"] = 1
    with pytest.raises(Refused) as caught:
        cloud.launch(launch(T4))
    assert caught.value.kind == "quota"
    assert "QUOTA_EXCEEDED: Quota 'NVIDIA_T4_GPUS' exceeded. Limit: 1" in caught.value.words
    for word in ("NVIDIA-T4-GPUS", "is 1 in us-central1", "iam-admin/quotas?project=test-project"):
        assert word in caught.value.advice
    assert names(gce) == []


def test_a_quota_of_all_regions(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    gce.quotas["", "GPUS_ALL_REGIONS"] = 0
    with pytest.raises(Refused) as caught:
        cloud.launch(launch(T4, "spot", REGION))
    assert caught.value.kind == "quota"
    assert "0 in all regions" in caught.value.advice
    assert "free trial" in caught.value.advice


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("lacking", ["n1-standard-8", "nvidia-tesla-t4"])
def test_a_type_that_a_zone_does_not_have(
    cloud: GceCloud, gce: Gce, launch: Wish, lacking: str, single: bool
) -> None:
    if single:
        gce.fault("*.bulkInsert", "absent", times=None)
    wanted = launch(T4)
    gce.lacks.add((lacking, ZONE))
    with pytest.raises(Refused) as caught:
        cloud.launch(wanted)
    assert caught.value.kind == "unsupported"
    assert lacking in caught.value.words
    assert gce.count("instances.insert") == (2 if single else 0)


def test_a_disk_that_a_type_does_not_take(gce: Gce) -> None:
    cloud = Asked(gce, disk_type="pd-standard").cloud
    with pytest.raises(Refused) as caught:
        cloud.launch(wish(cloud, f"{7:032x}", "g2-standard-8"))
    assert caught.value.kind == "unsupported"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ZONE_RESOURCE_POOL_EXHAUSTED", "capacity"),
        ("QUOTA_EXCEEDED", "quota"),
        ("UNSUPPORTED_OPERATION", "unsupported"),
        ("RESOURCE_NOT_FOUND", "capacity"),
        ("RESOURCE_OPERATION_RATE_EXCEEDED", "capacity"),
    ],
)
def test_errors_of_operations(
    cloud: GceCloud, gce: Gce, launch: Wish, code: str, kind: str
) -> None:
    gce.fault("*.bulkInsert", code)
    with pytest.raises(Refused, match=code) as caught:
        cloud.launch(launch())
    assert caught.value.kind == kind
    assert caught.value.advice


def test_a_zone_that_is_known_to_be_empty_is_asked_once(
    asked: Asked, gce: Gce, launch: Wish
) -> None:
    """Google looks at what there is before it takes a request for many."""
    gce.fault("*.bulkInsert", "resourcePoolExhausted", times=None)
    with pytest.raises(Refused, match="resourcePoolExhausted") as caught:
        asked.cloud.launch(launch())
    assert caught.value.kind == "capacity"
    assert bulk_inserts(gce) == 1


def test_an_operation_that_failed_for_another_reason(
    cloud: GceCloud, gce: Gce, launch: Wish
) -> None:
    gce.fault("*.bulkInsert", "INTERNAL_ERROR")
    with pytest.raises(GoogleError, match="INTERNAL_ERROR") as caught:
        cloud.launch(launch())
    assert not isinstance(caught.value, Refused)


def test_an_operation_that_failed_though_the_machines_are_there(
    cloud: GceCloud, gce: Gce, launch: Wish
) -> None:
    """What is said to have failed is looked at: it is enough, or it is ended."""
    gce.capacity["e2-standard-2", ZONE, "*"] = 1
    wanted = launch(least=1)
    made = cloud.launch(wanted)
    gce.world.requests.clear()
    gce.fault("*.bulkInsert", "ZONE_RESOURCE_POOL_EXHAUSTED", times=2)
    assert cloud.launch(wanted) == made
    gce.world.requests.clear()
    with pytest.raises(Refused):
        cloud.launch(replace(wanted, least=2))
    assert names(gce) == []


def test_another_refusal_ends_it(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    """The next candidate would fail in the same way."""
    gce.fault("*.bulkInsert", "denied")
    with pytest.raises(Refused, match=r"permission compute\.instances\.create") as caught:
        cloud.launch(launch())
    assert caught.value.kind == "never"
    missing = launch(image="projects/test-project/global/images/gone")
    with pytest.raises(Refused, match=r"'projects/test-project/global/images/gone' was not found"):
        cloud.launch(missing)
    assert gce.count("instances.insert") == 0  # that bulkInsert is not there, it does not say


@pytest.mark.parametrize("what", ["internal", "cut", "lost"])
def test_an_error_after_a_silence_does_not_say_that_nothing_was_launched(
    cloud: GceCloud, gce: Gce, launch: Wish, what: str
) -> None:
    gce.fault("*.bulkInsert", what)
    gce.fault("*.bulkInsert", "denied", times=None, after=1)
    with pytest.raises(ApiError, match=r"compute\.instances\.create") as caught:
        cloud.launch(launch())
    assert not isinstance(caught.value, Refused)


def test_throttling_of_a_launch(asked: Asked, gce: Gce, launch: Wish) -> None:
    wanted = launch()
    gce.fault("*", "throttle", times=5)
    assert len(asked.cloud.launch(wanted)) == len(names(gce)) == 2
    assert len(asked.said) == 1
    assert "slow down" in asked.said[0]


# -- the life of machines -------------------------------------------------------------------------


def test_only_this_region_and_this_cluster(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    made = cloud.launch(launch())
    other = {**LABELS, "clusterkit-cluster": "d", "clusterkit-id": "d" * 16}
    elsewhere = Asked(gce, "us-west1").cloud
    site = elsewhere.prepare(other, "", [HOME], False)
    wanted = launch(zone="us-west1-a", site=site)
    elsewhere.launch(replace(wanted, labels={**wanted.labels, **other}))
    assert {one.id for one in cloud.instances(None)} == {one.id for one in made}
    assert [one.zone for one in elsewhere.instances(None)] == ["us-west1-a"] * 2
    assert cloud.instances("d" * 16) == []
    assert len(elsewhere.instances("d" * 16)) == 2
    assert cloud.resources("d" * 16) == []


def test_off_and_on(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    cloud.launch(launch())
    made = cloud.instances(ID)
    cloud.stop(made)
    off = cloud.instances(ID)
    assert [(one.state, one.public, one.taken) for one in off] == [("stopped", "", False)] * 2
    cloud.stop(off)
    cloud.give_user_data(off[0], "#cloud-config\nhostname: other\n")
    cloud.start(off)
    on = cloud.instances(ID)
    assert {one.state for one in on} == {"running"}
    assert all(one.public for one in on)
    told = {one["name"]: one["metadata"]["items"] for one in gce.things("instances")}
    said = {item["key"]: item["value"] for item in told[found.name_of(off[0])]}
    assert said["user-data"] == "#cloud-config\nhostname: other\n"
    assert said["enable-oslogin"] == "FALSE"
    cloud.end(on)
    assert cloud.instances(ID) == []
    assert gce.things("disks") == []
    assert gce.count("instances.stop") == 4
    assert gce.count("instances.start") == gce.count("instances.delete") == 2


def test_a_machine_with_local_ssds_is_switched_off(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    """Google wants to hear what shall become of them: skypilot-org/skypilot#2586."""
    cloud.launch(launch("a2-ultragpu-1g", zone=ZONE))
    cloud.stop(cloud.instances(ID))
    assert [one.state for one in cloud.instances(ID)] == ["stopped"] * 2


def test_a_zone_that_cannot_be_reached(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    """What it has is not known, and so not gone; another region's does not matter."""
    made = cloud.launch(launch())
    gce.unreachable = {"europe-west1-b"}
    assert len(cloud.instances(ID)) == len(made)
    assert cloud.resources(ID)
    gce.unreachable = {"us-central1-c"}
    for ask in (lambda: cloud.instances(ID), lambda: cloud.resources(ID)):
        with pytest.raises(ClusterError, match="does not reach us-central1-c now"):
            ask()


def test_a_list_of_all_zones_that_fails(asked: Asked, gce: Gce, launch: Wish) -> None:
    """As it does while a zone of another region is not reached: this one's are asked for."""
    made = asked.cloud.launch(launch(market="spot"))
    gce.fault("*.aggregatedList", "unavailable", times=None)
    assert {one.id for one in asked.cloud.instances(ID)} == {one.id for one in made}
    kinds = {one.kind for one in asked.cloud.resources(ID)}
    assert kinds == {"instance", "disk", "firewall rule"}
    gce.fault("instances.list", "unavailable", times=None)
    with pytest.raises(ClusterError, match=r"instances\.list"):
        asked.cloud.instances(ID)


def test_what_is_gone_does_not_keep_the_others(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    made = cloud.launch(launch())
    gone = replace(made[0], id="c-cpu-9/4711")
    for act in (cloud.stop, cloud.start, cloud.end, cloud.end, cloud.stop, cloud.start):
        act([gone, *made])
    assert names(gce) == []
    cloud.end([])


def test_machines_on_their_way_are_waited_for(asked: Asked, gce: Gce, launch: Wish) -> None:
    cloud = asked.cloud
    made = cloud.launch(launch())
    gce.stop_time = gce.end_time = 0.2
    gce.shut_itself_down("c-cpu-1")
    assert statuses(gce) == {"c-cpu-1": "TERMINATED", "c-cpu-2": "RUNNING"}
    stopping = threading.Thread(target=cloud.stop, args=(made[1:],))
    stopping.start()
    until = time.monotonic() + 10
    while statuses(gce)["c-cpu-2"] != "STOPPING":
        assert time.monotonic() < until
    assert {one.state for one in cloud.instances(ID)} == {"stopped", "stopping"}
    cloud.start(made)
    stopping.join()
    assert statuses(gce) == {"c-cpu-1": "RUNNING", "c-cpu-2": "RUNNING"}
    ending = [threading.Thread(target=cloud.end, args=(made,)) for _ in range(3)]
    for one in ending:
        one.start()
    for one in ending:
        one.join()
    assert names(gce) == []


def test_errors_of_one_come_after_all_were_asked(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    made = cloud.launch(launch(numbers=(1, 2, 3)))
    gce.fault("instances.delete", "denied")
    with pytest.raises(ApiError, match=r"compute\.instances\.delete"):
        cloud.end(made)
    assert len(names(gce)) == 1


@pytest.mark.parametrize("cause", ["capacity", "quota"])
def test_no_room_to_switch_on_again(cloud: GceCloud, gce: Gce, launch: Wish, cause: str) -> None:
    made = cloud.launch(launch())
    cloud.stop(made)
    if cause == "capacity":
        gce.capacity["e2-standard-2", ZONE, "*"] = 0
    else:
        gce.quotas[REGION, "CPUS"] = 1
    with pytest.raises(Refused) as caught:
        cloud.start(made)
    assert caught.value.kind == cause
    assert caught.value.advice
    gce.fault("instances.start", "denied", times=2)
    with pytest.raises(ApiError):
        cloud.start(made)


def test_metadata_that_somebody_else_changes_meanwhile(
    cloud: GceCloud, gce: Gce, launch: Wish
) -> None:
    (one,) = cloud.launch(launch(numbers=(1,)))
    cloud.stop([one])
    hold = gce.hold(2)  # it has read; its change waits
    mine = threading.Thread(target=cloud.give_user_data, args=(one, "#cloud-config\nmine: 1\n"))
    mine.start()
    assert hold.reached.wait(10)
    assert hold.action == "instances.setMetadata"
    theirs = cloud.client.call("instances", "get", zone=ZONE, instance="c-cpu-1").metadata
    items = [{"key": each.key, "value": each.value} for each in theirs.items]
    resource = {"fingerprint": theirs.fingerprint, "items": [*items, {"key": "k", "value": "v"}]}
    more: dict[str, Any] = {"zone": ZONE, "instance": "c-cpu-1", "metadata_resource": resource}
    cloud.client.act("instances", "set_metadata", **more)
    hold.release()
    mine.join()
    (now,) = gce.things("instances")
    said = {item["key"]: item["value"] for item in now["metadata"]["items"]}
    assert (said["k"], said["user-data"]) == ("v", "#cloud-config\nmine: 1\n")
    gce.fault("instances.setMetadata", "conditionNotMet", times=None)
    with pytest.raises(ApiError, match="conditionNotMet"):
        cloud.give_user_data(one, "never")


def test_a_spot_machine_that_was_taken_away(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    cloud.launch(launch(market="spot"))
    cloud.launch(launch(group="head", numbers=(1,)))
    first, second = [one for one in cloud.instances(ID) if one.market == "spot"]
    asked_before = gce.count("globalOperations.aggregatedList")
    assert len(cloud.instances(ID)) == 3
    assert gce.count("globalOperations.aggregatedList") == asked_before
    gce.end_time = 0.3
    gce.take_away(found.name_of(first))
    going = {one.id: one for one in cloud.instances(ID)}[first.id]
    assert (going.state, going.taken, going.why) == ("ending", True, "Instance was preempted.")
    until = time.monotonic() + 10
    while found.name_of(first) in names(gce):
        assert time.monotonic() < until
    for now in (cloud.instances(ID), Asked(gce).cloud.instances(ID)):
        gone = {one.id: one for one in now}[first.id]
        assert (gone.state, gone.taken, gone.why) == ("ended", True, "Instance was preempted.")
        assert (gone.labels[GROUP], gone.labels[NUMBERS], gone.index) == ("cpu", "1", 0)
        assert gone.zone == ZONE
        rest = {one.id: one for one in now}[second.id]
        assert (rest.alive, rest.taken, rest.why) == (True, False, "")
    assert first.id not in {one.id for one in cloud.instances(None)}
    cloud.end([second])
    assert [one.taken for one in cloud.instances(ID) if not one.alive] == [True]


def test_taken_machines_are_told_when_none_is_left_and_not_of_others(
    cloud: GceCloud, gce: Gce, launch: Wish
) -> None:
    made = cloud.launch(launch(market="spot"))
    for one in made:
        gce.take_away(found.name_of(one))
    other = {**LABELS, "clusterkit-cluster": "c-cpu", "clusterkit-id": "b" * 16}
    cloud.prepare(other, "", [HOME], False)
    now = datetime.now(UTC)
    young = {**LABELS, "clusterkit-created": f"{now:%Y%m%dT%H%M%SZ}"}
    fresh = Asked(gce).cloud
    assert {one.id for one in fresh.instances(ID)} == {one.id for one in made}
    assert fresh.instances("b" * 16) == []
    assert fresh.instances("f" * 16) == []
    # A cluster that was made later with the same name has nothing to do with them.
    for end in ("door", "inside", "closed"):
        cloud.client.act("firewalls", "delete", firewall=f"clusterkit-c-{end}")
    later = {**young, "clusterkit-id": "e" * 16, "clusterkit-created": "20991121T134118Z"}
    cloud.prepare(later, "", [HOME], False)
    assert Asked(gce).cloud.instances("e" * 16) == []


# -- the end --------------------------------------------------------------------------------------


def end_all(cloud: GceCloud) -> int:
    """As `stop` does it: machines, then the rest, again while something is refused; the rounds."""
    cloud.end([one for one in cloud.instances(ID) if one.alive])
    for rounds in range(1, 20):
        left = cloud.resources(ID)
        if not left:
            return rounds
        for one in left:
            cloud.delete(one)
    raise AssertionError(cloud.resources(ID))


def address(cloud: GceCloud) -> None:
    resource = {"name": "mine", "labels": found.labels(LABELS)}
    cloud.client.act("addresses", "insert", region=REGION, address_resource=resource)


@pytest.mark.parametrize("market", ["spot", "on-demand"])
def test_every_kind_is_listed_and_goes(
    cloud: GceCloud, gce: Gce, launch: Wish, market: str
) -> None:
    gce.allowed = None
    cloud.launch(launch("c2-standard-4", market, placement=True))
    address(cloud)
    everything = cloud.resources(ID)
    kinds = {one.kind for one in everything}
    assert kinds == {"instance", "disk", "address", "firewall rule", "placement policy"}
    assert len(cloud.kinds) == len(kinds)
    assert all(one[:-1] in " ".join(cloud.kinds) for one in kinds)
    assert everything[-1].id == "clusterkit-c-door"  # the claim of the name goes last
    assert all(one.labels["clusterkit-id"] == ID for one in everything)
    assert [str(one) for one in cloud.resources(None)] == [str(one) for one in everything]
    assert cloud.resources("f" * 16) == []
    disk = next(one for one in everything if one.kind == "disk")
    assert str(disk) == f"disk zones/{ZONE}/c-cpu-1 (30 GiB, attached)"
    end_all(cloud)
    assert gce.left() == []
    assert cloud.resources(None) == []
    for one in everything:
        assert cloud.delete(one) == "", one


def test_what_cannot_be_deleted_yet_says_why(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    cloud.launch(launch("c2-standard-4", placement=True))
    by_kind = {one.kind: one for one in cloud.resources(ID)}
    for kind in ("disk", "placement policy"):
        assert "already being used by" in cloud.delete(by_kind[kind])
    gce.refuse("firewalls.delete", times=3)
    gce.refuse("resourcePolicies.delete", times=2, reason="resourceNotReady")
    assert end_all(cloud) >= 3
    assert gce.left() == []


def test_a_machine_as_a_resource_is_deleted(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    cloud.launch(launch())
    first, second = [one for one in cloud.resources(ID) if one.kind == "instance"]
    assert first.words == "e2-standard-2, running"
    assert cloud.delete(replace(first, id="c-cpu-1/4711")) == ""  # an earlier one of that name
    assert len(names(gce)) == 2
    assert cloud.delete(first) == ""
    assert names(gce) == [found.name_of(_stub(second.id))]


def _stub(id_: str) -> Instance:
    return Instance(id_, "", ZONE, "on-demand", "running", "", "", {})


def test_a_deletion_that_is_not_allowed_is_an_error(cloud: GceCloud, gce: Gce) -> None:
    cloud.prepare(LABELS, "", [HOME], False)
    gce.fault("firewalls.delete", "denied")
    (one, *_) = cloud.resources(ID)
    with pytest.raises(ClusterError, match=r"lack the permission compute\.firewalls\.delete"):
        cloud.delete(one)


@pytest.mark.parametrize("what", ["lost", "cut", "internal"])
def test_a_deletion_whose_answer_was_not_heard(
    cloud: GceCloud, gce: Gce, launch: Wish, what: str
) -> None:
    cloud.launch(launch())
    gce.fault("*.delete", what, times=2)
    end_all(cloud)
    assert gce.left() == []


# -- saved images ---------------------------------------------------------------------------------

MINE = {**LABELS, DIGEST: "d1", LOGIN: "ubuntu"}


def saved(cloud: GceCloud, launch: Wish) -> str:
    (one,) = cloud.launch(launch(numbers=(1,)))
    cloud.stop([one])
    return cloud.save_image(one, "clusterkit-c-D1_x86", MINE)


def test_an_image_of_ones_own(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    id_ = saved(cloud, launch)
    assert id_ == "projects/test-project/global/images/clusterkit-c-d1-x86"
    (machine,) = cloud.instances(ID)
    assert cloud.save_image(machine, "clusterkit-c-D1_x86", MINE) == id_
    (image,) = cloud.images()
    assert (image.id, image.digest, image.state, image.login) == (id_, "d1", "available", "ubuntu")
    assert (image.disk, image.arch, image.name) == (30, "x86_64", "clusterkit-c-d1-x86")
    assert image.labels == {
        **found.labels(MINE),
        "clusterkit-created": LABELS["clusterkit-created"],
    }
    assert image.made is not None
    assert "image" not in {one.kind for one in cloud.resources(ID)}
    assert cloud.image("family/clusterkit-d1", "x86_64").id == id_
    assert cloud.image("clusterkit-c-d1-x86", "x86_64").login == "ubuntu"
    assert len(cloud.launch(launch(image=id_, numbers=(2,)))) == 1
    cloud.remove_image(image)
    assert cloud.images() == []
    assert not any(one.startswith(("image", "snapshot")) for one in gce.left())
    cloud.remove_image(image)


def test_the_name_of_somebody_elses_image(cloud: GceCloud, launch: Wish) -> None:
    saved(cloud, launch)
    (machine,) = cloud.instances(ID)
    with pytest.raises(ClusterError, match="not this cluster's"):
        cloud.save_image(machine, "clusterkit-c-d1-x86", {**MINE, "clusterkit-id": "b" * 16})


@pytest.mark.parametrize("what", ["lost", "internal"])
def test_an_image_whose_answer_was_not_heard(
    cloud: GceCloud, gce: Gce, launch: Wish, what: str
) -> None:
    gce.fault("images.insert", what)
    saved(cloud, launch)
    assert len(cloud.images()) == 1


def test_an_image_of_a_machine_that_runs(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    (one,) = cloud.launch(launch(numbers=(1,)))
    with pytest.raises(ApiError, match="already being used by"):
        cloud.save_image(one, "early", MINE)
    assert gce.things("images") == []


# -- prices and quotas ----------------------------------------------------------------------------


def test_prices(cloud: GceCloud, gce: Gce) -> None:
    zones = ["us-central1-a", "us-central1-f"]
    prices = cloud.prices(["e2-standard-2", T4, "g2-standard-8"], zones, ["on-demand", "spot"])
    known = {(one.subject, one.market, one.zone): one for one in prices}
    assert len(prices) == 3 + 6
    e2 = known["e2-standard-2", "on-demand", ""]
    assert e2.amount == pytest.approx(2 * 0.02181159 + 8 * 0.00292353)
    assert (e2.currency, e2.region) == ("USD", REGION)
    assert e2.source.startswith("Cloud Billing Catalog")
    t4 = known[T4, "on-demand", ""].amount
    assert t4 == pytest.approx(8 * 0.031611 + 30 * 0.004237 + 0.35)
    spot = known[T4, "spot", "us-central1-a"].amount
    assert spot is not None
    assert t4 is not None
    assert spot == pytest.approx(0.31 * t4)
    assert known["g2-standard-8", "spot", "us-central1-f"].amount is None
    assert "does not have" in known["g2-standard-8", "spot", "us-central1-f"].why
    before = gce.count("skus.list")
    assert cloud.disk_price().amount == pytest.approx(0.1 / 730)
    assert cloud.image_price().amount == pytest.approx(0.05 / 730)
    assert cloud.address_price().amount == pytest.approx(0.005)
    assert gce.count("skus.list") == before
    for kind, amount in {"pd-ssd": 0.17, "pd-standard": 0.04, "hyperdisk-balanced": 0.08}.items():
        of_kind = Asked(gce, disk_type=kind).cloud.disk_price()
        assert of_kind.amount == pytest.approx(amount / 730)
        assert kind in of_kind.subject


def test_prices_of_another_region(gce: Gce) -> None:
    cloud = Asked(gce, "europe-west4").cloud
    (one,) = cloud.prices(["e2-standard-2"], [], ["on-demand"])
    assert one.amount == pytest.approx(1.11 * (2 * 0.02181159 + 8 * 0.00292353))
    assert cloud.address_price().amount == pytest.approx(0.005)


def test_prices_that_cannot_be_had(cloud: GceCloud, gce: Gce) -> None:
    gce.fault("skus.list", "denied", times=None)
    (one,) = cloud.prices(["e2-standard-2"], [], ["on-demand"])
    assert one.amount is None
    assert one.why
    assert cloud.disk_price().amount is None


def test_quotas(cloud: GceCloud, gce: Gce, launch: Wish) -> None:
    gce.quotas[REGION, "NVIDIA_T4_GPUS"] = 1
    gce.quotas["", "GPUS_ALL_REGIONS"] = 2
    types = cloud.machine_types([T4, "e2-standard-2"])
    cloud.launch(launch("e2-standard-2", numbers=(1,)))
    needs = [
        Need(types[T4], "on-demand", 2),
        Need(types[T4], "spot", 1),
        Need(types["e2-standard-2"], "on-demand", 1),
    ]
    found = {one.code: one for one in cloud.quotas(needs)}
    gpus = found["NVIDIA_T4_GPUS"]
    assert (gpus.limit, gpus.used, gpus.needed, gpus.short) == (1, 0, 2, True)
    assert "in us-central1" in gpus.name
    assert "project=test-project" in gpus.page
    assert found["GPUS_ALL_REGIONS"].short
    assert not found["PREEMPTIBLE_NVIDIA_T4_GPUS"].short
    assert (found["CPUS"].used, found["CPUS"].needed) == (2, 26)
    gce.fault("regions.get", "denied", times=None)
    unknown = {one.code: one for one in Asked(gce).cloud.quotas(needs)}
    assert unknown["CPUS"].limit is None
    assert unknown["CPUS"].why
    assert unknown["GPUS_ALL_REGIONS"].limit == 2


# -- bad days -------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["unavailable", "internal", "cut", "lost"])
def test_trouble_that_passes(asked: Asked, gce: Gce, what: str) -> None:
    gce.fault("instances.aggregatedList", what, times=2)
    assert asked.cloud.instances(None) == []
    assert len(asked.pauses) == 2


def test_operations_that_take_their_time(asked: Asked, gce: Gce, launch: Wish) -> None:
    gce.looks, gce.operation_time, gce.boot_time = 3, 0.1, 0.2
    assert len(asked.cloud.launch(launch())) == 2
    assert asked.pauses


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("expired", "application-default login"),
        ("denied", r"lack the permission compute\.instances\.list"),
        ("disabled", r"gcloud services enable compute\.googleapis\.com --project test-project"),
        ("unpaid", "billing/linkedaccount"),
    ],
)
def test_credentials_and_projects_that_do_not_do(
    asked: Asked, gce: Gce, what: str, words: str
) -> None:
    gce.fault("instances.aggregatedList", what, times=None)
    with pytest.raises(ClusterError, match=words):
        asked.cloud.instances(ID)
    assert asked.pauses == []


def test_a_project_that_there_is_not(gce: Gce) -> None:
    cloud = GceCloud(Client(REGION, "nobody", endpoint=gce.url))
    with pytest.raises(ApiError, match="Is 'nobody' the project's id"):
        cloud.account()
    with pytest.raises(ApiError, match="'projects/nobody' was not found"):
        cloud.instances(ID)


def test_a_cluster_in_another_region_is_nobodys_orphan(gce: Gce, cloud: GceCloud) -> None:
    """Firewall rules are the project's; whether a cluster lives, only its own region can tell."""
    here = cloud
    there = GceCloud(Client("europe-west4", gce.project, endpoint=gce.url))
    here.prepare(LABELS, "", ["203.0.113.9/32"], placement=False)
    rules = [one for one in here.resources(None) if one.kind == "firewall rule"]
    assert len(rules) == 3
    assert there.resources(None) == []
    with pytest.raises(ClusterError, match=r"taken in the project .* in us-central1"):
        there.prepare(
            {**LABELS, "clusterkit-id": "f" * 16}, "", ["203.0.113.9/32"], placement=False
        )
