"""What `attach` finds out about a SLURM, and what it says when something is missing there.

The cluster is this machine with programs of the test's own; over ssh: tests/integration.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from clusterkit import cluster
from clusterkit.cluster import attach, facts, stored
from clusterkit.cluster.facts import Facts
from clusterkit.cluster.spec import AttachSpec
from clusterkit.errors import ClusterNotStarted
from clusterkit.paths import Home

CONFIG = "MaxArraySize            = 2001\nSLURM_VERSION           = 23.11.4\n"
PARTITIONS = "short*|1:00:00|30:00|0/8/0/8\nlong|infinite|n/a|4/4/0/64\n"
NODES = "n1|1000\nn2|2000\nn2|2000\n"
SINFO = f"""
case "$*" in
  *%P*) printf {shlex.quote(PARTITIONS)};;
  *) echo "$*" >> "$0.asked"; printf {shlex.quote(NODES)};;
esac
"""


class Site:
    """The cluster: `bin` is all of its PATH, `home` the account's."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.home = folder / "bin", folder / "home"
        self.bin.mkdir()
        self.home.mkdir()
        for tool in ("sh", "env", "dirname", "true", "test"):
            found = shutil.which(tool)
            assert found is not None
            (self.bin / tool).symlink_to(found)
        (self.bin / "python3").symlink_to(sys.executable)
        self.program("scontrol", f"printf {shlex.quote(CONFIG)}")
        self.program("sinfo", SINFO)
        self.program("sbatch", "exit 1")

    def program(self, name: str, script: str, folder: Path | None = None) -> Path:
        file = (folder or self.bin) / name
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    def attach(self, **settings: Any) -> Facts:
        return attach.attach("uni", AttachSpec.model_validate(settings))

    def refused(self, **settings: Any) -> str:
        with pytest.raises(ClusterNotStarted) as caught:
            self.attach(**settings)
        words = str(caught.value)
        assert words.startswith("cluster 'uni': ")
        return words


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path)
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.setenv("HOME", str(made.home))
    # A login shell of the machine's own would know the machine's own SLURM.
    monkeypatch.setenv("SHELL", str(made.program("plain", "exec env", tmp_path / "shells")))
    for name in ("SLURM_CONF", "SCRATCH"):
        monkeypatch.delenv(name, raising=False)
    return made


def test_what_is_found_out(site: Site) -> None:
    found = site.attach()
    assert found.slurm_version == "23.11.4"
    assert (found.max_array_size, found.default_time) == (2001, 1800)
    assert (found.cpus, found.memory) == (8, 3000)
    assert found.root == f"{site.home}/clusterkit"
    assert found.hosts == {}
    assert found.path == ""
    assert "--partition=short" in (site.bin / "sinfo.asked").read_text()
    assert not list(site.home.iterdir())  # nothing is made there


def test_the_chosen_partitions_count(site: Site) -> None:
    both = site.attach(sbatch={"partition": "short,long", "account": "me"})
    assert (both.cpus, both.default_time) == (72, 1800)
    assert both.sbatch == {"partition": "short,long", "account": "me"}
    assert site.attach(sbatch={"partition": "long"}).default_time is None
    words = site.refused(sbatch={"partition": "lung"})
    assert "no partition 'lung'; it has short, long" in words


def test_no_default_partition(site: Site) -> None:
    site.program("sinfo", SINFO.replace("short*", "short"))
    assert "no partition on this machine is the default one" in site.refused()
    assert site.attach(sbatch={"partition": "short"}).cpus == 8


def test_slurm_that_does_not_answer(site: Site) -> None:
    site.program("scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    words = site.refused()
    assert "SLURM does not answer on this machine" in words
    assert "Unable to contact slurm controller" in words
    assert "slurm_conf:" in words
    words = site.refused(slurm_conf="/nowhere/slurm.conf")
    assert "there is no /nowhere/slurm.conf on this machine that this account may read" in words


def test_slurm_that_only_a_login_finds(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("scontrol", "sinfo", "sbatch"):
        (site.bin / name).unlink()
    words = site.refused()
    assert "there is no sbatch on this machine" in words
    assert "~/.profile" in words
    far = tmp_path / "opt"
    site.program("scontrol", f'[ "$SLURM_CONF" = /opt/conf ] && printf {shlex.quote(CONFIG)}', far)
    site.program("sinfo", SINFO, far)
    site.program("sbatch", "", far)
    login = site.program(
        "login",
        f"echo Welcome to = the cluster; export SLURM_CONF=/opt/conf PATH={far}:$PATH; exec env",
        tmp_path / "shells",
    )
    monkeypatch.setenv("SHELL", str(login))
    found = site.attach()
    assert found.path == f"{far}:{site.bin}"
    assert found.slurm_conf == "/opt/conf"
    env = cluster.connection(found).env
    assert env == {"SLURM_CONF": "/opt/conf", "PATH": found.path}


def test_python(site: Site) -> None:
    assert site.attach().python == str(site.bin / "python3")
    words = site.refused(python="/opt/python9")
    assert "'/opt/python9' cannot be run on this machine" in words
    assert "`python:` in the settings" in words
    site.program("python3", "printf '3 6\\n/usr/bin/python3\\n'")
    good = site.program("python3.12", "")
    words = site.refused()
    assert "/usr/bin/python3 on this machine is Python 3.6; 3.9 or newer is needed" in words
    assert f"there is {good}" in words
    site.program("python3", "echo Hello")
    assert "it is no Python" in site.refused()


def test_a_shell_that_talks(site: Site) -> None:
    site.program("true", "echo Welcome")  # as ~/.bashrc would, over ssh
    words = site.refused()
    assert "prints 'Welcome' with every command" in words
    assert "~/.bashrc" in words


def test_root(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert site.attach(root="~/a b$(id)`id`'é/").root == f"{site.home}/a b$(id)`id`'é"
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scr atch"))
    assert site.attach(root="$SCRATCH/x").root == f"{tmp_path}/scr atch/x"
    assert site.attach(root="${SCRATCH}x").root == f"{tmp_path}/scr atchx"
    assert "$WORK has no value on this machine" in site.refused(root="$WORK/x")
    login = site.program("login", f"export WORK={tmp_path}/work; exec env", tmp_path / "shells")
    monkeypatch.setenv("SHELL", str(login))
    assert site.attach(root="$WORK/x").root == f"{tmp_path}/work/x"
    monkeypatch.setenv("PROJECT", "physics")
    assert "means 'physics/x'" in site.refused(root="$PROJECT/x")
    file = tmp_path / "file"
    file.touch()
    words = site.refused(root=f"{file}/x/y")
    assert f"{file}/x/y cannot be made on this machine: {file} is no folder" in words


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_root_that_may_not_be_made(site: Site) -> None:
    assert "/proc is no folder that this account may write to" in site.refused(root="/proc/x")


def test_hosts_as_ssh_knows_them() -> None:
    one = attach._address("me@uni:2222")
    assert (one.user, one.host, one.port, one.own_settings) == ("me", "uni", 2222, True)
    six = attach._address("[fe80::1]:22")
    assert (six.host, six.port) == ("fe80::1", 22)


def settings(file: Path, **values: str) -> Home:
    lines = "".join(f", {key}: {value}" for key, value in values.items())
    file.write_text(f"clusters:\n  uni: {{provider: attach{lines}}}\n")
    return Home(file.parent / "data", file)


def test_the_first_use_attaches(site: Site, tmp_path: Path) -> None:
    home = settings(tmp_path / "clusterkit.yaml")
    folder = home.cluster("uni")
    site.program("scontrol", "exit 1")
    with pytest.raises(ClusterNotStarted, match="SLURM does not answer"):
        cluster.connect("uni", home)
    assert stored.provider(folder) is None  # a failure is not remembered
    site.program("scontrol", f"printf {shlex.quote(CONFIG)}")
    assert cluster.connect("uni", home).root == f"{site.home}/clusterkit"
    assert facts.read(folder) is not None
    assert stored.provider(folder) == "attach"


def test_new_settings_are_heeded(site: Site, tmp_path: Path) -> None:
    home = settings(tmp_path / "clusterkit.yaml")
    cluster.connect("uni", home)
    site.program("scontrol", "exit 1")
    cluster.connect("uni", home)  # what is known is used
    site.program("scontrol", f"printf {shlex.quote(CONFIG)}")
    settings(tmp_path / "clusterkit.yaml", root="~/other")
    written = (home.cluster("uni") / stored.FILE).stat().st_mtime_ns
    os.utime(tmp_path / "clusterkit.yaml", ns=(written + 1, written + 1))
    assert cluster.connect("uni", home).root == f"{site.home}/other"
    (tmp_path / "clusterkit.yaml").write_text("clusters: {uni: {provider: atach}}")
    os.utime(tmp_path / "clusterkit.yaml")
    assert cluster.connect("uni", home).root == f"{site.home}/other"
    (tmp_path / "clusterkit.yaml").unlink()
    gone = Home(home.root)
    assert cluster.connect("uni", gone).root == f"{site.home}/other"
