from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterkit.errors import UsageError
from clusterkit.records import Snapshot
from clusterkit.sweep import snapshot
from clusterkit.transport import Completed, Local

AWKWARD = [
    "a b.py",
    "it's.py",
    'q"q.py',
    "new\nline.py",
    "ünï ☃.py",
    "-x.py",
    "$(x).py",
    "\\.py",
    "*",
]


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a script, not yet a repository."""
    folder = tmp_path / "pro ject"
    folder.mkdir()
    (folder / "train.py").write_text("print(1)\n")
    return folder


def git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always",
         "-c", "init.defaultBranch=main", *words],
        cwd=folder, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip


@pytest.fixture
def repo(project: Path) -> Path:
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    return project


def take(script: Path, **options: int) -> tuple[Snapshot, dict[str, Path]]:
    return snapshot.take(script, run=Local(), **options)


def names(script: Path) -> list[str]:
    taken, files = take(script)
    assert [name for name, _ in taken.files] == list(files)
    assert all(
        file.lstat().st_size == size
        for (_, size), file in zip(taken.files, files.values(), strict=True)
    )
    return list(files)


# --- with git


def test_tracked_and_new_but_not_ignored(repo: Path) -> None:
    (repo / ".gitignore").write_text("*.log\n/data/\n")
    (repo / "run.log").write_text("x")
    (repo / "data").mkdir()
    (repo / "data" / "big").write_text("x")
    (repo / "lib").mkdir()
    (repo / "lib" / "new.py").write_text("x = 1\n")
    taken, files = take(repo / "train.py")
    assert list(files) == [".gitignore", "lib/new.py", "train.py"]
    assert files["lib/new.py"] == repo / "lib/new.py"
    assert taken.script == "train.py"
    assert taken.commit == git(repo, "rev-parse", "HEAD")
    assert taken.branch == "main"
    assert taken.diff == ""
    assert taken.size == sum(file.stat().st_size for file in files.values())


def test_the_whole_repository_of_a_script_below(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repo / "a" / "b").mkdir(parents=True)
    (repo / "a" / "b" / "run.py").write_text("")
    expected = take(repo / "a/b/run.py")
    assert expected[0].script == "a/b/run.py"
    assert list(expected[1]) == ["a/b/run.py", "train.py"]
    monkeypatch.chdir(repo / "a")
    assert take(Path("b/run.py")) == expected
    assert take(Path("../a/b/../b/run.py")) == expected
    link = repo.parent / "link"
    link.symlink_to(repo)
    assert take(link / "a/b/run.py") == expected


def test_uncommitted_changes(repo: Path) -> None:
    before, _ = take(repo / "train.py")
    (repo / "train.py").write_text("print(2)\n")
    (repo / "train.py").chmod(0o755)
    after, _ = take(repo / "train.py")
    assert after.id != before.id
    assert after.diff is not None
    assert "-print(1)\n+print(2)" in after.diff
    git(repo, "stash")
    assert take(repo / "train.py")[0].id == before.id
    # What was kept can be applied again.
    patch = repo.parent / "patch"
    patch.write_text(after.diff)
    git(repo, "apply", str(patch))
    assert take(repo / "train.py")[0].id == after.id


def test_the_diff_is_the_same_for_every_user(repo: Path) -> None:
    (repo / "train.py").write_text("print(2)\n")
    expected = take(repo / "train.py")[0].diff
    for key, value in [
        ("diff.noprefix", "true"), ("color.ui", "always"), ("diff.external", "false"),
        ("core.pager", "false"), ("core.fsmonitor", "false"), ("diff.mnemonicPrefix", "true"),
    ]:  # fmt: skip
        git(repo, "config", key, value)
    assert take(repo / "train.py")[0].diff == expected


def test_a_long_diff_is_not_kept(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MAX_DIFF_BYTES", 100)
    (repo / "train.py").write_text("print(2)\n" * 100)
    diff = take(repo / "train.py")[0].diff
    assert diff is not None
    assert "more than 100: not kept as a diff" in diff


def test_no_commit_yet_and_a_detached_head(project: Path) -> None:
    git(project, "init", "-q", "-b", "trunk")
    taken, files = take(project / "train.py")
    assert list(files) == ["train.py"]
    assert (taken.commit, taken.branch, taken.diff) == (None, "trunk", None)
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    git(project, "checkout", "-q", "--detach")
    taken, _ = take(project / "train.py")
    assert (taken.commit, taken.branch) == (git(project, "rev-parse", "HEAD"), None)


def test_deleted_and_replaced_files(repo: Path) -> None:
    for name in ("gone", "folder", "linked/inner"):
        (repo / name).parent.mkdir(exist_ok=True)
        (repo / name).write_text(name)
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "second")
    (repo / "gone").unlink()
    (repo / "folder").unlink()
    (repo / "folder").mkdir()
    (repo / "folder" / "inside").write_text("")
    shutil.move(repo / "linked", repo / "real")
    (repo / "linked").symlink_to("real")
    assert names(repo / "train.py") == ["folder/inside", "linked", "real/inner", "train.py"]


@pytest.mark.parametrize("tracked", [True, False])
def test_awkward_names(repo: Path, tracked: bool) -> None:
    for name in AWKWARD:
        (repo / name).write_text(name)
        (repo / f"d {name}").mkdir()
        (repo / f"d {name}" / name).write_text(name)
    if tracked:
        git(repo, "add", ".")
    taken, files = take(repo / "-x.py")
    assert taken.script == "-x.py"
    assert list(files) == sorted(["train.py", *AWKWARD, *(f"d {name}/{name}" for name in AWKWARD)])
    for name in AWKWARD:
        assert take(repo / name)[0].id == taken.id
        assert files[name].read_text() == name


def test_a_name_that_is_not_utf_8(repo: Path) -> None:
    Path(os.fsdecode(os.fsencode(repo) + b"/\xff.py")).touch()
    with pytest.raises(UsageError, match=r"\\xff\.py: its name is not UTF-8"):
        take(repo / "train.py")


def test_submodules_and_clones_inside(repo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    (other / "lib.py").write_text("")
    (other / ".gitignore").write_text("*.o\n")
    git(other, "add", ".")
    git(other, "commit", "-qm", "x")
    git(repo, "submodule", "--quiet", "add", str(other), "vendor/other")
    git(repo, "commit", "-qm", "submodule")
    git(repo, "clone", "-q", str(other), "clone")
    (repo / "vendor/other/new.py").write_text("")
    (repo / "vendor/other/x.o").write_text("")
    (repo / "clone/x.o").write_text("")
    assert names(repo / "train.py") == [
        ".gitmodules", "clone/.gitignore", "clone/lib.py", "train.py",
        "vendor/other/.gitignore", "vendor/other/lib.py", "vendor/other/new.py",
    ]  # fmt: skip
    git(repo, "submodule", "--quiet", "deinit", "--force", "vendor/other")
    assert "vendor/other/lib.py" not in names(repo / "train.py")


def test_caches_and_environments_that_nobody_ignored(repo: Path) -> None:
    for name in ("__pycache__/a.pyc", "e/pyvenv.cfg", "e/lib/x.py", "b.pyc", "node_modules/x/y.js"):
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_text("")
    assert names(repo / "train.py") == ["train.py"]
    git(repo, "add", "--force", "node_modules")
    assert names(repo / "train.py") == ["node_modules/x/y.js", "train.py"]


def test_a_script_that_git_ignores(repo: Path) -> None:
    (repo / ".gitignore").write_text("scratch/\n")
    (repo / "scratch").mkdir()
    (repo / "scratch" / "x.py").write_text("")
    with pytest.raises(UsageError, match=r"scratch/x\.py: git ignores it.*git add --force"):
        take(repo / "scratch/x.py")


def test_surroundings_do_not_lead_git_astray(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = take(repo / "train.py")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_EXTERNAL_DIFF"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    assert take(repo / "train.py") == expected


def test_somebody_else_s_repository(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(UsageError, match=r"belongs to another user.*safe\.directory"):
        take(repo / "train.py")


def test_a_broken_repository(repo: Path) -> None:
    (repo / ".git" / "index").write_bytes(b"nonsense")
    with pytest.raises(UsageError, match=r"git could not list the project's files: .*index"):
        take(repo / "train.py")


def test_without_git_the_program(repo: Path) -> None:
    class Gitless(Local):
        def run(self, argv, **options):  # type: ignore[no-untyped-def]
            return Completed(tuple(argv), 127, b"", b"env: 'git': No such file or directory")

    taken, files = snapshot.take(repo / "train.py", run=Gitless())
    assert list(files) == ["train.py"]
    assert taken.commit is None


# --- without git


def test_the_script_s_folder(project: Path) -> None:
    for name in [
        "lib/a.py", "lib/__pycache__/a.pyc", "b.pyc", ".venv/pyvenv.cfg", ".venv/bin/x",
        ".ipynb_checkpoints/x", "node_modules/x", ".hidden", "empty/.git/config", *AWKWARD,
    ]:  # fmt: skip
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("")
    (project.parent / "beside.py").write_text("")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(project / "socket"))
        assert names(project / "train.py") == sorted([".hidden", "lib/a.py", "train.py", *AWKWARD])
    taken, _ = take(project / "train.py")
    assert (taken.commit, taken.branch, taken.diff) == (None, None, None)


# --- the id


def test_the_id_is_of_names_modes_and_contents(project: Path) -> None:
    def identity() -> str:
        return take(project / "train.py")[0].id

    seen = [identity()]
    os.utime(project / "train.py", (1, 1))
    assert identity() == seen[0]
    (project / "b").write_text("")
    seen.append(identity())
    (project / "b").rename(project / "c")
    seen.append(identity())
    (project / "c").chmod(0o755)
    seen.append(identity())
    (project / "c").write_text("train.py")
    (project / "c").chmod(0o644)
    seen.append(identity())
    (project / "c").unlink()
    (project / "c").symlink_to("train.py")
    seen.append(identity())
    assert len(set(seen)) == len(seen)


def test_the_id_does_not_depend_on_the_place_nor_on_git(repo: Path, tmp_path: Path) -> None:
    shutil.copytree(repo, tmp_path / "copy", ignore=shutil.ignore_patterns(".git"))
    assert take(tmp_path / "copy/train.py")[0].id == take(repo / "train.py")[0].id


def test_what_put_makes_of_it_is_the_snapshot(repo: Path, tmp_path: Path) -> None:
    for name in AWKWARD:
        (repo / name).write_text(name)
    (repo / "run.sh").write_text("#!/bin/sh\n")
    (repo / "run.sh").chmod(0o755)
    (repo / "link").symlink_to("run.sh")
    taken, files = take(repo / "train.py")
    Local().put(files, str(tmp_path / "made"))
    copies = {name: tmp_path / "made" / name for name in files}
    snapshot.verify(taken, copies)
    copies["run.sh"].chmod(0o644)
    with pytest.raises(UsageError, match="changed since the snapshot"):
        snapshot.verify(taken, copies)
    copies["run.sh"].unlink()
    with pytest.raises(UsageError, match="changed since the snapshot"):
        snapshot.verify(taken, copies)


# --- links, limits, and what goes wrong


def test_links_inside(project: Path) -> None:
    (project / "sub").mkdir()
    (project / "sub" / "up").symlink_to("../train.py")
    (project / "folder").symlink_to("sub")
    (project / "nowhere").symlink_to("not/there")
    assert names(project / "train.py") == ["folder", "nowhere", "sub/up", "train.py"]


@pytest.mark.parametrize("git_too", [True, False])
@pytest.mark.parametrize("target", ["/etc/passwd", "../beside", "..", "inside"])
def test_links_that_lead_out(project: Path, git_too: bool, target: str) -> None:
    (project.parent / "beside").write_text("")
    if target == "inside":
        target = str(project / "train.py")
    (project / "link").symlink_to(target)
    if git_too:
        git(project, "init", "-q")
    with pytest.raises(UsageError) as caught:
        take(project / "train.py")
    assert str(caught.value).startswith(f"link: a link to {target}, which is")


def test_too_large(repo: Path) -> None:
    for size in range(1, 8):
        (repo / f"data{size}.bin").write_bytes(b"x" * size * 1024)
    with pytest.raises(UsageError) as caught:
        take(repo / "train.py", max_bytes=20_000)
    message = str(caught.value)
    assert "8 files, 28.0 KiB together" in message
    assert [line.split()[-1] for line in message.splitlines()[1:-1]] == [
        f"data{size}.bin" for size in (7, 6, 5, 4, 3)
    ]
    assert ".gitignore" in message
    assert "--max-snapshot" in message
    assert take(repo / "train.py", max_bytes=30_000)[0].size == 28 * 1024 + 9


def test_too_many_files(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MAX_FILES", 3)
    for name in "abcd":
        (project / name).write_text("")
    with pytest.raises(UsageError, match="more than 3 files"):
        take(project / "train.py")
    git(project, "init", "-q")
    with pytest.raises(UsageError, match="5 files"):
        take(project / "train.py")


def test_no_such_script(project: Path) -> None:
    with pytest.raises(UsageError, match="no such script"):
        take(project / "none.py")
    with pytest.raises(UsageError, match="a folder; name the script inside"):
        take(project)
    with pytest.raises(UsageError, match="no such script"):
        take(project / "train.py" / "x")
    with pytest.raises(UsageError):
        take(Path("a\0b"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(project: Path) -> None:
    (project / "secret").write_text("")
    (project / "secret").chmod(0)
    with pytest.raises(UsageError, match="secret: cannot be read: Permission denied"):
        take(project / "train.py")


def spoil(monkeypatch: pytest.MonkeyPatch, happens: Callable[[int, Path], None]) -> None:
    """Let something happen to each file just before it is read."""
    read = snapshot._read
    calls = iter(range(1000))

    def reading(name: str, file: Path) -> object:
        happens(next(calls), file)
        return read(name, file)

    monkeypatch.setattr(snapshot, "_read", reading)


def test_a_file_that_vanishes_meanwhile(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "a.tmp").write_text("")
    spoil(monkeypatch, lambda call, file: file.unlink() if call == 0 else None)
    assert list(take(project / "train.py")[1]) == ["train.py"]


def test_files_that_never_stand_still(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanishes(call: int, file: Path) -> None:
        if file.suffix == ".tmp":
            file.unlink()

    spoil(monkeypatch, vanishes)
    made = snapshot._without_git

    def restless(folder: Path) -> object:
        (folder / "a.tmp").write_text("")
        return made(folder)

    monkeypatch.setattr(snapshot, "_without_git", restless)
    with pytest.raises(UsageError, match=r"a\.tmp: changes while it is read"):
        take(project / "train.py")


def test_fast_enough(repo: Path) -> None:
    for folder in range(20):
        (repo / f"d{folder}").mkdir()
        for file in range(100):
            (repo / f"d{folder}" / f"f{file}.py").write_text(f"x = {file}\n")
    git(repo, "add", ".")
    begun = time.perf_counter()
    assert len(take(repo / "train.py")[1]) == 2001
    assert time.perf_counter() - begun < 0.8  # about 0.1 on a machine that does nothing else
