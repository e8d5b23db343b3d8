"""grid.yaml to points: what is accepted, in which order, under which ids."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterkit.errors import FileProblems, UsageError
from clusterkit.records import FlagStyle, Grid, Value
from clusterkit.sweep import grid

Load = Callable[..., Grid]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def _load(text: str, **options: int) -> Grid:
        file = tmp_path / "grid.yaml"
        file.write_text(text, encoding="utf-8")
        return grid.load(file, **options)

    return _load


@pytest.fixture
def refused(load: Load) -> Callable[..., list[str]]:
    """The problems of a text, each as it is printed."""

    def _refused(text: str, **options: int) -> list[str]:
        with pytest.raises(FileProblems) as caught:
            load(text, **options)
        return [str(problem) for problem in caught.value.problems]

    return _refused


def values(loaded: Grid, name: str) -> list[Value]:
    """A parameter's values in the order in which they first appear."""
    seen: dict[str, Value] = {}
    for point in loaded.points:
        seen.setdefault(json.dumps(point.params[name]), point.params[name])
    return list(seen.values())


# --- the order and the ids of points


def test_first_parameter_varies_slowest_and_the_seed_fastest(load: Load) -> None:
    loaded = load("seeds: 2\nparams:\n  b: [x, y]\n  n: 7\n  a: [1, 2]\n")
    assert [tuple(point.params.values()) for point in loaded.points] == [
        (b, 7, a, seed) for b in "xy" for a in (1, 2) for seed in (0, 1)
    ]
    assert list(loaded.points[0].params) == ["b", "n", "a", "seed"]
    assert loaded.axes == ("b", "a", "seed")


def test_an_axis_takes_several_values(load: Load) -> None:
    loaded = load("params: {a: [1], b: {value: [1, 2]}, c: {range: [1]}, d: 0}\nseeds: 1\n")
    assert loaded.axes == ()
    assert [dict(point.params) for point in loaded.points] == [
        {"a": 1, "b": [1, 2], "c": 0, "d": 0, "seed": 0}
    ]


def test_point_id_is_the_sha256_of_canonical_json() -> None:
    text = '{"a":[1,{"x":null}],"lr":1e-05,"name":"\\u00fc"}'
    params: dict[str, Value] = {"name": "ü", "lr": 1e-5, "a": [1, {"x": None}]}
    assert grid.point_id(params) == hashlib.sha256(text.encode()).hexdigest()


def test_point_id_tells_types_apart_and_not_orders() -> None:
    different: list[Value] = [1, 1.0, "1", True, None, "null", [1], {"1": 1}]
    assert len({grid.point_id({"a": value}) for value in different}) == len(different)
    assert grid.point_id({"a": 1, "b": 2}) == grid.point_id({"b": 2, "a": 1})
    assert grid.point_id({"a": {"x": 1, "y": 2}}) == grid.point_id({"a": {"y": 2, "x": 1}})


@pytest.mark.parametrize("seed", range(20))
def test_any_grid_is_the_product_of_its_lists(load: Load, seed: int) -> None:
    random_ = random.Random(seed)
    scalars: list[Value] = [
        0, -1, 2.5, 1e-7, -0.0, True, None, "", "a b", "it's", 'q"', "ü", "-x", "no", "1e3",
        [1, [2]], {"k": {"z": 1, "a": None}}, 10**30, "\n", "{x}", "$(ls)",
    ]  # fmt: skip
    names = random_.sample(["lr", "b", "ü", "A", "z.y", "x{", "10", "no", "model/size"], 3)
    lists = {name: random_.sample(scalars, random_.randint(1, 5)) for name in names}
    # JSON is YAML: whatever json writes is read back.
    text = json.dumps({"params": {name: {"values": each} for name, each in lists.items()}})
    loaded = load(text)
    expected = [dict(zip(names, each, strict=True)) for each in itertools.product(*lists.values())]
    assert [repr(dict(point.params)) for point in loaded.points] == [
        repr(each) for each in expected
    ]
    assert [point.id for point in loaded.points] == [grid.point_id(each) for each in expected]
    assert len({point.id for point in loaded.points}) == len(expected)


def test_text_is_kept(load: Load) -> None:
    text = "# why\nparams: {a: 1}\n"
    assert load(text).text == text


# --- the forms of a parameter


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("5", [5]),
        ("null", [None]),
        ("[1, a, null]", [1, "a", None]),
        ("[[1, 2], [3]]", [[1, 2], [3]]),
        ("[{x: 1}, {x: 2}]", [{"x": 1}, {"x": 2}]),
        ("{value: [64, 32]}", [[64, 32]]),
        ("{value: {a: {b: 1}}}", [{"a": {"b": 1}}]),
        ("{value: []}", [[]]),
        ("{values: [1, 2]}", [1, 2]),
        ("{values: [{value: 1}]}", [{"value": 1}]),
        ("{range: [3]}", [0, 1, 2]),
        ("{range: [2, 5]}", [2, 3, 4]),
        ("{range: [0, 10, 4]}", [0, 4, 8]),
        ("{range: [3, 0, -1]}", [3, 2, 1]),
        ("{range: [1.5]}", [0.0, 1.0]),
        ("{range: [0, 0.5, 0.1]}", [0.0, 0.1, 0.2, 0.3, 0.4]),
        ("{range: [1, 1.3, 0.1]}", [1.0, 1.1, 1.2]),
        ("{range: [0.3, 0, -0.1]}", [0.3, 0.2, 0.1]),
        ("{range: [1e20, 3e20, 1e20]}", [1e20, 2e20]),
        ("{linspace: [0, 1, 5]}", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("{linspace: [1, 0, 2]}", [1.0, 0.0]),
        ("{logspace: [0.0001, 0.1, 4]}", [0.0001, 0.001, 0.01, 0.1]),
        ("{logspace: [1000, 1, 4]}", [1000.0, 100.0, 10.0, 1.0]),
        ("{logspace: [1, 16, 5]}", [1.0, 2.0, 4.0, 8.0, 16.0]),
        ("{logspace: [1e-300, 1e300, 3]}", [1e-300, 1.0, 1e300]),
    ],
)
def test_form(load: Load, written: str, expected: list[Value]) -> None:
    found = values(load(f"params:\n  a: {written}\n"), "a")
    assert repr(found) == repr(expected)  # 1, 1.0 and True are equal, but not the same


@pytest.mark.parametrize("seed", range(30))
def test_integer_ranges_are_python_s(load: Load, seed: int) -> None:
    random_ = random.Random(seed)
    arguments = [random_.randint(-20, 20) for _ in range(random_.randint(1, 3))]
    if len(arguments) == 3 and arguments[2] == 0:
        arguments[2] = 3
    expected = list(range(*arguments))
    text = f"params: {{a: {{range: {arguments}}}}}"
    if expected:
        assert [point.params["a"] for point in load(text).points] == expected
    else:
        with pytest.raises(FileProblems, match="empty axis"):
            load(text)


@pytest.mark.parametrize("seed", range(20))
def test_spans_keep_to_their_ends_and_ascend(load: Load, seed: int) -> None:
    random_ = random.Random(seed)
    first = round(random_.uniform(1e-6, 10), random_.randint(1, 8)) or 0.1
    last = first + round(random_.uniform(0.1, 1e3), 3)
    count = random_.randint(2, 200)
    for form in ("linspace", "logspace"):
        found = values(load(f"params: {{a: {{{form}: [{first!r}, {last!r}, {count}]}}}}"), "a")
        assert (found[0], found[-1], len(found)) == (first, last, count)
        assert found == sorted(found, key=float)  # type: ignore[arg-type]
        assert all(isinstance(value, float) for value in found)
    step = round(random_.uniform(0.5, 5), 2)
    found = values(load(f"params: {{a: {{range: [{first!r}, {last!r}, {step!r}]}}}}"), "a")
    assert found[0] == first
    assert found[-1] < last <= found[-1] + step * (1 + 1e-9)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("[]", "an empty axis"),
        ("{values: []}", "an empty axis"),
        ("{values: 3}", "expected a list of values"),
        ("{range: [5, 5]}", "an empty axis: 5 is not below 5"),
        ("{range: [1, 5, -1]}", "an empty axis: 1 is not above 5"),
        ("{range: [0]}", "an empty axis"),
        ("{range: [0, 5, 0]}", "a step of 0 never arrives"),
        ("{range: 5}", "expected [stop], [start, stop]"),
        ("{range: []}", "expected [stop]"),
        ("{range: [1, 2, 3, 4]}", "expected [stop]"),
        ("{range: [true]}", "expected [stop]"),
        ("{range: ['3']}", "expected [stop]"),
        (f"{{range: [0.5, 1{'0' * 400}, 1]}}", "too large for floating point"),
        ("{linspace: [0, 1]}", "expected [first, last, how many]"),
        ("{linspace: [0, 1, 1]}", "how many: a whole number from 2"),
        ("{linspace: [0, 1, 2.0]}", "how many: a whole number from 2"),
        ("{linspace: [1, 1, 5]}", "the two ends are equal"),
        ("{logspace: [0, 1, 5]}", "both ends must be above 0; they are values, not exponents"),
        ("{logspace: [-3, -1, 5]}", "above 0"),
        ("{uniform: [0, 1]}", "params.a.uniform: not supported yet in this version"),
        ("{loguniform: [0, 1]}", "not supported yet in this version"),
        ("{randint: [0, 1]}", "not supported yet in this version"),
        ("{choice: [0, 1]}", "not supported yet in this version"),
        ("{linspac: [0, 1, 2]}", "did you mean linspace?"),
        ("{}", "expected one form"),
        ("{value: 1, range: [3]}", "expected one form"),
        ("[{range: [3]}]", "a form stands alone, not in a list"),
        ("[0.1, 0.2, 0.1]", "0.1 is there twice, as value 1 and value 3"),
        ("[{x: 1, y: 2}, {y: 2, x: 1}]", "is there twice"),
        ("{linspace: [1, 1.0000000000000002, 3]}", "is there twice"),
        ("", "has no value; write null"),
        ("[1, , 2]", "not valid YAML"),
        ('"a\\0b"', "NUL"),
    ],
)
def test_form_refused(refused: Callable[..., list[str]], written: str, words: str) -> None:
    problems = refused(f"seeds: 2\nparams:\n  a: {written}\n")
    assert len(problems) == 1
    assert problems[0].startswith("line 3: ")
    assert words in problems[0]


def test_equal_numbers_of_different_types_are_two_values(load: Load) -> None:
    assert values(load("params: {a: [1, 1.0, '1', true]}"), "a") == [1, 1.0, "1", True]


@pytest.mark.parametrize("name", ["a b", "-a", "a=b", "", "a\tb", "a\nb", "\u2003"])
def test_name_refused(refused: Callable[..., list[str]], name: str) -> None:
    (problem,) = refused(f"params:\n  {json.dumps(name)}: 1\n")
    assert problem.startswith("line 2: params.")
    assert "no spaces, no = and no leading -" in problem


def test_name_that_is_no_text_is_refused(refused: Callable[..., list[str]]) -> None:
    assert refused("params:\n  1: a\n  true: b\n  ~: c\n") == [
        'line 2: params: the key 1 is not text; write "1" if it is a name',
        'line 3: params: the key true is not text; write "true" if it is a name',
        'line 4: params: the key ~ is not text; write "~" if it is a name',
    ]


# --- seeds


@pytest.mark.parametrize(
    ("written", "expected"), [("3", [0, 1, 2]), ("[7, 3]", [7, 3]), ("1", [0])]
)
def test_seeds(load: Load, written: str, expected: list[Value]) -> None:
    assert values(load(f"seeds: {written}"), "seed") == expected


@pytest.mark.parametrize(
    "written", ["0", "-1", "[]", "[a]", "[1.0]", "2.5", "true", "{range: [3]}"]
)
def test_seeds_refused(refused: Callable[..., list[str]], written: str) -> None:
    (problem,) = refused(f"params: {{a: 1}}\nseeds: {written}")
    assert problem.startswith("line 2: seeds: expected how many")


def test_seeds_twice(refused: Callable[..., list[str]]) -> None:
    assert refused("params: {seed: 1}\nseeds: 3") == [
        "line 2: seeds: makes the parameter seed, which params.seed makes already"
    ]
    assert "line 1: seeds: 1 is there twice, as value 1 and value 2" in refused("seeds: [1, 1]")


# --- the file as a whole


def test_all_problems_at_once(refused: Callable[..., list[str]]) -> None:
    problems = refused(
        "parms: {}\n"
        "params:\n"
        "  lr: [010, .nan]\n"
        "  width: []\n"
        "  lr: 3\n"
        "zip: [[a, b]]\n"
        "slurm: {tme: 3, mem: lots}\n"
        "run: python {script} {flgs}\n"
        "flags: --key\n"
        "warm: torch\n"
    )
    assert [problem.split(": ")[0:2] for problem in problems] == [
        ["line 1", "parms"],
        ["line 3", "params.lr[0]"],
        ["line 3", "params.lr[1]"],
        ["line 4", "params.width"],
        ["line 5", "params.lr"],
        ["line 6", "zip"],
        ["line 7", "slurm.tme"],
        ["line 7", "slurm.mem"],
        ["line 8", "run"],
        ["line 9", "flags"],
        ["line 10", "warm"],
    ]
    assert "did you mean params?" in problems[0]
    assert "did you mean {flags}?" in problems[8]


@pytest.mark.parametrize("key", ["samples", "zip", "exclude", "include", "grids"])
def test_keys_of_later_versions(refused: Callable[..., list[str]], key: str) -> None:
    assert refused(f"params: {{a: 1}}\n{key}: 3") == [
        f"line 2: {key}: not supported yet in this version"
    ]


@pytest.mark.parametrize("text", ["params:\n", "params: {}\n", "run: python x.py\n", "slurm: {}"])
def test_no_parameters(refused: Callable[..., list[str]], text: str) -> None:
    assert refused(text) == ["no parameters: fill `params:`, or give `seeds:`"]


@pytest.mark.parametrize("text", ["5", "[1, 2]", "just text", "params: [1]", "params: 5"])
def test_not_a_mapping(refused: Callable[..., list[str]], text: str) -> None:
    (problem,) = refused(text)
    assert "expected" in problem


def test_sections_left_empty(load: Load) -> None:
    loaded = load("seeds: 2\nparams:\nslurm:\n  # time: 30\n")
    assert len(loaded.points) == 2
    assert loaded.slurm.options == {}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        grid.load(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="a folder, not a file"):
        grid.load(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        grid.load(Path("a\0b"))


# --- how many


def test_too_many_points(refused: Callable[..., list[str]], load: Load) -> None:
    text = "params: {a: {range: [400]}, b: 1, c: {range: [300]}}"
    message = "120,000 points (a 400 × c 300), more than 100,000; take values out, or allow more "
    assert refused(text) == [f"{message}with --max-points"]
    text = "params: {a: {range: [40]}, c: {range: [30]}}"
    assert "1,200 points (a 40 × c 30), more than 1,199" in refused(text, max_points=1199)[0]
    assert len(load(text, max_points=1200).points) == 1200


@pytest.mark.parametrize(
    "text",
    [
        "params: {a: {range: [1000000000000]}}",
        "params: {a: {range: [0, 1e15, 1e-15]}}",
        "params: {a: {linspace: [0, 1, 1000000000000]}}",
        "params: {a: {logspace: [1, 2, 1000000000000]}}",
        "seeds: 1000000000000",
        f"params: {{a: {{range: [1{'0' * 3900}]}}, b: {{range: [1{'0' * 3900}]}}}}",
        "params: {" + ", ".join(f"p{at}: {{range: [1000]}}" for at in range(2000)) + "}",
    ],
)
def test_enormous_grids_are_refused_at_once(refused: Callable[..., list[str]], text: str) -> None:
    begun = time.perf_counter()
    (problem,) = refused(text)
    assert "--max-points" in problem
    assert time.perf_counter() - begun < 0.5


def test_too_many_points_beside_other_problems(refused: Callable[..., list[str]]) -> None:
    problems = refused("params: {a: {range: [1000000]}, b: []}")
    assert len(problems) == 2


def test_10_000_points_load_fast(load: Load) -> None:
    begun = time.perf_counter()
    loaded = load("params:\n  a: {range: [100]}\n  b: {linspace: [0, 1, 20]}\nseeds: 5\n")
    assert time.perf_counter() - begun < 0.4
    assert len({point.id for point in loaded.points}) == 10_000


# --- slurm


def test_slurm(load: Load) -> None:
    loaded = load(
        "seeds: 1\n"
        "slurm:\n"
        "  time: 1:30:00\n"
        "  mem-per-cpu: 4G\n"
        "  cpus_per_task: 2\n"
        "  gres: gpu:1\n"
        "  nodes: 1-4\n"
        "  exclusive: true\n"
        "  nice: false\n"
        "  comment: it's “ours” $(x)\n"
        "  throttle: 100\n"
    )
    assert loaded.slurm.options == {
        "time": "1:30:00",
        "mem-per-cpu": "4G",
        "cpus-per-task": "2",
        "gres": "gpu:1",
        "nodes": "1-4",
        "exclusive": True,
        "comment": "it's “ours” $(x)",
    }
    assert loaded.slurm.throttle == 100


@pytest.mark.parametrize(
    "written",
    ["time: 30", "time: '30'", "time: 1:30", "time: 0:30:00", "time: 2-12", "time: 1-2:3:4",
     "time: UNLIMITED", "mem: 0", "mem: 4000", "mem: 4g", "nice: -5", "nice: true",
     "exclusive: user", "gpus: 2", "gpus: a100:2", "nodelist: node[1-3]", "account: 1234",
     "partition: 'a,b'", "hint: nomultithread"],
)  # fmt: skip
def test_slurm_accepted(load: Load, written: str) -> None:
    assert len(load(f"seeds: 1\nslurm:\n  {written}").slurm.options) == 1


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("time: 1.5", "expected minutes"),
        ("time: 1:2:3:4", "expected minutes"),
        ("time: soon", "expected minutes"),
        ("time: n/a", "expected minutes"),
        ("time: [1]", "expected minutes"),
        ("mem: 4.5G", "expected a number of megabytes"),
        ("mem: -1", "expected a number of megabytes"),
        ("cpus-per-task: 0", "a whole number from 1"),
        ("cpus-per-task: two", "a whole number from 1"),
        ("partition: true", "one line of text"),
        ("partition: ''", "one line of text"),
        ("partition: null", "one line of text"),
        ('comment: "a\\nb"', "one line of text"),
        ("nodelist: [a, b]", "one line of text"),
        ("exclusive: yes", "expected true, false, user"),
        ("throttle: 0", "a whole number from 1"),
        ("throttle: true", "a whole number from 1"),
        ("array: 0-3", "clusterkit sets this option of sbatch itself"),
        ("job_name: x", "clusterkit sets this option of sbatch itself"),
        ("partion: x", "did you mean partition?"),
        ("dependency: x", "other options of sbatch go to --alloc"),
        ("mem:", "expected a number of megabytes"),
    ],
)
def test_slurm_refused(refused: Callable[..., list[str]], written: str, words: str) -> None:
    (problem,) = refused(f"seeds: 1\nslurm:\n  {written}")
    assert problem.startswith(f"line 3: slurm.{written.partition(':')[0]}: ")
    assert words in problem


def test_slurm_same_option_in_both_spellings(refused: Callable[..., list[str]]) -> None:
    assert refused("seeds: 1\nslurm: {mem_per_cpu: 1,\n mem-per-cpu: 2,\n mem: 3}") == [
        "line 2: slurm.mem-per-cpu: excludes mem; keep one",
        "line 3: slurm.mem-per-cpu: written twice, first in line 2",
    ]


# --- run, flags, warm


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("python {script} 'x", "no closing quotation"),
        ("python {script} {seed} {lrr}", "{lrr} is unknown; did you mean {lr}? Allowed: {script},"),
        ("python {script} --x={flags}", "a word of its own"),
        ("python {script} {x", "a lone {"),
        ("python {script} x}", "a lone }"),
        ("python {}", "{} is unknown"),
        ("'' {script}", "names no command"),
        ("' '", None),
        ("5", "a command line in quotes"),
        ("[python, x]", "a command line in quotes"),
        ("{script: 1}", "a command line in quotes"),
        ("", "a command line in quotes"),
    ],
)
def test_run_refused(
    refused: Callable[..., list[str]], load: Load, written: str, words: str | None
) -> None:
    if words is None:
        written, words = '" "', "names no command"
    elif not written.startswith(("[", "{", "5")) and written:
        written = json.dumps(written)
    (problem,) = refused(f"params: {{lr: 1}}\nseeds: 1\nrun: {written}")
    assert problem.startswith("line 3: run: ")
    assert words in problem


def test_run_that_begins_with_a_brace_says_to_quote(refused: Callable[..., list[str]]) -> None:
    (problem,) = refused("seeds: 1\nrun: {script} {flags}")
    assert "not valid YAML" in problem
    assert "has to be quoted" in problem


def test_run_with_a_parameter_named_like_a_placeholder(refused: Callable[..., list[str]]) -> None:
    (problem,) = refused("params: {script: 1}\nrun: python {script}")
    assert "{script} is also a parameter's name" in problem


def test_run_may_name_a_parameter_that_has_a_problem(refused: Callable[..., list[str]]) -> None:
    problems = refused("params: {a: [], b: 1}\nseeds: 0\nrun: x {a} {b} {seed}")
    assert [problem.split(": ")[1] for problem in problems] == ["params.a", "seeds"]


@pytest.mark.parametrize("style", list(FlagStyle))
def test_flags(load: Load, style: FlagStyle) -> None:
    assert load(f"seeds: 1\nflags: {style}").flags is style


def test_flags_and_warm_refused(refused: Callable[..., list[str]]) -> None:
    assert refused("seeds: 1\nflags: posix\nwarm: [torch, 1, a-b, '']") == [
        'line 2: flags: expected "--key value", "--key=value", "key=value" or "none"',
        *(
            f"line 3: warm[{at}]: expected the name of a module, such as sklearn.datasets"
            for at in (1, 2, 3)
        ),
    ]
    assert "expected a list of modules" in refused("seeds: 1\nwarm: torch")[0]


def test_defaults(load: Load) -> None:
    loaded = load("seeds: 1\nwarm: [torch, sklearn.datasets]")
    assert (loaded.run, loaded.flags) == (None, FlagStyle.SPACE)
    assert loaded.warm == ("torch", "sklearn.datasets")
    assert (loaded.slurm.options, loaded.slurm.throttle) == ({}, None)
