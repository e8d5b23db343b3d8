"""What is shown while a cluster is worked on, where there is no terminal."""

from __future__ import annotations

import re

import click
import pytest

from clusterkit.cli.cluster import node_lines
from clusterkit.cli.questions import Declined
from clusterkit.cli.watch import Display
from clusterkit.cluster.state import Node
from clusterkit.errors import ClusterError


def test_a_phase_is_a_line_with_its_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        display.phase("plan", None)
        display.phase("create", 3.0)
        display.host("lab-head", "booting")
        display.say("lab-head: new")
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"  plan +\d+\.\d s", lines[0])
    assert lines[1] == "    lab-head: new"
    assert re.fullmatch(r"  create +\d+\.\d s", lines[2])


def test_a_phase_that_failed_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display.phase("reach", None)
    display.__exit__(ValueError, ValueError("boom"), None)
    assert re.fullmatch(r"  reach +failed\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Declined, "not agreed to"),
        (click.Abort, "interrupted"),
        (KeyboardInterrupt, "interrupted"),
        (ClusterError, "failed"),
    ],
)
def test_a_phase_says_how_it_ended(
    capsys: pytest.CaptureFixture[str], error: type[BaseException], words: str
) -> None:
    with pytest.raises(error), Display() as display:  # noqa: PT012
        display.phase("plan", None)
        raise error
    assert re.fullmatch(rf"  plan +{words}\n", capsys.readouterr().out)


def test_json_has_nothing_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(silent=True) as display:
        display.phase("plan", None)
        display.say("a note")
    assert capsys.readouterr().out == ""


def test_many_nodes_are_counted() -> None:
    few = [Node("a", "down*", 4, 0, 2048, "gpu:t4:1", "Not responding")]
    assert node_lines(few) == [
        "a: down* (Not responding), 0 of 4 CPUs busy, 2.0 GiB, gpu:t4:1",
    ]
    many = [Node(f"n{i}", "idle" if i else "mixed", 4, 0, 1, "") for i in range(1000)]
    assert node_lines(many) == ["999 nodes idle", "1 nodes mixed"]
