"""A cluster's life on any cloud: plan, create, pause, destroy, killed at every point in between."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fake_cloud import Killed, World

from clusterkit.cluster import access, lifecycle
from clusterkit.cluster.access import Identity
from clusterkit.cluster.cloud import api, place
from clusterkit.cluster.cloud.api import Image, Refused
from clusterkit.cluster.cloud.door import OwnAddress
from clusterkit.cluster.cloud.intents import Intents
from clusterkit.cluster.cloud.provider import CloudProvider
from clusterkit.cluster.facts import Facts
from clusterkit.cluster.spec import Ec2Spec
from clusterkit.errors import ClusterError, UsageError

Said = list[str]
NAMES = ["lab-head", "lab-cpu-1", "lab-cpu-2"]


class Provider(CloudProvider):
    name = "ec2"


@pytest.fixture(autouse=True)
def _cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are not what is tested here; ssh-keygen takes its time, as the disk does."""

    def make(file: Path, comment: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_name(file.name + ".pub").write_text(f"ssh-ed25519 AAAA{secrets.token_hex(8)} x\n")
        file.write_text("private\n")

    monkeypatch.setattr(access, "_make_key", make)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def world() -> World:
    return World()


def settings(**more: Any) -> Ec2Spec:
    made = Ec2Spec.model_construct(
        **Ec2Spec.model_validate(
            {
                "provider": "ec2",
                "head": {"types": ["t3.small"]},
                "workers": {"cpu": {"count": 2, "types": ["t3.small"]}},
                "saved_image": "off",
            }
        ).__dict__
    )
    tree: dict[str, Any] = {"head": {}, "workers": {"cpu": {}}} | more
    head = made.head.model_copy(update={"types": ("small",), **tree.pop("head")})
    first = made.workers["cpu"].model_copy(update={"types": ("small",)})
    workers = {name: first.model_copy(update=one) for name, one in tree.pop("workers").items()}
    return made.model_copy(update={"head": head, "workers": workers, **tree})


class Computer:
    """One computer's folder of the cluster "lab"; each command is a new provider."""

    def __init__(self, root: Path, world: World, spec: Ec2Spec | None = None) -> None:
        self.folder = root / "clusters" / "lab"
        self.world, self.spec = world, spec or settings()
        self.said: Said = []
        self.own = "192.0.2.1/32"

    def identity(self) -> Identity:
        return access.identity(self.folder, "lab", make=True)

    def provider(self) -> Provider:
        return Provider(
            self.spec, self.identity(), self.folder, cloud=self.world, clock=self.world.clock,
            own=lambda: OwnAddress(self.own, "as a page said"),
        )  # fmt: skip

    def start(self, allow: tuple[str, ...] = ()) -> Provider:
        provider = self.provider()
        provider.allow(allow)
        provider.create(provider.plan(), self.said.append)
        return provider

    def started(self) -> Provider:
        """And set up: it is a cluster from now on."""
        provider = self.start()
        Facts(
            "lab", "ec2", "2026-11-21T10:00:00+00:00", "", "", "24.05", "python3", "/home", 1001,
            60, 4, 8000, (),
        ).write(self.folder)  # fmt: skip
        return provider

    def pause(self) -> None:
        self.provider().pause(self.said.append)

    def stop(self) -> tuple[str, ...]:
        provider = self.provider()
        ended = provider.destroy(self.said.append)
        assert provider.left() == ()
        return ended.machines


@pytest.fixture
def lab(tmp_path: Path, world: World) -> Computer:
    return Computer(tmp_path, world)


def names(provider: CloudProvider, state: str = "running") -> list[str]:
    return [one.name for one in provider.machines() if one.state == state]


def instance(lab: Computer, name: str) -> str:
    """The id of a live machine."""
    provider = lab.provider()
    return next(one.id for one in lab.world.live() if provider.fleet.machine_of(one) == name)


def whole(lab: Computer, expected: list[str] = NAMES) -> None:
    """Exactly these machines run, each once, and no request is open."""
    provider = lab.provider()
    assert names(provider) == expected
    assert len(lab.world.live()) == len(expected)
    assert Intents(lab.folder).all() == []
    assert provider.left() != ()


def nothing(lab: Computer) -> None:
    assert lab.world.live() == []
    assert lab.world.things == {}
    assert not (lab.folder / "launches").exists()


# -- the plan


def test_a_plan_tells_machines_prices_quotas_door_and_asks(lab: Computer) -> None:
    lab.world.limits = {"on-demand": 4}
    plan = lab.provider().plan()
    assert [one.name for one in plan.missing] == NAMES
    assert {one.state for one in plan.machines} == {"absent"}
    assert plan.table[1][:4] == ("head", "1", "small", "on-demand")
    assert plan.table[2][:4] == ("workers cpu", "2", "small", "on-demand")
    # 3 machines, their disks of 8 GiB, their addresses
    assert plan.price == pytest.approx(3 * 0.4 + 24 * 0.001 + 3 * 0.005)
    assert plan.table[-1][0] == "in all"
    assert plan.table[-1][-1] == "1.2390"
    notes = "\n".join(plan.notes)
    assert "192.0.2.1/32 alone (as a page said)" in notes
    assert "TOO SMALL" in notes
    assert "PAGE" in notes
    assert "a list, as of" in notes
    (ask,) = plan.asks
    assert ask.startswith("3 machines will be started in east. That costs 1.239 USD an hour, until")
    assert lab.world.changes == 0
    assert place.read(lab.folder, lab.identity().id) is None


def test_a_disk_that_is_too_small_for_the_image_is_told_of(lab: Computer) -> None:
    lab.spec = settings(head={"disk": 5}, workers={"cpu": {"disk": 8}})
    notes = [one for one in lab.provider().plan().notes if one.startswith("disk of")]
    assert notes == ["disk of head: 5 GiB are too few for the image, so it has 8 GiB"]


def test_machines_of_types_that_the_settings_no_longer_name(lab: Computer) -> None:
    """How others are had is not the same for workers and the head."""
    lab.start()
    workers = {"cpu": {"types": ("big",)}}
    lab.spec = settings(workers=workers)
    (note,) = lab.provider().plan().notes
    assert note.startswith("lab-cpu-1 is small, lab-cpu-2 is small, which the settings")
    assert "`clusterkit resize lab`" in note
    assert "head" not in note
    lab.spec = settings(head={"types": ("big",)})
    (note,) = lab.provider().plan().notes
    assert note.endswith("`clusterkit stop lab`, then `start`, makes another head")
    assert "resize" not in note


def test_an_unknown_price_is_said_to_be(lab: Computer) -> None:
    lab.world.amounts["small", "", "on-demand"] = None
    plan = lab.provider().plan()
    assert plan.price is None
    assert plan.table[1][-1] == "unknown"
    assert "not known: small on-demand" in plan.asks[0]
    assert "(nobody told)" in "\n".join(plan.notes)


def test_plans_of_one_command_ask_for_what_does_not_change_once(lab: Computer) -> None:
    provider = lab.provider()
    for _ in range(3):
        provider.plan()
    for call in ("machine_types", "zones", "image", "prices", "quotas"):
        assert lab.world.count(call) == 1, call
    assert lab.world.count("instances") == 3 + 1  # and one for the name


def test_calls_do_not_grow_with_machines(tmp_path: Path) -> None:
    counts = []
    for count in (2, 32):
        world = World()
        lab = Computer(tmp_path / str(count), world, settings(workers={"cpu": {"count": count}}))
        lab.start()
        lab.stop()
        counts.append(Counter(call for call in world.calls if call != "instances"))
        assert world.count("instances") < 20  # looks, which depend on how long it takes
    assert counts[0] == counts[1]
    assert counts[0]["launch"] == 2
    assert counts[0]["end"] == 1


def test_what_can_never_be_is_refused_at_once_with_all_problems(
    tmp_path: Path, world: World
) -> None:
    spec = settings(
        head={"zones": ("west-a",)},
        workers={"cpu": {"gpus": 2, "types": ("gpu",)}, "mix": {"types": ("small", "arm")}},
    )
    with pytest.raises(UsageError) as caught:
        Computer(tmp_path, world, spec).provider().plan()
    told = str(caught.value)
    assert "head.zones: west-a: not in east" in told
    assert "workers.cpu.gpus: 2 were asked for, but gpu has 1" in told
    assert "different processors" in told


def test_types_that_are_not_there_hide_no_other_problem(tmp_path: Path, world: World) -> None:
    spec = settings(
        image="ubuntu-22.04",
        head={"types": ("smal",)},
        workers={"cpu": {"types": ("gpu", "gpuu"), "zones": ("west-a",)}},
    )
    world.wrong = ["network: there is none"]
    world.no_images = {"ubuntu-22.04"}
    with pytest.raises(UsageError) as caught:
        Computer(tmp_path, world, spec).provider().plan()
    _, *told = str(caught.value).splitlines()
    assert [line.split(":")[0].strip() for line in told] == [
        "types", "workers.cpu.zones", "image", "network"]  # fmt: skip
    assert world.launches == []


def test_a_name_that_another_cluster_has_is_refused_before_any_question(
    lab: Computer, tmp_path: Path
) -> None:
    lab.start()
    other = Computer(tmp_path / "other", lab.world)
    with pytest.raises(ClusterError, match=f"taken in east by .*{lab.identity().id}"):
        other.provider().plan()
    assert len(lab.world.live()) == 3


def test_a_name_that_is_taken_after_the_plan_is_refused_and_the_taker_is_left_alone(
    lab: Computer, tmp_path: Path
) -> None:
    other = Computer(tmp_path / "other", lab.world)
    late = other.provider()
    plan = late.plan()
    lab.start()
    with pytest.raises(ClusterError, match="taken by the cluster"):
        late.create(plan, other.said.append)
    whole(lab)
    other.stop()
    whole(lab)


def test_a_saved_image_of_the_same_roles_is_taken(
    lab: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterkit.cluster.cloud import imaging

    monkeypatch.setattr(imaging, "digest", lambda *_: "d1")
    lab.spec = lab.spec.model_copy(update={"saved_image": "auto"})
    mine = Image("ami-own", "x", "x86_64", "", 12, datetime(2026, 11, 2, tzinfo=UTC), "d1")
    lab.world.saved = [
        mine, replace(mine, id="old", made=datetime(2026, 11, 1, tzinfo=UTC)),
        replace(mine, id="pending", state="pending", made=datetime(2026, 11, 3, tzinfo=UTC)),
        replace(mine, id="other", digest="d2"), replace(mine, id="arm", arch="arm64"),
    ]  # fmt: skip
    provider = lab.start()
    assert {launch.image for launch in lab.world.launches} == {"ami-own"}
    assert {launch.disk for launch in lab.world.launches} == {12}
    assert {one.login for one in provider.machines()} == {"ubuntu"}


def test_where_machines_have_gpus_a_saved_image_with_the_driver_is_preferred(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterkit.cluster.cloud import imaging

    monkeypatch.setattr(imaging, "digest", lambda *_: "d1")
    older, newer = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC)
    driven = Image("driven", "x", "x86_64", "", 12, older, "d1", {api.GPUS: "1"})
    plain = replace(driven, id="plain", made=newer, labels={api.GPUS: "0"})

    def images(name: str, types: str, *saved: Image) -> set[str]:
        world.saved, world.launches = list(saved), []
        spec = settings(saved_image="auto", workers={"cpu": {"types": (types,)}})
        lab = Computer(tmp_path / name, world, spec)
        lab.start()
        lab.stop()
        return {launch.image for launch in world.launches}

    assert images("a", "gpu", driven, plain) == {"driven"}
    assert images("b", "small", driven, plain) == {"plain"}
    assert images("c", "small", driven) == {"driven"}
    assert images("d", "gpu", plain) == {"plain"}  # the roles install the driver there


def test_all_are_put_into_the_zone_where_spot_is_cheapest(tmp_path: Path, world: World) -> None:
    world.amounts = {("small", "east-c", "spot"): 0.01, ("small", "east-b", "spot"): 0.02}
    spec = settings(workers={"cpu": {}, "spot": {"market": "spot"}})
    lab = Computer(tmp_path, world, spec)
    zones = {row[0]: row[4] for row in lab.provider().plan().table[1:4]}
    assert zones == dict.fromkeys(("head", "workers cpu", "workers spot"), "east-c, east-b, east-a")
    assert "between zones" not in "\n".join(lab.provider().plan().notes)
    lab.started()
    assert {one.zone for one in world.live()} == {"east-c"}

    # What is added goes where machines are, whatever spot costs elsewhere by now.
    shutil.rmtree(tmp_path / "prices")
    world.amounts = {("small", "east-a", "spot"): 0.001}
    lab.spec = settings(workers={"cpu": {"count": 3}, "spot": {"market": "spot", "count": 3}})
    plan = lab.provider().plan()
    zones = {row[0]: row[4] for row in plan.table[1:3]}
    assert zones["workers cpu"] == "east-c, east-a, east-b"
    assert zones["workers spot"].startswith("east-a")
    assert "the head is in east-c, workers spot in east-a: between zones" in "\n".join(plan.notes)


# -- create


def test_create_makes_all_and_does_nothing_the_second_time(lab: Computer) -> None:
    provider = lab.start()
    whole(lab)
    (head, first, second) = provider.machines()
    assert (head.roles, first.roles, first.group) == (("head",), ("worker",), "cpu")
    assert head.reach is not None
    assert head.reach.host.startswith("198.51.100.")
    assert head.address.startswith("10.0.0.")
    assert first.address != second.address
    known = place.read(lab.folder, lab.identity().id)
    assert known == place.Place(lab.identity().id, "east", "123456789012")
    before = lab.world.changes
    plan = lab.provider().plan()
    assert (plan.missing, plan.asks, plan.table, plan.price) == ((), (), (), None)
    lab.start()
    assert lab.world.changes == before
    assert list((lab.folder / "hosts").iterdir()) == []  # first keys are kept no longer than needed


def test_a_private_cluster_is_reached_from_inside(tmp_path: Path, world: World) -> None:
    lab = Computer(tmp_path, world, settings(connect="private"))
    head = lab.start().machines()[0]
    assert head.reach is None
    assert head.address.startswith("10.0.0.")
    assert "public addresses" not in {row[0] for row in lab.provider().plan().table}


def test_names_follow_the_index_within_a_launch(lab: Computer) -> None:
    lab.start()
    provider = lab.provider()
    assert provider.symptoms() == ""
    lab.world.end_one(instance(lab, "lab-cpu-1"), "Server.SpotInstanceTermination")
    assert {one.name: one.why for one in lab.provider().machines()}["lab-cpu-1"] == (
        "Server.SpotInstanceTermination"
    )
    assert "lab-cpu-1: Server.SpotInstanceTermination" in lab.provider().symptoms()
    lab.start()
    whole(lab)
    assert lab.world.launches[-1].numbers == (1,)
    assert lab.world.launches[-1].labels[api.NUMBERS] == "1"
    assert lab.provider().symptoms() == ""


def test_of_two_machines_of_one_name_the_older_stays(lab: Computer) -> None:
    lab.start()
    world = lab.world
    world.clock.passed += 10
    again = replace(world.launches[-1], token="elsewhere", labels=world.launches[-1].labels)
    twins = {one.id for one in world.launch(again)}
    plan = lab.provider().plan()
    assert all(one in "\n".join(plan.notes) for one in twins)
    assert len(plan.machines) == 3
    lab.start()
    whole(lab)
    assert not twins & {one.id for one in world.live()}


def test_a_machine_without_a_name_is_told_of_and_only_stop_ends_it(lab: Computer) -> None:
    lab.start()
    strange = lab.world.machines["i-0003"]
    marks = {key: value for key, value in strange.instance.labels.items() if key != api.GROUP}
    strange.instance = replace(strange.instance, labels=marks)
    assert "i-0003: which machines these are" in "\n".join(lab.provider().plan().notes)
    lab.start()
    assert {one.id for one in lab.world.live()} == {"i-0001", "i-0002", "i-0003", "i-0004"}
    lab.stop()
    nothing(lab)


def test_machines_that_come_up_are_waited_for(lab: Computer) -> None:
    lab.world.boot = 30
    lab.world.crash(4, "after")
    with pytest.raises(Killed):
        lab.start()
    assert lab.world.revive()
    assert "pending" in {one.state for one in lab.world.live()}
    lab.start()
    assert {one.state for one in lab.world.live()} == {"running"}
    whole(lab)


def test_what_is_shown_late_is_not_made_twice(lab: Computer) -> None:
    lab.world.lag = 20
    lab.start()
    whole(lab)
    assert len(lab.world.machines) == 3


def test_too_few_leave_nothing_of_what_never_was_a_cluster(lab: Computer) -> None:
    lab.spec = settings(workers={"cpu": {"market": "spot"}})
    lab.world.limits = {"spot": 2}
    with pytest.raises(ClusterError) as caught:
        lab.start()
    told = str(caught.value)
    assert "cpu: 2 of 2 needed, 0 to be had" in told
    assert "2 vCPUs are the limit" in told
    assert told.count("ask for more: PAGE") == 1
    nothing(lab)
    assert place.read(lab.folder, lab.identity().id) is None  # it may begin in another region


def test_too_few_for_a_cluster_that_is_there_leave_it_alone(lab: Computer) -> None:
    lab.started()
    lab.spec = settings(workers={"cpu": {}, "more": {"count": 3}, "some": {"count": 1}})
    lab.world.limits = {"on-demand": 6 + 4}
    with pytest.raises(ClusterError, match="more: 3 of 3 needed"):
        lab.start()
    lab.world.clock.passed += 10
    assert sorted(names(lab.provider())) == sorted(NAMES)
    assert len(lab.world.things) == 2


def test_too_few_for_a_paused_cluster_keep_its_disks(lab: Computer) -> None:
    # A pause forgets the facts: that they are missing does not mean that it never was a cluster.
    lab.spec = settings(workers={"cpu": {"market": "spot"}})
    lab.start()
    lab.pause()
    lab.world.limits = {"spot": 0}
    with pytest.raises(ClusterError, match="cpu: 2 of 2 needed"):
        lab.start()
    assert [one.name for one in lab.provider().machines() if one.state == "running"] == ["lab-head"]


def test_a_failed_attempt_after_a_killed_one_leaves_nothing(lab: Computer) -> None:
    lab.world.limits = {"on-demand": 2}  # enough for a head
    lab.spec = settings(workers={"cpu": {"types": ("big",)}})
    lab.world.crash(3, "after")
    with pytest.raises(Killed):
        lab.start()
    assert lab.world.revive()
    with pytest.raises(ClusterError, match="could not all be had"):
        lab.start()
    nothing(lab)


def test_a_rollback_that_fails_tells_both(lab: Computer) -> None:
    lab.world.limits = {"on-demand": 0}
    lab.world.trouble["resources"] = [ClusterError("the token has expired")]
    with pytest.raises(ClusterError) as caught:
        lab.start()
    assert "the limit" in str(caught.value)
    assert "the token has expired" in str(caught.value)
    assert "clusterkit stop lab" in str(caught.value)
    lab.stop()
    nothing(lab)


def test_a_launch_that_is_forbidden_is_told_at_once_and_leaves_nothing(lab: Computer) -> None:
    lab.world.trouble["launch"] = [Refused("never", "you may not launch")] * 2
    with pytest.raises(ClusterError, match="you may not launch"):
        lab.start()
    nothing(lab)
    assert lab.world.count("launched") == 0  # nobody looks for what cannot be there
    assert lab.world.clock.passed < 10


def test_the_cloud_knows_whom_to_tell_of_waiting(
    lab: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Callable[[str], None]] = []
    monkeypatch.setattr(lab.world, "tell", told.append)
    provider = lab.provider()
    said: Said = []
    provider.tell(said.append)
    assert told == []  # it is not connected to before that is needed
    plan = provider.plan()
    told[-1]("slowly")
    assert said == ["slowly"]
    provider.create(plan, lab.said.append)
    told[-1]("slower")
    assert said == ["slowly"]
    assert lab.said[-1] == "slower"


def test_who_is_let_in_from_now_on_is_in_the_plan(lab: Computer) -> None:
    def notes(*cidrs: str) -> str:
        provider = lab.provider()
        provider.allow(cidrs)
        return "\n".join(provider.plan().notes)

    assert "ssh is open for 192.0.2.1/32, 10.0.0.0/8 alone" in notes("10.0.0.0/8")
    lab.start(allow=("10.0.0.0/8",))
    assert "10.0.0.0" not in notes("10.0.0.0/8")
    assert "ssh will be open for 10.1.0.0/16 too" in notes("10.1.0.0/16")


def test_fewer_than_count_are_enough_down_to_min(lab: Computer) -> None:
    lab.spec = settings(workers={"cpu": {"count": 4, "min": 2, "zones": ("east-a",)}})
    lab.world.stock["small", "east-a", "on-demand"] = 3
    lab.spec = lab.spec.model_copy(
        update={"head": lab.spec.head.model_copy(update={"zones": ("east-b",)})}
    )
    provider = lab.started()
    assert len(lab.world.live()) == 4
    assert provider.lacking(["lab-cpu-4"]) == ()
    assert provider.lacking(["lab-head"]) == ()  # it is there: nothing is lacking
    victim = [one.id for one in lab.world.live() if one.zone == "east-a"][:2]
    for id_ in victim:
        lab.world.end_one(id_)
    assert set(provider.lacking(["lab-cpu-1", "lab-cpu-2", "lab-cpu-4"])) == {
        "lab-cpu-1", "lab-cpu-2", "lab-cpu-4",
    }  # fmt: skip


def test_a_lost_head_is_asked_about(lab: Computer) -> None:
    lab.started()
    lab.world.end_one(instance(lab, "lab-head"), "the host failed")
    plan = lab.provider().plan()
    assert "The head of 'lab' is gone (the host failed), and with it its disk" in plan.asks[0]
    assert "1 machine will be started" in plan.asks[1]
    assert "with what runs already" in plan.asks[1]
    assert plan.price == pytest.approx(3 * 0.4 + 24 * 0.001 + 3 * 0.005)


# -- killed anywhere


def killed_everywhere(
    tmp_path: Path, spec: Ec2Spec, before: Callable[[Computer], object],
    do: Callable[[Computer], object], after: Callable[[Computer], object],
    lags: Sequence[float] = (0,),
) -> int:  # fmt: skip
    """Kill `do` before and after each of its changes, then let `after` judge; how often it died."""
    deaths = 0
    for change in range(1, 50):
        died = False
        for when in ("before", "after"):
            for lag in lags:
                lab = Computer(tmp_path / f"{change}{when}{lag}", World(), spec)
                lab.world.lag = lag
                before(lab)
                lab.world.crash(change, when)
                with contextlib.suppress(Killed):
                    do(lab)
                if lab.world.revive():
                    died = True
                    deaths += 1
                    after(lab)
        if not died:
            return deaths
    raise AssertionError


MIXED = settings(workers={"cpu": {"market": "spot"}, "gpu": {"types": ("gpu",), "count": 1}})
ALL = [*NAMES, "lab-gpu-1"]


def test_a_start_that_was_killed_anywhere_goes_on(tmp_path: Path) -> None:
    def again(lab: Computer) -> None:
        lab.start()
        whole(lab, ALL)
        assert len(lab.world.machines) == 4  # nothing was made and ended again

    assert (
        killed_everywhere(tmp_path, MIXED, lambda _: None, Computer.start, again, (0, 5)) == 5 * 4
    )


def test_a_start_that_was_killed_anywhere_can_be_stopped(tmp_path: Path) -> None:
    def stop(lab: Computer) -> None:
        lab.stop()
        nothing(lab)

    assert killed_everywhere(tmp_path, MIXED, lambda _: None, Computer.start, stop, (0, 5)) == 5 * 4


def test_a_pause_that_was_killed_anywhere_goes_on(tmp_path: Path) -> None:
    def again(lab: Computer) -> None:
        lab.pause()
        assert names(lab.provider(), "stopped") == ["lab-head", "lab-gpu-1"]
        assert len(lab.world.live()) == 2
        lab.start()
        whole(lab, ALL)
        lab.stop()
        nothing(lab)

    assert killed_everywhere(tmp_path, MIXED, Computer.started, Computer.pause, again) == 2 * 2


def test_a_stop_that_was_killed_anywhere_goes_on(tmp_path: Path) -> None:
    def again(lab: Computer) -> None:
        lab.stop()
        nothing(lab)

    assert killed_everywhere(tmp_path, MIXED, Computer.started, Computer.stop, again) == 3 * 2


def test_a_resume_that_was_killed_anywhere_goes_on(tmp_path: Path) -> None:
    def paused(lab: Computer) -> None:
        lab.started()
        lab.pause()

    def again(lab: Computer) -> None:
        lab.start()
        whole(lab, ALL)

    assert killed_everywhere(tmp_path, MIXED, paused, Computer.start, again) == 2 * 2


def test_a_rollback_that_was_killed_anywhere_goes_on(tmp_path: Path) -> None:
    def poor(lab: Computer) -> None:
        lab.world.limits = {"on-demand": 2}

    def again(lab: Computer) -> None:
        with pytest.raises(ClusterError, match="could not all be had"):
            lab.start()
        nothing(lab)

    def start(lab: Computer) -> None:
        with pytest.raises(ClusterError, match="could not all be had"):
            lab.start()

    assert killed_everywhere(tmp_path, MIXED, poor, start, again) >= 6 * 2


# -- pause


def test_a_resume_says_what_it_costs_and_asks(lab: Computer) -> None:
    lab.start()
    lab.pause()
    assert {one.state for one in lab.provider().machines()} == {"stopped"}
    plan = lab.provider().plan()
    assert plan.missing == ()
    assert plan.asks[0].startswith("3 machines will be switched on again in east. That costs 1.239")
    assert plan.table[-3][:3] == ("disks", "3", "24 GiB in all")
    assert not any("not in the sum" in note for note in plan.notes)
    assert "switched on again: lab-cpu-1, lab-cpu-2, lab-head" in plan.notes
    lab.start()
    whole(lab)
    assert len(lab.world.machines) == 3


def test_a_disk_of_unknown_size_is_not_in_the_sum(lab: Computer) -> None:
    lab.start()
    lab.pause()
    first = lab.world.machines["i-0001"]
    first.instance = replace(first.instance, disk=0)
    plan = lab.provider().plan()
    assert "That costs 1.231" in plan.asks[0]  # two disks of 8 GiB
    assert "not in the sum: the disks of i-0001, whose size is not known" in plan.notes


def test_machines_carry_the_size_of_their_disks(lab: Computer) -> None:
    lab.spec = settings(workers={"cpu": {"disk": 30}})
    lab.start()
    sizes = {(one.labels[api.GROUP], one.labels[api.DISK], one.disk) for one in lab.world.live()}
    assert sizes == {("head", "8", 8), ("cpu", "30", 30)}


def test_what_is_switched_on_again_counts_against_quotas(lab: Computer) -> None:
    lab.start()
    lab.pause()
    lab.world.limits = {"on-demand": 5}
    (note,) = (note for note in lab.provider().plan().notes if note.startswith("quota"))
    assert "6 needed: TOO SMALL" in note
    lab.world.limits = {"on-demand": 10}
    lab.spec = settings(workers={"cpu": {"count": 3}})
    (note,) = (note for note in lab.provider().plan().notes if note.startswith("quota"))
    assert "8 needed" in note  # with the new one
    lab.spec = settings()
    lab.world.types.pop("small")  # the region lost it; what is there can be switched on
    (note,) = (note for note in lab.provider().plan().notes if note.startswith("quota"))
    assert note == "quota of small: not known (east has no small)"


def test_machines_that_run_need_no_quota(lab: Computer) -> None:
    lab.start()
    lab.world.end_one("i-0002")
    lab.world.limits = {"on-demand": 10}
    (note,) = (note for note in lab.provider().plan().notes if note.startswith("quota"))
    assert "2 needed" in note


def test_a_source_of_prices_is_named_once(lab: Computer, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = lab.world.disk_price
    monthly = "a list, a month of 730 h"
    monkeypatch.setattr(lab.world, "disk_price", lambda: replace(usual(), source=monthly))
    (note,) = (note for note in lab.provider().plan().notes if note.startswith("prices in"))
    assert note.startswith("prices in USD: a list (a month of 730 h), as of ")


def test_machines_that_are_still_going_off_are_waited_for(lab: Computer) -> None:
    lab.start()
    lab.world.halt = 40
    lab.world.stop(lab.world.live())
    lab.start()
    whole(lab)


def test_no_room_to_switch_on_keeps_the_disks_and_says_so(lab: Computer) -> None:
    lab.start()
    lab.pause()
    for zone in lab.world.usable:
        lab.world.stock["small", zone, "on-demand"] = 0
    with pytest.raises(ClusterError, match="cannot be switched on now: no small") as caught:
        lab.start()
    assert "disks are kept" in str(caught.value)
    assert len(names(lab.provider(), "stopped")) == 3


def test_a_pause_ends_spot_machines_and_says_so(lab: Computer) -> None:
    lab.spec = settings(workers={"cpu": {"market": "spot"}})
    lab.start()
    lab.pause()
    assert names(lab.provider(), "stopped") == ["lab-head"]
    assert any("spot machines cannot be switched off: lab-cpu-1, lab-cpu-2" in line
               for line in lab.said)  # fmt: skip


# -- the place, the door


def test_other_credentials_see_nothing_and_are_refused(lab: Computer) -> None:
    lab.start()
    lab.world.number = "999999999999"
    for do in (Computer.start, Computer.stop, Computer.pause):
        with pytest.raises(ClusterError, match="credentials are for 999999999999"):
            do(lab)


def test_another_region_is_refused_but_the_cluster_can_be_ended(lab: Computer) -> None:
    lab.start()
    lab.spec = settings(region="west")
    with pytest.raises(ClusterError, match="is in east, but the settings say west"):
        lab.start()
    assert names(lab.provider()) == NAMES
    lab.stop()
    nothing(lab)


def test_a_cluster_stays_in_its_region_whatever_the_default_becomes(
    lab: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterkit.cluster.cloud import known

    lab.start()
    asked: list[str | None] = []

    def connect(spec: Ec2Spec) -> World:
        asked.append(spec.region)
        return lab.world

    monkeypatch.setattr(known, "connect", connect)
    provider = Provider(lab.spec, lab.identity(), lab.folder, clock=lab.world.clock)
    assert names(provider) == NAMES
    assert asked == ["east"]


def test_the_door_follows_ones_own_address(lab: Computer) -> None:
    provider = lab.start()
    id_ = lab.identity().id
    assert lab.world.doors[id_] == ["192.0.2.1/32"]
    assert provider.open_door() == ""
    lab.own = "192.0.2.9/32"
    assert lab.provider().open_door() == (
        "your address has changed: ssh is open for 192.0.2.9/32 now, no longer for 192.0.2.1/32 "
        "(as a page said)"
    )
    assert lab.provider().open_door() == ""


def test_others_are_let_in_from_then_on(lab: Computer) -> None:
    lab.start(allow=("203.0.113.0/24",))
    id_ = lab.identity().id
    both = ["192.0.2.1/32", "203.0.113.0/24"]
    assert lab.world.doors[id_] == both
    more = lab.start(allow=("198.51.100.7/32",))
    assert more.open_door() == "the door was changed: ssh is open for 198.51.100.7/32 now"
    lab.own = "192.0.2.9/32"
    lab.provider().open_door()
    assert lab.world.doors[id_] == ["192.0.2.9/32", "203.0.113.0/24", "198.51.100.7/32"]


def test_who_is_asked_for_and_then_not_agreed_to_is_not_let_in(lab: Computer) -> None:
    lab.start()
    provider = lab.provider()
    provider.allow(["203.0.113.0/24"])
    provider.plan()  # and the user says no
    lab.provider().open_door()
    assert lab.world.doors[lab.identity().id] == ["192.0.2.1/32"]


def test_wrong_networks_are_all_named(lab: Computer) -> None:
    with pytest.raises(UsageError) as caught:
        lab.provider().allow(["nonsense", "10.0.0.0/99"])
    assert "nonsense" in str(caught.value)
    assert "10.0.0.0/99" in str(caught.value)


def test_an_unknown_own_address_stops_a_start_unless_others_may_come_in(lab: Computer) -> None:
    def lost() -> OwnAddress:
        raise ClusterError("nobody knows your address")

    provider = Provider(
        lab.spec, lab.identity(), lab.folder, cloud=lab.world, clock=lab.world.clock, own=lost
    )
    with pytest.raises(ClusterError, match="nobody knows"):
        provider.plan()
    assert lab.world.changes == 0
    provider.allow(["203.0.113.0/24"])
    provider.create(provider.plan(), lab.said.append)
    assert lab.world.doors[lab.identity().id] == ["203.0.113.0/24"]
    assert "nobody knows your address" in lab.said
    assert provider.open_door() == ""


# -- the end


def test_the_end_takes_what_is_in_use_for_a_while_and_the_claim_last(lab: Computer) -> None:
    lab.start()
    group = "security group clusterkit-lab"
    lab.world.used[group] = 4
    assert lab.stop() == tuple(sorted(NAMES))
    nothing(lab)
    assert lab.said.count(f"{lab.world.things.get(group, 'security group ' + group)} is in use "
                          "still: it has a dependent object") == 1  # fmt: skip
    assert lab.world.count("delete") == 4 + 2  # the key pair is not touched while the group stays


def test_what_stays_in_use_is_named_with_the_clouds_words(lab: Computer) -> None:
    lab.start()
    lab.world.used["security group clusterkit-lab"] = 10_000
    with pytest.raises(ClusterError, match=r"deleted yet:\n  security group .*dependent"):
        lab.stop()
    assert set(lab.world.things) == {
        "security group clusterkit-lab", "key pair clusterkit-lab"
    }  # fmt: skip


def test_what_is_shown_a_moment_after_its_deletion_is_no_rest(lab: Computer) -> None:
    lab.start()
    lab.world.echo = 10
    lab.stop()
    lab.world.echo = 1000
    lab.start()
    lab.provider().destroy(lab.said.append)
    assert len(lab.provider().left()) == 2


def test_machines_that_are_ending_already_are_waited_for(lab: Computer) -> None:
    lab.start()
    lab.world.dying = 60
    lab.world.end(lab.world.live())
    assert lab.stop() == tuple(sorted(NAMES))
    nothing(lab)


def test_single_machines_go_and_the_rest_stays(lab: Computer) -> None:
    provider = lab.start()
    assert provider.destroy(lab.said.append, only=["lab-cpu-2"]).machines == ("lab-cpu-2",)
    assert names(lab.provider()) == ["lab-head", "lab-cpu-1"]
    assert len(lab.world.things) == 2


def test_what_the_settings_ask_no_more_is_surplus(lab: Computer) -> None:
    lab.start()
    lab.spec = settings(workers={"cpu": {"count": 1}})
    assert [one.name for one in lab.provider().plan().surplus] == ["lab-cpu-2"]


# -- the builder


def test_the_builder_is_a_machine_of_its_own(lab: Computer) -> None:
    lab.spec = settings(workers={"cpu": {"market": "spot"}})
    provider = lab.started()
    machine = provider.builder.launch("x86_64", lab.said.append)
    assert (machine.name, machine.state, machine.group) == ("lab-builder", "running", "")
    assert machine.reach is not None
    one = provider.builder.find()
    assert one is not None
    assert one.market == "on-demand"
    assert one.labels["clusterkit-role"] == "builder"
    assert lab.provider().builder.launch("x86_64", lab.said.append).address == machine.address
    # It is none of the cluster's machines.
    assert names(lab.provider()) == NAMES
    plan = lab.provider().plan()
    assert (plan.missing, plan.surplus) == ((), ())
    lab.world.end_one(one.id, "it ended")
    assert provider.symptoms() == ""  # it is no machine of the cluster's
    provider.builder.launch("x86_64", lab.said.append)
    plan = lab.provider().plan()
    assert "lab-builder is there still" in "\n".join(plan.notes)
    lab.provider().builder.end()
    assert provider.builder.find() is None
    whole(lab)


def test_a_pause_ends_a_builder_that_was_left(lab: Computer) -> None:
    provider = lab.started()
    provider.builder.launch("x86_64", lab.said.append)
    lab.pause()
    assert len(lab.world.live()) == 3
    assert provider.builder.find() is None


def test_settings_that_changed_leave_machines_as_they_are_and_say_so(lab: Computer) -> None:
    lab.started()
    assert not any("do not name" in note for note in lab.provider().plan().notes)
    lab.spec = settings(head={"types": ("big",)})
    plan = lab.provider().plan()
    assert plan.missing == ()
    (note,) = (note for note in plan.notes if "do not name" in note)
    assert note.startswith("lab-head is ")


def test_the_door_is_told_to_who_cannot_get_in(lab: Computer) -> None:
    assert lab.provider().doorway() == ""  # nothing was found out yet
    assert "192.0.2.1/32 alone" in lab.started().doorway()


def test_a_door_that_cannot_be_looked_at_hinders_nobody(
    lab: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = lab.started()
    said: list[str] = []
    lifecycle.mend_door(provider, said.append)
    assert said == []  # it is as it should be

    def unknown() -> str:
        raise ClusterError("your address cannot be found out")

    monkeypatch.setattr(provider, "open_door", unknown)
    lifecycle.mend_door(provider, said.append)
    assert said == ["who may come in by ssh was left as it is: your address cannot be found out"]


def test_jobs_do_not_run_as_the_account_that_sets_machines_up(tmp_path: Path, world: World) -> None:
    """Told before money: the shared /home would hide that account's own, and its key."""
    lab = Computer(tmp_path, world, settings(user="ubuntu"))
    with pytest.raises(UsageError, match=r"user: .* the account ubuntu, .* another name"):
        lab.start()
    assert world.live() == []
    for more in ({"login": "admin"}, {"shared": "there"}):
        Computer(tmp_path, world, settings(user="ubuntu", **more)).provider().plan()
