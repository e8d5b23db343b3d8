"""What `init --provider ec2` writes can be planned as it is; the plan tells all before money."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from memory_cloud import Memory

from clusterkit.cli import main
from clusterkit.cluster.cloud import api, door, known
from clusterkit.cluster.cloud.api import Image, MachineType, Need, Quota
from clusterkit.cluster.cloud.door import OwnAddress
from clusterkit.cluster.prices import Price

_TYPES = {
    "t3.medium": MachineType("t3.medium", 2, 4096, zones=("us-east-1a", "us-east-1b")),
    "g4dn.xlarge": MachineType(
        "g4dn.xlarge", 4, 16384, gpus=1, gpu="NVIDIA T4", zones=("us-east-1a", "us-east-1b")
    ),
    "g5.xlarge": MachineType(
        "g5.xlarge", 4, 16384, gpus=1, gpu="NVIDIA A10G", zones=("us-east-1b",)
    ),
}
_AMOUNTS = {"t3.medium": 0.04, "g4dn.xlarge": 0.5, "g5.xlarge": 1.0}


class Offering(Memory):
    """A region that offers what the example asks for. Machines cannot be launched in it."""

    def machine_types(self, names: Collection[str]) -> Mapping[str, MachineType]:
        return {name: _TYPES[name] for name in names}

    def zones(self) -> tuple[str, ...]:
        return ("us-east-1a", "us-east-1b")

    def image(self, name: str, arch: str) -> Image:
        return Image(f"ami-{name}", name, arch, "ubuntu", disk=40)

    def prices(
        self, types: Collection[str], zones: Collection[str], markets: Collection[api.Market]
    ) -> list[Price]:
        now = datetime.now(UTC)
        return [
            Price(name, _AMOUNTS[name] * (0.3 if market == "spot" else 1), zone, market,
                  source="a price list", as_of=now, fetched=now)
            for name in types for market in markets
            for zone in (zones if market == "spot" else ("",))
        ]  # fmt: skip

    def address_price(self) -> Price:
        return Price("address", 0.005, source="a price list")

    def quotas(self, needs: Sequence[Need]) -> list[Quota]:
        return [
            Quota(f"{need.type.name} {need.market}", "L-1", 4.0, 0.0,
                  float(need.type.cpus * need.count), "https://example.org/quota")
            for need in needs
        ]  # fmt: skip


@pytest.fixture
def region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offering:
    """A region, and an empty folder to stand in."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    monkeypatch.setenv("CLUSTERKIT_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("CLUSTERKIT_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    offering = Offering()
    monkeypatch.setattr(known, "connect", lambda spec: offering)
    here = OwnAddress("203.0.113.9/32", "as a page answered")
    monkeypatch.setattr(door, "own", lambda *_, **__: here)
    return offering


def test_the_example_is_planned_as_it_is(
    region: Offering, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["init", "aws", "--provider", "ec2"]) == 0
    capsys.readouterr()
    assert main.run(["start", "aws", "--dry-run"]) == 0
    told = capsys.readouterr().out
    head, first, second = (
        next(line.split() for line in told.splitlines() if word in line)
        for word in ("t3.medium  ", "g4dn.xlarge  ", "g5.xlarge  ")
    )
    assert head[:4] == ["head", "1", "t3.medium", "on-demand"]
    assert first[:5] == ["workers", "gpu", "2", "g4dn.xlarge", "spot"]
    assert second[:3] == ["or", "g5.xlarge", "spot"]
    assert "image dlami-gpu: ami-dlami-gpu" in told
    assert "ssh is open for 203.0.113.9/32 alone (as a page answered)" in told
    assert "quota g4dn.xlarge spot: 4, 0 in use, 8 needed: TOO SMALL" in told
    assert "https://example.org/quota" in told
    assert "3 machines will be started in us-east-1. That costs 0.367 USD an hour" in told
    assert told.endswith("Nothing was changed (--dry-run).\n")
    assert not {call.split()[0] for call in region.calls} & {"end", "delete", "open_door"}


def test_no_amazon_is_asked_for_settings(region: Offering) -> None:
    assert main.run(["init", "aws", "--provider", "ec2"]) == 0
    assert main.run(["schema"]) == 0
    assert region.calls == []
