"""What every provider promises (clusterkit.cluster.providers). A new one is one more parameter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clusterkit.cluster import inventory, packages, providers
from clusterkit.cluster.providers import Provider
from clusterkit.errors import ClusterError

MAKERS: dict[str, Callable[[Path], Provider]] = {
    "local": lambda folder: providers.provider("local", "c", folder),
}


@pytest.fixture(params=sorted(MAKERS))
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Provider:
    return MAKERS[request.param](tmp_path / "c")


def test_every_provider_is_tested_here() -> None:
    assert set(MAKERS) == set(providers.PROVIDERS)


def test_an_unknown_provider_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="local"):
        providers.provider("cloud9", "c", tmp_path)


def test_planning_changes_nothing(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "require_installable", lambda _: None)
    plan = provider.plan()
    assert plan.machines
    assert not provider.folder.exists()


def test_what_is_made_can_be_set_up(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "require_installable", lambda _: None)
    plan = provider.plan()
    provider.create(plan)
    provider.create(plan)  # may be called again
    made = provider.machines()
    assert [machine.name for machine in made] == [machine.name for machine in plan.machines]
    assert inventory.build("c", made, provider.variables())
    provider.destroy(lambda _: None)


def test_destroying_nothing_is_no_error(provider: Provider) -> None:
    ended = provider.destroy(lambda _: None)
    assert (ended.jobs, ended.processes) == (0, 0)
    assert provider.left() == ()
