"""What an hour costs: from where, as of when. A price that is not known says so; none is built in.

<data folder>/prices/<provider>-<region>.json keeps what a cloud has answered. A young price is used
without asking, an old one when the cloud does not answer, with its age; a very old one is unknown.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

Market = Literal["spot", "on-demand"]

#: So young a price is used without asking again; the spot price moves all day.
_YOUNG: Mapping[str, timedelta] = {"spot": timedelta(hours=1), "on-demand": timedelta(hours=24)}
#: An older one is not known any more.
_OLD = timedelta(days=30)
#: A clock that was set back must not keep a price young for ever.
_AHEAD = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one hour of something, in `currency`; `amount` None: unknown, `why` says why.

    `subject` is a machine type or another thing's name; `source` who says so; `as_of` since when it
    holds, `fetched` when it was asked for.
    """

    subject: str
    amount: float | None
    zone: str = ""  # "": the whole region
    market: str = "on-demand"
    currency: str = "USD"
    region: str = ""
    source: str = ""
    as_of: datetime | None = None
    fetched: datetime | None = None
    why: str = ""


class Seller(Protocol):
    """What is asked of a cloud here; see `cloud.api.Cloud`."""

    region: str

    def prices(
        self, types: Collection[str], zones: Collection[str], markets: Collection[Market]
    ) -> list[Price]: ...

    def disk_price(self) -> Price: ...

    def image_price(self) -> Price: ...

    def address_price(self) -> Price: ...


#: Of one thing of a region: what it is, where, on which market.
_Key = tuple[str, str, str]


class Prices:
    """The prices of one provider, asked for as rarely as they change.

    `folder` is that of all prices in the user's data folder; when it cannot be written, every
    question goes to the cloud. What another `server` than the provider's own says, such as a test
    double, is kept apart.
    """

    def __init__(
        self,
        folder: Path,
        provider: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        server: str = "",
    ) -> None:
        self._folder, self._now = folder, now
        digest = hashlib.sha256(server.encode()).hexdigest()[:12]
        self._name = f"{provider}-at-{digest}" if server else provider

    def of(
        self,
        cloud: Seller,
        types: Collection[str],
        zones: Collection[str],
        markets: Collection[Market],
        *,
        live: bool = False,
    ) -> list[Price]:
        """One price of each type: on demand for the region (zone ""), spot for each zone.

        Of a type that a zone does not sell on the spot market, the price there is unknown. `live`
        asks the cloud in any case. Raises what asking raises, and nothing for unknown prices.
        """
        wanted = [
            (name, zone, market)
            for market in markets
            for name in dict.fromkeys(types)
            for zone in (dict.fromkeys(zones) if market == "spot" else ("",))
        ]
        kept = self._read(cloud.region)
        asked: list[_Key] = [key for key in wanted if live or not self._young(kept.get(key))]
        answers: dict[_Key, Price] = {}
        if asked:
            told = cloud.prices(
                sorted({name for name, _, _ in asked}),
                sorted(zones),
                [market for market in markets if any(key[2] == market for key in asked)],
            )
            answers = {(one.subject, one.zone, one.market): one for one in told}
            self._keep(cloud.region, answers)
        return [self._best(cloud.region, key, answers, kept, key in asked) for key in wanted]

    def disk(self, cloud: Seller, *, live: bool = False) -> Price:
        """Of one GiB of a machine's disk for an hour."""
        return self._thing(cloud.region, "disk", cloud.disk_price, live)

    def image(self, cloud: Seller, *, live: bool = False) -> Price:
        """Of one GiB of a saved image for an hour."""
        return self._thing(cloud.region, "image", cloud.image_price, live)

    def address(self, cloud: Seller, *, live: bool = False) -> Price:
        """Of one public address for an hour."""
        return self._thing(cloud.region, "address", cloud.address_price, live)

    def zones(self, region: str) -> tuple[str, ...]:
        """The zones of a region that a price is kept of, sorted."""
        return tuple(sorted({zone for _, zone, _ in self._read(region) if zone}))

    def age(self, price: Price) -> str:
        """Where a price comes from and how old it is: "AWS Price List, as of ..., asked ..."."""
        return age(price, self._now())

    def _thing(self, region: str, thing: str, ask: Callable[[], Price], live: bool) -> Price:
        # The name cannot be a machine type's: those are kept beside it.
        key = (f"/{thing}", "", "on-demand")
        kept = self._read(region)
        if not live and self._young(kept.get(key)):
            return kept[key]
        answers = {key: ask()}
        self._keep(region, answers)
        return self._best(region, key, answers, kept, asked=True)

    def _young(self, price: Price | None) -> bool:
        if price is None or price.fetched is None:
            return False
        return -_AHEAD < self._now() - price.fetched < _YOUNG.get(price.market, timedelta(0))

    def _best(
        self,
        region: str,
        key: _Key,
        answers: Mapping[_Key, Price],
        kept: Mapping[_Key, Price],
        asked: bool,
    ) -> Price:
        """The cloud's answer; where it gave none, one that is kept and not too old."""
        answer, before = answers.get(key), kept.get(key)
        if answer is not None and answer.amount is not None:
            return answer
        if before is not None and not asked:
            return before
        name, zone, market = key
        why = answer.why if answer is not None else "the cloud said nothing about it"
        if before is not None and before.fetched is not None:
            old = self._now() - before.fetched
            if -_AHEAD < old <= _OLD:
                return replace(before, why=why)
            why += f"; the last known one was asked for {_ago(old)}, which is too old"
        if answer is not None:
            return replace(answer, why=why or "no reason was given")
        return Price(name, None, zone, market, region=region, why=why)

    def _file(self, region: str) -> Path:
        return self._folder / f"{self._name}-{region}.json"

    def _read(self, region: str) -> dict[_Key, Price]:
        """What is kept; a file that is missing or damaged holds nothing."""
        try:
            said = json.loads(self._file(region).read_text())
            found = {}
            for one in said["prices"]:
                price = _price(one["price"])
                if price is not None:
                    name, zone, market = one["key"]
                    found[str(name), str(zone), str(market)] = price
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        return found

    def _keep(self, region: str, answers: Mapping[_Key, Price]) -> None:
        """Atomically. It is only a cache: that it cannot be written hurts nobody."""
        known = {key: one for key, one in answers.items() if one.amount is not None and one.fetched}
        if not known:
            return
        kept = self._read(region) | known
        said = {
            "prices": [
                {"key": key, "price": asdict(one)}
                for key, one in sorted(kept.items())
                if one.fetched is not None and self._now() - one.fetched <= _OLD
            ]
        }
        file = self._file(region)
        staging = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            staging.write_text(json.dumps(said, indent=1, default=datetime.isoformat))
            staging.rename(file)
        except OSError:
            with contextlib.suppress(OSError):
                staging.unlink(missing_ok=True)


def _price(said: Any) -> Price | None:
    """A kept price; None for one that no cloud can have answered."""
    times = {name: _time(said.get(name)) for name in ("as_of", "fetched")}
    amount = said["amount"]
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        return None
    if not math.isfinite(amount) or amount < 0 or times["fetched"] is None:
        return None
    texts = {
        one.name: said[one.name]
        for one in fields(Price)
        if one.name not in (*times, "amount") and isinstance(said.get(one.name), str)
    }
    return Price(**{**texts, **times, "amount": float(amount)})


def _time(text: object) -> datetime | None:
    found = datetime.fromisoformat(text) if isinstance(text, str) else None
    return found if found is None or found.tzinfo is not None else found.replace(tzinfo=UTC)


def cheapest(prices: Iterable[Price]) -> list[Price]:
    """The cheapest first; those that are not known last, by name."""
    return sorted(
        prices,
        key=lambda one: (one.amount is None, one.amount or 0.0, one.subject, one.market, one.zone),
    )


def oldest(prices: Sequence[Price]) -> list[Price]:
    """Of each source the known price that was asked for longest ago."""
    found: dict[str, Price] = {}
    for one in prices:
        if one.amount is None:
            continue
        known = found.get(one.source)
        if known is None or (one.fetched and known.fetched and one.fetched < known.fetched):
            found[one.source] = one
    return list(found.values())


def amount(value: float) -> str:
    """A sum with at least two decimals, and as many more as it takes to tell small ones apart."""
    digits = 4
    if 0 < value < 0.01:
        digits = 2 - math.floor(math.log10(value))
    whole, _, decimals = f"{value:.{digits}f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


def words(price: Price, now: datetime | None = None) -> str:
    """As "0.526 USD an hour (AWS Price List, as of 2026-11-01, asked 3 h ago)"."""
    if price.amount is None:
        return f"unknown ({price.why})" if price.why else "unknown"
    told = age(price, now)
    return f"{amount(price.amount)} {price.currency} an hour" + (f" ({told})" if told else "")


def age(price: Price, now: datetime | None = None) -> str:
    """As "AWS Price List, as of 2026-11-01, asked 3 h ago"; why an old one is not a new one."""
    parts = [price.source] if price.source else []
    if price.as_of is not None:
        parts.append(f"as of {price.as_of:%Y-%m-%d}")
    if price.fetched is not None:
        parts.append(f"asked {_ago((now or datetime.now(UTC)) - price.fetched)}")
    if price.amount is not None and price.why:
        parts.append(f"not now: {price.why}")
    return ", ".join(parts)


def _ago(passed: timedelta) -> str:
    seconds = passed.total_seconds()
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    if seconds < 2 * 86400:
        return f"{seconds // 3600:.0f} h ago"
    return f"{seconds // 86400:.0f} days ago"
