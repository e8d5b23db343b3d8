"""Settings of the provider gce: what is taken, and what is said of the rest."""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from clusterkit.cluster import cloud_values, config, json_schema, spec, stored
from clusterkit.cluster.cloud.api import NoRegion
from clusterkit.cluster.providers.gce import connect
from clusterkit.cluster.spec import GceSpec
from clusterkit.errors import FileProblems
from clusterkit.paths import Home, templates

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
T4 = "n1-standard-8+nvidia-tesla-t4:1"
GCE = (
    "provider: gce\nhead: {types: e2-medium}\nworkers: {gpu: {count: 2, types: [g2-standard-8]}}\n"
)


@pytest.fixture(autouse=True)
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project


def load(text: str) -> dict[str, Any]:
    file = Path("clusterkit.yaml")
    file.write_text(text, encoding="utf-8")
    return dict(config.load(file.absolute()))


def cluster(body: str) -> GceSpec:
    found = load("clusters:\n  lab:\n" + textwrap.indent(body, "    "))["lab"]
    assert isinstance(found, GceSpec)
    return found


def told(body: str) -> list[str]:
    """The problems of one cluster, whose first line is line 3, without `clusters.lab.`."""
    with pytest.raises(FileProblems) as caught:
        cluster(body)
    return [str(one).replace("clusters.lab.", "") for one in caught.value.problems]


# --- what is right


def test_everything(known: Path, tmp_path: Path) -> None:
    (known / "key.json").write_text(json.dumps({"type": "service_account"}))
    found = cluster(
        """\
provider: gce
region: us-central1
project: my-project-123456
credentials: key.json
endpoint: http://127.0.0.1:8080/
network: projects/host-project/global/networks/lab
subnetwork: lab-central
image: projects/my-project-123456/global/images/family/lab
disk_type: pd-ssd
max_run: 2d
saved_image: off
connect: private
head: {types: n2-standard-4, zones: us-central1-a, disk: 100G}
workers:
  gpu:
    count: 3
    min: 2
    types: [n1-standard-8+nvidia-tesla-t4:1, g2-standard-8, a2-highgpu-1g]
    zones: [us-central1-b, us-central1-a]
    market: spot-then-on-demand
    gpus: 1
  cpu: {count: 1, types: [n2-custom-8-16384-ext, custom-4-5120], zones: any}
"""
    )
    gpu = found.workers["gpu"]
    assert (found.region, found.project, found.max_run, found.disk_type) == (
        "us-central1", "my-project-123456", 172_800, "pd-ssd",
    )  # fmt: skip
    assert found.credentials == known / "key.json"
    assert found.endpoint == "http://127.0.0.1:8080"
    assert (found.network, found.subnetwork) == (
        "projects/host-project/global/networks/lab", "lab-central",
    )  # fmt: skip
    assert (found.head.types, found.head.zones) == (("n2-standard-4",), ("us-central1-a",))
    assert gpu.types == (T4, "g2-standard-8", "a2-highgpu-1g")
    assert gpu.zones == ("us-central1-b", "us-central1-a")
    assert found.workers["cpu"].zones == ()
    _kept(found, tmp_path)


def test_the_defaults(tmp_path: Path) -> None:
    found = cluster(GCE)
    assert (found.image, found.disk_type, found.max_run) == ("ubuntu-24.04", "auto", None)
    assert {found.region, found.project, found.credentials, found.endpoint} == {None}
    assert {found.network, found.subnetwork} == {None}
    assert (found.timeouts.boot, found.head.market, found.head.zones) == (300, "on-demand", ())
    _kept(found, tmp_path)


def _kept(found: GceSpec, tmp_path: Path) -> None:
    """What a cluster was started with is read back as it was."""
    folder = Home(tmp_path / "data").cluster("lab")
    stored.write(folder, found, "clusterkit.yaml")
    again = stored.read(folder, lenient=False)
    assert again is not None
    assert again.spec == found


def test_the_example_is_right(known: Path) -> None:
    text = (templates() / "init" / "gce.yaml").read_text(encoding="utf-8")
    found = load(text.replace("NAME:", "lab:"))["lab"]
    assert (found.image, found.workers["gpu"].types) == ("dlvm-gpu", (T4, "g2-standard-8"))
    # With commented settings switched on it is still understood.
    (known / "key.json").write_text(json.dumps({"type": "service_account"}))
    for key in ("region", "project", "credentials", "disk", "zones", "min", "placement", "max_run",
                "allow", "connect"):  # fmt: skip
        text = text.replace(f"# {key}:", f"{key}:")
    found = load(text.replace("NAME:", "lab:"))["lab"]
    assert (found.region, found.max_run, found.project) == (
        "us-central1", 604_800, "my-project-123",
    )  # fmt: skip


def test_the_example_of_the_page_is_right() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("\n### gce\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("    ")]
    found = load(textwrap.dedent("\n".join(lines)))["google"]
    assert isinstance(found, GceSpec)
    assert found.workers["gpu"].types == (T4, "g2-standard-8")
    for model in (GceSpec, spec.GceHead, spec.GceGroup):
        for key, field in model.model_fields.items():
            assert f"`{key}`" in PAGE.read_text(encoding="utf-8"), key
            assert key == "provider" or field.description, key


def test_the_schema_takes_what_the_model_takes(known: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema.schema()
    check = jsonschema.Draft202012Validator(schema)
    check.check_schema(schema)
    good = {
        "provider": "gce", "region": "us-central1", "project": "my-project", "max_run": "2d",
        "endpoint": "http://127.0.0.1:1", "image": "family/lab", "disk_type": "pd-ssd",
        "network": "lab", "subnetwork": "projects/p1/regions/us-east1/subnetworks/lab",
        "head": {"types": "e2-medium", "zones": "us-central1-a"},
        "workers": {"gpu": {"count": 2, "types": [T4, "g2-standard-8"], "zones": "any"}},
    }  # fmt: skip
    check.validate({"clusters": {"lab": good}})
    GceSpec.model_validate(good)
    for bad in (
        {"region": "us-central1-a"}, {"image": "ubuntu-20.04"}, {"disk_type": "gp3"},
        {"head": {"types": "g5.xlarge"}}, {"head": {"types": "n1-standard-8+nvidia-tesla-t4"}},
        {"head": {"types": "e2-medium", "zones": "us-central1"}}, {"endpoint": "127.0.0.1"},
    ):  # fmt: skip
        assert list(check.iter_errors({"clusters": {"lab": good | bad}})), bad
        with pytest.raises(ValidationError):
            GceSpec.model_validate(good | bad)


@pytest.mark.parametrize(
    ("check", "taken"),
    [
        (cloud_values.gce_region, "northamerica-northeast1"),
        (cloud_values.gce_region, "europe-west12"),
        (cloud_values.gce_zone, "us-south1-ai1b"),
        (cloud_values.gce_type, "a3-ultragpu-8g"),
        (cloud_values.gce_type, "c4-standard-8-lssd"),
        (cloud_values.gce_type, "n1-highmem-2+nvidia-tesla-v100:8"),
        (cloud_values.gce_type, "n1-standard-4+nvidia-tesla-t4-vws:2"),
        (cloud_values.gce_type, "custom-4-5120+nvidia-tesla-p4:1"),
        (cloud_values.gce_image, "lab-2026-05"),
        (cloud_values.gce_image, "dlvm-gpu"),
        (cloud_values.gce_image, "family/ubuntu-mine"),
        (cloud_values.gce_image, "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts"),
        (cloud_values.gce_image, "projects/example.com:lab/global/images/debian-12"),
        (cloud_values.gce_project, "example.com:lab"),
        (cloud_values.gce_endpoint, "https://compute.example.org/a/b"),
    ],
)
def test_taken(check: Callable[[object], str], taken: str) -> None:
    assert check(taken) == taken


@pytest.mark.parametrize(
    ("wished", "machine", "kind"),
    [
        ("auto", "e2-medium", "pd-balanced"),
        ("auto", T4, "pd-balanced"),
        ("auto", "custom-4-5120", "pd-balanced"),
        ("auto", "a2-highgpu-1g", "pd-balanced"),
        ("auto", "a3-highgpu-8g", "pd-balanced"),
        ("auto", "a3-ultragpu-8g", "hyperdisk-balanced"),
        ("auto", "c4a-standard-4", "hyperdisk-balanced"),
        ("auto", "n4-standard-4", "hyperdisk-balanced"),
        ("pd-ssd", "e2-medium", "pd-ssd"),
    ],
)
def test_the_kind_of_disk(wished: str, machine: str, kind: str) -> None:
    assert cloud_values.gce_disk_type(wished, machine) == kind


# --- what is wrong


@pytest.mark.parametrize(
    ("check", "given", "words"),
    [
        (cloud_values.gce_region, "us-central1-a", "is a zone; its region is us-central1, and"),
        (cloud_values.gce_region, "us-central-1", "expected a region such as us-central1 or"),
        (cloud_values.gce_region, 5, "expected a region such as us-central1 or europe-west4, not"),
        (cloud_values.gce_zone, "us-central1", "is a region: its zones are us-central1-a and so"),
        (cloud_values.gce_zone, "us-central1a", "did you mean us-central1-a?"),
        (cloud_values.gce_zone, "any", "`any` stands alone"),
        (cloud_values.gce_zone, None, "expected any, or zones such as us-central1-a, not null"),
        (cloud_values.gce_type, "g5.xlarge", "expected machine types such as g2-standard-8 or"),
        (cloud_values.gce_type, "N1-Standard-8", "expected n1-standard-8, not"),
        (cloud_values.gce_type, {"type": "x"}, "not a mapping"),
        (cloud_values.gce_type, "n1-standard-8+nvidia-tesla-t4", f"For one write {T4}"),
        (cloud_values.gce_type, "n1-standard-8+nvidia-tesla-t4:3", "expected 1, 2, 4 or 8 GPUs"),
        (cloud_values.gce_type, "n1-standard-8+nvidia-tesla-t4:x", "expected 1, 2, 4 or 8 GPUs"),
        (cloud_values.gce_type, "n1-standard-8+t4:1", "did you mean nvidia-tesla-t4?"),
        (cloud_values.gce_type, "n1-standard-8+nvidia-t4:1", "did you mean nvidia-tesla-t4?"),
        (cloud_values.gce_type, "n1-standard-8+", "expected a GPU such as nvidia-tesla-t4 behind"),
        (cloud_values.gce_type, "n2-standard-8+nvidia-tesla-t4:1", "to types of N1 alone, such as"),
        (cloud_values.gce_type, "g2-standard-8+nvidia-l4:1", "g2-standard-8 has GPUs of its own"),
        (cloud_values.gce_image, "ubuntu-20.04", "unknown; did you mean ubuntu-2"),
        (cloud_values.gce_image, "ubuntu-2404-lts-amd64", "other public images are written with"),
        (cloud_values.gce_image, "debian-12", "unknown; "),
        (cloud_values.gce_image, "dlvm_gpu", "expected ubuntu-22.04, ubuntu-24.04, dlvm-gpu,"),
        (cloud_values.gce_image, 24.04, "not 24.04"),
        (cloud_values.gce_image, "projects/p/global/images/family/", "expected ubuntu-22.04"),
        (cloud_values.gce_image,
         "https://www.googleapis.com/compute/v1/projects/p/global/images/lab",
         "not its address; write projects/p/global/images/lab"),
        (cloud_values.gce_project, 123456789012, "not its number, 123456789012"),
        (cloud_values.gce_project, "My Project", "`gcloud projects list` shows the ids"),
        (cloud_values.gce_network, "My Net", "expected a network's name, or projects/"),
        (cloud_values.gce_subnetwork, 1, "expected a subnetwork's name, or projects/"),
        (cloud_values.gce_endpoint, "127.0.0.1:80", "did you mean http://127.0.0.1:80?"),
        (cloud_values.gce_endpoint, "http://user:word@host", "expected an address such as http://"),
        (cloud_values.gce_endpoint, "ftp://host", "expected an address such as http://127.0.0.1"),
        (cloud_values.gce_run, "5s", "expected from 30s to 120d"),
        (cloud_values.gce_run, "121d", "expected from 30s to 120d"),
        (cloud_values.gce_run, "soon", "expected seconds or a text such as 90s"),
    ],
)  # fmt: skip
def test_refused(check: Callable[[object], object], given: object, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        check(given)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("region: us-east1\nimage: dlvm-gqu2\ndisk_type: gp3", 'disk_type: "gp3" is unknown;'),
        ("credentials: nothing.json", "project/nothing.json is not there"),
        ("credentials: .", "is a folder, not a file"),
        ("credentials: clusterkit.yaml", "is no key file of a service account"),
        ("project: 12", "line 6: project: expected a project's id"),
        ("profile: lab", "profile: unknown;"),
        ("types: e2-medium", "types: belongs in `head` or in a group of `workers`, not here"),
    ],
)
def test_a_problem_of_the_file(more: str, problem: str) -> None:
    assert any(problem in one for one in told(GCE + more))


def test_all_zones_are_in_one_region() -> None:
    body = (
        "provider: gce\nhead: {types: e2-medium, zones: us-central1-a}\nworkers:\n"
        "  a: {count: 1, types: e2-medium, zones: [us-central1-b, us-east1-b]}\n"
    )
    (found,) = told(body)
    assert found == (
        "line 6: workers.a.zones: us-east1-b is in us-east1, and us-central1-a (head.zones) says "
        "us-central1; a cluster is in one region"
    )
    assert "`region` says us-east1" in told(body + "region: us-east1")[0]
    (twice,) = told(GCE.replace("[g2-standard-8]", f"[{T4}, {T4}]"))
    assert twice.endswith(f"{T4} is there twice; keep one")


@pytest.mark.parametrize(
    ("group", "more", "problem"),
    [
        (f"types: [{T4}], placement: true", "", f"does not put {T4} close together"),
        ("types: [n1-standard-4, e2-medium], placement: true", "", "4, e2-medium close"),
        (f"types: {T4}", "disk_type: hyperdisk-balanced", f"{T4} (workers.a) cannot have hyper"),
        ("types: c4-standard-4", "disk_type: pd-ssd", "c4-standard-4 (workers.a) cannot have pd"),
    ],
)
def test_what_a_machine_type_never_takes(group: str, more: str, problem: str) -> None:
    body = "provider: gce\nhead: {types: c3-standard-4}\nworkers:\n"
    found = told(f"{body}  a: {{count: 2, {group}}}\n{more}\n")
    assert [problem in one for one in found] == [True]


@pytest.mark.parametrize(
    ("group", "more"),
    [
        ("types: c3-standard-4, placement: true", ""),
        (f"types: [{T4}, g2-standard-8], placement: true", ""),
        (f"types: [{T4}], placement: false", ""),
        ("types: c4-standard-4", "disk_type: auto"),
        ("types: n2-standard-4", "disk_type: pd-ssd"),
    ],
)
def test_what_a_machine_type_takes(group: str, more: str) -> None:
    body = "provider: gce\nhead: {types: c3-standard-4}\nworkers:\n"
    cluster(f"{body}  a: {{count: 2, {group}}}\n{more}\n")


def test_all_that_google_has_to_be_told_is_asked_for_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Region, credentials and project: who has none of them hears it once."""
    for name in list(os.environ):
        if name.startswith(("CLOUDSDK_", "GOOGLE_", "GCLOUD_", "CLUSTERKIT_GCE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(NoRegion) as caught:
        connect(GceSpec.model_validate({"head": {"types": ["e2-medium"], "worker": True}}))
    told = str(caught.value).splitlines()
    assert [line.partition(":")[0].partition(" were")[0] for line in told] == [
        "Google needs a region",
        "No credentials for Google",
        "Google needs a project",
    ]
