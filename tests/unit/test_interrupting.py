"""A "no" and a Ctrl-C: what the user is told, and the exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from clusterkit.cli import cluster as commands
from clusterkit.cli import main, questions
from clusterkit.cluster import access, stored
from clusterkit.cluster.spec import Ec2Spec
from clusterkit.paths import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "data")


def test_a_no_is_no_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        questions.confirm("Go on?", yes=False)

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "confirm", lambda *_, **__: False)
    monkeypatch.setattr(main.cli, "main", refused)
    assert main.run(["start", "aws"]) == 1
    said = capsys.readouterr().err
    assert "You said no" in said
    assert "Interrupted" not in said


def begun(home: Home) -> None:
    """A cluster whose start got as far as its id."""
    folder = home.cluster("aws")
    access.write_identity(folder, "0123456789abcdef", "20261121T134118Z")
    spec = Ec2Spec.model_validate(
        {"provider": "ec2", "head": {"types": ["t3.medium"]}, "workers": {}}
    )
    stored.write(folder, spec, None)


@pytest.mark.parametrize("command", ["start", "stop"])
def test_who_interrupts_is_told_what_stays(
    command: str, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(home)
    with (
        pytest.raises(KeyboardInterrupt),
        commands.said_when_interrupted(home, "aws", command),
    ):
        raise KeyboardInterrupt
    said = capsys.readouterr().err
    assert f"`clusterkit {command} aws` goes on" in said
    assert ("`clusterkit stop aws` ends it" in said) == (command == "start")


def test_nothing_is_told_where_nothing_was_begun(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        commands.said_when_interrupted(home, "aws", "start"),
    ):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ""
