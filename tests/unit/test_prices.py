"""Prices: which ones are asked for, which are kept, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clusterkit.cluster import prices
from clusterkit.cluster.prices import Price, Prices

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Seller:
    """Sells everything at `amount`; `why`: it does not answer."""

    region = "us-east-1"

    def __init__(self, clock: Clock) -> None:
        self.clock, self.amount, self.why = clock, 1.0, ""
        self.asked: list[tuple[set[str], set[str], set[str]]] = []
        self.things = 0

    def prices(
        self, types: Collection[str], zones: Collection[str], markets: Collection[str]
    ) -> list[Price]:
        self.asked.append((set(types), set(zones), set(markets)))
        places = [(m, zone) for m in markets for zone in (zones if m == "spot" else [""])]
        return [self._price(name, zone, market) for name in types for market, zone in places]

    def disk_price(self) -> Price:
        self.things += 1
        return self._price("gp3 disk, 1 GiB", "", "on-demand")

    image_price = address_price = disk_price

    def _price(self, name: str, zone: str, market: str) -> Price:
        price = Price(
            name, None, zone, market, "USD", self.region, "the list", NOW, self.clock(), self.why
        )
        return price if self.why else replace(price, amount=self.amount)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def seller(clock: Clock) -> Seller:
    return Seller(clock)


def kept(tmp_path: Path, clock: Clock) -> Prices:
    """Another process each time: nothing is remembered but on disk."""
    return Prices(tmp_path / "prices", "ec2", clock)


def test_one_question_and_one_price_of_each(tmp_path: Path, clock: Clock, seller: Seller) -> None:
    found = kept(tmp_path, clock).of(seller, ["a", "b"], ["z1", "z2"], ["on-demand", "spot"])
    assert {(one.subject, one.zone, one.market) for one in found} == {
        *((name, "", "on-demand") for name in "ab"),
        *((name, zone, "spot") for name in "ab" for zone in ("z1", "z2")),
    }
    assert len(found) == 6
    assert len(seller.asked) == 1


@pytest.mark.parametrize(
    ("market", "young", "old"),
    [
        ("spot", timedelta(minutes=59), timedelta(minutes=61)),
        ("on-demand", timedelta(hours=23), timedelta(hours=25)),
    ],
)
def test_a_young_price_is_not_asked_for_again(
    tmp_path: Path,
    clock: Clock,
    seller: Seller,
    market: prices.Market,
    young: timedelta,
    old: timedelta,
) -> None:
    kept(tmp_path, clock).of(seller, ["a"], ["z"], [market])
    seller.amount = 2.0
    clock.now = NOW + young
    assert kept(tmp_path, clock).of(seller, ["a"], ["z"], [market])[0].amount == 1.0
    assert len(seller.asked) == 1
    clock.now = NOW + old
    assert kept(tmp_path, clock).of(seller, ["a"], ["z"], [market])[0].amount == 2.0
    assert len(seller.asked) == 2


def test_live_asks_in_any_case(tmp_path: Path, clock: Clock, seller: Seller) -> None:
    kept(tmp_path, clock).of(seller, ["a"], [], ["on-demand"])
    seller.amount = 2.0
    assert kept(tmp_path, clock).of(seller, ["a"], [], ["on-demand"], live=True)[0].amount == 2.0


def test_only_what_is_missing_is_asked_for(tmp_path: Path, clock: Clock, seller: Seller) -> None:
    kept(tmp_path, clock).of(seller, ["a"], ["z"], ["on-demand", "spot"])
    clock.now = NOW + timedelta(hours=2)  # the spot price alone has become old
    kept(tmp_path, clock).of(seller, ["a"], ["z"], ["on-demand", "spot"])
    assert seller.asked[1] == ({"a"}, {"z"}, {"spot"})
    kept(tmp_path, clock).of(seller, ["a", "b"], ["z"], ["on-demand"])
    assert seller.asked[2] == ({"b"}, {"z"}, {"on-demand"})


def test_an_old_price_is_shown_with_its_age_when_the_cloud_is_silent(
    tmp_path: Path, clock: Clock, seller: Seller
) -> None:
    kept(tmp_path, clock).of(seller, ["a"], [], ["on-demand"])
    seller.why = "it does not answer"
    clock.now = NOW + timedelta(days=29)
    [found] = kept(tmp_path, clock).of(seller, ["a"], [], ["on-demand"])
    assert found.amount == 1.0
    assert found.fetched == NOW
    words = kept(tmp_path, clock).age(found)
    assert "29 days ago" in words
    assert "it does not answer" in words


def test_a_very_old_price_is_unknown(tmp_path: Path, clock: Clock, seller: Seller) -> None:
    kept(tmp_path, clock).of(seller, ["a"], [], ["on-demand"])
    seller.why = "it does not answer"
    clock.now = NOW + timedelta(days=31)
    [found] = kept(tmp_path, clock).of(seller, ["a"], [], ["on-demand"])
    assert found.amount is None
    assert "it does not answer" in found.why
    assert "31 days ago" in found.why


def test_a_price_of_the_future_is_not_young_for_ever(
    tmp_path: Path, clock: Clock, seller: Seller
) -> None:
    clock.now = NOW + timedelta(days=300)  # the clock was wrong, and is right now
    kept(tmp_path, clock).of(seller, ["a"], [], ["on-demand"])
    clock.now, seller.amount = NOW, 2.0
    assert kept(tmp_path, clock).of(seller, ["a"], [], ["on-demand"])[0].amount == 2.0


def test_an_unknown_price_is_asked_for_again(tmp_path: Path, clock: Clock, seller: Seller) -> None:
    seller.why = "no permission"
    [found] = kept(tmp_path, clock).of(seller, ["a"], [], ["on-demand"])
    assert (found.amount, found.why) == (None, "no permission")
    seller.why = ""
    assert kept(tmp_path, clock).of(seller, ["a"], [], ["on-demand"])[0].amount == 1.0


def test_disks_are_kept_too_and_apart(tmp_path: Path, clock: Clock, seller: Seller) -> None:
    assert kept(tmp_path, clock).disk(seller).amount == 1.0
    seller.amount = 2.0
    assert kept(tmp_path, clock).disk(seller).amount == 1.0
    assert kept(tmp_path, clock).address(seller).amount == 2.0
    assert seller.things == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"prices": 3}',
        '{"prices": [{"key": ["a", "", "on-demand"], "price": {"amount": "1"}}]}',
        json.dumps(
            {
                "prices": [
                    {
                        "key": ["a", "", "on-demand"],
                        "price": {"subject": "a", "amount": -1, "fetched": NOW.isoformat()},
                    }
                ]
            }
        ),
        '{"prices": [{"key": ["a", "", "on-demand"], "price": {"subject": "a", "amount": NaN}}]}',
    ],
)
def test_a_damaged_file_is_an_empty_one(
    tmp_path: Path, clock: Clock, seller: Seller, text: str
) -> None:
    (tmp_path / "prices").mkdir()
    (tmp_path / "prices" / "ec2-us-east-1.json").write_text(text)
    assert kept(tmp_path, clock).of(seller, ["a"], [], ["on-demand"])[0].amount == 1.0
    assert len(seller.asked) == 1


def test_a_folder_that_cannot_be_written_is_no_failure(
    tmp_path: Path, clock: Clock, seller: Seller
) -> None:
    (tmp_path / "prices").write_text("a file")
    assert kept(tmp_path, clock).of(seller, ["a"], [], ["on-demand"])[0].amount == 1.0


def test_regions_are_kept_apart(tmp_path: Path, clock: Clock, seller: Seller) -> None:
    kept(tmp_path, clock).of(seller, ["a"], [], ["on-demand"])
    seller.region, seller.amount = "eu-west-1", 3.0
    assert kept(tmp_path, clock).of(seller, ["a"], [], ["on-demand"])[0].amount == 3.0


def test_words_say_where_from_and_how_old() -> None:
    price = Price(
        "g4dn.xlarge",
        0.526,
        source="AWS Price List",
        as_of=datetime(2026, 11, 1, tzinfo=UTC),
        fetched=NOW - timedelta(hours=3, minutes=20),
    )
    assert prices.words(price, NOW) == (
        "0.526 USD an hour (AWS Price List, as of 2026-11-01, asked 3 h ago)"
    )
    assert prices.words(replace(price, amount=None, why="not sold there")) == (
        "unknown (not sold there)"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.526, "0.526"), (1.0, "1.00"), (32.7726, "32.7726"), (0.005, "0.005"),
     (0.08 / 730, "0.00011"), (0.0, "0.00")],
)  # fmt: skip
def test_small_amounts_are_told_apart(value: float, shown: str) -> None:
    assert prices.amount(value).startswith(shown)


def test_cheapest_first_and_unknown_last() -> None:
    given = [Price("c", None), Price("a", 2.0), Price("b", 1.0)]
    assert [one.subject for one in prices.cheapest(given)] == ["b", "a", "c"]


def test_what_another_server_says_is_kept_apart(
    tmp_path: Path, clock: Clock, seller: Seller
) -> None:
    """Amounts that a test double made up are none of the cloud's."""
    double = Prices(tmp_path / "prices", "ec2", clock, server="http://127.0.0.1:8080")
    assert double.of(seller, ["a"], [], ["on-demand"])[0].amount == 1.0
    seller.amount = 2.0
    assert kept(tmp_path, clock).of(seller, ["a"], [], ["on-demand"])[0].amount == 2.0
    assert double.of(seller, ["a"], [], ["on-demand"])[0].amount == 1.0
