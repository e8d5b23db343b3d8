"""Getting machines: the order of attempts, all or nothing, and requests whose answer was lost."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_cloud import ZONES, Killed, World
from test_cloud_provider import _cheap_keys  # noqa: F401 - a fixture

from clusterkit.cluster import access
from clusterkit.cluster.cloud import api, ranges
from clusterkit.cluster.cloud.api import Instance, Refused
from clusterkit.cluster.cloud.intents import Intents
from clusterkit.cluster.cloud.launching import Launcher, Order
from clusterkit.cluster.cloud.wishes import HEAD, Wish, candidates
from clusterkit.errors import ClusterError

ANYWHERE = ("small",)


class Bench:
    """A launcher with nothing around it."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        self.identity = access.identity(folder, "lab", make=True)
        self.intents = Intents(folder, world.clock)
        self.said: list[str] = []
        self.site = world.prepare(self.identity.labels("cluster"), "key", (), False)

    def launcher(self) -> Launcher:
        def wait(ids: Sequence[str], over: object) -> list[Instance]:
            def now() -> list[Instance]:
                return [one for one in self.world.instances(self.identity.id) if one.id in ids]

            self.world.clock.until(
                lambda: {one.id for one in now() if one.state != "pending"} == set(ids), 600
            )
            return now()

        return Launcher(
            self.world, self.identity, self.intents, wait, self.said.append, self.world.clock
        )

    def order(
        self, group: str = "cpu", count: int = 2, least: int | None = None, *,
        types: tuple[str, ...] = ANYWHERE, zones: tuple[str, ...] = (), there: int = 0,
        missing: Sequence[int] | None = None, markets: tuple[api.Market, ...] = ("on-demand",),
        placement: bool = False, disk: int | None = None,
    ) -> Order:  # fmt: skip
        numbers = tuple(range(1, count + 1))
        wish = Wish(
            group, ("worker",), numbers, count if least is None else least, types, zones, markets,
            disk, placement,
        )  # fmt: skip
        image = self.world.image("ubuntu-24.04", "x86_64")
        ways = candidates(wish, self.world.types, self.world.usable, {})
        gpus = {name: self.world.types[name].gpus for name in types}
        left = numbers if missing is None else tuple(missing)
        return Order(wish, left, there, ways, dict.fromkeys(types, image), gpus)

    def fill(self, *orders: Order) -> list[Instance]:
        return self.launcher().fill(orders, self.site)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "lab", World())


def out(world: World, *zones: str, of: str = "small", market: str = "on-demand") -> None:
    for zone in zones:
        world.stock[of, zone, market] = 0


def test_the_first_that_can_be_had_is_taken_and_refusals_are_told_in_order(bench: Bench) -> None:
    out(bench.world, "east-a", "east-b", of="gpu", market="spot")
    out(bench.world, "east-a", of="gpu")
    order = bench.order(types=("gpu",), markets=("spot", "on-demand"))
    made = bench.fill(order)
    assert {(one.type, one.zone, one.market) for one in made} == {("gpu", "east-b", "on-demand")}
    assert bench.said == [
        "cpu: gpu spot in east-a: no gpu in east-a",
        "cpu: gpu spot in east-b: no gpu in east-b",
        "cpu: gpu on-demand in east-a: no gpu in east-a",
        "cpu: 2 x gpu on-demand in east-b",
    ]


def test_a_request_holds_all_of_a_group_and_its_labels(bench: Bench) -> None:
    bench.fill(bench.order(count=5, missing=(1, 3, 4), there=2, types=("gpu",), disk=50))
    (launch,) = bench.world.launches
    assert (launch.numbers, launch.least, launch.disk) == ((1, 3, 4), 3, 50)
    assert launch.labels[api.NUMBERS] == "1_3-4"
    assert launch.labels[api.GROUP] == "cpu"
    assert launch.labels[api.LAUNCH] == launch.token
    assert launch.labels[api.GPUS] == "1"
    assert launch.labels[api.LOGIN] == "ubuntu"
    assert launch.labels["clusterkit-id"] == bench.identity.id
    assert launch.labels["clusterkit-created"]
    assert bench.identity.believed("lab-cpu-3") == bench.identity.believed("lab-cpu-1")
    assert len(bench.identity.believed("lab-cpu-3")) == 1


def test_only_the_key_of_the_launch_that_was_taken_is_believed(bench: Bench) -> None:
    out(bench.world, "east-a")
    bench.identity.believe("lab-cpu-1", {"ssh-ed25519 OLD"})
    bench.fill(bench.order())
    (key,) = bench.identity.believed("lab-cpu-1")
    (launch,) = bench.world.launches
    assert key in launch.user_data
    assert list((bench.folder / "hosts").iterdir()) == []


def test_all_or_nothing_ends_the_other_groups_too(bench: Bench) -> None:
    out(bench.world, *ZONES, of="big")
    with pytest.raises(ClusterError) as caught:
        bench.fill(bench.order(HEAD, 1), bench.order("cpu", types=("big",)), bench.order("x", 4))
    told = str(caught.value).splitlines()
    assert told[1] == "  cpu: 2 of 2 needed, 0 to be had; asked for in this order:"
    assert [line.strip() for line in told[2:]] == [
        "big on-demand in east-a: no big in east-a", "try later",
        "big on-demand in east-b: no big in east-b", "big on-demand in east-c: no big in east-c",
    ]  # fmt: skip
    assert bench.world.live() == []
    assert bench.intents.all() == []


def test_with_min_several_ways_are_summed_up(bench: Bench) -> None:
    bench.world.stock |= {
        ("small", "east-a", "on-demand"): 2, ("small", "east-b", "on-demand"): 0,
        ("small", "east-c", "on-demand"): 1,
    }  # fmt: skip
    made = bench.fill(bench.order(count=5, least=3))
    assert sorted(one.zone for one in made) == ["east-a", "east-a", "east-c"]
    # The second request asks for what the first did not give.
    assert [launch.numbers for launch in bench.world.launches] == [(1, 2, 3, 4, 5), (3, 4, 5)]
    assert {launch.least for launch in bench.world.launches} == {1}


def test_with_min_too_few_are_nothing(bench: Bench) -> None:
    bench.world.stock |= {("small", zone, "on-demand"): 1 for zone in ZONES}
    with pytest.raises(ClusterError, match="cpu: 4 of 5 needed, 3 to be had"):
        bench.fill(bench.order(count=5, least=4))
    assert bench.world.live() == []


def test_those_that_are_there_count(bench: Bench) -> None:
    out(bench.world, *ZONES)
    order = bench.order(count=5, least=3, there=3, missing=(4, 5))
    assert bench.fill(order) == []
    assert bench.intents.all() == []


def test_machines_that_belong_together_are_of_one_zone_that_has_enough(bench: Bench) -> None:
    bench.world.stock |= {("small", "east-a", "on-demand"): 1, ("small", "east-b", "on-demand"): 3}
    made = bench.fill(bench.order(count=4, least=3, placement=True))
    assert [one.zone for one in made] == ["east-b"] * 3
    assert all(launch.placement for launch in bench.world.launches)


def test_machines_taken_back_right_after_the_launch_are_no_machines(bench: Bench) -> None:
    bench.world.taken["small", "east-a", "on-demand"] = 1
    made = bench.fill(bench.order())
    assert {one.zone for one in made} == {"east-b"}
    assert {one.id for one in bench.world.live()} == {one.id for one in made}
    assert "cpu: small on-demand in east-a: no room after all" in bench.said


def test_with_min_what_was_not_taken_back_stays(bench: Bench) -> None:
    bench.world.taken["small", "east-a", "on-demand"] = 1
    made = bench.fill(bench.order(count=3, least=2))
    assert len(made) == 3
    numbers = {launch.numbers for launch in bench.world.launches}
    assert numbers == {(1, 2, 3), (1,)}  # the first of the first launch was the one that went
    assert {one.id for one in bench.world.live()} == {one.id for one in made}


def test_machines_that_are_shown_late_are_not_taken_for_dead(bench: Bench) -> None:
    bench.world.lag = 1000
    made = bench.fill(bench.order())
    assert len(made) == 2
    assert len(bench.world.machines) == 2


def test_scattered_numbers_are_asked_for_in_labels_that_fit(bench: Bench) -> None:
    odd = range(1, 100, 2)
    made = bench.fill(bench.order(count=100, there=50, missing=odd))
    assert len(made) == 50
    said = [launch.labels[api.NUMBERS] for launch in bench.world.launches]
    assert len(said) > 1
    assert max(map(len, said)) <= 63
    assert [number for one in said for number in ranges.parse(one)] == list(odd)


def test_an_error_in_one_group_ends_what_the_others_got(bench: Bench) -> None:
    bench.world.lag = 1000
    bench.world.trouble["launch"] = [ClusterError("expired")]
    with pytest.raises(ClusterError, match="expired"):
        bench.fill(bench.order("a"), bench.order("b"))
    (intent,) = bench.intents.all()  # what became of it is not known
    assert intent.open
    assert bench.world.live() == []


def test_machines_that_could_not_be_waited_for_are_ended(bench: Bench) -> None:
    bench.world.trouble["instances"] = [ClusterError("expired")]
    with pytest.raises(ClusterError, match="expired"):
        bench.fill(bench.order())
    assert bench.world.live() == []
    assert bench.intents.all() == []


def test_machines_that_cannot_be_ended_are_told_of_with_the_refusals(bench: Bench) -> None:
    out(bench.world, *ZONES, of="big")
    bench.world.trouble["end"] = [ClusterError("expired")]
    with pytest.raises(ClusterError) as caught:
        bench.fill(bench.order("a"), bench.order("b", types=("big",)))
    assert "no big in east-a" in str(caught.value)
    assert "could not be ended: expired" in str(caught.value)
    assert "Repeat the same command: it begins with them" in str(caught.value)
    (intent,) = bench.intents.all()
    assert intent.ids is not None
    assert {one.id for one in bench.world.live()} == set(intent.ids)


def test_what_no_candidate_would_help_against_ends_it_at_once(bench: Bench) -> None:
    bench.world.trouble["launch"] = [Refused("never", "you may not launch")]
    with pytest.raises(ClusterError, match=r"^you may not launch$"):
        bench.fill(bench.order())
    assert bench.world.count("launch") == 1
    assert bench.intents.all() == []  # it was an answer: nothing is looked for
    assert bench.world.live() == []


# -- requests on disk


def killed(bench: Bench, when: str, order: Order | None = None) -> None:
    bench.world.crash(1, when)
    with pytest.raises(Killed):
        bench.fill(order or bench.order())
    assert bench.world.revive()


def test_a_request_is_on_disk_for_its_owner_alone_before_it_is_sent(bench: Bench) -> None:
    killed(bench, "before")
    (file,) = (bench.folder / "launches").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (intent,) = bench.intents.all()
    assert intent.open
    assert file.name == f"{intent.launch.token}.json"
    assert bench.world.live() == []


@pytest.mark.parametrize("lag", [0, 20])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer_is_heard_without_a_second_machine(
    bench: Bench, when: str, lag: float
) -> None:
    bench.world.lag = lag
    killed(bench, when)
    sent = bench.world.count("launch")
    bench.launcher().settle()
    shown = when == "after" and not lag
    assert bench.world.count("launch") == sent + (not shown)  # sent again only where it has to be
    (intent,) = bench.intents.all()
    assert intent.ids == tuple(one.id for one in bench.world.live())
    assert len(bench.world.machines) == 2
    bench.launcher().settle()
    assert len(bench.world.machines) == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_old_request_is_looked_up_and_not_sent_again(bench: Bench, when: str) -> None:
    killed(bench, when)
    bench.world.clock.passed += timedelta(days=2).total_seconds()
    calls = bench.world.count("launch")
    bench.launcher().settle()
    assert bench.world.count("launch") == calls
    assert len(bench.intents.all()) == (when == "after")


@pytest.mark.parametrize(
    "error", [ClusterError("no answer"), Refused("never", "no permission any more")]
)
def test_a_request_that_cannot_be_sent_again_is_looked_for_a_while(
    bench: Bench, error: ClusterError
) -> None:
    bench.world.lag = 20
    killed(bench, "after")
    bench.world.trouble["launch"] = [error]
    bench.launcher().settle()
    (intent,) = bench.intents.all()
    assert intent.ids is not None
    assert len(intent.ids) == 2


def test_a_request_that_was_never_taken_and_never_will_be_is_forgotten(bench: Bench) -> None:
    bench.world.trouble["launch"] = [ClusterError("no permission")] * 2
    with pytest.raises(ClusterError):
        bench.fill(bench.order())
    bench.launcher().settle()
    assert bench.intents.all() == []
    assert bench.world.clock.passed < 60
    assert any("no permission" in line for line in bench.said)


def test_a_request_that_is_refused_the_second_time_made_nothing(bench: Bench) -> None:
    killed(bench, "before")
    out(bench.world, *ZONES)
    bench.launcher().settle()
    assert bench.intents.all() == []


def test_a_damaged_request_is_not_passed_over(bench: Bench) -> None:
    killed(bench, "before")
    (file,) = (bench.folder / "launches").iterdir()
    file.write_text('{"launch": {}}')
    with pytest.raises(ClusterError, match="cannot be understood"):
        bench.launcher().settle()


def test_a_request_comes_back_from_disk_as_it_was(bench: Bench) -> None:
    bench.fill(bench.order(count=3, types=("gpu",), placement=True))
    bench.intents.forget()
    (launch,) = bench.world.launches
    awkward = replace(launch, user_data="#cloud-config\n\t\"ä'\\u0000\n", token="f" * 32)
    bench.intents.open(awkward)
    (intent,) = bench.intents.all()
    assert intent.launch == awkward
    assert bench.intents.repeatable(intent)
    bench.intents.close(awkward, [])
    assert bench.intents.all()[0].ids == ()
    bench.intents.forget()
    assert not (bench.folder / "launches").exists()


def test_groups_are_launched_at_the_same_time_without_treading_on_each_other(
    bench: Bench,
) -> None:
    orders: list[Any] = [bench.order(f"g{number}", 3) for number in range(12)]
    out(bench.world, "east-a", "east-b")
    assert len(bench.fill(*orders)) == 36
    assert len(bench.world.live()) == 36
    assert [len(intent.ids or ()) for intent in bench.intents.all()] == [3] * 12
