"""A cloud that refuses to answer: `stop` leaves a cluster that can be used as before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from clusterkit.cluster import access, ending, lifecycle
from clusterkit.cluster import facts as facts_file
from clusterkit.errors import ClusterError
from clusterkit.paths import Home


def test_a_refused_stop_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    access.write_identity(home.cluster("aws"), "0123456789abcdef", "20261121T134118Z")

    def refuse() -> None:
        raise ClusterError("AWS refused")

    provider = SimpleNamespace(name="ec2", machines=refuse, tell=lambda _: None)
    forgotten: list[Path] = []
    monkeypatch.setattr(lifecycle, "made", lambda *_, **__: (None, provider))
    monkeypatch.setattr(ending, "_cloud", lambda one: one)
    monkeypatch.setattr(facts_file, "forget", forgotten.append)
    with pytest.raises(ClusterError, match="AWS refused"):
        ending.stop(home, "aws")
    assert forgotten == []
