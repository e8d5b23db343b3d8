"""The door is mended when ssh is met with silence; SLURM is told what the cloud knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from memory_cloud import Memory, ago

from clusterkit import cluster
from clusterkit.cluster import access, drain, lifecycle, looking, state, stored
from clusterkit.cluster import facts as facts_file
from clusterkit.cluster.cloud import known, mending, place
from clusterkit.cluster.facts import Facts
from clusterkit.cluster.spec import Ec2Spec
from clusterkit.cluster.state import Node
from clusterkit.errors import ClusterError, Unreachable
from clusterkit.paths import Home
from clusterkit.transport import Address, Ssh

A = "a" * 16
SILENT = Unreachable("ubuntu@203.0.113.5 cannot be reached: no answer", "silent")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.chdir(tmp_path)
    return Home(tmp_path / "data")


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Memory:
    made = Memory()
    made.cluster("lab", A, ago(days=2), workers=2)
    monkeypatch.setattr(known, "connect", lambda _spec: made)
    return made


@pytest.fixture
def facts(home: Home, cloud: Memory) -> Facts:
    folder = home.cluster("lab")
    access.write_identity(folder, A, "20261101T000000Z")
    place.write(folder, place.Place(A, "us-east-1", "123456789012"))
    spec = Ec2Spec.model_validate(
        {
            "own_address": "198.51.100.7",
            "head": {"types": ["t3.small"]},
            "workers": {"gpu": {"count": 2, "types": ["g5.xlarge"]}},
        }
    )
    stored.write(folder, spec, None)
    made = Facts(
        "lab", "ec2", "2026-11-01T00:00:00+00:00", "", "", "23.11", "python3", "/home/x", 1000,
        None, 4, 8000, (), id=A, head="lab-head",
        hosts={"lab-head": Address(cloud.machines["i-aaahead1"].public, "ubuntu")}, disposable=True,
    )  # fmt: skip
    made.write(folder)
    return made


def mend(home: Home, facts: Facts, told: list[str], machine: str = "lab-head") -> bool:
    return mending.mend(home, facts, machine, SILENT, told.append)


# -- the door -------------------------------------------------------------------------------------


def test_a_door_that_was_shut_is_opened_and_that_is_told(
    home: Home, cloud: Memory, facts: Facts
) -> None:
    cloud.door = (["198.51.100.7/32"], ["198.51.100.6/32"])
    told: list[str] = []
    assert mend(home, facts, told)
    assert len(told) == 1
    assert "198.51.100.7/32" in told[0]
    assert "no longer for 198.51.100.6/32" in told[0]
    assert "open_door 198.51.100.7/32" in cloud.calls


def test_a_door_that_is_open_leaves_the_error_and_says_what_the_cloud_says(
    home: Home, cloud: Memory, facts: Facts
) -> None:
    with pytest.raises(Unreachable) as caught:
        mend(home, facts, [])
    assert str(caught.value).startswith(str(SILENT))
    assert "lab-head runs, and its door is open" in str(caught.value)
    assert caught.value.why == "silent"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": "ended", "why": "Server.SpotInstanceTermination"}, "gone (Server.Spot"),
        ({"state": "stopped"}, "is switched off: the cluster is paused"),
        ({"public": "203.0.113.99"}, "has another address by now, 203.0.113.99"),
    ],
)
def test_what_became_of_the_machine(
    home: Home, cloud: Memory, facts: Facts, change: dict[str, Any], words: str
) -> None:
    cloud.machines["i-aaahead1"] = replace(cloud.machines["i-aaahead1"], **change)
    with pytest.raises(Unreachable) as caught:
        mend(home, facts, [])
    assert words in str(caught.value)
    assert str(caught.value).endswith("`clusterkit start lab`")


def test_a_machine_that_the_cloud_does_not_show_any_more(
    home: Home, cloud: Memory, facts: Facts
) -> None:
    del cloud.machines["i-aaahead1"]
    with pytest.raises(Unreachable, match="the cloud has it no more"):
        mend(home, facts, [])


def test_a_cloud_that_cannot_be_asked_leaves_the_error(
    home: Home, cloud: Memory, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_spec: object) -> Memory:
        raise ClusterError("the credentials have expired")

    monkeypatch.setattr(known, "connect", refuse)
    with pytest.raises(Unreachable) as caught:
        mend(home, facts, [])
    assert str(caught.value).startswith(str(SILENT))
    assert "the credentials have expired" in str(caught.value)


def test_where_there_is_no_cloud_there_is_no_door(home: Home, facts: Facts) -> None:
    assert not mend(home, replace(facts, provider="nspawn"), [])


class Tried(Ssh):
    """An ssh that is met with silence, or with something else, so often."""

    def __init__(self, failures: int, why: str = "silent", **more: Any) -> None:
        super().__init__(Address("192.0.2.1"), **more)
        self.failures, self.why, self.tries = failures, why, 0

    def alive(self) -> bool:
        return False

    def _connect(self) -> None:
        self.tries += 1
        if self.tries <= self.failures:
            raise Unreachable("no answer", self.why)


def test_ssh_is_tried_once_more_when_the_way_was_mended() -> None:
    heard: list[Unreachable] = []

    def opened(error: Unreachable) -> bool:
        heard.append(error)
        return True

    ssh = Tried(1, mend=opened)
    ssh.open()
    assert (ssh.tries, [one.why for one in heard]) == (2, ["silent"])
    ssh = Tried(2, mend=opened)
    with pytest.raises(Unreachable):
        ssh.open()
    assert (ssh.tries, len(heard)) == (2, 2)


def test_ssh_is_not_tried_again_when_nothing_was_mended() -> None:
    ssh = Tried(1, mend=lambda _: False)
    with pytest.raises(Unreachable):
        ssh.open()
    assert ssh.tries == 1


@pytest.mark.parametrize("why", ["denied", "key", ""])
def test_only_silence_is_a_matter_of_the_door(why: str) -> None:
    def never(_error: Unreachable) -> bool:
        raise AssertionError

    ssh = Tried(1, why, mend=never)
    with pytest.raises(Unreachable):
        ssh.open()
    assert ssh.tries == 1


def test_every_connection_of_a_started_cluster_can_be_mended(
    home: Home, cloud: Memory, facts: Facts
) -> None:
    told: list[str] = []
    cloud.door = (["198.51.100.7/32"], [])
    transport = cluster.connect("lab", home, say=told.append).transport
    assert isinstance(transport, Ssh)
    assert transport.mend is not None
    assert transport.mend(SILENT)
    assert len(told) == 1
    node = cluster.node_transport("lab", home, "lab-head")
    assert isinstance(node, Ssh)
    assert node.mend is not None
    replace(facts, disposable=False).write(home.cluster("lab"))
    kept = cluster.connect("lab", home).transport
    assert isinstance(kept, Ssh)
    assert kept.mend is None


# -- status ---------------------------------------------------------------------------------------

IDLE = Node("lab-gpu-1", "idle", 4, 0, 8000, "")
DOWN = Node("lab-gpu-2", "down*", 4, 0, 8000, "", "Not responding")


class Requeued(list[tuple[tuple[str, ...], str]]):
    def __call__(self, _head: object, nodes: list[str], reason: str) -> None:
        self.append((tuple(nodes), reason))


@pytest.fixture
def requeued(monkeypatch: pytest.MonkeyPatch) -> Requeued:
    made = Requeued()
    monkeypatch.setattr(drain, "requeue", made)
    return made


def took(cloud: Memory, id_: str) -> None:
    cloud.machines[id_] = replace(
        cloud.machines[id_], state="ended", why="Server.SpotInstanceTermination", taken=True
    )


def test_a_machine_that_was_taken_away_is_told_to_slurm(
    home: Home, cloud: Memory, facts: Facts, requeued: Requeued
) -> None:
    took(cloud, "i-aaagpu2")
    assert mending.mourn(home, facts, [DOWN]) == {"lab-gpu-2": "Server.SpotInstanceTermination"}
    assert requeued == [(("lab-gpu-2",), f"{drain.GONE}: Server.SpotInstanceTermination")]
    assert lifecycle._healed(requeued[0][1])  # a start that replaces it lets it work again


def test_what_slurm_knows_is_not_told_again(
    home: Home, cloud: Memory, facts: Facts, requeued: Requeued
) -> None:
    took(cloud, "i-aaagpu2")
    known_down = replace(DOWN, reason=f"{drain.GONE}: x")
    assert mending.mourn(home, facts, [known_down]) != {}
    assert requeued == []


def test_a_node_whose_machine_runs_is_left_alone(
    home: Home, cloud: Memory, facts: Facts, requeued: Requeued
) -> None:
    assert mending.mourn(home, facts, [DOWN]) == {}
    assert requeued == []


def test_status_says_why_and_what_to_do(
    home: Home,
    cloud: Memory,
    facts: Facts,
    requeued: Requeued,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    took(cloud, "i-aaagpu2")
    monkeypatch.setattr(state, "ask", lambda *_args, **_more: ((IDLE, DOWN), 1, 2))
    found = looking.status(home, "lab")
    assert found.state == "running"
    assert found.problem == (
        "lab-gpu-2 is down* (Server.SpotInstanceTermination). `clusterkit start lab` replaces what "
        "died"
    )


def test_status_of_a_healthy_cluster_asks_no_cloud(
    home: Home, cloud: Memory, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "ask", lambda *_args, **_more: ((IDLE,), 1, 2))
    assert looking.status(home, "lab").problem == ""
    assert cloud.calls == []


def test_status_where_the_cloud_cannot_be_asked(
    home: Home, cloud: Memory, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_spec: object) -> Memory:
        raise ClusterError("the credentials have expired")

    monkeypatch.setattr(known, "connect", refuse)
    monkeypatch.setattr(state, "ask", lambda *_args, **_more: ((DOWN,), 1, 2))
    found = looking.status(home, "lab")
    assert "Not responding; its cloud could not be asked: the credentials" in found.problem
    facts_file.forget(home.cluster("lab"))
    found = looking.status(home, "lab")
    assert (found.state, "the credentials have expired" in found.problem) == ("unreachable", True)
