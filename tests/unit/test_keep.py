"""All of an experiment's files, from one folder to another, and the proof; and the wire."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import store_rows as rows

from clusterkit import paths
from clusterkit.errors import ClusterkitError, TransportError
from clusterkit.harvest import files, keep
from clusterkit.node import build, code, wire
from clusterkit.paths import Home
from clusterkit.records import Experiment
from clusterkit.transport import Connection, Local


class Far(Local):
    """This machine, as if it were another one."""


@pytest.fixture
def there(tmp_path: Path) -> tuple[Connection, Experiment, Home]:
    root = tmp_path / "far" / "experiments" / "0a1b2c3d"
    for name, data in {
        "out/0/a file.txt": b"x" * 200_000,
        "out/0/ünï/deep.bin": os.urandom(70_000),
        "out/1/empty": b"",
        "checkpoints/1/last": b"1",
        "slots/0.0.0.jsonl": b'{"k":"stop","t":1}\n',
        "slots/0.0.0.log": b"hello\n",
        "slots/7_0.out": b"",
        "rounds/0/script": b"#!/bin/bash\n",
        "code/train.py": b"print()\n",
        "run.json": b"{}",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "out/0/newest").symlink_to("a file.txt")
    (root / "out/0/folder").symlink_to("ünï")
    (root / "out/0/other").symlink_to("../../slots")
    (root / "out/0/absolute").symlink_to("/etc/passwd")
    os.link(root / "out/0/a file.txt", root / "out/1/again.txt")
    experiment = rows.experiment(root=str(root), lib=str(paths.package().parent))
    connection = Connection("lab", Far(), str(tmp_path / "far"), sys.executable)
    return connection, experiment, Home(tmp_path / "data")


@pytest.mark.parametrize("packed", [False, True])
def test_all_is_brought_once(
    there: tuple[Connection, Experiment, Home], packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, experiment, home = there
    if packed:
        monkeypatch.setattr(keep, "Local", str)
    assert keep.missing(connection, experiment, home) == (5, 470_007)
    first = keep.bring(connection, experiment, home)
    assert (first.files, first.new) == (10, 10)
    assert keep.missing(connection, experiment, home) == (0, 0)
    root = Path(experiment.root)
    for file in first.folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert file.read_bytes() == (root / file.relative_to(first.folder)).read_bytes()
            assert (
                file.stat().st_mtime_ns
                == (root / file.relative_to(first.folder)).stat().st_mtime_ns
            )
    links = {f.name: str(f.readlink()) for f in first.folder.rglob("*") if f.is_symlink()}
    assert links == {"newest": "a file.txt", "folder": "ünï"}
    assert not (first.folder / "code").exists()
    # Only what changed moves; journals always do.
    (root / "checkpoints/1/last").write_bytes(b"2!")
    assert keep.missing(connection, experiment, home) == (1, 2)
    assert keep.bring(connection, experiment, home).new == 2


def test_a_difference_is_found_though_size_and_time_are_the_same(
    there: tuple[Connection, Experiment, Home],
) -> None:
    connection, experiment, home = there
    file = keep.bring(connection, experiment, home).folder / "out/0/a file.txt"
    status = file.stat()
    file.write_bytes(b"y" * status.st_size)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ClusterkitError, match=r"1 of 12 files .*a file\.txt.*Nothing was deleted"):
        keep.bring(connection, experiment, home)


def test_a_folder_that_is_gone_is_said(there: tuple[Connection, Experiment, Home]) -> None:
    connection, experiment, home = there
    assert keep.kept(home, experiment) is None
    broken = replace(experiment, lib="/nowhere")
    with pytest.raises(TransportError, match="cannot be read on local"):
        keep.bring(connection, broken, home)


def test_what_is_kept_is_read_like_a_cluster(there: tuple[Connection, Experiment, Home]) -> None:
    connection, experiment, home = there
    keep.bring(connection, experiment, home)
    found = keep.kept(home, experiment)
    assert found is not None
    into = home.root / "back"
    assert files.gather(*found, "*.txt", into) == (2, 2)
    assert files.gather(*found, "*.txt", into) == (0, 2)


def test_links_that_lead_out_are_never_made(tmp_path: Path) -> None:
    for target in ("/etc/passwd", "../../x", "../../../x"):
        with pytest.raises(TransportError, match="leads out"):
            keep._link(tmp_path / "out/0/l", target, "out/0/l")


def test_a_packed_stream_can_be_read_while_it_is_written() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb", 0) as out:
        packed = wire.Packed(out)
        packed.write(b"first\n")
        packed.flush()
        source = wire.unpacked(os.fdopen(reader, "rb"))
        assert source.readline() == b"first\n"
        packed.write(b"second\n" * 10_000)
        packed.close()
    assert source.read() == b"second\n" * 10_000
    source.close()


def test_a_plain_stream_is_left_as_it_is() -> None:
    stream = io.BufferedReader(io.BytesIO(b'{"mark": true}\n'))  # type: ignore[arg-type]
    assert wire.unpacked(stream) is stream


def test_compressing_pays_for_text_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"0123456789" * 10_000)
    (tmp_path / "noise").write_bytes(os.urandom(100_000))
    text, noise = str(tmp_path / "text"), str(tmp_path / "noise")
    assert wire.pays([text])
    assert not wire.pays([noise])
    assert not wire.pays([])
    assert not wire.pays([noise] * 9 + [text])


def test_pips_settings_become_uvs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip" / "pip.conf").write_text(
        "[global]\nindex-url = https://a/simple\nextra-index-url = https://b\n  https://c\n"
    )
    found = build._pip_settings({"UV_FIND_LINKS": "x"})
    assert found["UV_DEFAULT_INDEX"] == "https://a/simple"
    assert found["UV_INDEX"] == "https://b https://c"
    assert "UV_FIND_LINKS" not in found
    assert build._pip_settings({"PIP_INDEX_URL": "https://d"})["UV_DEFAULT_INDEX"] == "https://d"


def test_files_of_earlier_snapshots_count_by_their_content(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    for name, text in {"same": "1", "other": "2", "tool": "3"}.items():
        (old / name).write_text(text)
    import hashlib

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    wanted: dict[str, list[object]] = {
        "same": [1, digest("1"), False],
        "other": [1, digest("x"), False],
        "missing": [1, digest("1"), False],
        "tool": [1, digest("3"), True],
    }
    sizes = {name: fact[:2] for name, fact in wanted.items()}
    found = code.have([str(tmp_path / "none"), str(old)], sizes)
    assert found == {"same": str(old), "tool": str(old)}
    assert code.fill(str(new), found, wanted) == []
    assert os.access(new / "tool", os.X_OK)
    assert not os.access(new / "same", os.X_OK)
    (old / "same").write_text("9")
    assert code.fill(str(new), found, wanted) == ["same"]


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [("", True), ("3.11", True), ("3.11.2", True), ("3.12", False), ("3", True), (">=3.10", True),
     (">=3.10,<3.12", True), (">= 3.12", False), ("<3.11", False), ("<=3.11.2", True),
     ("==3.11.*", True), ("==3.11", False), ("!=3.11.*", False), ("!=3.11.2", False),
     ("~=3.10", True), ("~=3.10.1", False), (">3.11", False), (">3.10", True), ("pypy", False)],
)  # fmt: skip
def test_the_clusters_own_python_is_taken_where_it_fits(wanted: str, fits: bool) -> None:
    assert build.fits(wanted, (3, 11, 2)) is fits
