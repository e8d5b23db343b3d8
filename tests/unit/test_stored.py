"""settings.json: what a cluster was started with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clusterkit.cluster import stored
from clusterkit.cluster.spec import AttachSpec, LocalSpec, NspawnSpec, Spec, SshSpec
from clusterkit.errors import ClusterError

SPECS: list[Spec] = [
    LocalSpec(),
    AttachSpec(host="me@uni:22", sbatch={"account": "x"}),
    NspawnSpec.model_validate(
        {
            "key": Path("/k"),
            "network": "10.1.2.0/24",
            "slurm": {"A": None, "B": True, "C": 1.5},
            "workers": {"gpu": {"count": 2, "memory": "8G", "slurm": {"MaxTime": 60}}},
        }
    ),
    SshSpec.model_validate({"head": {"host": "a"}, "workers": {"cpu": {"hosts": ["b", "c"]}}}),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.provider)
def test_what_is_written_is_read(tmp_path: Path, spec: Spec) -> None:
    folder = tmp_path / "clusters" / "lab"
    stored.write(folder, spec, tmp_path / "clusterkit.yaml")
    assert stored.read(folder) == stored.Stored(str(tmp_path / "clusterkit.yaml"), spec)
    assert stored.read(folder, lenient=False) is not None
    assert stored.provider(folder) == spec.provider
    assert list(stored.names(tmp_path / "clusters")) == ["lab"]
    assert [file.name for file in folder.iterdir()] == ["settings.json"]
    stored.forget(folder)
    assert stored.read(folder) is stored.provider(folder) is None
    assert list(stored.names(tmp_path / "clusters")) == []


def test_keys_of_a_later_version_are_left_out(tmp_path: Path) -> None:
    stored.write(tmp_path, SPECS[2], None)
    file = tmp_path / "settings.json"
    data = json.loads(file.read_text())
    data["later"] = data["spec"]["later"] = {"x": 1}
    data["spec"]["head"]["later"] = data["spec"]["workers"]["gpu"]["later"] = [1]
    file.write_text(json.dumps(data))
    assert stored.read(tmp_path) == stored.Stored(None, SPECS[2])
    with pytest.raises(ClusterError, match="cannot be understood"):
        stored.read(tmp_path, lenient=False)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"file": null, "spec": {}}', '{"file": null, "spec": 5}',
     '{"file": null, "spec": {"provider": "moon"}}',
     '{"file": null, "spec": {"provider": "nspawn", "uid": "x"}}'],
)  # fmt: skip
def test_a_damaged_one_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ClusterError, match=r"settings\.json cannot be understood"):
        stored.read(tmp_path)


def test_it_can_be_read_when_the_key_is_gone(tmp_path: Path) -> None:
    stored.write(tmp_path, SPECS[2], None)
    found = stored.read(tmp_path)
    assert found is not None
    assert isinstance(found.spec, NspawnSpec)
    assert found.spec.key == Path("/k")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match="cannot be written"):
        stored.write(tmp_path / "file", LocalSpec(), None)
