"""What settings wish for, and the ways to get it, in order; numbers as labels hold them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_cloud import ZONES, World

from clusterkit.cluster.cloud import ranges
from clusterkit.cluster.cloud.api import Candidate
from clusterkit.cluster.cloud.wishes import (
    BUILDER,
    HEAD,
    Wish,
    candidates,
    machine_name,
    nearness,
    problems,
    wishes,
)
from clusterkit.cluster.spec import Ec2Spec

TYPES = World().types
GPU_THEN_SMALL = Wish("w", ("worker",), (1, 2), 2, ("gpu", "small"), (), ("spot", "on-demand"))


def test_wishes_are_the_heads_then_the_groups() -> None:
    spec = Ec2Spec.model_validate(
        {
            "provider": "ec2",
            "head": {"types": "t3.small", "worker": True, "disk": "50G"},
            "workers": {
                "gpu": {
                    "count": 3, "types": ["g5.xlarge", "g4dn.xlarge"], "zones": ["us-east-1b"],
                    "market": "spot-then-on-demand", "min": 2, "placement": True,
                },
                "none": {"count": 0, "types": "t3.small"},
            },
        }
    )  # fmt: skip
    head, gpu, none = wishes(spec)
    assert head == Wish(HEAD, ("head", "worker"), (1,), 1, ("t3.small",), (), ("on-demand",), 50)
    assert gpu.numbers == (1, 2, 3)
    assert gpu.least == 2
    assert gpu.markets == ("spot", "on-demand")
    assert gpu.zones == ("us-east-1b",)
    assert gpu.placement
    assert (none.numbers, none.least) == ((), 0)


def test_ways_are_tried_by_market_then_type_then_price_or_zone() -> None:
    spot = {("gpu", "east-b"): 0.1, ("gpu", "east-a"): 0.2, ("small", "east-c"): 0.01}
    told = [str(one) for one in candidates(GPU_THEN_SMALL, TYPES, ZONES, spot)]
    assert told == [
        "gpu spot in east-b", "gpu spot in east-a",
        "small spot in east-c", "small spot in east-a", "small spot in east-b",
        "gpu on-demand in east-a", "gpu on-demand in east-b",
        "small on-demand in east-a", "small on-demand in east-b", "small on-demand in east-c",
    ]  # fmt: skip


def test_zones_that_were_named_are_tried_in_their_order_whatever_they_cost() -> None:
    wish = Wish("w", ("worker",), (1,), 1, ("gpu",), ("east-c", "east-b", "east-a"), ("spot",))
    found = candidates(wish, TYPES, ZONES, {("gpu", "east-a"): 0.01, ("gpu", "east-b"): 0.2})
    assert found == (Candidate("gpu", "east-b", "spot"), Candidate("gpu", "east-a", "spot"))


def test_machines_that_cost_the_same_everywhere_are_put_near() -> None:
    wish = Wish("w", ("worker",), (1,), 1, ("small",), (), ("spot", "on-demand"))
    found = candidates(wish, TYPES, ZONES, {("small", "east-c"): 0.01}, ("east-b", "west-a"))
    assert [one.zone for one in found if one.market == "spot"] == ["east-c", "east-a", "east-b"]
    assert [one.zone for one in found if one.market == "on-demand"] == [
        "east-b", "east-a", "east-c"]  # fmt: skip
    named = replace(wish, zones=("east-a", "east-b"))
    assert [one.zone for one in candidates(named, TYPES, ZONES, {}, ("east-b",))][:2] == [
        "east-a", "east-b"]  # fmt: skip


def test_near_is_where_machines_are_then_where_spot_is_cheap_then_where_some_are_to_be() -> None:
    head = Wish(HEAD, ("head",), (1,), 1, ("small",), (), ("on-demand",))
    none = Wish("n", ("worker",), (), 0, ("small",), ("east-c",), ("spot",))
    spot = Wish("s", ("worker",), (1,), 1, ("gpu", "small"), (), ("spot", "on-demand"))
    named = Wish("z", ("worker",), (1,), 1, ("small",), ("east-c", "west-a"), ("on-demand",))
    prices = {("gpu", "east-b"): 0.1, ("gpu", "east-a"): 0.2, ("small", "east-c"): 0.01}

    def near(*wished: Wish, there: tuple[str, ...] = ()) -> tuple[str, ...]:
        return nearness(wished, TYPES, ZONES, prices, there)

    assert near(head) == ()
    assert near(head, none) == ()
    assert near(head, none, spot) == ("east-b", "east-a")
    assert near(head, named, spot) == ("east-b", "east-a", "east-c")
    assert near(head, named) == ("east-c",)
    assert near(head, spot, there=("east-c", "west-a")) == ("east-c", "east-b", "east-a")
    # Where prices are the same in all zones, the settings of others tell.
    for same in ({}, {("gpu", zone): 0.1 for zone in ZONES}):
        assert nearness((named, spot), TYPES, ZONES, same, ()) == ("east-c", "east-a", "east-b")


def test_only_zones_that_can_be_used_are_tried() -> None:
    found = candidates(GPU_THEN_SMALL, TYPES, ("east-c",), {})
    assert {one.zone for one in found} == {"east-c"}
    assert {one.type for one in found} == {"small"}


def test_problems_name_the_setting_and_what_is_there() -> None:
    wish = Wish("w", ("worker",), (1,), 1, ("gpu",), (), ("spot",), gpus=4)
    (nowhere, poor) = problems(wish, TYPES, ("east-c",), "east")
    assert "workers.w: no zone of east that can be used (east-c) has gpu" in nowhere
    assert "gpu is offered in east-a, east-b" in nowhere
    assert poor == "workers.w.gpus: 4 were asked for, but gpu has 1"
    assert problems(GPU_THEN_SMALL, TYPES, ZONES, "east") == []


@pytest.mark.parametrize(
    ("group", "expected"),
    [(HEAD, "lab-head"), (BUILDER, "lab-builder"), ("gpu", "lab-gpu-7"), ("a-b", "lab-a-b-7")],
)
def test_names(group: str, expected: str) -> None:
    assert machine_name("lab", group, 7) == expected


@pytest.mark.parametrize(
    ("numbers", "said"),
    [((), ""), ((1,), "1"), ((1, 2, 3, 7), "1-3_7"), ((3, 2, 1), "3_2_1"), ((9, 10, 4), "9-10_4")],
)
def test_numbers_as_a_label_holds_them(numbers: tuple[int, ...], said: str) -> None:
    assert ranges.text(numbers) == said
    assert ranges.parse(said) == numbers


@pytest.mark.parametrize("said", ["x", "1-", "3-1", "1,2", "1__2", "1-999999999", "-1"])
def test_numbers_that_somebody_else_wrote_are_none(said: str) -> None:
    assert ranges.parse(said) == ()
