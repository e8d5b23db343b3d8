from __future__ import annotations

import sys
import time
import venv
from pathlib import Path

import pytest

from clusterkit.errors import UsageError
from clusterkit.sweep import environment
from clusterkit.transport import Completed, Local, Transport


@pytest.fixture
def empty_venv(tmp_path: Path) -> Path:
    venv.create(tmp_path / "env", symlinks=True, with_pip=False)
    return tmp_path / "env"


def install(prefix: Path, *folders: str) -> None:
    site = prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    for folder in folders:
        (site / folder).mkdir()


def test_the_running_interpreter_is_what_it_says_when_asked(tmp_path: Path) -> None:
    here = environment.describe(sys.executable, Local())
    # Another name of the same interpreter, so that it is run.
    other = str(Path(sys.executable).parent / ".." / "bin" / Path(sys.executable).name)
    asked = environment.describe(other, Local())
    assert (here.id, here.version, here.packages) == (asked.id, asked.version, asked.packages)
    assert (here.python, asked.python) == (sys.executable, other)
    assert here.packages["pytest"] == pytest.__version__


def test_the_running_interpreter_is_not_started() -> None:
    class Deaf(Local):
        def run(self, *_: object, **__: object) -> Completed:  # type: ignore[override]
            raise AssertionError

    environment.describe(sys.executable, Deaf())
    begun = time.perf_counter()
    environment.describe(sys.executable, Deaf())
    assert time.perf_counter() - begun < 0.05


def test_another_environment(empty_venv: Path) -> None:
    python = str(empty_venv / "bin" / "python")
    empty = environment.describe(python, Local())
    assert empty.packages == {}
    assert empty.version == sys.version.split()[0]
    install(
        empty_venv,
        "Zope.Interface_x-1.0.dist-info",
        "old-2.0-py3.11.egg-info",
        "linked.egg-info",
        "local-1.0+cpu.dist-info",
        "nothing-info",
    )
    full = environment.describe(python, Local())
    assert full.packages == {
        "linked": "",
        "local": "1.0+cpu",
        "old": "2.0",
        "zope-interface-x": "1.0",
    }
    assert full.id != empty.id
    assert environment.describe(python, Local()) == full


def test_the_working_folder_and_pythonpath_change_nothing(
    empty_venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    (tmp_path / "x-1.dist-info").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert environment.describe(str(empty_venv / "bin/python"), Local()).packages == {}


def test_the_same_on_another_machine_is_asked_there() -> None:
    asked: list[tuple[str, ...]] = []

    class Remote(Transport):
        def run(self, argv, **_):  # type: ignore[no-untyped-def]
            asked.append(tuple(argv))
            return Completed(tuple(argv), 0, b'["3.9.2", [["numpy-1.0.dist-info"]]]', b"")

        stream = put = interactive = push = pull = None  # type: ignore[assignment]

    found = environment.describe(sys.executable, Remote())
    assert asked[0][:3] == (sys.executable, "-I", "-c")
    assert (found.version, found.packages) == ("3.9.2", {"numpy": "1.0"})


@pytest.mark.parametrize(
    "content", [None, "#!/bin/sh\nexit 3\n", "#!/bin/sh\necho hello\n", "#!/nowhere/python\n"]
)
def test_an_interpreter_that_does_not_work(tmp_path: Path, content: str | None) -> None:
    python = tmp_path / "python"
    if content is not None:
        python.write_text(content)
        python.chmod(0o755)
    with pytest.raises(UsageError, match="activate the environment") as caught:
        environment.describe(str(python), Local())
    assert str(python) in str(caught.value)


def test_caller_python(empty_venv: Path, tmp_path: Path) -> None:
    active = str(empty_venv / "bin" / "python")
    assert Path(active).is_symlink()
    gone = str(tmp_path / "gone")
    for environ, expected in [
        ({}, "/run/python"),
        ({"VIRTUAL_ENV": ""}, "/run/python"),
        ({"VIRTUAL_ENV": gone}, "/run/python"),
        ({"VIRTUAL_ENV": str(empty_venv)}, active),
        ({"CONDA_PREFIX": str(empty_venv)}, active),
        ({"VIRTUAL_ENV": str(empty_venv), "CONDA_PREFIX": gone}, active),
        ({"VIRTUAL_ENV": gone, "CONDA_PREFIX": str(empty_venv)}, active),
    ]:
        assert environment.caller_python(environ, "/run/python") == expected


def test_caller_python_is_absolute(empty_venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(empty_venv.parent)
    found = environment.caller_python({"VIRTUAL_ENV": empty_venv.name}, "x")
    assert Path(found).is_absolute()
