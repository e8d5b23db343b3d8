"""The provider `local` without any daemon."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from clusterkit.cluster import ansible, packages, private
from clusterkit.cluster.access import Identity
from clusterkit.cluster.providers import local
from clusterkit.cluster.spec import LocalSpec
from clusterkit.errors import ClusterError, SetupFailed


def _provider(folder: Path) -> local.LocalProvider:
    return local.LocalProvider(LocalSpec(), Identity("local", "0" * 16, folder), folder)


def test_missing_packages_without_root_name_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = _provider(tmp_path)
    monkeypatch.setattr(packages, "BINARIES", {"surely-not-here": "slurmd"})
    monkeypatch.setattr(packages.os, "getuid", lambda: 12345)
    monkeypatch.setattr(packages, "_sudo", lambda: False)
    with pytest.raises(
        SetupFailed,
        match="sudo apt-get install --no-install-recommends slurmctld slurmd slurm-client munge",
    ):
        provider.plan()


def test_missing_packages_are_planned_for_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = _provider(tmp_path)
    monkeypatch.setattr(packages, "BINARIES", {"surely-not-here": "slurmd"})
    monkeypatch.setattr(packages, "require_installable", lambda _: None)
    assert provider.plan().packages == packages.PACKAGES


@pytest.mark.parametrize(
    ("folder", "aliased"),
    [
        ("/home/a/.local/share/clusterkit/clusters/local", False),
        ("/home/" + "a" * 60, True),
        ("/home/a b/clusters/local", True),
        ("/home/{{ x }}", True),
        ("/home/a#b", True),
        ("/home/ü", True),
        ("/home/%h", True),
    ],
)
def test_paths_that_slurm_cannot_use_get_a_short_name(folder: str, aliased: bool) -> None:
    provider = _provider(Path(folder))
    assert (provider.base != Path(folder)) == aliased
    # <spool>/<node of 64>_<job>.<step>
    assert len(os.fsencode(f"{provider.base}/slurm/spool")) + 1 + 64 + 2 + 10 + 10 < 160
    assert " " not in provider.slurm_conf


def test_somebody_elses_short_folder_is_refused(tmp_path: Path) -> None:
    alias = private.alias(tmp_path / "with space", tmp_path)
    assert alias is not None
    alias.symlink_to("/etc")
    with pytest.raises(ClusterError, match="CLUSTERKIT_HOME"):
        private.make_alias(alias, tmp_path)


def test_the_key_is_random_and_private_and_kept(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        key = tmp_path / f"{name}.key"
        private.make_key(key)
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        contents.append(key.read_bytes())
        private.make_key(key)
        assert key.read_bytes() == contents[-1]
    assert contents[0] != contents[1]
    assert len(contents[0]) == 128


def test_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with ansible._own_signals():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_failed_assert_speaks_for_itself() -> None:
    data = {
        "task": "Judge", "host": "vm", "task_action": "ansible.builtin.assert",
        "res": {"msg": "do this: that"},
    }  # fmt: skip
    assert ansible.failure(data) == "do this: that"


def test_a_failed_command_names_task_host_and_words() -> None:
    words = ansible.failure(
        {
            "task": "Start slurmd",
            "host": "vm",
            "task_action": "ansible.builtin.raw",
            "res": {"msg": "non-zero return code", "stderr": "slurmd: fatal: no port"},
        }
    )
    assert all(part in words for part in ("Start slurmd", "vm", "fatal: no port"))


def test_a_roles_own_words_are_all_that_is_said() -> None:
    said = "apt's long story\nclusterkit: w1: the disk is full\n"
    data = {"task": "Prepare", "host": "w1", "res": {"msg": "non-zero", "stderr": said}}
    assert ansible.failure(data) == "w1: the disk is full"
    other = {**data, "host": "w2", "res": {"stderr": "sh: boom"}}
    assert ansible.reasons([data, other, {**other, "host": "w3"}]) == [
        "w1: the disk is full",
        "task 'Prepare' failed on w2, w3: \n  sh: boom",
    ]


def test_secrets_stay_out_of_a_failure() -> None:
    words = ansible.failure({"task": "Key", "host": "vm", "res": {"censored": "the output..."}})
    assert "kept secret" in words
