"""Quotas on GCE: which metrics machines count against, and what is said of a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from clusterkit.cluster.cloud.api import MachineType, Market, Need, Quota
from clusterkit.cluster.providers.gce import quotas
from clusterkit.errors import ClusterError

REGION = [
    ("CPUS", 24.0, 4.0),
    ("N2_CPUS", 200.0, 0.0),
    ("C2_CPUS", 8.0, 0.0),
    ("A2_CPUS", 12.0, 0.0),
    ("PREEMPTIBLE_CPUS", 0.0, 0.0),
    ("NVIDIA_T4_GPUS", 4.0, 1.0),
    ("PREEMPTIBLE_NVIDIA_T4_GPUS", 8.0, 2.0),
    ("NVIDIA_L4_GPUS", 1.0, 0.0),
    ("PREEMPTIBLE_NVIDIA_L4_GPUS", 0.0, 0.0),
    ("NVIDIA_A100_GPUS", 1.0, 0.0),
    ("INSTANCES", 24.0, 1.0),
    ("IN_USE_ADDRESSES", 8.0, 1.0),
    ("SSD_TOTAL_GB", 500.0, 30.0),
]
PROJECT = [("CPUS_ALL_REGIONS", 32.0, 4.0), ("GPUS_ALL_REGIONS", 1.0, 0.0)]
LIMITS = {metric: (limit, used) for metric, limit, used in REGION}


class Client:
    region = "us-central1"
    project = "my-project"

    def __init__(self) -> None:
        self.of_region: Sequence[tuple[str, float, float]] = REGION
        self.of_project: Sequence[tuple[str, float, float]] = PROJECT
        self.broken: Exception | None = None

    def region_quotas(self) -> Sequence[tuple[str, float, float]]:
        if self.broken is not None:
            raise self.broken
        return self.of_region

    def project_quotas(self) -> Sequence[tuple[str, float, float]]:
        if self.broken is not None:
            raise self.broken
        return self.of_project


def need(
    name: str,
    cpus: int,
    count: int,
    market: Market = "on-demand",
    gpus: int = 0,
    gpu: str = "",
    **more: Any,
) -> Need:
    return Need(MachineType(name, cpus, 16384, gpus=gpus, gpu=gpu), market, count, **more)


def asked(*needs: Need, client: Client | None = None, **more: Any) -> dict[str, Quota]:
    return {one.code: one for one in quotas.quotas(client or Client(), needs, **more)}


def test_cpus_and_gpus_are_added_up_in_the_region_and_in_the_project() -> None:
    found = asked(
        need("n1-standard-8+nvidia-tesla-t4:2", 8, 2, gpus=2, gpu="NVIDIA T4"),
        need("e2-standard-4", 4, 1),
        need("n2-standard-2", 2, 1),
    )
    told = {code: (one.limit, one.used, one.needed) for code, one in found.items()}
    assert told == {
        "CPUS": (24, 4, 20),
        "CPUS_ALL_REGIONS": (32, 4, 22),
        "NVIDIA_T4_GPUS": (4, 1, 4),
        "GPUS_ALL_REGIONS": (1, 0, 4),
        "N2_CPUS": (200, 0, 2),
    }
    assert [code for code, one in found.items() if one.short] == [
        "NVIDIA_T4_GPUS",
        "GPUS_ALL_REGIONS",
    ]
    assert found["CPUS"].name == "CPUS in us-central1"
    assert found["GPUS_ALL_REGIONS"].name == "GPUS_ALL_REGIONS in all regions"
    assert found["CPUS"].page.startswith("https://console.cloud.google.com/iam-admin/quotas?")
    assert "project=my-project" in found["CPUS"].page


def test_spot_counts_against_its_own_metric_where_the_project_has_any_of_it() -> None:
    found = asked(need("n1-standard-8+nvidia-tesla-t4:1", 8, 2, "spot", 1))
    assert found["PREEMPTIBLE_NVIDIA_T4_GPUS"].needed == 2
    assert "NVIDIA_T4_GPUS" not in found
    assert found["CPUS"].needed == 16  # there are no PREEMPTIBLE_CPUS
    found = asked(need("g2-standard-8", 8, 1, "spot", 1))
    assert found["NVIDIA_L4_GPUS"].needed == 1


@pytest.mark.parametrize(
    ("name", "spot", "metric"),
    [
        ("n1-standard-8+nvidia-tesla-t4:1", False, "CPUS"),
        ("e2-micro", False, "CPUS"),
        ("custom-4-8192", False, "CPUS"),
        ("n2-standard-8", False, "N2_CPUS"),
        ("n2d-standard-8", False, "N2D_CPUS"),
        ("c2-standard-8", False, "C2_CPUS"),
        ("a2-highgpu-1g", False, "A2_CPUS"),
        ("n2-standard-8", True, "PREEMPTIBLE_CPUS"),
    ],
)
def test_the_metric_of_the_cpus(name: str, spot: bool, metric: str) -> None:
    limits = {**LIMITS, "PREEMPTIBLE_CPUS": (16.0, 0.0)}
    assert quotas.cpu_metric(name, "spot" if spot else "on-demand", limits) == metric


def test_e2_has_a_metric_of_its_own_in_some_projects() -> None:
    limits = {**LIMITS, "E2_CPUS": (8.0, 0.0)}
    assert quotas.cpu_metric("e2-standard-4", "on-demand", limits) == "E2_CPUS"
    assert quotas.cpu_metric("n1-standard-4", "on-demand", limits) == "CPUS"


@pytest.mark.parametrize(
    ("name", "gpu", "model", "count"),
    [
        ("n1-standard-8+nvidia-tesla-t4:4", "", "T4", 4),
        ("n1-standard-8+nvidia-tesla-v100", "", "V100", 2),
        ("n1-standard-8+nvidia-tesla-t4-vws:1", "", "T4_VWS", 1),
        ("g2-standard-24", "NVIDIA L4", "L4", 2),
        ("a2-highgpu-2g", "", "A100", 2),
        ("a2-ultragpu-2g", "NVIDIA A100", "A100_80GB", 2),
        ("a3-highgpu-2g", "", "H100", 2),
        ("x9-standard-8", "NVIDIA Z900", "Z900", 2),
        ("x9-standard-8", "nvidia-tesla-z900", "Z900", 2),
    ],
)
def test_the_model_of_the_gpus(name: str, gpu: str, model: str, count: int) -> None:
    assert quotas.gpus(MachineType(name, 8, 16384, gpus=2, gpu=gpu)) == (model, count)


def test_without_gpus_there_are_none() -> None:
    assert quotas.gpus(MachineType("n2-standard-8", 8, 16384))[1] == 0


def test_a_family_that_the_api_does_not_tell_is_unknown() -> None:
    found = asked(need("a3-highgpu-8g", 208, 1, gpus=8))
    for code in ("CPUS_PER_VM_FAMILY", "GPUS_PER_GPU_FAMILY"):
        assert found[code].limit is None
        assert not found[code].short
        assert "a3-highgpu-8g" in found[code].name
        assert found[code].why


def test_machines_addresses_and_disks_are_told_only_where_they_are_too_small() -> None:
    assert set(asked(need("e2-micro", 2, 1, disk=100))) == {"CPUS", "CPUS_ALL_REGIONS"}
    found = asked(need("e2-micro", 2, 8, disk=59))
    assert {code for code, one in found.items() if one.short} == {
        "IN_USE_ADDRESSES",
        "SSD_TOTAL_GB",
    }
    private = quotas.quotas(Client(), [need("e2-micro", 2, 8)], addresses=False)
    assert "IN_USE_ADDRESSES" not in {one.code for one in private}


def test_disks_count_by_their_kind() -> None:
    client = Client()
    client.of_region = [*client.of_region, ("HDB_TOTAL_GB", 100, 0), ("DISKS_TOTAL_GB", 100, 0)]
    for name, kind, metric in [
        ("n4-standard-8", "auto", "HDB_TOTAL_GB"),
        ("e2-micro", "pd-standard", "DISKS_TOTAL_GB"),
    ]:
        found = asked(need(name, 2, 3, disk=50), client=client, disk_type=kind)
        assert [code for code, one in found.items() if one.short] == [metric]
        assert found[metric].needed == 150


def test_of_two_markets_of_a_group_one_counts() -> None:
    """Each metric as often as the larger of them takes: they are not had both."""
    found = asked(
        need("n1-standard-8+nvidia-tesla-t4:1", 8, 2, "spot", 1, group="gpu"),
        need("n1-standard-8+nvidia-tesla-t4:1", 8, 2, "on-demand", 1, group="gpu"),
        need("e2-standard-2", 2, 1, group="head"),
    )
    told = {code: one.needed for code, one in found.items()}
    assert told == {
        "CPUS": 18,
        "CPUS_ALL_REGIONS": 18,
        "PREEMPTIBLE_NVIDIA_T4_GPUS": 2,
        "NVIDIA_T4_GPUS": 2,
        "GPUS_ALL_REGIONS": 2,
    }
    bigger = asked(
        need("e2-standard-4", 4, 1, "spot", group="cpu"),
        need("e2-standard-8", 8, 1, "on-demand", group="cpu"),
    )
    assert bigger["CPUS"].needed == 8


def test_quotas_that_may_not_be_read_are_unknown_with_googles_words() -> None:
    client = Client()
    client.broken = ClusterError("The credentials lack compute.regions.get")
    found = asked(need("n1-standard-8+nvidia-tesla-t4:1", 8, 2, "spot", 1), client=client)
    assert set(found) == {"CPUS", "CPUS_ALL_REGIONS", "NVIDIA_T4_GPUS", "GPUS_ALL_REGIONS"}
    for one in found.values():
        assert (one.limit, one.used, one.short) == (None, None, False)
        assert one.why == "The credentials lack compute.regions.get"


def test_a_project_that_tells_nothing_is_unknown() -> None:
    client = Client()
    client.of_project = []
    assert asked(need("e2-micro", 2, 1), client=client)["CPUS_ALL_REGIONS"].limit is None


def test_nothing_is_asked_for_no_machines() -> None:
    client = Client()
    client.broken = AssertionError("asked")
    assert quotas.quotas(client, [need("e2-micro", 2, 0)]) == []


def test_the_advice_names_metric_limit_region_and_page() -> None:
    said = "Quota 'NVIDIA_T4_GPUS' exceeded.  Limit: 0.0 in region europe-west4."
    words = quotas.advice("my-project", said, "us-central1")
    assert "The quota NVIDIA_T4_GPUS is 0 in europe-west4, which is too small" in words
    assert "https://console.cloud.google.com/iam-admin/quotas?project=my-project" in words
    assert "filter for NVIDIA_T4_GPUS" in words
    assert "free trial" in words


def test_what_the_error_told_apart_is_better_than_its_words() -> None:
    words = quotas.advice("p", "Quota 'X' exceeded.", "us-central1", "N2_CPUS", 24.0)
    assert words.startswith("The quota N2_CPUS is 24 in us-central1")
    assert "free trial" not in words


def test_a_limit_of_the_project_is_not_one_of_a_region() -> None:
    said = "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 1.0 globally."
    words = quotas.advice("p", said, "us-central1")
    assert "GPUS_ALL_REGIONS is 1 in all regions" in words
    assert "or region" not in words


def test_words_without_a_metric_still_say_where_to_ask() -> None:
    words = quotas.advice("", "Limit exceeded", "us-central1")
    assert words.startswith("A quota in us-central1 is too small. Ask for more at https://")
