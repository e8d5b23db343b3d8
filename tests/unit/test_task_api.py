"""`clusterkit.log`, `params`, `checkpoint_dir`; and what node code may use."""

from __future__ import annotations

import ast
import enum
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clusterkit
from clusterkit.node import journal, task

NODE = Path(clusterkit.__file__).parent / "node"


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "j.jsonl"
    path.touch()
    monkeypatch.setenv("CLUSTERKIT_JOURNAL", str(path))
    monkeypatch.setenv("CLUSTERKIT_TASK", "3")
    monkeypatch.setenv("CLUSTERKIT_ATTEMPT", "2")
    return path


class Level(enum.IntEnum):
    HIGH = 7


class Tensor:
    """As PyTorch's: a scalar's `tolist` is a number."""

    def tolist(self) -> float:
        return 0.5


def test_values_as_they_stand_in_the_journal(book: Path) -> None:
    clusterkit.log(
        i=1, f=0.1, b=True, n=None, s="é\n\ud800",
        np_f=np.float64(0.5), np_f32=np.float32(0.5), np_i=np.int64(3), np_b=np.bool_(True),
        array=np.arange(4).reshape(2, 2), zero_d=np.array(2.5), tensor=Tensor(), level=Level.HIGH,
        nested={"a": (1, np.int8(2)), 3: [None]}, np_s=np.str_("x"),
    )  # fmt: skip
    (record,) = journal.read(str(book))
    assert (record["k"], record["task"], record["attempt"]) == ("log", 3, 2)
    assert record["values"] == {
        "i": 1, "f": 0.1, "b": True, "n": None, "s": "é\n\ud800",
        "np_f": 0.5, "np_f32": 0.5, "np_i": 3, "np_b": True,
        "array": [[0, 1], [2, 3]], "zero_d": 2.5, "tensor": 0.5, "level": 7,
        "nested": {"a": [1, 2], "3": [None]}, "np_s": "x",
    }  # fmt: skip
    assert record["values"]["b"] is True
    assert record["values"]["np_b"] is True
    assert "step" not in record


def test_steps(book: Path) -> None:
    for step in (0, 1.5, np.int64(7)):
        clusterkit.log(step=step, v=1)
    assert [record["step"] for record in journal.read(str(book))] == [0, 1.5, 7]


def deep() -> Any:
    value: Any = 1
    for _ in range(100):
        value = [value]
    return value


def cycle() -> Any:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "x is a builtins.object"),
        ({"in": [{1, 2}]}, r"x\.in is a builtins.set"),
        (b"bytes", "builtins.bytes"),
        (1j, "builtins.complex"),
        (np.complex128(1j), "complex"),
        (deep(), "nested deeper than 64"),
        (cycle(), "nested deeper than 64"),
    ],
)
def test_what_cannot_be_logged_is_named(book: Path, value: object, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        clusterkit.log(ok=1, x=value)
    assert book.read_bytes() == b""


def test_outside_a_task_it_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in list(os.environ):
        if name.startswith("CLUSTERKIT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    clusterkit.log(loss=0.5, step=3, a=np.arange(2))
    assert capsys.readouterr().out == "step=3 loss=0.5 a=[0, 1]\n"
    assert clusterkit.params() == {}
    assert clusterkit.checkpoint_dir() == str(tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint").is_dir()


def test_params(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERKIT_PARAMS", json.dumps({"é": [1, None], "lr": 1e-5}))
    assert clusterkit.params() == {"é": [1, None], "lr": 1e-5}


def test_another_journal_is_opened_when_the_task_changes(
    book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clusterkit.log(v=1)
    other = book.with_name("k.jsonl")
    other.touch()
    monkeypatch.setenv("CLUSTERKIT_JOURNAL", str(other))
    clusterkit.log(v=2)
    assert [r["values"]["v"] for r in journal.read(str(book))] == [1]
    assert [r["values"]["v"] for r in journal.read(str(other))] == [2]
    task._forget()
    clusterkit.log(v=3)
    assert len(journal.read(str(other))) == 2


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=NODE.parent.parent,
    )
    return set(done.stdout.split())


def test_importing_clusterkit_imports_nothing_heavy() -> None:
    loaded = modules_after("import clusterkit")
    heavy = {
        "sqlalchemy", "pandas", "numpy", "click", "yaml", "jinja2", "alembic", "pydantic", "rich",
        "pyarrow", "ansible_runner", "subprocess", "sqlite3", "asyncio", "socket",
    }  # fmt: skip
    assert not loaded & heavy
    assert "clusterkit.node.task" in loaded


def test_help_imports_no_command() -> None:
    code = "from clusterkit.cli import main; import io, contextlib\n"
    code += "with contextlib.redirect_stdout(io.StringIO()): main.run(['--help'])\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "import sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True, cwd=NODE.parent.parent,
    )  # fmt: skip
    loaded = set(done.stdout.split())
    assert not loaded & {"sqlalchemy", "pandas", "yaml", "jinja2", "alembic", "ansible_runner"}
    assert not {
        name for name in loaded if name.startswith(("clusterkit.sweep", "clusterkit.store"))
    }


@pytest.mark.parametrize("file", sorted(NODE.glob("*.py")), ids=lambda file: file.name)
def test_node_code_is_python_3_9(file: Path) -> None:
    """Its grammar, and nothing of later standard libraries that is evaluated when it runs."""
    tree = ast.parse(file.read_text(), feature_version=(3, 9))
    lazy = any(
        isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        and any(alias.name == "annotations" for alias in node.names)
        for node in tree.body
    )
    code = [node for node in tree.body if not isinstance(node, ast.Expr)]
    assert lazy or not code, "from __future__ import annotations"
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Match)
        if isinstance(node, ast.Call):
            names = {keyword.arg for keyword in node.keywords}
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            assert not (called == "zip" and "strict" in names), f"line {node.lineno}"
            assert not (called == "dataclass" and {"slots", "kw_only"} & names), node.lineno
        if isinstance(node, ast.ImportFrom):
            later = {"tomllib", "StrEnum", "Self", "TypeAlias", "ParamSpec", "UTC", "chdir"}
            assert not later & {alias.name for alias in node.names}, f"line {node.lineno}"
        # Base classes, aliases and defaults are evaluated: no `X | Y` with a type among them.
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp):
            assert not (
                isinstance(node.value.op, ast.BitOr)
                and any(
                    isinstance(side, ast.Constant) and side.value is None
                    for side in (node.value.left, node.value.right)
                )
            ), f"line {node.lineno}"


def test_node_imports_the_standard_library_and_itself_alone() -> None:
    for file in NODE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            for name in names:
                top = name.split(".")[0]
                assert top in sys.stdlib_module_names or name.startswith("clusterkit.node"), (
                    f"{file.name}:{node.lineno}: {name}"
                )
