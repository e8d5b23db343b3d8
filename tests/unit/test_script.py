"""The batch script. `UPDATE_GOLDEN=1 pytest` writes the golden files anew."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest

from clusterkit.records import SlurmRequest
from clusterkit.sweep import script

GOLDEN = Path(__file__).parent / "golden"

PLAIN = script.Round(
    experiment="0a1b2c3d",
    root="/home/ada/.local/share/clusterkit/experiments/0a1b2c3d",
    number=0,
    total=30,
    workers=4,
    pack=True,
    time_limit=1800,
    grace=60,
    job_name="train-0a1b2c3d-0.0",
    python="/usr/bin/python3",
    program="/home/ada/lib/1234/clusterkit/node/__main__.py",
)
HOSTILE = replace(
    PLAIN,
    root='/home/a b/it\'s $(touch pwned) `id` "x" ünï 100%/e',
    python="/opt/my python/bin/python3",
    program="-rf",
    time_limit=0,
)
CASES = {
    "plain": (PLAIN, SlurmRequest()),
    "options": (
        PLAIN,
        SlurmRequest({"mem": "4G", "gres": "gpu:1", "exclusive": True, "time": "0:30:00"}),
    ),
    "hostile": (
        HOSTILE,
        SlurmRequest(
            {"comment": "a \"b\" 'c' $(touch pwned) `id` \\ é # % -x", "account": "-lead", "wc": ""}
        ),
    ),
    "unpacked-rerun": (replace(PLAIN, number=2, pack=False), SlurmRequest()),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    text = script.render(*CASES[name])
    golden = GOLDEN / f"{name}.sbatch"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_bash_reads_back_what_was_put_in(name: str, tmp_path: Path) -> None:
    """The last line, with `exec` replaced, hands a program exactly the values that went in."""
    round_, request = CASES[name]
    text = script.render(round_, request)
    file = tmp_path / "script"
    file.write_text(text, encoding="utf-8")
    subprocess.run(["bash", "-n", file], check=True)
    line = text.splitlines()[-1].removeprefix("exec ")
    done = subprocess.run(
        ["bash", "-c", "printf '%s\\0' " + line, "bash", "7", "13"],
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    words = done.stdout.decode().split("\0")[:-1]
    assert words[:6] == [round_.python, "-I", "-S", round_.program, "slot", round_.root]
    assert json.loads(words[6])["pack"] is round_.pack
    assert words[7:] == ["7", "13"]
    assert list(tmp_path.iterdir()) == [file]  # nothing was touched


@pytest.mark.parametrize("value", ["a\nb", "a\r", "a\0b"])
def test_line_breaks_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        script.render(PLAIN, SlurmRequest({"comment": value}))


def test_a_folder_with_a_line_break_is_quoted_or_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        script.render(replace(PLAIN, root="/a\nb"), SlurmRequest())


def test_the_users_options_come_last_and_so_win() -> None:
    text = script.render(PLAIN, SlurmRequest({"output": "/dev/null", "signal": "B:TERM@5"}))
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert lines[-2:] == ["#SBATCH --output=/dev/null", "#SBATCH --signal=B:TERM@5"]


def test_no_signal_by_the_scheduler() -> None:
    """The slot itself watches the time limit: SLURM's signal may come a minute early."""
    assert "--signal" not in script.render(PLAIN, SlurmRequest())


def test_the_template_refuses_what_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slot.sbatch.j2").write_text("{{ nothing }}")
    monkeypatch.setattr(script.paths, "templates", lambda: tmp_path)
    with pytest.raises(jinja2.UndefinedError):
        script.render(PLAIN, SlurmRequest())


def test_shlex_and_bash_agree_on_the_hostile_root() -> None:
    line = script.render(*CASES["hostile"]).splitlines()[-1]
    assert shlex.split(line)[6] == HOSTILE.root
