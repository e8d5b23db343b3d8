"""A new key for a cluster that was made elsewhere: every machine once, killed anywhere."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from memory_cloud import Memory, ago

from clusterkit.cluster import access
from clusterkit.cluster.cloud import newkey
from clusterkit.cluster.cloud.api import Instance, Refused
from clusterkit.cluster.cloud.door import OwnAddress
from clusterkit.cluster.cloud.provider import CloudProvider
from clusterkit.cluster.spec import Ec2Spec
from clusterkit.errors import ClusterError

A = "a" * 16


class Killed(BaseException):
    """Nothing of the process that was killed runs any more."""


class Boots(Memory):
    """Machines read their user-data when they are switched on; killed after the call `fatal`."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, str] = {}
        self.read: dict[str, list[str]] = {}
        self.fatal = 0
        self.count = 0
        self.full = False

    def _done(self) -> None:
        self.count += 1
        if self.count == self.fatal:
            raise Killed

    def instances(self, cluster_id: str | None) -> list[Instance]:
        found = super().instances(cluster_id)
        self._done()
        return found

    def end(self, instances: list[Instance]) -> None:  # type: ignore[override]
        super().end(instances)
        self._done()

    def stop(self, instances: list[Instance]) -> None:  # type: ignore[override]
        assert all(self.machines[one.id].market != "spot" for one in instances)
        super().stop(instances)
        self._done()

    def give_user_data(self, instance: Instance, user_data: str) -> None:
        assert self.machines[instance.id].state == "stopped"
        self.given[instance.id] = user_data
        self._done()

    def start(self, instances: list[Instance]) -> None:  # type: ignore[override]
        if self.full:
            raise Refused("capacity", "Insufficient capacity.")
        for one in instances:
            if self.machines[one.id].state != "running":
                self.read.setdefault(one.id, []).append(self.given.get(one.id, ""))
        super().start(instances)
        self._done()


@pytest.fixture
def cloud() -> Boots:
    made = Boots()
    made.cluster("lab", A, ago(days=2), workers=2)
    spot = "i-aaagpu2"
    made.machines[spot] = replace(made.machines[spot], market="spot")
    return made


@pytest.fixture
def provider(cloud: Boots, tmp_path: Path) -> CloudProvider:
    return _provider(cloud, tmp_path)


def _provider(cloud: Boots, folder: Path) -> CloudProvider:
    class Ec2(CloudProvider):
        name = "ec2"

    access.write_identity(folder, A, "20261101T000000Z")
    spec = Ec2Spec.model_validate(
        {"head": {"types": ["t3.small"]}, "workers": {"gpu": {"count": 2, "types": ["g5.xlarge"]}}}
    )
    identity = access.identity(folder, "lab", make=False)
    return Ec2(spec, identity, folder, cloud=cloud, own=lambda: OwnAddress("198.51.100.7/32", ""))


def _well(cloud: Boots, provider: CloudProvider) -> None:
    """Every machine that stays was switched on with a key that this computer believes."""
    assert {one.id: one.state for one in cloud.machines.values()} == {
        "i-aaahead1": "running", "i-aaagpu1": "running", "i-aaagpu2": "ended",
    }  # fmt: skip
    for id_, name in (("i-aaahead1", "lab-head"), ("i-aaagpu1", "lab-gpu-1")):
        config = json.loads(cloud.read[id_][-1].partition("\n")[2])
        assert {config["ssh_keys"]["ed25519_public"]} == provider.identity.believed(name)
        assert config["ssh_authorized_keys"] == [provider.identity.public_key]
        assert provider.identity.key.read_text() not in cloud.read[id_][-1]
        assert config["preserve_hostname"] is True
        assert config["bootcmd"][-1][3] == "clusterkit-adopt"
        assert len(json.dumps(config)) < 16_000  # of user-data, a cloud takes no more


def test_every_machine_is_given_a_key(cloud: Boots, provider: CloudProvider) -> None:
    said: list[str] = []
    newkey.bring(provider, said.append)
    _well(cloud, provider)
    assert "cannot be switched off" in said[0]
    assert "lab-gpu-2" in said[0]
    assert not (provider.folder / "newkey.json").exists()


def test_a_second_time_other_keys_are_brought(cloud: Boots, provider: CloudProvider) -> None:
    newkey.bring(provider, lambda _: None)
    newkey.bring(provider, lambda _: None)
    first, second = cloud.read["i-aaahead1"]
    assert first != second  # another nonce, so that the machine does it again
    _well(cloud, provider)


def test_machines_that_are_off_need_no_switching_off(cloud: Boots, provider: CloudProvider) -> None:
    for id_ in ("i-aaahead1", "i-aaagpu1"):
        cloud.machines[id_] = replace(cloud.machines[id_], state="stopped")
    newkey.bring(provider, lambda _: None)
    _well(cloud, provider)


@pytest.mark.parametrize("fatal", range(1, 20))
def test_killed_after_any_call_it_goes_on(cloud: Boots, tmp_path: Path, fatal: int) -> None:
    cloud.fatal = fatal
    try:
        newkey.bring(_provider(cloud, tmp_path), lambda _: None)
        assert cloud.count < fatal
    except Killed:
        again = _provider(cloud, tmp_path)
        newkey.bring(again, lambda _: None)
        assert stat.S_IMODE((tmp_path / "identity.json").stat().st_mode) == 0o600
    _well(cloud, _provider(cloud, tmp_path))
    for read in cloud.read.values():
        assert len(read) == 1  # no machine was switched off and on twice


def test_a_zone_that_is_full_is_tried_again(cloud: Boots, provider: CloudProvider) -> None:
    cloud.full = True
    with pytest.raises(Refused):
        newkey.bring(provider, lambda _: None)
    cloud.full = False
    newkey.bring(provider, lambda _: None)
    _well(cloud, provider)


def test_a_machine_that_ends_meanwhile_is_told(cloud: Boots, provider: CloudProvider) -> None:
    stop = cloud.stop

    def ends(instances: list[Instance]) -> None:
        stop(instances)
        head = cloud.machines["i-aaahead1"]
        cloud.machines["i-aaahead1"] = replace(head, state="ended", why="hardware failed")

    cloud.stop = ends  # type: ignore[method-assign]
    with pytest.raises(ClusterError, match=r"i-aaahead1 of 'lab' ended meanwhile \(hardware"):
        newkey.bring(provider, lambda _: None)
