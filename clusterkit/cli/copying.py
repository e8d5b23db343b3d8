"""cp, sync: the user's own files to a cluster and back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import click

from clusterkit import cluster
from clusterkit.cli.questions import tell
from clusterkit.errors import UsageError
from clusterkit.paths import Home
from clusterkit.transport import Transport


@dataclass(frozen=True, slots=True)
class Place:
    """A path on a cluster; `node` "" is its head. A relative path begins at the login's home."""

    cluster: str
    node: str
    path: str


def place(word: str) -> Place | None:
    """`NAME:path` or `NAME/NODE:path`; None for a path of this machine. Pure.

    What has a slash before its first colon and is no such pair is of this machine: `./a:b`.
    """
    found = re.fullmatch(r"([a-z][a-z0-9-]{0,30})(?:/([A-Za-z0-9][A-Za-z0-9.-]*))?:(.*)", word)
    return None if found is None else Place(found[1], found[2] or "", found[3] or ".")


@click.command("cp")
@click.argument("sources", metavar="SRC...", nargs=-1, required=True)
@click.argument("target", metavar="DST")
@click.option("--dry-run", is_flag=True, help="Only say what would be copied.")
@click.pass_obj
def cp_command(home: Home, sources: tuple[str, ...], target: str, dry_run: bool) -> None:
    """Copy files and folders to a cluster, or from it.

    \b
      clusterkit cp data.npz lab:data/
      clusterkit cp lab:clusterkit/notes.txt .
      clusterkit cp lab/lab-gpu-1:/var/log/syslog .

    Several sources, or a DST that ends with a slash, go into a folder, which is made if missing.
    """
    there = place(target)
    into = len(sources) > 1 or target.endswith("/")
    origins = [place(source) for source in sources]
    if there is None and all(origins):
        if into and not dry_run:
            _make(Path(target))
        for origin in origins:
            assert origin is not None
            _say(f"{_shown(origin)} -> {target}", dry_run)
            if not dry_run:
                _reach(home, origin).pull(origin.path, Path(target))
        return
    if there is None or any(origins):
        raise UsageError(
            "cp copies between this machine and one cluster: name the cluster on one side, as "
            f"NAME:path. Known clusters: {', '.join(cluster.known(home))}"
        )
    for source in map(Path, sources):
        if not source.exists():
            raise UsageError(f"{source}: no such file or folder")
    transport = None if dry_run else _reach(home, there)
    if transport is not None and into:
        transport.run(["mkdir", "-p", "--", there.path])
    for source in map(Path, sources):
        _say(f"{source} -> {_shown(there)}", dry_run)
        if transport is not None:
            transport.push(source, there.path)


@click.command("sync")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("target", metavar="NAME:PATH")
@click.option("--dry-run", is_flag=True, help="Only say how much there is.")
@click.pass_obj
def sync_command(home: Home, folder: Path, target: str, dry_run: bool) -> None:
    """Bring what is new or changed in FOLDER to a folder of a cluster; nothing is deleted there.

    \b
      clusterkit sync data lab:data
    """
    there = place(target)
    if there is None:
        raise UsageError(f"{target}: not of the form NAME:path, such as lab:{folder.name}")
    files, size = _measure(folder)
    amount = f"{size / (1 << 20):,.1f} MiB" if size >= 1 << 20 else f"{size / 1024:,.1f} KiB"
    words = f"{folder} -> {_shown(there)}: {files} file{'' if files == 1 else 's'}, {amount}"
    if dry_run:
        _say(words, dry_run)
        return
    _reach(home, there).push(folder, there.path, update=True)
    click.echo(f"{words}; all of it is there now.")


def _reach(home: Home, there: Place) -> Transport:
    cluster.require_known(there.cluster, home)
    if there.node:
        return cluster.node_transport(there.cluster, home, there.node, say=tell)
    return cluster.connect(there.cluster, home, running=False, say=tell).transport


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} is no folder and cannot be made: {error.strerror}") from error


def _measure(folder: Path) -> tuple[int, int]:
    """How many files there are, and their bytes together."""
    sizes = [file.lstat().st_size for file in folder.rglob("*") if not file.is_dir()]
    return len(sizes), sum(sizes)


def _shown(there: Place) -> str:
    return f"{there.cluster}{'/' if there.node else ''}{there.node}:{there.path}"


def _say(words: str, dry_run: bool) -> None:
    click.echo(f"{words} (--dry-run)" if dry_run else words)
