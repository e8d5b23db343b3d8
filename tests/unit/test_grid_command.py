"""A point to the words of its task's command line."""

from __future__ import annotations

import argparse
import json
import random

import pytest

from clusterkit.records import FlagStyle, Value
from clusterkit.sweep.grid import argv_for, flags_for

HOSTILE = [
    "", " ", "a b", "it's", 'q"q', "new\nline", "$(rm -rf /)", "`x`", "\\", "ünï ☃", "-x", "--lr",
    "-", "--", "-1e-05", "{lr}", "{flags}", "*", "a=b", "#", "~",
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"), (1.0, "1.0"), (1e-5, "1e-05"), (True, "True"), (False, "False"), (None, "None"),
        ("a b", "a b"), ("", ""), ([64, 32], "[64,32]"),
        ({"a": [1, None], "ü": True}, '{"a":[1,null],"ü":true}'),
    ],
)  # fmt: skip
def test_values_as_text(value: Value, text: str) -> None:
    assert flags_for({"k": value}, FlagStyle.SPACE) == ["--k", text]
    assert flags_for({"k": value}, FlagStyle.EQUALS) == [f"--k={text}"]


def test_styles() -> None:
    params: dict[str, Value] = {"lr": 0.1, "opt.name": "sgd", "clip": None}
    assert flags_for(params, FlagStyle.SPACE) == [
        "--lr", "0.1", "--opt.name", "sgd", "--clip", "None",
    ]  # fmt: skip
    assert flags_for(params, FlagStyle.EQUALS) == ["--lr=0.1", "--opt.name=sgd", "--clip=None"]
    assert flags_for(params, FlagStyle.HYDRA) == ["lr=0.1", "opt.name=sgd", "clip=null"]
    assert flags_for(params, FlagStyle.NONE) == []


def test_values_that_look_like_options() -> None:
    params: dict[str, Value] = {"a": -0.5, "b": -3, "c": -1e-05, "d": "-x", "e": "-1", "f": "-"}
    assert flags_for(params, FlagStyle.SPACE) == [
        "--a", "-0.5", "--b", "-3", "--c=-1e-05", "--d=-x", "--e", "-1", "--f=-",
    ]  # fmt: skip


@pytest.mark.parametrize("style", [FlagStyle.SPACE, FlagStyle.EQUALS])
@pytest.mark.parametrize("seed", range(20))
def test_argparse_reads_back_what_was_written(style: FlagStyle, seed: int) -> None:
    random_ = random.Random(seed)
    number = random_.uniform(-1, 1) * 10 ** random_.uniform(-20, 20)
    params: dict[str, Value] = {
        # argparse before 3.13 drops a value "--" however it is given.
        "text": random_.choice([word for word in HOSTILE if word != "--"]),
        "number": number,
        "whole": random_.randint(-100, 100),
        "data": [random_.choice(HOSTILE), {"x": number}],
    }
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--text")
    parser.add_argument("--number", type=float)
    parser.add_argument("--whole", type=int)
    parser.add_argument("--data", type=json.loads)
    assert vars(parser.parse_args(flags_for(params, style))) == params


@pytest.mark.parametrize(
    ("run", "script", "expected"),
    [
        (None, "a/train.py", ["python", "a/train.py", "--lr", "0.1"]),
        (None, "-x.py", ["python", "./-x.py", "--lr", "0.1"]),
        (None, "a b/run.sh", ["./a b/run.sh", "--lr", "0.1"]),
        ("python {script} {flags}", "a b.py", ["python", "a b.py", "--lr", "0.1"]),
        ("{python} -u '{script}'", "-a.py", ["python", "-u", "./-a.py"]),
        ("{flags} {flags}", "x", ["--lr", "0.1", "--lr", "0.1"]),
        ("make 'rate={lr} x' --s={script}", "m", ["make", "rate=0.1 x", "--s=m"]),
        ("echo '{{lr}} }}' \"a'b\" ''", "m", ["echo", "{lr} }", "a'b", ""]),
        ("python3.12\n  {script}\n", "m", ["python3.12", "m"]),
        ("a $HOME ~ *.py `x` # y", "m", ["a", "$HOME", "~", "*.py", "`x`", "#", "y"]),
    ],
)
def test_argv(run: str | None, script: str, expected: list[str]) -> None:
    assert argv_for(run, script, {"lr": 0.1}, FlagStyle.SPACE) == expected


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_never_split_nor_read_as_a_placeholder(value: str) -> None:
    params: dict[str, Value] = {"x": value, "lr": 3}
    assert argv_for("run {x} -a={x}{lr}", "s", params, FlagStyle.NONE) == [
        "run", value, f"-a={value}3",
    ]  # fmt: skip
    assert argv_for("run {flags}", "s", {"x": value}, FlagStyle.EQUALS) == ["run", f"--x={value}"]


@pytest.mark.parametrize("run", ["{nope}", "'", "{", "", "a{flags}"])
def test_argv_of_what_load_refuses(run: str) -> None:
    with pytest.raises(ValueError):
        argv_for(run, "s.py", {"a": 1}, FlagStyle.SPACE)
