"""What is shown while a cluster is worked on, where there is no terminal."""

from __future__ import annotations

import re

import pytest

from clusterkit.cli.watch import Display


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


def test_json_has_nothing_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(silent=True) as display:
        display.phase("plan", None)
        display.say("a note")
    assert capsys.readouterr().out == ""
