"""doctor of clusters that are in no cloud: this computer, the settings, the head."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from clusterkit.cluster.cloud import doctor
from clusterkit.cluster.cloud.api import Finding
from clusterkit.cluster.facts import Facts
from clusterkit.errors import ClusterError, UnknownCluster, Unreachable
from clusterkit.paths import Home
from clusterkit.transport import Address

SETTINGS = """\
clusters:
  lab:
    provider: ssh
    head: {host: lab-head}
    workers:
      cpu: {hosts: [lab-1]}
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "clusterkit.yaml").write_text(SETTINGS)
    return Home(tmp_path / "data", tmp_path / "clusterkit.yaml")


def findings(home: Home, name: str = "lab") -> dict[str, Finding]:
    return {one.subject: one for one in doctor.examine(home, name)}


def started(home: Home) -> None:
    folder = home.cluster("lab")
    folder.mkdir(parents=True)
    facts = Facts(
        "lab", "ssh", "", "", "", "23.11", "python3", "/home/me", 1001, None, 4, 4096, (),
        head="head", hosts={"head": Address(host="lab-head")},
    )  # fmt: skip
    facts.write(folder)


def test_what_is_well(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")
    found = findings(home)
    assert {"disk", "settings", "ssh", "ssh-keygen", "rsync"} <= set(found)
    assert all(one.verdict == "good" for one in found.values()), found
    assert not home.root.exists()  # nothing is made


def test_tools_that_are_missing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    found = findings(home)
    assert found["ssh"].verdict == "bad"
    assert "openssh" in found["ssh"].advice
    assert found["rsync"].verdict == "unknown"  # it works without


def test_a_disk_that_is_full(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**29))
    found = findings(home)["disk"]
    assert found.verdict == "bad"
    assert "0.5 GiB" in found.words


@pytest.mark.parametrize(("off", "verdict"), [(0, "good"), (200, "bad"), (-200, "bad")])
def test_the_clock_of_the_head(
    home: Home, monkeypatch: pytest.MonkeyPatch, off: int, verdict: str
) -> None:
    started(home)
    run = SimpleNamespace(run=lambda *_, **__: SimpleNamespace(text=f"{time.time() + off:.0f}\n"))
    monkeypatch.setattr(doctor, "Ssh", lambda _: run)
    assert findings(home)["clock"].verdict == verdict


def test_a_head_that_is_silent(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    started(home)

    def silent(*_: object, **__: object) -> None:
        raise Unreachable("lab-head does not answer", "silent")

    monkeypatch.setattr(doctor, "Ssh", lambda _: SimpleNamespace(run=silent))
    found = findings(home)["head"]
    assert found.verdict == "bad"
    assert "lab-head does not answer" in found.words


def test_all_mistakes_of_the_settings(home: Home) -> None:
    assert home.config is not None
    home.config.write_text(SETTINGS.replace("hosts: [lab-1]", "hosts: [], gpu: 1"))
    bad = [one for one in doctor.examine(home, "lab") if one.verdict == "bad"]
    assert len(bad) == 2
    assert all("clusterkit.yaml" in one.words for one in bad)


def test_a_key_that_others_can_read(home: Home, tmp_path: Path) -> None:
    assert home.config is not None
    key = tmp_path / "id"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    key.chmod(0o600)
    home.config.write_text(SETTINGS.replace("    head:", "    key: id\n    head:"))
    assert findings(home)["ssh key"].verdict == "good"
    key.chmod(0o640)
    bad = [one for one in doctor.examine(home, "lab") if one.verdict == "bad"]
    assert bad
    assert "chmod 600" in bad[0].words + bad[0].advice


def test_a_cluster_that_there_is_not(home: Home) -> None:
    with pytest.raises(UnknownCluster, match="lab"):
        findings(home, "lap")


def test_doctor_does_not_send_to_itself() -> None:
    def check() -> Iterator[Finding]:
        yield Finding("zones", "good", "a")
        raise ClusterError("AWS refused it. Set others. `clusterkit doctor` checks them.")

    asked = list(doctor._asked("zones", check))
    assert [one.words for one in asked] == ["a", "AWS refused it. Set others."]
