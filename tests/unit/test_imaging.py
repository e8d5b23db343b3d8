"""Images of one's own: begun, killed, gone on with; and a temporary machine that never stays."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from memory_cloud import Memory, ago, labels
from playbooks_scripts import PLAYBOOKS, render

from clusterkit import paths
from clusterkit.cluster import access, lifecycle, reach
from clusterkit.cluster.cloud import api, imaging, place
from clusterkit.cluster.cloud.api import Image, Instance, Launch, MachineType
from clusterkit.cluster.cloud.door import OwnAddress
from clusterkit.cluster.cloud.provider import CloudProvider
from clusterkit.cluster.providers import Plan
from clusterkit.cluster.spec import Ec2Spec
from clusterkit.errors import ClusterError, SetupFailed, UsageError
from clusterkit.paths import Home

SPEC: dict[str, Any] = {
    "head": {"types": ["t3.small"]},
    "workers": {"cpu": {"count": 1, "types": ["c5.large"], "market": "spot"}},
}
TYPES = {
    "t3.small": MachineType("t3.small", 2, 2048, zones=("us-east-1a",)),
    "c5.large": MachineType("c5.large", 2, 4096, zones=("us-east-1a",)),
    "g5.xlarge": MachineType("g5.xlarge", 4, 16384, gpus=1, zones=("us-east-1a",)),
    "t4g.small": MachineType("t4g.small", 2, 2048, arch="arm64", zones=("us-east-1a",)),
}


class Killed(BaseException):
    """Nothing of the process that was killed runs any more."""


class Factory(Memory):
    """Makes images; they are there at the third look. Killed after the call `fatal`."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.fatal = self.count = 0
        self.fails = ""
        self.launches = 0

    def _done(self) -> None:
        """After a call that counts; who was killed there makes no other one."""
        self.count += 1
        if self.count >= self.fatal > 0:
            raise Killed

    def instances(self, cluster_id: str | None) -> list[Instance]:
        self._done()
        return super().instances(cluster_id)

    def launched(self, token: str) -> list[Instance]:
        return [one for one in self.machines.values() if one.labels[api.LAUNCH] == token]

    def machine_types(self, names: Collection[str]) -> Mapping[str, MachineType]:
        return {name: TYPES[name] for name in names}

    def zones(self) -> tuple[str, ...]:
        return ("us-east-1a",)

    def image(self, name: str, arch: str) -> Image:
        return Image(f"ami-{arch}", name, arch, "ubuntu")

    def prepare(
        self, labels: Mapping[str, str], public_key: str, door: Sequence[str], placement: bool
    ) -> Mapping[str, str]:
        self.thing("key pair", "key-1", labels, None)
        return {}

    def launch(self, launch: Launch) -> list[Instance]:
        there = [one for one in self.machines.values() if one.labels[api.LAUNCH] == launch.token]
        if not there:
            self.launches += 1
            self.machine(f"i-{self.launches}", launch.labels, "running", 0, ago(minutes=1))
        self._done()
        return self.launched(launch.token)

    def stop(self, instances: Sequence[Instance]) -> None:
        super().stop(instances)
        self._done()

    def end(self, instances: Sequence[Instance]) -> None:
        super().end(instances)
        self._done()

    def save_image(self, instance: Instance, name: str, labels: Mapping[str, str]) -> str:
        assert self.machines[instance.id].state == "stopped"
        assert instance.labels[api.GROUP] == "builder"
        there = [one for one in self.saved.values() if one.name == name]
        if not there:
            arch = "arm64" if "arm64" in self.calls else "x86_64"
            self.looks = 0
            self.saved["ami-1"] = Image(
                "ami-1", name, arch, labels[api.LOGIN], 8, ago(minutes=0), labels[api.DIGEST],
                labels, "pending",
            )  # fmt: skip
        self._done()
        return "ami-1"

    def images(self) -> list[Image]:
        self.looks += 1
        if self.looks > 3:
            for id_, one in self.saved.items():
                if one.state == "pending":
                    state = "failed" if self.fails else "available"
                    self.saved[id_] = replace(one, state=state, words=self.fails)
        found = super().images()
        self._done()
        return found

    @property
    def running(self) -> list[str]:
        return [one.id for one in self.machines.values() if one.alive]


class Ec2(CloudProvider):
    name = "ec2"


Save = Callable[..., Image]


@pytest.fixture
def cloud() -> Factory:
    return Factory()


@pytest.fixture
def save(cloud: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Save:
    home = Home(tmp_path)
    folder = home.cluster("lab")
    spec = dict(SPEC)

    def made(_home: Home, _name: str, *, keep: bool) -> tuple[Ec2Spec, Ec2]:
        identity = access.identity(folder, "lab", make=keep)
        settings = Ec2Spec.model_validate(spec)
        return settings, Ec2(
            settings, identity, folder, cloud=cloud, own=lambda: OwnAddress("198.51.100.7/32", "")
        )

    monkeypatch.setattr(lifecycle, "made", made)
    monkeypatch.setattr(imaging, "_LOOK", 0.0)
    monkeypatch.setattr(reach, "reach", lambda _p, _i, machines, *_: tuple(machines))
    monkeypatch.setattr(imaging, "set_up", lambda *_, **how: cloud.calls.append("set up"))

    def run(agree: Callable[[Plan], None] = lambda _: None, **changes: Any) -> Image:
        spec.update(changes)
        return imaging.save(home, "lab", agree)

    return run


def test_an_image_is_made_by_a_machine_that_goes_again(
    cloud: Factory, save: Save, tmp_path: Path
) -> None:
    asked: list[Plan] = []
    image = save(asked.append)
    assert asked[0].asks
    assert "0.051 USD a month for each GiB" in asked[0].notes[0]
    assert (image.id, image.state, image.login) == ("ami-1", "available", "ubuntu")
    assert image.digest == imaging.digest(Ec2Spec.model_validate(SPEC), "ubuntu-24.04", "x86_64")
    assert image.name == f"clusterkit-lab-{image.digest[:12]}"
    assert image.labels["clusterkit-role"] == "image"
    assert cloud.running == []
    assert cloud.things == {}  # the cluster does not run: nothing else stays
    assert place.read(tmp_path / "clusters/lab", access.read_id(tmp_path / "clusters/lab")) is None

    # Once more: it is there, nobody is asked, nothing is made.
    assert save(asked.append) == image
    assert len(asked) == 1
    assert cloud.launches == 1


def test_who_does_not_agree_gets_no_machine(cloud: Factory, save: Save, tmp_path: Path) -> None:
    def refuse(_: Plan) -> None:
        raise UsageError("no")

    with pytest.raises(UsageError):
        save(refuse)
    assert cloud.launches == 0
    assert not (tmp_path / "clusters/lab/identity.json").exists()


@pytest.mark.parametrize("there", [False, True])
def test_a_preview_changes_nothing(cloud: Factory, save: Save, tmp_path: Path, there: bool) -> None:
    """Also where the image is there, and things that a `save` would tidy up."""
    if there:
        save()
        id_ = access.read_id(tmp_path / "clusters/lab")
        marks = labels("lab", id_, "worker", ago(minutes=1), group="builder", numbers="1")
        cloud.machine("i-builder", marks)
        cloud.thing("key pair", "key-2", labels("lab", id_, "cluster", ago(minutes=1)), None)
    before = (dict(cloud.machines), dict(cloud.things), sorted(tmp_path.rglob("*")))
    plan = imaging.preview(Home(tmp_path), "lab")
    assert (dict(cloud.machines), dict(cloud.things), sorted(tmp_path.rglob("*"))) == before
    assert bool(plan.asks) is not there
    assert ("nothing would be made: ami-1" in plan.notes[0]) is there


def test_a_cluster_that_runs_keeps_its_things(cloud: Factory, save: Save, tmp_path: Path) -> None:
    id_ = access.identity(tmp_path / "clusters/lab", "lab", make=True).id
    cloud.cluster("lab", id_, ago(days=1), workers=1)
    for one, machine in cloud.machines.items():
        cloud.machines[one] = replace(machine, labels={**machine.labels, api.LAUNCH: "earlier"})
    before = set(cloud.running)
    save()
    assert set(cloud.running) == before
    assert "key-1" in cloud.things


@pytest.mark.parametrize("fatal", range(1, 40))
def test_killed_after_any_call_it_goes_on(cloud: Factory, save: Save, fatal: int) -> None:
    cloud.fatal = fatal
    try:
        save()
        assert cloud.count < fatal
    except Killed:
        cloud.fatal = 0
        save()
    assert cloud.running == []
    assert cloud.things == {}
    assert [one.state for one in cloud.saved.values()] == ["available"]
    assert cloud.launches <= 2


def test_a_machine_that_is_seen_needs_no_answer(
    cloud: Factory, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the launch that was killed; a cloud would be waited for to show what was ended since."""
    asked: list[str] = []
    tokens: list[str] = []

    def launched(token: str) -> list[Instance]:
        asked.append(token)
        return Factory.launched(cloud, token)

    def killed(launch: Launch) -> list[Instance]:
        tokens.append(launch.token)
        Factory.launch(cloud, launch)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(cloud, "launch", killed)
        with pytest.raises(Killed):
            save()
    monkeypatch.setattr(cloud, "launched", launched)
    save()
    assert not set(asked) & set(tokens)
    assert cloud.launches == 2


def test_a_set_up_that_fails_leaves_no_machine(
    cloud: Factory, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SetupFailed("no package server answers")

    with monkeypatch.context() as patch:
        patch.setattr(imaging, "set_up", fail)
        with pytest.raises(SetupFailed, match="no package server"):
            save()
    assert cloud.launches == 1
    assert cloud.running == []
    assert cloud.things == {}
    save()
    assert cloud.launches == 2


def test_a_cloud_that_cannot_make_the_image_is_quoted(cloud: Factory, save: Save) -> None:
    cloud.fails = "Client.InternalError: snapshot failed"
    with pytest.raises(ClusterError, match="snapshot failed") as caught:
        save()
    assert "`clusterkit image save lab`" in str(caught.value)
    assert cloud.saved == {}
    cloud.fails = ""
    save()
    assert cloud.running == []
    assert cloud.launches == 1  # its disk was finished: only the image is made again


def test_an_image_that_takes_too_long_is_gone_on_with(
    cloud: Factory, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud, "images", lambda: list(cloud.saved.values()))
    with pytest.raises(ClusterError, match="is not there after 1 s"):
        save(timeouts={"setup": 1})
    assert len(cloud.running) == 1
    monkeypatch.undo()


def test_a_driver_is_in_it_where_a_machine_has_gpus(
    cloud: Factory, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    wished: list[bool] = []
    monkeypatch.setattr(imaging, "set_up", lambda *_, **how: wished.append(how["gpus"]))
    plain = save()
    assert plain.labels[api.GPUS] == "0"
    gpu = {"gpu": {"count": 1, "types": ["g5.xlarge"]}}
    cloud.saved["ami-0"] = replace(cloud.saved.pop("ami-1"), id="ami-0")
    driven = save(workers=gpu)
    assert wished == [False, True]
    assert driven.id == "ami-1"  # the plain one does not do
    assert driven.name.endswith("-gpu")
    assert save(workers=SPEC["workers"]).state == "available"  # one with a driver does for all
    assert len(wished) == 2


def test_only_images_that_were_saved_are_removed(cloud: Factory) -> None:
    image = Image("ami-1", "x", "x86_64", "ubuntu", digest="ab")
    cloud.saved["ami-1"] = image
    with pytest.raises(UsageError, match="ami-2 is no image"):
        imaging.remove(cloud, Image("ami-2", "ubuntu-24.04", "x86_64", "ubuntu"))
    imaging.remove(cloud, image)
    assert cloud.saved == {}


def test_the_digest_is_of_the_roles_the_image_and_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Ec2Spec.model_validate(SPEC)
    first = imaging.digest(spec, "ubuntu-24.04", "x86_64")
    assert len(first) == 32
    assert imaging.digest(spec, "ubuntu-24.04", "x86_64") == first
    assert imaging.digest(spec, "ubuntu-24.04", "arm64") != first
    assert imaging.digest(spec, "debian-12", "x86_64") != first
    (tmp_path / "roles").mkdir()
    (tmp_path / "roles" / "a").write_text("1")
    monkeypatch.setattr(paths, "playbooks", lambda: tmp_path)
    mine = imaging.digest(spec, "ubuntu-24.04", "x86_64")
    assert mine != first
    (tmp_path / "roles" / "a").write_text("2")
    assert imaging.digest(spec, "ubuntu-24.04", "x86_64") != mine


# -- scripts --------------------------------------------------------------------------------------

GIVEN = {"ansible_check_mode": False, "node_name": "lab-builder", "cluster_name": "lab-builder",
         "group_names": ["image"], "base_owns_machine": True, "gpus_promised": 0,
         "image_packages": ["munge", "slurmd"], "image_mariadb": "[mariadbd]"}  # fmt: skip


@pytest.mark.parametrize("name", ["image", "clean"])
def test_scripts_are_shell(name: str) -> None:
    text = render(name, GIVEN)
    for shell in ("sh", "bash"):
        checked = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
    assert "flock" in text
    # A machine of a cloud that is switched off from inside may end itself.
    assert "poweroff" not in text
    assert "shutdown" not in text


def test_in_check_mode_nothing_is_removed() -> None:
    text = render("clean", {**GIVEN, "ansible_check_mode": True})
    assert text.index('[ -z "$checking" ] || exit 0') < text.index("removing secrets")


def test_a_driver_is_installed_without_a_gpu_only_when_told() -> None:
    assert "only_install=yes" in render("nvidia", {**GIVEN, "nvidia_only_install": True})
    assert "only_install=yes" not in render("nvidia", GIVEN)


def test_the_playbook_installs_what_the_roles_install() -> None:
    plays = yaml.safe_load((PLAYBOOKS / "image.yml").read_text())
    assert plays[0]["vars_files"] == ["roles/base/defaults/main.yml"]
    assert plays[-1]["name"] == "Remove every trace"
    text = (PLAYBOOKS / "image.yml").read_text()
    assert text.count("builtin.raw") == text.count("check_mode: false") == 2
