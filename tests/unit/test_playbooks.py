"""The roles: every one describes itself, and its script is one that a shell reads."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from playbooks_scripts import PLAYBOOKS, ROLES, render

HOSTS = [{"name": "head", "address": "10.0.0.1"}, {"name": "w1", "address": "10.0.0.2"}]
GIVEN: dict[str, Any] = {
    "ansible_check_mode": False,
    "cluster_id": "0011223344556677",
    "cluster_name": "lab",
    "node_name": "w1",
    "group_names": ["base", "munge", "slurm", "worker", "shared_home"],
    "slurm_cgroups": True,
    "base_hosts": HOSTS,
    "base_user": "o'hara",
    "base_uid": 5000,
    "base_user_key": "ssh-ed25519 AAAA it's mine",
    "base_known_hosts": "head ssh-ed25519 AAAA\nw1 ssh-ed25519 BBBB",
    "munge_service_manager": "systemd",
    "slurm_service_manager": "systemd",
    "munge_key_source": "/etc/clusterkit/munge.key",
    "slurm_cluster_name": "lab",
    "slurm_ctld_host": "head(10.0.0.1)",
    "slurm_daemons": ["slurmd"],
    "slurm_nodes": [{"NodeName": "w1", "NodeAddr": "10.0.0.2", "CPUs": 2, "Gres": "gpu:t4:1"}],
    "slurm_partitions": [{"PartitionName": "main", "Nodes": "w1", "Default": "YES"}],
    "slurm_gres": [{"NodeName": "w1", "Name": "gpu", "Type": "t4", "File": "/dev/nvidia0"}],
    "slurm_conf": {"MessageTimeout": 20, "MailProg": None},
    "slurm_accounting": True,
    "gpus_promised": 1,
    "shared_home_kind": "nfs",
    "shared_home_server": "10.0.0.1",
    "shared_home_folder": "/home",
    "shared_home_network": ["10.0.0.2"],
    "done_digest": "abc",
}
HEAD = {
    "node_name": "head",
    "group_names": ["base", "munge", "slurm", "head", "slurm_accounting", "shared_home"],
    "slurm_daemons": ["slurmctld"],
    "gpus_promised": 0,
}
SCRIPTS = [*ROLES, "verify", "done"]


@pytest.mark.parametrize("role", ROLES)
def test_every_role_describes_its_variables(role: str) -> None:
    folder = PLAYBOOKS / "roles" / role
    specs = yaml.safe_load((folder / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    described = {name for entry in specs.values() for name in entry["options"]}
    assert set(specs) == {file.stem for file in (folder / "tasks").iterdir()}
    defaults = yaml.safe_load((folder / "defaults" / "main.yml").read_text())
    assert all(name.startswith(f"{role}_") for name in defaults)
    documented = yaml.safe_load((folder / "meta" / "main.yml").read_text())["galaxy_info"]
    assert documented["description"]
    if role not in ("munge", "slurm"):  # which have defaults for places that nobody sets
        assert set(defaults) <= described


@pytest.mark.parametrize("role", SCRIPTS)
@pytest.mark.parametrize("host", [{}, HEAD], ids=["worker", "head"])
@pytest.mark.parametrize("check", [False, True], ids=["run", "check"])
def test_scripts_are_shell(role: str, host: Mapping[str, Any], check: bool) -> None:
    text = render(role, {**GIVEN, **host, "ansible_check_mode": check})
    for shell in ("/bin/sh", "bash"):
        checked = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
    assert "{{" not in text
    assert "{%" not in text
    # One argument of a command line: MAX_ARG_STRLEN is 128 KiB, and every quote takes five bytes.
    assert len(text) + 4 * text.count("'") < 60_000
    if program := shutil.which("shellcheck"):
        options = ["--shell=sh", "--severity=warning"]
        checked = subprocess.run(
            [program, *options, "-"], input=text, capture_output=True, text=True
        )
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("role", SCRIPTS)
def test_scripts_keep_the_rules(role: str) -> None:
    text = render(role, {**GIVEN, **HEAD})
    assert text.lstrip().startswith("# What every role's script begins with")
    assert "flock" in text
    assert "trap finish EXIT" in text
    assert not re.search(r"systemctl[^\n]*--now", text)
    # Nothing is fetched past the package managers, and no password stands in an argument.
    assert not re.search(r"\b(curl|wget)\b|--password", text)


@pytest.mark.parametrize("file", ["site.yml", *(f"roles/{role}/tasks/main.yml" for role in ROLES)])
def test_raw_tasks_know_check_mode(file: str) -> None:
    text = (PLAYBOOKS / file).read_text()
    raw = text.count("builtin.raw")
    assert raw == text.count("check_mode: false") == text.count("changed_when") > 0


def _slurm_conf(given: Mapping[str, Any]) -> dict[str, str]:
    text = render("slurm", {**GIVEN, **given})
    begin = text.index("# Written by clusterkit", text.index("writing slurm.conf"))
    lines = text[begin:].splitlines()
    # slurm.conf, gres.conf and cgroup.conf; the first line of a key counts.
    pairs = [line.split("=", 1) for line in lines if re.match(r"\w+=", line)]
    return {pair[0]: pair[1] for pair in reversed(pairs)}


def test_slurm_conf_of_machines() -> None:
    conf = _slurm_conf(HEAD)
    assert conf["ProctrackType"] == "proctrack/cgroup"
    assert conf["TaskPlugin"] == "task/cgroup,task/affinity"
    assert conf["AccountingStorageType"] == "accounting_storage/slurmdbd"
    assert conf["AccountingStorageHost"] == "10.0.0.1"
    assert conf["StateSaveLocation"] == "/var/lib/slurm/state"
    assert conf["SlurmUser"] == "slurm"
    assert conf["SlurmdUser"] == "root"
    assert conf["MessageTimeout"] == "20"
    assert "MailProg" not in conf
    assert conf["GresTypes"] == "gpu"
    assert conf["SlurmdTimeout"] == "60"
    assert conf["NodeName"] == "w1 NodeAddr=10.0.0.2 CPUs=2 Gres=gpu:t4:1"


def test_machines_without_control_groups() -> None:
    conf = _slurm_conf({"slurm_cgroups": False})
    assert conf["ProctrackType"] == "proctrack/linuxproc"
    assert conf["TaskPlugin"] == "task/none"
    assert conf["CgroupPlugin"] == "cgroup/v1"


def test_without_accounting_and_gpus() -> None:
    conf = _slurm_conf({**HEAD, "slurm_accounting": False, "slurm_gres": []})
    assert conf["AccountingStorageType"] == "accounting_storage/none"
    assert not {"AccountingStorageHost", "AccountingStorageTRES", "GresTypes"} & set(conf)


def _packages(host: Mapping[str, Any]) -> list[str]:
    (line,) = re.findall(r"(?m)^install_packages \$clock (.*)$", render("base", {**GIVEN, **host}))
    return str(line).split()


def test_packages_by_group() -> None:
    assert _packages(HEAD) == [
        "ca-certificates", "mariadb-server", "munge", "nfs-kernel-server", "rsync", "slurm-client",
        "slurmctld", "slurmdbd",
    ]  # fmt: skip
    assert _packages({}) == [
        "ca-certificates", "munge", "nfs-common", "rsync", "slurm-client", "slurmd",
    ]  # fmt: skip
    assert "nfs-common" not in _packages({"shared_home_kind": "bind"})


def test_machines_of_others_keep_their_upgrades() -> None:
    assert "unattended-upgrades" in render("base", GIVEN)
    assert "unattended-upgrades" not in render("base", {**GIVEN, "base_owns_machine": False})


#: What `apt-cache search` lists of drivers.
DRIVERS = "".join(
    f"nvidia-headless-{one} - NVIDIA headless metapackage\n"
    for one in ("535-server", "535-server-open", "580-server", "580-server-open",
                "1000-server", "1000-server-open", "470-server")
)  # fmt: skip
T4, V100, B200 = "0x1eb8", "0x1db1", "0x2901"


@pytest.mark.parametrize(
    ("ids", "only", "chosen"),
    [
        ([T4], "", "1000-server-open"),
        ([B200, B200], "", "1000-server-open"),
        ([V100], "", "580-server"),  # the last series for it, and it has no open module
        ([T4, V100], "", "580-server"),
        ([], "", "1000-server-open"),  # an image's builder has none
        ([T4], "535", "535-server-open"),
        ([V100], "535", "535-server"),
        ([T4], "470", "470-server"),  # a series without the open one
        ([T4], "999", ""),
    ],
)
def test_the_driver_fits_the_gpus(tmp_path: Path, ids: list[str], only: str, chosen: str) -> None:
    for number, one in enumerate(ids):
        device = tmp_path / f"0000:00:{number:02}.0"
        device.mkdir()
        for name, text in (("vendor", "0x10de"), ("class", "0x030200"), ("device", one)):
            (device / name).write_text(f"{text}\n")
    text = render("nvidia", GIVEN)
    functions = text[text.index("devices() {") : text.index("step='looking for a driver'")]
    script = functions.replace("/sys/bus/pci/devices", str(tmp_path)) + 'series "$1"\n'
    for shell in ("sh", "bash"):
        told = subprocess.run(
            [shell, "-euc", script, shell, only], input=DRIVERS, capture_output=True, text=True
        )
        assert (told.stdout.strip(), told.stderr) == (chosen, "")
