"""Edits of a settings file's text: one thing changes, every other byte stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterkit.cluster import config, edit
from clusterkit.errors import ClusterError, UsageError
from clusterkit.paths import templates

TEXT = """\
# é ☃ before
clusters:   # all
  lab:
    provider: nspawn
    workers:
      gpu: {gpus: 1, count:  2 , cpus: 4}   # two
      cpu:
        # how many
        count: 3  # for now
        memory: 8G
  other: {provider: nspawn, workers: {gpu: {count: 7}}}

# the end"""


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_only_the_count_changes(ending: str) -> None:
    text = TEXT.replace("\n", ending)
    assert edit.set_count(text, "lab", "cpu", 12) == text.replace("count: 3", "count: 12")
    assert edit.set_count(text, "lab", "gpu", 0) == text.replace("count:  2", "count:  0")
    assert edit.set_count(text, "other", "gpu", 8) == text.replace("count: 7", "count: 8")
    assert edit.set_count(text, "lab", "cpu", 3) == text


def test_a_byte_order_mark_stays() -> None:
    text = "\ufeff" + TEXT
    assert edit.set_count(text, "lab", "cpu", 4) == text.replace("count: 3", "count: 4")


def test_every_example_can_be_resized() -> None:
    text = (templates() / "init" / "nspawn.yaml").read_text()
    assert edit.set_count(text, "NAME", "cpu", 5) == text.replace("count: 2", "count: 5")
    text = (templates() / "init" / "ec2.yaml").read_text()
    assert edit.set_count(text, "NAME", "gpu", 5) == text.replace("count: 2", "count: 5")


@pytest.mark.parametrize(
    ("text", "group", "words"),
    [
        (TEXT, "tpu", "clusters.lab.workers.tpu: there is no such group"),
        ("", "gpu", "no such group"),
        ("clusters: {lab: {workers: {gpu: {hosts: [a]}}}}", "gpu", "listed under `hosts`"),
        ("clusters: {lab: {workers: {gpu: {cpus: 1}}}}", "gpu", "there is no `count:`"),
        ("clusters: {lab: {workers: {gpu: {count: [1]}}}}", "gpu", "there is no `count:`"),
        ("clusters: {lab: {workers: {gpu: &x {count: 1}, cpu: *x}}}", "cpu", "changing more"),
        ("clusters: {lab: {workers: {gpu: &x {count: 1}, cpu: *x}}}", "gpu", "changing more"),
        ("clusters: {lab: {workers: {gpu: {count: &n 1}, cpu: {count: *n}}}}", "cpu", "more"),
        ("clusters: {lab: {workers: {gpu: {count: }}}}", "gpu", ""),
        ("clusters: {lab: [", "gpu", "not valid YAML"),
    ],
)  # fmt: skip
def test_refused(text: str, group: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        edit.set_count(text, "lab", group, 9)
    assert words in str(caught.value)


BLOCK = "  new:\n    provider: local\n\n    # slurm:\n"


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", "clusters:\n" + BLOCK),
        ("# only words\n", "# only words\nclusters:\n" + BLOCK),
        ("clusters:\n", "clusters:\n" + BLOCK),
        ("clusters:\n  a: {provider: local}\n", "clusters:\n  a: {provider: local}\n\n" + BLOCK),
        ("clusters:\n  a: {provider: local}", "clusters:\n  a: {provider: local}\n\n" + BLOCK),
        (
            "clusters:\n    a:\n        provider: local\n",
            "clusters:\n    a:\n        provider: local\n\n" + BLOCK.replace("  ", "    ", 1)
            .replace("    provider", "      provider").replace("    #", "      #"),
        ),
        (TEXT, TEXT + "\n\n" + BLOCK),
    ],
)  # fmt: skip
def test_a_cluster_is_added_at_the_end(text: str, whole: str, tmp_path: Path) -> None:
    added = edit.add(text, BLOCK)
    assert added == whole
    file = tmp_path / "clusterkit.yaml"
    file.write_text(added)
    assert config.load(file)["new"].provider == "local"


def test_windows_line_endings_stay() -> None:
    added = edit.add("clusters:\r\n  a: {provider: local}\r\n", BLOCK)
    assert added.count("\n") == added.count("\r\n") == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clusters:\n  new: {}\n", "there is a cluster 'new' in the settings file already"),
        ("clusters: {a: {provider: local}}\n", "change it with an editor"),
        ("clusters: {}\n", "change it with an editor"),
        ("- a\n", "it is no mapping of clusters"),
        ("clusters:\n  a: {provider: local}\n...\n", "change it with an editor"),
        ("clusters:\n  a: 1\nextra: 2\n", "change it with an editor"),
    ],
)
def test_additions_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        edit.add(text, BLOCK)


def test_saving_keeps_mode_and_link(tmp_path: Path) -> None:
    real = tmp_path / "real.yaml"
    real.write_text("old")
    real.chmod(0o640)
    link = tmp_path / "clusterkit.yaml"
    link.symlink_to(real)
    edit.save(link, "a\r\nb\n")
    assert link.is_symlink()
    assert real.read_bytes() == b"a\r\nb\n"
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clusterkit.yaml", "real.yaml"]


def test_saving_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="cannot be written"):
        edit.save(tmp_path / "none" / "clusterkit.yaml", "x")
