"""Clusters and orphans, read from labels."""

from __future__ import annotations

import threading

import pytest
from memory_cloud import NOW, Memory, ago, labels

from clusterkit.cluster.cloud import found
from clusterkit.cluster.cloud.api import Image, Resource
from clusterkit.cluster.prices import Price
from clusterkit.errors import ClusterError

A, B = "a" * 16, "b" * 16


@pytest.fixture
def cloud() -> Memory:
    return Memory()


def orphans(cloud: Memory, *known: str) -> dict[str, bool]:
    """The ids of what is an orphan, and whether it is left alone."""
    return {one.resource.id: one.young for one in found.orphans(cloud, known)}


def remove(cloud: Memory, *known: str) -> list[str]:
    chosen = found.orphans(cloud, known)
    gone = found.remove(cloud, chosen, known, lambda _: None, over=_Impatient())
    return [one.id for one in gone]


class _Impatient(threading.Event):
    """No test waits for a pause between two looks."""

    def wait(self, timeout: float | None = None) -> bool:
        return False


# -- clusters -------------------------------------------------------------------------------------


def test_a_cluster_is_what_its_labels_say(cloud: Memory) -> None:
    cloud.cluster("lab", A, ago(days=2), workers=3)
    cloud.machine("i-other", {"Name": "a machine of somebody's, without our labels"})
    (lab,) = found.clusters(cloud)
    assert (lab.name, lab.id, lab.owner, lab.created) == ("lab", A, "anna_laptop", ago(days=2))
    assert (lab.provider, lab.region) == ("ec2", "us-east-1")
    assert lab.machines == "1 head (running), 3 workers (running)"
    assert len(lab.resources) == 4 + 3
    assert lab.whose == f"of anna_laptop, since {found.when(ago(days=2))}"


def test_two_clusters_of_one_name_are_two(cloud: Memory) -> None:
    cloud.cluster("lab", A, ago(days=2))
    cloud.cluster("lab", B, ago(days=1))
    assert [(one.name, one.id) for one in found.clusters(cloud)] == [("lab", A), ("lab", B)]


def test_ended_machines_count_for_nothing(cloud: Memory) -> None:
    cloud.cluster("lab", A, ago(days=2), head="ended", workers=0)
    (lab,) = found.clusters(cloud)
    assert (dict(lab.heads), lab.machines) == ({}, "no machines")


def test_states_are_told_apart(cloud: Memory) -> None:
    cloud.cluster("lab", A, ago(days=2), head="stopped")
    cloud.machine("i-late", labels("lab", A, "worker", ago(days=2)), "stopped")
    (lab,) = found.clusters(cloud)
    assert lab.machines == "1 head (stopped), 3 workers (2 running, 1 stopped)"


def test_machines_alone_are_one_call(cloud: Memory) -> None:
    cloud.cluster("lab", A, ago(days=2))
    assert found.clusters(cloud, whole=False)[0].resources == ()
    assert cloud.calls == ["instances"]


def test_without_the_label_the_oldest_thing_tells_since_when(cloud: Memory) -> None:
    marks = labels("lab", A, "head", NOW)
    del marks["clusterkit-created"]
    cloud.machine("i-1", marks, began=ago(hours=3))
    cloud.thing("key pair", "key", marks, ago(hours=4))
    assert found.clusters(cloud)[0].created == ago(hours=4)


@pytest.mark.parametrize("text", ["", "yesterday", "20261321T134118Z", "2026-11-21"])
def test_a_label_that_is_no_time(text: str) -> None:
    assert found.moment(text) is None


# -- orphans --------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["pending", "running", "stopping", "stopped"])
def test_what_has_a_live_head_is_no_orphan(cloud: Memory, head: str) -> None:
    cloud.cluster("lab", A, ago(days=2), head=head)
    assert orphans(cloud) == {}


@pytest.mark.parametrize("head", ["ending", "ended", ""])
def test_what_has_none_is_one(cloud: Memory, head: str) -> None:
    cloud.cluster("lab", A, ago(days=2), head=head, workers=1)
    assert set(orphans(cloud)) == {"i-aaagpu1", "key-pair-aaa", "security-group-aaa", "volume-aaa"}
    assert not any(orphans(cloud).values())


def test_what_this_computer_knows_is_none(cloud: Memory) -> None:
    cloud.cluster("lab", A, ago(days=2), head="")
    assert orphans(cloud, A) == {}
    assert orphans(cloud, B) != {}


def test_what_is_young_is_left_alone(cloud: Memory) -> None:
    cloud.cluster("lab", A, ago(minutes=30), head="", workers=1)
    assert set(orphans(cloud).values()) == {True}
    assert remove(cloud) == []
    assert len(cloud.things) == 3


def test_one_young_thing_of_an_old_cluster_keeps_all(cloud: Memory) -> None:
    """A start that was killed a day ago and is repeated now, on another computer."""
    cloud.cluster("lab", A, ago(days=1), head="", workers=0)
    assert set(orphans(cloud).values()) == {False}
    cloud.machine("i-new", labels("lab", A, "worker", ago(days=1)), "pending", began=NOW)
    assert set(orphans(cloud).values()) == {True}


def test_a_builder_is_an_orphan_after_two_hours_whosever_it_is(cloud: Memory) -> None:
    cloud.cluster("lab", A, ago(days=2))
    marks = labels("lab", A, "builder", ago(days=2), group="builder")
    cloud.machine("i-fresh", marks, began=ago(minutes=100))
    assert orphans(cloud, A) == {}
    cloud.machine("i-old", marks, began=ago(minutes=121))
    assert orphans(cloud, A) == {"i-old": False}
    assert remove(cloud, A) == ["i-old"]
    assert cloud.machines["i-fresh"].alive
    assert cloud.machines["i-aaahead1"].alive


def test_saved_images_are_never_orphans(cloud: Memory) -> None:
    marks = labels("lab", A, "image", ago(days=90))
    cloud.saved["ami-1"] = Image("ami-1", "mine", "x86_64", "ubuntu", 30, labels=marks)
    assert orphans(cloud) == {}


def test_removal_is_in_the_right_order_and_ends_with_a_proof(cloud: Memory) -> None:
    cloud.cluster("old", A, ago(days=2), head="", workers=2)
    cloud.cluster("lab", B, ago(days=2))
    cloud.stubborn["security-group-aaa"] = 2
    cloud.calls.clear()
    assert len(remove(cloud)) == 5
    done = [call for call in cloud.calls if call.startswith(("end", "delete"))]
    assert done == [
        "end i-aaagpu1 i-aaagpu2",
        "delete volume-aaa", "delete security-group-aaa", "delete key-pair-aaa",
        "delete security-group-aaa", "delete security-group-aaa",
    ]  # fmt: skip
    assert cloud.calls[-1] == "resources"
    assert found.clusters(cloud)[0].name == "lab"
    assert len(cloud.things) == 3


def test_what_got_a_head_meanwhile_stays(cloud: Memory) -> None:
    cloud.cluster("old", A, ago(days=2), head="")
    chosen = found.orphans(cloud, ())
    cloud.machine("i-head", labels("old", A, "head", ago(days=2)), began=NOW)
    assert found.remove(cloud, chosen, (), lambda _: None) == []
    assert len(cloud.things) == 3


def test_what_became_young_meanwhile_stays(cloud: Memory) -> None:
    cloud.cluster("old", A, ago(days=2), head="")
    chosen = found.orphans(cloud, ())
    cloud.machine("i-new", labels("old", A, "worker", ago(days=2)), "pending", began=NOW)
    assert found.remove(cloud, chosen, (), lambda _: None) == []
    assert all(one.alive for one in cloud.machines.values())


def test_what_cannot_be_removed_is_named_with_the_clouds_words(cloud: Memory) -> None:
    cloud.cluster("old", A, ago(days=2), head="", workers=0)
    cloud.stubborn["volume-aaa"] = 10**6
    over = threading.Event()
    over.set()
    chosen = found.orphans(cloud, ())
    with pytest.raises(
        ClusterError, match=r"volume volume-aaa .*: resource has a dependent object"
    ):
        found.remove(cloud, chosen, (), lambda _: None, over=over)
    assert set(cloud.things) == {"volume-aaa"}


def test_the_order_holds_for_kinds_in_any_number() -> None:
    kinds = ["key pairs", "security group", "placement groups", "something new",
             "network interface", "volumes", "elastic address", "spot request",
             "instances"]  # fmt: skip
    assert sorted(kinds, key=found.rank) == kinds[::-1]


# -- money ----------------------------------------------------------------------------------------


def test_what_images_cost(cloud: Memory) -> None:
    marks = labels("lab", A, "image", ago(days=3))
    cloud.saved["ami-1"] = Image("ami-1", "mine", "x86_64", "ubuntu", 30, labels=marks)
    assert found.kept(cloud, A) == ("ami-1 (mine): 30 GiB, 1.53 USD a month",)
    assert found.kept(cloud, B) == ()
    unknown = found.monthly(cloud.saved["ami-1"], Price("snapshot", None, why="no permission"))
    assert unknown == "30 GiB, at an unknown price (no permission)"


def test_the_size_of_a_disk_is_in_its_words() -> None:
    assert found.gib(Resource("volume", "v", {}, "30 GiB, in-use")) == 30
    assert found.gib(Resource("volume", "v", {}, "")) == 0
