"""`clusterkit init` and `clusterkit schema`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clusterkit.cli import main
from clusterkit.cluster import config


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    monkeypatch.setenv("CLUSTERKIT_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("CLUSTERKIT_CONFIG", raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_new_file_then_more_clusters_in_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["init", "lab", "--provider", "nspawn"]) == 0
    file = project / "clusterkit.yaml"
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: new, with the cluster 'lab'.",
        "Edit it, then `clusterkit start lab`.",
    ]
    first = file.read_text()
    (project / "deep").mkdir()
    monkeypatch.chdir(project / "deep")
    for provider in ("ssh", "ec2", "gce", "attach", "local"):
        assert main.run(["init", f"my-{provider}", "--provider", provider]) == 0
    assert file.read_text().startswith(first)
    assert list(config.load(file)) == ["lab", "my-ssh", "my-ec2", "my-gce", "my-attach", "my-local"]
    assert f"{file}: the cluster 'my-ssh' was added." in capsys.readouterr().out


def test_nothing_is_overwritten(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main.run(["init", "lab", "--provider", "nspawn"])
    before = (project / "clusterkit.yaml").read_bytes()
    assert main.run(["init", "lab", "--provider", "ssh"]) == 2
    assert "has a cluster 'lab' already" in capsys.readouterr().err
    assert (project / "clusterkit.yaml").read_bytes() == before


def test_a_file_with_mistakes_is_left_alone(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "clusterkit.yaml").write_text("clusters:\n  a: {provider: x}\n")
    assert main.run(["init", "lab", "--provider", "ssh"]) == 2
    assert "line 2: clusters.a.provider" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "# mine\n"])
def test_a_file_with_nothing_in_it_is_filled(project: Path, text: str) -> None:
    (project / "clusterkit.yaml").write_text(text)
    assert main.run(["init", "lab", "--provider", "local"]) == 0
    assert (project / "clusterkit.yaml").read_text().startswith(text)
    assert list(config.load(project / "clusterkit.yaml")) == ["lab"]


def test_the_named_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERKIT_CONFIG", str(tmp_path / "mine.yaml"))
    assert main.run(["init", "lab", "--provider", "local"]) == 0
    assert list(config.load(tmp_path / "mine.yaml")) == ["lab"]
    assert not Path("clusterkit.yaml").exists()


def test_dry_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["init", "lab", "--provider", "nspawn", "--dry-run"]) == 0
    assert "  lab:\n    provider: nspawn" in capsys.readouterr().out
    assert list(project.iterdir()) == []


@pytest.mark.parametrize("name", ["Lab", "1a", "a_b", "../x", "a" * 32])
def test_names_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["init", name, "--provider", "local"]) == 2
    assert "a cluster's name is" in capsys.readouterr().err


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "clusterkit.yaml"


@pytest.mark.parametrize(
    ("name", "provider"),
    [("gce", ""), ("aws", ""), ("ssh", ""), ("lab", " --provider nspawn")],
)
def test_who_has_no_settings_yet_is_told_how_to_get_some(
    project: Path, capsys: pytest.CaptureFixture[str], name: str, provider: str
) -> None:
    assert main.run(["start", name]) == 1
    assert f"`clusterkit init {name}{provider}`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "provider"), [("gce", "gce"), ("google", "gce"), ("aws", "ec2"), ("ssh", "ssh")]
)
def test_a_name_may_say_the_provider(project: Path, name: str, provider: str) -> None:
    assert main.run(["init", name]) == 0
    assert config.load(project / "clusterkit.yaml")[name].provider == provider


def test_another_name_does_not(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["init", "lab"]) == 2
    assert "--provider nspawn, ssh, ec2, gce, attach or local" in capsys.readouterr().err
    assert list(project.iterdir()) == []
