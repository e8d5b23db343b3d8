"""GCE's provider against a Compute Engine that it was not made against, which knows a small part of
it: in all the ways that somebody else might write one. Nothing but the loopback is ever asked."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gce_cluster
import pytest
from doubles.strangers_gce import KNOWN, PROJECT, Bad, Stranger
from gce_cluster import REGION, TYPE, A, B, Computer, Waiting

from clusterkit.cluster import looking
from clusterkit.cluster.cloud import adopting, doctor, pricelist
from clusterkit.cluster.providers.gce import ENDPOINT, scopes
from clusterkit.cluster.providers.gce.client import Client
from clusterkit.cluster.providers.gce.cloud import GceCloud
from clusterkit.cluster.providers.gce.words import ApiError
from clusterkit.cluster.watch import Nobody
from clusterkit.errors import ClusterError

pytest.importorskip("google.cloud.compute_v1")

T4 = "n1-standard-8+nvidia-tesla-t4:1"
MACHINES = ["lab-head", "lab-cpu-1", "lab-cpu-2"]
MINE = {(A, name) for name in MACHINES}
THEIRS = {(A, "theirs"), (B, "nobodys")}
#: Google's shapes and others'.
UNKNOWN = ("text", "html", "json", "flat", "path", 405, 501)
LINKS = ("https://www.googleapis.com", "https://compute.googleapis.com")
REFUSED = {"errors": [{"code": "NEVER_HEARD_OF", "message": "The moon is full"}]}


@pytest.fixture(scope="module", autouse=True)
def _no_hosts() -> Iterator[None]:
    from clusterkit.cluster.lifecycle import _Remote

    with pytest.MonkeyPatch.context() as patch:  # for its end: what is set here is put back
        patch.setattr(_Remote, "_look", _Remote._look)
        patch.setattr(Client, "_client", Client._client)
        gce_cluster.without_hosts()
        yield


@pytest.fixture(autouse=True)
def _loopback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    find = socket.getaddrinfo

    def found(host: Any, *args: Any, **more: Any) -> Any:
        assert host in ("127.0.0.1", "localhost"), f"{host} is asked"
        return find(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    return Waiting().install(monkeypatch)


class World:
    """A stranger's double with somebody else's things, and a computer with a cluster there."""

    def __init__(self, there: Stranger, root: Path, endpoint: str = "", **more: Any) -> None:
        self.there, self.root = there, root
        self.settings = {
            "project": PROJECT,
            "endpoint": endpoint or there.url,
            "image": "ubuntu-24.04",
            **more,
        }
        labels = {"clusterkit-id": "f" * 16, "clusterkit-cluster": "other"}
        labels |= {"clusterkit-owner": "eve", "clusterkit-role": "head"}
        for (zone, name), marks in zip(sorted(THEIRS), ({**labels}, {"env": "prod"}), strict=True):
            there.instances[zone, name] = there.instance(zone, {"name": name, "labels": marks})
        rule = {"name": "default-allow-ssh", "sourceRanges": ["0.0.0.0/0"]}
        there.firewalls["default-allow-ssh"] = there.made("firewall", rule, "global")
        self.lab = self.computer("mine")

    def computer(self, name: str) -> Computer:
        made = Computer(self.root / name, **self.settings)
        made.write({"types": [T4], "placement": False})
        return made

    def states(self) -> dict[str, str]:
        return {one.name: one.state for one in self.lab.provider().machines()}

    def running(self) -> None:
        assert self.states() == dict.fromkeys(MACHINES, "running")
        assert set(self.there.instances) == MINE | THEIRS

    def nothing(self) -> None:
        """Nothing of ours is there, and all of theirs, untouched."""
        assert set(self.there.instances) == THEIRS
        assert set(self.there.firewalls) == {"default-allow-ssh"}
        assert {one["status"] for one in self.there.instances.values()} == {self.there.running}


def life(world: World) -> tuple[list[str], list[str]]:
    """A whole one; what was told, and what at its end."""
    there, lab = world.there, world.lab
    told = [*lab.start()]
    world.running()
    for name in MACHINES[1:]:
        one = there.instances[A, name]
        assert one["guestAccelerators"][0]["acceleratorCount"] == 1
        assert one["scheduling"]["provisioningModel"] == "SPOT"
        assert one["labels"]["clusterkit-gpus"] == "1"
    assert lab.plan().missing == ()
    listed = {one.name: one.state for one in looking.list_(lab.home, warn=told.append)}
    assert listed["other"] == "elsewhere"  # somebody else's, whom it tells of, and no more

    rule = there.firewalls["clusterkit-lab-door"]
    assert rule["sourceRanges"] == ["10.9.8.7/32"]
    lab.write(own_address="10.9.8.9")
    assert "10.9.8.9/32" in lab.provider().open_door()
    assert rule["sourceRanges"] == ["10.9.8.9/32"]

    told += lab.pause()
    left = {name: state for name, state in world.states().items() if state != "dead"}
    assert left == {"lab-head": "stopped"}
    told += lab.start()
    world.running()
    lab.stop()
    world.nothing()
    return told, lab.said


# -- whole lives ---------------------------------------------------------------------------------

LIVES: dict[str, dict[str, Any]] = {
    "prefix": {"unknown": "text", "prefix": "/some/prefix", "places": False, "numbers": True},
    "slash": {"unknown": "html", "prefix": "/a/prefix/", "links": LINKS[1], "page": 1, "looks": 3},
    "as gcloud": {
        "unknown": "flat",
        "prefix": "/x/compute/v1/",
        "looks": 0,
        "lag": 4,
        "lingers": 3,
    },
    "no ids": {"unknown": 405, "zones": (A, B), "ids": False, "lingers": 4, "fades": "TERMINATED"},
    "anything goes": {"unknown": 200, "zones": (B, A)},
    "bad days": {"unknown": 501, "prefix": "/x/compute/v1", "lag": 2, "more": True},
}


@pytest.mark.parametrize("name", LIVES)
def test_a_whole_life_where_little_is_known(
    tmp_path: Path, waiting: Waiting, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with Stranger(**LIVES[name]) as there:
        if name == "bad days":
            calls = sorted(KNOWN - {"instances.get", "firewalls.get", "operations.get"})
            there.bad = [Bad(one, 0) for one in calls if not one.endswith(".list")]
            there.bad += [Bad(one, status) for one in calls for status in (500, 429, 503)]
        world = World(there, tmp_path)
        if name in ("as gcloud", "no ids"):
            monkeypatch.setenv(ENDPOINT, there.url)
            world.lab.write(endpoint=None)
        told, last = life(world)
        assert all(one.times == 0 for one in there.bad)
        assert there.count("instances.bulkInsert") <= 3  # by each start once, and at the same time
    for kind in ("disk", "address", "placement policy"):
        words = f"no {kind} can be there, and none is looked for"
        assert sum(words in one for one in last) == (name != "anything goes"), words
    assert not any("<" in one for one in (*told, *last))
    assert waiting.seconds < 120  # nothing is waited for in vain


def test_a_cluster_is_taken_over(tmp_path: Path, waiting: Waiting) -> None:
    with Stranger(known=KNOWN | {"instances.setMetadata"}, looks=0) as there:
        world = World(there, tmp_path)
        world.lab.start()
        other = world.computer("other")
        adopting.take(other.home.prepared(), other.name, adopting.look(other.home, other.name))
        adopting.bring_key(other.home, other.name, Nobody())
        assert set(there.instances) == {(A, "lab-head")} | THEIRS  # spot machines end
        assert there.instances[A, "lab-head"]["status"] == "RUNNING"
        (given,) = there.instances[A, "lab-head"]["metadata"]["items"][-1:]
        assert given["key"] == "user-data"
        other.start()
        world.running()
        other.stop()
        world.nothing()


# -- looking ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_what_is_only_asked(tmp_path: Path, waiting: Waiting, unknown: str | int) -> None:
    with Stranger(unknown=unknown) as there:
        world = World(there, tmp_path)
        lab = world.lab
        plan = lab.plan()
        assert [one.name for one in plan.missing] == MACHINES
        assert [one.gpus_promised for one in plan.missing] == [0, 1, 1]
        assert plan.price is None
        assert any("projects/ubuntu-os-cloud/global/images/family/" in one for one in plan.notes)
        assert any(one.startswith("quota CPUS in us-central1: not known") for one in plan.notes)
        assert not any("<" in one for one in plan.notes)

        found = {one.subject: one for one in doctor.examine(lab.home, "lab")}
        bad = {one.subject for one in found.values() if one.verdict == "bad"}
        # Google's very words for a region and a network that are not there.
        assert bad == ({"region", "network"} if unknown == "path" else set())
        assert found["own address"].verdict == found["zones"].verdict == "good"
        for subject in {"account", "region", "network", "permissions", "prices"} - bad:
            assert found[subject].verdict == "unknown", subject
            assert "<" not in found[subject].words, subject
        if unknown != "path":
            assert "projects.get" in found["account"].words

        told = pricelist.ask(lab.home, "lab", spot=True)
        assert {one.amount for one in told.prices} == {None}
        assert all(one.why for one in told.prices)
        assert waiting.seconds < 10
    assert all(call.endswith((".get", ".list", "aggregatedList", "?")) for call in there.calls)


# -- trouble ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "command", "unknown"),
    [
        ("instances.list", "start", "html"),
        ("instances.list", "stop", "json"),
        ("firewalls.insert", "start", "text"),
        ("instances.insert", "start", "path"),
        ("firewalls.patch", "start", "flat"),
        ("firewalls.list", "stop", "path"),
        ("firewalls.delete", "stop", "text"),
        ("firewalls.delete", "stop", 501),
        ("instances.stop", "pause", "flat"),
        ("instances.delete", "stop", "json"),
        ("instances.delete", "stop", 405),
        ("instances.start", "start", "html"),
    ],
)
def test_what_cannot_be_done_without_is_named(
    tmp_path: Path, waiting: Waiting, call: str, command: str, unknown: str | int
) -> None:
    with Stranger(unknown=unknown, looks=0) as there:
        world = World(there, tmp_path)
        lab = world.lab
        if command != "start" or call == "instances.start":
            lab.start()
        if call == "instances.start":
            lab.pause()
        if call == "firewalls.patch":
            lab.start()
            lab.write(own_address="10.9.8.9")
        there.known -= {call}
        with pytest.raises(ClusterError) as caught:
            lab.provider().open_door() if call == "firewalls.patch" else getattr(lab, command)()
        assert f"does not have the call {call}" in str(caught.value)
        assert there.url in str(caught.value)
        if call in ("firewalls.insert", "instances.insert"):
            world.nothing()  # of what had begun
        assert waiting.seconds < 150  # each machine is looked for, at the same time
        there.known |= {call}
        lab.stop()
        world.nothing()


def test_operations_that_cannot_be_looked_at(tmp_path: Path, waiting: Waiting) -> None:
    with Stranger(known=KNOWN - {"operations.get"}, looks=2, lag=3, lingers=3) as there:
        last = life(World(there, tmp_path))[1]
    assert sum("does not tell how changes go on" in one for one in last) == 1
    assert waiting.seconds < 120


@pytest.mark.parametrize(("status", "body"), [(500, ""), (403, "{}"), (200, "<html>Hi!</html>")])
def test_what_could_not_be_looked_at_is_not_called_gone(
    tmp_path: Path, waiting: Waiting, status: int, body: str
) -> None:
    with Stranger(looks=0) as there:
        world = World(there, tmp_path)
        world.lab.start()
        calls = ("disks.aggregatedList", "disks.list")  # the one is asked where the other fails
        there.bad = [Bad(call, status, 999, body) for call in calls]
        with pytest.raises(ClusterError, match=r"disks\.(aggregated_)?list"):
            world.lab.stop()
        there.bad.clear()
        world.lab.stop()
        world.nothing()


@pytest.mark.parametrize("looks", [0, 2])
def test_errors_of_operations_that_nobody_has_heard_of(
    tmp_path: Path, waiting: Waiting, looks: int
) -> None:
    with Stranger(looks=looks, error=REFUSED) as there:
        world = World(there, tmp_path)
        with pytest.raises(ClusterError, match=r"NEVER_HEARD_OF: The moon is full\."):
            world.lab.start()
        world.nothing()


@pytest.mark.parametrize("status", ["REPAIRING", "SUSPENDING", "NEVER_HEARD_OF"])
def test_states_of_machines(tmp_path: Path, waiting: Waiting, status: str) -> None:
    with Stranger(looks=0, more=True) as there:
        world = World(there, tmp_path)
        world.lab.start()
        for zone, name in MINE:
            there.instances[zone, name]["status"] = status
        assert world.lab.plan().missing == ()  # it is there, and is not made twice
        world.lab.stop()
        world.nothing()


@pytest.mark.parametrize("unknown", ["text", 405])
def test_machines_that_cannot_be_put_close_together(
    tmp_path: Path, waiting: Waiting, unknown: str | int
) -> None:
    with Stranger(unknown=unknown, looks=0) as there:
        world = World(there, tmp_path)
        world.lab.write({"types": [TYPE], "placement": True})
        told = world.lab.start()
        words = "does not have resourcePolicies.insert: machines are not put close together"
        assert sum(words in one for one in told) == 1
        world.running()
        assert not any("resourcePolicies" in one for one in there.instances[A, "lab-cpu-1"])
        world.lab.stop()
        world.nothing()


def test_what_is_no_compute_engine(tmp_path: Path, waiting: Waiting) -> None:
    with Stranger() as there:
        lab = World(there, tmp_path).lab
        there.bad = [Bad("instances.aggregatedList", 200, 999, "<html>Welcome!</html>")]
        with pytest.raises(ClusterError, match="Is Compute Engine at this address"):
            lab.start()


def test_pages_without_end() -> None:
    with Stranger() as there:
        client = Client(REGION, PROJECT, endpoint=there.url, pause=lambda _: None)
        there.bad = [Bad("firewalls.list", 200, 999, '{"nextPageToken": "again"}')]
        with pytest.raises(ClusterError, match="has no end"):
            client.pages("firewalls", "list")


def test_types_of_which_a_part_is_told() -> None:
    with Stranger(zones=(A, B)) as there:
        cloud = GceCloud(Client(REGION, PROJECT, endpoint=there.url, pause=lambda _: None))
        there.bad = [Bad("machineTypes.list", 200, 2, '{"items": [{"name": "g2-standard-24"}]}')]
        (told,) = cloud.machine_types(["g2-standard-24"]).values()
        assert (told.cpus, told.gpus, told.gpu, told.zones) == (24, 2, "NVIDIA L4", (A, B))
        there.bad = [Bad("machineTypes.list", 200, 2, "{}")]
        (told,) = cloud.machine_types(["a2-highgpu-2g"]).values()
        assert (told.cpus, told.gpus, told.gpu, told.zones) == (24, 2, "NVIDIA A100 40GB", (A, B))


def test_google_has_all_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not found there is trouble, however it is said."""
    with Stranger() as there:
        client = Client(REGION, PROJECT, endpoint=there.url, pause=lambda _: None)
        made = client._client("instances")
        monkeypatch.setattr(Client, "_client", lambda *_: made)
        client.endpoint = None  # as far as it knows
        with pytest.raises(ApiError) as caught:
            scopes.instances(client)
    assert not caught.value.lacking
    assert there.calls == ["instances.aggregatedList"]
