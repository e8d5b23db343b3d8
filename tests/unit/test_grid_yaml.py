"""The YAML underneath: YAML 1.2's scalars, lines, and what a hostile file can do."""

from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterkit import yaml12
from clusterkit.errors import FileProblems
from clusterkit.sweep import grid_yaml
from clusterkit.sweep.grid_yaml import Document, Mapping, Node, Scalar, Sequence


@pytest.fixture(params=["libyaml", "python"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML's two parsers: not every machine has the fast one."""
    if request.param == "python":
        monkeypatch.setattr(yaml12, "_Events", yaml.SafeLoader)
    elif not yaml.__with_libyaml__:
        pytest.skip("PyYAML without libyaml")


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def _read(text: str | bytes) -> Document:
        file = tmp_path / "grid.yaml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return grid_yaml.read(file)

    return _read


@pytest.fixture
def refused(read: Any) -> Any:
    def _refused(text: str | bytes) -> list[str]:
        with pytest.raises(FileProblems) as caught:
            read(text).refuse()
        return [str(problem) for problem in caught.value.problems]

    return _refused


def plain(node: Node) -> Any:
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return {key: plain(item) for key, (_, item) in node.entries.items()}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-5", 1e-5), ("1E5", 1e5), ("1.", 1.0), (".5", 0.5), ("-1.5e+3", -1500.0),
        ("0", 0), ("-0", 0), ("-0.0", -0.0), ("+5", 5), ("0.10", 0.1), ("00:30:00", "00:30:00"),
        ("0x1F", 31), ("0o17", 15), ("0b11", "0b11"), ("-0x1F", "-0x1F"),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("n", "n"),
        ("true", True), ("True", True), ("FALSE", False), ("tRue", "tRue"),
        ("null", None), ("~", None), ("Null", None), ("none", "none"), ("None", "None"),
        ("1:2", "1:2"), ("1:30:00", "1:30:00"), ("2024-01-01", "2024-01-01"),
        ("1_0", "1_0"), ("e5", "e5"), (".", "."), ("-x", "-x"), ("1e", "1e"), ("٣", "٣"),
        ('"010"', "010"), ("'yes'", "yes"), ('"1e-5"', "1e-5"), ("1.2.3", "1.2.3"),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("=", "="), ("nan", "nan"), ("inf", "inf"),
    ],
)  # fmt: skip
def test_scalars_are_yaml_1_2(read: Any, written: str, value: object) -> None:
    document = read(f"a: {written}\n")
    assert document.problems == []
    found = plain(document.root)["a"]
    assert (type(found), repr(found)) == (type(value), repr(value))


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("010", '010 begins with a zero: write 10, or "010" for text'),
        ("-007", '-007 begins with a zero: write -7, or "-007" for text'),
        ("00", "write 0,"),
        ("1_000", '1_000 is no number in YAML: write 1000, or "1_000" for text'),
        (".nan", "not finite"),
        ("-.inf", "not finite"),
        ("1e999", "too large"),
        ("9" * 5000, "more than 4,000 digits"),
        ("0x" + "f" * 5000, "more than 4,000 digits"),
        ("!!int 5", "tags (!!int) are not supported"),
        ("!!python/object:os.system {}", "tags (!!python/object:os.system) are not supported"),
        ("! 5", "tags (!) are not supported"),
        ('"\\0"', "NUL"),
        ("*x", "*x names nothing"),
    ],
)
def test_scalars_refused(refused: Any, written: str, words: str) -> None:
    (problem,) = refused(f"b: 1\na:\n  - x\n  - {written}\n")
    assert problem.startswith("line 4: a[1]: ")
    assert words in problem


def test_half_a_surrogate_pair(refused: Any) -> None:
    assert len(refused('a: "\\ud800"')) == 1


def test_aliases_stand_for_what_they_name(read: Any) -> None:
    assert plain(read("a: &x [1, {b: 2}]\nc: *x\nd: &y 5\ne: *y\n").root) == {
        "a": [1, {"b": 2}],
        "c": [1, {"b": 2}],
        "d": 5,
        "e": 5,
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: a: written twice, first in line 1"),
        ("x:\n  a: 1\n  'a': 3\n", "line 3: x.a: written twice, first in line 2"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "line 3: c: merge keys (<<) are not supported"),
        ("? [1, 2]\n: 3\n", "line 1: a list or mapping cannot be a key"),
        ("a: 1\n---\nb: 2\n", "line 2: a second document begins here"),
        ("a: &x [1, *x]\n", "line 1: a[1]: *x stands inside what it names"),
        ("a: [1,\n  2\nb: 3\n", "not valid YAML"),
        ("a:\n\tb: 1\n", "line 2: not valid YAML"),
        ("a: 'x\n", "not valid YAML"),
        ("a: b: c\n", "line 1: not valid YAML"),
        ("a: 1\nb: @x\n", "line 2: not valid YAML"),
        ("a: 1\nb: \x07\n", "line 2: the character U+0007 is not allowed in YAML"),
        ("", "empty"),
        ("# nothing\n", "empty"),
        (b"a: 1\nb: \xff\n", "line 2: not UTF-8 text (byte 0xff)"),
        ("[" * 10_000, "nested more than 50 deep"),
        ("- " * 10_000, "nested more than 50 deep"),
    ],
)  # fmt: skip
def test_refused(refused: Any, text: str | bytes, problem: str) -> None:
    (found,) = refused(text)
    assert problem in found


def test_tabs_are_named(refused: Any) -> None:
    (problem,) = refused("a:\n\tb: 1\n")
    assert "indent with spaces, not with tabs" in problem


def test_the_beginning_of_what_is_not_closed_is_named(refused: Any) -> None:
    (problem,) = refused("a: 1\nb: [1,\n\n  2\nc: 3\n")
    assert "line 2" in problem


def test_problems_before_a_syntax_error_are_told_too(refused: Any) -> None:
    assert len(refused("a: 010\nb: [\n")) == 2


def test_a_billion_laughs(refused: Any) -> None:
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for name, last in zip("bcdefghijklmnop", "abcdefghijklmno", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{last}'] * 10)}]")
    begun = time.perf_counter()
    (problem,) = refused("\n".join(lines))
    assert "stands for more than 1,000,000 values" in problem
    assert time.perf_counter() - begun < 0.5


def test_a_file_without_end(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="larger than 16 MiB"):
        grid_yaml.read(Path("/dev/zero"))


def test_byte_order_mark_and_windows_lines(read: Any) -> None:
    document = read(b"\xef\xbb\xbfa: 1\r\nb:\r\n  - 2\r\n")
    assert plain(document.root) == {"a": 1, "b": [2]}
    assert isinstance(document.root, Mapping)
    assert document.root.entries["b"][0] == 2


def test_lines(read: Any) -> None:
    root = read("a: 1\n\n# comment\nb:\n  c: [1,\n      2]\n").root
    line, inner = root.entries["b"]
    assert (line, inner.line) == (4, 5)
    assert [item.line for item in inner.entries["c"][1].items] == [5, 6]


@pytest.mark.parametrize("seed", range(10))
def test_whatever_json_writes_is_read_back(read: Any, seed: int) -> None:
    random_ = random.Random(seed)

    def anything(depth: int) -> Any:
        kind = random_.randrange(8 if depth else 6)
        if kind == 0:
            return random_.choice([None, True, False])
        if kind == 1:
            return random_.randint(-(10**20), 10**20)
        if kind in (2, 3):
            number = random_.choice([random_.gauss(0, 1), 10 ** random_.uniform(-300, 300)])
            return number if math.isfinite(number) else 0.0
        if kind in (4, 5):
            return "".join(
                random_.choices("aé ☃\n\t\"'\\#:-{}[],&*!|>%@`~01.e𝄞", k=random_.randrange(9))
            )
        if kind == 6:
            return [anything(depth - 1) for _ in range(random_.randrange(4))]
        return {f"k{at} #": anything(depth - 1) for at in range(random_.randrange(4))}

    value = {"root": [anything(4) for _ in range(8)]}
    text = json.dumps(value, ensure_ascii=random_.random() < 0.2)
    # JSON escapes an astral character as a surrogate pair, which YAML does not know.
    if "\\ud83" in text.lower():
        text = json.dumps(value, ensure_ascii=False)
    document = read(text)
    assert document.problems == []
    assert repr(plain(document.root)) == repr(value)
