"""The code as it is now: which files, what identifies them, and what git knows about them.

With git, a snapshot is what is tracked and what is new and not ignored, as it lies on the disk,
of the whole repository that holds the script (submodules and nested repositories too). Without
git it is the script's folder. `Transport.put` takes the files as `take` returns them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from clusterkit.errors import CommandFailed, UsageError
from clusterkit.records import Snapshot
from clusterkit.transport import Completed, Transport

MIB: Final = 2**20
MAX_BYTES: Final = 50 * MIB
MAX_FILES: Final = 100_000
#: A longer diff is replaced by a line that says so: every file is in the snapshot anyway.
MAX_DIFF_BYTES: Final = MIB

#: Never code: left out without git, and among what git does not track.
LEFT_OUT: Final = frozenset(
    {
        ".git", ".hg", ".svn", "__pycache__", ".ipynb_checkpoints", "node_modules",
        ".mypy_cache", ".pytest_cache", ".ruff_cache",
    }
)  # fmt: skip

_ATTEMPTS: Final = 3


def take(
    script: Path, *, run: Transport, max_bytes: int = MAX_BYTES, without: Path | None = None
) -> tuple[Snapshot, dict[str, Path]]:
    """What is there, and its files: relative posix path -> file on this machine.

    `run` is this machine; `without` is a folder that is never code (the data folder). Raises
    UsageError when there is no such script, the files are larger than `max_bytes` together, one
    cannot be shipped (a link that leads out, a name that is not UTF-8, no permission), or they
    change faster than they can be read.
    """
    where = _script(script)
    for attempt in range(_ATTEMPTS):
        try:
            return _take(where, run, max_bytes, without)
        except _ChangedError as error:
            if attempt == _ATTEMPTS - 1:
                raise UsageError(
                    f"{error.file}: changes while it is read; end what writes to it, or let git "
                    "ignore it (.gitignore)"
                ) from error
    raise AssertionError


def verify(snapshot: Snapshot, files: Mapping[str, Path]) -> None:
    """Raise UsageError when `files` (on the disk, or a copy of them) are not the snapshot's."""
    try:
        found = _identity(_read(name, file) for name, file in files.items())
    except _ChangedError as error:
        raise UsageError(f"{error.file}: changed since the snapshot; try again") from error
    if found != snapshot.id:
        raise UsageError("a file of the project changed since the snapshot; try again")


def top(snapshot: Snapshot, files: Mapping[str, Path]) -> Path:
    """The folder on this machine that is the snapshot's own."""
    return files[snapshot.script].parents[snapshot.script.count("/")]


def digests(files: Mapping[str, Path]) -> dict[str, tuple[int, str, bool]]:
    """Name -> size, SHA-256 (hex), whether it is executable, of all that are no links.

    Raises UsageError when one changes meanwhile.
    """
    try:
        contents = [_read(name, file) for name, file in files.items()]
    except _ChangedError as error:
        raise UsageError(f"{error.file}: changed since the snapshot; try again") from error
    return {c.name: (c.size, c.digest, c.kind == "x") for c in contents if c.kind != "l"}


class _ChangedError(Exception):
    def __init__(self, file: Path) -> None:
        super().__init__(str(file))
        self.file = file


@dataclass(frozen=True, slots=True)
class _Project:
    """Where the files are and what git says about them."""

    top: Path
    names: tuple[str, ...]  # relative posix paths, sorted
    commit: str | None = None
    branch: str | None = None
    git: bool = False


@dataclass(frozen=True, slots=True)
class _Content:
    """One file as it was read; `kind` is "x" (executable), "-" or "l" (a link: its target)."""

    name: str
    kind: str
    size: int
    digest: str


def _script(script: Path) -> Path:
    """Absolute, its folder without links (as git reports its own), the last part as given."""
    try:
        if script.is_dir():
            raise UsageError(f"{script}: a folder; name the script inside it")
        if not script.is_file():
            raise UsageError(f"{script}: no such script")
        return script.parent.resolve() / script.name
    except (OSError, ValueError) as error:
        raise UsageError(f"{script}: cannot be read: {error}") from error


def _take(
    script: Path, run: Transport, max_bytes: int, without: Path | None
) -> tuple[Snapshot, dict[str, Path]]:
    project = _with_git(script.parent, run) or _without_git(script.parent)
    name = script.relative_to(project.top).as_posix()
    if without is not None and without.resolve().is_relative_to(project.top):
        inside = f"{without.resolve().relative_to(project.top).as_posix()}/"
        names = tuple(name for name in project.names if not name.startswith(inside))
        project = replace(project, names=names)
    _check_names(project.names)
    files = _present(project)
    if name not in files:
        raise UsageError(
            f"{name}: git ignores it, so the cluster would not get it; take it out of .gitignore, "
            "or add it with `git add --force`"
        )
    _check_size(project, files, max_bytes)
    contents = [_read(name, file) for name, file in files.items()]
    snapshot = Snapshot(
        id=_identity(contents),
        script=name,
        files=tuple((content.name, content.size) for content in contents),
        commit=project.commit,
        branch=project.branch,
        diff=_diff(project.top, run) if project.commit is not None else None,
    )
    return snapshot, files


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            shown = os.fsencode(name).decode(errors="backslashreplace")
            raise UsageError(f"{shown}: its name is not UTF-8; rename it, or ignore it") from error


def _present(project: _Project) -> dict[str, Path]:
    """The names that are files or links now; what was deleted is left out.

    A file below a link to a folder is not there (git sees it so as well): nothing is followed.
    """
    files: dict[str, Path] = {}
    real: dict[str, bool] = {"": True}

    def is_real(folder: str) -> bool:
        known = real.get(folder)
        if known is None:
            known = is_real(folder.rpartition("/")[0]) and not (project.top / folder).is_symlink()
            real[folder] = known
        return known

    top = str(project.top)
    for name in project.names:
        if not is_real(name.rpartition("/")[0]):
            continue
        path = f"{top}/{name}"
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode):
            files[name] = Path(path)
        elif stat.S_ISLNK(mode):
            files[name] = Path(path)
            _check_link(project.top, name)
    return files


def _check_link(top: Path, name: str) -> None:
    """A link may point to anything inside, also to what is not there."""
    target = (top / name).readlink()
    inside = os.path.realpath(top / name).startswith(f"{os.path.realpath(top)}{os.sep}")
    if target.is_absolute() or not inside:
        raise UsageError(
            f"{name}: a link to {target}, which is "
            + ("an absolute path" if inside else "outside of the project")
            + " and means nothing on the cluster; make it relative and inside, or ignore it "
            "(.gitignore)"
        )


def _check_size(project: _Project, files: Mapping[str, Path], max_bytes: int) -> None:
    sizes = {}
    for name, file in files.items():
        try:
            sizes[name] = file.lstat().st_size
        except OSError as error:
            raise _ChangedError(file) from error
    total = sum(sizes.values())
    if total <= max_bytes and len(sizes) <= MAX_FILES:
        return
    biggest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    listed = "\n".join(f"  {_amount(size):>10}  {name}" for name, size in biggest)
    what = "let git ignore what is no code (.gitignore)"
    if not project.git:
        what = "make it a git repository and ignore what is no code (git init, .gitignore)"
    raise UsageError(
        f"{project.top}: {len(sizes):,} files, {_amount(total)} together, are more than a "
        f"snapshot holds ({MAX_FILES:,} files, {_amount(max_bytes)}). The biggest:\n{listed}\n"
        f"To go on, {what}, or allow more with --max-snapshot."
    )


def _amount(size: int) -> str:
    if size >= MIB:
        return f"{size / MIB:,.1f} MiB"
    return f"{size / 1024:,.1f} KiB" if size >= 1024 else f"{size} bytes"


def _read(name: str, file: Path) -> _Content:
    try:
        if file.is_symlink():
            target = os.fsencode(os.readlink(file))  # noqa: PTH115 - its bytes, as they are
            return _Content(name, "l", len(target), hashlib.sha256(target).hexdigest())
        with file.open("rb", buffering=0) as stream:
            before = os.fstat(stream.fileno())
            digest = hashlib.sha256()
            size = 0
            while block := stream.read(MIB):
                digest.update(block)
                size += len(block)
            after = os.fstat(stream.fileno())
    except FileNotFoundError as error:
        raise _ChangedError(file) from error
    except OSError as error:
        raise UsageError(
            f"{file}: cannot be read: {error.strerror}; mend it, or ignore it"
        ) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or (
        size != after.st_size
    ):
        raise _ChangedError(file)
    kind = "x" if after.st_mode & stat.S_IXUSR else "-"
    return _Content(name, kind, size, digest.hexdigest())


def _identity(contents: Iterable[_Content]) -> str:
    """SHA-256 (hex) over path, executable bit and content of every file, sorted by path."""
    digest = hashlib.sha256()
    for content in sorted(contents, key=lambda content: content.name):
        digest.update(f"{content.kind} {content.digest} {content.name}\0".encode())
    return digest.hexdigest()


# --- without git


def _without_git(folder: Path) -> _Project:
    names: list[str] = []
    for name in _walk(folder, ""):
        names.append(name)
        if len(names) > MAX_FILES:
            raise UsageError(
                f"{folder}: more than {MAX_FILES:,} files. Put the script into a folder of its "
                "own, or make it a git repository and ignore what is no code."
            )
    return _Project(folder, tuple(sorted(names)))


def _walk(top: Path, below: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(top / below))
    except FileNotFoundError as error:
        raise _ChangedError(top / below) from error
    except OSError as error:
        raise UsageError(f"{top / below}: cannot be read: {error.strerror}") from error
    if below and any(entry.name == "pyvenv.cfg" for entry in entries):
        return  # a virtual environment
    for entry in entries:
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in LEFT_OUT:
                yield from _walk(top, name)
        elif not entry.name.endswith((".pyc", ".pyo")):
            yield name


# --- with git

# Nothing of the caller's surroundings may point git elsewhere (a hook's GIT_DIR), and nothing of
# the user's own may run: no pager, no hook, no file watcher, no external diff.
_GIT: Final = (
    "env", "-u", "GIT_DIR", "-u", "GIT_WORK_TREE", "-u", "GIT_INDEX_FILE", "-u", "GIT_PREFIX",
    "-u", "GIT_OBJECT_DIRECTORY", "-u", "GIT_COMMON_DIR", "-u", "GIT_NAMESPACE",
    "-u", "GIT_EXTERNAL_DIFF", "-u", "GIT_DIFF_OPTS",
    "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
    "git", "--no-pager", "--literal-pathspecs",
    "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false",
)  # fmt: skip


def _git(run: Transport, folder: Path, *words: str) -> Completed:
    return run.run([*_GIT, *words], cwd=str(folder), timeout=120, check=False)


def _with_git(folder: Path, run: Transport) -> _Project | None:
    """None when there is no git, or `folder` is in no working tree of it."""
    done = _git(run, folder, "rev-parse", "--show-toplevel", "HEAD", "--symbolic-full-name", "HEAD")
    if done.returncode in (126, 127):
        return None
    said = os.fsdecode(done.stdout)
    commit: str | None = None
    branch: str | None = None
    if done.returncode == 0:
        top, commit, reference = said.removesuffix("\n").rsplit("\n", 2)
        branch = reference.removeprefix("refs/heads/") if reference != "HEAD" else None
    elif said.endswith("\nHEAD\n"):  # the top is known, HEAD is not: nothing committed yet
        top = said.removesuffix("\nHEAD\n")
        unborn = _git(run, folder, "symbolic-ref", "--quiet", "--short", "HEAD").text.strip()
        branch = unborn or None
    elif "not a git repository" in done.error_text or "must be run in a work tree" in (
        done.error_text
    ):
        return None
    else:
        _refused(folder, done)
    names = tuple(sorted(set(_listed(Path(top), run, 0))))
    return _Project(Path(top), names, commit, branch, git=True)


def _refused(folder: Path, done: Completed) -> None:
    words = done.error_text.strip()
    if "dubious ownership" in words:
        words = (
            "the repository belongs to another user, so git does not read it. If you trust it: "
            f"git config --global --add safe.directory {folder}"
        )
    raise UsageError(f"{folder}: git could not list the project's files: {words}")


def _listed(top: Path, run: Transport, depth: int) -> Iterator[str]:
    """Tracked files, and new ones that are not ignored, of one repository and those inside it."""
    done = _git(
        run, top, "ls-files", "-z", "-t", "--stage", "--cached", "--others", "--exclude-standard"
    )
    if done.returncode != 0:
        _refused(top, done)
    tracked: list[str] = []
    others: list[str] = []
    nested: list[str] = []
    for entry in os.fsdecode(done.stdout).split("\0"):
        if entry.startswith("? "):
            (nested if entry.endswith("/") else others).append(entry[2:].removesuffix("/"))
        elif entry:  # "H 100644 <object> 0\t<name>"
            head, _, name = entry.partition("\t")
            (nested if head[2:8] == "160000" else tracked).append(name)
    yield from tracked
    environments = {
        name.removesuffix("pyvenv.cfg") for name in others if name.endswith("/pyvenv.cfg")
    }
    for name in others:
        if not LEFT_OUT.isdisjoint(name.split("/")) or name.endswith((".pyc", ".pyo")):
            continue
        if not any(name.startswith(environment) for environment in environments):
            yield name
    for inner in nested:  # submodules, and clones that stand in the working tree
        if depth < 10 and (top / inner / ".git").exists():
            yield from (f"{inner}/{name}" for name in _listed(top / inner, run, depth + 1))


def _diff(top: Path, run: Transport) -> str:
    done = _git(
        run, top, "diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv",
        "--submodule=short", "--src-prefix=a/", "--dst-prefix=b/", "HEAD",
    )  # fmt: skip
    if done.returncode != 0:
        raise CommandFailed(["git", "diff"], done.returncode, "", done.error_text)
    if len(done.stdout) > MAX_DIFF_BYTES:
        return (
            f"# {len(done.stdout):,} bytes of uncommitted changes, more than {MAX_DIFF_BYTES:,}: "
            "not kept as a diff. The snapshot has the files as they were.\n"
        )
    return done.text
